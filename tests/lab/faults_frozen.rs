//! Frozen QEMUs (stopped by a signal): all figures of the other VMs still come in time, and no call of the
//! plugin makes libvirt hang. As in all these files the plugin is unprivileged.

use crate::support::daemon::expect_quick;
use crate::support::fleet::{Fleet, at_most, big, long, shapes};
use crate::support::frozen_group::FrozenGroup;
use crate::support::lab::Lab;
use crate::support::lines::{Line, one};
use crate::support::plugin::Plugin;
use crate::support::{alone, wait_for};
use std::collections::BTreeSet;
use std::time::Duration;

/// The number of libvirtd's workers that calls of the plugin may occupy.
const CAP: usize = 8;

fn size() -> usize {
    if long() { 50 } else { 12 }
}

fn gather(plugin: &mut Plugin, limit: Duration, when: &str) -> Vec<Line> {
    let (gather, took) = plugin.timed_gather();
    println!("{when}: {took:?} of at most {limit:?}");
    assert!(
        took <= limit,
        "{when}: {took:?} > {limit:?}; stderr:\n{}",
        plugin.stderr()
    );
    gather
}

/// After a thaw the calls that hung return, and the fleet is complete.
fn expect_thawed(lab: &Lab, fleet: &Fleet, plugin: &mut Plugin, numbers: &[usize]) {
    fleet.thaw(numbers);
    fleet.expect_recovery(plugin, 2, "thawed");
    wait_for("hanging calls to return", Duration::from_secs(5), || {
        (lab.hanging_calls() == 0).then_some(())
    });
}

/// Freezes the first `frozen` VMs where the kernel shows it, and checks three gathers.
fn freeze_in_sight(lab: &Lab, fleet: &mut Fleet, plugin: &mut Plugin, frozen: usize) {
    let healthy = fleet.learn(plugin);
    let before = plugin.gather();
    let numbers: Vec<usize> = (0..frozen).collect();
    fleet.freeze(&numbers);
    for round in 1..=3 {
        if round == 3 && frozen == 1 {
            // A fault of this length is worth a warning.
            std::thread::sleep(Duration::from_secs(7));
        }
        let when = format!("{frozen} of {} frozen, gather {round}", fleet.vms.len());
        let limit = healthy + at_most(Duration::from_millis(100));
        let gather = gather(plugin, limit, &when);
        fleet.expect_complete_but(&gather, &numbers, &when);
        for number in &numbers {
            fleet.expect_monitor_free(&gather, *number, &before);
        }
        assert_eq!(lab.hanging_calls(), 0, "{when}: no call of ours hangs");
        let counts = ["vms_partial", "vms_withheld", "calls_hanging"];
        let counts = counts.map(|field| plugin.collected(field));
        assert_eq!(counts, [frozen as i64, 0, 0], "{when}: they are counted");
    }
    expect_thawed(lab, fleet, plugin, &numbers);
}

#[test]
fn one_frozen_vm() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, size(), |n| big(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    freeze_in_sight(&lab, &mut fleet, &mut plugin, 1);
    // A VM that froze between two gathers and was thawed in the same pause has no effect.
    fleet.freeze(&[1]);
    fleet.thaw(&[1]);
    fleet.expect_complete_but(&plugin.gather(), &[], "frozen for a moment");
    let warnings = plugin.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains(fleet.vms[0].name()), "{warnings:#?}");
}

#[test]
fn six_twenty_all_frozen_at_once() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, size(), |n| big(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    let counts = if long() { [6, 20, 50] } else { [3, 6, 12] };
    for frozen in counts {
        freeze_in_sight(&lab, &mut fleet, &mut plugin, frozen);
    }
}

/// The VMs' numbers, in the order of their UUIDs.
fn by_uuid(fleet: &Fleet, gather: &[Line]) -> Vec<usize> {
    let mut order: Vec<usize> = (0..fleet.vms.len()).collect();
    order.sort_by_key(|number| {
        let metrics = one(gather, "vm_metrics", fleet.vms[*number].name());
        metrics.tag("uuid").to_owned()
    });
    order
}

