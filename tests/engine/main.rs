//! The engine's decisions against a simulated libvirtd, on a simulated clock: what design.md and
//! the README promise of every kind of trouble, and a property test over any mixture of them.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod any_schedule;
mod daemon;
mod drive;

use daemon::{Dead, Ms, uuid};
use drive::{DEADLINE, Gather, Sight, Sim};
use telegraf_kvm::gather::engine::Order;

/// What a healthy gather of so many VMs takes.
fn healthy(vms: usize) -> Ms {
    let mut sim = Sim::warm(vms);
    let gather = sim.gather();
    assert_eq!(gather.whole(), vms);
    gather.took
}

/// Some gathers, each handed on.
fn gathers(sim: &mut Sim, times: usize, check: impl Fn(usize, &Sim, &Gather)) {
    for n in 0..times {
        let gather = sim.gather();
        check(n, sim, &gather);
        sim.pause(10_000 - gather.took);
    }
}

fn freeze(sim: &mut Sim, which: impl Iterator<Item = usize>, frozen: bool) {
    for n in which {
        sim.daemon.vm(n).frozen = frozen;
    }
}

#[test]
fn healthy_vms_are_asked_once() {
    let mut sim = Sim::new(50);
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!(gather.whole(), 50);
        assert!(gather.came.values().all(|(times, _)| *times == 1));
        assert!(gather.took < 300, "{} ms", gather.took);
        // A list, the look, a canary and the chunks; the first time the descriptions as well.
        assert!(gather.orders <= 2 * 7 + 3, "{} orders", gather.orders);
    });
    assert_eq!(sim.most_hanging, 0);
}

#[test]
fn who_is_seen_to_be_frozen_makes_nothing_hang() {
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
    sim.sight = Sight::Hidden;
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
    // Spread over the chunks, in one chunk, or frozen one after the other.
    let spread: [fn(usize) -> usize; 3] = [|n| n * 8 + 3, |n| n + 1, |n| n * 5];
    for (way, which) in spread.into_iter().enumerate() {
        let mut sim = Sim::warm(50);
        sim.sight = Sight::Hidden;
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
            // Who froze after it had answered is found by the second gather.
            let limit = [2000, if way == 2 { 600 } else { 300 }, 300, 300][n];
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

#[test]
fn twenty_frozen_out_of_sight_cost_no_more_than_the_cap() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Hidden;
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
        assert_eq!(gather.came.len(), 50, "all give what needs no monitor");
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
    });
    assert!(sim.most_hanging <= 8);
    freeze(&mut sim, 0..50, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
}

#[test]
fn all_frozen_out_of_sight_give_what_needs_no_monitor() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Hidden;
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
fn who_thaws_while_others_stay_frozen_is_complete_within_two_gathers() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Hidden;
    freeze(&mut sim, 0..6, true);
    gathers(&mut sim, 2, |_, _, _| {});
    freeze(&mut sim, 0..3, false);
    sim.gather();
    let gather = sim.gather();
    sim.assert_whole_but(&gather, |n| (3..6).contains(&n));
}

fn mount(sim: &mut Sim, dead: bool) {
    for n in 0..10 {
        let image = if n % 2 == 0 {
            Dead::Written
        } else {
            Dead::Sparse
        };
        sim.daemon.mount(n, dead.then_some(image));
    }
}

#[test]
fn disks_on_a_dead_mount_are_asked_one_by_one() {
    let limit = healthy(30) * 3 / 2 + 100;
    for fresh in [false, true] {
        let mut sim = if fresh { Sim::new(30) } else { Sim::warm(30) };
        sim.sight = Sight::Honest(100);
        mount(&mut sim, true);
        gathers(&mut sim, 4, |_, _, gather| {
            assert_eq!(gather.whole(), 30);
            let disks: Vec<_> = (0..10).map(uuid).collect();
            assert!(gather.disks.iter().eq(disks.iter()), "{:?}", gather.disks);
            assert!(gather.took <= limit, "{} ms of {limit}", gather.took);
        });
        assert_eq!(sim.most_hanging, 0);
        assert!(sim.daemon.vms.values().all(|vm| !vm.frozen));
        mount(&mut sim, false);
        gathers(&mut sim, 1, |_, _, gather| {
            assert_eq!((gather.whole(), gather.disks.len()), (30, 0));
        });
    }
}

