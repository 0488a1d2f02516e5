//! Resolves the paths of one check: advances their walks as the checkers answer.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::path_walk::{PathWalk, WalkState};
use super::state::{MountState, wait_readable};
use super::{Mounts, Storage};
use crate::maps::{HashMap, HashSet};
use crate::threads::NotStarted;
use crate::times::{LOCAL_PATHS, MOUNT_ANSWERS};

/// The outcome of one path in one check.
#[derive(Debug)]
pub(super) struct PathOutcome {
    /// The remote mounts that the path crosses, as far as is known.
    pub mounts_crossed: Vec<u64>,
    /// Why the path was not resolved. It counts only if all mounts crossed are alive. `None` if the path
    /// was resolved.
    pub failure: Option<Storage>,
}

/// The outcomes of all paths in one check.
pub(super) type WalkResults = HashMap<PathBuf, PathOutcome>;

/// The numbers of the mounts that these paths cross.
pub(super) fn mounts_in_use(outcomes: &WalkResults) -> HashSet<u64> {
    outcomes
        .values()
        .flat_map(|outcome| &outcome.mounts_crossed)
        .copied()
        .collect()
}

impl Mounts {
    /// Uses what is known about a path, or begins to resolve it.
    pub(super) fn begin_path(&mut self, path: &OsStr, now: Instant, outcomes: &mut WalkResults) {
        if let Some(mounts_crossed) = self.paths.mounts_crossed(path, now) {
            // A path that crosses no remote mount is local.
            if !mounts_crossed.is_empty() {
                let outcome = PathOutcome {
                    mounts_crossed: mounts_crossed.clone(),
                    failure: None,
                };
                outcomes.insert(path.into(), outcome);
            }
            return;
        }
        let mut walk = self
            .paths
            .take_unfinished(path, now)
            .unwrap_or_else(|| PathWalk::new(Path::new(path)));
        let walk_state = walk.advance(&self.table, None);
        self.record(walk, walk_state, outcomes);
    }

    /// Records where a walk has stopped, and has its next component checked.
    fn record(&mut self, walk: PathWalk, walk_state: WalkState, outcomes: &mut WalkResults) {
        let mut mounts_crossed = walk.mounts_crossed.clone();
        let path = walk.path.clone();
        let name = path.as_os_str();
        self.paths.drop_unfinished(name);
        let failure = match walk_state {
            WalkState::Resolved => {
                self.paths.set_resolved(name, mounts_crossed.clone());
                None
            }
            WalkState::Unknown(point) => {
                self.paths.set_unresolvable(name);
                Some(Storage::Unknown(point))
            }
            WalkState::Dead(point) => {
                self.paths.set_unresolvable(name);
                Some(Storage::Dead(point))
            }
            WalkState::AtRemote(id) => {
                self.paths.set_unfinished(walk.clone());
                if let Some(mount) = self.table.get(id) {
                    match self.checkers.get_or_start(&self.launch, mount) {
                        Ok(state) => state.queue.push(walk),
                        Err(error) => self.not_started = Some(error.to_string()),
                    }
                }
                self.fallback(name, &mut mounts_crossed, id)
            }
            WalkState::AtDisk(id) if self.resolver.is_hanging(id) => {
                Some(Storage::Dead(self.point(id)))
            }
            WalkState::AtDisk(id) => {
                self.resolver.push(walk, id);
                self.fallback(name, &mut mounts_crossed, id)
            }
        };
        let outcome = PathOutcome {
            mounts_crossed,
            failure,
        };
        outcomes.insert(path, outcome);
    }

    /// The failure of a path if time runs out before this mount has answered. A path that was resolved
    /// earlier has none: the mounts which it crossed then are the best that is known.
    fn fallback(&self, path: &OsStr, mounts_crossed: &mut Vec<u64>, id: u64) -> Option<Storage> {
        match self.paths.last_crossed(path) {
            Some(earlier) => {
                mounts_crossed.extend(earlier);
                None
            }
            None => Some(Storage::Unknown(self.point(id))),
        }
    }

    /// Lets the checkers work and the walks advance until all is known, or until the time of a check
    /// that began at `start` is over.
    pub(super) fn wait(&mut self, start: Instant, outcomes: &mut WalkResults) {
        let [remote_until, local_until] = [MOUNT_ANSWERS, LOCAL_PATHS].map(|it| start + it);
        loop {
            let now = Instant::now();
            let states = &mut self.checkers.states;
            if now < remote_until {
                states.values_mut().for_each(MountState::send_next);
            }
            if now < local_until
                && let Err(error) = self.resolver.send_next(&self.launch)
            {
                let error = NotStarted::new("the path resolver", error);
                self.not_started = Some(error.to_string());
            }
            let local = self.resolver.fd().map(|fd| (None, fd));
            let timeout = if local.is_some() {
                local_until.saturating_duration_since(now)
            } else if states.values().any(MountState::is_waited_for) {
                remote_until.saturating_duration_since(now)
            } else {
                // Results of earlier checks are received all the same.
                Duration::ZERO
            };
            let remote = states
                .iter()
                .filter(|(_, state)| state.is_busy())
                .map(|(id, state)| (Some(*id), state.checker.fd()));
            let ready = match wait_readable(remote.chain(local), timeout) {
                Ok(ready) if !ready.is_empty() => ready,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => return,
            };
            for id in ready {
                let results = match id {
                    Some(id) => {
                        let state = self.checkers.states.get_mut(&id);
                        state.and_then(MountState::receive).into_iter().collect()
                    }
                    None => self.resolver.receive(),
                };
                for (mut walk, result) in results {
                    let walk_state = walk.advance(&self.table, Some(result));
                    self.record(walk, walk_state, outcomes);
                }
            }
        }
    }
}
