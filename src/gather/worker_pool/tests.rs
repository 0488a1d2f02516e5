use std::sync::mpsc::Receiver;
use std::thread::sleep;
use std::time::Duration;

use super::*;
use crate::config::Measurements;
use crate::gather::groups::groups_needed;
use crate::gather::protocol::{Request, Response, Scope};
use crate::gather::testing::{Frozen, LIMIT, inbox, settings};
use crate::libvirt::bulk::Groups;
use crate::times::NOT_LET_IN;

fn pool(uri: &str, size: usize) -> (WorkerPool, Receiver<Reply>) {
    pool_with(uri, size, 1)
}

fn pool_with(uri: &str, size: usize, requests_each: usize) -> (WorkerPool, Receiver<Reply>) {
    let settings = settings(uri);
    let config = WorkerConfig {
        uri: uri.to_owned(),
        groups: groups_needed(&Measurements {
            features: false,
            devices: false,
            totals: false,
            ..settings.measurements
        }),
        domain_info: true,
        guest_memory_max_age: settings.guest_memory_max_age,
        devices: settings.device_filter(),
        statistics: Arc::default(),
        extra_groups: Groups::NONE,
        jobs: false,
        tags: Vec::new(),
        vm_info: false,
        describes: false,
    };
    let (sink, replies) = inbox();
    (WorkerPool::new(config, size, requests_each, sink), replies)
}

fn no_domains() -> WorkerRequest {
    Request::Statistics {
        of: Vec::new(),
        scope: Scope::Full,
        active: 0,
    }
}

impl WorkerPool {
    /// The calls that have not come back, in no order.
    pub(in crate::gather) fn busy(&self) -> Vec<CallId> {
        self.busy.keys().copied().collect()
    }

    /// As if all workers had their connections, and had begun their requests.
    pub(in crate::gather) fn connect(&mut self) {
        for busy in self.busy.values() {
            busy.slot.take();
        }
    }
}

fn counts(pool: &WorkerPool) -> (usize, usize) {
    (pool.busy.len(), pool.idle.len())
}

#[test]
fn a_worker_is_started_when_it_is_needed_and_kept() {
    let (mut pool, replies) = pool("test:///default", 4);
    assert_eq!(counts(&pool), (0, 0));
    for call_id in 0..3 {
        assert_eq!(pool.assign(call_id, Request::List), Assigned::Begun);
        assert_eq!(counts(&pool), (1, 0));
        let reply = replies.recv_timeout(LIMIT).unwrap();
        assert_eq!(reply.call_id, call_id);
        pool.returned(call_id);
        assert_eq!(counts(&pool), (0, 1));
    }
}

#[test]
fn no_request_goes_to_a_worker_whose_call_hangs() {
    let frozen = Frozen::start();
    let (mut pool, replies) = pool(&frozen.uri(), 1);
    assert_eq!(pool.assign(1, no_domains()), Assigned::Begun);
    assert_eq!(pool.assign(2, no_domains()), Assigned::Begun);
    assert_eq!(counts(&pool), (2, 0), "a fresh worker for the second");
    let until = Instant::now() + LIMIT;
    let mut history = 0;
    while history < 2 && Instant::now() < until {
        assert!(replies.recv_timeout(Duration::from_millis(20)).is_err());
        history += frozen.waiting();
    }
    assert_eq!(history, 2, "each on a connection of its own");
}

#[test]
fn one_worker_has_the_second_request_at_hand() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = pool_with(&frozen.uri(), 1, 2);
    assert_eq!(pool.assign(1, no_domains()), Assigned::Begun);
    assert_eq!(counts(&pool), (1, 1));
    assert_eq!(pool.assign(2, no_domains()), Assigned::Begun);
    assert_eq!(counts(&pool), (2, 0));
    sleep(Duration::from_millis(300));
    assert_eq!(frozen.waiting(), 1, "one connection");
    pool.returned(1);
    pool.returned(2);
    assert_eq!(counts(&pool), (0, 2));
}

