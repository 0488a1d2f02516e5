//! What this program sees of the hypervisor's host, and the storage of the disks.

use super::Finding;
use crate::doctor::facts::{Host, Libvirt, Storage, Vms};
use crate::times::MOUNT_ANSWERS;
use crate::wording::first_names;

/// Where the hypervisor is another host, or none of QEMU's.
pub(super) fn not_this_host(libvirt: &Libvirt) -> Finding {
    if libvirt.in_process {
        return Finding::note("figures", "all from libvirt: there is no host to look at");
    }
    Finding::note(
        "figures",
        "all from libvirt: the hypervisor is another host, or not QEMU, so that a frozen VM is noticed only by a call \
         that hangs",
    )
    .with("run this program on the hypervisor itself, with a URI such as qemu:///system")
}

pub(super) fn in_sight(host: &Host, vms: &Vms) -> Vec<Finding> {
    let wanted = vms.wanted;
    let mut found = Vec::new();
    if wanted == 0 {
        return found;
    }
    let seen = host.processes;
    let message = format!("QEMU of {seen} of {wanted} VMs in sight");
    found.push(if seen == wanted {
        Finding::ok("processes", message)
    } else {
        let why = match host.proc_is_open {
            false => "/proc is mounted with hidepid: remount it with hidepid=0, or with gid= of a group of this user",
            true => "run this program outside of a container, in the host's PID namespace",
        };
        let message = format!("{message}; of the others a frozen VM is noticed only by a call that hangs");
        Finding::warning("processes", message).with(why)
    });
    if host.cpu_time_wanted {
        let groups = host.control_groups;
        let message = format!("control groups of {groups} of {wanted} VMs in sight");
        found.push(if groups == wanted {
            Finding::ok("control groups", message)
        } else {
            Finding::note("control groups", format!("{message}; libvirt is asked for the others' CPU time"))
                .with("the host's /sys/fs/cgroup must be visible, and QEMU in the groups that libvirt made")
        });
    }
    if host.vcpu_times_wanted {
        found.push(vcpu_threads(host, wanted));
    }
    if host.pressure_wanted {
        found.push(pressure(host, wanted));
    }
    if host.network_wanted && host.taps > 0 {
        let (taps, in_sight) = (host.taps, host.taps_in_sight);
        let message = format!("{in_sight} of {taps} network interfaces in sight");
        found.push(if in_sight == taps {
            Finding::ok("interfaces", message)
        } else {
            Finding::note(
                "interfaces",
                format!("{message}; libvirt is asked for the others' counters"),
            )
            .with("run this program in the network namespace of libvirtd (no container network)")
        });
    }
    found.push(sources(host, wanted));
    found
}

fn vcpu_threads(host: &Host, wanted: usize) -> Finding {
    let (of, threads) = (host.vms_with_vcpu_threads, host.vcpu_threads);
    let message = format!("{threads} vCPU threads in sight, of {of} of {wanted} VMs");
    if of == wanted {
        return Finding::ok("vCPU threads", message);
    }
    if host.vcpu_times_from_libvirt {
        let message = format!("{message}; libvirt is asked for the others' times");
        return Finding::ok("vCPU threads", message);
    }
    let message = format!("{message}; the others have no vcpu_time_ns, vcpu_delay_ns and steal");
    Finding::note("vCPU threads", message)
        .with("as for processes, or allow more open files (LimitNOFILE=), or set vcpu_delay = \"libvirt\"")
}

fn pressure(host: &Host, wanted: usize) -> Finding {
    let with = host.vms_with_pressure;
    let message = format!("pressure files of {with} of {wanted} VMs in sight");
    if with == wanted {
        return Finding::ok("pressure", message);
    }
    let message = format!("{message}; the others have no line of vm_pressure");
    Finding::warning("pressure", message).with(
        "the host must have cgroup v2 and pressure stall information (psi=1 on the kernel's command line), and \
         /sys/fs/cgroup must be visible",
    )
}

/// Which figures come from this host, and which from libvirt.
fn sources(host: &Host, wanted: usize) -> Finding {
    let mut parts = Vec::new();
    if host.cpu_time_wanted {
        let from_host = host.cpu_time_from_host;
        parts.push(format!("CPU time of {from_host} of {wanted} VMs"));
    }
    if host.network_wanted && host.vms_with_taps > 0 {
        let (from_host, of) = (host.network_from_host, host.vms_with_taps);
        parts.push(format!("network counters of {from_host} of {of} VMs"));
    }
    if parts.is_empty() {
        return Finding::ok("figures", "all from libvirt");
    }
    Finding::ok(
        "figures",
        format!(
            "read on this host: {}; all else comes from libvirt, as does what has not moved yet",
            parts.join(", ")
        ),
    )
}

pub(super) fn storage(storage: &Storage) -> Vec<Finding> {
    let mut found = Vec::new();
    if storage.network_mounts.is_empty() {
        found.push(Finding::ok("storage", "no disk on a network mount"));
    }
    let limit = MOUNT_ANSWERS.as_secs_f64();
    let of = |state: &str| -> Vec<String> {
        let mounts = storage.network_mounts.iter();
        let mounts = mounts.filter(|mount| mount.state == state);
        mounts.map(|mount| mount.mount.clone()).collect()
    };
    let alive = of("answers");
    if !alive.is_empty() {
        let message = format!(
            "network mounts that answer within {limit} s: {}",
            first_names(&alive)
        );
        found.push(Finding::ok("storage", message));
    }
    let disks = match storage.disks_left_out {
        true => "their disks are left out",
        false => "their disks are read one by one",
    };
    for mount in storage
        .network_mounts
        .iter()
        .filter(|mount| mount.state == "dead")
    {
        let vms = match mount.vms.is_empty() {
            true => String::new(),
            false => format!("; VMs: {}; {disks}", first_names(&mount.vms)),
        };
        let message = format!("{} does not answer{vms}", mount.mount);
        let remedy = "see whether its server is up, and the kernel's log (dmesg)";
        found.push(Finding::warning("storage", message).with(remedy));
    }
    let late = of("late");
    if !late.is_empty() {
        let message = format!(
            "network mounts slower than {limit} s: {}",
            first_names(&late)
        );
        found.push(
            Finding::warning("storage", message)
                .with("see how busy the server and the network are"),
        );
    }
    let unknown = of("unknown");
    if !unknown.is_empty() {
        let message = format!(
            "network mounts that this user may not look at: {}",
            first_names(&unknown)
        );
        let remedy = "let this user enter them (chmod o+x), or set block_statistics = \"bulk\" if they never hang";
        found.push(Finding::note("storage", message).with(remedy));
    }
    if !storage.unknown_storage.is_empty() {
        let message = format!(
            "not known where all files lie of: {}",
            first_names(&storage.unknown_storage)
        );
        let remedy =
            "let this user enter the folders of the images, or set block_statistics = \"bulk\"";
        found.push(Finding::note("storage", message).with(remedy));
    }
    found
}
