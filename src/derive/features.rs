//! Rates, and latencies over all disks: the change of a field since the last sample of the same run that had it.
//! And a ratio within one sample.

use std::rc::Rc;
use std::time::Instant;

use smol_str::SmolStr;

use super::latency::{DISK_LATENCIES, per_request};
use super::steal::PreviousVcpus;
use crate::sample::{DISK_COUNTERS, Devices, Memory, NIC_COUNTERS, Sample};

/// The network sums of which a rate is written: (index into the NIC counters, field name).
pub const NET_RATES: [(usize, &str); 4] = [
    (0, "net_rxbytes_rate"),
    (4, "net_txbytes_rate"),
    (1, "net_rxpackets_rate"),
    (5, "net_txpackets_rate"),
];

/// The disk sums of which a rate is written: (index into the disk counters, field name).
pub const DISK_RATES: [(usize, &str); 4] = [
    (0, "disk_rd_req_rate"),
    (1, "disk_rd_bytes_rate"),
    (2, "disk_wr_reqs_rate"),
    (3, "disk_wr_bytes_rate"),
];

/// The rates of one VM. `None`: this run has no two samples from which the rate follows.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Features {
    /// Change of the memory given to the VM, KiB/s.
    pub memory_rate: Option<f64>,
    /// The arc tangent of [`Features::memory_rate`], degrees.
    pub memory_angle: Option<f64>,
    /// CPU time used, divided by the measured time and the number of vCPUs, percent. It may pass 100,
    /// for it includes QEMU's own threads.
    pub cpu_usage: Option<f64>,
    /// The memory in use inside the guest, as a part of what the guest sees, percent.
    pub memory_guest_used: Option<f64>,
    /// Time in which vCPUs were ready to run and had no CPU of the host, divided by the measured time and
    /// the number of vCPUs, percent.
    pub cpu_steal: Option<f64>,
    /// Per second, in the order of [`NET_RATES`].
    pub net: [Option<f64>; 4],
    /// Per second, in the order of [`DISK_RATES`].
    pub disk: [Option<f64>; 4],
    /// Milliseconds per request over all disks, in the order of [`DISK_LATENCIES`].
    pub disk_latency: [Option<f64>; 3],
}

/// The last value of each field of one run, and when it was measured.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    /// There was a sample.
    any: bool,
    memory: Option<(Instant, u64)>,
    cpu: Option<PreviousCpu>,
    net: [Option<Rc<Summed<NIC_COUNTERS>>>; 4],
    disk: [Option<Rc<Summed<DISK_COUNTERS>>>; 4],
    disk_latency: [Option<Rc<Summed<DISK_COUNTERS>>>; 3],
    vcpus: PreviousVcpus,
}

#[derive(Debug, Clone, Copy)]
struct PreviousCpu {
    at: Instant,
    time: u64,
    vcpus: u64,
}

/// The sums of one sample, and what they are made of.
#[derive(Debug)]
struct Summed<const N: usize> {
    at: Instant,
    sums: [Option<u64>; N],
    devices: DeviceCounters<N>,
}

/// The devices of a sum by name, in order, with their counters.
type DeviceCounters<const N: usize> = Vec<(SmolStr, [Option<u64>; N])>;

impl Previous {
    /// Calculates the rates of this sample, and remembers its figures for the next one. A field that
    /// the sample lacks keeps its older value.
    pub fn advance(
        &mut self,
        sample: &Sample,
        net: &[Option<u64>; NIC_COUNTERS],
        disk: &[Option<u64>; DISK_COUNTERS],
    ) -> Features {
        let memory_rate = self.memory_rate(sample);
        let is_first = !std::mem::replace(&mut self.any, true);
        let mut features = Features {
            memory_rate,
            memory_angle: memory_rate.map(|rate| rate.atan().to_degrees()),
            cpu_usage: self.cpu_usage(sample),
            cpu_steal: self.vcpus.steal(sample.vcpu_times.as_ref()),
            // It needs no earlier sample, but the measurement begins with the second one.
            memory_guest_used: guest_used(&sample.memory).filter(|_| !is_first),
            ..Features::default()
        };
        if let Some(nics) = &sample.nics {
            let mut now = Comparison::new(nics, sample.removed.nic, net);
            features.net = now.rates(&mut self.net, NET_RATES);
        }
        if let Some(disks) = &sample.disks {
            let mut now = Comparison::new(disks, sample.removed.disk, disk);
            features.disk = now.rates(&mut self.disk, DISK_RATES);
            features.disk_latency = now.latencies(&mut self.disk_latency);
        }
        features
    }

    fn memory_rate(&mut self, sample: &Sample) -> Option<f64> {
        let now = sample.memory.current?;
        let at = sample.memory.at;
        let (then, before) = self.memory.replace((at, now))?;
        Some((now as f64 - before as f64) / seconds(then, at)?)
    }

