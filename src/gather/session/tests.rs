mod requests;

use std::cell::RefCell;

use virt::sys;

use super::*;
use crate::config::Measurements;
use crate::description::Description;
use crate::gather::groups::groups_needed;
use crate::gather::protocol::{Completeness, Measured, Scope};
use crate::gather::testing::{settings, target};
use crate::libvirt::testing::{Node, connect};
use crate::sample::testing::{device, devices, full};
use crate::sample::{DISK_COUNTERS, NIC_COUNTERS};
use crate::vms::{CachedDescription, DeviceNames, Known};

const ALL: Measurements = Measurements {
    metrics: true,
    features: true,
    devices: true,
    totals: true,
    ..Measurements::NONE
};

fn config(wanted: Measurements) -> WorkerConfig {
    let settings = settings("test:///default");
    WorkerConfig {
        uri: settings.uri.value.clone(),
        groups: groups_needed(&wanted),
        domain_info: true,
        guest_memory_max_age: settings.guest_memory_max_age,
        devices: settings.device_filter(),
        statistics: Arc::default(),
        extra_groups: Groups::NONE,
        jobs: false,
        tags: Vec::new(),
        vm_info: false,
        describes: groups_needed(&wanted).has(Groups::NET),
    }
}

fn listed(session: &mut Session) -> Vec<DomainRef> {
    match session.list().unwrap() {
        Response::Domains(found) => found,
        other => panic!("{other:?}"),
    }
}

fn asked_for(
    scope: Scope,
    session: &mut Session,
    config: &WorkerConfig,
    targets: &[Target],
) -> (Vec<Measured>, Vec<(DomainRef, String)>) {
    match session
        .statistics(config, targets, scope, targets.len())
        .unwrap()
    {
        Response::Samples(measured, problems) => (measured, problems),
        other => panic!("{other:?}"),
    }
}

fn asked(
    session: &mut Session,
    config: &WorkerConfig,
    targets: &[Target],
) -> (Vec<Measured>, Vec<(DomainRef, String)>) {
    asked_for(Scope::Full, session, config, targets)
}

/// The responses to a request that were sent one by one, and the last one.
fn performed(session: &mut Session, request: &WorkerRequest) -> (Vec<Response>, Response) {
    let told = RefCell::new(Vec::new());
    let tell = |answer| told.borrow_mut().push(answer);
    let last = session.perform(&config(ALL), request, &tell).unwrap();
    (told.into_inner(), last)
}

fn new(found: &DomainRef) -> Target {
    target(found, Known::New)
}

/// No domain that runs.
fn orphan(name: &str) -> DomainRef {
    DomainRef {
        run: RunId {
            uuid: Node::uuid(name),
            id: 9,
        },
        name: name.into(),
    }
}

/// What is known of a domain once it has been asked.
fn known(session: &mut Session, found: &DomainRef) -> Known {
    let (measured, _) = asked(session, &config(ALL), &[new(found)]);
    Known::Fresh(measured[0].described.clone().unwrap())
}

#[test]
fn what_the_bulk_reply_lacks_comes_by_single_calls() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    assert_eq!(found[0].name, "test");
    let (measured, problems) = asked(&mut session, &config(ALL), &[new(&found[0])]);
    assert!(problems.is_empty(), "{problems:?}");
    assert_eq!(measured[0].completeness, Completeness::Full);
    let sample = &measured[0].sample;
    assert_eq!(sample.state, Some(1));
    // Which reason depends on the version of libvirt.
    assert!(sample.reason.is_some());
    assert_eq!(sample.answers, None, "there is no QEMU");
    assert_eq!(sample.vcpus, Some(2));
    assert!(sample.cpu.time.is_some());
    // Of libvirt's built-in node.
    assert_eq!(sample.memory.maximum, Some(8_388_608));
    assert_eq!(sample.memory.current, Some(2_097_152));
    assert_eq!(sample.memory.actual, Some(2_097_152));
    assert_eq!(sample.memory.rss, Some(1_048_576));
    let nics = sample.nics.as_ref().unwrap();
    let disks = sample.disks.as_ref().unwrap();
    assert_eq!(nics.list[0].name.as_deref(), Some("testnet0"));
    assert!(nics.list[0].counters.iter().all(Option::is_some));
    assert_eq!(disks.list[0].name.as_deref(), Some("vda"));
    assert_eq!(disks.list[0].kind, "disk");
    // The test driver counts neither times nor flushes.
    let counted = disks.list[0].counters.map(|counter| counter.is_some());
    assert!(counted[..5].iter().all(|counted| *counted));
    assert!(!counted[5..].iter().any(|counted| *counted));
    let state_alone = Groups::STATE;
    let all = groups_needed(&ALL);
    assert_eq!(session.bulk.lacking, all.without(state_alone));
}

