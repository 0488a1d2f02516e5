//! Devices and vCPUs that are added or removed while the plugin runs are correct in the very next gather.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line, devices, lacking};
use crate::support::plugin::Plugin;
use crate::support::virsh::agrees;
use crate::support::vm::{Nic, Vm, VmSpec, disk_xml, disks};
use crate::support::{run, turn, wait_for};
use std::time::Duration;

/// libvirt sends its events at the end of a change, on another connection than virsh's: after this pause they
/// have arrived.
fn events_arrive() {
    std::thread::sleep(Duration::from_millis(500));
}

/// Runs the next gather and compares every field with virsh.
fn next(lab: &Lab, plugin: &mut Plugin, vm: &Vm) -> Vec<Line> {
    agrees(lab, plugin, &[(vm.uuid(), None)], false)
}

/// Waits until a device that the guest has to release is gone.
fn wait_gone(lab: &Lab, vm: &Vm, list: &str, device: &str) {
    wait_for(&format!("{device} to go"), Duration::from_secs(60), || {
        let listed = lab.virsh(&[list, "--domain", vm.uuid()]);
        (!listed.contains(device)).then_some(())
    });
    // libvirtd still works on the change for a moment and holds the VM's job; this call waits for that.
    lab.domstats(vm.uuid());
}

#[test]
fn hot_plug_and_unplug_show_in_the_very_next_gather() {
    let _turn = turn::share();
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        memory_mib: 96,
        max_vcpus: 2,
        disks: disks(&["vda"]),
        nics: vec![Nic::Named("tap0".into())],
        guest: true,
        ..VmSpec::default()
    });
    let (name, uuid) = (vm.name(), vm.uuid());
    let image = lab.dir().join("second.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    // A guest that has booted answers the request to release a device.
    vm.guest("ip link set eth0 up; dd if=/dev/vda of=/dev/null bs=64k count=4 iflag=direct");

    let none: [&str; 0] = [];
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let found = next(&lab, &mut plugin, &vm);
    assert_eq!(lines::of(&found, "vm_features", name).len(), 0);
    assert_eq!(devices(&found, name), ["disk vda", "nic tap0"]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), none);

    let image = image.to_str().unwrap();
    lab.virsh(&[
        "attach-disk",
        uuid,
        image,
        "vdb",
        "--targetbus",
        "virtio",
        "--live",
    ]);
    let found = plugin.gather();
    assert_eq!(devices(&found, name), ["disk vda", "disk vdb", "nic tap0"]);
    assert_eq!(lacking(&found, name), ["disk_"]);
    vm.guest("until [ -b /dev/vdb ]; do sleep 0.1; done");
    vm.guest("dd if=/dev/zero of=/dev/vdb bs=64k count=4 oflag=direct");
    let found = next(&lab, &mut plugin, &vm);
    assert_eq!(lacking(&found, name), none);
    let written = lines::device(&found, name, "disk", "vdb").int("wr_bytes");
    assert_eq!(written, Some(4 << 16));

    lab.virsh(&[
        "attach-interface",
        uuid,
        "bridge",
        "br0",
        "--target",
        "tap1",
        "--model",
        "virtio",
        "--live",
    ]);
    let found = plugin.gather();
    assert_eq!(
        devices(&found, name),
        ["disk vda", "disk vdb", "nic tap0", "nic tap1"]
    );
    assert_eq!(lacking(&found, name), ["net_"]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), none);

    lab.virsh(&["detach-disk", uuid, "vdb", "--live"]);
    wait_gone(&lab, &vm, "domblklist", "vdb");
    let found = plugin.gather();
    assert_eq!(devices(&found, name), ["disk vda", "nic tap0", "nic tap1"]);
    assert_eq!(lacking(&found, name), ["disk_"]);
    let totals = lines::one(&found, "vm_totals", name);
    let vda = lines::device(&found, name, "disk", "vda");
    assert_eq!(totals.int("disk_wr_bytes"), vda.int("wr_bytes"));
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), none);

    let interfaces = lab.virsh(&["domiflist", uuid]);
    let mac = interfaces
        .lines()
        .find(|line| line.contains("tap1"))
        .and_then(|line| line.split_whitespace().last())
        .unwrap();
    lab.virsh(&["detach-interface", uuid, "bridge", "--mac", mac, "--live"]);
    wait_gone(&lab, &vm, "domiflist", "tap1");
    let found = plugin.gather();
    assert_eq!(devices(&found, name), ["disk vda", "nic tap0"]);
    assert_eq!(lacking(&found, name), ["net_"]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), none);

    lab.virsh(&["setvcpus", uuid, "2", "--live"]);
    let found = plugin.gather();
    let count = |found: &[Line]| {
        let totals = lines::one(found, "vm_totals", name).int("cpus");
        assert_eq!(
            lines::one(found, "vm_metrics", name).int("cpu_count"),
            totals
        );
        totals
    };
    assert_eq!(count(&found), Some(2));
    assert_eq!(lacking(&found, name), ["cpu_"]);
    let found = next(&lab, &mut plugin, &vm);
    assert_eq!(
        (count(&found), lacking(&found, name)),
        (Some(2), none.to_vec())
    );
    assert_eq!(plugin.stderr(), "");
}