#[test]
fn requests_come_back_in_their_order() {
    let (mut pool, replies) = pool_with("test:///default", 1, 2);
    for call_id in [1, 2] {
        assert_eq!(pool.assign(call_id, Request::List), Assigned::Begun);
    }
    let call_ids = [1, 2].map(|_| replies.recv_timeout(LIMIT).unwrap().call_id);
    assert_eq!(call_ids, [1, 2]);
}

#[test]
fn a_worker_ends_where_enough_are_free() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = pool(&frozen.uri(), 2);
    for call_id in 1..=4 {
        assert_eq!(pool.assign(call_id, no_domains()), Assigned::Begun);
    }
    let mut after = Vec::new();
    for call_id in 1..=4 {
        pool.returned(call_id);
        after.push(counts(&pool));
    }
    assert_eq!(after, [(3, 1), (2, 2), (1, 2), (0, 2)]);
}

#[test]
fn a_worker_whose_thread_is_gone_is_passed_by() {
    let (mut pool, replies) = pool("test:///default", 2);
    let (gone, _) = channel();
    pool.idle.push(Worker {
        number: 99,
        requests: gone,
    });
    assert_eq!(pool.assign(7, Request::List), Assigned::Begun);
    assert_eq!(counts(&pool), (1, 0));
    assert_eq!(replies.recv_timeout(LIMIT).unwrap().call_id, 7);
}

#[test]
fn an_unknown_call_changes_nothing() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = pool(&frozen.uri(), 1);
    assert_eq!(pool.assign(1, no_domains()), Assigned::Begun);
    pool.returned(99);
    assert_eq!(counts(&pool), (1, 0));
}

/// A pool with one worker that is connected, and one that waits for a daemon.
fn half_let_in(frozen: &Frozen) -> (WorkerPool, Receiver<Reply>) {
    let (mut pool, replies) = pool("test:///default", 4);
    assert_eq!(pool.assign(1, Request::List), Assigned::Begun);
    assert_eq!(replies.recv_timeout(LIMIT).unwrap().call_id, 1);
    // The next worker is to open another connection.
    let mut config = WorkerConfig::clone(&pool.config);
    config.uri = frozen.uri();
    pool.config = Arc::new(config);
    let connected = pool.busy.remove(&1).unwrap().worker;
    assert_eq!(pool.assign(2, Request::List), Assigned::Begun);
    let slot = Slot::new(Request::List);
    slot.take();
    pool.busy.insert(
        1,
        Busy {
            worker: connected,
            slot,
            since: Instant::now(),
        },
    );
    (pool, replies)
}

#[test]
fn a_request_that_waits_for_a_connection_goes_to_a_worker_that_has_one() {
    let frozen = Frozen::start();
    let (mut pool, replies) = half_let_in(&frozen);
    let now = Instant::now();
    assert!(pool.recall_at(LIMIT).is_some_and(|at| at > now));
    assert_eq!(pool.recall(now, LIMIT), [], "not yet");
    let recalled = pool.recall(now + LIMIT, LIMIT);
    assert_eq!(recalled, [(2, false)], "the other is busy");
    assert_eq!(pool.connections(), (1, 1));
    assert_eq!(pool.assign(3, Request::Describe(vec![])), Assigned::Waits);
    assert_eq!(pool.assign(4, Request::Probe(vec![])), Assigned::Waits);
    // What libvirtd's priority workers serve goes first.
    let begun = [1, 4, 2].map(|call_id| pool.returned(call_id));
    assert_eq!(begun, [Some(4), Some(2), Some(3)]);
    let mut last = None;
    while last != Some(3) {
        let reply = replies.recv_timeout(LIMIT).unwrap();
        assert!(reply.result.is_ok(), "{reply:?}");
        last = Some(reply.call_id);
    }
    assert_eq!(pool.returned(3), None);
    // The daemon goes: the worker that waited learns so, and no call ends by it.
    drop(frozen);
    let reply = replies.recv_timeout(LIMIT).unwrap();
    assert!(
        matches!(reply.result, Ok(Response::NotConnected)),
        "{reply:?}"
    );
    assert_eq!(pool.let_in(reply.worker, false), None);
    assert_eq!(pool.connections(), (1, 0));
}

