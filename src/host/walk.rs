//! A path followed through its symbolic links, without a step onto a mount that may hang.

use std::collections::VecDeque;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io;
use std::path::{Component, Path, PathBuf};

use rustix::io::Errno;

use super::mount_table::{Ground, Table};

/// As many links as the kernel follows (path_resolution(7)).
const MOST_LINKS: u32 = 40;

/// A path on its way.
#[derive(Debug)]
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
    /// Before a remote mount of this number: only its own thread goes on.
    Before(u64),
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

    /// Goes on over local file systems, and over the mount `trusted`, as far as it can.
    ///
    /// Only what stands on such ground is touched: each component's mount is known by its name
    /// before the component is looked at.
    pub fn advance(&mut self, table: &Table, trusted: Option<u64>) -> Stop {
        while let Some(name) = self.left.pop_front() {
            if name == ".." {
                self.done.pop();
                continue;
            }
            if let Err(stop) = self.step(&name, table, trusted) {
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

    fn step(&mut self, name: &OsStr, table: &Table, trusted: Option<u64>) -> Result<(), Stop> {
        let next = self.done.join(name);
        let mount = table.mount_of(&next).ok_or(Stop::Lost("/".into()))?;
        match mount.ground {
            // A look would mount it. There are folders only down to where something is mounted.
            Ground::Automount => {
                self.done = next;
                return Ok(());
            }
            Ground::Remote if !self.trail.contains(&mount.id) => self.trail.push(mount.id),
            Ground::Remote | Ground::Local => {}
        }
        if mount.ground == Ground::Remote && trusted != Some(mount.id) {
            return Err(Stop::Before(mount.id));
        }
        match fs::read_link(&next) {
            Ok(target) => {
                self.links += 1;
                if self.links > MOST_LINKS {
                    return Err(Stop::Lost(mount.point.clone()));
                }
                if target.has_root() {
                    self.done = PathBuf::from("/");
                }
                self.prepend(&target);
            }
            Err(error) if Errno::from_io_error(&error) == Some(Errno::INVAL) => self.done = next,
            Err(error) if means_dead(&error) => return Err(Stop::Dead(mount.point.clone())),
            Err(_) => return Err(Stop::Lost(mount.point.clone())),
        }
        Ok(())
    }
}

/// Whether an error says that the storage is dead, and not that we may not look.
///
/// ENOTCONN and ECONNABORTED come from FUSE whose server is gone, ESTALE from NFS, EHOSTDOWN from
/// CIFS, ESHUTDOWN from Ceph, EIO and ETIMEDOUT from whoever gave up.
pub(super) fn means_dead(error: &io::Error) -> bool {
    let dead = [
        Errno::NOTCONN,
        Errno::CONNABORTED,
        Errno::CONNREFUSED,
        Errno::CONNRESET,
        Errno::HOSTDOWN,
        Errno::HOSTUNREACH,
        Errno::NETDOWN,
        Errno::NETUNREACH,
        Errno::IO,
        Errno::REMOTEIO,
        Errno::NODEV,
        Errno::SHUTDOWN,
        Errno::STALE,
        Errno::TIMEDOUT,
    ];
    Errno::from_io_error(error).is_some_and(|errno| dead.contains(&errno))
}
