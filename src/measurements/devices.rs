//! `vm_devices`: one line per network interface and per disk.

use crate::derive::VmHistory;
use crate::line_protocol::{Line, Tags};
use crate::sample::{DISK_FIELDS, Device, Devices, NIC_FIELDS, Sample};

/// Of reads, writes and flushes.
const LATENCIES: [&str; 3] = ["rd_latency_ms", "wr_latency_ms", "fl_latency_ms"];

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    for (nic, tags) in named(sample.nics.as_ref()).zip(vm.nic_tags()) {
        begin(buffer, nic, &NIC_FIELDS, (&vm.tags, tags)).end(timestamp);
    }
    let disks = named(sample.disks.as_ref()).zip(vm.disk_tags());
    for ((disk, tags), latencies) in disks.zip(vm.disk_latencies()) {
        let mut line = begin(buffer, disk, &DISK_FIELDS, (&vm.tags, tags));
        for (key, ms) in LATENCIES.into_iter().zip(latencies) {
            line.float(key, ms);
        }
        line.int("io_error_events", disk.io_errors);
        line.end(timestamp);
    }
}

/// The devices that have a line. A device without a name has no counters, and no tag that could name it.
fn named<const N: usize>(devices: Option<&Devices<N>>) -> impl Iterator<Item = &Device<N>> {
    devices
        .into_iter()
        .flat_map(|devices| &devices.list)
        .filter(|device| device.name.is_some())
}

/// A device's line with its counters.
fn begin<'b, const N: usize>(
    buffer: &'b mut String,
    device: &Device<N>,
    fields: &[&'static str; N],
    (vm, own): (&Tags, &Tags),
) -> Line<'b> {
    let mut line = Line::begin_with(buffer, "vm_devices", vm, own);
    for (key, value) in fields.iter().zip(device.counters) {
        line.int(key, value);
    }
    line
}
