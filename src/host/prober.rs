//! A thread per remote mount, the only one that touches it. It may hang; nobody waits for it.

use std::io;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;

use rustix::fs::statvfs;

use super::mount_table::{Mount, Table};
use super::walk::{Stop, Walk, means_dead};

/// Whether a mount answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Verdict {
    /// It answered just now.
    Alive,
    /// It does not, or says itself that it is dead.
    Dead,
    /// We may not know.
    Unknown,
}

/// One thing to do.
#[derive(Debug)]
enum Job {
    Probe,
    Walk(Walk, Arc<Table>),
}

/// What was done.
#[derive(Debug)]
pub(super) enum Done {
    /// Asked whether it answers.
    Probe(Verdict),
    /// A walk, and where it stopped.
    Walk(Walk, Stop),
}

/// By whom, and what.
#[derive(Debug)]
pub(super) struct Report {
    /// The mount's number.
    pub mount: u64,
    /// Which prober: a mount's number may be taken again while an old prober still hangs.
    pub serial: u64,
    /// What it did.
    pub done: Done,
}

/// The near end of a prober's thread. Dropped, the thread ends as soon as it returns.
#[derive(Debug)]
pub(super) struct Prober {
    /// What it probes.
    pub mount: Mount,
    /// Which prober.
    pub serial: u64,
    jobs: Sender<Job>,
}

impl Prober {
    /// Starts the thread; what it does it reports to `tell`.
    ///
    /// # Errors
    /// The system's, when no thread can be started.
    pub fn start(mount: &Mount, serial: u64, tell: Sender<Report>) -> io::Result<Self> {
        let (jobs, inbox) = channel();
        let (id, point) = (mount.id, mount.point.clone());
        let thread = thread::Builder::new().name("mount prober".into());
        thread.spawn(move || work(id, serial, &point, &inbox, &tell))?;
        let mount = mount.clone();
        Ok(Self {
            mount,
            serial,
            jobs,
        })
    }

    /// Asks the mount whether it answers.
    pub fn probe(&self) {
        // The thread outlives its sender: this cannot fail.
        let _ = self.jobs.send(Job::Probe);
    }

    /// Lets a walk go on over this mount.
    pub fn walk(&self, walk: Walk, table: &Arc<Table>) {
        let _ = self.jobs.send(Job::Walk(walk, Arc::clone(table)));
    }
}

fn work(mount: u64, serial: u64, point: &Path, inbox: &Receiver<Job>, tell: &Sender<Report>) {
    for job in inbox {
        let done = match job {
            Job::Probe => Done::Probe(probe(point)),
            Job::Walk(mut walk, table) => {
                let stop = walk.advance(&table, Some(mount));
                Done::Walk(walk, stop)
            }
        };
        let report = Report {
            mount,
            serial,
            done,
        };
        if tell.send(report).is_err() {
            return;
        }
    }
}

/// One statvfs: the servers of all kinds of mounts must answer it afresh.
fn probe(point: &Path) -> Verdict {
    match statvfs(point) {
        // To users that a FUSE mount does not serve the kernel itself gives success, and nothing in
        // it (fuse_statfs).
        Ok(answer) if answer.f_bsize == 0 => Verdict::Unknown,
        Ok(_) => Verdict::Alive,
        Err(error) if means_dead(&error.into()) => Verdict::Dead,
        Err(_) => Verdict::Unknown,
    }
}
