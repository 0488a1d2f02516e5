//! Bulk statistics (`virDomainListGetStats`): the groups of statistics, and from a record's keys to a [`Sample`].

mod defined;
mod groups;
pub mod keys;
mod vcpus;

use std::time::Instant;

use smol_str::SmolStr;
use virt::sys;

use super::Value;
use crate::sample::{DISK_COUNTERS, Device, Devices, NIC_COUNTERS, Sample};
pub(crate) use defined::Defined;
pub use groups::Groups;

/// The flag that skips a domain whose monitor is occupied instead of waiting for it (libvirt 4.5).
pub const NOWAIT: u32 = sys::VIR_CONNECT_GET_ALL_DOMAINS_STATS_NOWAIT;

/// Fills `sample` from the parameters of a record (or from the output of `virsh domstats`), and returns the groups that
/// were reported. A group was reported if one of its figures that this program uses was: a driver without a
/// group gives none of its keys, and the cpu group of a host without cpuacct has only `cpu.haltpoll.*`.
///
/// The keys of a device have its index in common, and one of them is its name. The indexes have gaps (a user-mode
/// NIC is counted but has no key), and neither their order nor the count is reliable.
pub fn fill<'a, K: AsRef<[u8]>>(
    sample: &mut Sample,
    params: impl Iterator<Item = (K, Value<'a>)>,
    at: Instant,
) -> Groups {
    let mut nics = Indexed::<NIC_COUNTERS>::default();
    let mut disks = Indexed::<DISK_COUNTERS>::default();
    let mut vcpus = vcpus::Vcpus::default();
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
            b"vcpu" => vcpus.set(key, value),
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
    sample.vcpu_times = vcpus.into_times(at);
    sample.nics = nics.into_devices(at);
    sample.disks = disks.into_devices(at);
    reported(sample)
}

fn reported(sample: &Sample) -> Groups {
    let memory = &sample.memory;
    let groups = [
        (Groups::STATE, sample.state.is_some()),
        (Groups::CPU, sample.cpu.time.is_some()),
        (Groups::BALLOON, memory.current.or(memory.maximum).is_some()),
        (Groups::VCPU, sample.vcpu_times.is_some()),
        (Groups::NET, sample.nics.is_some()),
        (Groups::BLOCK, sample.disks.is_some()),
    ];
    groups
        .into_iter()
        .filter(|(_, is_reported)| *is_reported)
        .fold(Groups::NONE, |all, (group, _)| all | group)
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
        b"unused" => memory.unused = value,
        b"last-update" => memory.last_update = value,
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
        b"rd.times" => 5,
        b"wr.times" => 6,
        b"fl.times" => 7,
        b"fl.reqs" => 8,
        b"capacity" => 9,
        b"allocation" => 10,
        b"physical" => 11,
        _ => return None,
    })
}

/// Splits a key at the first dot. Keys are bytes because this is the inner loop of a gather: to check them for
/// UTF-8 and search them for a char took three quarters of its instructions.
fn split(key: &[u8]) -> Option<(&[u8], &[u8])> {
    let dot = key.iter().position(|byte| *byte == b'.')?;
    Some((&key[..dot], &key[dot + 1..]))
}

/// The devices of `net.*` or `block.*` while these keys are being read.
#[derive(Default)]
struct Indexed<const N: usize> {
    /// The value of `net.count` or `block.count`.
    counted: Option<usize>,
    /// Index, name and counters of each device.
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
        let index = str::from_utf8(index)
            .ok()
            .and_then(|index| index.parse::<usize>().ok());
        let Some(index) = index else { return };
        // libvirt sends the keys of a device together, so the slot is nearly always the last one.
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
        // No VM has more devices than this; a wrong count must not fill the memory.
        let counted = self.counted.unwrap_or_default().min(10_000);
        let mut list: Vec<Device<N>> = self
            .slots
            .into_iter()
            .filter(|(_, name, _)| name.is_some())
            .map(|(_, name, counters)| Device {
                name,
                kind: SmolStr::default(),
                counters,
                io_errors: None,
            })
            .collect();
        // Devices that are counted but have no keys have no counters, so there is no sum.
        while list.len() < counted {
            list.push(Device {
                name: None,
                kind: SmolStr::default(),
                counters: [None; N],
                io_errors: None,
            });
        }
        Some(Devices {
            at,
            list,
            complete: true,
        })
    }
}

/// A counter or a size. A negative number (-1: not counted) or another type means that it is not reported.
pub(super) fn count(value: Value<'_>) -> Option<u64> {
    match value {
        Value::Integer(number) => u64::try_from(number).ok(),
        Value::Float(_) | Value::Text(_) => None,
    }
}

/// A number of one of libvirt's enumerations, none of which is negative.
pub(super) fn choice(value: Value<'_>) -> Option<i32> {
    count(value).and_then(|number| i32::try_from(number).ok())
}

#[cfg(test)]
mod tests;
