//! What events tell of the end of runs, and what a list makes of it.

use super::*;
use crate::sample::testing::{empty, full};

/// A gather has begun and its list, requested at this time, has these VMs; each has a sample in this state, without
/// figures of its QEMU.
fn listed(at: Instant, vms: &[(u128, u32)], state: (i32, i32)) -> Vms {
    let mut known = Vms::new(TTL);
    list_at(&mut known, at, vms);
    for (number, id) in vms {
        let mut sample = empty(at);
        sample.run = numbered(*number, *id).run;
        (sample.state, sample.reason) = (Some(state.0), Some(state.1));
        known.on_sample(true, &mut sample);
    }
    known
}

fn list_at(vms: &mut Vms, at: Instant, runs: &[(u128, u32)]) {
    vms.begin();
    vms.list_requested(at);
    vms.on_list(
        runs.iter()
            .map(|(number, id)| numbered(*number, *id))
            .collect(),
    );
}

const RUNNING: (i32, i32) = (1, 1);

/// The runs that have ended, with their reasons; no run has a sample.
fn ended(vms: &mut Vms) -> Vec<(u128, u32, i32)> {
    let ended = vms.take_ended(|_| false);
    let ended = ended.iter().map(|ended| {
        let run = ended.domain.run;
        (run.uuid.as_u128(), run.id, ended.reason)
    });
    ended.collect()
}

#[test]
fn a_stop_ends_the_run_that_is_known_once_and_for_its_reason() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1), (2, 2)], RUNNING);
    vms.stopped(stop(1), at);
    vms.stopped(stop(1), at);
    vms.stopped(stop(9), at);
    assert_eq!(ended(&mut vms), [(1, 1, 2)], "9 is not wanted");
    list_at(&mut vms, after(at, 1), &[(2, 2)]);
    vms.stopped(stop(1), after(at, 2));
    assert_eq!(ended(&mut vms), []);
}

#[test]
fn an_end_waits_while_its_run_has_figures() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    vms.stopped(stop(1), at);
    assert_eq!(vms.take_ended(|run| run == numbered(1, 1).run), []);
    // Without a list, too.
    vms.begin();
    assert_eq!(ended(&mut vms), [(1, 1, 2)]);
}

#[test]
fn each_run_has_its_own_end() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    vms.stopped(stop(1), at);
    vms.started(numbered(1, 2), at);
    vms.stopped(
        Stop {
            reason: 3,
            ..stop(1)
        },
        at,
    );
    vms.started(numbered(1, 3), at);
    list_at(&mut vms, after(at, 1), &[(1, 3)]);
    assert_eq!(ended(&mut vms), [(1, 1, 2), (1, 2, 3)]);
    vms.stopped(stop(1), after(at, 2));
    assert_eq!(ended(&mut vms), [(1, 3, 2)]);
}

#[test]
fn a_stop_that_comes_after_a_list_without_the_run_is_that_of_the_run() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1), (2, 2)], RUNNING);
    // 1 is gone, 2 was started again.
    list_at(&mut vms, after(at, 1), &[(2, 3)]);
    assert_eq!(ended(&mut vms), []);
    vms.stopped(stop(1), after(at, 2));
    vms.stopped(stop(2), after(at, 2));
    assert_eq!(ended(&mut vms), [(1, 1, 2), (2, 2, 2)], "not 3");
    // A list later, no event is waited for any more.
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    list_at(&mut vms, after(at, 1), &[]);
    list_at(&mut vms, after(at, 2), &[]);
    vms.stopped(stop(1), after(at, 3));
    assert_eq!(ended(&mut vms), []);
}

#[test]
fn the_run_that_an_event_was_reported_for_is_not_expected_to_end_again() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    // In the middle of a gather.
    vms.stopped(stop(1), at);
    assert_eq!(ended(&mut vms), [(1, 1, 2)]);
    vms.started(numbered(1, 2), at);
    vms.begin();
    vms.stopped(stop(1), at);
    assert_eq!(ended(&mut vms), [(1, 2, 2)]);
}

#[test]
fn the_id_in_an_event_and_a_later_list_have_the_last_word() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 2), (2, 2)], RUNNING);
    let of_run = |id| Stop {
        id: Some(id),
        ..stop(1)
    };
    vms.stopped(of_run(1), at);
    assert_eq!(ended(&mut vms), [], "an older run");
    let mut vms = listed(at, &[(1, 2), (2, 2)], RUNNING);
    vms.stopped(of_run(2), at);
    assert_eq!(ended(&mut vms), [(1, 2, 2)]);
    // The stop was that of a run before it, of which nothing was known.
    vms.stopped(stop(2), at);
    list_at(&mut vms, after(at, 1), &[(2, 2)]);
    assert_eq!(ended(&mut vms), []);
    vms.stopped(stop(2), after(at, 2));
    assert_eq!(ended(&mut vms), [(2, 2, 2)], "now it does end");
}

