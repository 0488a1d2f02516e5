//! The state of one remote mount from check to check: what its checker is doing, and what follows from
//! it.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::checker::Checker;
use super::checker_process::CheckResult;
use super::path_walk::PathWalk;

/// What is known about a remote mount.
#[derive(Debug)]
pub(super) struct MountState {
    /// The process that accesses the mount.
    pub checker: Checker,
    /// The walks that wait until the mount has answered.
    pub queue: Vec<PathWalk>,
    pending: Option<Pending>,
    /// The result of checking the mount itself in this check.
    result: Option<CheckResult>,
    /// The mount has reported that it is dead, or had not answered a check when the next one began. This
    /// holds until it answers a request before the check after that request begins.
    dead: bool,
    /// The checker's process has ended without being told to.
    checker_ended: bool,
}

/// The request that the checker is working on.
#[derive(Debug)]
enum Pending {
    /// Whether the mount answers.
    MountCheck,
    /// The next component of this walk.
    PathStep(PathWalk),
    /// A request of an earlier check. It is not waited for, and its result says nothing about the
    /// present.
    Outdated,
}

/// The health of a mount in one check, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Health {
    /// It has answered in this check.
    Alive,
    /// We may not access it, or its checker has ended.
    Unknown,
    /// It has not answered in this check, but has answered every earlier one before the next began. The
    /// host is busy, the storage is slow, or it has just died. A mount may be late any number of times.
    Late,
    /// It reports that it is dead, or has not answered a check before the next one began.
    Dead,
}

impl MountState {
    /// The state of a mount of which nothing is known yet.
    pub fn new(checker: Checker) -> Self {
        Self {
            checker,
            queue: Vec::new(),
            pending: None,
            result: None,
            dead: false,
            checker_ended: false,
        }
    }

    /// Begins a check. First receives what was answered since the last one: it proves that the mount
    /// answers, if slowly, and a walk that waited for it is returned. Such an answer is not a result of
    /// this check, for the mount may have died since.
    pub fn begin_check(&mut self) -> Option<(PathWalk, CheckResult)> {
        let mut received = None;
        while self.is_busy() && is_readable(self.checker.fd()) {
            let is_of_last_check = self.is_waited_for();
            received = self.receive();
            if is_of_last_check && !self.is_busy() && !self.checker_ended {
                self.dead = self.result == Some(CheckResult::Dead);
            }
        }
        if self.pending.is_some() {
            self.pending = Some(Pending::Outdated);
            self.dead = true;
        }
        self.result = None;
        self.queue.clear();
        received
    }

    /// Whether the mount was dead at the last check.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether the checker has to be replaced ([`MountState::replace`]).
    pub fn has_checker_ended(&self) -> bool {
        self.checker_ended
    }

    /// Takes a new checker and returns the old one.
    pub fn replace(&mut self, checker: Checker) -> Checker {
        self.checker_ended = false;
        std::mem::replace(&mut self.checker, checker)
    }

    /// Whether the checker is working on a request.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether the checker is working on a request of this check.
    pub fn is_waited_for(&self) -> bool {
        matches!(
            self.pending,
            Some(Pending::MountCheck | Pending::PathStep(_))
        )
    }

    /// The health of the mount, as far as this check knows it by now.
    pub fn health(&self) -> Health {
        match self.result {
            Some(CheckResult::Alive | CheckResult::Link(_)) => Health::Alive,
            Some(CheckResult::Dead) => Health::Dead,
            _ if self.dead => Health::Dead,
            Some(CheckResult::Unknown) => Health::Unknown,
            None if self.checker_ended => Health::Unknown,
            None => Health::Late,
        }
    }

    /// Sends the next request if the checker is idle: first the check of the mount, then, on a mount that
    /// has answered, one path after the other, so that at most one is pending when the check ends.
    pub fn send_next(&mut self) {
        if self.pending.is_some() || self.checker_ended {
            return;
        }
        let (pending, path) = match self.result {
            None => (Pending::MountCheck, PathBuf::new()),
            Some(CheckResult::Alive) => match self.queue.pop() {
                Some(walk) => {
                    let path = walk.next_path();
                    (Pending::PathStep(walk), path)
                }
                None => return,
            },
            Some(_) => return,
        };
        match self.checker.send(&[&path]) {
            Ok(()) => self.pending = Some(pending),
            Err(_) => self.checker_ended = true,
        }
    }

    /// Receives a result. If it is for a walk, returns both.
    pub fn receive(&mut self) -> Option<(PathWalk, CheckResult)> {
        let result = match self.checker.receive() {
            // There is one request at a time, so there is one result.
            Ok(results) => results.into_iter().next()?,
            Err(_) => {
                self.pending = None;
                self.checker_ended = true;
                return None;
            }
        };
        match self.pending.take() {
            Some(Pending::MountCheck) => {
                self.dead = result == CheckResult::Dead;
                self.result = Some(result);
                None
            }
            Some(Pending::PathStep(walk)) => Some((walk, result)),
            Some(Pending::Outdated) | None => None,
        }
    }
}

/// Waits until some of these descriptors are readable, for at most `timeout`. Returns their keys.
///
/// # Errors
/// The error of poll(2), also when it was interrupted by a signal.
pub(super) fn wait_readable<'e, K>(
    fds: impl Iterator<Item = (K, BorrowedFd<'e>)>,
    timeout: Duration,
) -> Result<Vec<K>, Errno> {
    let (keys, mut fds): (Vec<K>, Vec<PollFd<'_>>) = fds
        .map(|(key, fd)| (key, PollFd::from_borrowed_fd(fd, PollFlags::IN)))
        .unzip();
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    poll(&mut fds, Some(&timeout))?;
    Ok(keys
        .into_iter()
        .zip(&fds)
        .filter(|(_, fd)| !fd.revents().is_empty())
        .map(|(key, _)| key)
        .collect())
}

/// Whether this descriptor is readable now.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let fds = std::iter::once(((), fd));
    wait_readable(fds, Duration::ZERO).is_ok_and(|ready| !ready.is_empty())
}

#[cfg(test)]
mod tests;
