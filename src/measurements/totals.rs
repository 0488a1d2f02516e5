//! `vm_totals`: one line per VM.

use crate::derive::{Derived, VmHistory};
use crate::line_protocol::Line;
use crate::sample::{DISK_COUNTERS, NIC_COUNTERS, Sample};

/// In the order of [`crate::sample::NIC_FIELDS`].
const NET: [&str; NIC_COUNTERS] = [
    "net_rxbytes",
    "net_rxpackets",
    "net_rxerrors",
    "net_rxdrops",
    "net_txbytes",
    "net_txpackets",
    "net_txerrors",
    "net_txdrops",
];

/// In the order of [`crate::sample::DISK_FIELDS`].
const DISK: [&str; DISK_COUNTERS] = [
    "disk_rd_req",
    "disk_rd_bytes",
    "disk_wr_reqs",
    "disk_wr_bytes",
    "disk_errors",
    "disk_rd_time_ns",
    "disk_wr_time_ns",
    "disk_fl_time_ns",
    "disk_fl_reqs",
    "disk_capacity_bytes",
    "disk_allocation_bytes",
    "disk_physical_bytes",
];

/// How many of the disk sums stand before the memory figures: those that were there first. The others stand at the end.
const FIRST: usize = 5;

pub(super) fn write(
    buffer: &mut String,
    sample: &Sample,
    derived: &Derived,
    vm: &VmHistory,
    timestamp: i64,
) {
    let mut line = Line::begin(buffer, "vm_totals", &vm.tags);
    fields(sample, derived, |key, value| line.int(key, value));
    line.end(timestamp);
}

/// Calls `put` with each field and its value, in the order of the line.
pub(crate) fn fields(
    sample: &Sample,
    derived: &Derived,
    mut put: impl FnMut(&'static str, Option<u64>),
) {
    for (key, value) in NET.into_iter().zip(derived.net) {
        put(key, value);
    }
    let disk = || DISK.into_iter().zip(derived.disk);
    for (key, value) in disk().take(FIRST) {
        put(key, value);
    }
    let figures = &sample.memory;
    put("memactual", figures.actual);
    put("memrss", figures.rss);
    put("memavailable", figures.available);
    put("memusable", figures.usable);
    put("memswap_in", figures.swap_in);
    put("memswap_out", figures.swap_out);
    put("memmajor_fault", figures.major_fault);
    put("memminor_fault", figures.minor_fault);
    put("memdisk_cache", figures.disk_caches);
    put("memunused", figures.unused);
    put("memstats_age_sec", figures.report_age);
    put("timeusr", sample.cpu.user);
    put("timesys", sample.cpu.system);
    put("cpus", sample.vcpus);
    put("cputime", sample.cpu.time);
    let vcpus = sample.vcpu_times.as_ref();
    put(
        "vcpu_time_ns",
        vcpus.and_then(|vcpus| vcpus.sum(|vcpu| vcpu.time)),
    );
    put(
        "vcpu_delay_ns",
        vcpus.and_then(|vcpus| vcpus.sum(|vcpu| vcpu.delay)),
    );
    let throttling = sample.throttling.as_ref();
    put("cpu_periods", throttling.map(|sum| sum.periods));
    put(
        "cpu_throttled_periods",
        throttling.map(|sum| sum.throttled_periods),
    );
    put("cpu_throttled_ns", throttling.map(|sum| sum.throttled));
    let number = |of: Option<i32>| of.and_then(|number| u64::try_from(number).ok());
    put("state", number(sample.state));
    put("state_reason", number(sample.reason));
    for (key, value) in disk().skip(FIRST) {
        put(key, value);
    }
}
