//! Descriptions that cannot be read: from libvirt 11.0 on, reading XML waits for the owner of the VM's job.

use super::daemon::{JobOwner, uuid};
use super::drive::{HostVisibility, LIMITS, Sim};
use super::{freeze, gathers};
use telegraf_kvm::gather::scheduler::Limits;

/// A current libvirt, all of whose VMs are new to the plugin.
fn newer(vms: usize, host_visibility: HostVisibility) -> Sim {
    let mut sim = Sim::new(vms);
    sim.daemon.xml_takes_job = true;
    sim.host_visibility = host_visibility;
    sim
}

/// The QEMUs of these VMs do not run, and another client's call has been hanging on each for this long.
fn hold(sim: &mut Sim, vms: usize, since: u64) {
    freeze(sim, 0..vms, true);
    sim.pause(since + 1);
    let began = sim.daemon.now - since;
    for n in 0..vms {
        sim.daemon.others_hold(n, true);
        sim.daemon.vm(n).job = Some(JobOwner::Others(began));
    }
}

#[test]
fn a_vm_whose_job_is_held_costs_the_others_no_first_figure() {
    for host_visibility in [HostVisibility::Visible(2), HostVisibility::Hidden] {
        let healthy = newer(50, host_visibility).gather().took;
        // The job has been held for long, or only for a moment, so that our call already waits when libvirtd
        // reports it.
        for (held, since) in [(1, 5000), (6, 5000), (15, 5000), (1, 0), (3, 0)] {
            let mut sim = newer(50, host_visibility);
            hold(&mut sim, held, since);
            let first = sim.gather();
            sim.assert_whole_but(&first, |n| n < held);
            for n in 0..held {
                assert!(
                    first.completeness.contains_key(&uuid(n)),
                    "{held} {since}: VM {n}"
                );
            }
            let took = first.took;
            assert!(took <= healthy + 1000, "{held} held for {since}: {took} ms");
            sim.pause(5000);
            gathers(&mut sim, 3, |_, sim, gather| {
                sim.assert_whole_but(gather, |n| n < held);
                assert!(gather.took <= healthy + 200, "{} ms", gather.took);
            });
            assert!(sim.most_hanging <= 3, "{} hang", sim.most_hanging);
            // All VMs answer again.
            for n in 0..held {
                sim.daemon.others_hold(n, false);
            }
            freeze(&mut sim, 0..held, false);
            sim.pause(1000);
            sim.gather();
            assert_eq!(sim.gather().whole(), 50);
            assert_eq!(sim.scheduler.hanging(), 0);
        }
    }
}

/// Reading the XML of a new VM must not wait behind our own call that hangs on it.
#[test]
fn vms_that_are_new_and_frozen_out_of_sight() {
    let mut sim = newer(50, HostVisibility::Hidden);
    freeze(&mut sim, 0..1, true);
    let first = sim.gather();
    sim.assert_whole_but(&first, |n| n == 0);
    assert!(first.took <= 1500, "{} ms", first.took);
    // libvirtd was restarted, so nothing is known of any VM, and our call hangs on the frozen VM again.
    sim.daemon.described.clear();
    gathers(&mut sim, 3, |_, sim, gather| {
        sim.assert_whole_but(gather, |n| n == 0);
        assert!(gather.took <= 1500, "{} ms", gather.took);
    });
    assert!(sim.most_hanging <= 2, "{} hang", sim.most_hanging);
}

#[test]
fn disks_on_unknown_storage_are_not_asked_for_in_bulk() {
    let mut sim = Sim::with(
        1200,
        Limits {
            chunk: 32,
            ..LIMITS
        },
    );
    gathers(&mut sim, 1, |_, sim, gather| {
        assert_eq!(gather.whole(), 1200);
        let described = sim.daemon.described.len();
        assert_eq!((described, gather.disks.len()), (1000, 200));
    });
    gathers(&mut sim, 1, |_, _, gather| {
        assert_eq!(gather.disks.len(), 0)
    });
}

/// Reading XML needs an ordinary worker, and none is free: the figures that libvirtd's priority workers serve
/// still come, and the number of hanging calls does not grow from gather to gather.
#[test]
fn a_spent_daemon_with_vms_to_describe() {
    for all in [true, false] {
        let mut sim = if all { Sim::new(50) } else { Sim::warm(50) };
        sim.daemon.others = 20;
        // A device was added, so the VM's XML has to be read again.
        sim.daemon.described.remove(&uuid(3));
        gathers(&mut sim, 5, |n, _, gather| {
            assert_eq!(gather.completeness.len(), 50, "all new {all}, gather {n}");
            let took = gather.took;
            assert!(took <= 2500, "all new {all}, gather {n}: {took} ms");
        });
        assert!(sim.most_hanging <= 5, "{} hang", sim.most_hanging);
        sim.daemon.others = 0;
        sim.pause(1000);
        sim.gather();
        assert_eq!(sim.gather().whole(), 50, "all new {all}");
        assert_eq!(sim.scheduler.hanging(), 0);
    }
}