/// The statistics have the same name for both, so only libvirt's events show the change.
#[test]
fn a_disk_in_the_place_of_a_cdrom_drive_is_seen() {
    let _turn = turn::share();
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        devices: "<controller type='scsi' model='virtio-scsi'/>\
                  <disk type='file' device='cdrom'><target dev='sdb' bus='scsi'/></disk>"
            .into(),
        disks: disks(&["vda"]),
        ..VmSpec::default()
    });
    let (name, uuid) = (vm.name(), vm.uuid());
    let image = lab.dir().join("sdb.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let file = lab.dir().join("sdb.xml");
    let attach = |device: &str| {
        let xml = disk_xml(device, "sdb", Some(&image)).replace("'sata'", "'scsi'");
        std::fs::write(&file, xml).unwrap();
        lab.virsh(&["attach-device", uuid, file.to_str().unwrap(), "--live"]);
    };
    let config = lab.config("cdrom = true\n");
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let mut shows_drives = Plugin::spawn(lab.plugin(&["--config", &config]));
    let both = ["disk sdb", "disk vda"];
    // By the second gather the events have begun.
    for _ in 0..2 {
        assert_eq!(devices(&next(&lab, &mut plugin, &vm), name), ["disk vda"]);
        assert_eq!(devices(&shows_drives.gather(), name), both);
    }

    let mut detach = lab.virsh_command();
    let detached = run(detach.args(["detach-disk", uuid, "sdb", "--live"]));
    let refusal = String::from_utf8_lossy(&detached.stderr);
    if refusal.contains("disk device type 'cdrom' cannot be detached") {
        // libvirt 7.0 reports this error: with it no drive of a running VM can become a disk or be plugged
        // in.
        return;
    }
    assert!(detached.status.success(), "{refusal}");
    wait_gone(&lab, &vm, "domblklist", "sdb");
    attach("disk");
    events_arrive();
    let found = plugin.gather();
    assert_eq!(devices(&found, name), both);
    assert_eq!(lacking(&found, name), ["disk_"]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), [""; 0]);
    assert_eq!(devices(&shows_drives.gather(), name), both);

    lab.virsh(&["detach-disk", uuid, "sdb", "--live"]);
    wait_gone(&lab, &vm, "domblklist", "sdb");
    attach("cdrom");
    events_arrive();
    let found = plugin.gather();
    assert_eq!(devices(&found, name), ["disk vda"]);
    assert_eq!(lacking(&found, name), ["disk_"]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), [""; 0]);
    assert_eq!(devices(&shows_drives.gather(), name), both);
    assert_eq!(plugin.stderr() + &shows_drives.stderr(), "");
}

#[test]
fn a_user_mode_nic_has_no_line_and_is_no_zero() {
    let _turn = turn::share();
    let lab = Lab::start();
    let spec = |name: &str, nics| VmSpec {
        name: name.into(),
        nics,
        disks: disks(&["vda"]),
        paused: true,
        ..VmSpec::default()
    };
    let alone = lab.create(&spec("alone", vec![Nic::User]));
    let beside = lab.create(&spec("beside", vec![Nic::User, Nic::Tap, Nic::User]));
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    for gather in 0..3 {
        let found = agrees(&lab, &mut plugin, &[(beside.uuid(), None)], false);
        next(&lab, &mut plugin, &alone);
        assert_eq!(devices(&found, alone.name()), ["disk vda"]);
        assert_eq!(devices(&found, beside.name()), ["disk vda", "nic vnet0"]);
        let totals = lines::one(&found, "vm_totals", alone.name());
        assert!(!totals.fields.keys().any(|field| field.starts_with("net_")));
        assert_eq!(totals.int("disk_rd_bytes"), Some(0));
        let totals = lines::one(&found, "vm_totals", beside.name());
        assert_eq!(totals.int("net_rxbytes"), Some(0), "the tap's");
        if gather > 0 {
            assert_eq!(lacking(&found, alone.name()), ["net_"]);
            assert_eq!(lacking(&found, beside.name()), [""; 0]);
        }
    }
    assert_eq!(plugin.stderr(), "");

    // The plugin reports it only in its debug log, and once.
    let mut plugin = lab.plugin(&[]);
    plugin.env("RUST_LOG", "telegraf_kvm=debug");
    let mut plugin = Plugin::spawn(plugin);
    plugin.gather();
    plugin.gather();
    let log = plugin.stderr();
    let told: Vec<&str> = log
        .lines()
        .filter(|line| line.contains("user-mode"))
        .collect();
    assert_eq!(told.len(), 2, "{log}");
    assert!(told.iter().all(|line| line.starts_with("D! ")), "{log}");
    assert!(told.iter().any(|line| line.contains(alone.name())), "{log}");
}
