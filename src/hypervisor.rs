//! Which hypervisor a thread works for: its name in the log, and the count of the calls to its libvirt.
//!
//! One process may gather several hypervisors, each by threads of its own. So this is kept for each thread, and neither what
//! logs nor what calls libvirt has to know it. A thread that [`crate::threads::start`] starts works for the same hypervisor
//! as the thread that starts it.

pub(crate) mod calls;

use std::cell::RefCell;
use std::sync::Arc;

use calls::Counters;

/// What the threads of one hypervisor share.
#[derive(Debug, Default)]
pub(crate) struct Hypervisor {
    /// The name that its messages begin with; `None` where there is no other hypervisor.
    pub name: Option<String>,
    /// The calls to its libvirt.
    pub calls: Counters,
}

/// A hypervisor, or none: what concerns the whole process.
pub(crate) type Current = Option<Arc<Hypervisor>>;

thread_local! {
    static CURRENT: RefCell<Current> = const { RefCell::new(None) };
}

/// Makes this thread work for another hypervisor from now on; returns the one before.
pub(crate) fn set(hypervisor: Current) -> Current {
    CURRENT.replace(hypervisor)
}

/// What this thread works for.
pub(crate) fn current() -> Current {
    // A thread that ends may have dropped this already.
    CURRENT.try_with(|current| current.borrow().clone()).ok()?
}

/// Calls `work`, whose messages concern the whole process.
pub(crate) fn for_all<T>(work: impl FnOnce() -> T) -> T {
    let before = set(None);
    let done = work();
    set(before);
    done
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::*;
    use crate::threads;

    fn name() -> Option<String> {
        current()?.name.clone()
    }

    #[test]
    fn threads_work_for_the_hypervisor_of_the_thread_that_starts_them() {
        let named = |name: &str| Hypervisor {
            name: Some(name.to_owned()),
            ..Hypervisor::default()
        };
        assert_eq!(name(), None);
        set(Some(Arc::new(named("a"))));
        let (sender, receiver) = channel();
        let of_thread = sender.clone();
        threads::start("outer", move || {
            let further = of_thread.clone();
            threads::start("inner", move || drop(further.send(name()))).unwrap();
            set(Some(Arc::new(named("b"))));
        })
        .unwrap();
        assert_eq!(receiver.recv().unwrap().as_deref(), Some("a"));
        for_all(|| assert_eq!(name(), None));
        assert_eq!(name().as_deref(), Some("a"), "the other thread has its own");
        set(None);
    }
}
