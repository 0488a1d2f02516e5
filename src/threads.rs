//! Starting threads, and the message for where the system allows no more.

use std::fmt;
use std::io;
use std::thread::{self, Scope};

use crate::hypervisor;

/// A thread or a process that the system did not let start.
#[derive(Debug)]
pub struct NotStarted {
    /// The thread or process, as a message names it.
    what: String,
    error: io::Error,
}

impl NotStarted {
    /// `what` could not be started.
    pub fn new(what: impl Into<String>, error: io::Error) -> Self {
        let what = what.into();
        Self { what, error }
    }
}

impl fmt::Display for NotStarted {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "cannot start {}: {}", self.what, self.error)?;
        // EAGAIN: this user or this control group has too many threads (clone(2)). glibc returns it also
        // where there is no memory for the stack.
        if self.error.kind() == io::ErrorKind::WouldBlock {
            f.write_str(
                "; raise the limit of processes and threads: ulimit -u (LimitNPROC= of the systemd \
                 unit) for this user, TasksMax= (pids.max) for the control group",
            )?;
        }
        Ok(())
    }
}

impl std::error::Error for NotStarted {}

/// Starts a thread of this name, of which ps shows 15 bytes. It works for the hypervisor of this thread.
///
/// # Errors
/// The system does not start it; the message has the thread's name and the limit to raise.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), NotStarted> {
    let current = hypervisor::current();
    let work = || {
        hypervisor::set(current);
        work();
    };
    thread::Builder::new()
        .name(name.to_owned())
        .spawn(work)
        .map(drop)
        .map_err(|error| not_started(name, error))
}

/// As [`start`], for a thread that `scope` waits for. It works for no hypervisor yet.
///
/// # Errors
/// As [`start`].
pub fn start_in<'scope>(
    scope: &'scope Scope<'scope, '_>,
    name: &str,
    work: impl FnOnce() + Send + 'scope,
) -> Result<(), NotStarted> {
    thread::Builder::new()
        .name(name.to_owned())
        .spawn_scoped(scope, work)
        .map(drop)
        .map_err(|error| not_started(name, error))
}

fn not_started(name: &str, error: io::Error) -> NotStarted {
    NotStarted::new(format!("the thread \"{name}\""), error)
}