#[test]
fn the_description_is_read_once() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let Known::Fresh(described) = known(&mut session, &found[0]) else {
        panic!("it was not read");
    };
    let fresh = target(&found[0], Known::Fresh(Arc::clone(&described)));
    let (measured, _) = asked(&mut session, &config(ALL), &[fresh]);
    assert!(measured[0].described.is_none());
    assert_eq!(measured[0].sample.disks.as_ref().unwrap().list.len(), 1);
    let stale = target(&found[0], Known::Stale(described));
    let (measured, _) = asked(&mut session, &config(ALL), &[stale]);
    assert!(measured[0].described.is_some());
}

#[test]
fn a_sample_says_whether_qemu_answered_where_it_was_asked() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    // A bulk reply of QEMU's driver without the resident size, as the test driver's is.
    session.qemu = true;
    let devices = Measurements {
        metrics: false,
        features: false,
        totals: false,
        ..ALL
    };
    let state = Measurements {
        devices: false,
        ..devices
    };
    for (wanted, scope, answers) in [
        (ALL, Scope::Full, Some(false)),
        (ALL, Scope::NoBlock, Some(false)),
        (ALL, Scope::NoMonitor, None),
        // Of the block group nothing came that would show that QEMU was passed by.
        (devices, Scope::Full, Some(true)),
        (devices, Scope::NoBlock, None),
        (state, Scope::Full, None),
    ] {
        let targets = [new(&found[0])];
        let (measured, _) = asked_for(scope, &mut session, &config(wanted), &targets);
        assert_eq!(measured[0].sample.answers, answers, "{wanted:?}, {scope:?}");
    }
    session.qemu = false;
    let (measured, _) = asked(&mut session, &config(ALL), &[new(&found[0])]);
    assert_eq!(measured[0].sample.answers, None);
}

/// Its job is taken, and from libvirt 11.0 on reading XML waits for the job.
#[test]
fn of_a_vm_that_came_in_part_no_xml_is_read() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let Known::Fresh(described) = known(&mut session, &found[0]) else {
        panic!("it was not read");
    };
    // A bulk reply of QEMU's driver without the resident size, as the test driver's is.
    session.qemu = true;
    for known in [Known::New, Known::Stale(described)] {
        let had = known.description().is_some();
        let (measured, _) = asked(&mut session, &config(ALL), &[target(&found[0], known)]);
        assert_eq!(measured[0].completeness, Completeness::Partial);
        assert!(measured[0].described.is_none());
        // What was known of its disks still serves.
        assert_eq!(measured[0].sample.disks.is_some(), had);
    }
}

#[test]
fn a_description_from_before_the_statistics_takes_their_names_and_is_not_read_again() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let (told, last) = performed(&mut session, &Request::Describe(found.clone()));
    assert!(matches!(last, Response::Done), "{last:?}");
    let [Response::Described(run, before, None)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(*run, found[0].run);
    assert_eq!(before.names, None);
    let target = target(&found[0], Known::Fresh(Arc::clone(before)));
    let (measured, _) = asked(&mut session, &config(ALL), &[target]);
    let after = measured[0].described.as_ref().unwrap();
    assert!(after.names.is_some());
    assert_eq!(after.read_at, before.read_at, "the XML was not read again");
}

