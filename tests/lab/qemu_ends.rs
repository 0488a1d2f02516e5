//! The last line of a VM that has stopped, and what the log says of it.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line, is_last};
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec, disks};
use crate::support::wait_for;
use std::collections::BTreeSet;
use std::time::Duration;

/// Gathers until the plugin receives libvirt's events.
pub fn until_events_come(plugin: &mut Plugin, vm: &Vm) -> Vec<Line> {
    wait_for("events", Duration::from_secs(30), || {
        let found = plugin.gather();
        let disk = lines::device(&found, vm.name(), "disk", "vda").clone();
        disk.int("io_error_events").map(|_| found)
    })
}

#[test]
fn a_vm_that_has_stopped_gets_one_last_line_that_says_why() {
    let lab = Lab::start();
    let spec = |name: &str| VmSpec {
        name: name.into(),
        disks: disks(&["vda"]),
        paused: true,
        persistent: true,
        ..VmSpec::default()
    };
    let create = |name: &str| lab.create(&spec(name));
    let steady = create("steady");
    let (destroyed, saved, killed) = (create("destroyed"), create("saved"), create("killed"));
    // QEMU reports a shutdown to libvirt when it ends by this signal, as when the guest powers off.
    let (shutdown, restarted, hidden) = (create("shutdown"), create("restarted"), create("hidden"));
    // Paused when it was saved, and so it stays; libvirt calls that "migration".
    let restored = create("restored");
    lab.virsh(&["managedsave", restored.uuid()]);
    lab.virsh(&["start", "--domain", restored.uuid()]);
    let file = lab.config("domain_exclude = [\"*-hidden\"]\ntimestamp_precision = \"1ns\"\n");
    let mut plugin = Plugin::spawn(lab.plugin(&["--config", &file]));
    let first = until_events_come(&mut plugin, &steady);
    let id = |vm: &Vm| {
        lines::one(&first, "vm_metrics", vm.name())
            .tag("VMID")
            .to_owned()
    };

    // Where the first call to it was slow, it was passed by in that gather.
    wait_for("an answer of its QEMU", Duration::from_secs(30), || {
        let found = plugin.gather();
        let paused = lines::one(&found, "vm_metrics", restored.name());
        let state = ["state", "state_reason"].map(|field| paused.text(field));
        assert_eq!(state, [Some("paused"), Some("migration")]);
        paused.int("answers").filter(|answers| *answers == 1)
    });
    restored.freeze();
    let frozen = plugin.gather();
    let frozen = lines::one(&frozen, "vm_metrics", restored.name());
    assert_eq!(frozen.int("answers"), Some(0));
    assert_eq!(plugin.collected("vms_partial"), 1);
    restored.signal("KILL");

    destroyed.destroy();
    let state = lab.dir().join("saved.state");
    lab.virsh(&["save", saved.uuid(), state.to_str().unwrap()]);
    killed.signal("KILL");
    shutdown.signal("TERM");
    restarted.destroy();
    lab.virsh(&["start", "--paused", "--domain", restarted.uuid()]);
    hidden.destroy();
    // No gather sees this one.
    create("unseen").destroy();

    let ended = [
        (&destroyed, "destroyed", 2),
        (&saved, "saved", 5),
        (&killed, "crashed", 3),
        (&shutdown, "shutdown", 1),
        (&restarted, "destroyed", 2),
        (&restored, "crashed", 3),
    ];
    // libvirt notices the two signals by itself, and sends its events on another connection than virsh's.
    let mut all: Vec<Line> = Vec::new();
    wait_for("the last lines", Duration::from_secs(60), || {
        all.extend(plugin.gather());
        let last: BTreeSet<&str> = all
            .iter()
            .filter(|line| is_last(line))
            .map(|line| line.tag("uuid"))
            .collect();
        (last.len() >= ended.len()).then_some(())
    });
    for _ in 0..2 {
        all.extend(plugin.gather());
    }
    for (vm, word, number) in ended {
        let of_run = |line: &&Line| line.tag("uuid") == vm.uuid() && line.tag("VMID") == id(vm);
        let (last, others): (Vec<&Line>, Vec<&Line>) =
            all.iter().filter(of_run).partition(|line| is_last(line));
        assert_eq!(last.len(), 2, "{}: {last:#?}", vm.name());
        let last: Vec<Line> = last.into_iter().cloned().collect();
        let metrics = lines::one(&last, "vm_metrics", vm.name());
        assert_eq!(metrics.text("state_reason"), Some(word), "{metrics:?}");
        assert_eq!(metrics.tags.len(), 3, "{metrics:?}");
        let totals = lines::one(&last, "vm_totals", vm.name());
        assert_eq!(totals.int("state_reason"), Some(number), "{totals:?}");
        assert_eq!(
            (&totals.tags, totals.timestamp),
            (&metrics.tags, metrics.timestamp)
        );
        let late = others
            .iter()
            .find(|line| line.timestamp >= totals.timestamp);
        assert_eq!(late, None, "beside or after the last line");
    }
    let last = all.iter().filter(|line| is_last(line));
    assert_eq!(last.count(), 2 * ended.len(), "{all:#?}");
    let newest = all.last().unwrap().timestamp;
    let now = all.iter().filter(|line| line.timestamp == newest);
    let now: BTreeSet<&str> = now.map(|line| line.tag("uuid")).collect();
    assert_eq!(now, BTreeSet::from([steady.uuid(), restarted.uuid()]));

    // A crash is worth one line in the log, and the others none.
    let said = plugin.stderr();
    let crashed = [&killed, &restored];
    assert_eq!(said.lines().count(), crashed.len(), "{said}");
    for vm in crashed {
        let log = format!("/var/log/libvirt/qemu/{}.log", vm.name());
        assert!(lab.inside(&log).exists(), "{log}");
        let begins = format!("W! VM {} ", vm.name());
        let line = said.lines().find(|line| line.starts_with(&begins));
        let line = line.unwrap_or_else(|| panic!("{said}"));
        assert!(line.contains("crashed") && line.contains(&log), "{said}");
    }
}
