//! Dead storage, and VMs that are locked inside libvirtd.

use super::daemon::{Dead, Ms, uuid};
use super::drive::{HostVisibility, Sim};
use super::{gathers, healthy};

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
        sim.host_visibility = HostVisibility::Visible(100);
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
fn a_locked_vm_costs_the_others_nothing() {
    for host_visibility in [HostVisibility::Visible(2), HostVisibility::Hidden] {
        for locked in [0, 7, 20] {
            let mut sim = Sim::warm(21);
            sim.host_visibility = host_visibility;
            sim.daemon.vm(locked).locked = true;
            gathers(&mut sim, 12, |n, sim, gather| {
                sim.assert_whole_but(gather, |n| n == locked);
                assert!(
                    !gather.completeness.contains_key(&uuid(locked)),
                    "its lines are withheld"
                );
                assert!(gather.took <= 1000, "gather {n}: {} ms", gather.took);
            });
            assert!(sim.most_hanging <= 3, "{} hang", sim.most_hanging);
            assert!(sim.scheduler.locked().eq([uuid(locked)]));
            sim.daemon.vm(locked).locked = false;
            sim.pause(100);
            sim.gather();
            assert_eq!(sim.gather().whole(), 21);
            assert_eq!(sim.daemon.hanging(|_, _| true), 0);
        }
    }
}

/// On a busy host the cheap call before the statistics takes long, and a VM is locked for a moment meanwhile.
#[test]
fn a_vm_that_is_unlocked_before_the_statistics_is_asked() {
    let mut was_locked = false;
    for unlocked in (200..1000).step_by(20) {
        for served in [20, 60, 150] {
            let mut sim = Sim::warm(30);
            let others = sim.daemon.others;
            for after in 1..8 {
                sim.at(after, |sim| {
                    let has_listed = sim
                        .daemon
                        .calls
                        .values()
                        .all(|call| !call.request.domains().is_empty());
                    if has_listed {
                        sim.daemon.others = 20;
                        sim.daemon.vm(9).locked = true;
                    }
                });
            }
            sim.at(unlocked, |sim| sim.daemon.vm(9).locked = false);
            sim.at(unlocked + served, move |sim| sim.daemon.others = others);
            let gather = sim.gather();
            was_locked |= sim.most_hanging > 0;
            assert_eq!(
                gather.whole(),
                30,
                "unlocked at {unlocked}, served {served} ms later"
            );
        }
    }
    assert!(was_locked);
}

#[test]
fn a_vm_that_is_locked_during_a_gather_costs_the_others_nothing() {
    // Of these two VMs the second is also queried by the cheap call that precedes the statistics.
    let moments = (0..8).chain((8..120).step_by(8));
    for (after, vm) in moments.flat_map(|after| [(after, 9), (after, 23)]) {
        let mut sim = Sim::warm(30);
        sim.at(after, move |sim| sim.daemon.vm(vm).locked = true);
        gathers(&mut sim, 5, |n, sim, gather| {
            sim.assert_whole_but(gather, |n| n == vm);
            let took = gather.took;
            assert!(took <= 1500, "VM {vm} at {after}, gather {n}: {took} ms");
        });
        let most = sim.most_hanging;
        assert!(most <= 3, "VM {vm} at {after}: {most} hang");
        sim.daemon.vm(vm).locked = false;
        sim.pause(100);
        sim.gather();
        assert_eq!(sim.gather().whole(), 30, "VM {vm} at {after}");
    }
}

#[test]
fn a_lock_that_is_held_for_a_moment_only_is_waited_for() {
    let mut sim = Sim::warm(30);
    sim.daemon.vm(9).locked = true;
    sim.at(550, |sim| sim.daemon.vm(9).locked = false);
    assert_eq!(sim.gather().whole(), 30);
    // A daemon that was just started may hold every lock for longer.
    sim.pause(1000);
    sim.daemon.restart(0);
    sim.at(20, |sim| sim.daemon.vm(9).locked = true);
    sim.at(2500, |sim| sim.daemon.vm(9).locked = false);
    let gather = sim.gather();
    assert_eq!(gather.whole(), 30, "in {} ms", gather.took);
}

#[test]
fn locks_that_take_up_the_cap_are_waited_for_where_the_daemon_was_just_started() {
    // Each of its first bulk calls goes on for a second with a VM's lock held: the next VM that is queried is
    // locked next, until as many calls hang as the cap allows.
    let mut times = (0..).map(|n: Ms| 20 + n * 7919 % 900);
    for vms in [4, 6, 12].repeat(100) {
        let mut sim = Sim::warm(vms);
        sim.daemon.restart(0);
        for n in 0..vms {
            let from = times.next().unwrap();
            sim.at(from, move |sim| sim.daemon.vm(n).locked = true);
            sim.at(1500, move |sim| sim.daemon.vm(n).locked = false);
        }
        let gather = sim.gather();
        assert_eq!(gather.whole(), vms, "in {} ms", gather.took);
        // The cap of 8, and the probe that found the last lock.
        assert!(sim.most_hanging <= 9, "{} hang", sim.most_hanging);
    }
}

#[test]
fn two_locked_vms_cost_the_others_nothing() {
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
fn while_the_host_says_nothing_only_disks_known_to_be_local_are_asked_in_bulk() {
    // From the start on nothing is known of the VMs; [`Sim`] asserts that no order queries more than it may.
    let mut sim = Sim::new(30);
    sim.host_visibility = HostVisibility::Never;
    mount(&mut sim, true);
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!((gather.whole(), gather.disks.len()), (30, 30));
        assert!(gather.took <= 1500, "{} ms", gather.took);
    });
    assert_eq!(sim.most_hanging, 0);
    // Later, with a mount that was dead when the last host report came: its disks are not queried again.
    let mut sim = Sim::new(30);
    mount(&mut sim, true);
    gathers(&mut sim, 2, |_, _, _| {});
    sim.host_visibility = HostVisibility::Never;
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!((gather.whole(), gather.disks.len()), (30, 10));
    });
    assert_eq!(sim.most_hanging, 0);
}

#[test]
fn disks_that_are_to_be_left_out_are_not_asked_for_one_by_one() {
    let mut sim = Sim::warm(30);
    sim.disks_left_out = true;
    mount(&mut sim, true);
    gathers(&mut sim, 3, |_, _, gather| {
        assert_eq!((gather.whole(), gather.disks.len()), (30, 0));
    });
    assert_eq!(sim.most_hanging, 0);
}
