//! Bulk statistics (`virDomainListGetStats`): which groups, and a record's keys -> [`Sample`].

use std::time::Instant;

use smol_str::SmolStr;
use virt::sys;

use super::Value;
use crate::sample::{DISK_COUNTERS, Device, Devices, NIC_COUNTERS, Sample};

/// Passes by a domain whose monitor is occupied instead of waiting for it (libvirt 4.5).
pub const NOWAIT: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;

/// A set of statistics groups (`virDomainStatsTypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups(u32);

impl Groups {
    /// No group.
    pub const NONE: Self = Self(0);
    /// State and its reason.
    pub const STATE: Self = Self(sys::VIR_DOMAIN_STATS_STATE);
    /// CPU time.
    pub const CPU: Self = Self(sys::VIR_DOMAIN_STATS_CPU_TOTAL);
    /// Memory.
    pub const BALLOON: Self = Self(sys::VIR_DOMAIN_STATS_BALLOON);
    /// Network interfaces.
    pub const NET: Self = Self(sys::VIR_DOMAIN_STATS_INTERFACE);
    /// Disks.
    pub const BLOCK: Self = Self(sys::VIR_DOMAIN_STATS_BLOCK);
    /// Those that may need QEMU's monitor.
    pub const MONITOR: Self = Self(Self::CPU.0 | Self::BALLOON.0 | Self::BLOCK.0);

    /// libvirt's number.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// Whether all of `other` is in it.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// What is in both.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// Without `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

impl std::ops::BitOr for Groups {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}

/// Fills `sample` from a record's parameters (or `virsh domstats` output, for that matter) and
/// says which groups came. A group came when a figure that is wanted of it did: a driver that lacks
/// one gives none of its keys, and the cpu group of a host without cpuacct has `cpu.haltpoll.*` alone.
///
/// Devices are bound by their index in the key and named by its `name` key: indexes have gaps (a
/// user-mode NIC is counted, yet has no key), and neither order nor count can be relied on.
pub fn fill<'a, K: AsRef<[u8]>>(
    sample: &mut Sample,
    params: impl Iterator<Item = (K, Value<'a>)>,
    at: Instant,
) -> Groups {
    let mut nics = Indexed::<NIC_COUNTERS>::default();
    let mut disks = Indexed::<DISK_COUNTERS>::default();
    for (key, value) in params {
        let Some((group, key)) = split(key.as_ref()) else {
            continue;
        };
        match group {
            b"state" => match key {
                b"state" => sample.state = choice(value),
                b"reason" => sample.reason = choice(value),
                _ => {}
            },
            b"cpu" => match key {
                b"time" => sample.cpu.time = count(value),
                b"user" => sample.cpu.user = count(value),
                b"system" => sample.cpu.system = count(value),
                _ => {}
            },
            b"balloon" => balloon(sample, key, value),
            b"net" => nics.set(key, value, nic_counter),
            b"block" => {
                if let Value::Text(path) = value
                    && key.ends_with(b".path")
                {
                    sample.paths.push_str(path);
                    sample.paths.push('\0');
                }
                disks.set(key, value, disk_counter);
            }
            _ => {}
        }
    }
    sample.cpu.at = at;
    sample.memory.at = at;
    sample.nics = nics.into_devices(at);
    sample.disks = disks.into_devices(at);
    came(sample)
}

fn came(sample: &Sample) -> Groups {
    let memory = &sample.memory;
    let groups = [
        (Groups::STATE, sample.state.is_some()),
        (Groups::CPU, sample.cpu.time.is_some()),
        (Groups::BALLOON, memory.current.or(memory.maximum).is_some()),
        (Groups::NET, sample.nics.is_some()),
        (Groups::BLOCK, sample.disks.is_some()),
    ];
    let came = groups.into_iter().filter(|(_, came)| *came);
    came.fold(Groups::NONE, |all, (group, _)| all | group)
}

fn balloon(sample: &mut Sample, key: &[u8], value: Value<'_>) {
    let memory = &mut sample.memory;
    let value = count(value);
    match key {
        b"maximum" => memory.maximum = value,
        b"current" => {
            memory.current = value;
            memory.actual = value;
        }
        b"rss" => memory.rss = value,
        b"available" => memory.available = value,
        b"usable" => memory.usable = value,
        b"swap_in" => memory.swap_in = value,
        b"swap_out" => memory.swap_out = value,
        b"major_fault" => memory.major_fault = value,
        b"minor_fault" => memory.minor_fault = value,
        b"disk_caches" => memory.disk_caches = value,
        _ => {}
    }
}

fn nic_counter(key: &[u8]) -> Option<usize> {
    Some(match key {
        b"rx.bytes" => 0,
        b"rx.pkts" => 1,
        b"rx.errs" => 2,
        b"rx.drop" => 3,
        b"tx.bytes" => 4,
        b"tx.pkts" => 5,
        b"tx.errs" => 6,
        b"tx.drop" => 7,
        _ => return None,
    })
}

fn disk_counter(key: &[u8]) -> Option<usize> {
    Some(match key {
        b"rd.reqs" => 0,
        b"rd.bytes" => 1,
        b"wr.reqs" => 2,
        b"wr.bytes" => 3,
        b"errors" => 4,
        _ => return None,
    })
}

/// At the first dot. Keys are compared as bytes: this is the inner loop of a gather, and looking for
/// a char in a str, each checked to be UTF-8, took it three quarters of its instructions.
fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = key.iter().position(|byte| *byte == b'.')?;
    Some((&key[..dot], &key[dot + 1..]))
}

