use std::time::Duration;

use super::*;
use crate::derive::History;
use crate::sample::testing::{device, devices, empty, run};
use crate::sample::{Device, Sample};

const MS: u64 = 1_000_000;
const NONE: [Option<f64>; 3] = [None; 3];

/// A disk with these counters: (requests, ms) of reads, writes and flushes.
fn disk(name: &str, counters: [(u64, u64); 3]) -> Device<DISK_COUNTERS> {
    let mut disk = device(name, "disk", [Some(7); DISK_COUNTERS]);
    for ((time, requests), (number, ms)) in DISK_LATENCIES.into_iter().zip(counters) {
        disk.counters[time] = Some(ms * MS);
        disk.counters[requests] = Some(number);
    }
    disk
}

/// A disk that has only read.
fn reads(name: &str, requests: u64, ms: u64) -> Device<DISK_COUNTERS> {
    disk(name, [(requests, ms), (0, 0), (0, 0)])
}

/// One run, a gather every 10 seconds.
struct Gathers {
    history: History,
    at: Instant,
    removed: Option<Instant>,
}

impl Gathers {
    fn new() -> Self {
        Self {
            history: History::default(),
            at: Instant::now(),
            removed: None,
        }
    }

    /// The latencies over all disks, and those of each disk.
    fn update(&mut self, sample: &Sample) -> ([Option<f64>; 3], Vec<[Option<f64>; 3]>) {
        let (vm, derived) = self.history.update(sample);
        let each = vm.disk_latencies().collect();
        (derived.features.disk_latency, each)
    }

    /// The same of the next gather, with these disks.
    fn next(
        &mut self,
        list: Vec<Device<DISK_COUNTERS>>,
    ) -> ([Option<f64>; 3], Vec<[Option<f64>; 3]>) {
        self.at += Duration::from_secs(10);
        let mut sample = empty(self.at);
        sample.disks = Some(devices(self.at, list));
        sample.removed.disk = self.removed;
        self.update(&sample)
    }

    /// The same, of reads alone.
    fn reads(&mut self, list: Vec<Device<DISK_COUNTERS>>) -> (Option<f64>, Vec<Option<f64>>) {
        let (all, each) = self.next(list);
        (all[0], each.into_iter().map(|each| each[0]).collect())
    }
}

#[test]
fn time_is_divided_by_the_requests_that_ended() {
    let mut gathers = Gathers::new();
    let first = vec![
        disk("vda", [(10, 100), (20, 200), (30, 300)]),
        disk("vdb", [(1000, 0), (1000, 0), (1000, 0)]),
    ];
    assert_eq!(gathers.next(first), (NONE, vec![NONE; 2]));
    let second = vec![
        disk("vda", [(14, 140), (21, 207), (32, 301)]),
        disk("vdb", [(1002, 50), (1000, 0), (1002, 9)]),
    ];
    let (all, each) = gathers.next(second);
    assert_eq!(each[0], [Some(10.0), Some(7.0), Some(0.5)]);
    assert_eq!(each[1], [Some(25.0), None, Some(4.5)]);
    assert_eq!(all, [Some(15.0), Some(7.0), Some(2.5)]);
}

#[test]
fn without_a_request_that_ended_there_is_none() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100)]);
    // The time of a request that failed counts, the request does not.
    for ms in [100, 130] {
        let found = gathers.next(vec![reads("vda", 10, ms)]);
        assert_eq!(found, (NONE, vec![NONE]));
    }
    let found = gathers.reads(vec![reads("vda", 12, 136)]);
    assert_eq!(found, (Some(3.0), vec![Some(3.0)]), "since the last gather");
}

#[test]
fn a_counter_that_fell_gives_none_and_those_of_other_disks_stay() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100), reads("vdb", 10, 100)]);
    // Each of the two counters alone, and the sums of both grow.
    let found = gathers.reads(vec![reads("vda", 9, 120), reads("vdb", 20, 150)]);
    assert_eq!(found, (None, vec![None, Some(5.0)]));
    let found = gathers.reads(vec![reads("vda", 10, 110), reads("vdb", 30, 250)]);
    assert_eq!(found, (None, vec![None, Some(10.0)]));
    let found = gathers.reads(vec![reads("vda", 11, 112), reads("vdb", 31, 254)]);
    assert_eq!(found, (Some(3.0), vec![Some(2.0), Some(4.0)]));
}