#[test]
fn a_worker_that_is_let_in_takes_what_waits() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = half_let_in(&frozen);
    let recalled = pool.recall(Instant::now() + LIMIT, LIMIT);
    assert_eq!(recalled, [(2, false)]);
    assert_eq!(pool.let_in(1, true), Some(2));
    assert_eq!(
        pool.assign(5, Request::List),
        Assigned::Begun,
        "by a new one"
    );
}

#[test]
fn where_no_worker_has_a_connection_nothing_is_taken_back() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = pool(&frozen.uri(), 4);
    assert_eq!(pool.assign(1, Request::List), Assigned::Begun);
    assert_eq!(pool.recall_at(Duration::ZERO), None);
    assert_eq!(pool.recall(Instant::now(), Duration::ZERO), []);
    assert_eq!(pool.forget_waiting(), [0; 0]);
    assert_eq!(pool.connections(), (0, 0));
}

#[test]
fn a_request_that_is_taken_back_is_begun_by_a_worker_that_is_free() {
    let frozen = Frozen::start();
    let (mut pool, replies) = half_let_in(&frozen);
    assert_eq!(pool.returned(1), None);
    assert_eq!(
        pool.recall(Instant::now() + LIMIT, LIMIT),
        [(2, true)],
        "so its time begins anew"
    );
    assert_eq!(replies.recv_timeout(LIMIT).unwrap().call_id, 2);
    assert_eq!(pool.returned(2), None);
    assert_eq!(pool.connections(), (1, 1));
}

#[test]
fn each_worker_that_is_not_let_in_is_kept_though_the_same_request_was_taken_from_both() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = half_let_in(&frozen);
    assert_eq!(pool.recall(Instant::now() + LIMIT, LIMIT), [(2, false)]);
    // The one that is in goes, and its successor waits as well.
    let requests = channel().0;
    let (second, inbox) = channel();
    pool.busy.get_mut(&1).unwrap().worker = Worker {
        number: 0,
        requests,
    };
    pool.idle.push(Worker {
        number: 7,
        requests: second,
    });
    let (call_id, request) = pool.waiting.pop_front().unwrap();
    assert_eq!(pool.assign(call_id, request), Assigned::Begun);
    assert_eq!(pool.recall(Instant::now() + LIMIT, LIMIT), [(2, false)]);
    assert_eq!(pool.connections(), (1, 2));
    drop(inbox);
}

#[test]
fn a_request_whose_worker_is_not_let_in_is_not_begun_after_its_gather() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = half_let_in(&frozen);
    assert_eq!(pool.forget_waiting(), [2]);
    assert_eq!(pool.busy(), [1]);
    assert_eq!(pool.connections(), (1, 1));
}

#[test]
fn a_request_that_waits_can_be_withdrawn() {
    let frozen = Frozen::start();
    let (mut pool, _replies) = half_let_in(&frozen);
    assert_eq!(pool.recall(Instant::now() + LIMIT, LIMIT), [(2, false)]);
    pool.withdraw(2);
    assert_eq!(pool.returned(1), None);
}