#[test]
fn a_vm_started_anew_between_list_and_statistics_is_described_anew() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let known = known(&mut session, &found[0]);
    let mut before = found[0].clone();
    before.run.id += 1;
    let target = target(&before, known);
    let (measured, _) = asked(&mut session, &config(ALL), &[target]);
    assert_eq!(measured[0].sample.run, found[0].run, "the run that is");
    assert!(measured[0].described.is_some(), "its XML was read");
    assert_eq!(measured[0].sample.disks.as_ref().unwrap().list.len(), 1);
}

#[test]
fn nics_that_were_read_already_are_not_asked_for() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let known = known(&mut session, &found[0]);
    let theirs = |session: &mut Session, target| {
        let (measured, _) = asked(session, &config(ALL), &[target]);
        measured[0].sample.nics.clone().unwrap()
    };
    let unread = target(&found[0], known);
    let libvirts = theirs(&mut session, unread.clone());
    let mut read = libvirts.clone();
    read.list[0].counters = [Some(7); NIC_COUNTERS];
    assert_ne!(read.list[0].counters, libvirts.list[0].counters);
    let target = Target {
        nics: Some(read.clone()),
        ..unread.clone()
    };
    assert_eq!(theirs(&mut session, target), read, "with their kinds");

    // Of a run that is over: those are another's.
    let mut over = unread;
    over.domain.run.id += 1;
    over.nics = Some(read);
    let found = theirs(&mut session, over.clone());
    assert_eq!(found.list.len(), 1);
    assert_ne!(Some(found), over.nics);
}

#[test]
fn a_measurement_without_devices_needs_no_description() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let only = Measurements {
        features: false,
        devices: false,
        totals: false,
        ..ALL
    };
    let (measured, _) = asked(&mut session, &config(only), &[new(&found[0])]);
    assert!(measured[0].described.is_none());
    let sample = &measured[0].sample;
    assert!(sample.nics.is_none() && sample.disks.is_none());
    assert!(sample.cpu.time.is_some());
}

