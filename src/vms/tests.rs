//! The records through the gathers: which there are, and what they know.

mod descriptions;
mod endings;
mod io_errors;
mod jobs;
mod memory;
mod readings;

use super::*;
use crate::libvirt::Stop;
use crate::sample::testing::run;

const TTL: Duration = Duration::from_secs(300);

fn after(at: Instant, seconds: u64) -> Instant {
    at + Duration::from_secs(seconds)
}

fn domain(run: RunId) -> DomainRef {
    DomainRef {
        run,
        name: "test".into(),
    }
}

/// A list with these runs comes.
fn list(vms: &mut Vms, runs: impl IntoIterator<Item = RunId>) {
    vms.on_list(runs.into_iter().map(domain).collect());
}

/// The VM and run of these numbers.
fn numbered(number: u128, id: u32) -> DomainRef {
    DomainRef {
        run: RunId {
            uuid: Uuid::from_u128(number),
            id,
        },
        name: format!("vm{number}").into(),
    }
}

/// A stop of the VM of this number; libvirt has dropped the id.
fn stop(number: u128) -> Stop {
    Stop {
        uuid: Uuid::from_u128(number),
        id: None,
        reason: 2,
    }
}

fn runs(vms: &Vms) -> Vec<(u128, u32)> {
    let mut runs: Vec<_> = vms
        .iter()
        .map(|vm| (vm.domain.run.uuid.as_u128(), vm.domain.run.id))
        .collect();
    runs.sort_unstable();
    runs
}

#[test]
fn without_a_list_events_carry_on_from_the_last_one() {
    let at = Instant::now();
    let mut vms = Vms::new(TTL);
    vms.begin();
    vms.list_requested(at);
    vms.on_list(vec![numbered(1, 1), numbered(2, 2)]);
    vms.started(numbered(3, 3), at);
    vms.stopped(stop(1), at);
    // Restarted: another run.
    vms.stopped(stop(2), at);
    vms.started(numbered(2, 4), at);
    // Started and stopped again.
    vms.started(numbered(5, 5), at);
    vms.stopped(stop(5), at);
    assert_eq!(
        runs(&vms),
        [(1, 1), (2, 2)],
        "not in the middle of a gather"
    );
    for _ in 0..2 {
        vms.begin();
        assert_eq!(runs(&vms), [(2, 4), (3, 3)]);
    }
}

#[test]
fn a_list_undoes_what_came_before_it_was_requested_and_nothing_after() {
    let at = Instant::now();
    let later = at + Duration::from_millis(1);
    let mut vms = Vms::new(TTL);
    vms.begin();
    vms.stopped(stop(1), at);
    vms.started(numbered(2, 2), at);
    vms.list_requested(later);
    // The list was made before 3 stopped and after 4 was started.
    vms.stopped(stop(3), later);
    vms.started(numbered(4, 4), later);
    vms.on_list(vec![numbered(1, 9), numbered(3, 3), numbered(4, 4)]);
    assert_eq!(runs(&vms), [(1, 9), (3, 3), (4, 4)]);
    vms.begin();
    assert_eq!(runs(&vms), [(1, 9), (4, 4)]);
}

#[test]
fn a_run_that_begins_after_the_list_shows_in_its_sample() {
    let mut vms = Vms::new(TTL);
    vms.on_list(vec![numbered(1, 1)]);
    vms.on_run(numbered(1, 2));
    vms.on_run(numbered(7, 1));
    assert_eq!(runs(&vms), [(1, 2)], "and what was not listed is not added");
}
