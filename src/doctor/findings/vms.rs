//! VMs that do not answer, and what is left out of those that do.

use super::{FREE_WORKERS, Finding};
use crate::doctor::facts::{DeviceOut, Libvirt, Vms};
use crate::report::{UNANSWERING, UNHEARD};
use crate::wording::{count, first_names};

pub(super) fn answers(vms: &Vms) -> Vec<Finding> {
    let mut found = Vec::new();
    let wanted = count(vms.wanted as u64, "VM");
    if vms.active.is_none() {
        found.push(
            Finding::warning("VMs", "the list of VMs did not come in time").with(
                "a VM may be locked inside libvirtd: \"virsh list\" hangs as well; see what other clients do",
            ),
        );
    } else if vms.wanted == 0 {
        let (what, remedy) = match vms.active {
            Some(0) | None => ("no VM is active", "start one: virsh start VM"),
            Some(_) => (
                "no active VM passes the name filter",
                "check domain_include and domain_exclude",
            ),
        };
        found.push(Finding::note("VMs", what).with(remedy));
    } else if vms.complete == vms.wanted {
        found.push(Finding::ok(
            "VMs",
            format!("{wanted}, all with full figures"),
        ));
    } else {
        let complete = vms.complete;
        found.push(Finding::note(
            "VMs",
            format!("{complete} of {wanted} with full figures"),
        ));
    }
    let mut warn = |names: &[String], what: &str, remedy: &str| {
        if !names.is_empty() {
            let message = format!("{what}: {}", first_names(names));
            found.push(Finding::warning("VMs", message).with(remedy));
        }
    };
    let partial = "QEMU does not answer, only what libvirt knows without it is gathered";
    warn(&vms.not_answering, partial, UNANSWERING);
    let busy = "state and network only, because libvirtd had no free worker or too many calls hang";
    warn(&vms.state_and_network_only, busy, FREE_WORKERS);
    let disks = "all but the figures of their disks";
    let remedy = "see the findings about storage; where there is none, calls for single disks were not answered in time";
    warn(&vms.without_disks, disks, remedy);
    warn(&vms.missing, "no answer in time", UNHEARD);
    let locked = "locked inside libvirtd by a call that hangs; nothing of them is gathered";
    warn(&vms.locked, locked, UNANSWERING);
    let problems = "libvirt reported";
    warn(
        &vms.problems,
        problems,
        "see libvirtd's log, and the log of VM under /var/log/libvirt/qemu",
    );
    found
}

pub(super) fn left_out(vms: &Vms, libvirt: &Libvirt) -> Vec<Finding> {
    let mut found = Vec::new();
    if vms.guest_memory_wanted {
        found.push(guest_memory(vms, libvirt));
    }
    let of = |reason: &str| -> Vec<&DeviceOut> {
        let devices = vms.devices_left_out.iter();
        devices.filter(|device| device.reason == reason).collect()
    };
    let unnamed = of("no_host_name");
    if !unnamed.is_empty() {
        let mut names: Vec<String> = unnamed.iter().map(|nic| nic.vm.clone()).collect();
        names.dedup();
        let nics = count(unnamed.len() as u64, "interface");
        found.push(
            Finding::note(
                "interfaces",
                format!(
                    "{nics} without a name on the host, so nothing counts there: {}",
                    first_names(&names)
                ),
            )
            .with("user-mode interfaces have no counters; a bridge or network gives the VM a tap"),
        );
    }
    let others = ["filtered", "cdrom", "floppy", "not_counted"].map(|reason| (reason, of(reason)));
    for (reason, devices) in others.iter().filter(|(_, devices)| !devices.is_empty()) {
        let named: Vec<String> = devices
            .iter()
            .map(|d| format!("{} of {}", d.device.as_deref().unwrap_or("-"), d.vm))
            .collect();
        let (what, remedy) = match *reason {
            "filtered" => (
                "left out by name",
                "check device_include and device_exclude",
            ),
            "cdrom" => ("CD-ROM drives are left out", "cdrom = true writes them"),
            "floppy" => ("floppy drives are left out", "floppy = true writes them"),
            _ => (
                "libvirt has no counters of vhost-user disks",
                "ask the process that serves the disk",
            ),
        };
        found.push(
            Finding::note("devices", format!("{what}: {}", first_names(&named))).with(remedy),
        );
    }
    found
}

fn guest_memory(vms: &Vms, libvirt: &Libvirt) -> Finding {
    let names = &vms.without_guest_memory;
    let Some(first) = names.first() else {
        let message = match vms.running {
            0 if vms.not_answering.is_empty() => "no guest runs",
            0 => "no guest that answers runs",
            _ => "every guest that runs reports it",
        };
        return Finding::ok("guest memory", message);
    };
    let message = format!(
        "not reported by {}: {}",
        count(names.len() as u64, "VM"),
        first_names(names)
    );
    let remedy = match libvirt.driver.as_deref() {
        Some("QEMU") => format!(
            "virsh dommemstat {} --period 5 --live (and --config, to keep it); the guest needs a virtio balloon \
             and its driver",
            quoted(first)
        ),
        _ => "this driver may not have it".to_owned(),
    };
    Finding::note("guest memory", message).with(remedy)
}

/// The name as a word of a shell command.
fn quoted(name: &str) -> String {
    let plain = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    if name.chars().all(plain) && !name.starts_with('-') {
        return name.to_owned();
    }
    format!("--domain '{}'", name.replace('\'', r"'\''"))
}
