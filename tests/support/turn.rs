//! The modules of a crate take turns.
//!
//! libtest starts a crate's tests in the order of their full names, as many at once as there are
//! processors. The tests of one module may run side by side. Those of two modules may not: some
//! measure time, and some need the processor for themselves. A test that starts a lab, or needs the machine
//! for other reasons, holds its module's turn meanwhile; another module's tests wait until all of them have
//! given it back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The module that has the turn, and how many of its tests hold it.
static HELD: Mutex<Option<(String, usize)>> = Mutex::new(None);
static GIVEN_BACK: Condvar = Condvar::new();

/// A handle on the turn of a test's module. A test may hold several.
pub struct Turn {
    counted: bool,
}

/// Waits for the turn of this test's module. Panics on a thread that the test has started: the thread's name
/// does not show its test.
pub fn take() -> Turn {
    let thread = std::thread::current();
    let name = thread.name().expect("a test's own thread has its name");
    // The main thread runs one test after the other (`--test-threads=1`), or a benchmark.
    let Some((module, _)) = name.split_once("::") else {
        assert_eq!(name, "main", "each test of this crate is in a module");
        return Turn { counted: false };
    };
    let mut held = held();
    loop {
        match &mut *held {
            None => *held = Some((module.to_owned(), 1)),
            Some((of, count)) if of == module => *count += 1,
            Some(_) => {
                held = GIVEN_BACK
                    .wait(held)
                    .unwrap_or_else(PoisonError::into_inner);
                continue;
            }
        }
        return Turn { counted: true };
    }
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = held();
        let Some((_, count)) = held.as_mut().filter(|_| self.counted) else {
            return;
        };
        *count -= 1;
        if *count == 0 {
            *held = None;
            GIVEN_BACK.notify_all();
        }
    }
}

fn held() -> MutexGuard<'static, Option<(String, usize)>> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
