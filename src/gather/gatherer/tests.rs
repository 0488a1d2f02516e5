use std::sync::mpsc::Receiver;
use std::time::Duration;

use super::*;
use crate::gather::examples::{Frozen, LIMIT, Node, inbox, settings};
use crate::inventory::Known;

const NAMES: [&str; 5] = ["a", "b", "c", "d", "e"];

fn gatherer(settings: &Settings) -> (Gatherer, Receiver<Reply>) {
    let (sink, replies) = inbox();
    (Gatherer::new(settings, sink), replies)
}

/// A whole gather.
fn gather(gatherer: &mut Gatherer, replies: &Receiver<Reply>) -> Gathered {
    gatherer.begin();
    while !gatherer.is_done() {
        gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
    gatherer.finish()
}

fn names(gathered: &Gathered) -> Vec<&str> {
    let mut names: Vec<_> = gathered.samples.iter().map(|s| s.name.as_str()).collect();
    names.sort_unstable();
    names
}

fn chunks_of(uri: &str, size: usize) -> Settings {
    Settings {
        chunk_size: size,
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
        assert_eq!((gathered.missing, gathered.hanging), (0, 0));
        assert_eq!(gathered.active.map(|active| active.len()), Some(5));
        assert!(gathered.troubles.is_empty(), "{:?}", gathered.troubles);
    }
    // What was read is kept.
    gatherer.inventory.begin();
    let run = gatherer.listed[0].run;
    let known = gatherer.inventory.look_up(run, Instant::now());
    assert!(matches!(known, Known::Fresh(_)), "{known:?}");
}

#[test]
fn a_domain_that_is_not_wanted_is_active_but_not_asked() {
    let node = Node::of(&NAMES, &[]);
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), "domain_exclude = [\"[b-d]\"]\n").unwrap();
    let flags = crate::cli::Flags {
        config: Some(file.path().to_owned()),
        uri: Some(node.uri()),
        ..Default::default()
    };
    let settings = crate::config::load(&flags, None).unwrap().settings;
    let (mut gatherer, replies) = gatherer(&settings);
    let gathered = gather(&mut gatherer, &replies);
    assert_eq!(names(&gathered), ["a", "e"]);
    assert_eq!(gathered.active.map(|active| active.len()), Some(5));
}

#[test]
fn who_did_not_answer_in_time_is_counted_and_the_late_answer_is_dropped() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    gatherer.begin();
    gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    // One worker: two were asked, three wait in the queue.
    let late = replies.recv_timeout(LIMIT).unwrap();
    assert!(!gatherer.is_done());
    let gathered = gatherer.finish();
    assert_eq!((gathered.missing, gathered.hanging), (5, 1));
    assert!(gathered.reached && gathered.samples.is_empty());

    gatherer.begin();
    gatherer.on_reply(late);
    assert!(gatherer.course.gathered.samples.is_empty());
    while !gatherer.is_done() {
        gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
    let gathered = gatherer.finish();
    assert_eq!(names(&gathered), NAMES, "each once");
    assert_eq!((gathered.missing, gathered.hanging), (0, 0));
}

#[test]
fn a_late_list_is_dropped_too() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&settings(&node.uri()));
    gatherer.begin();
    let late = replies.recv_timeout(LIMIT).unwrap();
    let gathered = gatherer.finish();
    assert!(!gathered.reached);
    assert_eq!(gathered.hanging, 1);
    gatherer.on_reply(late);
    assert!(gatherer.is_done(), "nothing was begun by it");
    assert!(gatherer.listed.is_empty());
    assert_eq!(names(&gather(&mut gatherer, &replies)), NAMES);
}

#[test]
fn while_a_list_hangs_none_is_sent_again_and_the_domains_last_known_serve() {
    let frozen = Frozen::start();
    let (mut gatherer, replies) = gatherer(&settings(&frozen.uri()));
    gatherer.begin();
    assert!(gatherer.course.list.is_some());
    assert!(replies.recv_timeout(Duration::from_millis(200)).is_err());
    let gathered = gatherer.finish();
    assert!(!gathered.reached);
    assert_eq!((gathered.missing, gathered.hanging), (0, 1));

    gatherer.listed = ["a", "b"]
        .map(|name| Found {
            run: Run {
                uuid: Node::uuid(name),
                id: 1,
            },
            name: name.to_owned(),
        })
        .into();
    gatherer.begin();
    assert!(gatherer.course.list.is_none(), "no second list");
    assert_eq!(gatherer.course.asked.len(), 1);
    assert!(replies.recv_timeout(Duration::from_millis(200)).is_err());
    let gathered = gatherer.finish();
    assert_eq!((gathered.missing, gathered.hanging), (2, 2));
    assert_eq!(gathered.active, None);

    // The daemon goes: whoever waits learns so, and the next gather lists again.
    drop(frozen);
    for _ in 0..2 {
        gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
    assert_eq!(gatherer.crew.hanging(), 0);
    gatherer.begin();
    assert!(gatherer.course.list.is_some());
}

#[test]
fn calls_that_hang_are_capped_over_all_gathers() {
    let frozen = Frozen::start();
    let (mut gatherer, replies) = gatherer(&chunks_of(&frozen.uri(), 1));
    gatherer.listed = ('a'..='z')
        .map(|name| Found {
            run: Run {
                uuid: Node::uuid(&name.to_string()),
                id: 1,
            },
            name: name.to_string(),
        })
        .collect();
    let mut hanging = Vec::new();
    for _ in 0..6 {
        gatherer.begin();
        let gathered = gatherer.finish();
        assert!(!gathered.reached && gathered.samples.is_empty());
        hanging.push(gathered.hanging);
    }
    assert_eq!(hanging, [1, 5, 8, 8, 8, 8]);
    assert!(replies.recv_timeout(Duration::from_millis(200)).is_err());
    // And so many connections stand, no more.
    assert_eq!(frozen.waiting(), 8);
}

#[test]
fn no_connection_is_one_trouble_and_no_vm_is_forgotten() {
    let dir = tempfile::tempdir().unwrap();
    let uri = format!("test+unix:///default?socket={}/none", dir.path().display());
    let (mut gatherer, replies) = gatherer(&settings(&uri));
    let gathered = gather(&mut gatherer, &replies);
    assert!(!gathered.reached);
    assert_eq!(gathered.active, None);
    let [Trouble::Unreachable(error)] = &gathered.troubles[..] else {
        panic!("{:?}", gathered.troubles);
    };
    assert!(error.remedy().starts_with("the daemon is not running"));
}

#[test]
fn who_waits_in_the_queue_when_the_connection_is_lost_is_counted_as_missing() {
    let node = Node::of(&NAMES, &[]);
    let (mut gatherer, replies) = gatherer(&chunks_of(&node.uri(), 2));
    gatherer.begin();
    gatherer.on_reply(replies.recv_timeout(LIMIT).unwrap());
    let reply = replies.recv_timeout(LIMIT).unwrap();
    gatherer.on_reply(Reply {
        ticket: reply.ticket,
        result: Err(Failure::Unreachable(Error::invalid("lost"))),
    });
    assert!(gatherer.is_done());
    let gathered = gatherer.finish();
    assert_eq!(gathered.missing, 5);
    assert!(gathered.reached, "the list came");
}
