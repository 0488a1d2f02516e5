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
    for (key, value) in NET.into_iter().zip(derived.net) {
        line.int(key, value);
    }
    let disk = || DISK.into_iter().zip(derived.disk);
    for (key, value) in disk().take(FIRST) {
        line.int(key, value);
    }
    let figures = &sample.memory;
    line.int("memactual", figures.actual);
    line.int("memrss", figures.rss);
    line.int("memavailable", figures.available);
    line.int("memusable", figures.usable);
    line.int("memswap_in", figures.swap_in);
    line.int("memswap_out", figures.swap_out);
    line.int("memmajor_fault", figures.major_fault);
    line.int("memminor_fault", figures.minor_fault);
    line.int("memdisk_cache", figures.disk_caches);
    line.int("memunused", figures.unused);
    line.int("memstats_age_sec", figures.report_age);
    line.int("timeusr", sample.cpu.user);
    line.int("timesys", sample.cpu.system);
    line.int("cpus", sample.vcpus);
    line.int("cputime", sample.cpu.time);
    let vcpus = sample.vcpu_times.as_ref();
    line.int(
        "vcpu_time_ns",
        vcpus.and_then(|vcpus| vcpus.sum(|vcpu| vcpu.time)),
    );
    line.int(
        "vcpu_delay_ns",
        vcpus.and_then(|vcpus| vcpus.sum(|vcpu| vcpu.delay)),
    );
    let throttling = sample.throttling.as_ref();
    line.int("cpu_periods", throttling.map(|sum| sum.periods));
    line.int(
        "cpu_throttled_periods",
        throttling.map(|sum| sum.throttled_periods),
    );
    line.int("cpu_throttled_ns", throttling.map(|sum| sum.throttled));
    line.signed("state", sample.state.map(i64::from));
    line.signed("state_reason", sample.reason.map(i64::from));
    for (key, value) in disk().skip(FIRST) {
        line.int(key, value);
    }
    line.end(timestamp);
}
