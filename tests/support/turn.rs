//! The modules of a crate take turns.
//!
//! libtest starts a crate's tests in the order of their full names, as many at once as there are
//! processors. The tests of one module may run side by side. Those of two modules may not: some
//! measure time, and some need the processor for themselves. Whatever starts a lab, or needs the
//! machine for other reasons, holds its module's turn meanwhile; another module's tests wait until
//! the last of them has given it back.

use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// The module whose turn it is, and how many hold it.
static HELD: Mutex<Option<(String, usize)>> = Mutex::new(None);
static GIVEN_BACK: Condvar = Condvar::new();

/// The turn of a test's module. A test may hold several.
pub struct Turn {
    counted: bool,
}

/// Waits until it is the turn of this test's module. Panics on a thread that the test has started:
/// it cannot tell whose it is.
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
