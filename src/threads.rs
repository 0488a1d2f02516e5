//! Starting threads, and what to say where the system allows no more.

use std::fmt;
use std::io;
use std::thread;

/// A thread, or a process, that the system did not let start.
#[derive(Debug)]
pub struct NotStarted {
    /// What it is for.
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
        // EAGAIN: too many threads of this user or in this control group (clone(2)); glibc gives it
        // also where there is no memory for the stack.
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

/// Starts a thread of this name (at most 15 bytes show in ps).
///
/// # Errors
/// The system's, with the thread's name and the limit to raise.
pub fn start(name: &str, work: impl FnOnce() + Send + 'static) -> Result<(), NotStarted> {
    let thread = thread::Builder::new().name(name.to_owned()).spawn(work);
    match thread {
        Ok(_) => Ok(()),
        Err(error) => Err(NotStarted::new(format!("the thread \"{name}\""), error)),
    }
}
