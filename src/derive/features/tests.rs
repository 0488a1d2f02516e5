use std::time::{Duration, Instant};

use super::rules::close;
use super::*;
use crate::derive::History;
use crate::sample::testing::{device, devices, empty, run};

/// A VM with one NIC and one disk, all of whose counters are `counted`.
fn sample(at: Instant, counted: u64) -> Sample {
    let mut sample = empty(at);
    sample.memory.current = Some(counted);
    sample.cpu.time = Some(counted);
    sample.vcpus = Some(1);
    sample.nics = Some(devices(
        at,
        vec![device("vnet0", "bridge", [Some(counted); NIC_COUNTERS])],
    ));
    sample.disks = Some(devices(
        at,
        vec![device("vda", "disk", [Some(counted); DISK_COUNTERS])],
    ));
    sample
}

/// Through the totals and the history of the run, as the main loop does it.
fn derive(history: &mut History, sample: &Sample) -> Features {
    history.update(sample).1.features
}

fn seconds_after(at: Instant, seconds: f64) -> Instant {
    at + Duration::from_secs_f64(seconds)
}

#[test]
fn the_time_that_really_passed_counts_each_call_by_its_own() {
    let at = Instant::now();
    let mut history = History::default();
    assert_eq!(derive(&mut history, &sample(at, 1000)), Features::default());
    // In one gather memory is measured after 2 s, CPU after 4, the NICs after 5, the disks after 8.
    let mut second = sample(at, 3000);
    second.memory.at = seconds_after(at, 2.0);
    second.cpu.at = seconds_after(at, 4.0);
    second.cpu.time = Some(3_000_001_000);
    second.nics.as_mut().unwrap().at = seconds_after(at, 5.0);
    second.disks.as_mut().unwrap().at = seconds_after(at, 8.0);
    let found = derive(&mut history, &second);
    assert_eq!(found.memory_rate, Some(1000.0));
    assert_eq!(found.cpu_usage, Some(75.0));
    assert_eq!(found.net, [Some(400.0); 4]);
    assert_eq!(found.disk, [Some(250.0); 4]);
}

#[test]
fn more_than_every_vcpu_busy_is_not_clamped() {
    let at = Instant::now();
    let mut history = History::default();
    let mut first = sample(at, 0);
    first.vcpus = Some(2);
    derive(&mut history, &first);
    let mut second = sample(seconds_after(at, 10.0), 0);
    second.vcpus = Some(2);
    second.cpu.time = Some(25_000_000_000);
    assert_eq!(derive(&mut history, &second).cpu_usage, Some(125.0));
}

#[test]
fn memory_given_back_is_a_negative_rate() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 3000));
    let found = derive(&mut history, &sample(seconds_after(at, 10.0), 2990));
    assert_eq!(found.memory_rate, Some(-1.0));
    assert_eq!(found.memory_angle, Some(-45.0));
    // Everything else went backwards.
    assert_eq!(
        (found.cpu_usage, found.net, found.disk),
        (None, [None; 4], [None; 4])
    );
}

#[test]
fn after_a_counter_went_backwards_rates_start_anew_from_there() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 5000));
    derive(&mut history, &sample(seconds_after(at, 10.0), 10));
    let found = derive(&mut history, &sample(seconds_after(at, 20.0), 30));
    assert_eq!(found.net, [Some(2.0); 4]);
    assert_eq!(found.disk, [Some(2.0); 4]);
}

#[test]
fn one_devices_fall_is_not_hidden_by_anothers_rise() {
    let at = Instant::now();
    let mut history = History::default();
    let of = |seconds, vda, vdb| {
        let mut sample = sample(seconds_after(at, seconds), 0);
        let list = vec![
            device("vda", "disk", [Some(vda); DISK_COUNTERS]),
            device("vdb", "disk", [Some(vdb); DISK_COUNTERS]),
        ];
        sample.disks = Some(devices(seconds_after(at, seconds), list));
        sample
    };
    derive(&mut history, &of(0.0, 1000, 1000));
    // Another vda takes the place of the old one and counts from 0; the sum grows all the same.
    assert_eq!(
        derive(&mut history, &of(10.0, 0, 5000)).disk,
        [None; 4],
        "a false rate"
    );
    assert_eq!(
        derive(&mut history, &of(20.0, 10, 5000)).disk,
        [Some(1.0); 4],
        "and from there on there is a rate"
    );
}

#[test]
fn gathers_that_lacked_a_field_are_bridged() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 1000));
    for seconds in [10.0, 20.0] {
        let lacking = empty(seconds_after(at, seconds));
        assert_eq!(derive(&mut history, &lacking), Features::default());
    }
    let found = derive(&mut history, &sample(seconds_after(at, 30.0), 1300));
    assert_eq!(found.memory_rate, Some(10.0));
    assert_eq!(found.net, [Some(10.0); 4]);
    assert_eq!(found.disk, [Some(10.0); 4]);
    assert!(close(found.cpu_usage.unwrap(), 300.0 / 1e9 / 30.0 * 100.0));
}

