//! The freezer of cgroup v2: a process frozen by its control group (`systemctl freeze`,
//! `cgroup.freeze`) shows the state S in `/proc`, as if it waited for something to do
//! (do_freezer_trap in the kernel's kernel/signal.c). The freezer of cgroup v1 shows D.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::pread;

/// A process's group is looked up anew after so long: it may have been moved to another.
const LOOKUP_TTL: Duration = Duration::from_secs(60);

/// The v2 control group of one process. One descriptor stays open.
#[derive(Debug)]
pub(super) struct Freezer {
    /// `cgroup.events` of the group. `None` where the process is in none, or the group is out of
    /// our sight: the root group has no such file and cannot be frozen.
    events: Option<File>,
    /// When it was looked up; `None`: it was removed since.
    since: Option<Instant>,
}

impl Freezer {
    /// That of the process whose folder in `/proc` is `process`, below the mount point `cgroups`.
    pub fn of(process: &Path, cgroups: &Path, now: Instant) -> Self {
        Self {
            events: events(process, cgroups),
            since: Some(now),
        }
    }

    /// Whether it is time to look the group up again.
    pub fn needs_lookup(&self, now: Instant) -> bool {
        let fresh = |since| now.saturating_duration_since(since) < LOOKUP_TTL;
        !self.since.is_some_and(fresh)
    }

    /// Whether all of the group is frozen, by itself or by any group above it. Takes 0.4 us.
    pub fn is_frozen(&mut self) -> bool {
        let mut buffer = [0; 256];
        let Some(events) = &self.events else {
            return false;
        };
        match pread(events, &mut buffer, 0) {
            Ok(length) => is_frozen_in(&buffer[..length]),
            // The group was removed: the process left it before.
            Err(_) => {
                self.events = None;
                self.since = None;
                false
            }
        }
    }
}

/// Opens `cgroup.events` of the group that the line `0::PATH` names.
fn events(process: &Path, cgroups: &Path) -> Option<File> {
    let text = fs::read_to_string(process.join("cgroup")).ok()?;
    let path = text.lines().find_map(|line| line.strip_prefix("0::"))?;
    let place = Path::new(path.trim_start_matches('/')).join("cgroup.events");
    // Beside v1's hierarchies v2's is mounted in a folder of its own.
    let mut roots = [cgroups.to_path_buf(), cgroups.join("unified")].into_iter();
    roots.find_map(|root| File::open(root.join(&place)).ok())
}

/// `KEY VALUE`, a line each.
fn is_frozen_in(events: &[u8]) -> bool {
    let mut lines = events.split(|byte| *byte == b'\n');
    lines.any(|line| line == b"frozen 1")
}
