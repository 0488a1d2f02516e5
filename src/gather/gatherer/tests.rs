mod driven;

use std::sync::mpsc::Receiver;

use super::*;
use crate::gather::gather_report::Problem;
use crate::gather::protocol::{CallId, Response};
use crate::gather::testing::{LIMIT, inbox, settings};
use crate::gather::worker::{Failure, Reply};
use crate::libvirt::testing::Node;
use crate::libvirt::{Error, Stop};
use crate::vms::Known;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn gatherer(settings: &Settings) -> (Gatherer, Receiver<Reply>) {
    let (sink, replies) = inbox();
    (Gatherer::new(settings, sink, None), replies)
}

/// A whole gather.
fn gather(gatherer: &mut Gatherer, replies: &Receiver<Reply>) -> GatherReport {
    gatherer.begin();
    take_all(gatherer, replies);
    gatherer.finish()
}

fn take_all(gatherer: &mut Gatherer, replies: &Receiver<Reply>) {
    while !gatherer.is_done() {
        gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
}

fn names(gathered: &GatherReport) -> Vec<&str> {
    let mut names: Vec<_> = gathered.samples.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn missing(gathered: &GatherReport) -> Vec<&str> {
    let mut names: Vec<_> = gathered.missing.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    names
}

/// The counts of VMs that vm_collector has: seen; complete, partial, withheld. Panics unless they add up.
fn counts(gathered: &GatherReport) -> (usize, [usize; 3]) {
    let partial = gathered.answered - gathered.complete;
    let parts = [gathered.complete, partial, gathered.withheld];
    assert_eq!(gathered.seen, parts.iter().sum::<usize>(), "{parts:?}");
    let named = in_part(gathered);
    assert_eq!(
        named.iter().map(Vec::len).sum::<usize>(),
        partial,
        "{named:?}"
    );
    (gathered.seen, parts)
}

/// The VMs whose figures came in part: what libvirt knows without QEMU, state and network only, all but the disks.
fn in_part(gathered: &GatherReport) -> [Vec<&str>; 3] {
    let lists = [
        &gathered.partial,
        &gathered.priority_only,
        &gathered.without_disks,
    ];
    lists.map(|list| {
        let mut names: Vec<_> = list.iter().map(|domain| domain.name.as_str()).collect();
        names.sort_unstable();
        names
    })
}

fn chunks_of(uri: &str, size: usize) -> Settings {
    Settings {
        chunk_size: Some(size),
        ..settings(uri)
    }
}

#[test]
fn a_gather_brings_every_domain_once() {
    let node = Node::of(&NAMES, &["off"]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    for _ in 0..3 {
        let gathered = gather(&mut gatherer, &replies);
        assert_eq!(names(&gathered), NAMES);
        assert!(gathered.reached);
        assert_eq!((missing(&gathered).len(), gathered.hanging), (0, 0));
        assert_eq!(counts(&gathered), (5, [5, 0, 0]));
        assert_eq!(gathered.active.map(|active| active.len()), Some(5));
        assert!(gathered.problems.is_empty(), "{:?}", gathered.problems);
    }
    // What was read is kept.
    gatherer.vms.begin();
    for name in NAMES {
        let prepared = gatherer
            .vms
            .prepare(Node::uuid(name), |_| true, Instant::now());
        let known = prepared.unwrap().known;
        assert!(matches!(known, Known::Fresh(_)), "{known:?}");
    }
}

#[test]
fn a_domain_that_is_not_wanted_is_active_but_not_asked() {
    let node = Node::of(&NAMES, &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "domain_exclude = [\"[b-d]\"]\n").unwrap();
    let (path, uri) = (file.path(), node.uri());
    let settings = crate::config::load(Some(path), Some(&uri), None)
        .unwrap()
        .settings;
    let (mut gatherer, replies) = gatherer(&settings);
    let gathered = gather(&mut gatherer, &replies);
    assert_eq!(names(&gathered), ["a", "e"]);
    assert_eq!(counts(&gathered), (2, [2, 0, 0]));
    assert_eq!(gathered.active.map(|active| active.len()), Some(5));
}

#[test]
fn a_vm_that_did_not_answer_in_time_is_missing_and_its_late_reply_is_dropped() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    gatherer.begin();
    gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    // One worker has two jobs: two and two are asked, one waits in the queue.
    let late = replies.recv_timeout(LIMIT).unwrap();
    assert!(matches!(&late.result, Ok(Response::Samples(two, _)) if two.len() == 2));
    assert!(!gatherer.is_done());
    let gathered = gatherer.finish();
    assert_eq!(missing(&gathered), NAMES);
    assert_eq!(counts(&gathered), (5, [0, 0, 5]));
    assert_eq!(gathered.hanging, 2);
    assert!(gathered.reached && gathered.samples.is_empty());

    gatherer.begin();
    gatherer.on_reply(late);
    assert_eq!(gatherer.losses(), (1, 0));
    assert_eq!(
        gatherer.samples.complete(false),
        0,
        "it is of the gather before"
    );
    take_all(&mut gatherer, &replies);
    let gathered = gatherer.finish();
    assert_eq!(names(&gathered), NAMES, "each once");
    assert_eq!((missing(&gathered).len(), gathered.hanging), (0, 0));
}

#[test]
fn a_late_list_is_dropped_too() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gatherer.begin();
    let late = replies.recv_timeout(LIMIT).unwrap();
    let gathered = gatherer.finish();
    assert!(!gathered.reached);
    assert_eq!(counts(&gathered), (0, [0; 3]));
    assert_eq!((gathered.active, gathered.hanging), (None, 1));
    gatherer.on_reply(late);
    assert!(gatherer.is_done(), "nothing was begun by it");
    assert_eq!(gatherer.vms.iter().count(), 0);
    assert_eq!(names(&gather(&mut gatherer, &replies)), NAMES);
}

#[test]
fn no_connection_is_one_problem_and_no_vm_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("test+unix:///default?socket={}/none", dir.path().display());
    let (mut gatherer, replies) = gatherer(&settings(&uri));
    let gathered = gather(&mut gatherer, &replies);
    assert!(!gathered.reached);
    assert_eq!(gathered.active, None);
    let [Problem::Unreachable(error)] = &gathered.problems[..] else {
        panic!("{:?}", gathered.problems);
    };
    let remedy = error.remedy(&uri);
    assert!(remedy.starts_with("the daemon is not running"), "{remedy}");
}

