//! The modules of a crate take turns.
//!
//! libtest starts a crate's tests in the order of their full names, as many at once as there are
//! processors. The tests of one module may run side by side. Those of two modules may not: some
//! measure time, and some need the processor for themselves. A test that starts a lab, or needs the machine
//! for other reasons, holds its module's turn meanwhile; another module's tests wait until all of them have
//! given it back.
//!
//! A test that measures no time and counts no calls may [`share`] its turn with such tests of any module.

use std::cell::Cell;
use std::sync::{Condvar, Mutex, MutexGuard, PoisonError};

/// Which tests have the turn.
struct Held {
    /// The module that has it for itself, and how many handles its tests hold.
    module: Option<(String, usize)>,
    /// How many handles the tests hold that share it.
    shared: usize,
    /// How many tests wait until they have it for their module. No further test begins to share it then.
    waiting: usize,
}

static HELD: Mutex<Held> = Mutex::new(Held {
    module: None,
    shared: 0,
    waiting: 0,
});
static GIVEN_BACK: Condvar = Condvar::new();

thread_local! {
    /// How many handles on a shared turn this test holds.
    static SHARES: Cell<usize> = const { Cell::new(0) };
}

/// A handle on the turn of a test. A test may hold several, and drops them on its own thread.
pub struct Turn(Kind);

enum Kind {
    /// Of the module's own turn.
    Module,
    Shared,
    /// No other test can run now.
    Uncounted,
}

/// Waits for the turn of this test's module; in a test that shares its turn, this is one more handle on that.
/// Panics on a thread that the test has started: the thread's name does not show its test.
pub fn take() -> Turn {
    let Some(module) = module() else {
        return Turn(Kind::Uncounted);
    };
    if SHARES.get() > 0 {
        return share();
    }
    let mut held = held();
    held.waiting += 1;
    while held.shared > 0 || held.module.as_ref().is_some_and(|(of, _)| *of != module) {
        held = wait(held);
    }
    held.waiting -= 1;
    held.module.get_or_insert((module, 0)).1 += 1;
    Turn(Kind::Module)
}

/// Waits until no module has the turn for itself, and shares it then. To be called first in a test.
pub fn share() -> Turn {
    if module().is_none() {
        return Turn(Kind::Uncounted);
    }
    let mut held = held();
    // A test that shares already does not wait for those that wait for it.
    while SHARES.get() == 0 && (held.module.is_some() || held.waiting > 0) {
        held = wait(held);
    }
    held.shared += 1;
    SHARES.set(SHARES.get() + 1);
    Turn(Kind::Shared)
}

/// The module of this thread's test. `None` on the main thread, which runs one test after the other
/// (`--test-threads=1`), or a benchmark.
fn module() -> Option<String> {
    let thread = std::thread::current();
    let name = thread.name().expect("a test's own thread has its name");
    let Some((module, _)) = name.split_once("::") else {
        assert_eq!(name, "main", "each test of this crate is in a module");
        return None;
    };
    Some(module.to_owned())
}

impl Drop for Turn {
    fn drop(&mut self) {
        let mut held = held();
        match self.0 {
            Kind::Uncounted => return,
            Kind::Shared => {
                held.shared -= 1;
                SHARES.set(SHARES.get() - 1);
            }
            Kind::Module => {
                let module = held.module.as_mut();
                let count = module.map_or(0, |(_, count)| {
                    *count -= 1;
                    *count
                });
                if count == 0 {
                    held.module = None;
                }
            }
        }
        GIVEN_BACK.notify_all();
    }
}

fn wait(held: MutexGuard<'static, Held>) -> MutexGuard<'static, Held> {
    GIVEN_BACK
        .wait(held)
        .unwrap_or_else(PoisonError::into_inner)
}

fn held() -> MutexGuard<'static, Held> {
    HELD.lock().unwrap_or_else(PoisonError::into_inner)
}
