//! QEMUs that do not run, with and without a host report that shows it.

use super::daemon::{Ms, uuid};
use super::drive::{HostVisibility, LIMITS, Sim};
use super::{freeze, gathers, healthy};
use telegraf_kvm::gather::scheduler::Limits;

#[test]
fn a_vm_that_is_seen_to_be_frozen_makes_no_call_hang() {
    let limit = healthy(50) + 100;
    for frozen in [1, 6, 20, 50] {
        let mut sim = Sim::warm(50);
        freeze(&mut sim, 50 - frozen..50, true);
        gathers(&mut sim, 4, |_, sim, gather| {
            sim.assert_whole_but(gather, |n| n >= 50 - frozen);
            assert_eq!(gather.part(), frozen, "in part");
            assert!(gather.took <= limit, "{frozen} frozen: {} ms", gather.took);
        });
        assert_eq!(sim.most_hanging, 0, "{frozen} frozen");
        freeze(&mut sim, 0..50, false);
        gathers(&mut sim, 1, |_, _, gather| assert_eq!(gather.whole(), 50));
    }
}

#[test]
fn one_frozen_out_of_sight_costs_one_call() {
    let healthy = healthy(50);
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 17..18, true);
    gathers(&mut sim, 5, |n, sim, gather| {
        sim.assert_whole_but(gather, |n| n == 17);
        assert_eq!(gather.part(), 1);
        let limit = if n == 0 {
            healthy + 500
        } else {
            healthy * 12 / 10
        };
        assert!(
            gather.took <= limit,
            "gather {n}: {} ms of {limit}",
            gather.took
        );
    });
    assert_eq!(sim.most_hanging, 1);
    freeze(&mut sim, 17..18, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
    assert_eq!(sim.daemon.hanging(|_, _| true), 0);
}

#[test]
fn six_frozen_out_of_sight_cost_six_calls() {
    // The frozen VMs are spread over the chunks, in one chunk, or freeze one after the other.
    let spread: [fn(usize) -> usize; 3] = [|n| n * 8 + 3, |n| n + 1, |n| n * 5];
    for (way, which) in spread.into_iter().enumerate() {
        let mut sim = Sim::warm(50);
        sim.host_visibility = HostVisibility::Hidden;
        let frozen: Vec<usize> = (0..6).map(which).collect();
        for (nth, vm) in frozen.iter().copied().enumerate() {
            let after = if way == 2 { 30 * nth as Ms } else { 0 };
            sim.at(after, move |sim| sim.daemon.vm(vm).frozen = true);
        }
        if way != 2 {
            sim.pause(1);
        }
        let of = frozen.clone();
        gathers(&mut sim, 4, move |n, sim, gather| {
            sim.assert_whole_but(gather, |n| of.contains(&n));
            // A VM that froze after it had answered is found by the second gather.
            let limit = [
                [800, 1400, 2000][way],
                if way == 2 { 600 } else { 300 },
                300,
                300,
            ][n];
            assert!(
                gather.took <= limit,
                "way {way}, gather {n}: {} ms",
                gather.took
            );
        });
        assert!(sim.most_hanging <= 6, "{} hang", sim.most_hanging);
        freeze(&mut sim, frozen.into_iter(), false);
        sim.gather();
        assert_eq!(sim.gather().whole(), 50);
    }
}

/// During a backup libvirtd reports the VM's monitor as in use by a "job", without a time.
#[test]
fn vms_with_a_backup_are_found_like_any_other() {
    let healthy = healthy(50);
    for (frozen, first) in [(1, healthy + 500), (6, 2000)] {
        let mut sim = Sim::warm(50);
        sim.host_visibility = HostVisibility::Hidden;
        for n in 0..50 {
            sim.daemon.vm(n).async_job = n % 2 == 0;
        }
        let which = |n: usize| n % 8 == 4 && n < frozen * 8;
        freeze(&mut sim, (0..50).filter(|n| which(*n)), true);
        gathers(&mut sim, 4, |n, sim, gather| {
            sim.assert_whole_but(gather, which);
            let limit = if n == 0 { first } else { healthy * 2 };
            let took = gather.took;
            assert!(took <= limit, "{frozen}, gather {n}: {took} ms of {limit}");
        });
        assert!(sim.most_hanging <= frozen, "{} hang", sim.most_hanging);
        freeze(&mut sim, 0..50, false);
        sim.gather();
        assert_eq!(sim.gather().whole(), 50);
    }
}

