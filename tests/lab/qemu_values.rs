//! Against real QEMU VMs: every field of every measurement equals virsh's value for the same VM, or lies
//! between its values before and after.

use crate::support;
use crate::support::lab::Lab;
use crate::support::lines::{self, FEATURES, Line};
use crate::support::plugin::Plugin;
use crate::support::virsh::agrees;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{turn, wait_for};
use std::process::Command;
use std::time::Duration;

/// A plugin that is configured to show CD-ROM and floppy drives.
fn with_drives(lab: &Lab) -> Plugin {
    let file = lab.config("cdrom = true\nfloppy = true\n");
    Plugin::spawn(lab.plugin(&["--config", &file]))
}

fn features<'l>(lines: &'l [Line], name: &str) -> Vec<&'l str> {
    let line = lines::one(lines, "vm_features", name);
    line.fields.keys().map(String::as_str).collect()
}

/// The VMs to compare, by UUID; their tag `name` is their name.
fn as_named<'v>(vms: &[&'v Vm]) -> Vec<(&'v str, Option<&'static str>)> {
    vms.iter().map(|vm| (vm.uuid(), None)).collect()
}

/// A VM with every kind of device that the lab has, which runs the Linux guest; one that only runs; one that
/// is paused; one without disk, NIC or balloon; and one that has always been paused.
#[test]
fn every_field_is_what_virsh_says() {
    let _turn = turn::share();
    let lab = Lab::start();
    let full = lab.create(&VmSpec {
        name: "full".into(),
        memory_mib: 96,
        max_vcpus: 2,
        disks: disks(&["vda", "vdb", "sda"]),
        nics: vec![Nic::Tap, Nic::User, Nic::Named("tap0".into())],
        cdrom: true,
        floppy: true,
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    });
    let idle = lab.create(&VmSpec {
        name: "idle".into(),
        vcpus: 2,
        max_vcpus: 3,
        disks: disks(&["hda"]),
        nics: vec![Nic::Tap],
        persistent: true,
        ..VmSpec::default()
    });
    let bare = lab.create(&VmSpec {
        name: "bare".into(),
        balloon: false,
        ..VmSpec::default()
    });
    let born_paused = lab.create(&VmSpec {
        name: "born paused".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    });
    full.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up; ping -c 3 -i 0.2 192.168.77.1");
    full.guest("dd if=/dev/vda of=/dev/null bs=4k count=8 iflag=direct");
    full.guest("dd if=/dev/zero of=/dev/vdb bs=4k count=8 oflag=direct");
    wait_for("the guest's memory", Duration::from_secs(30), || {
        let stats = lab.domstats(full.name());
        (stats.contains_key("balloon.usable") && stats.contains_key("balloon.disk_caches"))
            .then_some(())
    });
    let all = as_named(&[&full, &idle, &bare, &born_paused]);

    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let first = agrees(&lab, &mut plugin, &all, false);
    assert!(
        first
            .iter()
            .all(|line| line.timestamp == first[0].timestamp)
    );
    let nine = lines::one(&first, "vm_totals", full.name());
    for field in [
        "memactual",
        "memrss",
        "memavailable",
        "memusable",
        "memswap_in",
        "memswap_out",
        "memmajor_fault",
        "memminor_fault",
        "memdisk_cache",
    ] {
        assert!(nine.int(field).is_some(), "{field}: {nine:?}");
    }
    // The values must not all be 0, or the comparison would prove nothing.
    for field in [
        "net_rxbytes",
        "net_txpackets",
        "disk_rd_bytes",
        "disk_wr_bytes",
    ] {
        assert!(nine.int(field) > Some(0), "{field}: {nine:?}");
    }
    let bare_totals = lines::one(&first, "vm_totals", bare.name());
    for field in ["net_rxbytes", "net_txdrops", "disk_rd_req", "disk_wr_bytes"] {
        assert_eq!(bare_totals.int(field), Some(0), "a sum over no devices");
    }
    let devices = |lines: &[Line]| lines::of(lines, "vm_devices", full.name()).len();
    assert_eq!(devices(&first), 5, "3 disks and 2 taps");

    // From the second gather on there are rates; for a paused VM they are 0.
    let second = agrees(&lab, &mut plugin, &all, false);
    let mut all_features = FEATURES.to_vec();
    all_features.sort_unstable();
    for vm in [&full, &idle, &bare, &born_paused] {
        assert_eq!(features(&second, vm.name()), all_features);
    }
    let still = lines::one(&second, "vm_features", born_paused.name());
    for field in FEATURES {
        if field != "cpu_usage_percent" {
            assert_eq!(still.float(field), Some(0.0), "{field}: {still:?}");
        }
    }
    assert_eq!(plugin.stderr(), "");

    // CD-ROM and floppy drives are shown where that is configured, even the one without a medium.
    let mut drives = with_drives(&lab);
    let shown = agrees(&lab, &mut drives, &all, true);
    assert_eq!(devices(&shown), 7);
    lines::device(&shown, full.name(), "disk", "hdc");
    assert_eq!(drives.stderr(), "");

    // An ordinary user, in no group, gets the same lines.
    let mut user = Plugin::spawn(lab.plugin_as(65534, &[]));
    agrees(&lab, &mut user, &all, false);
    agrees(&lab, &mut user, &all, false);
    assert_eq!(user.stderr(), "");
    let owner = std::fs::read_to_string(format!("/proc/{}/status", user.pid())).unwrap();
    assert!(
        owner.contains("Uid:\t65534\t65534\t65534\t65534"),
        "{owner}"
    );
}

/// `--once` writes all of it but the rates, and ends.
#[test]
fn once_is_one_whole_gather() {
    let _turn = turn::share();
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        disks: disks(&["vda"]),
        paused: true,
        ..VmSpec::default()
    });
    let mut command: Command = lab.plugin(&["--once"]);
    let output = support::run(&mut command);
    assert!(output.status.success());
    assert_eq!(String::from_utf8_lossy(&output.stderr), "");
    let found = lines::lines(std::str::from_utf8(&output.stdout).unwrap());
    let kinds: Vec<&str> = found.iter().map(|l| l.measurement.as_str()).collect();
    assert_eq!(kinds, ["vm_metrics", "vm_devices", "vm_totals"]);
    assert!(found.iter().all(|line| line.tag("name") == vm.name()));
}
