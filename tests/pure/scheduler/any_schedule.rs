//! The promises that hold under any mixture of faults, at any time. Most of them are asserted by
//! [`super::drive::Sim`] in every gather of every test.

use proptest::prelude::*;

use super::daemon::{Dead, Ms, uuid};
use super::drive::{HostVisibility, LIMITS, Sim};
use super::gather_result::GatherResult;
use telegraf_kvm::gather::scheduler::Limits;

const VMS: usize = 40;

/// A fault. Numbers choose a VM, times are milliseconds.
#[derive(Debug, Clone)]
enum Fault {
    Freeze(usize),
    Thaw(usize),
    Lock(usize),
    Unlock(usize),
    Destroy(usize),
    Create(usize),
    Busy(usize, bool),
    /// The storage of some neighbouring VMs dies.
    MountDies(usize, usize),
    MountIsBack,
    /// Other clients occupy this many of libvirtd's workers.
    Others(usize),
    Stop,
    GoOn,
    Restart(Ms),
    /// One of our connections breaks, or all that have a call on them.
    Cut(usize),
    CutAll,
    Slow(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    let vm = 0..VMS;
    prop_oneof![
        6 => vm.clone().prop_map(Fault::Freeze),
        4 => vm.clone().prop_map(Fault::Thaw),
        2 => vm.clone().prop_map(Fault::Lock),
        2 => vm.clone().prop_map(Fault::Unlock),
        1 => vm.clone().prop_map(Fault::Destroy),
        1 => vm.clone().prop_map(Fault::Create),
        2 => (vm.clone(), any::<bool>()).prop_map(|(vm, busy)| Fault::Busy(vm, busy)),
        1 => (vm, 1..10_usize).prop_map(|(first, some)| Fault::MountDies(first, some)),
        1 => Just(Fault::MountIsBack),
        1 => prop_oneof![Just(20), 0..20_usize].prop_map(Fault::Others),
        1 => Just(Fault::Stop),
        2 => Just(Fault::GoOn),
        1 => (0..20_000_u64).prop_map(Fault::Restart),
        1 => (0..8_usize).prop_map(Fault::Cut),
        1 => Just(Fault::CutAll),
        1 => (1..8_u64).prop_map(Fault::Slow),
    ]
}

/// Faults, each with the time since the last one: many happen together, in the middle of a gather.
fn schedule() -> impl Strategy<Value = Vec<(Ms, Fault)>> {
    let after = prop_oneof![Just(0), 0..20_u64, 0..400_u64, 0..20_000_u64];
    prop::collection::vec((after, fault()), 0..40)
}

fn host_visibility() -> impl Strategy<Value = HostVisibility> {
    let after = prop_oneof![0..5_u64, 0..150_u64];
    prop_oneof![
        after.prop_map(HostVisibility::Visible),
        Just(HostVisibility::Hidden),
        Just(HostVisibility::Never)
    ]
}

fn happen(sim: &mut Sim, fault: &Fault) {
    let daemon = &mut sim.daemon;
    match *fault {
        Fault::Freeze(vm) => daemon.vm(vm).frozen = true,
        Fault::Thaw(vm) => daemon.vm(vm).frozen = false,
        Fault::Lock(vm) => daemon.vm(vm).locked = true,
        Fault::Unlock(vm) => daemon.vm(vm).locked = false,
        Fault::Destroy(vm) => daemon.destroy(vm),
        Fault::Create(vm) => daemon.vm(vm).exists = true,
        Fault::Busy(vm, busy) => daemon.vm(vm).busy = busy.then_some((4, 25)),
        Fault::MountDies(first, some) => {
            for vm in first..VMS.min(first + some) {
                let image = if vm % 2 == 0 {
                    Dead::Written
                } else {
                    Dead::Sparse
                };
                daemon.mount(vm, Some(image));
            }
        }
        Fault::MountIsBack => (0..VMS).for_each(|vm| daemon.mount(vm, None)),
        Fault::Others(workers) => daemon.others = workers,
        Fault::Stop => daemon.stop(),
        Fault::GoOn => daemon.go_on(),
        Fault::Restart(away) => daemon.restart(away),
        Fault::Cut(which) => {
            let call_ids = daemon.call_ids();
            if !call_ids.is_empty() {
                let one = call_ids[which % call_ids.len()];
                daemon.cut(|call_id| call_id == one);
            }
        }
        Fault::CutAll => daemon.cut(|_| true),
        Fault::Slow(times) => daemon.slowness = times,
    }
}

/// Ends all faults.
fn heal(sim: &mut Sim) {
    sim.daemon.go_on();
    sim.daemon.others = 0;
    sim.daemon.slowness = 1;
    for vm in 0..VMS {
        sim.daemon.mount(vm, None);
        let vm = sim.daemon.vm(vm);
        (vm.frozen, vm.locked, vm.busy) = (false, false, None);
    }
    // A daemon that is away comes back, and calls that hung have time to return.
    sim.pause(25_000);
}

fn whole(sim: &Sim, gather: &GatherResult) -> Result<(), TestCaseError> {
    for (n, (uuid, vm)) in sim.daemon.vms.iter().enumerate() {
        prop_assert_eq!(vm.exists, gather.is_whole(*uuid), "VM {}", n);
    }
    Ok(())
}

fn run(
    host_visibility: HostVisibility,
    asks_extra: bool,
    pause: Ms,
    schedule: Vec<(Ms, Fault)>,
) -> Result<(), TestCaseError> {
    let limits = Limits {
        asks_extra,
        ..LIMITS
    };
    let mut sim = Sim::with(VMS, limits);
    sim.host_visibility = host_visibility;
    let mut after = 0;
    for (later, fault) in schedule {
        after += later;
        sim.at(after, move |sim| happen(sim, &fault));
    }
    let end = sim.daemon.now + after;
    while sim.daemon.now <= end {
        sim.gather();
        sim.pause(pause);
    }
    heal(&mut sim);
    if sim.scheduler.hanging() >= 7 {
        // So many calls were cut while they hung that no further call may be made to find out whether they
        // still hang.
        sim.pause(600_000);
    }
    sim.gather();
    sim.pause(pause);
    let gather = sim.gather();
    whole(&sim, &gather)?;
    prop_assert_eq!(sim.daemon.hanging(|_, _| true), 0);
    // Only replies show that cut calls do not hang any more.
    for _ in 0..2 {
        sim.pause(pause);
        sim.gather();
    }
    prop_assert_eq!(sim.scheduler.hanging(), 0);
    prop_assert_eq!(sim.scheduler.locked().count(), 0);
    Ok(())
}

/// A schedule that [`any_schedule`] has found: the connections break while a call for the disks of a VM hangs on its lock.
#[test]
fn a_vm_is_not_queried_while_it_is_locked_though_the_call_that_hung_on_it_was_cut() {
    let schedule = vec![
        (7, Fault::Lock(8)),
        (17167, Fault::Unlock(9)),
        (0, Fault::GoOn),
        (14643, Fault::Cut(2)),
        (17671, Fault::Freeze(24)),
        (1759, Fault::Cut(1)),
        (45, Fault::Freeze(0)),
        (389, Fault::Unlock(0)),
        (371, Fault::Restart(15461)),
        (19567, Fault::Lock(8)),
        (98, Fault::Freeze(0)),
        (165, Fault::Freeze(0)),
        (102, Fault::CutAll),
    ];
    run(HostVisibility::Never, false, 2890, schedule).unwrap();
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Each gather ends by its deadline, hanging calls never exceed the cap, no VM is queried by two calls at
    /// a time or again after it was complete, and none that is locked or seen to be stuck is queried: [`Sim`]
    /// asserts that. After all faults have ended, the second gather is complete and nothing hangs.
    #[test]
    fn any_schedule(
        host_visibility in host_visibility(),
        asks_extra: bool,
        pause in 100..9000_u64,
        schedule in schedule(),
    ) {
        run(host_visibility, asks_extra, pause, schedule)?;
    }

    /// Up to six VMs that freeze at any time, without a host report that shows it, cost the others no figure
    /// once two gathers are over; and each that thaws alone is complete within two gathers.
    #[test]
    fn any_six_frozen(
        frozen in prop::collection::btree_map(0..VMS, 0..400_u64, 0..=6),
    ) {
        let mut sim = Sim::warm(VMS);
        sim.host_visibility = HostVisibility::Hidden;
        for (vm, at) in frozen.clone() {
            sim.at(at, move |sim| sim.daemon.vm(vm).frozen = true);
        }
        for _ in 0..3 {
            let gather = sim.gather();
            prop_assert!(gather.took <= 2500, "{} ms", gather.took);
            for n in (0..VMS).filter(|n| !frozen.contains_key(n)) {
                prop_assert!(gather.is_whole(uuid(n)), "VM {}: {:?}", n, gather.completeness.get(&uuid(n)));
            }
            sim.pause(1000);
        }
        for thawed in frozen.keys() {
            sim.daemon.vm(*thawed).frozen = false;
            sim.gather();
            prop_assert!(sim.gather().is_whole(uuid(*thawed)));
        }
        prop_assert_eq!(sim.daemon.hanging(|_, _| true), 0);
    }

    /// A VM whose lock is taken at any time costs the others no figure, and at most three calls.
    #[test]
    fn any_lock(vm in 0..VMS, at in 0..400_u64, gathers in 1..6_usize, hidden: bool) {
        let mut sim = Sim::warm(VMS);
        if hidden {
            sim.host_visibility = HostVisibility::Hidden;
        }
        sim.at(at, move |sim| sim.daemon.vm(vm).locked = true);
        for _ in 0..gathers {
            let gather = sim.gather();
            sim.assert_whole_but(&gather, |n| n == vm);
            sim.pause(500);
        }
        prop_assert!(sim.most_hanging <= 3, "{} hang", sim.most_hanging);
        sim.daemon.vm(vm).locked = false;
        sim.pause(100);
        sim.gather();
        prop_assert_eq!(sim.gather().whole(), VMS);
    }
}