/// Panics unless every VM has its state and all figures of its network.
fn expect_state_and_network(fleet: &Fleet, gather: &[Line], when: &str) {
    let found = shapes(gather);
    for vm in &fleet.vms {
        let metrics = one(gather, "vm_metrics", vm.name());
        assert_eq!(metrics.text("state"), Some("paused"), "{when}: {metrics:?}");
        let found = &found[vm.name()];
        for (key, fields) in fleet.healthy_of(vm.name()).unwrap() {
            let is_nic = key.1.get("devtype").is_some_and(|of| of == "nic");
            let is_network = |field: &&String| is_nic || field.starts_with("net_");
            for field in fields.iter().filter(is_network) {
                let came = found.get(key).is_some_and(|fields| fields.contains(field));
                assert!(came, "{when}: {} has no {field}: {found:#?}", vm.name());
            }
        }
    }
}

/// VMs freeze one after the other: one which has answered since the first call hung may take the last call
/// that may be made. The healthy VMs keep their lines all the same.
fn freeze_one_after_the_other(lab: &Lab, fleet: &Fleet, plugin: &mut Plugin) {
    let warned_before = plugin.warnings().len();
    for (frozen, gathers) in [(1..2, 1), (0..4, 2), (0..CAP, 3)] {
        let frozen: Vec<usize> = frozen.collect();
        fleet.freeze(&frozen);
        let when = format!("{frozen:?} frozen unseen");
        for round in 1..=gathers {
            let when = format!("{when}, gather {round}");
            let gather = gather(plugin, at_most(Duration::from_secs(2)), &when);
            expect_state_and_network(fleet, &gather, &when);
            for number in &frozen {
                let metrics = one(&gather, "vm_metrics", fleet.vms[*number].name());
                assert_eq!(metrics.int("answers"), Some(0), "{when}: {metrics:?}");
            }
            if frozen.len() < CAP {
                fleet.expect_complete_but(&gather, &frozen, &when);
            }
        }
        assert_eq!(lab.hanging_calls(), frozen.len(), "{when}: calls that hang");
        expect_quick(lab, fleet.vms[CAP].name(), &when);
    }
    fleet.thaw(&(0..CAP).collect::<Vec<_>>());
    wait_for("hanging calls to return", Duration::from_secs(5), || {
        (lab.hanging_calls() == 0).then_some(())
    });
    fleet.expect_recovery(plugin, 2, "thawed");
    plugin.wait_for_log("I! there is room for calls again");
    // VMs that come in part for long are another warning.
    let mut warnings = plugin.warnings().split_off(warned_before);
    warnings.retain(|warning| warning.contains("as many as max_calls allows"));
    assert_eq!(warnings.len(), 1, "{}", plugin.stderr());
    let remedy = "see which QEMU does not answer and why, or raise max_calls";
    assert!(warnings[0].contains(remedy), "{warnings:?}");
}

