//! A libvirtd that has no free worker, is frozen or killed, or whose connection broke.

use std::time::{Duration, Instant};

use telegraf_kvm::gather::protocol::{CallId, Completeness, Monitor, Request};
use telegraf_kvm::gather::scheduler::{Action, Event, HostVerdict, Limits, Listed, Scheduler};

use super::daemon::uuid;
use super::drive::{DEADLINE, HostVisibility, LIMITS, Sim};
use super::{freeze, gathers};

#[test]
fn a_spent_daemon_still_gives_state_and_network() {
    let mut sim = Sim::warm(50);
    sim.daemon.others_hold(3, true);
    sim.daemon.others = 20;
    gathers(&mut sim, 5, |n, sim, gather| {
        assert_eq!(gather.completeness.len(), 50, "gather {n}");
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
        assert!(
            sim.daemon
                .hanging(|_, request| !matches!(request, Request::List))
                <= 1
        );
    });
    assert!(sim.most_hanging <= 1, "{} hang", sim.most_hanging);
    let gather = sim.gather();
    assert_eq!(gather.part() + gather.whole(), 0);
    sim.daemon.others = 0;
    sim.daemon.others_hold(3, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
}

#[test]
fn a_spent_daemon_names_whose_monitor_is_occupied() {
    let mut sim = Sim::warm(20);
    sim.daemon.others_hold(3, true);
    sim.daemon.others = 20;
    assert_eq!(sim.gather().saturated, Some(Some(uuid(3))));
    sim.pause(5000);
    assert!(sim.gather().saturated.is_some());
}

/// A broken connection says nothing about libvirtd's workers.
#[test]
fn a_canary_that_is_cut_says_nothing_of_workers() {
    for after in [2, 5, 8, 11] {
        let mut sim = Sim::warm(50);
        sim.daemon.others = 20;
        gathers(&mut sim, 2, |_, _, _| {});
        sim.at(after, |sim| {
            let calls = sim.daemon.calls.iter();
            let mut canaries = calls.filter(|(_, call)| matches!(call.request, Request::Canary(_)));
            let canary = *canaries.next().unwrap().0;
            sim.daemon.cut(|call_id| call_id == canary);
        });
        let gather = sim.gather();
        assert_eq!(gather.completeness.len(), 50, "cut after {after}");
        assert_eq!(gather.part() + gather.whole(), 0, "cut after {after}");
        assert!(
            gather.actions < 10,
            "cut after {after}: {} actions",
            gather.actions
        );
    }
}

#[test]
fn a_daemon_that_is_spent_in_the_middle_of_a_gather() {
    for after in (5..120).step_by(10) {
        let mut sim = Sim::warm(50);
        sim.at(after, |sim| sim.daemon.others = 20);
        gathers(&mut sim, 3, |n, _, gather| {
            assert_eq!(gather.completeness.len(), 50, "{after}, gather {n}");
            assert!(
                gather.took <= 2000,
                "{after}, gather {n}: {} ms",
                gather.took
            );
        });
        sim.daemon.others = 0;
        sim.pause(100);
        sim.gather();
        assert_eq!(sim.gather().whole(), 50);
    }
}

#[test]
fn a_frozen_daemon_is_waited_for_no_longer_than_the_deadline() {
    // The daemon is thawed before keepalive gives up, and after; it is frozen between gathers or in the
    // middle of one.
    for (after, stopped) in [
        (0, 15_000),
        (0, 60_000),
        (40, 15_000),
        (40, 60_000),
        (90, 400_000),
    ] {
        let mut sim = Sim::warm(50);
        sim.at(after, |sim| sim.daemon.stop());
        sim.at(stopped, |sim| sim.daemon.go_on());
        let begun = sim.daemon.now;
        while sim.daemon.now < begun + stopped {
            // The first gather waits for the daemon: a frozen daemon does not differ from a slow one.
            let gather = sim.gather();
            assert!(gather.took <= DEADLINE, "{} ms", gather.took);
            sim.pause(10_000 - gather.took);
        }
        let gather = sim.gather();
        assert_eq!(gather.whole(), 50, "frozen after {after} for {stopped}");
        assert!(gather.took <= 500, "{} ms", gather.took);
        assert_eq!(sim.daemon.hanging(|_, _| true), 0);
    }
}

#[test]
fn a_daemon_is_killed_and_started_a_hundred_times() {
    let mut sim = Sim::warm(30);
    for n in 0..100 {
        // In some rounds the daemon is away for whole gathers, in the others it is back within one.
        let away = if n % 10 == 0 { 25_000 } else { 300 };
        sim.at(n * 3, move |sim| sim.daemon.restart(away));
        let gather = sim.gather();
        sim.pause(10_000 - gather.took);
        while sim.daemon.is_away() {
            assert_eq!(sim.gather().completeness.len(), 0);
            sim.pause(5000);
        }
        let gather = sim.gather();
        assert_eq!(gather.whole(), 30, "round {n}");
        assert_eq!(sim.scheduler.hanging(), 0, "round {n}");
        sim.pause(1000);
    }
}

#[test]
fn a_daemon_is_killed_while_calls_hang() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 15..35, true);
    sim.daemon.vm(40).locked = true;
    gathers(&mut sim, 3, |_, _, _| {});
    freeze(&mut sim, 15..35, false);
    sim.daemon.restart(1000);
    sim.pause(2000);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
    assert_eq!(sim.scheduler.hanging(), 0);
}