/// Otherwise `virsh` would wait for as long as this program runs.
#[test]
fn where_few_are_let_in_one_connection_is_left_to_others() {
    let frozen = Frozen::start();
    let (mut pool, replies) = half_let_in(&frozen);
    let now = Instant::now();
    assert_eq!(pool.recall(now + LIMIT, LIMIT), [(2, false)]);
    pool.begin(now);
    assert_eq!(pool.limited_to(now), None, "it may be slow only");
    for number in [11, 12] {
        let requests = channel().0;
        pool.idle.push(Worker { number, requests });
    }
    let later = now + NOT_LET_IN + LIMIT;
    pool.begin(later);
    assert_eq!(pool.limited_to(later), None, "it may be frozen");
    pool.answered(later);
    pool.begin(later + NOT_LET_IN / 2);
    assert_eq!(
        pool.limited_to(later + NOT_LET_IN / 2),
        None,
        "it answers only just now"
    );
    let later = later + NOT_LET_IN;
    pool.answered(later);
    pool.begin(later);
    assert_eq!(pool.limited_to(later), Some(2), "three are in");
    assert_eq!(counts(&pool), (1, 1));
    assert_eq!(pool.connections(), (2, 0));
    // The worker that waits ends as soon as it is let in, or cannot be.
    drop(frozen);
    assert_eq!(replies.recv_timeout(LIMIT).unwrap().worker, 1);
    pool.ended.1.recv_timeout(LIMIT).unwrap();
    // At the beginning of a gather this is asked for first.
    let later = later + CONNECTIONS_SCARCE;
    assert_eq!(pool.limited_to(later), None, "more are tried again");
    pool.begin(later);
    assert_eq!(pool.limited_to(later), None);
}

/// With one connection alone, the probe that is to find out why a call hangs waits as well.
#[test]
fn requests_that_wait_are_begun_when_the_worker_before_them_hangs() {
    let (mut pool, replies) = pool("test:///default", 4);
    let until = Instant::now() + CONNECTIONS_SCARCE;
    pool.scarce = Some(Scarce { most: 1, until });
    assert_eq!(pool.assign(1, Request::List), Assigned::Begun);
    assert_eq!(pool.hangs_at(), None, "nothing waits");
    assert_eq!(pool.assign(2, Request::List), Assigned::Waits);
    assert!(pool.hangs_at().is_some_and(|at| at > Instant::now()));
    assert!(pool.start_waiting().is_empty(), "not yet");
    pool.busy.get_mut(&1).unwrap().since -= WORKER_HANGS;
    assert_eq!(pool.hangs_at(), None, "now");
    assert_eq!(pool.start_waiting(), [2]);
    for _ in [1, 2] {
        replies.recv_timeout(LIMIT).unwrap();
    }
    // The other one still hangs: the worker that goes on keeps its connection.
    assert_eq!(pool.returned(2), None);
    assert_eq!(counts(&pool), (1, 1));
    assert_eq!(pool.assign(3, Request::List), Assigned::Begun);
    assert_eq!(replies.recv_timeout(LIMIT).unwrap().worker, 1);
    pool.try_more();
    assert_eq!(pool.limited_to(Instant::now()), None);
}

#[test]
fn no_more_workers_than_are_let_in_but_one_that_hangs_does_not_count() {
    let (mut pool, replies) = pool("test:///default", 4);
    let until = Instant::now() + CONNECTIONS_SCARCE;
    pool.scarce = Some(Scarce { most: 1, until });
    assert_eq!(pool.assign(1, Request::List), Assigned::Begun);
    assert_eq!(pool.assign(2, Request::List), Assigned::Waits);
    pool.busy.get_mut(&1).unwrap().since -= WORKER_HANGS;
    assert_eq!(pool.assign(3, Request::List), Assigned::Begun);
    for _ in [1, 3] {
        replies.recv_timeout(LIMIT).unwrap();
    }
    assert_eq!(pool.returned(3), Some(2));
    assert_eq!(pool.returned(1), None);
    assert_eq!(counts(&pool), (1, 0), "the second ends");
}

#[test]
fn closed_connections_are_waited_for_and_those_that_hang_are_not() {
    let (mut pool, replies) = pool("test:///default", 4);
    assert_eq!(pool.assign(1, Request::List), Assigned::Begun);
    replies.recv_timeout(LIMIT).unwrap();
    pool.returned(1);
    let begun = Instant::now();
    assert!(pool.close(begun + LIMIT), "the driver answers");
    assert!(begun.elapsed() < LIMIT);
    let frozen = Frozen::start();
    let (mut pool, _replies) = half_let_in(&frozen);
    assert!(!pool.close(Instant::now() + LIMIT), "nobody answered");
    assert_eq!(pool.busy().len(), 2);
}
