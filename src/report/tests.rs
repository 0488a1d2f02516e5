use std::path::PathBuf;

use super::*;
use crate::libvirt::Error;
use crate::sample::RunId;
use crate::sample::testing::run;

pub(super) fn reporter() -> Reporter {
    Reporter::new(Uri::default())
}

fn unreachable() -> Problem {
    Problem::Unreachable(Error {
        code: 38,
        domain: 7,
        message: "No such file or directory".to_owned(),
    })
}

/// A gather in which libvirt answered, and nothing was amiss but this.
pub(super) fn reached(problems: Vec<Problem>) -> GatherReport {
    GatherReport {
        reached: true,
        active: Some([run(1)].into_iter().collect()),
        problems,
        ..GatherReport::default()
    }
}

pub(super) fn found(name: &str) -> DomainRef {
    DomainRef {
        run: run(1),
        name: name.into(),
    }
}

/// What lasts for two gathers is counted twice, and forgotten in the gather in which it is over.
fn lasts_and_ends(key: &str, problem: &GatherReport) {
    // What lasts for a moment only is the matter of `Lasting`.
    let mut reporter = Reporter {
        locked: Lasting::without_delay(),
        ..reporter()
    };
    reporter.report(problem);
    reporter.report(problem);
    assert_eq!(reporter.problems.clear(key), Some(2), "{key}");
    reporter.report(problem);
    reporter.report(&reached(vec![]));
    assert_eq!(reporter.problems.clear(key), None, "{key} is over");
    // Nothing else was reported of it.
    assert_eq!(
        format!("{:?}", reporter.problems),
        format!("{:?}", Problems::default())
    );
}

#[test]
fn libvirt_away_is_counted_until_it_is_back() {
    let mut reporter = reporter();
    let away = GatherReport {
        problems: vec![unreachable()],
        ..GatherReport::default()
    };
    for _ in 0..3 {
        reporter.report(&away);
    }
    // Silence is the same problem.
    reporter.report(&GatherReport::default());
    assert_eq!(reporter.problems.clear("libvirt"), Some(4));
    reporter.report(&away);
    reporter.report(&reached(vec![]));
    assert_eq!(reporter.problems.clear("libvirt"), None, "over");
}

#[test]
fn while_libvirt_is_away_nothing_else_ends() {
    let mut reporter = reporter();
    let mut late = reached(vec![]);
    late.missing = vec![found("a")];
    reporter.report(&late);
    reporter.report(&GatherReport::default());
    assert_eq!(reporter.problems.clear("late"), Some(1), "not over");
}

#[test]
fn one_worker_without_a_connection_is_reported_once_not_in_every_gather() {
    lasts_and_ends("connections", &reached(vec![unreachable(), unreachable()]));
}

#[test]
fn a_daemon_that_accepts_few_clients_is_reported_once() {
    let mut few = reached(vec![]);
    few.limited_to = Some(2);
    lasts_and_ends("clients", &few);
}

#[test]
fn refused_calls_are_counted_by_gathers_until_none_is_refused() {
    let refused = || Problem::Refused(Error::invalid("access denied"));
    lasts_and_ends("refused", &reached(vec![refused(), refused()]));
}

#[test]
fn late_vms_are_counted_until_all_answer() {
    let mut late = reached(vec![]);
    late.missing = vec![found("a"), found("b")];
    lasts_and_ends("late", &late);
}

/// VMs that libvirtd was not asked for are among those without an answer.
#[test]
fn nobody_is_told_to_do_anything_to_vms_that_may_be_healthy() {
    let mut report = reached(vec![]);
    (report.missing, report.locked) = (vec![found("a")], vec![found("b")]);
    let said = late(&report).unwrap();
    assert!(
        said.contains("\"virsh list\"") && !said.contains("kill"),
        "{said}"
    );
    let said = locked(&report.locked).unwrap();
    assert!(
        said.contains("kill -CONT") && !said.contains("-KILL"),
        "{said}"
    );
}

#[test]
fn locked_vms_are_counted_until_none_is_locked() {
    let mut locked = reached(vec![]);
    locked.locked = vec![found("a")];
    lasts_and_ends("locked", &locked);
}

#[test]
fn a_daemon_without_workers_is_counted_until_it_has_some() {
    let mut saturated = reached(vec![]);
    for by in [None, Some(found("a"))] {
        saturated.saturated = Some(by);
        lasts_and_ends("saturated", &saturated);
    }
}

