//! The scheduler's decisions against a simulated libvirtd, on a simulated clock: what docs/resilience.md
//! promises for every kind of fault, and a property test over any mixture of them.

mod any_schedule;
mod daemon;
mod describing;
mod drive;
mod extra;
mod failing;
mod frozen;
mod gather_result;
mod locked;
mod serving;

use daemon::Ms;
use drive::{HostVisibility, LIMITS, Sim};
use gather_result::GatherResult;

/// The time that a healthy gather of this many VMs takes.
fn healthy(vms: usize) -> Ms {
    let mut sim = Sim::warm(vms);
    let gather = sim.gather();
    assert_eq!(gather.whole(), vms);
    gather.took
}

/// Runs some gathers and passes each of them to the check.
fn gathers(sim: &mut Sim, times: usize, check: impl Fn(usize, &Sim, &GatherResult)) {
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
        assert!(gather.completeness.values().all(|(times, _)| *times == 1));
        assert!(gather.took < 300, "{} ms", gather.took);
        // A list, the host report, a canary and the chunks; in the first gather the descriptions as well.
        assert!(gather.actions <= 2 * 7 + 3, "{} actions", gather.actions);
    });
    assert_eq!(sim.most_hanging, 0);
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
fn a_host_check_that_does_not_come_back_is_given_up() {
    let mut sim = Sim::warm(50);
    sim.host_visibility = HostVisibility::Never;
    let host_check = Ms::try_from(LIMITS.host_check.as_millis()).unwrap();
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!(gather.whole(), 50);
        assert!(gather.took <= host_check + 300, "{} ms", gather.took);
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
fn vms_come_and_go() {
    let mut sim = Sim::warm(40);
    for n in 0..20 {
        sim.daemon.vm(n).exists = n % 2 == 0;
        sim.at(20 + n as Ms * 3, move |sim| {
            sim.daemon.vm(n + 20).exists = false
        });
    }
    sim.gather();
    sim.pause(1000);
    let gather = sim.gather();
    assert_eq!(gather.completeness.len(), 10);
    assert_eq!(gather.whole(), 10);
    for n in 0..40 {
        sim.daemon.vm(n).exists = true;
    }
    assert_eq!(sim.gather().whole(), 40);
}