/// `net.*` or `block.*` while it is being read.
#[derive(Default)]
struct Indexed<const N: usize> {
    counted: Option<usize>,
    slots: Vec<(usize, Option<SmolStr>, [Option<u64>; N])>,
}

impl<const N: usize> Indexed<N> {
    fn set(&mut self, key: &[u8], value: Value<'_>, counter: fn(&[u8]) -> Option<usize>) {
        if key == b"count" {
            self.counted = count(value).and_then(|n| usize::try_from(n).ok());
            return;
        }
        let Some((index, key)) = split(key) else {
            return;
        };
        let index = str::from_utf8(index).ok();
        let Some(index) = index.and_then(|index| index.parse::<usize>().ok()) else {
            return;
        };
        // libvirt sends a device's keys together, so the slot is nearly always the last one.
        let position = match self.slots.iter().rposition(|slot| slot.0 == index) {
            Some(position) => position,
            None => {
                self.slots.push((index, None, [None; N]));
                self.slots.len() - 1
            }
        };
        let (_, name, counters) = &mut self.slots[position];
        if key == b"name" {
            if let Value::Text(text) = value {
                *name = Some(text.into());
            }
        } else if let Some(at) = counter(key) {
            counters[at] = count(value);
        }
    }

    fn into_devices(self, at: Instant) -> Option<Devices<N>> {
        if self.counted.is_none() && self.slots.is_empty() {
            return None;
        }
        // No VM has so many; a count that is nonsense must not fill memory.
        let counted = self.counted.unwrap_or_default().min(10_000);
        let mut list: Vec<Device<N>> = self
            .slots
            .into_iter()
            .filter(|(_, name, _)| name.is_some())
            .map(|(_, name, counters)| Device {
                name,
                kind: SmolStr::default(),
                counters,
            })
            .collect();
        // Devices that are counted but nameless have no counters, and no sum can be made of them.
        while list.len() < counted {
            list.push(Device {
                name: None,
                kind: SmolStr::default(),
                counters: [None; N],
            });
        }
        Some(Devices {
            at,
            list,
            complete: true,
        })
    }
}

/// A counter or a size: what is negative (-1: not counted) or no number is not reported.
fn count(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(number).ok(),
        Value::Float(_) | Value::Text(_) => None,
    }
}

/// A number of an enumeration: none of libvirt's is negative.
fn choice(value: Value<'_>) -> Option<i32> {
    count(value).and_then(|number| i32::try_from(number).ok())
}

#[cfg(test)]
mod tests;
