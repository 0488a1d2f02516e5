//! The freezer of cgroup v2.
//!
//! A process which its control group has frozen (`systemctl freeze`, `cgroup.freeze`) has the state S
//! in `/proc`, as if it waited for something to do (do_freezer_trap in the kernel's kernel/signal.c).
//! Only the control group tells the difference. With the freezer of cgroup v1 the state is D.

use std::fs::{self, File};
use std::path::Path;
use std::time::{Duration, Instant};

use rustix::io::pread;

/// The group of a process is looked up again after this time, for the process may have been moved to
/// another group.
const LOOKUP_TTL: Duration = Duration::from_secs(60);

/// The v2 control group of one process. One descriptor stays open.
#[derive(Debug)]
pub(super) struct Freezer {
    /// `cgroup.events` of the group. `None` where the process is in no group, where the group is not
    /// visible, and for the root group, which has no such file and cannot be frozen.
    events: Option<File>,
    /// When the group was looked up. `None` if it has been removed since.
    since: Option<Instant>,
}

impl Freezer {
    /// Looks up the group of the process with the folder `process` in `/proc`. Control groups are
    /// mounted at `cgroups`.
    pub fn of(process: &Path, cgroups: &Path, now: Instant) -> Self {
        Self {
            events: events(process, cgroups),
            since: Some(now),
        }
    }

    /// Whether the group is to be looked up again.
    pub fn needs_lookup(&self, now: Instant) -> bool {
        let fresh = |since| now.saturating_duration_since(since) < LOOKUP_TTL;
        !self.since.is_some_and(fresh)
    }

    /// Whether the whole group is frozen, by itself or through a group above it. Takes 0.4 us.
    pub fn is_frozen(&mut self) -> bool {
        let mut buffer = [0; 256];
        let Some(events) = &self.events else {
            return false;
        };
        match pread(events, &mut buffer, 0) {
            Ok(length) => is_frozen_in(&buffer[..length]),
            // The group was removed, so the process had left it before.
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
    // Where v1 is mounted at the root, v2 is mounted at its folder `unified`.
    let mut roots = [cgroups.to_path_buf(), cgroups.join("unified")].into_iter();
    roots.find_map(|root| File::open(root.join(&place)).ok())
}

/// Whether `cgroup.events`, which has lines of `KEY VALUE`, says that the group is frozen.
fn is_frozen_in(events: &[u8]) -> bool {
    events
        .split(|byte| *byte == b'\n')
        .any(|line| line == b"frozen 1")
}
