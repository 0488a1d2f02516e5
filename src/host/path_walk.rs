//! A path followed through its symbolic links, without a step onto a mount that may hang.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::path::{Component, Path, PathBuf};

use super::checker_process::{Answer, link};
use super::mount_table::{Ground, Table};

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// A path on its way.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    /// The path that was asked for.
    pub asked: PathBuf,
    /// The remote mounts that the way leads over, by number.
    pub trail: Vec<u64>,
    /// Followed already: no link in it.
    done: PathBuf,
    left: VecDeque<OsString>,
    links: u32,
}

/// Where a walk came to.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Stop {
    /// At the file.
    End,
    /// On the remote mount of this number, where only its checker may look at [`Walk::place`].
    Before(u64),
    /// On the local file system with this number, where only a process of its own may look at
    /// [`Walk::place`].
    OnDisk(u64),
    /// Nowhere: at this mount point the way is not known.
    Lost(PathBuf),
    /// The storage says that it is dead.
    Dead(PathBuf),
}

impl Walk {
    /// At its start. `path` is absolute.
    pub fn new(path: &Path) -> Self {
        let mut walk = Self {
            asked: path.into(),
            trail: Vec::new(),
            done: PathBuf::from("/"),
            left: VecDeque::new(),
            links: 0,
        };
        walk.prepend(path);
        walk
    }

    fn prepend(&mut self, path: &Path) {
        for component in path.components().rev() {
            match component {
                Component::Normal(name) => self.left.push_front(name.into()),
                Component::ParentDir => self.left.push_front("..".into()),
                Component::CurDir | Component::RootDir | Component::Prefix(_) => {}
            }
        }
    }

    /// What has to be looked at next.
    pub fn place(&self) -> PathBuf {
        let name = self.left.front();
        name.map_or_else(|| self.done.clone(), |name| self.done.join(name))
    }

    /// Goes on over file systems of the kernel alone, as far as it can; `answer` is what
    /// [`Walk::place`] is, where a checker had to be asked for it.
    ///
    /// Only what stands on such ground is touched: each component's mount is known by its name
    /// before the component is looked at.
    pub fn advance(&mut self, table: &Table, mut answer: Option<Answer>) -> Stop {
        while let Some(name) = self.left.pop_front() {
            if name == ".." {
                self.done.pop();
                continue;
            }
            if let Err(stop) = self.step(&name, table, answer.take()) {
                self.left.push_front(name);
                return stop;
            }
        }
        match table.mount_of(&self.done) {
            Some(mount) if mount.ground != Ground::Automount => Stop::End,
            Some(mount) => Stop::Lost(mount.point.clone()),
            None => Stop::Lost("/".into()),
        }
    }

    fn step(&mut self, name: &OsStr, table: &Table, answer: Option<Answer>) -> Result<(), Stop> {
        let next = self.done.join(name);
        let mount = table.mount_of(&next).ok_or(Stop::Lost("/".into()))?;
        match mount.ground {
            // A look would mount it. There are folders only down to where something is mounted.
            Ground::Automount => {
                self.done = next;
                return Ok(());
            }
            Ground::Remote if !self.trail.contains(&mount.id) => self.trail.push(mount.id),
            Ground::Remote | Ground::Disk | Ground::Kernel => {}
        }
        let answer = match (answer, mount.ground) {
            (Some(answer), _) => answer,
            (None, Ground::Remote) => return Err(Stop::Before(mount.id)),
            (None, Ground::Disk) => return Err(Stop::OnDisk(mount.id)),
            (None, Ground::Kernel | Ground::Automount) => link(&next),
        };
        match answer {
            Answer::Link(target) => {
                self.links += 1;
                if self.links > MOST_LINKS {
                    return Err(Stop::Lost(mount.point.clone()));
                }
                if target.has_root() {
                    self.done = PathBuf::from("/");
                }
                self.prepend(&target);
            }
            Answer::Alive => self.done = next,
            Answer::Dead => return Err(Stop::Dead(mount.point.clone())),
            Answer::Unknown => return Err(Stop::Lost(mount.point.clone())),
        }
        Ok(())
    }
}
