//! Follows a path through its symbolic links without touching a mount that may hang.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::checker_process::{CheckResult, read_link};
use super::table::{FileSystemKind, MountTable};

/// The number of links which the kernel follows in one path (path_resolution(7)).
const MAX_LINKS: u32 = 40;

/// A path that is being followed.
#[derive(Debug, Clone)]
pub(super) struct PathWalk {
    /// The path as it was given.
    pub path: PathBuf,
    /// The remote mounts that have been crossed so far, by number.
    pub mounts_crossed: Vec<u64>,
    /// The part that has been followed. It contains no link.
    resolved: PathBuf,
    /// The components that remain to be followed.
    remaining: VecDeque<OsString>,
    links_followed: u32,
}

/// Where a walk has stopped.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum WalkState {
    /// At the file.
    Resolved,
    /// On the remote mount of this number. Only its checker may access [`PathWalk::next_path`].
    AtRemote(u64),
    /// On the local file system of this number. Only the path resolver may access
    /// [`PathWalk::next_path`].
    AtDisk(u64),
    /// On the mount at this point, where the path cannot be followed further.
    Unknown(PathBuf),
    /// On the mount at this point, which reports that it is dead.
    Dead(PathBuf),
}

impl PathWalk {
    /// A walk at its start. `path` is absolute.
    pub fn new(path: &Path) -> Self {
        let mut walk = Self {
            path: path.into(),
            mounts_crossed: Vec::new(),
            resolved: PathBuf::from("/"),
            remaining: VecDeque::new(),
            links_followed: 0,
        };
        walk.prepend(path);
        walk
    }

    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.remaining.push_front(name.into()),
                Component::ParentDir => self.remaining.push_front("..".into()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
    }

    /// The path that has to be checked next.
    pub fn next_path(&self) -> PathBuf {
        let name = self.remaining.front();
        name.map_or_else(|| self.resolved.clone(), |name| self.resolved.join(name))
    }

    /// Follows the path as far as it lies on file systems that depend on the kernel alone. `result` is the
    /// result of checking [`PathWalk::next_path`], where a checker had to do that.
    ///
    /// Nothing else is touched: the mount of each component is known by the component's name before
    /// the component is accessed.
    pub fn advance(&mut self, table: &MountTable, mut result: Option<CheckResult>) -> WalkState {
        while let Some(name) = self.remaining.pop_front() {
            if name == ".." {
                self.resolved.pop();
                continue;
            }
            if let Err(state) = self.step(&name, table, result.take()) {
                self.remaining.push_front(name);
                return state;
            }
        }
        match table.mount_of(&self.resolved) {
            Some(mount) if mount.kind != FileSystemKind::Automount => WalkState::Resolved,
            Some(mount) => WalkState::Unknown(mount.point.clone()),
            None => WalkState::Unknown("/".into()),
        }
    }

    fn step(
        &mut self,
        name: &OsStr,
        table: &MountTable,
        result: Option<CheckResult>,
    ) -> Result<(), WalkState> {
        let next = self.resolved.join(name);
        let mount = table
            .mount_of(&next)
            .ok_or(WalkState::Unknown("/".into()))?;
        match mount.kind {
            // Any access would mount something. Above a mounted file system there are only folders.
            FileSystemKind::Automount => {
                self.resolved = next;
                return Ok(());
            }
            FileSystemKind::Remote if !self.mounts_crossed.contains(&mount.id) => {
                self.mounts_crossed.push(mount.id)
            }
            FileSystemKind::Remote | FileSystemKind::Disk | FileSystemKind::Kernel => {}
        }
        let result = match (result, mount.kind) {
            (Some(result), _) => result,
            (None, FileSystemKind::Remote) => return Err(WalkState::AtRemote(mount.id)),
            (None, FileSystemKind::Disk) => return Err(WalkState::AtDisk(mount.id)),
            (None, FileSystemKind::Kernel | FileSystemKind::Automount) => read_link(&next),
        };
        match result {
            CheckResult::Link(target) => {
                self.links_followed += 1;
                if self.links_followed > MAX_LINKS {
                    return Err(WalkState::Unknown(mount.point.clone()));
                }
                if target.has_root() {
                    self.resolved = PathBuf::from("/");
                }
                self.prepend(&target);
            }
            CheckResult::Alive => self.resolved = next,
            CheckResult::Dead => return Err(WalkState::Dead(mount.point.clone())),
            CheckResult::Unknown => return Err(WalkState::Unknown(mount.point.clone())),
        }
        Ok(())
    }
}
