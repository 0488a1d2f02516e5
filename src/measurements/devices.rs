//! `vm_devices`: one line per network interface and per disk.

use crate::history::VmHistory;
use crate::line_protocol::{Line, Tags};
use crate::sample::{DISK_FIELDS, Device, NIC_FIELDS, Sample};

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    // A device without a name has no line: there is nothing to call it by, and no counters.
    let nics = sample.nics.iter().flat_map(|nics| &nics.list);
    let nics = nics.filter(|nic| nic.name.is_some());
    for (nic, tags) in nics.zip(vm.nic_tags()) {
        device(buffer, nic, &NIC_FIELDS, (&vm.tags, tags), timestamp);
    }
    let disks = sample.disks.iter().flat_map(|disks| &disks.list);
    let disks = disks.filter(|disk| disk.name.is_some());
    for (disk, tags) in disks.zip(vm.disk_tags()) {
        device(buffer, disk, &DISK_FIELDS, (&vm.tags, tags), timestamp);
    }
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