#[test]
fn a_size_may_fall() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100)]);
    let mut smaller = reads("vda", 11, 103);
    for size in &mut smaller.counters[9..] {
        *size = Some(0);
    }
    let found = gathers.reads(vec![smaller]);
    assert_eq!(found, (Some(3.0), vec![Some(3.0)]));
}

#[test]
fn after_gathers_that_lacked_a_counter_it_is_since_the_last_that_had_it() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100), reads("vdb", 10, 100)]);
    // No disks at all, then no time of vdb: it counts for vdb and over all disks, not for vda.
    gathers.at += Duration::from_secs(10);
    let lacking = empty(gathers.at);
    assert_eq!(gathers.update(&lacking).0, NONE);
    let mut without = reads("vdb", 12, 0);
    without.counters[DISK_LATENCIES[0].0] = None;
    let found = gathers.reads(vec![reads("vda", 11, 101), without]);
    assert_eq!(found, (None, vec![Some(1.0), None]));
    let found = gathers.reads(vec![reads("vda", 12, 103), reads("vdb", 14, 120)]);
    assert_eq!(found.1, [Some(2.0), Some(5.0)]);
    assert_eq!(found.0, Some(23.0 / 6.0));
}

#[test]
fn a_disk_whose_time_is_never_reported_is_no_part_of_the_latency_over_all() {
    let mut gathers = Gathers::new();
    let of = |number, ms| {
        let mut lun = reads("sda", 100 * number, 0);
        lun.kind = "lun".into();
        lun.counters[DISK_LATENCIES[0].0] = None;
        vec![reads("vda", number, ms), lun]
    };
    gathers.next(of(1, 10));
    let found = gathers.reads(of(3, 20));
    assert_eq!(found, (Some(5.0), vec![Some(5.0), None]));
}

#[test]
fn a_disk_that_comes_or_goes_ends_the_latency_over_all_and_not_that_of_the_others() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100)]);
    let found = gathers.reads(vec![reads("vda", 11, 101), reads("vdb", 5, 50)]);
    assert_eq!(found, (None, vec![Some(1.0), None]));
    let found = gathers.reads(vec![reads("vdb", 6, 53), reads("vda", 12, 102)]);
    assert_eq!(found, (Some(2.0), vec![Some(3.0), Some(1.0)]), "by name");
    let found = gathers.reads(vec![reads("vda", 13, 104)]);
    assert_eq!(found, (None, vec![Some(2.0)]));
    let found = gathers.reads(vec![reads("vda", 14, 105), reads("vdb", 8, 60)]);
    assert_eq!(found, (None, vec![Some(1.0), None]), "another vdb");
}

#[test]
fn after_the_removal_of_a_disk_there_is_none_once() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100)]);
    // Another disk has its name, and has counted more.
    gathers.removed = Some(gathers.at + Duration::from_secs(5));
    let found = gathers.next(vec![reads("vda", 20, 110)]);
    assert_eq!(found, (NONE, vec![NONE]));
    let found = gathers.reads(vec![reads("vda", 21, 114)]);
    assert_eq!(found, (Some(4.0), vec![Some(4.0)]));
}

#[test]
fn another_run_and_another_sample_of_one_instant_give_none() {
    let mut gathers = Gathers::new();
    gathers.next(vec![reads("vda", 10, 100)]);
    let mut sample = empty(gathers.at);
    sample.disks = Some(devices(gathers.at, vec![reads("vda", 20, 110)]));
    assert_eq!(gathers.update(&sample), (NONE, vec![NONE]));
    let mut restarted = empty(gathers.at + Duration::from_secs(10));
    restarted.run = run(2);
    restarted.disks = Some(devices(restarted.cpu.at, vec![reads("vda", 30, 120)]));
    assert_eq!(gathers.update(&restarted), (NONE, vec![NONE]));
}
