//! `vm_host`: the host in one line a gather.

mod sums;

use crate::inventory::Found;
use crate::libvirt::per_call::SHUTOFF;
use crate::line_protocol::{Line, Tags};
pub(crate) use sums::HostSums;
use sums::STATES;

/// The fields that count VMs by state, in the order of virDomainState: the words of vm_metrics.
const VMS: [&str; STATES] = [
    "vms_no_state",
    "vms_running",
    "vms_blocked",
    "vms_paused",
    "vms_shutdown",
    "vms_shutoff",
    "vms_crashed",
    "vms_suspended",
];

/// Appends the line. `sums`: those of this gather, if every active VM is in them; `off`: how many VMs are shut off, if that
/// is known.
pub(crate) fn write(
    buffer: &mut String,
    sums: Option<&HostSums>,
    off: Option<u64>,
    found: &Found,
    tags: &Tags,
    timestamp: i64,
) {
    let mut line = Line::begin(buffer, "vm_host", tags);
    let states = sums.and_then(HostSums::states);
    for (state, field) in VMS.into_iter().enumerate() {
        let active = states.and_then(|states| states.get(state).copied());
        let count = match i32::try_from(state) {
            Ok(SHUTOFF) => active.zip(off).map(|(active, off)| active + off),
            _ => active,
        };
        line.int(field, count);
    }
    line.int("node_cpus", found.node.map(|node| node.cpus));
    line.int("node_memory_kb", found.node.map(|node| node.memory));
    line.int("node_memory_free_kb", found.free_memory);
    for (field, sum) in sums.into_iter().flat_map(HostSums::sums) {
        line.int(field, sum);
    }
    line.end(timestamp);
}