    fn cpu_usage(&mut self, sample: &Sample) -> Option<f64> {
        let now = PreviousCpu {
            at: sample.cpu.at,
            time: sample.cpu.time?,
            vcpus: sample.vcpus?,
        };
        let before = self.cpu.replace(now)?;
        if before.vcpus != now.vcpus || now.vcpus == 0 {
            return None;
        }
        let used = now.time.checked_sub(before.time)? as f64 / 1e9;
        Some(100.0 * used / (seconds(before.at, now.at)? * now.vcpus as f64))
    }
}

fn guest_used(memory: &Memory) -> Option<f64> {
    let available = memory.available.filter(|available| *available > 0)?;
    let used = available.checked_sub(memory.usable?)?;
    Some(100.0 * used as f64 / available as f64)
}

/// The seconds between the two; `None` where no time passed, for then there is no rate.
pub(super) fn seconds(from: Instant, to: Instant) -> Option<f64> {
    let passed = to.checked_duration_since(from)?.as_secs_f64();
    (passed > 0.0).then_some(passed)
}

/// One sample, compared with the earlier samples from which its fields follow.
struct Comparison<const N: usize> {
    now: Rc<Summed<N>>,
    /// When a device was last removed.
    removed: Option<Instant>,
    /// The sample that was compared last, and whether it has the same devices. All fields nearly always have the same
    /// previous sample, whose names need comparing once.
    compared: Option<(Rc<Summed<N>>, bool)>,
}

impl<const N: usize> Comparison<N> {
    fn new(devices: &Devices<N>, removed: Option<Instant>, sums: &[Option<u64>; N]) -> Self {
        let named = devices.list.iter();
        let mut counters: DeviceCounters<N> = named
            .filter_map(|device| Some((device.name.clone()?, device.counters)))
            .collect();
        counters.sort_unstable();
        Self {
            now: Rc::new(Summed {
                at: devices.at,
                sums: *sums,
                devices: counters,
            }),
            removed,
            compared: None,
        }
    }

    /// The last sample that had the sums of these counters, and the seconds since then. `None` if no change follows from
    /// it. If this sample has the sums, it is remembered in `slot`.
    fn previous(
        &mut self,
        slot: &mut Option<Rc<Summed<N>>>,
        counters: &[usize],
    ) -> Option<(Rc<Summed<N>>, f64)> {
        if counters.iter().any(|i| self.now.sums[*i].is_none()) {
            return None;
        }
        let before = slot.replace(Rc::clone(&self.now))?;
        // Another device may have got the name of a device that was removed since.
        if self.removed.is_some_and(|removed| removed >= before.at) {
            return None;
        }
        let alike = match &self.compared {
            Some((previous, alike)) if Rc::ptr_eq(previous, &before) => *alike,
            _ => {
                let alike = are_alike(&before.devices, &self.now.devices);
                self.compared = Some((Rc::clone(&before), alike));
                alike
            }
        };
        let fell = |i: &usize| fell(&before.devices, &self.now.devices, *i);
        if !alike || counters.iter().any(fell) {
            return None;
        }
        let passed = seconds(before.at, self.now.at)?;
        Some((before, passed))
    }

    fn rates(
        &mut self,
        slots: &mut [Option<Rc<Summed<N>>>; 4],
        fields: [(usize, &str); 4],
    ) -> [Option<f64>; 4] {
        std::array::from_fn(|i| {
            let counter = fields[i].0;
            let (before, passed) = self.previous(&mut slots[i], &[counter])?;
            let moved = self.now.sums[counter]?.checked_sub(before.sums[counter]?)?;
            Some(moved as f64 / passed)
        })
    }
}

impl Comparison<DISK_COUNTERS> {
    fn latencies(
        &mut self,
        slots: &mut [Option<Rc<Summed<DISK_COUNTERS>>>; 3],
    ) -> [Option<f64>; 3] {
        std::array::from_fn(|i| {
            let (time, requests) = DISK_LATENCIES[i];
            let (before, _) = self.previous(&mut slots[i], &[time, requests])?;
            let (mut ns, mut ended) = (0.0, 0.0);
            for ((_, before), (_, now)) in before.devices.iter().zip(&self.now.devices) {
                let moved = |counter: usize| now[counter]?.checked_sub(before[counter]?);
                // The requests of a disk whose time is not reported do not count.
                if let Some((time, requests)) = moved(time).zip(moved(requests)) {
                    ns += time as f64;
                    ended += requests as f64;
                }
            }
            per_request(ns, ended)
        })
    }
}

/// Whether these are the same devices.
fn are_alike<const N: usize>(before: &DeviceCounters<N>, now: &DeviceCounters<N>) -> bool {
    let names = before.iter().map(|(name, _)| name);
    names.eq(now.iter().map(|(name, _)| name))
}

/// Whether a counter fell of any of these devices. A device that was replaced by one of the same name
/// counts from 0 again, and a sum does not show that where another device moved more.
fn fell<const N: usize>(
    before: &DeviceCounters<N>,
    now: &DeviceCounters<N>,
    counter: usize,
) -> bool {
    let mut pairs = before.iter().zip(now);
    pairs.any(|((_, before), (_, now))| {
        let both = before[counter].zip(now[counter]);
        both.is_some_and(|(before, now)| now < before)
    })
}

#[cfg(test)]
mod rules;
#[cfg(test)]
mod tests;
