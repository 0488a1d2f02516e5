//! A daemon that is away, comes back, restarts, crashes, or refuses clients: the plugin keeps running, warns
//! once with cause and remedy, and the first gather afterwards is complete.

use crate::support::lab::Lab;
use crate::support::lines::Line;
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, VmSpec, disks};
use crate::support::{run, succeed, told, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

const NOBODY: u32 = 65_534;

/// A lab with two VMs that use no processor time.
fn lab() -> Lab {
    let lab = Lab::start();
    for name in ["one", "two"] {
        lab.create(&VmSpec {
            name: name.to_owned(),
            disks: disks(&["vda"]),
            nics: vec![Nic::Tap],
            paused: true,
            ..VmSpec::default()
        });
    }
    lab
}

/// Measurement, VM and device of every line.
fn places(lines: &[Line]) -> BTreeSet<(String, String, Option<String>)> {
    let place = |line: &Line| {
        let device = line.tags.get("device").cloned();
        (
            line.measurement.clone(),
            line.tag("name").to_owned(),
            device,
        )
    };
    let places: BTreeSet<_> = lines.iter().map(place).collect();
    assert_eq!(places.len(), lines.len(), "a line twice: {lines:#?}");
    places
}

/// The lines of each VM for metrics, totals and each of two devices, and for features with `features`.
fn is_whole(lines: &[Line], features: bool) {
    let places = places(lines);
    assert_eq!(
        places.len(),
        2 * if features { 5 } else { 4 },
        "{places:#?}"
    );
    let has = places.iter().any(|place| place.0 == "vm_features");
    assert_eq!(has, features);
}

/// Requests a gather that has no lines: its end shows only in the log, if at all.
fn gather_nothing(plugin: &mut Plugin) {
    plugin.newline();
    assert_eq!(plugin.lines_within(Duration::from_secs(1)), []);
}

#[test]
fn a_daemon_that_starts_later_is_found_by_the_next_gather() {
    let lab = lab();
    lab.stop_libvirtd();
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    for _ in 0..5 {
        gather_nothing(&mut plugin);
    }
    let said = plugin.stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("W! cannot reach libvirt at qemu:///system"),
        "{said}"
    );
    assert!(said.contains("No such file or directory"), "{said}");
    assert!(said.contains("systemctl start"), "{said}");
    lab.start_libvirtd();
    is_whole(&plugin.gather(), false);
    is_whole(&plugin.gather(), true);
    let said = plugin.stderr();
    assert_eq!(said.lines().count(), 2, "{said}");
    assert!(
        said.lines()
            .last()
            .unwrap()
            .starts_with("I! libvirt answers again"),
        "{said}"
    );
    plugin.close();
    assert_eq!(plugin.wait(Duration::from_secs(4)).code(), Some(0));
}

#[test]
fn after_a_restart_or_a_crash_the_first_gather_is_whole() {
    let lab = lab();
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    is_whole(&plugin.gather(), false);
    for crash in [false, true, false] {
        if crash {
            lab.signal_libvirtd("KILL");
            wait_for("the daemon's end", Duration::from_secs(10), || {
                let list = lab.virsh_command().arg("list").output().unwrap();
                (!list.status.success()).then_some(())
            });
        } else {
            lab.stop_libvirtd();
        }
        lab.start_libvirtd();
        // The VMs kept running: it is the same run, so even the rates continue.
        is_whole(&plugin.gather(), true);
        is_whole(&plugin.gather(), true);
    }
    assert_eq!(
        plugin.stderr(),
        "",
        "a restart between two gathers is no trouble"
    );

    // Gathers run while the daemon is away: there is one warning, one line when it is back, and complete
    // lines at once.
    lab.stop_libvirtd();
    for _ in 0..3 {
        gather_nothing(&mut plugin);
    }
    lab.start_libvirtd();
    is_whole(&plugin.gather(), true);
    let said = plugin.stderr();
    let levels: Vec<&str> = said.lines().filter_map(|line| line.get(..3)).collect();
    assert_eq!(levels, ["W! ", "I! "], "{said}");
}

#[test]
fn an_ordinary_user_needs_nothing_and_is_told_what_locks_it_out() {
    let lab = lab();
    let mut root = Plugin::spawn(lab.plugin(&[]));
    let mut user = Plugin::spawn(lab.plugin_as(NOBODY, &[]));
    for features in [false, true] {
        let (theirs, ours) = (root.gather(), user.gather());
        is_whole(&ours, features);
        assert_eq!(places(&theirs), places(&ours));
    }
    for _ in 0..10 {
        is_whole(&user.gather(), true);
    }
    assert_eq!(user.stderr(), "");
    assert_eq!(root.stderr(), "");
    let status = std::fs::read_to_string(format!("/proc/{}/status", user.pid())).unwrap();
    assert!(
        status.contains(&format!("Uid:\t{NOBODY}\t{NOBODY}")),
        "{status}"
    );

    let socket = |mode: &str| {
        let path = lab.read_only_socket();
        succeed(lab.command("chmod").args([mode, &path]));
    };
    socket("0700");
    // Open connections stay open; new ones are refused.
    is_whole(&user.gather(), true);
    let mut late = Plugin::spawn(lab.plugin_as(NOBODY, &[]));
    for _ in 0..5 {
        gather_nothing(&mut late);
    }
    let said = late.stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("W! cannot reach libvirt at qemu:///system"),
        "{said}"
    );
    assert!(said.contains("Permission denied"), "{said}");
    assert!(said.contains("unix_sock_ro_perms"), "{said}");
    socket("0777");
    is_whole(&late.gather(), false);
    let said = late.stderr();
    assert!(said.lines().last().unwrap().starts_with("I! "), "{said}");
    assert_eq!(said.lines().count(), 2, "{said}");
}

#[test]
fn polkit_without_a_system_bus_is_told_how_to_do_without() {
    let lab = Lab::start();
    lab.reconfigure_libvirtd("auth_unix_ro = \"polkit\"\n");
    let (code, _, err) = told(&run(&mut lab.plugin_unprivileged(&["--check"])));
    assert_eq!(code, Some(1));
    assert!(err.contains("Unable to get system bus connection"), "{err}");
    assert!(err.contains("auth_unix_ro = \"none\""), "{err}");
    assert!(!err.contains("is not running"), "{err}");
    // The remedy in the message works.
    lab.reconfigure_libvirtd("auth_unix_ro = \"none\"\n");
    let (code, _, err) = told(&run(&mut lab.plugin_unprivileged(&["--check"])));
    assert_eq!((code, &*err), (Some(0), ""));
}