/// As many calls hang as the cap allows, and then libvirtd has no free worker: the figures that its priority
/// workers serve still come.
#[test]
fn calls_that_hang_leave_room_for_the_priority_workers() {
    for (cap, frozen) in [(8, 10), (4, 10), (3, 2), (2, 1)] {
        let mut sim = Sim::with(50, Limits { cap, ..LIMITS }).warmed();
        sim.host_visibility = HostVisibility::Hidden;
        freeze(&mut sim, 0..frozen, true);
        gathers(&mut sim, 3, |_, _, _| {});
        sim.daemon.others = 20;
        gathers(&mut sim, 4, |n, _, gather| {
            assert_eq!(gather.completeness.len(), 50, "cap {cap}, gather {n}");
            let took = gather.took;
            assert!(took <= 2500, "cap {cap}, gather {n}: {took} ms");
        });
        sim.daemon.others = 0;
        freeze(&mut sim, 0..frozen, false);
        sim.pause(1000);
        sim.gather();
        assert_eq!(sim.gather().whole(), 50, "cap {cap}");
    }
}

#[test]
fn twenty_frozen_out_of_sight_cost_no_more_than_the_cap() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 15..35, true);
    let first = sim.gather();
    assert!(first.took <= 2000, "{} ms", first.took);
    sim.pause(1000);
    gathers(&mut sim, 5, |n, _, gather| {
        for n in (0..50).filter(|n| first.is_whole(uuid(*n))) {
            assert!(
                gather.is_whole(uuid(n)),
                "VM {n} answered once, and then not"
            );
        }
        assert_eq!(
            gather.completeness.len(),
            50,
            "all give what needs no monitor"
        );
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
    });
    assert!(sim.most_hanging <= 8);
    freeze(&mut sim, 0..50, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
}

/// A VM that has answered since the first call hung may take the last call that may be made, and freeze.
#[test]
fn vms_that_freeze_one_after_the_other_out_of_sight_leave_state_and_network_of_all() {
    for vms in [9, 20, 50] {
        let mut sim = Sim::warm(vms);
        sim.host_visibility = HostVisibility::Hidden;
        for frozen in [0..0, 1..2, 0..4, 0..8] {
            freeze(&mut sim, frozen.clone(), true);
            sim.pause(1000);
            gathers(&mut sim, 3, |n, _, gather| {
                let came = gather.completeness.len();
                assert_eq!(came, vms, "{frozen:?} of {vms}, gather {n}");
            });
        }
        assert!(sim.most_hanging <= 8);
        freeze(&mut sim, 0..8, false);
        sim.gather();
        assert_eq!(sim.gather().whole(), vms);
    }
}

#[test]
fn all_frozen_out_of_sight_give_what_needs_no_monitor() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 0..50, true);
    gathers(&mut sim, 5, |n, _, gather| {
        assert_eq!((gather.whole(), gather.part()), (0, 50));
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
    });
    assert!(sim.most_hanging <= 8);
    freeze(&mut sim, 0..50, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
}

#[test]
fn a_vm_that_thaws_while_others_stay_frozen_is_complete_within_two_gathers() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 0..6, true);
    gathers(&mut sim, 2, |_, _, _| {});
    freeze(&mut sim, 0..3, false);
    sim.gather();
    let gather = sim.gather();
    sim.assert_whole_but(&gather, |n| (3..6).contains(&n));
}
