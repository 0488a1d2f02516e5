//! At debug level: what is left out of the figures, and why; once when that changes.

use smol_str::SmolStr;

use super::{names, names_of};
use crate::gather::protocol::DomainRef;
use crate::gather::{DeviceLeftOut, GatherReport, WhyLeftOut};

/// The messages of the last gather; an empty one where nothing was left out.
#[derive(Debug, Default)]
pub(super) struct LeftOut {
    vms: String,
    devices: [String; 4],
    memory: String,
}

/// Each reason, and what the message begins with. NICs without a name are logged where their sums are made
/// ([`History`](crate::derive::History)).
const REASONS: [(WhyLeftOut, &str); 4] = [
    (
        WhyLeftOut::Filtered,
        "devices left out by device_include and device_exclude",
    ),
    (
        WhyLeftOut::Cdrom,
        "CD-ROM drives left out, which cdrom = true writes",
    ),
    (
        WhyLeftOut::Floppy,
        "floppy drives left out, which floppy = true writes",
    ),
    (
        WhyLeftOut::NotCounted,
        "disks of which libvirt has no counters (vhost-user)",
    ),
];

impl LeftOut {
    pub(super) fn report(
        &mut self,
        report: &GatherReport,
        devices: &[DeviceLeftOut],
        without_memory: &[DomainRef],
    ) {
        if report.active.is_some() {
            let what = "VMs left out by domain_include and domain_exclude";
            tell(&mut self.vms, what, &names_of(&report.filtered));
        }
        for (last, (why, what)) in self.devices.iter_mut().zip(REASONS) {
            let left_out = devices.iter().filter(|device| device.why == why);
            let named: Vec<String> = left_out.map(named).collect();
            tell(last, what, &names(named.iter().map(String::as_str)));
        }
        let what =
            "VMs whose guest reports no memory (virsh dommemstat VM --period 5 --live turns it on)";
        tell(&mut self.memory, what, &names_of(without_memory));
    }
}

fn named(device: &DeviceLeftOut) -> String {
    let name = device.device.as_ref().map(SmolStr::as_str);
    match name {
        Some(name) => format!("{name} of {}", device.vm),
        None => device.vm.to_string(),
    }
}

/// Logs `what` and the names if they are not those of the last message.
fn tell(last: &mut String, what: &str, names: &str) {
    if last == names {
        return;
    }
    match names {
        "" => log::debug!("{what}: none any more"),
        names => log::debug!("{what}: {names}"),
    }
    names.clone_into(last);
}
