//! What changes while the plugin runs is right in the very next gather: devices, vCPUs, states,
//! runs and names.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::time::Duration;
use support::lab::Lab;
use support::lines::{self, Line};
use support::plugin::Plugin;
use support::virsh::{FEATURES, agrees};
use support::vm::{Nic, Vm, VmSpec, disk_xml, disks};
use support::wait_for;

/// libvirt sends its events when a change is done, on another connection than virsh's: by now they
/// have arrived.
fn events_arrive() {
    std::thread::sleep(Duration::from_millis(500));
}

/// A VM's devices by their lines: `nic vnet0`, `disk vda`.
fn devices(lines: &[Line], name: &str) -> Vec<String> {
    let devices = lines::of(lines, "vm_devices", name).into_iter();
    let mut devices: Vec<String> = devices
        .map(|line| format!("{} {}", line.tag("devtype"), line.tag("device")))
        .collect();
    devices.sort_unstable();
    devices
}

/// Which of the features a VM lacks, by the beginning of their names (`net_`, `disk_`, `cpu_`,
/// `memory_`): a group lacks as a whole.
fn lacking(lines: &[Line], name: &str) -> Vec<&'static str> {
    let line = lines::one(lines, "vm_features", name);
    let mut groups = vec!["net_", "disk_", "cpu_", "memory_"];
    groups.retain(|group| {
        let mut all = FEATURES.iter().filter(|field| field.starts_with(group));
        let lacks = !line.fields.contains_key(*all.next().unwrap());
        assert!(
            all.all(|field| line.fields.contains_key(*field) != lacks),
            "{line:?}"
        );
        lacks
    });
    for (field, rate) in &line.fields {
        let rate = line.float(field).unwrap_or_else(|| panic!("{rate:?}"));
        assert!(rate >= 0.0 || field.starts_with("memory_"), "{line:?}");
    }
    groups
}

/// The next gather, every field compared with virsh.
fn next(lab: &Lab, plugin: &mut Plugin, vm: &Vm) -> Vec<Line> {
    agrees(lab, plugin, &[(vm.uuid(), None)], false)
}

/// Waits until a device that the guest has to let go is gone.
fn wait_gone(lab: &Lab, vm: &Vm, list: &str, device: &str) {
    wait_for(&format!("{device} to go"), Duration::from_secs(60), || {
        let listed = lab.virsh(&[list, "--domain", vm.uuid()]);
        (!listed.contains(device)).then_some(())
    });
}

#[test]
fn hot_plug_and_unplug_show_in_the_very_next_gather() {
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
    // A guest that is up answers the request to let a device go.
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

    let mac = lab.virsh(&["domiflist", uuid]);
    let mac = mac.lines().find(|line| line.contains("tap1")).unwrap();
    let mac = mac.split_whitespace().last().unwrap();
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

/// The statistics call both by the same name, so only libvirt's events tell.
#[test]
fn a_disk_in_the_place_of_a_cdrom_drive_is_seen() {
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
    let config = lab.dir().join("cdrom.toml");
    std::fs::write(&config, "cdrom = true\n").unwrap();
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let mut shows_drives = Plugin::spawn(lab.plugin(&["--config", config.to_str().unwrap()]));
    let both = ["disk sdb", "disk vda"];
    // The second gather is there for the events to have begun.
    for _ in 0..2 {
        assert_eq!(devices(&next(&lab, &mut plugin, &vm), name), ["disk vda"]);
        assert_eq!(devices(&shows_drives.gather(), name), both);
    }

    lab.virsh(&["detach-disk", uuid, "sdb", "--live"]);
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

    // Only who asks hears of it, and once.
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

#[test]
fn states_runs_and_names_are_those_of_the_gather() {
    let lab = Lab::start();
    let spec = VmSpec {
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        persistent: true,
        ..VmSpec::default()
    };
    let steady = lab.create(&VmSpec {
        name: "steady".into(),
        ..spec.clone()
    });
    let vm = lab.create(&spec);
    let (name, uuid) = (vm.name(), vm.uuid());
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let id =
        |lines: &[Line], name: &str| lines::one(lines, "vm_metrics", name).tag("VMID").to_owned();

    let first = next(&lab, &mut plugin, &vm);
    assert_eq!(lines::of(&first, "vm_features", name).len(), 0);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), [""; 0]);
    for (command, state, reason) in [
        ("suspend", "paused", "user"),
        ("resume", "running", "unpaused"),
    ] {
        lab.virsh(&[command, uuid]);
        let found = next(&lab, &mut plugin, &vm);
        let metrics = lines::one(&found, "vm_metrics", name);
        assert_eq!(metrics.text("state"), Some(state));
        assert_eq!(metrics.text("state_reason"), Some(reason));
        assert_eq!(lacking(&found, name), [""; 0], "rates go on");
    }

    // Ended: no line of it at all, and the other VM's go on.
    lab.virsh(&["destroy", uuid]);
    let found = next(&lab, &mut plugin, &steady);
    assert!(
        found.iter().all(|line| line.tag("uuid") == steady.uuid()),
        "{found:?}"
    );
    assert_eq!(lacking(&found, steady.name()), [""; 0]);

    // Another run: no rate across the two.
    lab.virsh(&["start", "--domain", uuid]);
    let second = next(&lab, &mut plugin, &vm);
    assert_ne!(id(&second, name), id(&first, name));
    assert_eq!(lines::of(&second, "vm_features", name).len(), 0);
    assert_eq!(lacking(&second, steady.name()), [""; 0]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), [""; 0]);

    // The same, unseen between two gathers; a disk more has been defined meanwhile.
    let image = lab.dir().join("vdb.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let image = image.to_str().unwrap();
    lab.virsh(&[
        "attach-disk",
        uuid,
        image,
        "vdb",
        "--targetbus",
        "virtio",
        "--config",
    ]);
    assert_eq!(
        devices(&next(&lab, &mut plugin, &vm), name),
        ["disk vda", "nic vnet2"]
    );
    lab.virsh(&["destroy", uuid]);
    lab.virsh(&["start", "--domain", uuid]);
    let third = next(&lab, &mut plugin, &vm);
    assert_ne!(id(&third, name), id(&second, name));
    assert_eq!(lines::of(&third, "vm_features", name).len(), 0);
    assert_eq!(devices(&third, name), ["disk vda", "disk vdb", "nic vnet3"]);

    // Renamed between runs: the new name everywhere, the old one nowhere.
    let renamed = format!("{name}, the \"new\" one");
    lab.virsh(&["destroy", uuid]);
    lab.virsh(&["domrename", uuid, &renamed]);
    lab.virsh(&["start", "--domain", uuid]);
    for gather in 0..2 {
        let found = next(&lab, &mut plugin, &vm);
        assert!(
            found.iter().all(|line| line.tag("name") != name),
            "{found:?}"
        );
        let metrics = lines::one(&found, "vm_metrics", &renamed);
        assert_eq!(metrics.tag("uuid"), uuid);
        assert_eq!(devices(&found, &renamed).len(), 3);
        assert_eq!(lines::of(&found, "vm_features", &renamed).len(), gather);
    }
    assert_eq!(plugin.stderr(), "");
}