#[test]
fn the_kernel_out_of_sight() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, size(), |n| big(format!("vm{n}")));
    // About as many chunks of the reduced size as there are for 50 VMs.
    let chunks = if long() { "" } else { "chunk_size = 3\n" };
    let config = lab.config(chunks);
    let mut plugin = Plugin::spawn(lab.plugin_blind(&["--config", &config]));
    let second = Duration::from_secs(1);

    let healthy = fleet.learn(&mut plugin);
    let before = plugin.gather();
    fleet.freeze(&[0]);
    for round in 1..=3 {
        let when = format!("one frozen unseen, gather {round}");
        let limit = match round {
            1 => healthy + at_most(second / 2),
            _ => healthy.mul_f64(1.2) + at_most(Duration::ZERO),
        };
        let gather = gather(&mut plugin, limit, &when);
        fleet.expect_complete_but(&gather, &[0], &when);
        fleet.expect_monitor_free(&gather, 0, &before);
        assert!(lab.hanging_calls() <= CAP, "{when}");
    }
    let last = fleet.vms.len() - 1;
    expect_quick(&lab, fleet.vms[last].name(), "one frozen unseen");
    // The call returns at last, between two gathers; its reply is counted and dropped.
    fleet.thaw(&[0]);
    wait_for("the hanging call to return", Duration::from_secs(5), || {
        (lab.hanging_calls() == 0).then_some(())
    });
    let unrequested = plugin.lines_within(second / 2);
    assert!(unrequested.is_empty(), "not requested: {unrequested:?}");
    plugin.gather();
    assert!(plugin.collected("late_answers") > 0, "it was dropped");
    fleet.expect_recovery(&mut plugin, 2, "thawed");

    fleet.learn(&mut plugin);
    let few: Vec<usize> = if long() {
        (0..6).map(|n| n * 8).collect()
    } else {
        vec![0, 5, 9]
    };
    fleet.freeze(&few);
    for round in 1..=3 {
        let when = format!("{few:?} frozen unseen, gather {round}");
        let gather = gather(&mut plugin, at_most(2 * second), &when);
        fleet.expect_complete_but(&gather, &few, &when);
        assert!(lab.hanging_calls() <= CAP, "{when}");
    }
    expect_quick(&lab, fleet.vms[last].name(), "six frozen unseen");
    expect_thawed(&lab, &fleet, &mut plugin, &few);

    // More frozen VMs than the cap, spread over all chunks but the last; chunks are in the order of the
    // UUIDs.
    fleet.learn(&mut plugin);
    let order = by_uuid(&fleet, &before);
    let many: Vec<usize> = if long() {
        order[..40].iter().copied().step_by(2).collect()
    } else {
        order[..9].to_vec()
    };
    fleet.freeze(&many);
    let mut answered = BTreeSet::new();
    for round in 1..=5 {
        let when = format!("{} frozen unseen, gather {round}", many.len());
        let gather = gather(&mut plugin, at_most(2 * second), &when);
        let complete = fleet.complete(&gather);
        let lost: Vec<_> = answered.difference(&complete).collect();
        assert!(lost.is_empty(), "{when}: {lost:?} had answered before");
        answered.extend(complete);
        let hanging = lab.hanging_calls();
        let said = plugin.collected("calls_hanging");
        println!(
            "{when}: {} complete, {hanging} hanging, {said} counted",
            answered.len()
        );
        assert!(hanging <= CAP, "{when}: {hanging} calls hang");
        assert!(
            said >= hanging as i64,
            "{when}: {said} of {hanging} counted"
        );
    }
    let least = if long() { 10 } else { 3 };
    assert!(answered.len() >= least, "{} answered", answered.len());
    let runs = fleet.vms[order[fleet.vms.len() - 1]].name();
    expect_quick(&lab, runs, "many frozen unseen");
    expect_thawed(&lab, &fleet, &mut plugin, &many);

    fleet.learn(&mut plugin);
    let all: Vec<usize> = (0..fleet.vms.len()).collect();
    fleet.freeze(&all);
    for round in 1..=3 {
        let when = format!("all frozen unseen, gather {round}");
        let gather = gather(&mut plugin, at_most(2 * second), &when);
        assert_eq!(fleet.complete(&gather), BTreeSet::new(), "{when}");
        let hanging = lab.hanging_calls();
        assert!(hanging <= CAP, "{when}: {hanging} calls hang");
        let list = lab.list_takes();
        let quick = at_most(second / 2);
        assert!(list.is_some_and(|took| took < quick), "{when}: {list:?}");
    }
    expect_thawed(&lab, &fleet, &mut plugin, &all);

    fleet.learn(&mut plugin);
    freeze_one_after_the_other(&lab, &fleet, &mut plugin);
}

/// `systemctl freeze`: QEMU's threads have the state S, and none of them runs.
#[test]
fn frozen_by_its_control_group() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, 6, |n| big(format!("vm{n}")));
    let start = || Plugin::spawn(lab.plugin_unprivileged(&[]));
    let mut plugin = start();
    let healthy = fleet.learn(&mut plugin);
    let before = plugin.gather();
    let pid = fleet.vms[0].qemu_pid();
    let Some(group) = FrozenGroup::freeze(&lab, pid) else {
        println!("not run: this machine has no cgroup v2 with a freezer");
        return;
    };
    assert_eq!(fleet.qemu_state(0), 'S', "its state does not show it");
    // If the test moved the QEMU to another group, a running program notices that only after a minute.
    if group.back.is_some() {
        plugin = start();
        let first = shapes(&plugin.gather());
        for vm in &fleet.vms[1..] {
            let mut whole = fleet.healthy_of(vm.name()).unwrap().clone();
            whole.retain(|(measurement, _), _| measurement != "vm_features");
            assert_eq!(first.get(vm.name()), Some(&whole), "first gather");
        }
        assert_eq!(lab.hanging_calls(), 0, "no call of ours hangs");
    }
    for round in 1..=3 {
        let when = format!("frozen by its group, gather {round}");
        let limit = healthy + at_most(Duration::from_millis(100));
        let gather = gather(&mut plugin, limit, &when);
        fleet.expect_complete_but(&gather, &[0], &when);
        fleet.expect_monitor_free(&gather, 0, &before);
        assert_eq!(lab.hanging_calls(), 0, "{when}: no call of ours hangs");
        assert_eq!(plugin.collected("calls_hanging"), 0, "{when}");
    }
    drop(group);
    fleet.expect_recovery(&mut plugin, 2, "thawed");
}
