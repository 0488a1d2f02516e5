//! The contract's rules of rates, written a second time and compared over whole histories.

use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::derive::totals::{self, SupportedCounters};
use crate::sample::Device;
use crate::sample::testing::{any_devices, counter, devices, empty};

/// The figures of one gather.
#[derive(Debug, Clone)]
struct Gather {
    /// Milliseconds since the previous gather.
    passed: u64,
    memory: Option<u64>,
    cpu: Option<u64>,
    vcpus: Option<u64>,
    nics: Option<Vec<Device<NIC_COUNTERS>>>,
    disks: Option<Vec<Device<DISK_COUNTERS>>>,
}

fn gather() -> impl Strategy<Value = Gather> {
    (
        prop_oneof![1 => Just(0_u64), 5 => 1..20_000_u64],
        counter(),
        counter(),
        prop::option::weighted(0.8, 0..3_u64),
        any_devices::<NIC_COUNTERS>(&["vnet0", "vnet1"]),
        any_devices::<DISK_COUNTERS>(&["vda", "vdb"]),
    )
        .prop_map(|(passed, memory, cpu, vcpus, nics, disks)| Gather {
            passed,
            memory,
            cpu,
            vcpus,
            nics,
            disks,
        })
}

/// A sample and its sums.
type Summed = (
    Sample,
    [Option<u64>; NIC_COUNTERS],
    [Option<u64>; DISK_COUNTERS],
);

/// A device's name and one of its counters.
type DeviceCounter = (SmolStr, Option<u64>);

/// The samples of these gathers, with their sums.
fn samples(gathers: &[Gather]) -> Vec<Summed> {
    let mut at = Instant::now();
    let (mut nics, mut disks) = (SupportedCounters::default(), SupportedCounters::default());
    let mut all = Vec::new();
    for gather in gathers {
        at += Duration::from_millis(gather.passed);
        let mut sample = empty(at);
        sample.memory.current = gather.memory;
        sample.cpu.time = gather.cpu;
        sample.vcpus = gather.vcpus;
        sample.nics = gather.nics.clone().map(|list| devices(at, list));
        sample.disks = gather.disks.clone().map(|list| devices(at, list));
        let net = sample.nics.as_ref().map(|list| {
            nics.update(list);
            totals::sum(list, &nics)
        });
        let disk = sample.disks.as_ref().map(|list| {
            disks.update(list);
            totals::sum(list, &disks)
        });
        all.push((
            sample,
            net.unwrap_or([None; NIC_COUNTERS]),
            disk.unwrap_or([None; DISK_COUNTERS]),
        ));
    }
    all
}

/// Each device's counter number `index`, by name.
fn by_name<const N: usize>(devices: Option<&Devices<N>>, index: usize) -> Vec<DeviceCounter> {
    let mut by_name: Vec<_> = devices
        .iter()
        .flat_map(|devices| &devices.list)
        .map(|device| (device.name.clone().unwrap(), device.counters[index]))
        .collect();
    by_name.sort();
    by_name
}

/// The contract's rule for one sum, applied to the whole history: the rate since the last gather that
/// had the sum.
fn rule<D>(
    history: &[(Instant, Option<u64>, D)],
    grew: impl FnOnce(&D, &D) -> bool,
) -> Option<f64> {
    let ((at, now, new), before) = history.split_last()?;
    let now = (*now)?;
    let (then, value, old) = before.iter().rev().find(|(_, value, _)| value.is_some())?;
    let passed = at.duration_since(*then).as_secs_f64();
    let moved = now.checked_sub((*value)?)? as f64;
    (passed > 0.0 && grew(old, new)).then_some(moved / passed)
}

/// The same devices, and none of their counters went backwards.
fn same_and_grown(old: &[DeviceCounter], new: &[DeviceCounter]) -> bool {
    let names = |counters: &[DeviceCounter]| -> Vec<_> {
        counters.iter().map(|(name, _)| name.clone()).collect()
    };
    let fell = |((_, old), (_, new)): (&DeviceCounter, &DeviceCounter)| {
        old.zip(*new).is_some_and(|(old, new)| new < old)
    };
    names(old) == names(new) && !old.iter().zip(new).any(fell)
}