/// As if this had come of the call.
fn failed(call_id: CallId, failure: Failure) -> Reply {
    Reply {
        call_id,
        worker: 0,
        result: Err(failure),
        opened: false,
        reopened: false,
        version: None,
    }
}

/// The list of a gather, and the reply to its first chunk, which has not been taken yet.
fn first_chunk(gatherer: &mut Gatherer, replies: &Receiver<Reply>) -> Reply {
    gatherer.begin();
    gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    replies.recv_timeout(LIMIT).unwrap()
}

#[test]
fn a_vm_that_waits_in_the_queue_when_no_connection_can_be_opened_is_missing() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    let reply = first_chunk(&mut gatherer, &replies);
    let second = replies.recv_timeout(LIMIT).unwrap();
    for call_id in [reply.call_id, second.call_id] {
        assert!(!gatherer.is_done());
        let failure = Failure::Unreachable(Error::invalid("no"));
        gatherer.on_reply(failed(call_id, failure));
    }
    assert!(gatherer.is_done());
    let gathered = gatherer.finish();
    assert_eq!(missing(&gathered), NAMES);
    assert_eq!(counts(&gathered), (5, [0, 0, 5]));
    assert!(gathered.reached, "the list came");
    assert_eq!(gathered.problems.len(), 2);
}

