//! What earlier checks have found out about paths.

use std::ffi::{OsStr, OsString};
use std::path::PathBuf;
use std::time::{Duration, Instant};

use super::Storage;
use super::path_walk::PathWalk;
use super::table::{Mount, MountTable};
use crate::maps::{HashMap, HashSet};

/// A path is resolved again after this time, for its symbolic links may have changed.
pub(super) const RESOLVED_TTL: Duration = Duration::from_secs(60);

/// The paths of the last check.
#[derive(Debug, Default)]
pub(super) struct PathCache {
    /// The remote mounts that a path crosses, by number, and when the path was resolved.
    pub resolved: HashMap<OsString, (Vec<u64>, Instant)>,
    /// The paths of which a mount was unmounted (`umount -l`) while they were in use. A QEMU which has
    /// the file open still has the one on that mount, whatever has been mounted there since.
    unmounted: HashMap<OsString, Unmounted>,
    /// The walks of paths whose next component lies on a remote mount, and since when they wait for
    /// it. While that mount does not answer, the components before it are not looked up again.
    unfinished: HashMap<OsString, (PathWalk, Instant)>,
}

/// A mount which was unmounted, and what is known about a path across it.
#[derive(Debug)]
struct Unmounted {
    mount: Mount,
    storage: Storage,
}

impl PathCache {
    /// Forgets all paths but these.
    pub fn retain(&mut self, paths: &HashSet<&OsStr>) {
        self.resolved.retain(|path, _| paths.contains(&**path));
        self.unmounted.retain(|path, _| paths.contains(&**path));
        self.unfinished.retain(|path, _| paths.contains(&**path));
    }

    /// The remote mounts that a path crosses, unless this has to be found out again.
    pub fn mounts_crossed(&self, path: &OsStr, now: Instant) -> Option<&Vec<u64>> {
        let (mounts, since) = self.resolved.get(path)?;
        is_fresh(*since, now).then_some(mounts)
    }

    /// The remote mounts that a path crossed when it was last resolved, however long ago.
    pub fn last_crossed(&self, path: &OsStr) -> Option<&Vec<u64>> {
        self.resolved.get(path).map(|(mounts, _)| mounts)
    }

    /// Takes the walk of a path that waits for a remote mount.
    pub fn take_unfinished(&mut self, path: &OsStr, now: Instant) -> Option<PathWalk> {
        let (walk, since) = self.unfinished.remove(path)?;
        is_fresh(since, now).then_some(walk)
    }

    /// A walk waits for a remote mount.
    pub fn set_unfinished(&mut self, walk: PathWalk) {
        let path = walk.path.clone();
        self.unfinished.insert(path.into(), (walk, Instant::now()));
    }

    /// A walk no longer waits for a remote mount.
    pub fn drop_unfinished(&mut self, path: &OsStr) {
        self.unfinished.remove(path);
    }

    /// A path was resolved and crosses these remote mounts.
    pub fn set_resolved(&mut self, path: &OsStr, mounts_crossed: Vec<u64>) {
        self.resolved
            .insert(path.into(), (mounts_crossed, Instant::now()));
    }

    /// A path cannot be resolved any more.
    pub fn set_unresolvable(&mut self, path: &OsStr) {
        self.resolved.remove(path);
    }

    /// Forgets all that depends on the mount table, which has changed from `old` to `new`.
    pub fn table_changed(
        &mut self,
        old: &MountTable,
        new: &MountTable,
        is_dead: impl Fn(u64) -> bool,
    ) {
        for (path, (mounts_crossed, _)) in self.resolved.drain() {
            let unmounted = mounts_crossed
                .iter()
                .find(|id| new.get(**id) != old.get(**id))
                .and_then(|id| old.get(*id));
            let Some(mount) = unmounted.cloned() else {
                continue;
            };
            let storage = match is_dead(mount.id) {
                true => Storage::Dead(mount.point.clone()),
                false => Storage::Unknown(mount.point.clone()),
            };
            let unmounted = Unmounted { mount, storage };
            self.unmounted.entry(path).or_insert(unmounted);
        }
        self.unmounted
            .retain(|_, unmounted| !new.is_mounted_again(&unmounted.mount));
        self.unfinished.clear();
    }

    /// The storage of the paths of which a mount was unmounted.
    pub fn unmounted(&self) -> impl Iterator<Item = (PathBuf, Storage)> {
        self.unmounted
            .iter()
            .map(|(path, unmounted)| (path.into(), unmounted.storage.clone()))
    }
}

fn is_fresh(since: Instant, now: Instant) -> bool {
    now.saturating_duration_since(since) < RESOLVED_TTL
}
