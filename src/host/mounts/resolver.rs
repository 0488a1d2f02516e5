//! Path components on local file systems, looked up by a process of its own: the disk below such a
//! file system may not answer, and then whatever looks for a name on it hangs.

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

/// The walks that need the same component next.
#[derive(Debug)]
struct PendingStep {
    mount: u64,
    walks: Vec<PathWalk>,
}

/// Asks for components, each once for all walks that need it, some at a time. One process does it
/// for all local file systems; one that hangs is left with the mount that it hangs on, and another
/// takes its place.
#[derive(Debug, Default)]
pub(super) struct Resolver {
    checker: Option<Checker>,
    waiting: HashMap<PathBuf, PendingStep>,
    /// In the order in which they are answered.
    asked: VecDeque<PendingStep>,
    /// By the number of the mount that does not answer.
    hanging: HashMap<u64, Checker>,
    /// Needed no more, to be taken by [`Resolver::take_closed`].
    closed: Vec<Checker>,
}

impl Resolver {
    /// A look begins; `table` is that of the last one. A component which was asked for then and is
    /// not answered by now makes its mount one that does not answer, until its checker says
    /// something.
    pub fn begin_check(&mut self, table: &MountTable) {
        self.waiting.clear();
        while self.fd().is_some_and(is_readable) {
            self.receive();
        }
        if let Some(step) = self.asked.pop_front()
            && let Some(mut checker) = self.checker.take()
        {
            // Where the table is another by now, `forget` lets it end.
            checker.mount = table.get(step.mount).cloned().unwrap_or_default();
            self.closed.extend(self.hanging.insert(step.mount, checker));
        }
        self.asked.clear();
        let back = |_: &u64, checker: &mut Checker| is_readable(checker.fd());
        let back = self.hanging.extract_if(back).map(|(_, checker)| checker);
        self.closed.extend(back);
    }

    /// The table is another now: mounts that are no more are forgotten.
    pub fn drop_unmounted(&mut self, table: &MountTable) {
        let gone = |id: &u64, checker: &mut Checker| table.get(*id) != Some(&checker.mount);
        let gone = self.hanging.extract_if(gone).map(|(_, checker)| checker);
        self.closed.extend(gone);
    }

    /// Checkers that are to end.
    pub fn take_closed(&mut self) -> impl Iterator<Item = Checker> {
        self.closed.drain(..)
    }

    /// Whether the mount of this number has not answered since the last look or longer.
    pub fn is_hanging(&self, mount: u64) -> bool {
        self.hanging.contains_key(&mount)
    }

    /// A walk needs its next component, on the mount of this number.
    pub fn push(&mut self, walk: PathWalk, mount: u64) {
        let walks = Vec::new();
        let step = self.waiting.entry(walk.next_path());
        let step = step.or_insert(PendingStep { mount, walks });
        step.walks.push(walk);
    }

    /// Starts the checker, if there is none: ahead of the first look, for that takes some 10 ms.
    ///
    /// # Errors
    /// The system's, when no process can be started.
    pub fn start(&mut self, launch: &Launch) -> io::Result<()> {
        if self.checker.is_none() {
            self.checker = Some(Checker::start(launch, &Mount::default())?);
        }
        Ok(())
    }

    /// Asks for the next components, if all asked for are answered.
    ///
    /// # Errors
    /// The system's, when no process can be started.
    pub fn send_next(&mut self, launch: &Launch) -> io::Result<()> {
        if !self.asked.is_empty() || self.waiting.is_empty() {
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
        self.asked.extend(steps);
        let paths: Vec<&Path> = paths.iter().map(PathBuf::as_path).collect();
        let asked = checker.send(&paths);
        if asked.is_err() {
            self.discard_checker();
        }
        asked
    }

    /// What to wait for, if something was asked.
    pub fn fd(&self) -> Option<BorrowedFd<'_>> {
        let checker = self.checker.as_ref().filter(|_| !self.asked.is_empty());
        checker.map(Checker::fd)
    }

    /// The walks that go on, and what each asked for.
    pub fn receive(&mut self) -> Vec<(PathWalk, CheckResult)> {
        let Some(Ok(answers)) = self.checker.as_mut().map(Checker::receive) else {
            self.discard_checker();
            return Vec::new();
        };
        let mut told = Vec::new();
        for answer in answers {
            let walks = self.asked.pop_front().map(|step| step.walks);
            let walks = walks.unwrap_or_default().into_iter();
            told.extend(walks.map(|walk| (walk, answer.clone())));
        }
        told
    }

    /// The checker is gone: what it was asked stays unknown in this look.
    fn discard_checker(&mut self) {
        self.closed.extend(self.checker.take());
        self.asked.clear();
    }
}

#[cfg(test)]
impl Resolver {
    /// From now on this one is asked.
    pub fn use_checker(&mut self, checker: Checker) {
        self.checker = Some(checker);
        self.asked.clear();
    }
}