#[test]
fn a_locked_vm_costs_nobody_else_anything() {
    for sight in [Sight::Honest(2), Sight::Hidden] {
        for locked in [0, 7, 20] {
            let mut sim = Sim::warm(21);
            sim.sight = sight;
            sim.daemon.vm(locked).locked = true;
            gathers(&mut sim, 12, |n, sim, gather| {
                sim.assert_whole_but(gather, |n| n == locked);
                assert!(
                    !gather.came.contains_key(&uuid(locked)),
                    "its lines are withheld"
                );
                assert!(gather.took <= 1000, "gather {n}: {} ms", gather.took);
            });
            assert!(sim.most_hanging <= 3, "{} hang", sim.most_hanging);
            assert!(sim.engine.locked().eq([uuid(locked)]));
            sim.daemon.vm(locked).locked = false;
            sim.pause(100);
            sim.gather();
            assert_eq!(sim.gather().whole(), 21);
            assert_eq!(sim.daemon.hanging(|_, _| true), 0);
        }
    }
}

#[test]
fn a_vm_that_is_locked_in_the_middle_of_a_gather_costs_nobody_else_anything() {
    for after in (0..120).step_by(5) {
        let mut sim = Sim::warm(30);
        sim.at(after, |sim| sim.daemon.vm(9).locked = true);
        gathers(&mut sim, 5, |n, sim, gather| {
            sim.assert_whole_but(gather, |n| n == 9);
            assert!(
                gather.took <= 1500,
                "{after}, gather {n}: {} ms",
                gather.took
            );
        });
        assert!(sim.most_hanging <= 3, "{after}: {} hang", sim.most_hanging);
        sim.daemon.vm(9).locked = false;
        sim.pause(100);
        sim.gather();
        assert_eq!(sim.gather().whole(), 30, "{after}");
    }
}

#[test]
fn two_locked_vms_cost_nobody_else_anything() {
    let mut sim = Sim::warm(30);
    sim.daemon.vm(4).locked = true;
    sim.daemon.vm(5).locked = true;
    gathers(&mut sim, 6, |n, sim, gather| {
        sim.assert_whole_but(gather, |n| n == 4 || n == 5);
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
    });
    sim.daemon.vm(4).locked = false;
    sim.pause(100);
    sim.gather();
    let gather = sim.gather();
    sim.assert_whole_but(&gather, |n| n == 5);
}

#[test]
fn a_spent_daemon_still_gives_state_and_network() {
    let mut sim = Sim::warm(50);
    sim.daemon.others_hold(3, true);
    sim.daemon.others = 20;
    gathers(&mut sim, 5, |n, sim, gather| {
        assert_eq!(gather.came.len(), 50, "gather {n}");
        assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
        assert!(sim.daemon.hanging(|_, order| !matches!(order, Order::List)) <= 1);
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
    assert_eq!(sim.gather().spent, Some(Some(uuid(3))));
    sim.pause(5000);
    assert!(sim.gather().spent.is_some());
}

#[test]
fn a_daemon_that_is_spent_in_the_middle_of_a_gather() {
    for after in (5..120).step_by(10) {
        let mut sim = Sim::warm(50);
        sim.at(after, |sim| sim.daemon.others = 20);
        gathers(&mut sim, 3, |n, _, gather| {
            assert_eq!(gather.came.len(), 50, "{after}, gather {n}");
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
    // Before keepalive gives up, and after; frozen between gathers or in the middle of one.
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
            // The first one waits for it: nothing tells it from one that is slow.
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
        // Now and then it is away for whole gathers, else back within one.
        let away = if n % 10 == 0 { 25_000 } else { 300 };
        sim.at(n * 3, move |sim| sim.daemon.restart(away));
        let gather = sim.gather();
        sim.pause(10_000 - gather.took);
        while sim.daemon.is_away() {
            assert_eq!(sim.gather().came.len(), 0);
            sim.pause(5000);
        }
        let gather = sim.gather();
        assert_eq!(gather.whole(), 30, "round {n}");
        assert_eq!(sim.engine.hanging(), 0, "round {n}");
        sim.pause(1000);
    }
}

#[test]
fn a_daemon_is_killed_while_calls_hang() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Hidden;
    freeze(&mut sim, 15..35, true);
    sim.daemon.vm(40).locked = true;
    gathers(&mut sim, 3, |_, _, _| {});
    freeze(&mut sim, 15..35, false);
    sim.daemon.restart(1000);
    sim.pause(2000);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
    assert_eq!(sim.engine.hanging(), 0);
}

#[test]
fn busy_neighbours_cost_no_figure() {
    for (held, of) in [(3, 20), (10, 30), (6, 17)] {
        let mut sim = Sim::warm(50);
        for n in 0..50 {
            sim.daemon.vm(n).busy = Some((held, of));
        }
        gathers(&mut sim, 50, |n, _, gather| {
            assert_eq!(gather.whole(), 50, "gather {n}, held {held} of {of} ms");
            assert!(gather.took <= 2000, "gather {n}: {} ms", gather.took);
        });
        assert_eq!(sim.most_hanging, 0);
    }
}

#[test]
fn a_look_that_does_not_come_back_is_not_waited_for() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Never;
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!(gather.whole(), 50);
        assert!(gather.took <= 1000, "{} ms", gather.took);
    });
}

