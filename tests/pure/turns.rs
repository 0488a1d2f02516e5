//! The turns that the modules of `lab` and `telegraf` take.

use crate::turn::{self, Turn};
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Mutex, PoisonError};
use std::thread::Builder;
use std::time::Duration;

/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

/// The tests take turns of the same crate, this one.
static ALONE: Mutex<()> = Mutex::new(());

/// Starts a thread of that name, as libtest names a test's thread, which takes a turn. It reports when it has
/// the turn, and gives it back when it is told to.
fn test(name: &str, take: fn() -> Vec<Turn>) -> (Receiver<()>, Sender<()>) {
    let (has_it, taken) = channel();
    let (give_back, told) = channel::<()>();
    let body = move || {
        let _turns = take();
        has_it.send(()).unwrap();
        let _ = told.recv();
    };
    Builder::new().name(name.to_owned()).spawn(body).unwrap();
    (taken, give_back)
}

/// A test of a module that has the turn for itself.
fn alone(name: &str) -> (Receiver<()>, Sender<()>) {
    test(name, || vec![turn::take()])
}

/// A test that shares its turn, and starts a lab.
fn shares(name: &str) -> (Receiver<()>, Sender<()>) {
    test(name, || vec![turn::share(), turn::take()])
}

fn expect_waiting(taken: &Receiver<()>) {
    let early = taken.recv_timeout(Duration::from_millis(100));
    early.expect_err("the turn is not free");
}

#[test]
fn a_module_waits_until_all_tests_of_another_have_ended() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (taken, first) = alone("one::first");
    taken.recv_timeout(LONG).unwrap();
    let (taken, second) = alone("one::second");
    taken.recv_timeout(LONG).unwrap();
    let (other_taken, other) = alone("two::first");
    for end in [first, second] {
        expect_waiting(&other_taken);
        drop(end);
    }
    other_taken.recv_timeout(LONG).unwrap();
    let (taken, last) = alone("one::third");
    expect_waiting(&taken);
    drop(other);
    taken.recv_timeout(LONG).unwrap();
    drop(last);
}

#[test]
fn tests_that_share_their_turn_run_side_by_side_and_beside_no_other() {
    let _alone = ALONE.lock().unwrap_or_else(PoisonError::into_inner);
    let (taken, first) = shares("one::shares");
    taken.recv_timeout(LONG).unwrap();
    let (taken, second) = shares("two::shares");
    taken.recv_timeout(LONG).unwrap();
    // Not even a test of the same module.
    let (alone_taken, alone) = alone("two::alone");
    expect_waiting(&alone_taken);
    // From now on no further test begins to share: the one that waits would wait for ever.
    let (third_taken, third) = shares("three::shares");
    expect_waiting(&third_taken);
    for end in [first, second] {
        expect_waiting(&alone_taken);
        drop(end);
    }
    alone_taken.recv_timeout(LONG).unwrap();
    expect_waiting(&third_taken);
    drop(alone);
    third_taken.recv_timeout(LONG).unwrap();
    drop(third);
}
