//! The host watcher: what the host says of the VMs before libvirt is asked, in a thread of its own, for
//! reading a process's command line can hang.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use uuid::Uuid;

use super::scheduler::HostVerdict;
use crate::config::BlockStatistics;
use crate::host::cgroups::{Cgroups, Usage};
use crate::host::{Mounts, NetDev, Processes, Storage};
use crate::libvirt::bulk::Groups;
use crate::maps::{HashMap, HashSet};
use crate::threads::{self, NotStarted};
use crate::vms::CachedDescription;

/// Whom to look at.
#[derive(Debug, Default)]
pub struct HostQuery {
    /// Comes back with the answer.
    pub number: u64,
    /// Each VM, and what is known of where its disks lie.
    pub vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>,
    /// Whether the network interfaces' counters are wanted,
    pub taps: bool,
    /// and the VMs' CPU time.
    pub cpus: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct HostReport {
    /// The question's number.
    pub number: u64,
    /// What it means for the gather.
    pub look: HostVerdict,
    /// VMs with a disk on a mount that does not answer, or has not in time.
    pub silent: HashSet<Uuid>,
    /// VMs whose QEMU is in sight, and of which it is not known where all their files lie, or whether
    /// that answers.
    pub unknown: HashSet<Uuid>,
    /// VMs whose disks all lie on file systems of this kernel's own.
    pub local: HashSet<Uuid>,
    /// Mounts that have not answered since an earlier look, and the VMs with a disk there.
    pub dead: BTreeMap<PathBuf, BTreeSet<Uuid>>,
    /// What the network interfaces have counted.
    pub taps: Option<NetDev>,
    /// The VMs whose QEMU is in that network.
    pub in_our_netns: HashSet<Uuid>,
    /// What the VMs' control groups say.
    pub cpus: HashMap<Uuid, Usage>,
    /// A thread or a process that could not be started for it, and the remedy.
    pub not_started: Option<String>,
}

/// From this version of libvirt on, virDomainBlockStats makes QEMU look at every file of the VM, as the
/// block group always did: query-named-block-nodes after query-blockstats (12.8 was seen to, 11.3 not
/// to; what lies between was not tried).
const TOUCHES: u64 = 11_004_000;

/// The way to the host watcher's thread, and what it saw last.
#[derive(Debug)]
pub struct HostWatcher {
    ask: Option<Sender<HostQuery>>,
    number: u64,
    waiting: bool,
    last: HostReport,
    block_statistics: BlockStatistics,
    /// libvirt makes QEMU look at a VM's files also when it is asked for one disk.
    touches: bool,
    /// What is read each time.
    taps: bool,
    cpus: bool,
}

impl HostWatcher {
    /// Nothing asked yet; without a thread to ask, nothing is ever seen. `groups` are those that
    /// libvirt would be asked for.
    pub fn new(
        ask: Option<Sender<HostQuery>>,
        block_statistics: BlockStatistics,
        groups: Groups,
    ) -> Self {
        Self {
            taps: groups.has(Groups::NET),
            cpus: groups.has(Groups::CPU),
            ask,
            number: 0,
            waiting: false,
            last: HostReport::default(),
            touches: false,
            block_statistics,
        }
    }

    /// Puts the question; `false` when nobody is there to answer it now.
    pub fn ask(&mut self, vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>) -> bool {
        // Should this look be late, the last one does not hold for a VM of which an event told since.
        for (uuid, _) in vms.iter().filter(|(_, known)| known.is_none()) {
            self.last.local.remove(uuid);
        }
        let Some(ask) = self.ask.as_ref().filter(|_| !self.waiting) else {
            return false;
        };
        self.number += 1;
        let number = self.number;
        let question = HostQuery {
            number,
            vms,
            taps: self.taps,
            cpus: self.cpus,
        };
        self.waiting = ask.send(question).is_ok();
        self.waiting
    }

    /// Takes an answer; `false` for one to an older question.
    pub fn take(&mut self, seen: HostReport) -> bool {
        self.waiting = false;
        let current = seen.number == self.number;
        self.last = seen;
        current
    }