#[test]
fn when_events_were_lost_a_stop_is_that_of_the_last_run() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    list_at(&mut vms, after(at, 1), &[(1, 2)]);
    vms.set_feed(EventFeed::Down);
    vms.set_feed(EventFeed::Live(after(at, 2)));
    vms.stopped(stop(1), after(at, 3));
    assert_eq!(ended(&mut vms), [(1, 2, 2)]);
}

#[test]
fn failed_means_crashed_unless_the_vm_was_about_to_run() {
    let at = Instant::now();
    let failed = Stop {
        reason: 6,
        ..stop(1)
    };
    for (state, reason) in [
        (RUNNING, 3),
        // Paused by the operator.
        ((3, 1), 3),
        // Being migrated in; its QEMU is being started.
        ((3, 2), 6),
        ((3, 11), 6),
    ] {
        for is_listed in [true, false] {
            let mut vms = listed(at, &[(1, 1)], state);
            if !is_listed {
                list_at(&mut vms, after(at, 1), &[]);
            }
            vms.stopped(failed, after(at, 2));
            assert_eq!(ended(&mut vms), [(1, 1, reason)], "{state:?}");
        }
    }
    // Paused at the end of its own migration.
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    let mut sample = full(at);
    sample.run = numbered(1, 1).run;
    (sample.state, sample.reason) = (Some(3), Some(2));
    vms.on_sample(true, &mut sample);
    vms.stopped(failed, at);
    assert_eq!(ended(&mut vms), [(1, 1, 3)]);
}

#[test]
fn a_vm_that_was_restored_and_left_paused_crashes_as_others_do() {
    let at = Instant::now();
    let failed = Stop {
        reason: 6,
        ..stop(1)
    };
    let run = numbered(1, 1).run;
    // QEMU's figures came, which libvirt does not get from the QEMU of a VM that is being migrated in.
    let mut vms = listed(at, &[(1, 1)], (3, 2));
    assert!(!vms.is_left_paused(run));
    let mut sample = full(at);
    sample.run = run;
    (sample.state, sample.reason) = (Some(3), Some(2));
    vms.on_sample(true, &mut sample);
    assert!(vms.is_left_paused(run));
    vms.stopped(failed, after(at, 1));
    assert_eq!(ended(&mut vms), [(1, 1, 3)]);
    // An event tells it, of a run that is known.
    let mut vms = listed(at, &[(1, 1)], (3, 2));
    vms.arrived(numbered(1, 2).run);
    assert!(!vms.is_left_paused(run), "another run");
    vms.arrived(run);
    assert!(vms.is_left_paused(run));
    let target = vms.prepare(run.uuid, |_| true, at);
    assert!(target.is_some_and(|target| target.left_paused));
    vms.stopped(failed, after(at, 1));
    assert_eq!(ended(&mut vms), [(1, 1, 3)]);
}

#[test]
fn a_run_that_began_and_arrived_between_gathers_has_arrived() {
    let at = Instant::now();
    let failed = Stop {
        reason: 6,
        ..stop(1)
    };
    let run = numbered(1, 1).run;
    let begun = || {
        let mut vms = Vms::new(TTL);
        vms.started(numbered(1, 1), at);
        vms.arrived(run);
        vms
    };
    let mut vms = begun();
    vms.stopped(failed, at);
    assert_eq!(ended(&mut vms), [(1, 1, 3)], "no gather has seen it");
    let mut vms = begun();
    vms.begin();
    assert!(vms.is_left_paused(run), "without a list");
    // A list that was requested later.
    let mut vms = Vms::new(TTL);
    vms.begin();
    vms.started(numbered(1, 1), at);
    vms.arrived(run);
    vms.list_requested(after(at, 1));
    vms.on_list(vec![numbered(1, 1)]);
    assert!(vms.is_left_paused(run));
}

#[test]
fn a_vm_that_ran_and_is_paused_by_a_migration_is_leaving() {
    let at = Instant::now();
    let run = numbered(1, 1).run;
    let mut vms = listed(at, &[(1, 1)], (3, 2));
    vms.arrived(run);
    for (state, reason) in [(1, 1), (3, 2)] {
        let mut sample = full(at);
        sample.run = run;
        (sample.state, sample.reason) = (Some(state), Some(reason));
        vms.on_sample(true, &mut sample);
        assert!(!vms.is_left_paused(run));
    }
}

#[test]
fn a_panic_is_reported_once_for_a_vm_that_is_wanted() {
    let at = Instant::now();
    let mut vms = listed(at, &[(1, 1)], RUNNING);
    vms.panicked(Uuid::from_u128(1));
    vms.panicked(Uuid::from_u128(9));
    assert_eq!(vms.take_panicked(), [numbered(1, 1)]);
    assert_eq!(vms.take_panicked(), []);
}
