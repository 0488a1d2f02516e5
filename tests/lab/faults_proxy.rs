//! A libvirtd that is slow or whose connections break: the deadline is kept, no figure is wrong, and the
//! plugin recovers by itself.

use crate::support::alone;
use crate::support::fleet::{Fleet, at_most, long, small};
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value};
use crate::support::plugin::Plugin;
use crate::support::proxy::{Proxy, ReplyFaults};
use crate::support::vm::VmSpec;
use std::collections::BTreeMap;
use std::thread::sleep;
use std::time::Duration;

const DEADLINE: Duration = Duration::from_secs(2);

/// The fields that do not change in a paused VM: every counter but CPU time, and libvirt's figures of memory.
fn still(gather: &[Line]) -> BTreeMap<(String, BTreeMap<String, String>, String), Value> {
    let moving = [
        "cputime_ns",
        "cputime",
        "timeusr",
        "timesys",
        "memrss",
        "cpu_usage_percent",
        "uptime_sec",
        "vcpu_time_ns",
        "vcpu_delay_ns",
        "cpu_steal_percent",
        // These count broadcasts of the other VMs' firmware.
        "txbytes",
        "txpackets",
        "net_txbytes",
        "net_txpackets",
        "net_txbytes_rate",
        "net_txpackets_rate",
        "txdrops",
        "net_txdrops",
    ];
    let mut found = BTreeMap::new();
    for line in gather {
        for (field, value) in &line.fields {
            if !moving.contains(&field.as_str()) {
                let key = (line.measurement.clone(), line.tags.clone(), field.clone());
                assert_eq!(found.insert(key, value.clone()), None, "twice: {line:?}");
            }
        }
    }
    found
}

#[test]
fn a_slow_daemon() {
    let _alone = alone();
    let lab = Lab::start();
    // The firmware reads its disk and sends on its network, so that the counters of the VMs differ from each
    // other and from zero.
    let mut fleet = Fleet::start(&lab, 6, |number| VmSpec {
        paused: false,
        vcpus: 1,
        memory_mib: 16 + number as u64,
        ..small(format!("vm{number}"))
    });
    sleep(Duration::from_secs(8));
    for vm in &fleet.vms {
        lab.virsh(&["suspend", vm.name()]);
    }
    let proxy = Proxy::start(&lab, 4711);
    let config = lab.config(&format!("uri = \"{}\"\ndeadline = \"2s\"\n", proxy.uri()));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    fleet.learn(&mut plugin);
    let truth = still(&plugin.gather());
    let read = |((_, _, field), value): (&(_, _, String), &Value)| {
        field == "rd_bytes" && *value != Value::Int(0)
    };
    assert!(truth.iter().any(read), "the firmware read: {truth:?}");

    // The replies are slow, but within the deadline: the gather is complete.
    proxy.delay(Duration::from_millis(30));
    for _ in 0..3 {
        fleet.expect_complete_but(&plugin.gather(), &[], "30 ms a reply");
    }
    // The replies are slower than the deadline allows.
    let rounds = if long() { 200 } else { 20 };
    let slow = ReplyFaults {
        delay: Duration::from_millis(900),
        ..ReplyFaults::default()
    };
    let cut = ReplyFaults {
        one_in: 20,
        cut: true,
        delay: Duration::from_millis(5),
    };
    let close = ReplyFaults {
        one_in: 20,
        ..ReplyFaults::default()
    };
    for (what, faults, rounds) in [
        ("900 ms a reply", slow, 3),
        ("one of 20 replies cut", cut, rounds),
        ("a close instead of one of 20 replies", close, rounds),
    ] {
        proxy.set(faults);
        let broken = proxy.counts().1;
        let mut lines = 0;
        for round in 1..=rounds {
            let (gather, took) = plugin.timed_gather();
            let limit = DEADLINE + at_most(Duration::from_millis(200));
            assert!(took <= limit, "{what}: {took:?}");
            for (key, value) in still(&gather) {
                // A rate needs two samples, which may have another distance in time.
                let was = truth.get(&key);
                assert_eq!(was, Some(&value), "{what}, gather {round}: {key:?}");
            }
            lines += gather.len();
        }
        let broken = proxy.counts().1 - broken;
        println!("{what}: {lines} lines in {rounds} gathers, {broken} replies broken");
        if faults.delay < DEADLINE / 3 {
            assert!(
                broken > 0 && lines > 0,
                "{what}: {lines} lines, {broken} broken"
            );
        }
        proxy.set(ReplyFaults::default());
        fleet.expect_recovery(&mut plugin, 3, what);
    }
    assert!(plugin.warnings().len() <= 60, "{:#?}", plugin.warnings());
}
