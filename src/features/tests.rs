use std::time::{Duration, Instant};

use proptest::prelude::*;

use super::*;
use crate::runs::Runs;
use crate::sample::Device;
use crate::sample::examples::{any_devices, counter, device, devices, empty, run};
use crate::totals::{self, Reported};

/// What one gather brought.
#[derive(Debug, Clone)]
struct Gather {
    /// Milliseconds since the one before.
    passed: u64,
    memory: Option<u64>,
    cpu: Option<u64>,
    vcpus: Option<u64>,
    nics: Option<Vec<Device<8>>>,
    disks: Option<Vec<Device<5>>>,
}

fn gather() -> impl Strategy<Value = Gather> {
    (
        prop_oneof![1 => Just(0_u64), 5 => 1..20_000_u64],
        counter(),
        counter(),
        prop::option::weighted(0.8, 0..3_u64),
        any_devices::<8>(&["vnet0", "vnet1"]),
        any_devices::<5>(&["vda", "vdb"]),
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
type Summed = (Sample, [Option<u64>; 8], [Option<u64>; 5]);

/// A device's name and one of its counters.
type Part = (String, Option<u64>);

/// The samples of these gathers, with their sums.
fn samples(gathers: &[Gather]) -> Vec<Summed> {
    let mut at = Instant::now();
    let (mut nics, mut disks) = (Reported::default(), Reported::default());
    let mut all = Vec::new();
    for gather in gathers {
        at += Duration::from_millis(gather.passed);
        let mut sample = empty(at);
        sample.memory.current = gather.memory;
        sample.cpu.time = gather.cpu;
        sample.vcpus = gather.vcpus;
        sample.nics = gather.nics.clone().map(|list| devices(at, list));
        sample.disks = gather.disks.clone().map(|list| devices(at, list));
        let net = sample.nics.as_ref().map(|d| totals::sum(d, &mut nics));
        let disk = sample.disks.as_ref().map(|d| totals::sum(d, &mut disks));
        all.push((sample, net.unwrap_or([None; 8]), disk.unwrap_or([None; 5])));
    }
    all
}

/// Each device's counter number `index`, by name.
fn parts<const N: usize>(devices: Option<&Devices<N>>, index: usize) -> Vec<Part> {
    let list = devices.iter().flat_map(|devices| &devices.list);
    let mut parts: Vec<_> = list
        .map(|d| (d.name.clone().unwrap(), d.counters[index]))
        .collect();
    parts.sort();
    parts
}

/// The contract's rule for one sum, read off the whole history: against the last gather that had it.
fn rule<P>(history: &[(Instant, Option<u64>, P)], grew: impl Fn(&P, &P) -> bool) -> Option<f64> {
    let ((at, now, parts), before) = history.split_last()?;
    let now = (*now)?;
    let (then, value, old) = before.iter().rev().find(|(_, value, _)| value.is_some())?;
    let passed = at.duration_since(*then).as_secs_f64();
    let moved = now.checked_sub((*value)?)? as f64;
    (passed > 0.0 && grew(old, parts)).then_some(moved / passed)
}

/// Same devices, none of whose counters went backwards.
fn same_and_grown(old: &[Part], new: &[Part]) -> bool {
    let names =
        |parts: &[Part]| -> Vec<String> { parts.iter().map(|(name, _)| name.clone()).collect() };
    let fell =
        |((_, old), (_, new)): (&Part, &Part)| old.zip(*new).is_some_and(|(old, new)| new < old);
    names(old) == names(new) && !old.iter().zip(new).any(fell)
}

proptest! {
    /// Against a second reading of the contract, over whole histories.
    #[test]
    fn rates_follow_the_contract(gathers in prop::collection::vec(gather(), 1..12)) {
        let samples = samples(&gathers);
        let mut past = Past::default();
        for k in 0..samples.len() {
            let (sample, net, disk) = &samples[k];
            let found = past.advance(sample, net, disk);
            for (i, (index, name)) in NET_RATES.into_iter().enumerate() {
                let history: Vec<_> = samples[..=k].iter().map(|(s, net, _)| {
                    (s.cpu.at, net[index], parts(s.nics.as_ref(), index))
                }).collect();
                prop_assert_eq!(found.net[i], rule(&history, |old, new| same_and_grown(old, new)), "{} at {}", name, k);
            }
            for (i, (index, name)) in DISK_RATES.into_iter().enumerate() {
                let history: Vec<_> = samples[..=k].iter().map(|(s, _, disk)| {
                    (s.cpu.at, disk[index], parts(s.disks.as_ref(), index))
                }).collect();
                prop_assert_eq!(found.disk[i], rule(&history, |old, new| same_and_grown(old, new)), "{} at {}", name, k);
            }
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
        let mut past = Past::default();
        for (sample, net, disk) in samples(&gathers) {
            let found = past.advance(&sample, &net, &disk);
            for rate in found.net.iter().chain(&found.disk).chain([&found.cpu_usage]).flatten() {
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

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs()).max(1e-3)
}

/// One VM of one tap and one disk, whose every counter is `counted`.
fn sample(at: Instant, counted: u64) -> Sample {
    let mut sample = empty(at);
    sample.memory.current = Some(counted);
    sample.cpu.time = Some(counted);
    sample.vcpus = Some(1);
    sample.nics = Some(devices(
        at,
        vec![device("vnet0", "bridge", [Some(counted); 8])],
    ));
    sample.disks = Some(devices(at, vec![device("vda", "disk", [Some(counted); 5])]));
    sample
}

/// Through the totals and the memory of the run, as the agent does it.
fn derive(runs: &mut Runs, sample: &Sample) -> Features {
    runs.of(sample).derive(sample).features
}

fn seconds_after(at: Instant, seconds: f64) -> Instant {
    at + Duration::from_secs_f64(seconds)
}

#[test]
fn the_time_that_really_passed_counts_each_call_by_its_own() {
    let at = Instant::now();
    let mut runs = Runs::default();
    assert_eq!(derive(&mut runs, &sample(at, 1000)), Features::default());
    // Of one gather: memory after 2 s, CPU after 4, the NICs after 5, the disks after 8.
    let mut second = sample(at, 3000);
    second.memory.at = seconds_after(at, 2.0);
    second.cpu.at = seconds_after(at, 4.0);
    second.cpu.time = Some(3_000_001_000);
    second.nics.as_mut().unwrap().at = seconds_after(at, 5.0);
    second.disks.as_mut().unwrap().at = seconds_after(at, 8.0);
    let found = derive(&mut runs, &second);
    assert_eq!(found.memory_rate, Some(1000.0));
    assert_eq!(found.cpu_usage, Some(75.0));
    assert_eq!(found.net, [Some(400.0); 4]);
    assert_eq!(found.disk, [Some(250.0); 4]);
}

#[test]
fn more_than_every_vcpu_busy_is_not_clamped() {
    let at = Instant::now();
    let mut runs = Runs::default();
    let mut first = sample(at, 0);
    first.vcpus = Some(2);
    derive(&mut runs, &first);
    let mut second = sample(seconds_after(at, 10.0), 0);
    second.vcpus = Some(2);
    second.cpu.time = Some(25_000_000_000);
    assert_eq!(derive(&mut runs, &second).cpu_usage, Some(125.0));
}

#[test]
fn memory_given_back_is_a_negative_rate() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 3000));
    let found = derive(&mut runs, &sample(seconds_after(at, 10.0), 2990));
    assert_eq!(found.memory_rate, Some(-1.0));
    assert_eq!(found.memory_angle, Some(-45.0));
    // All else went backwards.
    assert_eq!(
        (found.cpu_usage, found.net, found.disk),
        (None, [None; 4], [None; 4])
    );
}

#[test]
fn after_a_counter_went_backwards_rates_start_anew_from_there() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 5000));
    derive(&mut runs, &sample(seconds_after(at, 10.0), 10));
    let found = derive(&mut runs, &sample(seconds_after(at, 20.0), 30));
    assert_eq!(found.net, [Some(2.0); 4]);
    assert_eq!(found.disk, [Some(2.0); 4]);
}

