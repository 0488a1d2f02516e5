//! Two hypervisors from one process (tables `[[host]]`), each a libvirtd with a QEMU of its own.

use crate::support::lab::Lab;
use crate::support::lines::{Line, all_lines};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, VmSpec, disks};
use crate::support::{config, wait_for};
use rustix::process::Signal;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(30);
/// The promise is 2 s; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(2300);

/// The lines of this measurement and hypervisor.
fn of(plugin: &Plugin, host: &str, measurement: &str) -> Vec<Line> {
    let text = plugin.stdout();
    let mut lines = all_lines(text.rfind('\n').map_or("", |end| &text[..=end]));
    lines.retain(|line| line.tag("host") == host && line.measurement == measurement);
    lines
}

/// Requests a gather, and waits until each of these hypervisors has written one more; returns how long that took.
fn gather(plugin: &mut Plugin, hosts: &[&str]) -> Duration {
    let count = |plugin: &Plugin| -> Vec<usize> {
        let count = |host: &&str| of(plugin, host, "vm_collector").len();
        hosts.iter().map(count).collect()
    };
    let before = count(plugin);
    let start = Instant::now();
    plugin.newline();
    wait_for(&format!("a gather of {hosts:?}"), LONG, || {
        let now = count(plugin);
        now.iter()
            .zip(&before)
            .all(|(now, before)| now > before)
            .then_some(())
    });
    start.elapsed()
}

#[test]
fn a_frozen_libvirtd_delays_no_other_and_is_told_once() {
    let labs = [Lab::start_reachable(), Lab::start_reachable()];
    let vms = labs.each_ref().map(|lab| {
        lab.create(&VmSpec {
            disks: disks(&["vda"]),
            nics: vec![Nic::Tap],
            paused: true,
            ..VmSpec::default()
        })
    });
    let [first, second] = labs.each_ref().map(Lab::uri_for_others);
    let config = config(&format!(
        "[[host]]\nname = 'one'\nuri = '{first}'\n[[host]]\nname = 'two'\nuri = '{second}'\ndeadline = '4s'\n"
    ));
    let path = config.path().to_str().unwrap();
    let mut plugin = Plugin::spawn(Plugin::outside(&["--config", path]));
    for _ in 0..2 {
        gather(&mut plugin, &["one", "two"]);
    }
    for (host, vm) in ["one", "two"].iter().zip(&vms) {
        let metrics = of(&plugin, host, "vm_metrics");
        assert_eq!(metrics.len(), 2);
        for line in &metrics {
            assert_eq!(line.tag("name"), vm.name(), "each has its own VM alone");
            // What this machine says of it is found, too: both are on it.
            assert!(line.int("uptime_sec").is_some(), "{line:?}");
        }
        assert_eq!(of(&plugin, host, "vm_features").len(), 1);
        assert_eq!(of(&plugin, host, "vm_devices").len(), 4);
    }
    assert_eq!(plugin.warnings(), Vec::<String>::new());

    labs[1].signal_libvirtd("STOP");
    for _ in 0..5 {
        let took = gather(&mut plugin, &["one"]);
        // The other one takes until its deadline.
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    assert_eq!(of(&plugin, "one", "vm_metrics").len(), 7);
    // It ends one gather by its deadline, and another one: requests that came meanwhile were combined.
    let ended = wait_for("gathers of the other one", LONG, || {
        let all = of(&plugin, "two", "vm_collector");
        (all.len() >= 4).then_some(all)
    });
    let up: Vec<_> = ended.iter().map(|line| line.int("up")).collect();
    assert_eq!(up, [Some(1), Some(1), Some(0), Some(0)]);
    assert_eq!(of(&plugin, "two", "vm_metrics").len(), 2);
    let warnings = plugin.warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    assert!(
        warning.starts_with(&format!("W! two: libvirt at {second} ")),
        "{warning}"
    );

    labs[1].signal_libvirtd("CONT");
    wait_for("figures of the other one", LONG, || {
        gather(&mut plugin, &["two"]);
        (of(&plugin, "two", "vm_metrics").len() > 2).then_some(())
    });
    assert!(plugin.whole_log().contains("I! two: libvirt answers again"));

    // Both frozen, in the middle of a gather.
    for lab in &labs {
        lab.signal_libvirtd("STOP");
    }
    plugin.newline();
    std::thread::sleep(Duration::from_millis(300));
    let start = Instant::now();
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert!(start.elapsed() < STOP, "{:?}", start.elapsed());
    for lab in &labs {
        lab.signal_libvirtd("CONT");
    }
}
