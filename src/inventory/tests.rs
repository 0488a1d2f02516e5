use std::cell::{Cell, RefCell};
use std::rc::Rc;

use super::*;
use crate::config::Measurements;
use crate::gather::testing::{Frozen, LIMIT, settings};
use crate::gather::worker::Failure;
use crate::libvirt::testing::{Node, initialize};
use crate::name_filter;
use crate::times::NOT_LET_IN;

/// An inventory with everything in it, and where its replies come out.
fn inventory(uri: &str, change: impl FnOnce(&mut Settings)) -> (Inventory, Receiver<Reply>) {
    initialize();
    let mut settings = settings(uri);
    settings.inactive = true;
    settings.measurements = Measurements {
        metrics: true,
        pools: true,
        host: true,
        ..Measurements::NONE
    };
    change(&mut settings);
    let (sender, replies) = channel();
    let sender = std::sync::Mutex::new(sender);
    let sink = move |reply| drop(sender.lock().unwrap().send(reply));
    (Inventory::new(&settings, Arc::new(sink)), replies)
}

/// One gather, which waits for all that it has asked.
fn gather(inventory: &mut Inventory, replies: &Receiver<Reply>) {
    inventory.begin(Instant::now(), false);
    inventory.ask();
    while !inventory.is_done() {
        inventory.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
}

#[test]
fn a_gather_has_the_vms_that_are_off_the_pools_and_the_node() {
    let (mut inventory, replies) = inventory("test:///default", |_| {});
    assert!(inventory.is_done(), "nothing was asked");
    for round in 1..=2 {
        gather(&mut inventory, &replies);
        assert_eq!(inventory.take_inactive(), Some(vec![]));
        assert_eq!(inventory.take_inactive(), None, "taken");
        let found = inventory.take_found();
        assert_eq!(found.node.unwrap().cpus, 16);
        assert_eq!(found.node.unwrap().memory, 3 << 20);
        assert!(found.free_memory.is_some());
        assert!(inventory.take_found().free_memory.is_none(), "taken");
        // Pools have a period of their own.
        let names: Vec<&str> = found.pools.iter().map(|pool| &*pool.name).collect();
        let expected: &[&str] = if round == 1 { &["default-pool"] } else { &[] };
        assert_eq!(names, expected, "{round}");
    }
    let overview = inventory.overview();
    assert_eq!(overview.inactive, Some(0));
    assert_eq!(overview.pools, Some(vec!["default-pool".into()]));
    let report = inventory.report();
    assert!(report.hanging.is_empty() && report.inactive.silent.is_none());
    let start = Instant::now();
    inventory.close(start + LIMIT);
    assert!(start.elapsed() < LIMIT, "all threads have ended");
}

#[test]
fn vms_that_are_off_have_what_their_definition_says() {
    let node = Node::of(&["runs"], &["off", "other"]);
    let (mut inventory, replies) = inventory(&node.uri(), |settings| {
        settings.measurements.pools = false;
        settings.domains.exclude = vec![name_filter::pattern("oth*").unwrap()];
    });
    gather(&mut inventory, &replies);
    let vms = inventory.take_inactive().unwrap();
    let expected = InactiveVm {
        uuid: Node::uuid("off"),
        name: "off".into(),
        autostart: false,
        state: Some(5),
        reason: Some(0),
        memory: Some(8192),
        vcpus: Some(2),
    };
    assert_eq!(vms, [expected]);
}

#[test]
fn nothing_is_asked_that_is_not_wanted() {
    let (mut inventory, _replies) = inventory("test:///default", |settings| {
        settings.measurements.pools = false;
        settings.measurements.host = false;
        settings.inactive = false;
    });
    inventory.begin(Instant::now(), false);
    inventory.ask();
    assert!(inventory.is_done());
    assert_eq!(inventory.workers().count(), 0);
    inventory.begin(Instant::now(), true);
    assert!(!inventory.report().is_closed, "nothing is missing");
}

#[test]
fn a_worker_that_does_not_answer_is_not_asked_again_and_not_waited_for() {
    let frozen = Frozen::start();
    let (mut inventory, replies) = inventory(&frozen.uri(), |_| {});
    for round in 1..=3 {
        inventory.begin(Instant::now(), false);
        inventory.ask();
        assert_eq!(inventory.is_done(), round > 1, "{round}");
    }
    let report = inventory.report();
    let silent = [&report.inactive, &report.node, &report.pools];
    assert!(silent.iter().all(|fares| fares.silent.is_some()));
    // One connection each.
    let mut waiting = 0;
    let start = Instant::now();
    while waiting < 3 && start.elapsed() < LIMIT {
        waiting += frozen.waiting();
        std::thread::sleep(Duration::from_millis(5));
    }
    std::thread::sleep(Duration::from_millis(50));
    assert_eq!(waiting + frozen.waiting(), 3);
    while let Ok(reply) = replies.try_recv() {
        assert!(matches!(reply, Reply::Connecting(_)), "{reply:?}");
    }
}

/// libvirtd lets none of these workers in, but answers the gather.
#[test]
fn connections_that_are_not_let_in_are_given_up() {
    let frozen = Frozen::start();
    let (mut inventory, replies) = inventory(&frozen.uri(), |_| {});
    let now = Instant::now();
    inventory.begin(now, false);
    assert_eq!(inventory.leave_room_at(true), None, "nothing was asked");
    inventory.ask();
    assert_eq!(inventory.leave_room_at(false), None, "it may be frozen");
    let at = inventory.leave_room_at(true).unwrap();
    assert!(at >= now + NOT_LET_IN);
    assert!(!inventory.leave_room(at - Duration::from_millis(1), true));
    assert!(!inventory.report().is_closed, "it may be slow");
    let has_to_leave_room = inventory.leave_room(at, true);
    assert!(has_to_leave_room, "the gather as well");
    let report = inventory.report();
    assert!(report.is_closed && report.inactive.silent.is_none());
    while !inventory.is_done() {
        inventory.on_reply(replies.recv_timeout(LIMIT).unwrap());
    }
    inventory.ask();
    assert!(inventory.is_done(), "nothing is asked");
    assert_eq!(inventory.leave_room_at(true), None, "once");

    let over = at + CONNECTIONS_SCARCE;
    inventory.begin(over - Duration::from_secs(1), false);
    assert!(inventory.report().is_closed);
    inventory.try_again();
    assert!(!inventory.report().is_closed, "another libvirtd");
    inventory.closed_since = Some(at);
    inventory.begin(over, false);
    assert!(!inventory.report().is_closed, "they are tried again");
    // What the gather wants comes first, for as long as it wants more than it gets.
    inventory.begin(over, true);
    inventory.ask();
    assert!(inventory.is_done() && inventory.report().is_closed);
    inventory.begin(over, false);
    assert!(!inventory.report().is_closed);
    drop(frozen);
    let start = Instant::now();
    inventory.close(start + LIMIT);
    assert!(start.elapsed() < LIMIT, "those that waited have ended, too");
}

/// A worker whose orders are counted; `keeps`: its thread closes its connections itself.
fn counted(keeps: bool) -> (Worker, Rc<RefCell<Vec<Order>>>) {
    let orders = Rc::new(RefCell::new(Vec::new()));
    let given = Rc::clone(&orders);
    let start = move || -> Result<Ask, NotStarted> {
        let given = Rc::clone(&given);
        Ok(Box::new(move |order| {
            given.borrow_mut().push(order);
            order == Order::Ask || keeps
        }))
    };
    (Worker::new(Duration::ZERO, start), orders)
}

#[test]
fn a_call_that_hangs_is_not_forgotten_when_connections_are_given_up() {
    let now = Instant::now();
    let threads = |orders: &Rc<RefCell<Vec<Order>>>| Rc::strong_count(orders) - 2;
    let (mut worker, orders) = counted(false);
    worker.ask(now);
    worker.connecting = None;
    worker.close();
    assert!(worker.asked.is_some() && threads(&orders) == 1, "it hangs");
    worker.ask(now);
    assert_eq!(*orders.borrow(), [Order::Ask, Order::Close]);
    worker.answered(None);
    assert_eq!(threads(&orders), 0);
    // One that is not connected has no call that could hang.
    worker.ask(now);
    worker.close();
    assert!(worker.asked.is_none() && threads(&orders) == 0);
    // That for pools knows which of its calls hang.
    let (mut worker, orders) = counted(true);
    worker.ask(now);
    worker.close();
    assert!(worker.asked.is_some() && threads(&orders) == 1);
    worker.answered(None);
    worker.ask(now);
    assert_eq!(*orders.borrow(), [Order::Ask, Order::Close, Order::Ask]);
}

#[test]
fn a_worker_that_cannot_connect_is_asked_again_in_the_next_gather() {
    let uri = "test+unix:///default?socket=/none";
    let (mut inventory, replies) = inventory(uri, |_| {});
    for _ in 0..2 {
        gather(&mut inventory, &replies);
        let report = inventory.report();
        for fares in [&report.inactive, &report.node, &report.pools] {
            let failure = fares.failure.as_ref();
            assert!(
                matches!(failure, Some(Failure::Unreachable(_))),
                "{fares:?}"
            );
        }
    }
    assert!(inventory.take_inactive().is_none() && inventory.overview().pools.is_none());
}

#[test]
fn a_period_is_kept_by_gathers_that_come_a_little_early() {
    let asked = Rc::new(Cell::new(0));
    let counter = Rc::clone(&asked);
    let start = move || -> Result<Ask, NotStarted> {
        let counter = Rc::clone(&counter);
        Ok(Box::new(move |_| {
            counter.set(counter.get() + 1);
            true
        }))
    };
    let mut worker = Worker::new(Duration::from_secs(60), start);
    let begin = Instant::now();
    let mut times = Vec::new();
    // Gathers every 10 s, each a few milliseconds late or early.
    for (number, jitter) in [5, 9, 2, 7, 8, 1, 3, 6, 4, 2, 9, 8, 1].iter().enumerate() {
        let before = asked.get();
        worker.ask(begin + Duration::from_millis(number as u64 * 10_000 + jitter));
        worker.answered(None);
        if asked.get() > before {
            times.push(number);
        }
    }
    assert_eq!(times, [0, 6, 12]);
    let error = || crate::libvirt::Error::invalid("");
    // What is refused is asked for again when the period is over, and after a lost connection in the next gather.
    worker.ask(begin + Duration::from_secs(180));
    assert_eq!(asked.get(), 4);
    worker.answered(Some(Failure::Refused(error())));
    worker.ask(begin + Duration::from_secs(190));
    assert_eq!(asked.get(), 4);
    worker.ask(begin + Duration::from_secs(240));
    worker.answered(Some(Failure::Lost(error())));
    worker.ask(begin + Duration::from_secs(250));
    assert_eq!(asked.get(), 6);
}