#[test]
fn a_domain_that_is_gone_or_off_is_no_problem_and_costs_no_other() {
    let node = Node::of(&["a", "b"], &["off"]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session);
    assert_eq!(found.len(), 2, "only the active ones");
    let mixed = [
        orphan("gone"),
        found[0].clone(),
        orphan("off"),
        found[1].clone(),
    ];
    let targets = mixed.each_ref().map(new);
    let (measured, problems) = asked(&mut session, &config(ALL), &targets);
    let mut names: Vec<_> = measured.iter().map(|m| m.sample.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
    assert!(problems.is_empty(), "{problems:?}");
    assert!(measured.iter().all(|m| m.problem.is_none()));

    let gone = orphan("gone");
    let (_, last) = performed(&mut session, &Request::Canary(gone.clone()));
    assert!(matches!(last, Response::Done), "{last:?}");
    let (told, _) = performed(
        &mut session,
        &Request::Describe(vec![gone, found[0].clone()]),
    );
    let [Response::Described(run, _, None)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(*run, found[0].run);
    let (told, _) = performed(&mut session, &Request::Priority(targets.to_vec()));
    assert_eq!(told.len(), 2);
}

#[test]
fn what_came_without_the_monitor_came_in_part() {
    let now = Instant::now();
    let mut session = Session::new(connect("test:///default"));
    let all = groups_needed(&ALL);
    let mut without_memory = full(now);
    without_memory.memory.rss = None;
    let mut without_disks = full(now);
    without_disks.disks = Some(devices(
        now,
        vec![device("vda", "disk", [None; DISK_COUNTERS])],
    ));
    let mut diskless = full(now);
    diskless.disks = Some(devices(now, vec![]));
    let mut incoming = without_memory.clone();
    (incoming.state, incoming.reason) = (Some(3), Some(11));
    let mut paused = without_memory.clone();
    (paused.state, paused.reason) = (Some(3), Some(1));
    // Running and paused, of a post-copy migration, and the same after it failed.
    let postcopy = [(1, 10), (1, 11), (3, 12), (3, 13)].map(|(state, reason)| {
        let mut sample = without_memory.clone();
        (sample.state, sample.reason) = (Some(state), Some(reason));
        sample
    });
    for (sample, groups, completeness) in [
        (&full(now), all, Completeness::Full),
        (&diskless, all, Completeness::Full),
        (&without_memory, all, Completeness::Partial),
        (
            &without_memory,
            all.without(Groups::BALLOON),
            Completeness::Full,
        ),
        (&without_disks, all, Completeness::Partial),
        (
            &without_disks,
            all.without(Groups::BLOCK),
            Completeness::Full,
        ),
        (&incoming, all, Completeness::Full),
        (&paused, all, Completeness::Partial),
        (&postcopy[0], all, Completeness::Full),
        (&postcopy[1], all, Completeness::Full),
        (&postcopy[2], all, Completeness::Full),
        (&postcopy[3], all, Completeness::Full),
    ] {
        session.qemu = true;
        assert_eq!(
            session.completeness(sample, groups, None, is_incoming(sample, false)),
            completeness,
            "{sample:?} {groups:?}"
        );
        session.qemu = false;
        assert_eq!(
            session.completeness(sample, groups, None, false),
            Completeness::Full
        );
    }
}

#[test]
fn a_vm_that_was_restored_and_left_paused_is_not_being_migrated_in() {
    let now = Instant::now();
    let mut session = Session::new(connect("test:///default"));
    session.qemu = true;
    let all = groups_needed(&ALL);
    let mut paused = full(now);
    (paused.state, paused.reason) = (Some(3), Some(2));
    let mut silent = paused.clone();
    silent.memory.rss = None;
    silent.disks = None;
    // What came; whether the domain is known to have been left paused; whether it came in full, and answers.
    for (sample, left_paused, full, answers) in [
        (&paused, false, true, Some(true)),
        (&paused, true, true, Some(true)),
        (&silent, true, false, Some(false)),
        // It is being migrated in.
        (&silent, false, true, None),
    ] {
        let incoming = is_incoming(sample, left_paused);
        let completeness = session.completeness(sample, all, None, incoming);
        assert_eq!(completeness == Completeness::Full, full, "{sample:?}");
        let found = session.answers(all, Scope::Full, completeness, incoming);
        assert_eq!(found, answers, "{left_paused} {sample:?}");
    }
}

#[test]
fn other_devices_than_known_are_told_where_the_xml_is_not_read() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session).remove(0);
    let now = Instant::now();
    let nics = |name| {
        Some(devices(
            now,
            vec![device(name, "", [Some(1); NIC_COUNTERS])],
        ))
    };
    let mut sample = Sample::new(found.run, found.name.clone(), now);
    sample.nics = nics("testnet0");
    let names = DeviceNames::of(&sample);
    let known = Known::Fresh(Arc::new(CachedDescription::new(None, Some(names), now)));
    for (name, outdated) in [("testnet0", false), ("vnet9", true)] {
        let mut target = target(&found, known.clone());
        target.nics = nics(name);
        let (measured, _) = asked_for(Scope::NoMonitor, &mut session, &config(ALL), &[target]);
        assert!(measured[0].described.is_none());
        assert_eq!(measured[0].outdated, outdated, "{name}");
    }
}