    /// The daemon's version of libvirt.
    pub fn talks_to(&mut self, version: u64) {
        self.touches = version >= TOUCHES;
    }

    /// What was seen, and what the configuration makes of it.
    pub fn verdict(&self, domains: &[Uuid]) -> HostVerdict {
        let mut look = self.last.look.clone();
        match self.block_statistics {
            BlockStatistics::Auto => {}
            BlockStatistics::Bulk => look.no_block.clear(),
            BlockStatistics::PerDisk => look.no_block.extend(domains),
        }
        if self.leaves_out_disks() {
            look.no_disks = &self.last.silent | &self.last.unknown;
        }
        look
    }

    /// VMs whose disks are left out, for it is not known where all their files lie.
    pub fn left_out(&self) -> impl Iterator<Item = Uuid> {
        let unknown = self.last.unknown.iter().copied();
        unknown.filter(|_| self.leaves_out_disks())
    }

    /// VMs whose disks are left out, for a mount has not answered in time, though it is not dead.
    pub fn slow(&self) -> impl Iterator<Item = Uuid> {
        let dead: HashSet<Uuid> = self.last.dead.values().flatten().copied().collect();
        let slow = self.last.silent.iter().copied();
        slow.filter(move |uuid| self.leaves_out_disks() && !dead.contains(uuid))
    }

    /// Whether disks on a mount that does not answer are not even read one by one.
    pub fn leaves_out_disks(&self) -> bool {
        self.touches && self.block_statistics != BlockStatistics::Bulk
    }

    /// What to take for granted as long as an answer is out: a look is late when things hang, so
    /// only disks that lay on this host's own file systems are asked for in bulk. Where no answer
    /// will ever come, for the hypervisor is another host, there is nothing to wait for either.
    pub fn presumed(&self, domains: &[Uuid]) -> HostVerdict {
        let remote = self.ask.is_none();
        let doubtful = |uuid: &&Uuid| match self.block_statistics {
            BlockStatistics::Auto => !remote && !self.last.local.contains(*uuid),
            BlockStatistics::Bulk => false,
            BlockStatistics::PerDisk => true,
        };
        // Nor one by one, where that touches them as well.
        let left_out =
            |uuid: &&Uuid| self.leaves_out_disks() && !remote && !self.last.local.contains(*uuid);
        HostVerdict {
            stuck: self.last.look.stuck.clone(),
            no_block: domains.iter().filter(doubtful).copied().collect(),
            no_disks: domains.iter().filter(left_out).copied().collect(),
        }
    }

    /// Mounts that do not answer, and the VMs with a disk there.
    pub fn dead(&self) -> &BTreeMap<PathBuf, BTreeSet<Uuid>> {
        &self.last.dead
    }
}

/// Starts the host watcher; its answers go to `tell`.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(tell: impl Fn(HostReport) + Send + 'static) -> Result<Sender<HostQuery>, NotStarted> {
    let (ask, questions) = channel::<HostQuery>();
    let look = move || {
        let mut processes = Processes::new();
        // Also after an upgrade has put another program in this one's place.
        let mut mounts = Mounts::new(Path::new("/proc/self/exe"));
        let mut cgroups = Cgroups::default();
        while let Ok(question) = questions.recv() {
            let mut seen = see(&mut processes, &mut mounts, &question);
            // Last, so that what libvirt says is the younger.
            if question.taps {
                seen.taps = NetDev::read(Path::new("/proc")).ok();
                seen.in_our_netns = processes.in_our_netns();
            }
            if question.cpus {
                seen.cpus = cgroups.read(&processes.only());
            }
            let not_started = processes.not_started.as_ref();
            seen.not_started = not_started.or(mounts.not_started.as_ref()).cloned();
            tell(seen);
        }
    };
    threads::start("host watcher", look)?;
    Ok(ask)
}

