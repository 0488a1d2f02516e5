//! The host watcher: what the host says of the VMs before libvirt is asked, in a thread of its own, for
//! reading a process's command line can hang.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use uuid::Uuid;

use super::scheduler::HostVerdict;
use crate::config::BlockStatistics;
use crate::description_cache::CachedDescription;
use crate::host::qemu::cgroups::{Cgroups, CpuUsage};
use crate::host::{Mounts, NetDev, Processes, Storage};
use crate::libvirt::bulk::Groups;
use crate::maps::{HashMap, HashSet};
use crate::threads::{self, NotStarted};

/// Whom to look at.
#[derive(Debug, Default)]
pub struct HostQuery {
    /// Comes back with the answer.
    pub number: u64,
    /// Each VM, and what is known of where its disks lie.
    pub vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>,
    /// Whether the network interfaces' counters are wanted,
    pub wants_net_dev: bool,
    /// and the VMs' CPU time.
    pub wants_cpu_usage: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct HostReport {
    /// The question's number.
    pub number: u64,
    /// What it means for the gather.
    pub verdict: HostVerdict,
    /// VMs with a disk on a mount that does not answer, or has not in time.
    pub on_unanswering_mount: HashSet<Uuid>,
    /// VMs whose QEMU is in sight, and of which it is not known where all their files lie, or whether
    /// that answers.
    pub on_unknown_storage: HashSet<Uuid>,
    /// VMs whose disks all lie on file systems of this kernel's own.
    pub all_disks_local: HashSet<Uuid>,
    /// Mounts that have not answered since an earlier look, and the VMs with a disk there.
    pub dead_mounts: BTreeMap<PathBuf, BTreeSet<Uuid>>,
    /// What the network interfaces have counted.
    pub net_dev: Option<NetDev>,
    /// The VMs whose QEMU is in that network.
    pub in_our_netns: HashSet<Uuid>,
    /// What the VMs' control groups say.
    pub cpu_usage: HashMap<Uuid, CpuUsage>,
    /// A thread or a process that could not be started for it, and the remedy.
    pub not_started: Option<String>,
}

/// From this version of libvirt on, virDomainBlockStats makes QEMU look at every file of the VM, as the
/// block group always did: query-named-block-nodes after query-blockstats (12.8 was seen to, 11.3 not
/// to; what lies between was not tried).
const PER_DISK_READS_ALL_FILES_SINCE: u64 = 11_004_000;

/// The way to the host watcher's thread, and what it saw last.
#[derive(Debug)]
pub struct HostWatcher {
    ask: Option<Sender<HostQuery>>,
    number: u64,
    waiting: bool,
    last: HostReport,
    block_statistics: BlockStatistics,
    /// libvirt makes QEMU look at a VM's files also when it is asked for one disk.
    per_disk_reads_all_files: bool,
    /// What is read each time.
    wants_net_dev: bool,
    wants_cpu_usage: bool,
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
            wants_net_dev: groups.has(Groups::NET),
            wants_cpu_usage: groups.has(Groups::CPU),
            ask,
            number: 0,
            waiting: false,
            last: HostReport::default(),
            per_disk_reads_all_files: false,
            block_statistics,
        }
    }

    /// Puts the question; `false` when nobody is there to answer it now.
    pub fn ask(&mut self, vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>) -> bool {
        // Should this look be late, the last one does not hold for a VM of which an event told since.
        for (uuid, _) in vms.iter().filter(|(_, known)| known.is_none()) {
            self.last.all_disks_local.remove(uuid);
        }
        let Some(ask) = self.ask.as_ref().filter(|_| !self.waiting) else {
            return false;
        };
        self.number += 1;
        let number = self.number;
        let query = HostQuery {
            number,
            vms,
            wants_net_dev: self.wants_net_dev,
            wants_cpu_usage: self.wants_cpu_usage,
        };
        self.waiting = ask.send(query).is_ok();
        self.waiting
    }

    /// Takes an answer; `false` for one to an older question.
    pub fn accept(&mut self, report: HostReport) -> bool {
        self.waiting = false;
        let current = report.number == self.number;
        self.last = report;
        current
    }

    /// The daemon's version of libvirt.
    pub fn set_libvirt_version(&mut self, version: u64) {
        self.per_disk_reads_all_files = version >= PER_DISK_READS_ALL_FILES_SINCE;
    }

    /// What was seen, and what the configuration makes of it.
    pub fn verdict(&self, domains: &[Uuid]) -> HostVerdict {
        let mut look = self.last.verdict.clone();
        match self.block_statistics {
            BlockStatistics::Auto => {}
            BlockStatistics::Bulk => look.no_block.clear(),
            BlockStatistics::PerDisk => look.no_block.extend(domains),
        }
        if self.omits_unanswering_disks() {
            look.no_disks = &self.last.on_unanswering_mount | &self.last.on_unknown_storage;
        }
        look
    }

    /// VMs whose disks are left out, for it is not known where all their files lie.
    pub fn omitted_for_unknown_storage(&self) -> impl Iterator<Item = Uuid> {
        let unknown = self.last.on_unknown_storage.iter().copied();
        unknown.filter(|_| self.omits_unanswering_disks())
    }

    /// VMs whose disks are left out, for a mount has not answered in time, though it is not dead.
    pub fn omitted_for_slow_mounts(&self) -> impl Iterator<Item = Uuid> {
        let dead: HashSet<Uuid> = self.last.dead_mounts.values().flatten().copied().collect();
        let slow = self.last.on_unanswering_mount.iter().copied();
        slow.filter(move |uuid| self.omits_unanswering_disks() && !dead.contains(uuid))
    }

    /// Whether disks on a mount that does not answer are not even read one by one.
    pub fn omits_unanswering_disks(&self) -> bool {
        self.per_disk_reads_all_files && self.block_statistics != BlockStatistics::Bulk
    }

    /// What to take for granted as long as an answer is out: a look is late when things hang, so
    /// only disks that lay on this host's own file systems are asked for in bulk. Where no answer
    /// will ever come, for the hypervisor is another host, there is nothing to wait for either.
    pub fn verdict_without_report(&self, domains: &[Uuid]) -> HostVerdict {
        let remote = self.ask.is_none();
        let doubtful = |uuid: &&Uuid| match self.block_statistics {
            BlockStatistics::Auto => !remote && !self.last.all_disks_local.contains(*uuid),
            BlockStatistics::Bulk => false,
            BlockStatistics::PerDisk => true,
        };
        // Nor one by one, where that touches them as well.
        let left_out = |uuid: &&Uuid| {
            self.omits_unanswering_disks() && !remote && !self.last.all_disks_local.contains(*uuid)
        };
        HostVerdict {
            stuck: self.last.verdict.stuck.clone(),
            no_block: domains.iter().filter(doubtful).copied().collect(),
            no_disks: domains.iter().filter(left_out).copied().collect(),
        }
    }

    /// Mounts that do not answer, and the VMs with a disk there.
    pub fn dead_mounts(&self) -> &BTreeMap<PathBuf, BTreeSet<Uuid>> {
        &self.last.dead_mounts
    }
}