/// The latencies over all disks: between the same two samples as a rate of both sums, the times divided by the requests
/// of the disks that have both. Only whether the sums are there counts: the sum of the times falls where a disk does not
/// report its time any more, and the other disks' latency is right nevertheless.
fn latencies_follow(samples: &[Summed], found: &Features) -> Result<(), TestCaseError> {
    for (i, (time, requests)) in DISK_LATENCIES.into_iter().enumerate() {
        let history: Vec<_> = samples
            .iter()
            .map(|(sample, _, disk)| {
                let of = |index| by_name(sample.disks.as_ref(), index);
                let sum = disk[time].and(disk[requests]).map(|_| 0);
                (sample.cpu.at, sum, (of(time), of(requests)))
            })
            .collect();
        let mut ended = 0.0;
        let mut took = 0.0;
        let rate = rule(&history, |(old_time, old), (new_time, new)| {
            for (((_, t0), (_, n0)), ((_, t1), (_, n1))) in
                old_time.iter().zip(old).zip(new_time.iter().zip(new))
            {
                if let Some(((t0, t1), (n0, n1))) = t0.zip(*t1).zip(n0.zip(*n1)) {
                    took += t1.saturating_sub(t0) as f64;
                    ended += n1.saturating_sub(n0) as f64;
                }
            }
            same_and_grown(old_time, new_time) && same_and_grown(old, new)
        });
        let expected = rate.filter(|_| ended > 0.0).map(|_| took / ended / 1e6);
        match (found.disk_latency[i], expected) {
            (Some(found), Some(expected)) => {
                prop_assert!(close(found, expected), "{found} {expected}")
            }
            (found, expected) => prop_assert_eq!(found, expected, "latency {}", i),
        }
    }
    Ok(())
}

proptest! {
    /// Compares with the rule above over whole histories.
    #[test]
    fn rates_follow_the_contract(gathers in prop::collection::vec(gather(), 1..12)) {
        let samples = samples(&gathers);
        let mut previous = Previous::default();
        for k in 0..samples.len() {
            let (sample, net, disk) = &samples[k];
            let found = previous.advance(sample, net, disk);
            for (i, (index, name)) in NET_RATES.into_iter().enumerate() {
                let history: Vec<_> = samples[..=k].iter().map(|(s, net, _)| {
                    (s.cpu.at, net[index], by_name(s.nics.as_ref(), index))
                }).collect();
                prop_assert_eq!(found.net[i], rule(&history, |old, new| same_and_grown(old, new)), "{} at {}", name, k);
            }
            for (i, (index, name)) in DISK_RATES.into_iter().enumerate() {
                let history: Vec<_> = samples[..=k].iter().map(|(s, _, disk)| {
                    (s.cpu.at, disk[index], by_name(s.disks.as_ref(), index))
                }).collect();
                prop_assert_eq!(found.disk[i], rule(&history, |old, new| same_and_grown(old, new)), "{} at {}", name, k);
            }
            latencies_follow(&samples[..=k], &found)?;
            // CPU: both samples must have the same count of vCPUs, and one at least.
            let history: Vec<_> = samples[..=k].iter().map(|(s, ..)| {
                (s.cpu.at, s.cpu.time.filter(|_| s.vcpus.is_some()), s.vcpus)
            }).collect();
            let cores = sample.vcpus.unwrap_or_default();
            let usage = rule(&history, |old, new| old == new && cores > 0)
                .map(|ns| ns / 1e9 / cores as f64 * 100.0);
            match (found.cpu_usage, usage) {
                (Some(found), Some(usage)) => prop_assert!(close(found, usage), "{found} {usage}"),
                (found, usage) => prop_assert_eq!(found, usage, "cpu at {}", k),
            }
        }
    }

    #[test]
    fn no_rate_of_a_counter_is_negative_and_none_is_unwritable(
        gathers in prop::collection::vec(gather(), 1..12)
    ) {
        let mut previous = Previous::default();
        for (sample, net, disk) in samples(&gathers) {
            let found = previous.advance(&sample, &net, &disk);
            for rate in found.net.iter().chain(&found.disk).chain(&found.disk_latency).chain([&found.cpu_usage]).flatten() {
                prop_assert!(*rate >= 0.0 && rate.is_finite(), "{}", rate);
            }
            prop_assert_eq!(found.memory_angle.is_some(), found.memory_rate.is_some());
            if let (Some(rate), Some(angle)) = (found.memory_rate, found.memory_angle) {
                prop_assert!((-90.0..=90.0).contains(&angle), "{}", angle);
                prop_assert!(close(angle.to_radians().tan(), rate) || rate.abs() > 1e6);
                prop_assert_eq!(angle.partial_cmp(&0.0), rate.partial_cmp(&0.0));
            }
        }
    }
}

pub(super) fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}
