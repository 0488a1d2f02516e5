//! VMs that start, end and freeze while gathers run.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::io::Write as _;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

#[test]
fn vms_that_come_and_go_during_gathers_are_no_trouble() {
    let lab = Lab::start();
    let spec = |name: &str| VmSpec {
        name: name.into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        ..VmSpec::default()
    };
    let steady = lab.create(&spec("steady"));
    // The chunks are small, so that a VM ends sometimes between list and statistics, sometimes between
    // statistics and description. The timestamps are precise, so that they distinguish the gathers.
    let file = lab.config("chunk_size = 1\ntimestamp_precision = \"1ns\"\n");
    let mut plugin = Plugin::spawn(lab.plugin(&["--config", &file]));
    // Newlines during a gather are merged, so the next gather follows at once.
    let mut stdin = plugin.stdin.take().unwrap();
    let done = Arc::new(AtomicBool::new(false));
    let is_done = Arc::clone(&done);
    let asking = std::thread::spawn(move || {
        while !is_done.load(Ordering::Relaxed) {
            stdin.write_all(b"\n").unwrap();
            std::thread::sleep(Duration::from_millis(5));
        }
        stdin
    });
    let mut uuids = BTreeSet::new();
    for round in 0..8 {
        let vms = [0, 1].map(|n| lab.create(&spec(&format!("vm{round}.{n}"))));
        if round % 3 == 0 {
            lab.attach_disk(&vms[0], "vdb");
        }
        for vm in &vms {
            uuids.insert(vm.uuid().to_owned());
            vm.destroy();
        }
    }
    done.store(true, Ordering::Relaxed);
    let _stdin = asking.join().unwrap();
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait(Duration::from_secs(2)).code(), Some(0));
    assert_eq!(plugin.stderr(), "");

    let found = lines::lines(&plugin.stdout());
    let gathers: BTreeSet<i64> = found.iter().map(|line| line.timestamp).collect();
    let metrics = lines::of(&found, "vm_metrics", steady.name());
    let totals = lines::of(&found, "vm_totals", steady.name());
    assert_eq!(metrics.len(), gathers.len(), "a line in every gather");
    assert_eq!(totals.len(), gathers.len());
    // On a busy machine a call may take so long that it is abandoned: the VM then comes in part, without
    // what needs the monitor.
    let (full, part): (Vec<&Line>, Vec<&Line>) = totals
        .into_iter()
        .partition(|line| line.int("disk_rd_req").is_some());
    assert!(
        part.iter().all(|line| line.int("memrss").is_none()),
        "{part:?}"
    );
    assert!(
        full.len() > 24,
        "{} of {} gathers",
        full.len(),
        gathers.len()
    );
    let seen: BTreeSet<String> = found
        .iter()
        .map(|line| line.tag("uuid").to_owned())
        .collect();
    let seen = seen.intersection(&uuids).count();
    assert!(seen >= 8, "only {seen} of the {} others", uuids.len());
    for line in found
        .iter()
        .filter(|line| line.measurement == "vm_features")
    {
        for (field, _) in line
            .fields
            .iter()
            .filter(|(field, _)| !field.starts_with("memory"))
        {
            assert!(line.float(field) >= Some(0.0), "{line:?}");
        }
    }
}

#[test]
fn a_frozen_vm_holds_up_neither_the_others_nor_the_stop() {
    let lab = Lab::start();
    let spec = |n: usize| VmSpec {
        name: format!("vm{n}"),
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap, Nic::Tap],
        paused: true,
        ..VmSpec::default()
    };
    let vms: Vec<Vm> = (0..6).map(|n| lab.create(&spec(n))).collect();
    let file = lab.config("chunk_size = 1\ndeadline = \"4s\"\n");
    let mut plugin = Plugin::spawn(lab.plugin(&["--config", &file]));
    for _ in 0..3 {
        assert_eq!(lines_of(&plugin.gather(), &vms[..]), 6);
    }
    vms[2].freeze();
    for pause in [0, 7] {
        std::thread::sleep(Duration::from_secs(pause));
        let start = Instant::now();
        let found = plugin.gather();
        // This includes the 0.3 s in which the test waits for more output.
        let took = start.elapsed();
        assert!(took < Duration::from_secs(6), "{took:?}");
        let others: Vec<&Vm> = vms.iter().filter(|vm| vm.uuid() != vms[2].uuid()).collect();
        for vm in &others {
            lines::one(&found, "vm_totals", vm.name());
            assert_eq!(lines::of(&found, "vm_devices", vm.name()).len(), 4);
        }
        // The VM has the figures that need no monitor.
        lines::one(&found, "vm_metrics", vms[2].name());
        let devices = lines::of(&found, "vm_devices", vms[2].name());
        assert!(devices.iter().all(|line| line.tag("devtype") == "nic"));
    }
    // This is worth one line in the log.
    let said = plugin.stderr();
    let one = said.lines().count() == 1 && said.starts_with("W! ") && said.contains(vms[2].name());
    assert!(one, "{said}");
    // A stop then: the available lines are written, and nothing else. (The promise is 2 s; the rest is for a
    // busy machine.)
    vms[4].freeze();
    plugin.newline();
    std::thread::sleep(Duration::from_millis(300));
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait(Duration::from_millis(2500)).code(), Some(0));
    let found = plugin.lines_within(Duration::from_secs(1));
    for n in [0, 1, 3, 5] {
        lines::one(&found, "vm_totals", vms[n].name());
    }
}

/// The number of these VMs that have a vm_metrics line.
fn lines_of(found: &[lines::Line], vms: &[Vm]) -> usize {
    let has = |vm: &&Vm| !lines::of(found, "vm_metrics", vm.name()).is_empty();
    vms.iter().filter(has).count()
}
