//! Looks up path components on local file systems in a process of its own, the path resolver. The disk
//! below such a file system may not answer, and then every process that looks up a name on it hangs.

use std::collections::VecDeque;
use std::io;
use std::os::fd::BorrowedFd;
use std::path::{Path, PathBuf};

use super::checker::{Checker, Launch};
use super::checker_process::CheckResult;
use super::path_walk::PathWalk;
use super::state::is_readable;
use super::table::{Mount, MountTable};
use crate::maps::HashMap;

/// A component that has to be looked up.
#[derive(Debug)]
struct PendingStep {
    /// The mount that it lies on, by number.
    mount: u64,
    /// The walks that need it.
    walks: Vec<PathWalk>,
}

/// Looks up components, each once for all walks that need it. One process serves all local file systems.
/// When it hangs, it is abandoned together with the mount on which it hangs, and another one is started
/// for the other components.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    checker: Option<Checker>,
    waiting: HashMap<PathBuf, PendingStep>,
    /// The components that were sent to the process, in this order.
    sent: VecDeque<PendingStep>,
    /// The processes that hang, by the number of the mount on which they do.
    hanging: HashMap<u64, Checker>,
    /// The processes that are not needed any more, until [`Resolver::take_closed`].
    closed: Vec<Checker>,
}

impl Resolver {
    /// Begins a check. `table` is the mount table of the last one. If a component that was sent during
    /// the last check has no result by now, its mount counts as hanging until the result comes.
    pub fn begin_check(&mut self, table: &MountTable) {
        self.waiting.clear();
        while self.fd().is_some_and(is_readable) {
            self.receive();
        }
        if let Some(step) = self.sent.pop_front()
            && let Some(mut checker) = self.checker.take()
        {
            // If the table has changed meanwhile, `drop_unmounted` closes it.
            checker.mount = table.get(step.mount).cloned().unwrap_or_default();
            self.closed.extend(self.hanging.insert(step.mount, checker));
        }
        self.sent.clear();
        let answering = self
            .hanging
            .extract_if(|_, checker| is_readable(checker.fd()))
            .map(|(_, checker)| checker);
        self.closed.extend(answering);
    }

    /// The mount table has changed: forgets the mounts that are not in it.
    pub fn drop_unmounted(&mut self, table: &MountTable) {
        let unmounted = self
            .hanging
            .extract_if(|id, checker| table.get(*id) != Some(&checker.mount))
            .map(|(_, checker)| checker);
        self.closed.extend(unmounted);
    }

    /// Takes the processes that are to be closed.
    pub fn take_closed(&mut self) -> impl Iterator<Item = Checker> {
        self.closed.drain(..)
    }

    /// Whether a lookup on the mount of this number has hung since the last check or longer.
    pub fn is_hanging(&self, mount: u64) -> bool {
        self.hanging.contains_key(&mount)
    }

    /// Queues the next component of a walk, which lies on the mount of this number.
    pub fn push(&mut self, walk: PathWalk, mount: u64) {
        let walks = Vec::new();
        self.waiting
            .entry(walk.next_path())
            .or_insert(PendingStep { mount, walks })
            .walks
            .push(walk);
    }

    /// Starts the process if there is none. Done ahead of the first check, for it takes some 10 ms.
    ///
    /// # Errors
    /// The error of the system when no process can be started.
    pub fn start(&mut self, launch: &Launch) -> io::Result<()> {
        if self.checker.is_none() {
            self.checker = Some(Checker::start(launch, &Mount::default())?);
        }
        Ok(())
    }

    /// Sends the next components if there are results for all that were sent.
    ///
    /// # Errors
    /// The error of the system when no process can be started or written to.
    pub fn send_next(&mut self, launch: &Launch) -> io::Result<()> {
        if !self.sent.is_empty() || self.waiting.is_empty() {
            return Ok(());
        }
        let checker = match &mut self.checker {
            Some(checker) => checker,
            None => self
                .checker
                .insert(Checker::start(launch, &Mount::default())?),
        };
        let count = Checker::batch_size(self.waiting.keys().map(PathBuf::as_path));
        let paths: Vec<PathBuf> = self.waiting.keys().take(count).cloned().collect();
        let steps = paths.iter().filter_map(|path| self.waiting.remove(path));
        self.sent.extend(steps);
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let sent = checker.send(&paths);
        if sent.is_err() {
            self.discard_checker();
        }
        sent
    }

    /// Readable when a result has come. `None` if nothing was sent.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        let checker = self.checker.as_ref().filter(|_| !self.sent.is_empty());
        checker.map(Checker::fd)
    }

    /// The walks which can advance, each with the result of its component.
    pub fn receive(&mut self) -> Vec<(PathWalk, CheckResult)> {
        let Some(Ok(results)) = self.checker.as_mut().map(Checker::receive) else {
            self.discard_checker();
            return Vec::new();
        };
        let mut received = Vec::new();
        for result in results {
            let step = self.sent.pop_front();
            let walks = step.into_iter().flat_map(|step| step.walks);
            received.extend(walks.map(|walk| (walk, result.clone())));
        }
        received
    }

    /// The process has ended: what was sent to it stays unknown in this check.
    fn discard_checker(&mut self) {
        self.closed.extend(self.checker.take());
        self.sent.clear();
    }
}

#[cfg(test)]
impl Resolver {
    /// Replaces the process.
    pub fn use_checker(&mut self, checker: Checker) {
        self.checker = Some(checker);
        self.sent.clear();
    }
}