#[test]
fn handles_of_domains_that_are_gone_do_not_pile_up() {
    let names: Vec<String> = (0..80).map(|i| format!("vm{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = Node::of(&names, &[]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session);
    assert_eq!(session.handles.len(), 80);
    // As if but two of them were still active.
    asked(
        &mut session,
        &config(ALL),
        &[new(&found[0]), new(&found[1])],
    );
    assert_eq!(session.handles.len(), 2);
}

#[test]
fn a_disk_that_cannot_have_counters_does_not_make_a_reply_one_in_part() {
    let now = Instant::now();
    let mut session = Session::new(connect("test:///default"));
    session.qemu = true;
    let disk =
        |of_type: &str, target| format!("<disk type='{of_type}'><target dev='{target}'/></disk>");
    let xml = [disk("vhostuser", "vda"), disk("file", "vdb")].concat();
    let xml = format!("<domain><devices>{xml}</devices></domain>");
    let description = Description::parse(&xml).unwrap();
    let all = groups_needed(&ALL);
    for (disks, completeness) in [
        (&["vda"][..], Completeness::Full),
        (&["vda", "vdb"], Completeness::Partial),
        (&["vdb"], Completeness::Partial),
    ] {
        let mut sample = full(now);
        let silent = disks
            .iter()
            .map(|name| device(name, "", [None; DISK_COUNTERS]));
        sample.disks = Some(devices(now, silent.collect()));
        assert_eq!(
            session.completeness(&sample, all, Some(&description), false),
            completeness,
            "{disks:?}"
        );
    }
}

/// Whatever the call asks for.
#[test]
fn a_domain_whose_call_fails_does_not_cost_the_others_theirs() {
    let error = |code| Error {
        code,
        domain: 0,
        message: "broken".into(),
    };
    let of = |name: &&str| orphan(name);
    let mut session = Session::new(connect("test:///default"));
    let mut served = Vec::new();
    let mut problems = Vec::new();
    let names = ["a", "broken", "gone", "b"];
    let mut call = |session: &mut Session, names: &[&'static str]| {
        if session.bulk.nowait {
            return Err(error(sys::VIR_ERR_INVALID_ARG));
        }
        if names.contains(&"broken") {
            return Err(error(sys::VIR_ERR_OPERATION_FAILED));
        }
        if names.contains(&"gone") {
            return Err(error(sys::VIR_ERR_NO_DOMAIN));
        }
        served.extend_from_slice(names);
        Ok(())
    };
    let without = session
        .in_bulk(&names, of, &mut problems, &mut call)
        .unwrap();
    assert_eq!(without, [""; 0]);
    let broken = (orphan("broken"), "broken".to_owned());
    assert_eq!(
        (&served[..], &problems[..]),
        (&["a", "b"][..], &[broken][..])
    );
    assert!(session.bulk.works && !session.bulk.nowait);

    let mut unsupported = |_: &mut Session, _: &[&'static str]| Err(error(sys::VIR_ERR_NO_SUPPORT));
    let without = session.in_bulk(&names, of, &mut problems, &mut unsupported);
    assert_eq!(without.unwrap(), names);
    assert!(!session.bulk.works && problems.len() == 1);
}

/// A target of which the memory is known from an earlier gather.
fn with_kept_memory(domain: DomainRef, known: Known) -> Target {
    let kept = full(Instant::now()).memory;
    Target {
        memory: Some(kept),
        ..target(&domain, known)
    }
}

/// libvirt passes such a VM by, as one that is being migrated in, and gives of it what needs no monitor.
#[test]
fn a_guest_whose_qemu_was_passed_by_has_no_figures_though_some_are_known() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let known = known(&mut session, &found[0]);
    // The test driver's bulk reply has no figures of a monitor.
    session.qemu = true;
    let target = with_kept_memory(found[0].clone(), known);
    let kept = target.memory.unwrap();
    let (measured, _) = asked(&mut session, &config(ALL), &[target]);
    let memory = &measured[0].sample.memory;
    assert_eq!((memory.maximum, memory.actual), (kept.maximum, kept.actual));
    assert_eq!((memory.rss, memory.usable), (None, None));
    assert_eq!((memory.last_update, memory.report_age), (None, None));
    assert_eq!(measured[0].completeness, Completeness::Partial);
}

#[test]
fn what_is_known_of_the_memory_of_another_run_is_not_used() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let mut before = found[0].clone();
    before.run.id += 8;
    let (measured, problems) = asked(
        &mut session,
        &config(ALL),
        &[with_kept_memory(before, Known::New)],
    );
    assert!(problems.is_empty(), "{problems:?}");
    let sample = &measured[0].sample;
    assert_eq!(sample.run, found[0].run);
    assert_eq!(sample.memory.maximum, Some(8_388_608));
    assert_eq!(sample.memory.current, Some(2_097_152));
}