#[test]
fn one_devices_fall_is_not_hidden_by_anothers_rise() {
    let at = Instant::now();
    let mut runs = Runs::default();
    let of = |seconds, vda, vdb| {
        let mut sample = sample(seconds_after(at, seconds), 0);
        let list = vec![
            device("vda", "disk", [Some(vda); 5]),
            device("vdb", "disk", [Some(vdb); 5]),
        ];
        sample.disks = Some(devices(seconds_after(at, seconds), list));
        sample
    };
    derive(&mut runs, &of(0.0, 1000, 1000));
    // Another vda in the old one's place, counting from 0: the sum has grown all the same.
    assert_eq!(
        derive(&mut runs, &of(10.0, 0, 5000)).disk,
        [None; 4],
        "a false rate"
    );
    assert_eq!(
        derive(&mut runs, &of(20.0, 10, 5000)).disk,
        [Some(1.0); 4],
        "and then it counts on"
    );
}

#[test]
fn gathers_that_lacked_a_field_are_bridged() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 1000));
    for seconds in [10.0, 20.0] {
        let lacking = empty(seconds_after(at, seconds));
        assert_eq!(derive(&mut runs, &lacking), Features::default());
    }
    let found = derive(&mut runs, &sample(seconds_after(at, 30.0), 1300));
    assert_eq!(found.memory_rate, Some(10.0));
    assert_eq!(found.net, [Some(10.0); 4]);
    assert_eq!(found.disk, [Some(10.0); 4]);
    assert!(close(found.cpu_usage.unwrap(), 300.0 / 1e9 / 30.0 * 100.0));
}

