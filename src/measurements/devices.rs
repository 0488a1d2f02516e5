//! `vm_devices`: one line per network interface and per disk.

use crate::line_protocol::{Line, Tags};
use crate::runs::Memory;
use crate::sample::{DISK_FIELDS, Device, NIC_FIELDS, Sample};

pub(super) fn write(buffer: &mut String, sample: &Sample, memory: &Memory, stamp: i64) {
    // A device without a name has no line: there is nothing to call it by, and no counters.
    let nics = sample.nics.iter().flat_map(|nics| &nics.list);
    let nics = nics.filter(|nic| nic.name.is_some());
    for (nic, tags) in nics.zip(memory.nic_tags()) {
        device(buffer, nic, &NIC_FIELDS, (&memory.tags, tags), stamp);
    }
    let disks = sample.disks.iter().flat_map(|disks| &disks.list);
    let disks = disks.filter(|disk| disk.name.is_some());
    for (disk, tags) in disks.zip(memory.disk_tags()) {
        device(buffer, disk, &DISK_FIELDS, (&memory.tags, tags), stamp);
    }
}

fn device<const N: usize>(
    buffer: &mut String,
    device: &Device<N>,
    fields: &[&'static str; N],
    (vm, own): (&Tags, &Tags),
    stamp: i64,
) {
    let mut line = Line::begin_with(buffer, "vm_devices", vm, own);
    for (key, value) in fields.iter().zip(device.counters) {
        line.int(key, value);
    }
    line.end(stamp);
}