/// Starts the host watcher; its answers go to `tell`.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(tell: impl Fn(HostReport) + Send + 'static) -> Result<Sender<HostQuery>, NotStarted> {
    let (ask, queries) = channel::<HostQuery>();
    let look = move || {
        let mut processes = Processes::new();
        // Also after an upgrade has put another program in this one's place.
        let mut mounts = Mounts::new(Path::new("/proc/self/exe"));
        let mut cgroups = Cgroups::default();
        while let Ok(query) = queries.recv() {
            let mut seen = inspect(&mut processes, &mut mounts, &query);
            // Last, so that what libvirt says is the younger.
            if query.wants_net_dev {
                seen.net_dev = NetDev::read(Path::new("/proc")).ok();
                seen.in_our_netns = processes.in_our_netns();
            }
            if query.wants_cpu_usage {
                seen.cpu_usage = cgroups.read(&processes.single_processes());
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
struct VmFiles<'t> {
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
) -> VmFiles<'t> {
    let mut files = VmFiles {
        vm: *vm,
        paths: Vec::new(),
        complete: false,
        unresolved: known.is_none(),
    };
    if let Some(known) = known {
        files.unresolved = known.unresolved;
        files.paths.extend(known.paths());
        for number in known.volumes() {
            match processes.block_node_path(*vm, *number) {
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

fn inspect(processes: &mut Processes, mounts: &mut Mounts, query: &HostQuery) -> HostReport {
    let uuids: Vec<Uuid> = query.vms.iter().map(|(uuid, _)| *uuid).collect();
    let seen = processes.check(&uuids);
    let files: Vec<VmFiles> = query.vms.iter().map(|vm| files(processes, vm)).collect();
    let paths: Vec<&Path> = files
        .iter()
        .flat_map(|files| &files.paths)
        .copied()
        .collect();
    let mut storage: HashMap<PathBuf, Storage> = mounts.check(&paths);
    // libvirt keeps the variables of the firmware in a folder that no ordinary user enters, and puts
    // no link there.
    let known = query.vms.iter().filter_map(|(_, known)| known.as_ref());
    let descriptions = known.filter_map(|known| known.description.as_ref());
    for path in descriptions
        .flat_map(|known| &known.firmware)
        .map(Path::new)
    {
        if matches!(storage.get(path), Some(Storage::Unknown(_)))
            && mounts.is_local_as_written(path)
        {
            storage.remove(path);
        }
    }
    let mut no_block = HashSet::default();
    let mut all_disks_local = HashSet::default();
    let mut on_unanswering_mount = HashSet::default();
    let mut on_unknown_storage = HashSet::default();
    let mut dead_mounts: BTreeMap<PathBuf, BTreeSet<Uuid>> = BTreeMap::new();
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
            on_unknown_storage.insert(uuid);
        }
        if files.complete && !files.paths.iter().any(|path| storage.contains_key(*path)) {
            all_disks_local.insert(uuid);
        }
        if storage.is_empty() {
            continue;
        }
        for path in &files.paths {
            match storage.get(*path) {
                Some(Storage::Dead(mount)) => {
                    no_block.insert(uuid);
                    on_unanswering_mount.insert(uuid);
                    dead_mounts.entry(mount.clone()).or_default().insert(uuid);
                }
                Some(Storage::Late(_)) => {
                    no_block.insert(uuid);
                    on_unanswering_mount.insert(uuid);
                }
                Some(Storage::Unknown(_)) => {
                    no_block.insert(uuid);
                    if in_sight {
                        on_unknown_storage.insert(uuid);
                    }
                }
                Some(Storage::Local | Storage::Alive) | None => {}
            }
        }
    }
    HostReport {
        number: query.number,
        all_disks_local: &all_disks_local - &no_block,
        verdict: HostVerdict {
            stuck: seen.stuck,
            no_block,
            ..HostVerdict::default()
        },
        on_unanswering_mount,
        on_unknown_storage,
        dead_mounts,
        ..HostReport::default()
    }
}

#[cfg(test)]
mod tests;
