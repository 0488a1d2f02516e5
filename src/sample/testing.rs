//! Samples for tests.

use std::time::Instant;

use proptest::prelude::*;
use uuid::Uuid;

use super::{Device, Devices, Pressure, RunId, Sample, Throttling, VcpuTime, VcpuTimes};

/// A run of the VM `6695eb01-f6a4-8304-79aa-97f2502e193f`.
pub(crate) fn run(id: u32) -> RunId {
    RunId {
        uuid: Uuid::from_u128(0x6695_eb01_f6a4_8304_79aa_97f2_502e_193f),
        id,
    }
}

/// A sample in which nothing is reported.
pub(crate) fn empty(at: Instant) -> Sample {
    Sample::new(run(1), "test".into(), at)
}

/// A sample in which everything is reported, with a different value in each figure.
pub(crate) fn full(at: Instant) -> Sample {
    let mut sample = empty(at);
    sample.state = Some(1);
    sample.reason = Some(5);
    sample.answers = Some(true);
    sample.vcpus = Some(2);
    sample.cpu.time = Some(1001);
    sample.cpu.user = Some(1002);
    sample.cpu.system = Some(1003);
    sample.vcpu_times = Some(vcpu_times(at, [(0, 301, 401), (5, 302, 402)]));
    sample.throttling = Some(Throttling {
        periods: 501,
        throttled_periods: 502,
        throttled: 503,
    });
    sample.pressure = vec![Pressure {
        resource: "io",
        kind: "some",
        avg10: 60.5,
        avg60: 61.0,
        avg300: 62.25,
        total: 504,
    }];
    sample.uptime = Some(1004);
    let memory = &mut sample.memory;
    memory.maximum = Some(2001);
    memory.current = Some(2002);
    memory.actual = Some(2003);
    memory.rss = Some(2004);
    memory.available = Some(2005);
    memory.usable = Some(2006);
    memory.swap_in = Some(2007);
    memory.swap_out = Some(2008);
    memory.major_fault = Some(2009);
    memory.minor_fault = Some(2010);
    memory.disk_caches = Some(2011);
    memory.unused = Some(2012);
    memory.last_update = Some(1_795_385_177);
    memory.report_age = Some(2013);
    let nic = [31, 32, 33, 34, 35, 36, 37, 38].map(Some);
    sample.nics = Some(devices(at, vec![device("vnet0", "bridge", nic)]));
    let disk = [41, 42, 43, 44, 45, 46, 47, 48, 49, 50, 51, 52].map(Some);
    let mut disk = device("vda", "disk", disk);
    disk.io_errors = Some(53);
    sample.disks = Some(devices(at, vec![disk]));
    sample
}

/// vCPUs with these numbers, CPU times and delays.
pub(crate) fn vcpu_times(
    at: Instant,
    list: impl IntoIterator<Item = (u32, u64, u64)>,
) -> VcpuTimes {
    let time = |(number, time, delay)| VcpuTime {
        number,
        thread: 100 + number,
        time: Some(time),
        delay: Some(delay),
        state: None,
        wait: None,
    };
    let list = list.into_iter().map(time).collect();
    VcpuTimes { at, list }
}

/// A device; it has no name if `name` is empty.
pub(crate) fn device<const N: usize>(
    name: &str,
    kind: &str,
    counters: [Option<u64>; N],
) -> Device<N> {
    Device {
        name: (!name.is_empty()).then(|| name.into()),
        kind: kind.into(),
        counters,
        io_errors: None,
    }
}

/// A complete list of devices.
pub(crate) fn devices<const N: usize>(at: Instant, list: Vec<Device<N>>) -> Devices<N> {
    Devices {
        at,
        list,
        complete: true,
    }
}

/// A counter: often small, so that values repeat, sometimes the largest one, sometimes not reported.
pub(crate) fn counter() -> impl Strategy<Value = Option<u64>> {
    prop_oneof![
        6 => (0..6_u64).prop_map(Some),
        2 => any::<u64>().prop_map(Some),
        1 => Just(Some(u64::MAX)),
        2 => Just(None),
    ]
}

/// Some of these devices, each at most once, in any order; sometimes none are reported at all.
pub(crate) fn any_devices<const N: usize>(
    names: &'static [&'static str],
) -> impl Strategy<Value = Option<Vec<Device<N>>>> {
    let kinds = prop::sample::select(vec!["bridge", "user", "cdrom"]);
    let counters = prop::collection::vec(counter(), N..=N);
    let one = (kinds, counters);
    let all = prop::collection::vec(one, names.len()..=names.len());
    let order = prop::sample::subsequence(names.to_vec(), 0..=names.len()).prop_shuffle();
    prop::option::weighted(0.8, (order, all)).prop_map(|given| {
        let (order, all) = given?;
        let list = order.iter().zip(all).map(|(name, (kind, counters))| {
            let counters: [Option<u64>; N] = counters.try_into().unwrap();
            device(name, kind, counters)
        });
        Some(list.collect())
    })
}
