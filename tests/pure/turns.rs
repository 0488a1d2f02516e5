//! The turns that the modules of `lab` and `telegraf` take.

use crate::turn;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread::Builder;
use std::time::Duration;

/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

/// Starts a thread of that name, as libtest names a test's thread, which takes a turn. It reports when it has
/// the turn, and gives it back when it is told to.
fn test(name: &str) -> (Receiver<()>, Sender<()>) {
    let (has_it, taken) = channel();
    let (give_back, told) = channel::<()>();
    let body = move || {
        let _turn = turn::take();
        has_it.send(()).unwrap();
        let _ = told.recv();
    };
    Builder::new().name(name.to_owned()).spawn(body).unwrap();
    (taken, give_back)
}

#[test]
fn a_module_waits_until_all_tests_of_another_have_ended() {
    let (taken, first) = test("one::first");
    taken.recv_timeout(LONG).unwrap();
    let (taken, second) = test("one::second");
    taken.recv_timeout(LONG).unwrap();
    let (other_taken, other) = test("two::first");
    for end in [first, second] {
        let early = other_taken.recv_timeout(Duration::from_millis(100));
        early.expect_err("another module's turn");
        drop(end);
    }
    other_taken.recv_timeout(LONG).unwrap();
    let (taken, last) = test("one::third");
    let early = taken.recv_timeout(Duration::from_millis(100));
    early.expect_err("another module's turn");
    drop(other);
    taken.recv_timeout(LONG).unwrap();
    drop(last);
}