#[test]
fn what_was_asked_on_a_connection_that_is_lost_is_asked_again_in_the_same_gather() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    let reply = first_chunk(&mut gatherer, &replies);
    gatherer.on_reply(failed(reply.call_id, Failure::Lost(Error::invalid("lost"))));
    take_all(&mut gatherer, &replies);
    let gathered = gatherer.finish();
    assert_eq!(names(&gathered), NAMES);
    assert_eq!((gathered.problems.len(), gatherer.losses()), (0, (0, 1)));
}

#[test]
fn a_refused_list_is_a_refusal_not_silence() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gatherer.begin();
    let reply = replies.recv_timeout(LIMIT).unwrap();
    gatherer.on_reply(failed(
        reply.call_id,
        Failure::Refused(Error::invalid("access denied")),
    ));
    assert!(gatherer.is_done());
    let gathered = gatherer.finish();
    assert!(gathered.reached, "libvirt did answer");
    assert_eq!(gathered.active, None);
    assert!(matches!(gathered.problems[..], [Problem::Refused(_)]));
}

#[test]
fn a_refused_call_withholds_its_vms() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    let reply = first_chunk(&mut gatherer, &replies);
    let failure = Failure::Refused(Error::invalid("no"));
    gatherer.on_reply(failed(reply.call_id, failure));
    take_all(&mut gatherer, &replies);
    assert_eq!(counts(&gatherer.finish()), (5, [3, 0, 2]));
}

#[test]
fn no_vm_is_seen_while_there_is_no_list() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gather(&mut gatherer, &replies);
    for failure in [
        Failure::Unreachable(Error::invalid("away")),
        Failure::Refused(Error::invalid("access denied")),
    ] {
        gatherer.begin();
        let list = replies.recv_timeout(LIMIT).unwrap();
        gatherer.on_reply(failed(list.call_id, failure));
        assert_eq!(counts(&gatherer.finish()), (0, [0; 3]));
    }
    gatherer.begin();
    let late = replies.recv_timeout(LIMIT).unwrap();
    assert_eq!(
        counts(&gatherer.finish()),
        (0, [0; 3]),
        "cut while it lists"
    );
    gatherer.on_reply(late);
}

/// An event of a stop: the domain was destroyed, and libvirt has dropped its id.
fn stopped(name: &str) -> EventUpdate {
    let uuid = Node::uuid(name);
    let (id, reason) = (None, 2);
    EventUpdate::Event(
        DomainEvent::Stopped(Stop { uuid, id, reason }),
        Instant::now(),
    )
}

fn ended(report: &GatherReport) -> Vec<&str> {
    let ended = report.ended.iter();
    ended.map(|ended| ended.domain.name.as_str()).collect()
}

#[test]
fn the_end_of_a_run_is_reported_once_and_never_beside_its_figures() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gatherer.begin();
    take_all(&mut gatherer, &replies);
    gatherer.on_event_update(stopped("a"));
    let gathered = gatherer.finish();
    assert_eq!((names(&gathered).len(), ended(&gathered)), (5, vec![]));
    // In a gather that gets no list, too.
    gatherer.on_event_update(stopped("b"));
    gatherer.begin();
    let mut gathered = gatherer.finish();
    gathered
        .ended
        .sort_by_key(|ended| ended.domain.name.clone());
    assert_eq!(
        (names(&gathered).len(), ended(&gathered)),
        (0, vec!["a", "b"])
    );
    gatherer.begin();
    assert_eq!(ended(&gatherer.finish()), [""; 0]);
}

#[test]
fn a_vm_that_a_later_list_still_has_was_not_the_one_that_stopped() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gather(&mut gatherer, &replies);
    gatherer.on_event_update(stopped("a"));
    let gathered = gather(&mut gatherer, &replies);
    assert_eq!((names(&gathered).len(), ended(&gathered)), (5, vec![]));
}