/// The files that a VM's QEMU looks at when it is asked for block statistics.
struct Files<'t> {
    vm: Uuid,
    paths: Vec<&'t Path>,
    /// Whether the paths are surely all, and QEMU waits for nothing else.
    complete: bool,
    /// There may be other files.
    unresolved: bool,
}

fn files<'t>(
    processes: &'t Processes,
    (vm, known): &'t (Uuid, Option<Arc<CachedDescription>>),
) -> Files<'t> {
    let mut files = Files {
        vm: *vm,
        paths: Vec::new(),
        complete: false,
        unresolved: known.is_none(),
    };
    if let Some(known) = known {
        files.unresolved = known.unresolved;
        files.paths.extend(known.paths());
        for number in known.volumes() {
            match processes.node(*vm, *number) {
                Some(path) => files.paths.push(path),
                // Plugged in later, or a driver of QEMU's own.
                None => files.unresolved = true,
            }
        }
        let description = known.description.as_ref();
        let waits = description.is_some_and(|known| known.waits_for_server);
        files.complete = !files.unresolved && !waits;
    }
    files
}

fn see(processes: &mut Processes, mounts: &mut Mounts, question: &HostQuery) -> HostReport {
    let uuids: Vec<Uuid> = question.vms.iter().map(|(uuid, _)| *uuid).collect();
    let seen = processes.look(&uuids);
    let files: Vec<Files> = question.vms.iter().map(|vm| files(processes, vm)).collect();
    let paths: Vec<&Path> = files
        .iter()
        .flat_map(|files| &files.paths)
        .copied()
        .collect();
    let mut storage: HashMap<PathBuf, Storage> = mounts.look(&paths);
    // libvirt keeps the variables of the firmware in a folder that no ordinary user enters, and puts
    // no link there.
    let known = question.vms.iter().filter_map(|(_, known)| known.as_ref());
    let descriptions = known.filter_map(|known| known.description.as_ref());
    for path in descriptions
        .flat_map(|known| &known.firmware)
        .map(Path::new)
    {
        if matches!(storage.get(path), Some(Storage::Unknown(_))) && mounts.is_plainly_local(path) {
            storage.remove(path);
        }
    }
    let mut no_block = HashSet::default();
    let mut local = HashSet::default();
    let mut silent = HashSet::default();
    let mut unknown = HashSet::default();
    let mut dead: BTreeMap<PathBuf, BTreeSet<Uuid>> = BTreeMap::new();
    for files in &files {
        let uuid = files.vm;
        // Where our /proc does not show a VM's QEMU, our mounts need not be its mounts either.
        let out_of_sight =
            seen.unseen.contains(&uuid) && files.paths.iter().any(|path| path.is_absolute());
        if out_of_sight || !files.complete {
            no_block.insert(uuid);
        }
        // Of a QEMU out of sight nothing can be known, so there it is no reason to do without disks.
        let in_sight = !seen.unseen.contains(&uuid);
        if in_sight && files.unresolved {
            unknown.insert(uuid);
        }
        if files.complete && !files.paths.iter().any(|path| storage.contains_key(*path)) {
            local.insert(uuid);
        }
        if storage.is_empty() {
            continue;
        }
        for path in &files.paths {
            match storage.get(*path) {
                Some(Storage::Dead(mount)) => {
                    no_block.insert(uuid);
                    silent.insert(uuid);
                    dead.entry(mount.clone()).or_default().insert(uuid);
                }
                Some(Storage::Late(_)) => {
                    no_block.insert(uuid);
                    silent.insert(uuid);
                }
                Some(Storage::Unknown(_)) => {
                    no_block.insert(uuid);
                    if in_sight {
                        unknown.insert(uuid);
                    }
                }
                Some(Storage::Local | Storage::Alive) | None => {}
            }
        }
    }
    HostReport {
        number: question.number,
        local: &local - &no_block,
        look: HostVerdict {
            stuck: seen.stuck,
            no_block,
            ..HostVerdict::default()
        },
        silent,
        unknown,
        dead,
        ..HostReport::default()
    }
}

#[cfg(test)]
mod tests;
