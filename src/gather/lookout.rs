//! The lookout: what the host says of the VMs before libvirt is asked, in a thread of its own, for
//! reading a process's command line can hang.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::io;
use std::path::PathBuf;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use uuid::Uuid;

use super::engine::Look;
use crate::config::BlockStatistics;
use crate::host::{Mounts, Processes, Storage};

/// Whom to look at.
#[derive(Debug, Default)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// Each VM, and the local paths that its disks lie at.
    pub vms: Vec<(Uuid, Vec<PathBuf>)>,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The question's number.
    pub number: u64,
    /// What it means for the gather.
    pub look: Look,
    /// Mounts that do not answer, and the VMs with a disk there.
    pub dead: BTreeMap<PathBuf, BTreeSet<Uuid>>,
}

/// The way to the lookout's thread, and what it saw last.
#[derive(Debug)]
pub struct Lookout {
    ask: Option<Sender<Question>>,
    number: u64,
    waiting: bool,
    last: Seen,
    block_statistics: BlockStatistics,
}

impl Lookout {
    /// Nothing asked yet; without a thread to ask, nothing is ever seen.
    pub fn new(ask: Option<Sender<Question>>, block_statistics: BlockStatistics) -> Self {
        Self {
            ask,
            number: 0,
            waiting: false,
            last: Seen::default(),
            block_statistics,
        }
    }

    /// Puts the question; `false` when nobody is there to answer it now.
    pub fn ask(&mut self, vms: Vec<(Uuid, Vec<PathBuf>)>) -> bool {
        let Some(ask) = self.ask.as_ref().filter(|_| !self.waiting) else {
            return false;
        };
        self.number += 1;
        let number = self.number;
        self.waiting = ask.send(Question { number, vms }).is_ok();
        self.waiting
    }

    /// Takes an answer; `false` for one to an older question.
    pub fn take(&mut self, seen: Seen) -> bool {
        self.waiting = false;
        let current = seen.number == self.number;
        self.last = seen;
        current
    }

    /// What was seen, and what the configuration makes of it.
    pub fn verdict(&self, domains: &[Uuid]) -> Look {
        let mut look = self.last.look.clone();
        match self.block_statistics {
            BlockStatistics::Auto => {}
            BlockStatistics::Bulk => look.no_block.clear(),
            BlockStatistics::PerDisk => look.no_block.extend(domains),
        }
        look
    }

    /// Mounts that do not answer, and the VMs with a disk there.
    pub fn dead(&self) -> &BTreeMap<PathBuf, BTreeSet<Uuid>> {
        &self.last.dead
    }
}

/// Starts the lookout; its answers go to `tell`.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(tell: impl Fn(Seen) + Send + 'static) -> io::Result<Sender<Question>> {
    let (ask, questions) = channel::<Question>();
    let look = move || {
        let mut processes = Processes::new();
        let mut mounts = Mounts::new();
        while let Ok(question) = questions.recv() {
            tell(see(&mut processes, &mut mounts, &question));
        }
    };
    let thread = thread::Builder::new().name("lookout".into());
    thread.spawn(look)?;
    Ok(ask)
}

fn see(processes: &mut Processes, mounts: &mut Mounts, question: &Question) -> Seen {
    let uuids: Vec<Uuid> = question.vms.iter().map(|(uuid, _)| *uuid).collect();
    let seen = processes.look(&uuids);
    let paths: HashSet<&PathBuf> = question.vms.iter().flat_map(|(_, paths)| paths).collect();
    let paths: Vec<PathBuf> = paths.into_iter().cloned().collect();
    let storage: HashMap<PathBuf, Storage> = mounts.look(&paths);
    let mut no_block = HashSet::new();
    let mut dead: BTreeMap<PathBuf, BTreeSet<Uuid>> = BTreeMap::new();
    for (uuid, paths) in &question.vms {
        // Where our /proc does not show a VM's QEMU, our mounts need not be its mounts either.
        if seen.unseen.contains(uuid) && paths.iter().any(|path| path.is_absolute()) {
            no_block.insert(*uuid);
        }
        for path in paths {
            match storage.get(path) {
                Some(Storage::Dead(mount)) => {
                    no_block.insert(*uuid);
                    dead.entry(mount.clone()).or_default().insert(*uuid);
                }
                Some(Storage::Unknown(_)) => {
                    no_block.insert(*uuid);
                }
                Some(Storage::Local | Storage::Alive) | None => {}
            }
        }
    }
    Seen {
        number: question.number,
        look: Look {
            stuck: seen.stuck,
            no_block,
        },
        dead,
    }
}
