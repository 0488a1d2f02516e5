//! Rates: the change of a field since the last sample of the same run that had it. And a ratio within one sample.

use std::rc::Rc;
use std::time::Instant;

use smol_str::SmolStr;

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
    /// Per second, in the order of [`NET_RATES`].
    pub net: [Option<f64>; 4],
    /// Per second, in the order of [`DISK_RATES`].
    pub disk: [Option<f64>; 4],
}

/// The last value of each field of one run, and when it was measured.
#[derive(Debug, Clone, Default)]
pub struct Previous {
    /// There was a sample.
    any: bool,
    memory: Option<(Instant, u64)>,
    cpu: Option<PreviousCpu>,
    net: [Option<PreviousSum<NIC_COUNTERS>>; 4],
    disk: [Option<PreviousSum<DISK_COUNTERS>>; 4],
}

#[derive(Debug, Clone, Copy)]
struct PreviousCpu {
    at: Instant,
    time: u64,
    vcpus: u64,
}

#[derive(Debug, Clone)]
struct PreviousSum<const N: usize> {
    at: Instant,
    value: u64,
    counters: Rc<DeviceCounters<N>>,
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
        Features {
            memory_rate,
            memory_angle: memory_rate.map(|rate| rate.atan().to_degrees()),
            cpu_usage: self.cpu_usage(sample),
            // It needs no earlier sample, but the measurement begins with the second one.
            memory_guest_used: guest_used(&sample.memory).filter(|_| !is_first),
            net: rates(
                &mut self.net,
                sample.nics.as_ref(),
                sample.removed.nic,
                net,
                NET_RATES,
            ),
            disk: rates(
                &mut self.disk,
                sample.disks.as_ref(),
                sample.removed.disk,
                disk,
                DISK_RATES,
            ),
        }
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
fn seconds(from: Instant, to: Instant) -> Option<f64> {
    let passed = to.checked_duration_since(from)?.as_secs_f64();
    (passed > 0.0).then_some(passed)
}

fn rates<const N: usize>(
    previous: &mut [Option<PreviousSum<N>>; 4],
    devices: Option<&Devices<N>>,
    removed: Option<Instant>,
    sums: &[Option<u64>; N],
    fields: [(usize, &str); 4],
) -> [Option<f64>; 4] {
    let Some(devices) = devices else {
        return [None; 4];
    };
    let mut counters: DeviceCounters<N> = devices
        .list
        .iter()
        .filter_map(|device| Some((device.name.clone()?, device.counters)))
        .collect();
    counters.sort_unstable();
    let counters = Rc::new(counters);
    // The four sums nearly always have the same previous sample, whose names need comparing once.
    let mut compared: Option<(Rc<DeviceCounters<N>>, bool)> = None;
    std::array::from_fn(|i| {
        let counter = fields[i].0;
        let now = PreviousSum {
            at: devices.at,
            value: sums[counter]?,
            counters: Rc::clone(&counters),
        };
        let (at, value) = (now.at, now.value);
        let before = previous[i].replace(now)?;
        // Another device may have got the name of a device that was removed since.
        if removed.is_some_and(|removed| removed >= before.at) {
            return None;
        }
        let alike = match &compared {
            Some((previous, alike)) if Rc::ptr_eq(previous, &before.counters) => *alike,
            _ => {
                let alike = are_alike(&before.counters, &counters);
                compared = Some((Rc::clone(&before.counters), alike));
                alike
            }
        };
        if !alike || fell(&before.counters, &counters, counter) {
            return None;
        }
        let moved = value.checked_sub(before.value)? as f64;
        Some(moved / seconds(before.at, at)?)
    })
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