#[test]
fn a_connection_that_is_lost_costs_no_figure() {
    for after in 0..120 {
        let mut sim = Sim::warm(50);
        sim.at(after, |sim| {
            let one = sim.daemon.call_ids().into_iter().next_back();
            sim.daemon.cut(|call_id| Some(call_id) == one);
        });
        gathers(&mut sim, 2, |_, _, gather| {
            assert_eq!(gather.whole(), 50, "cut after {after}")
        });
    }
}

#[test]
fn what_keepalive_frees_here_still_counts() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 15..35, true);
    let first = sim.gather();
    for _ in 0..6 {
        sim.daemon.cut(|_| true);
        gathers(&mut sim, 2, |_, sim, gather| {
            sim.assert_whole_but(gather, |n| !first.is_whole(uuid(n)));
        });
    }
    assert!(sim.most_hanging <= 8);
    freeze(&mut sim, 15..35, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
}

#[test]
fn calls_that_are_cut_before_they_are_known_to_hang_are_found_out() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Hidden;
    freeze(&mut sim, 15..35, true);
    sim.at(90, |sim| sim.daemon.cut(|_| true));
    gathers(&mut sim, 3, |_, sim, gather| {
        assert!(gather.took <= 2500, "{} ms", gather.took);
        assert_eq!(sim.scheduler.hanging(), sim.daemon.hanging(|_, _| true));
    });
    // Four of the hanging calls were not counted while their VMs had not been queried again.
    assert!(sim.most_hanging <= 12, "{} hang", sim.most_hanging);
    freeze(&mut sim, 15..35, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
    assert_eq!(sim.scheduler.hanging(), 0);
}

#[test]
fn a_locked_vm_whose_calls_are_cut_again_and_again() {
    for cuts in [1, 3, 20] {
        let mut sim = Sim::warm(30);
        sim.daemon.vm(9).locked = true;
        for _ in 0..cuts {
            gathers(&mut sim, 1, |_, sim, gather| {
                sim.assert_whole_but(gather, |n| n == 9)
            });
            sim.daemon.cut(|_| true);
        }
        assert!(sim.most_hanging <= 8);
        sim.daemon.vm(9).locked = false;
        if cuts > 3 {
            // As many calls hang as the cap allows. No further call may be made that would show their return,
            // so it takes until they are forgotten.
            sim.pause(600_000);
        }
        sim.gather();
        assert_eq!(sim.gather().whole(), 30, "{cuts} cuts");
    }
}

/// A healthy gather of these VMs, within 3 ms, up to the calls for their statistics.
fn up_to_statistics(
    scheduler: &mut Scheduler,
    vms: &[usize],
    at: impl Fn(u64) -> Instant,
) -> Vec<Action> {
    scheduler.begin(at(0));
    let [Action::Send(list, Request::List)] = scheduler.actions()[..] else {
        panic!("no list");
    };
    let listed = vms.iter().map(|number| Listed {
        uuid: uuid(*number),
        described: true,
    });
    scheduler.on(list, Event::Listed(listed.collect()), at(1));
    scheduler.actions();
    scheduler.on_host_checked(HostVerdict::default(), at(2));
    let [Action::Send(canary, Request::Canary(_))] = scheduler.actions()[..] else {
        panic!("no canary");
    };
    scheduler.on(canary, Event::Done, at(3));
    scheduler.actions()
}

