//! What only some configurations want costs the other figures nothing.

use super::daemon::{Ms, uuid};
use super::drive::{HostVisibility, LIMITS, Sim};
use super::{freeze, gathers, healthy};
use telegraf_kvm::gather::scheduler::Limits;

/// So long after a healthy gather has its ordinary figures: the others are being asked for.
const BETWEEN: Ms = 15;

fn sim() -> Sim {
    cold_sim(50).warmed()
}

fn cold_sim(vms: usize) -> Sim {
    let limits = Limits {
        asks_extra: true,
        ..LIMITS
    };
    let mut sim = Sim::with(vms, limits);
    sim.host_visibility = HostVisibility::Hidden;
    sim
}

#[test]
fn each_vm_that_answered_is_asked_once_when_all_have_answered() {
    let mut sim = sim();
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!((gather.whole(), gather.extra.len()), (50, 50));
    });
    assert_eq!(sim.most_hanging, 0);
    // One of which only a part came is not asked.
    freeze(&mut sim, 7..8, true);
    sim.gather();
    let gather = sim.gather();
    assert_eq!((gather.whole(), gather.extra.len()), (49, 49));
    assert!(!gather.extra.contains(&uuid(7)));
}

/// libvirt passes a VM by whose monitor another client's call has at that moment.
#[test]
fn vms_that_other_clients_use_are_asked_again() {
    for (held, of) in [(3, 20), (10, 30), (6, 17)] {
        let mut sim = sim();
        for n in 0..50 {
            sim.daemon.vm(n).busy = Some((held, of));
        }
        gathers(&mut sim, 50, |n, _, gather| {
            let extra = gather.extra.len();
            assert_eq!(extra, 50, "gather {n}, held {held} of {of} ms");
            assert!(gather.took <= 2500, "gather {n}: {} ms", gather.took);
        });
        assert_eq!(sim.most_hanging, 0);
    }
}

/// Another client's call has the VM's monitor for as long as the VM is asked again, and for a moment in the next gather.
#[test]
fn a_vm_that_was_in_use_for_long_is_asked_again_in_the_next_gather_too() {
    let ordinary = healthy(8);
    let mut sim = cold_sim(8).warmed();
    let hold = |sim: &mut Sim, time: Ms| {
        sim.at(ordinary, |sim| sim.daemon.vm(7).busy = Some((9999, 10000)));
        sim.at(ordinary + time, |sim| sim.daemon.vm(7).busy = None);
    };
    for (time, asked, came) in [(1500, 6, 7), (1500, 3, 7), (20, 3, 8), (60, 5, 8)] {
        hold(&mut sim, time);
        let gather = sim.gather();
        assert_eq!(gather.whole(), 8);
        assert_eq!(
            (gather.asked_extra[&uuid(7)], gather.extra.len()),
            (asked, came),
            "{time}"
        );
        sim.pause(5000);
    }
}

/// A VM that has none of what is wanted looks as if it had been passed by.
#[test]
fn vms_that_never_have_any_are_asked_again_in_one_gather_only() {
    let mut sim = cold_sim(50);
    for n in 40..50 {
        sim.daemon.vm(n).bare = true;
    }
    let most_asked = |sim: &mut Sim| sim.gather().asked_extra.into_values().max();
    assert_eq!([(); 3].map(|()| most_asked(&mut sim)), [6, 1, 1].map(Some));
    // One that has them from now on is asked again when it is passed by.
    sim.daemon.vm(40).bare = false;
    assert_eq!(sim.gather().extra.len(), 41);
    sim.daemon.vm(40).bare = true;
    let asked: Vec<Option<u32>> = (0..24).map(|_| most_asked(&mut sim)).collect();
    assert_eq!((asked[0], asked[1], asked[23]), (Some(6), Some(3), Some(1)));
}

/// Each VM freezes at a moment at which its ordinary figures have come.
#[test]
fn vms_that_freeze_between_the_two_calls_cost_the_others_nothing() {
    let ordinary = healthy(50);
    for frozen in [1, 3, 6] {
        let mut sim = sim();
        sim.at(ordinary + BETWEEN, move |sim| {
            freeze(sim, (50 - frozen)..50, true);
        });
        let gather = sim.gather();
        assert_eq!(gather.whole(), 50, "{frozen}");
        assert!(
            gather.took <= ordinary + 2500,
            "{frozen}: {} ms",
            gather.took
        );
        sim.pause(5000);
        gathers(&mut sim, 4, |n, sim, gather| {
            sim.assert_whole_but(gather, |vm| vm >= 50 - frozen);
            let limit = ordinary * 2 + if n == 0 { 2000 } else { 400 };
            assert!(
                gather.took <= limit,
                "{frozen}, gather {n}: {} ms",
                gather.took
            );
            // A VM that hangs does not take away those of the others.
            let least = if frozen <= 2 { 50 - frozen } else { 0 };
            assert!(
                gather.extra.len() >= least,
                "{frozen}: {}",
                gather.extra.len()
            );
        });
        freeze(&mut sim, 0..50, false);
        sim.gather();
        let gather = sim.gather();
        assert_eq!((gather.whole(), gather.extra.len()), (50, 50), "{frozen}");
        assert_eq!(sim.daemon.hanging(|_, _| true), 0);
    }
}

