//! The mount checkers: one for each remote mount that carries disks.

use std::collections::hash_map::Entry;
use std::process::Child;

use super::checker::{Checker, Launch};
use super::state::MountState;
use super::table::{Mount, MountTable};
use crate::maps::HashMap;
use crate::threads::NotStarted;

/// The running checkers, and those which have been told to end.
#[derive(Debug, Default)]
pub(super) struct Checkers {
    /// The remote mounts, by number.
    pub states: HashMap<u64, MountState>,
    /// The processes of closed checkers that have not ended yet.
    closing: Vec<Child>,
}

impl Checkers {
    /// The state of a mount. Starts a checker if the mount has none.
    ///
    /// # Errors
    /// The error of the system when no process can be started.
    pub fn get_or_start(
        &mut self,
        launch: &Launch,
        mount: &Mount,
    ) -> Result<&mut MountState, NotStarted> {
        match self.states.entry(mount.id) {
            Entry::Occupied(state) => Ok(state.into_mut()),
            Entry::Vacant(place) => {
                let checker = Checker::start(launch, mount).map_err(|error| {
                    let what = format!("the mount checker of {}", mount.point.display());
                    NotStarted::new(what, error)
                })?;
                Ok(place.insert(MountState::new(checker)))
            }
        }
    }

    /// Replaces the checkers whose process has ended without being told to.
    pub fn replace_ended(&mut self, launch: &Launch) {
        for state in self.states.values_mut() {
            if state.has_checker_ended()
                && let Ok(checker) = Checker::start(launch, &state.checker.mount)
            {
                self.closing.extend(state.replace(checker).close());
            }
        }
    }

    /// Closes the checkers that `is_unneeded` selects, by number of their mount.
    pub fn close(&mut self, is_unneeded: impl Fn(u64, &MountState) -> bool) {
        let closed = self
            .states
            .extract_if(|id, state| is_unneeded(*id, state))
            .filter_map(|(_, state)| state.checker.close());
        self.closing.extend(closed);
    }

    /// Closes the checkers of mounts that are not in this table.
    pub fn close_unmounted(&mut self, table: &MountTable) {
        self.close(|id, state| table.get(id) != Some(&state.checker.mount));
    }

    /// Reaps the processes that have ended, of the checkers closed here and of these. None is waited
    /// for: a process that hangs in the kernel ends when its mount lets it.
    pub fn reap(&mut self, closed: impl Iterator<Item = Checker>) {
        self.closing.extend(closed.filter_map(Checker::close));
        self.closing
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }
}