#[test]
fn another_run_of_the_vm_starts_from_nothing() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 1000));
    let mut restarted = sample(seconds_after(at, 10.0), 2000);
    restarted.run = run(2);
    assert_eq!(derive(&mut runs, &restarted), Features::default());
    // And the first run does not come back from memory.
    let again = sample(seconds_after(at, 20.0), 3000);
    assert_eq!(derive(&mut runs, &again), Features::default());
}

#[test]
fn a_change_of_vcpus_gives_no_cpu_usage_once() {
    let at = Instant::now();
    let mut runs = Runs::default();
    let of = |seconds, vcpus| {
        let mut sample = sample(seconds_after(at, seconds), (seconds * 1e9) as u64);
        sample.vcpus = Some(vcpus);
        sample
    };
    derive(&mut runs, &of(0.0, 1));
    assert_eq!(derive(&mut runs, &of(10.0, 2)).cpu_usage, None);
    assert_eq!(derive(&mut runs, &of(20.0, 2)).cpu_usage, Some(50.0));
}

#[test]
fn another_set_of_devices_gives_no_rate_once() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 1000));
    let plugged = |seconds, counted| {
        let mut sample = sample(seconds_after(at, seconds), counted);
        let nics = sample.nics.as_mut().unwrap();
        nics.list.push(device("vnet1", "bridge", [Some(7); 8]));
        sample
    };
    let found = derive(&mut runs, &plugged(10.0, 1100));
    assert_eq!(found.net, [None; 4]);
    assert_eq!(found.disk, [Some(10.0); 4], "the disks are the same");
    assert_eq!(derive(&mut runs, &plugged(20.0, 1200)).net, [Some(10.0); 4]);
    let found = derive(&mut runs, &sample(seconds_after(at, 30.0), 1300));
    assert_eq!(found.net, [None; 4], "unplugged");
}

#[test]
fn two_samples_of_one_instant_give_none() {
    let at = Instant::now();
    let mut runs = Runs::default();
    derive(&mut runs, &sample(at, 1000));
    assert_eq!(derive(&mut runs, &sample(at, 2000)), Features::default());
}