#[test]
fn calls_that_are_used_up_are_counted_until_there_is_room() {
    let mut used_up = reached(vec![]);
    used_up.calls_used_up = true;
    lasts_and_ends("calls used up", &used_up);
}

#[test]
fn each_dead_mount_is_a_problem_of_its_own() {
    let dead = |mounts: &[&str]| {
        let mounts = mounts.iter().map(|m| (PathBuf::from(m), vec![found("a")]));
        GatherReport {
            dead: mounts.collect(),
            ..reached(vec![])
        }
    };
    lasts_and_ends("/mnt/a", &dead(&["/mnt/a"]));
    let mut reporter = reporter();
    reporter.report(&dead(&["/mnt/a", "/mnt/b"]));
    reporter.report(&dead(&["/mnt/b"]));
    assert_eq!(reporter.problems.clear("/mnt/a"), None, "answers again");
    assert_eq!(reporter.problems.clear("/mnt/b"), Some(2));
}

#[test]
fn a_slow_mount_is_reported_of_the_vm_whose_disks_are_left_out_twice_running() {
    let slow = |ids: &[u32]| {
        let vm = |id: &u32| DomainRef {
            run: RunId {
                uuid: Uuid::from_u128((*id).into()),
                id: *id,
            },
            name: format!("vm{id}").into(),
        };
        GatherReport {
            slow_storage: ids.iter().map(vm).collect(),
            ..reached(vec![])
        }
    };
    let mut reporter = reporter();
    // Another one each time, or not twice in succession, is a busy host.
    for ids in [&[1][..], &[2], &[], &[2], &[1]] {
        reporter.report(&slow(ids));
    }
    let key = "slow storage";
    assert_eq!(reporter.problems.clear(key), None);
    for _ in 0..3 {
        reporter.report(&slow(&[1]));
    }
    assert_eq!(reporter.problems.clear(key), Some(3), "reported once");
    reporter.report(&slow(&[1]));
    reporter.report(&reached(vec![]));
    assert_eq!(reporter.problems.clear(key), None, "over");
}

#[test]
fn a_vms_problem_is_counted_until_its_figures_come_again() {
    let problem = || Problem::Domain(found("a"), "internal error".to_owned());
    lasts_and_ends(&run(1).uuid.to_string(), &reached(vec![problem()]));
}

#[test]
fn an_unreadable_description_is_reported_once_and_not_cleared() {
    let mut reporter = reporter();
    let problem = Problem::Description(found("a"), "its description is unreadable".to_owned());
    reporter.report(&reached(vec![problem]));
    reporter.report(&reached(vec![]));
    let key = description_key(run(1).uuid);
    assert_eq!(reporter.problems.clear(&key), Some(1));
}

#[test]
fn a_vms_problems_end_with_the_vm() {
    let mut reporter = reporter();
    reporter.report(&reached(vec![
        Problem::Domain(found("a"), "internal error".to_owned()),
        Problem::Description(found("a"), "its description is unreadable".to_owned()),
    ]));
    reporter.forget(run(1).uuid);
    assert!(reporter.domains.is_empty());
    for key in [run(1).uuid.to_string(), description_key(run(1).uuid)] {
        assert_eq!(reporter.problems.clear(&key), None, "{key}");
    }
}

#[test]
fn of_many_vms_the_first_ten_are_named() {
    let domains = |n: u32| {
        let named = |id: u32| DomainRef {
            run: RunId { id, ..run(1) },
            name: format!("vm{id:02}").into(),
        };
        (0..n).rev().map(named).collect::<Vec<DomainRef>>()
    };
    assert_eq!(names_of(&domains(2)), "vm00, vm01");
    let ten = "vm00, vm01, vm02, vm03, vm04, vm05, vm06, vm07, vm08, vm09";
    assert_eq!(names_of(&domains(10)), ten);
    assert_eq!(names_of(&domains(123)), format!("{ten} and 113 more"));
}

#[test]
fn a_single_gather_says_at_once_which_vms_lack_what_needs_calls_of_its_own() {
    let lacking = GatherReport {
        without_extra: vec![found("vm")],
        ..reached(vec![])
    };
    let mut several = reporter();
    several.report(&lacking);
    assert_eq!(
        several.problems.clear("extra"),
        None,
        "it may come in the next"
    );
    several.report(&lacking);
    assert_eq!(several.problems.clear("extra"), Some(1));
    let mut single = Reporter::of_one_gather(Uri::default());
    single.report(&lacking);
    assert_eq!(single.problems.clear("extra"), Some(1));
}