/// A VM whose QEMU answers late holds up the call for so long that it counts as hanging. It has its line all the same, and
/// so have those of its call.
#[test]
fn a_vm_that_is_only_slow_has_its_line() {
    let ordinary = healthy(50);
    for (slow, host_visibility) in [
        (1, HostVisibility::Hidden),
        (2, HostVisibility::Hidden),
        (1, HostVisibility::Visible(2)),
    ] {
        let mut sim = sim();
        sim.host_visibility = host_visibility;
        sim.at(ordinary + BETWEEN, move |sim| {
            freeze(sim, (50 - slow)..50, true);
        });
        sim.at(ordinary + BETWEEN + 330, move |sim| {
            freeze(sim, (50 - slow)..50, false);
        });
        let gather = sim.gather();
        assert_eq!((gather.whole(), gather.extra.len()), (50, 50), "{slow}");
        assert_eq!(sim.gather().extra.len(), 50, "{slow}");
    }
}

/// Of VMs that libvirtd starts or ends, libvirt does not say which blocks a call.
#[test]
fn vms_with_jobs_of_which_some_hang_do_not_use_up_the_calls() {
    let ordinary = healthy(50);
    let mut sim = sim();
    for n in 0..5 {
        sim.daemon.vm(n).async_job = true;
    }
    sim.at(ordinary + BETWEEN, |sim| freeze(sim, 0..5, true));
    sim.gather();
    sim.pause(1000);
    gathers(&mut sim, 3, |n, sim, gather| {
        sim.assert_whole_but(gather, |vm| vm < 5);
        let extra = gather.extra.len();
        assert!(extra >= 45, "gather {n}: {extra}");
    });
}

/// A call for ordinary figures that was given up comes past its other VMs. libvirt passes the monitor of a VM by in one of two
/// calls that ask for it at the same moment.
#[test]
fn a_call_that_was_only_slow_takes_nothing_from_its_other_vms() {
    let ordinary = healthy(50);
    let mut was_given_up = false;
    for thawed in (250..700).step_by(10) {
        let mut sim = sim();
        freeze(&mut sim, [0, 8, 16].into_iter(), true);
        sim.at(thawed, |sim| freeze(sim, 0..50, false));
        let gather = sim.gather();
        was_given_up |= sim.most_hanging > 0;
        let took = gather.took;
        assert_eq!(gather.whole(), 50, "thawed at {thawed}: {took} ms");
        assert_eq!(gather.extra.len(), 50, "thawed at {thawed}: {took} ms");
        assert!(took <= ordinary + 1500, "thawed at {thawed}: {took} ms");
    }
    assert!(was_given_up);
}

/// The call still holds the VM's monitor when the next gather asks, and returns during that gather.
#[test]
fn a_vm_that_thaws_in_the_next_gather_comes_whole_in_it() {
    let ordinary = healthy(50);
    let mut in_part = 0;
    for thawed in (5..ordinary).step_by(5) {
        let mut sim = sim();
        sim.at(ordinary + BETWEEN, |sim| freeze(sim, 49..50, true));
        sim.gather();
        sim.pause(5000);
        sim.at(thawed, |sim| freeze(sim, 49..50, false));
        let gather = sim.gather();
        assert_eq!(gather.whole(), 50, "thawed after {thawed} of {ordinary} ms");
        let (times, _) = gather.completeness[&uuid(49)];
        in_part += times - 1;
    }
    assert!(in_part > 0);
}

/// The calls for ordinary figures have as much room as without these, however many of these hang.
#[test]
fn they_have_a_cap_of_their_own() {
    let ordinary = healthy(50);
    for cap in [2, 3, 8] {
        let whole = [false, true].map(|asks_extra| {
            let limits = Limits {
                asks_extra,
                cap,
                ..LIMITS
            };
            let mut sim = Sim::with(50, limits).warmed();
            sim.host_visibility = HostVisibility::Hidden;
            sim.at(ordinary + BETWEEN, |sim| freeze(sim, 30..50, true));
            sim.gather();
            sim.pause(5000);
            let whole = [sim.gather().whole(), sim.gather().whole()];
            freeze(&mut sim, 0..50, false);
            sim.gather();
            assert_eq!(sim.gather().whole(), 50, "cap {cap}");
            whole
        });
        let [without, with] = whole;
        assert!(with >= without, "cap {cap}: {without:?}, {with:?}");
        println!("cap {cap}: {without:?}, {with:?}");
    }
}
