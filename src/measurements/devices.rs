//! `vm_devices`: one line per network interface and per disk.

use crate::derive::VmHistory;
use crate::line_protocol::{Line, Tags};
use crate::sample::{DISK_FIELDS, Device, Devices, NIC_FIELDS, Sample};

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    for (nic, tags) in named(sample.nics.as_ref()).zip(vm.nic_tags()) {
        device(buffer, nic, &NIC_FIELDS, (&vm.tags, tags), timestamp);
    }
    for (disk, tags) in named(sample.disks.as_ref()).zip(vm.disk_tags()) {
        device(buffer, disk, &DISK_FIELDS, (&vm.tags, tags), timestamp);
    }
}

/// The devices that have a line. A device without a name has no counters, and no tag that could name it.
fn named<const N: usize>(devices: Option<&Devices<N>>) -> impl Iterator<Item = &Device<N>> {
    devices
        .into_iter()
        .flat_map(|devices| &devices.list)
        .filter(|device| device.name.is_some())
}

fn device<const N: usize>(
    buffer: &mut String,
    device: &Device<N>,
    fields: &[&'static str; N],
    (vm, own): (&Tags, &Tags),
    timestamp: i64,
) {
    let mut line = Line::begin_with(buffer, "vm_devices", vm, own);
    for (key, value) in fields.iter().zip(device.counters) {
        line.int(key, value);
    }
    line.end(timestamp);
}
