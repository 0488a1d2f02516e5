//! `vm_devices`: one line per network interface and per disk.

use crate::line_protocol::{Line, Tags};
use crate::runs::Memory;
use crate::sample::{DISK_FIELDS, Device, NIC_FIELDS, Sample};

pub(super) fn write(buffer: &mut String, sample: &Sample, memory: &Memory, stamp: i64) {
    for nic in sample.nics.iter().flat_map(|nics| &nics.list) {
        let tags = nic.name.as_ref().and_then(|name| memory.nic_tags(name));
        device(buffer, nic, &NIC_FIELDS, (&memory.tags, tags), stamp);
    }
    for disk in sample.disks.iter().flat_map(|disks| &disks.list) {
        let tags = disk.name.as_ref().and_then(|name| memory.disk_tags(name));
        device(buffer, disk, &DISK_FIELDS, (&memory.tags, tags), stamp);
    }
}

/// A device without a name has no line: there is nothing to call it by, and no counters.
fn device<const N: usize>(
    buffer: &mut String,
    device: &Device<N>,
    fields: &[&'static str; N],
    (vm, own): (&Tags, Option<&Tags>),
    stamp: i64,
) {
    let Some(own) = own else { return };
    let mut line = Line::begin_with(buffer, "vm_devices", vm, own);
    for (key, value) in fields.iter().zip(device.counters) {
        line.int(key, value);
    }
    line.end(stamp);
}