#[test]
fn a_slow_daemon_is_no_trouble() {
    for slowness in [3, 10] {
        let mut sim = Sim::warm(50);
        sim.daemon.slowness = slowness;
        gathers(&mut sim, 4, |n, _, gather| {
            assert_eq!(
                gather.whole(),
                50,
                "gather {n}, {slowness} times slower: {} ms",
                gather.took
            );
        });
        assert_eq!(sim.most_hanging, 0);
    }
}

#[test]
fn a_connection_that_is_lost_costs_no_figure() {
    for after in 0..120 {
        let mut sim = Sim::warm(50);
        sim.at(after, |sim| {
            let one = sim.daemon.tickets().into_iter().next_back();
            sim.daemon.cut(|ticket| Some(ticket) == one);
        });
        gathers(&mut sim, 2, |_, _, gather| {
            assert_eq!(gather.whole(), 50, "cut after {after}")
        });
    }
}

#[test]
fn what_keepalive_frees_here_still_counts() {
    let mut sim = Sim::warm(50);
    sim.sight = Sight::Hidden;
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
    sim.sight = Sight::Hidden;
    freeze(&mut sim, 15..35, true);
    sim.at(90, |sim| sim.daemon.cut(|_| true));
    gathers(&mut sim, 3, |_, sim, gather| {
        assert!(gather.took <= 2500, "{} ms", gather.took);
        assert_eq!(sim.engine.hanging(), sim.daemon.hanging(|_, _| true));
    });
    // Four were not counted while nobody had asked again whom they asked.
    assert!(sim.most_hanging <= 12, "{} hang", sim.most_hanging);
    freeze(&mut sim, 15..35, false);
    sim.gather();
    assert_eq!(sim.gather().whole(), 50);
    assert_eq!(sim.engine.hanging(), 0);
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
            // As many hang as may. None is left that would tell, so it takes until they are forgotten.
            sim.pause(600_000);
        }
        sim.gather();
        assert_eq!(sim.gather().whole(), 30, "{cuts} cuts");
    }
}

#[test]
fn vms_come_and_go() {
    let mut sim = Sim::warm(40);
    for n in 0..20 {
        sim.daemon.vm(n).here = n % 2 == 0;
        sim.at(20 + n as Ms * 3, move |sim| {
            sim.daemon.vm(n + 20).here = false
        });
    }
    sim.gather();
    sim.pause(1000);
    let gather = sim.gather();
    assert_eq!(gather.came.len(), 10);
    assert_eq!(gather.whole(), 10);
    for n in 0..40 {
        sim.daemon.vm(n).here = true;
    }
    assert_eq!(sim.gather().whole(), 40);
}
