//! The storage of disk images: where each image lies, and whether that storage answers.

use std::ffi::OsStr;
use std::path::{Path, PathBuf};
use std::time::Instant;

use self::checker::Launch;
use self::checkers::Checkers;
use self::path_cache::PathCache;
use self::path_walk::WalkState;
use self::resolver::Resolver;
use self::state::MountState;
use self::table::{FileSystemKind, MountTable};
use self::walks::{PathOutcome, WalkResults, mounts_in_use};
use crate::maps::{HashMap, HashSet};

mod checker;
pub mod checker_process;
mod checkers;
mod path_cache;
mod path_walk;
mod resolver;
mod state;
mod table;
mod walks;

pub use self::state::Health;

#[cfg(test)]
mod tests;

/// The storage of one path.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// The path lies on a file system of this host, or is no file at all (a network disk). Using it is
    /// safe.
    Local,
    /// Every remote mount that the path crosses has answered in this check.
    Alive,
    /// The mount at this point did not answer in this check, but has answered every earlier one before
    /// the next began. The host is busy, the mount is slow, or it has just died.
    Late(PathBuf),
    /// The mount at this point reports that it is dead, or has not answered a check before the next one
    /// began.
    Dead(PathBuf),
    /// Nothing is known: the path is not visible, or it crosses the mount at this point, which we may
    /// not access.
    Unknown(PathBuf),
}

/// The mounts that carry disk images.
#[derive(Debug)]
pub struct Mounts {
    /// The mountinfo file.
    source: PathBuf,
    /// Its content, to notice changes.
    text: Vec<u8>,
    table: MountTable,
    launch: Launch,
    checkers: Checkers,
    resolver: Resolver,
    paths: PathCache,
    /// Why a process could not be started in the last check.
    pub not_started: Option<String>,
}

impl Mounts {
    /// The mounts in the mount namespace of this process. `program` is this program: remote mounts are
    /// checked by processes of it, started with [`checker_process::FLAG`].
    #[must_use]
    pub fn new(program: &Path) -> Self {
        let mut mounts = Self::at(Path::new("/proc/self/mountinfo"), program);
        // If this fails, the first check tries again.
        let _ = mounts.resolver.start(&mounts.launch);
        mounts
    }

    /// The mounts in another mountinfo file.
    #[must_use]
    pub fn at(mountinfo: &Path, program: &Path) -> Self {
        Self {
            source: mountinfo.into(),
            text: Vec::new(),
            table: MountTable::default(),
            launch: Launch::Program(program.into()),
            checkers: Checkers::default(),
            resolver: Resolver::default(),
            paths: PathCache::default(),
            not_started: None,
        }
    }

    /// Checks the storage of these disk images. Those on [`Storage::Local`] are missing from the result.
    ///
    /// Takes at most [`MOUNT_ANSWERS`](crate::times::MOUNT_ANSWERS), whatever remote mount hangs, or
    /// [`LOCAL_PATHS`](crate::times::LOCAL_PATHS) while local file systems are waited for. Paths which are
    /// not among these, and mounts without any, are forgotten.
    pub fn check<P: AsRef<Path>>(&mut self, paths: &[P]) -> HashMap<PathBuf, Storage> {
        let start = Instant::now();
        self.not_started = None;
        self.receive_late_results();
        self.read_table();
        self.checkers.replace_ended(&self.launch);
        self.checkers.reap(self.resolver.take_closed());
        // As text: comparing paths component by component took longer than all the rest.
        let paths: HashSet<&OsStr> = paths.iter().map(|path| path.as_ref().as_os_str()).collect();
        self.paths.retain(&paths);

        let mut outcomes = WalkResults::default();
        for &path in paths.iter().filter(|path| Path::new(path).is_absolute()) {
            self.begin_path(path, start, &mut outcomes);
        }
        self.wait(start, &mut outcomes);

        // A mount that no longer carries a disk needs no checker. A checker that hangs is kept: if the
        // mount carries disks again, a second one would only hang beside it.
        let in_use = mounts_in_use(&outcomes);
        self.checkers
            .close(|id, state| !in_use.contains(&id) && !state.is_busy());
        // A walk that an earlier check began may have ended in this one, and its path may be unwanted by
        // now.
        outcomes
            .into_iter()
            .filter(|(path, _)| paths.contains(path.as_os_str()))
            .map(|(path, outcome)| (path, self.storage_of(&outcome)))
            .filter(|(_, storage)| *storage != Storage::Local)
            .chain(self.paths.unmounted())
            .collect()
    }

    /// The remote mounts that carry disk images, and how each has answered in the last check.
    pub fn remote(&self) -> Vec<(PathBuf, Health)> {
        let states = self.checkers.states.values();
        states
            .map(|state| (state.checker.mount.point.clone(), state.health()))
            .collect()
    }

    /// Whether a path lies on a file system of this kernel's own, if there is no symbolic link in it.
    #[must_use]
    pub fn is_local_as_written(&self, path: &Path) -> bool {
        let mount = self.table.mount_of(path);
        mount.is_some_and(|mount| {
            matches!(mount.kind, FileSystemKind::Kernel | FileSystemKind::Disk)
        })
    }

    /// Receives what was answered since the last check. What has not been answered by now counts as
    /// unanswered.
    fn receive_late_results(&mut self) {
        self.resolver.begin_check(&self.table);
        let states = self.checkers.states.values_mut();
        for (mut walk, result) in states.filter_map(MountState::begin_check) {
            // So a path on a slow mount advances by one component a check.
            if let WalkState::AtRemote(_) = walk.advance(&self.table, Some(result)) {
                self.paths.set_unfinished(walk);
            }
        }
    }

    /// Reads mountinfo anew. Any change of it invalidates all resolved paths.
    fn read_table(&mut self) {
        // If it cannot be read now (no descriptor left), the last table has to do.
        let Ok(text) = super::read_table(&self.source) else {
            return;
        };
        if text == self.text {
            return;
        }
        let table = MountTable::parse(&text);
        self.text = text;
        let states = &self.checkers.states;
        self.paths.table_changed(&self.table, &table, |id| {
            states.get(&id).is_some_and(MountState::is_dead)
        });
        self.resolver.drop_unmounted(&table);
        self.checkers.close_unmounted(&table);
        self.table = table;
    }

    /// Where the mount of this number is mounted.
    fn point(&self, id: u64) -> PathBuf {
        let mount = self.table.get(id);
        mount.map_or_else(|| "/".into(), |mount| mount.point.clone())
    }

    /// What an outcome means for the path: the worst of the mounts that it crosses decides.
    fn storage_of(&self, outcome: &PathOutcome) -> Storage {
        let health = |id: &u64| {
            // Without a state no checker could be started.
            let state = self.checkers.states.get(id);
            (state.map_or(Health::Unknown, MountState::health), *id)
        };
        let worst = outcome.mounts_crossed.iter().map(health).max();
        match (worst, &outcome.failure) {
            (Some((Health::Dead, id)), _) => Storage::Dead(self.point(id)),
            (Some((Health::Late, id)), _) => Storage::Late(self.point(id)),
            (Some((Health::Unknown, id)), _) => Storage::Unknown(self.point(id)),
            (Some((Health::Alive, _)) | None, Some(failure)) => failure.clone(),
            (Some((Health::Alive, _)), None) => Storage::Alive,
            (None, None) => Storage::Local,
        }
    }
}