#[test]
fn another_run_of_the_vm_starts_from_nothing() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 1000));
    let mut restarted = sample(seconds_after(at, 10.0), 2000);
    restarted.run = run(2);
    assert_eq!(derive(&mut history, &restarted), Features::default());
    // And the figures of the first run are not remembered.
    let again = sample(seconds_after(at, 20.0), 3000);
    assert_eq!(derive(&mut history, &again), Features::default());
}

#[test]
fn a_change_of_vcpus_gives_no_cpu_usage_once() {
    let at = Instant::now();
    let mut history = History::default();
    let of = |seconds, vcpus| {
        let mut sample = sample(seconds_after(at, seconds), (seconds * 1e9) as u64);
        sample.vcpus = Some(vcpus);
        sample
    };
    derive(&mut history, &of(0.0, 1));
    assert_eq!(derive(&mut history, &of(10.0, 2)).cpu_usage, None);
    assert_eq!(derive(&mut history, &of(20.0, 2)).cpu_usage, Some(50.0));
}

#[test]
fn another_set_of_devices_gives_no_rate_once() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 1000));
    let plugged = |seconds, counted| {
        let mut sample = sample(seconds_after(at, seconds), counted);
        let nics = sample.nics.as_mut().unwrap();
        nics.list
            .push(device("vnet1", "bridge", [Some(7); NIC_COUNTERS]));
        sample
    };
    let found = derive(&mut history, &plugged(10.0, 1100));
    assert_eq!(found.net, [None; 4]);
    assert_eq!(found.disk, [Some(10.0); 4], "the disks are the same");
    assert_eq!(
        derive(&mut history, &plugged(20.0, 1200)).net,
        [Some(10.0); 4]
    );
    let found = derive(&mut history, &sample(seconds_after(at, 30.0), 1300));
    assert_eq!(found.net, [None; 4], "unplugged");
}

#[test]
fn two_samples_of_one_instant_give_none() {
    let at = Instant::now();
    let mut history = History::default();
    derive(&mut history, &sample(at, 1000));
    assert_eq!(derive(&mut history, &sample(at, 2000)), Features::default());
}

#[test]
fn a_device_that_was_removed_since_gives_no_rate_once() {
    let at = Instant::now();
    let mut history = History::default();
    let of = |seconds, nic: Option<f64>, disk: Option<f64>| {
        let mut sample = sample(seconds_after(at, seconds), 1000 + seconds as u64);
        sample.removed.nic = nic.map(|seconds| seconds_after(at, seconds));
        sample.removed.disk = disk.map(|seconds| seconds_after(at, seconds));
        sample
    };
    derive(&mut history, &of(0.0, None, None));
    // Another device has its name, and has counted more.
    let found = derive(&mut history, &of(10.0, Some(5.0), None));
    assert_eq!((found.net, found.disk), ([None; 4], [Some(1.0); 4]));
    let found = derive(&mut history, &of(20.0, Some(5.0), Some(15.0)));
    assert_eq!((found.net, found.disk), ([Some(1.0); 4], [None; 4]));
    // Gathers that lack the sums are bridged, and a device that was removed meanwhile counts.
    let mut lacking = empty(seconds_after(at, 30.0));
    lacking.removed.nic = Some(seconds_after(at, 25.0));
    derive(&mut history, &lacking);
    let found = derive(&mut history, &of(40.0, Some(25.0), Some(15.0)));
    assert_eq!((found.net, found.disk), ([None; 4], [Some(1.0); 4]));
}

#[test]
fn memory_in_use_inside_the_guest_is_a_part_of_what_the_guest_sees() {
    let used = |available, usable| {
        let at = Instant::now();
        let mut history = History::default();
        let mut sample = sample(at, 0);
        sample.memory.available = available;
        sample.memory.usable = usable;
        let first = derive(&mut history, &sample).memory_guest_used;
        assert_eq!(first, None, "vm_features begins with the second gather");
        derive(&mut history, &sample).memory_guest_used
    };
    assert_eq!(used(Some(2000), Some(500)), Some(75.0));
    assert_eq!(used(Some(2000), Some(2000)), Some(0.0));
    assert_eq!(used(Some(2000), Some(0)), Some(100.0));
    for (available, usable) in [
        (None, Some(500)),
        (Some(2000), None),
        (Some(0), Some(0)),
        // The two may be of different moments.
        (Some(2000), Some(2001)),
    ] {
        assert_eq!(used(available, usable), None, "{available:?}, {usable:?}");
    }
}