/// Another client's call occupies that monitor, and a call of ours that waits for a connection hangs on
/// nothing.
#[test]
fn a_call_that_waits_for_a_connection_is_not_taken_to_hang() {
    let limits = Limits { chunk: 1, ..LIMITS };
    let mut scheduler = Scheduler::new(limits);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let asked = up_to_statistics(&mut scheduler, &[1, 2], at);
    let [
        Action::Send(_, Request::Statistics { of: one, .. }),
        Action::Send(second, Request::Statistics { of: other, .. }),
    ] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    scheduler.queued(*second);
    scheduler.tick(at(300));
    let [Action::Send(probe, Request::Probe(_))] = scheduler.actions()[..] else {
        panic!("no probe");
    };
    scheduler.on(probe, Event::Alive, at(301));
    let occupied = Monitor::Occupied(Duration::from_millis(290));
    scheduler.on(probe, Event::Control(other[0], occupied), at(302));
    assert_eq!(scheduler.hanging(), 0, "it is no call of ours");
    assert_eq!(scheduler.actions(), []);
    // The VM does not answer that call either, so the call is not made at all.
    scheduler.on(probe, Event::Control(one[0], Monitor::Free), at(303));
    scheduler.on(probe, Event::Done, at(304));
    let [Action::Send(canary, Request::Canary(_))] = scheduler.actions()[..] else {
        panic!("no canary");
    };
    scheduler.on(canary, Event::Done, at(305));
    scheduler.tick(at(1000));
    let [Action::Send(probe, Request::Probe(_))] = scheduler.actions()[..] else {
        panic!("no second probe");
    };
    scheduler.on(probe, Event::Alive, at(1001));
    scheduler.on(probe, Event::Control(one[0], Monitor::Free), at(1002));
    scheduler.tick(at(1400));
    let actions = scheduler.actions();
    assert!(actions.contains(&Action::Withdraw(*second)), "{actions:?}");
    assert_eq!(scheduler.hanging(), 1, "the probe");
}

/// Another client uses the VM's monitor again and again, and the daemon is slow: two calls seem to hang on the VM. Each that
/// returns shows that the VM can be asked again, but it is asked by one call.
#[test]
fn a_vm_on_which_two_calls_seemed_to_hang_is_asked_again_by_one() {
    let mut scheduler = Scheduler::new(LIMITS);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let asks = |actions: Vec<Action>| -> Vec<CallId> {
        let call = |action: &Action| match action {
            Action::Send(call_id, Request::Statistics { .. }) => Some(*call_id),
            _ => None,
        };
        actions.iter().filter_map(call).collect()
    };
    let mut calls = asks(up_to_statistics(&mut scheduler, &[1], at));
    for seen in [300, 600] {
        scheduler.tick(at(seen));
        let [Action::Send(probe, Request::Probe(_))] = scheduler.actions()[..] else {
            panic!("no probe");
        };
        let used = Monitor::Occupied(Duration::from_millis(200));
        scheduler.on(probe, Event::Alive, at(seen + 1));
        scheduler.on(probe, Event::Control(uuid(1), used), at(seen + 2));
        scheduler.on(probe, Event::Done, at(seen + 3));
        calls.extend(asks(scheduler.actions()));
    }
    let [first, second, third] = calls[..] else {
        panic!("{calls:?}");
    };
    let part = || Event::Samples(vec![(uuid(1), Completeness::Partial)]);
    let mut again = Vec::new();
    for (call_id, ms) in [(third, 610), (first, 611), (second, 612)] {
        scheduler.on(call_id, part(), at(ms));
        again.extend(asks(scheduler.actions()));
    }
    assert_eq!(again.len(), 1, "{again:?}");
}

/// Otherwise the main loop would call the scheduler without a pause until the gather ends.
#[test]
fn a_vm_that_is_not_asked_again_any_more_does_not_wake_the_scheduler() {
    let limits = Limits { chunk: 1, ..LIMITS };
    let mut scheduler = Scheduler::new(limits);
    let start = Instant::now();
    let at = |ms| start + Duration::from_millis(ms);
    let asked = up_to_statistics(&mut scheduler, &[0, 1, 2], at);
    let [
        Action::Send(first, _),
        Action::Send(second, Request::Statistics { of, .. }),
        Action::Send(_, _),
    ] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    // After this no more calls are made; the third call is still waited for.
    scheduler.on(*first, Event::Unreachable, at(4));
    let part = Event::Samples(vec![(of[0], Completeness::Partial)]);
    scheduler.on(*second, part, at(5));
    assert!(!scheduler.is_done());
    scheduler.tick(at(100));
    assert!(scheduler.wake().is_some_and(|wake| wake > at(100)));
}
