//! Jobs that are over: of which run each was, and when it is reported.

use super::*;
use crate::libvirt::CompletedJob;
use crate::sample::JobStats;

fn job(number: u128, id: Option<u32>, operation: i32, elapsed: u64) -> CompletedJob {
    let stats = JobStats {
        operation,
        elapsed: Some(elapsed),
        ..JobStats::default()
    };
    CompletedJob {
        uuid: Uuid::from_u128(number),
        id,
        stats,
    }
}

/// The next jobs that are reported: VM, run, and how long each took. `runs` has a line of a backup already.
fn reported(vms: &mut Vms, runs: Option<RunId>) -> Vec<(u128, u32, u64)> {
    let finished = vms.take_finished_jobs(|run, operation| Some(run) == runs && operation == 9);
    let jobs = finished.iter().map(|job| {
        let run = job.domain.run;
        let elapsed = job.stats.elapsed.unwrap_or_default();
        (run.uuid.as_u128(), run.id, elapsed)
    });
    jobs.collect()
}

#[test]
fn a_job_is_that_of_the_run_that_is_known() {
    let at = Instant::now();
    let mut vms = Vms::new(TTL);
    list(&mut vms, [numbered(1, 2).run]);
    vms.job_completed(job(1, Some(2), 9, 5));
    vms.job_completed(job(1, Some(1), 9, 6));
    vms.job_completed(job(7, Some(7), 9, 7));
    assert_eq!(reported(&mut vms, None), [(1, 2, 5)], "7 is not wanted");
    assert_eq!(reported(&mut vms, None), []);
    vms.started(numbered(3, 3), at);
    vms.job_completed(job(3, Some(3), 9, 8));
    assert_eq!(reported(&mut vms, None), [(3, 3, 8)]);
}

/// libvirt reports the stop first, and has dropped the id by then.
#[test]
fn a_vm_that_was_migrated_away_has_the_job_of_its_last_run() {
    let at = Instant::now();
    let migration = |elapsed| job(1, None, 5, elapsed);
    let listed = || {
        let mut vms = Vms::new(TTL);
        list(&mut vms, [numbered(1, 1).run]);
        vms
    };
    let mut vms = listed();
    vms.stopped(stop(1), at);
    vms.job_completed(migration(1));
    assert_eq!(reported(&mut vms, None), [(1, 1, 1)]);
    // A gather ends between the two events.
    let mut vms = listed();
    vms.stopped(stop(1), at);
    assert_eq!(vms.take_ended(|_| false).len(), 1);
    vms.begin();
    vms.job_completed(migration(2));
    assert_eq!(reported(&mut vms, None), [(1, 1, 2)]);
    // A list overtakes both.
    let mut vms = listed();
    list(&mut vms, []);
    vms.job_completed(migration(3));
    assert_eq!(reported(&mut vms, None), [(1, 1, 3)]);
    // It came back, and left again.
    let mut vms = listed();
    vms.stopped(stop(1), at);
    vms.started(numbered(1, 2), at);
    vms.stopped(stop(1), at);
    vms.job_completed(migration(4));
    assert_eq!(reported(&mut vms, None), [(1, 2, 4)]);
    // The event of the stop comes last.
    let mut vms = listed();
    vms.stopped(stop(1), at);
    assert_eq!(vms.take_ended(|_| false).len(), 1);
    vms.started(numbered(1, 2), at);
    vms.job_completed(migration(5));
    assert_eq!(reported(&mut vms, None), [(1, 2, 5)]);
}

#[test]
fn jobs_of_one_kind_and_run_are_reported_one_a_gather() {
    let mut vms = Vms::new(TTL);
    list(&mut vms, [numbered(1, 1).run, numbered(2, 2).run]);
    for (number, id, operation, elapsed) in [(1, 1, 9, 1), (1, 1, 9, 2), (2, 2, 9, 3), (1, 1, 8, 4)]
    {
        vms.job_completed(job(number, Some(id), operation, elapsed));
    }
    // Another backup of VM 1 runs already.
    let runs = Some(numbered(1, 1).run);
    assert_eq!(reported(&mut vms, runs), [(2, 2, 3), (1, 1, 4)]);
    assert_eq!(reported(&mut vms, None), [(1, 1, 1)]);
    assert_eq!(reported(&mut vms, None), [(1, 1, 2)]);
    assert_eq!(reported(&mut vms, None), []);
}

#[test]
fn jobs_that_nobody_asks_for_do_not_fill_the_memory() {
    let mut vms = Vms::new(TTL);
    list(&mut vms, [numbered(1, 1).run]);
    for elapsed in 0..1_001 {
        vms.job_completed(job(1, Some(1), 9, elapsed));
    }
    assert_eq!(reported(&mut vms, None), [(1, 1, 1)], "the oldest is gone");
    assert_eq!(vms.finished_jobs.len(), 999);
}
