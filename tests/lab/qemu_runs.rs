//! The states, runs and names of VMs are correct in the very next gather.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line, devices, lacking};
use crate::support::plugin::Plugin;
use crate::support::turn;
use crate::support::virsh::agrees;
use crate::support::vm::{Nic, Vm, VmSpec, disks};

/// Runs the next gather and compares every field with virsh.
fn next(lab: &Lab, plugin: &mut Plugin, vm: &Vm) -> Vec<Line> {
    agrees(lab, plugin, &[(vm.uuid(), None)], false)
}

#[test]
fn states_runs_and_names_are_those_of_the_gather() {
    let _turn = turn::share();
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

    // The VM has ended: it has no line at all, and the other VM's lines continue.
    lab.virsh(&["destroy", uuid]);
    let found = next(&lab, &mut plugin, &steady);
    assert!(
        found.iter().all(|line| line.tag("uuid") == steady.uuid()),
        "{found:?}"
    );
    assert_eq!(lacking(&found, steady.name()), [""; 0]);

    // The VM runs again: no rate is computed across the two runs.
    lab.virsh(&["start", "--domain", uuid]);
    let second = next(&lab, &mut plugin, &vm);
    assert_ne!(id(&second, name), id(&first, name));
    assert_eq!(lines::of(&second, "vm_features", name).len(), 0);
    assert_eq!(lacking(&second, steady.name()), [""; 0]);
    assert_eq!(lacking(&next(&lab, &mut plugin, &vm), name), [""; 0]);

    // The same restart between two gathers, with one more disk in the definition.
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

    // The VM is renamed between runs: the new name is used everywhere, the old one nowhere.
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
