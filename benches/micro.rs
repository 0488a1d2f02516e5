//! The cost of one VM in one gather after libvirt has answered, step by step: `cargo bench --bench micro`.
//!
//! The VM is the one of `tests/fixtures/domstats/healthy.*`: 3 disks, 2 NICs, a guest that reports its
//! memory. Its record is in memory as keys and values. Neither the decoding of a reply in libvirt's client
//! library nor the reading of libvirt's typed parameters in the plugin is part of this (`benches/run`
//! measures all).
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use divan::{AllocProfiler, Bencher};
use telegraf_kvm::config::Settings;
use telegraf_kvm::derive::History;
use telegraf_kvm::description::Description;
use telegraf_kvm::libvirt::{Value, bulk};
use telegraf_kvm::measurements;
use telegraf_kvm::sample::{RunId, Sample};

/// Counts allocations; the measured times include the cost of counting.
#[global_allocator]
static ALLOCATIONS: AllocProfiler = AllocProfiler::system();

const XML: &str = include_str!("../tests/fixtures/domstats/healthy.xml");
const TEXT: &str = include_str!("../tests/fixtures/domstats/healthy.txt");
const DOMAIN: &str = "Domain: 'healthy'\n";
const INTERVAL: Duration = Duration::from_secs(10);
const TIMESTAMP: i64 = 1_700_000_000_000_000_000;

fn main() {
    // The number of runs per measurement: a single run is too short for the clock.
    let divan = divan::Divan::default().sample_size(100);
    divan.config_with_args().main();
}

/// The first record of the fixture, without the groups that the program does not request.
fn record() -> Vec<(&'static str, Value<'static>)> {
    let (_, text) = TEXT.split_once(DOMAIN).unwrap();
    let mut record = Vec::new();
    for line in text.lines().take_while(|line| line.starts_with("  ")) {
        let (key, value) = line.trim_start().split_once('=').unwrap();
        let asked = ["state.", "cpu.", "balloon.", "net.", "block."];
        if asked.iter().any(|group| key.starts_with(group)) {
            let number = value.parse().map(Value::Integer);
            record.push((key, number.unwrap_or(Value::Text(value))));
        }
    }
    record
}

fn fill(record: &[(&'static str, Value<'static>)], at: Instant) -> Sample {
    let run = RunId {
        uuid: "4f1e6a52-8a52-4b7e-9d51-0c5a3b0f9a11".parse().unwrap(),
        id: 1,
    };
    let mut sample = Sample::new(run, "healthy".into(), at);
    bulk::fill(&mut sample, record.iter().copied(), at);
    sample
}

/// The gathers of a busy VM: every counter has increased since the last gather.
fn gathers() -> impl FnMut() -> Sample {
    let description = Description::parse(XML).unwrap();
    let wanted = Settings::default().device_filter();
    let record = record();
    let mut at = Instant::now();
    let mut count = 0;
    move || {
        at += INTERVAL;
        count += 1;
        let mut sample = fill(&record, at);
        sample.vcpus = Some(2);
        sample.describe(Some(&description), &wanted);
        sample.cpu.time = sample.cpu.time.map(|ns| ns + count * 5_000_000_007);
        let nics = sample.nics.iter_mut().flat_map(|nics| &mut nics.list);
        for counter in nics.flat_map(|nic| &mut nic.counters) {
            *counter = counter.map(|n| n + count * 1_234_567);
        }
        let disks = sample.disks.iter_mut().flat_map(|disks| &mut disks.list);
        for counter in disks.flat_map(|disk| &mut disk.counters) {
            *counter = counter.map(|n| n + count * 7_654_321);
        }
        sample
    }
}

/// A bulk statistics record -> Sample.
#[divan::bench]
fn record_to_sample(bencher: Bencher) {
    let record = record();
    let at = Instant::now();
    let devices = |sample: &Sample| {
        let nics = sample.nics.as_ref().map(|nics| nics.list.len());
        (nics, sample.disks.as_ref().map(|disks| disks.list.len()))
    };
    assert_eq!(devices(&fill(&record, at)), (Some(2), Some(3)));
    bencher.bench_local(|| fill(black_box(&record), at));
}

/// Domain XML -> Description: for a new or changed VM, never in a steady state.
#[divan::bench]
fn xml_to_description(bencher: Bencher) {
    let description = Description::parse(XML).unwrap();
    assert_eq!((description.nics.len(), description.disks.len()), (2, 3));
    bencher.bench_local(|| Description::parse(black_box(XML)));
}

/// A Sample's devices bound to their Description.
#[divan::bench]
fn describe(bencher: Bencher) {
    let description = Description::parse(XML).unwrap();
    let wanted = Settings::default().device_filter();
    let record = record();
    let at = Instant::now();
    bencher
        .with_inputs(|| fill(&record, at))
        .bench_local_refs(|sample| sample.describe(black_box(Some(&description)), &wanted));
}

/// Sample -> sums and rates, from this gather and the one before.
#[divan::bench]
fn sample_to_features(bencher: Bencher) {
    let mut next = gathers();
    let mut history = History::default();
    let mut derive = |sample: &Sample| history.update(sample).1;
    derive(&next());
    let features = derive(&next()).features;
    let rates = features.net.iter().chain(&features.disk);
    assert!(rates.chain([&features.cpu_usage]).all(Option::is_some));
    bencher
        .with_inputs(next)
        .bench_local_refs(|sample| derive(black_box(sample)));
}

/// Sample -> the lines of all four measurements, with sums and rates.
#[divan::bench]
fn sample_to_lines(bencher: Bencher) {
    let mut next = gathers();
    let mut history = History::default();
    let mut buffer = String::new();
    let settings = Settings::default();
    let mut write = |sample: &Sample| {
        buffer.clear();
        let (vm, derived) = history.update(sample);
        let wanted = &settings.measurements;
        measurements::write(&mut buffer, wanted, sample, vm, &derived, TIMESTAMP);
        buffer.lines().count()
    };
    write(&next());
    // vm_metrics, vm_features, 5 devices, vm_totals
    assert_eq!(write(&next()), 8);
    bencher
        .with_inputs(next)
        .bench_local_refs(|sample| write(black_box(sample)));
}
