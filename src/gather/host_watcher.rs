//! The host watcher checks the host before libvirt is called: QEMU processes, mounts, control groups and
//! network interfaces. It has a thread of its own, because a check can hang.

use std::collections::hash_map::Entry;
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use uuid::Uuid;

use self::inspection::inspect;
use self::open_files::most_files;
use super::scheduler::HostVerdict;
use crate::config::BlockStatistics;
use crate::description::CpuQuota;
use crate::host::mounts::Health;
use crate::host::qemu::cgroups::{Cgroups, CpuUsage};
use crate::host::qemu::pressure::PressureFiles;
use crate::host::qemu::throttling::{Limited, QuotaGroups};
use crate::host::qemu::{HostFigures, VcpuReading};
use crate::host::{Mounts, NetDev, Processes};
use crate::maps::{HashMap, HashSet};
use crate::threads::{self, NotStarted};
use crate::vms::CachedDescription;

mod inspection;
mod open_files;
#[cfg(test)]
mod tests;

/// What to check.
#[derive(Debug, Default)]
pub struct HostQuery {
    /// The report has the same number.
    pub number: u64,
    /// The VMs, each with its description, if one is cached.
    pub vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>,
    /// The number of vCPUs online in the last sample of each VM that had it.
    pub online: HashMap<Uuid, u64>,
    /// What to read beside the check.
    pub wants: Wanted,
}

/// What is read beside the check.
#[derive(Debug, Clone, Copy, Default)]
pub struct Wanted {
    /// The counters of the network interfaces.
    pub net_dev: bool,
    /// The CPU time of the VMs.
    pub cpu_usage: bool,
    /// The CPU time of their vCPU threads.
    pub vcpu_times: bool,
    /// How often CPU quotas have stopped them.
    pub throttling: bool,
    /// How much they have waited for resources of the host.
    pub pressure: bool,
}

/// What a check has found.
#[derive(Debug, Clone, Default)]
pub struct HostReport {
    /// The number of the query.
    pub number: u64,
    /// What the gather may ask libvirt for.
    pub verdict: HostVerdict,
    /// The VMs with a disk on a mount that has not answered in time.
    pub on_unanswering_mount: HashSet<Uuid>,
    /// The VMs with a visible QEMU of which some files are not known, or the storage of a file.
    pub on_unknown_storage: HashSet<Uuid>,
    /// The VMs whose disks all lie on file systems of this host, each with the description that names the disks.
    pub all_disks_local: HashMap<Uuid, Arc<CachedDescription>>,
    /// The mounts that have not answered since an earlier check, and the VMs with a disk there.
    pub dead_mounts: BTreeMap<PathBuf, BTreeSet<Uuid>>,
    /// The counters of the network interfaces.
    pub net_dev: Option<NetDev>,
    /// The VMs whose QEMU is in the network namespace of these interfaces.
    pub in_our_netns: HashSet<Uuid>,
    /// What the control groups of the VMs have counted.
    pub cpu_usage: HashMap<Uuid, CpuUsage>,
    /// What this host says of each VM's QEMU.
    pub figures: HashMap<Uuid, HostFigures>,
    /// A thread or process of the check that could not be started, and the remedy.
    pub not_started: Option<String>,
    /// The VMs without a visible QEMU process.
    pub unseen: HashSet<Uuid>,
    /// The network mounts that carry files of VMs, and how each has answered in this check.
    pub mounts: Vec<(PathBuf, Health)>,
}

/// From this version of libvirt on, virDomainBlockStats makes QEMU access every file of the VM, as the
/// block group always did: it sends query-named-block-nodes after query-blockstats. 12.8 was seen to do
/// this, 11.3 not to; the versions between them were not tried.
const PER_DISK_READS_ALL_FILES_SINCE: u64 = 11_004_000;

/// Sends queries to the thread that checks the host, and keeps its last report.
#[derive(Debug)]
pub struct HostWatcher {
    /// `None` where there is no thread, for the hypervisor is another host.
    queries: Option<Sender<HostQuery>>,
    /// The number of the last query.
    number: u64,
    /// There is no report for the last query yet.
    waiting: bool,
    last: HostReport,
    block_statistics: BlockStatistics,
    /// Even a call for one disk makes QEMU access all files of the VM.
    per_disk_reads_all_files: bool,
    wants: Wanted,
}

impl HostWatcher {
    /// `queries` leads to the thread. Without one there are no reports.
    pub fn new(
        queries: Option<Sender<HostQuery>>,
        block_statistics: BlockStatistics,
        wants: Wanted,
    ) -> Self {
        Self {
            queries,
            number: 0,
            waiting: false,
            last: HostReport::default(),
            block_statistics,
            per_disk_reads_all_files: false,
            wants,
        }
    }

    /// Sends a query. `online` is the number of vCPUs of each VM, as last known. Returns `false` if no report is
    /// to be expected: there is no thread, or it is still working on the last query.
    pub fn ask(
        &mut self,
        vms: Vec<(Uuid, Option<Arc<CachedDescription>>)>,
        online: HashMap<Uuid, u64>,
    ) -> bool {
        // A VM without a description, or with other files, may have changed since the last query, so the last
        // report does not hold for it if the next one is late.
        for (uuid, known) in &vms {
            if let Entry::Occupied(local) = self.last.all_disks_local.entry(*uuid)
                && !known
                    .as_ref()
                    .is_some_and(|known| known.has_same_files(local.get()))
            {
                local.remove();
            }
        }
        let Some(queries) = self.queries.as_ref().filter(|_| !self.waiting) else {
            return false;
        };
        self.number += 1;
        let query = HostQuery {
            number: self.number,
            vms,
            online,
            wants: self.wants,
        };
        self.waiting = queries.send(query).is_ok();
        self.waiting
    }

    /// Whether there is a thread.
    pub fn exists(&self) -> bool {
        self.queries.is_some()
    }

    /// Takes a report. Returns `false` if it is one for an earlier query.
    pub fn accept(&mut self, report: HostReport) -> bool {
        self.waiting = false;
        let is_current = report.number == self.number;
        self.last = report;
        is_current
    }

    /// Sets the version of libvirt that the daemon has.
    pub fn set_libvirt_version(&mut self, version: u64) {
        self.per_disk_reads_all_files = version >= PER_DISK_READS_ALL_FILES_SINCE;
    }

    /// What the last report and the configuration mean for these VMs.
    pub fn verdict(&self, domains: &[Uuid]) -> HostVerdict {
        let mut verdict = self.last.verdict.clone();
        match self.block_statistics {
            BlockStatistics::Auto => {}
            BlockStatistics::Bulk => verdict.no_block.clear(),
            BlockStatistics::PerDisk => verdict.no_block.extend(domains),
        }
        if self.omits_unanswering_disks() {
            verdict.no_disks = &self.last.on_unanswering_mount | &self.last.on_unknown_storage;
        }
        verdict
    }

    /// The VMs whose disks are omitted because it is not known where all their files lie.
    pub fn omitted_for_unknown_storage(&self) -> impl Iterator<Item = Uuid> {
        let unknown = self.last.on_unknown_storage.iter().copied();
        unknown.filter(|_| self.omits_unanswering_disks())
    }

    /// The VMs whose disks are omitted because a mount has not answered in time, although it is not dead.
    pub fn omitted_for_slow_mounts(&self) -> impl Iterator<Item = Uuid> {
        let dead: HashSet<Uuid> = self.last.dead_mounts.values().flatten().copied().collect();
        let unanswered = self.last.on_unanswering_mount.iter().copied();
        unanswered.filter(move |uuid| self.omits_unanswering_disks() && !dead.contains(uuid))
    }

    /// Whether disks on a mount that does not answer are not even read one by one.
    pub fn omits_unanswering_disks(&self) -> bool {
        self.per_disk_reads_all_files && self.block_statistics != BlockStatistics::Bulk
    }

    /// What to do without a report. A report is late when something hangs. So disks are read in bulk only of
    /// VMs that had all of them on local file systems, and still have the same ones. Where reading one disk
    /// accesses all files, only the disks of these VMs are read at all. Where there will never be a report, for
    /// the hypervisor is another host, disks are read as if all were well.
    pub fn verdict_without_report(&self, domains: &[Uuid]) -> HostVerdict {
        let may_hang =
            |uuid: &Uuid| self.queries.is_some() && !self.last.all_disks_local.contains_key(uuid);
        let no_block = |uuid: &&Uuid| match self.block_statistics {
            BlockStatistics::Auto => may_hang(uuid),
            BlockStatistics::Bulk => false,
            BlockStatistics::PerDisk => true,
        };
        let no_disks = |uuid: &&Uuid| self.omits_unanswering_disks() && may_hang(uuid);
        HostVerdict {
            stuck: self.last.verdict.stuck.clone(),
            no_block: domains.iter().filter(no_block).copied().collect(),
            no_disks: domains.iter().filter(no_disks).copied().collect(),
        }
    }

    /// Whether reports have the times of vCPU threads.
    pub fn reads_vcpus(&self) -> bool {
        self.wants.vcpu_times
    }

    /// The last report; `None` where none has come, or never does, for the hypervisor is another host.
    pub fn last(&self) -> Option<&HostReport> {
        Some(&self.last).filter(|last| last.number > 0)
    }

    /// The mounts that do not answer, and the VMs with a disk there.
    pub fn dead_mounts(&self) -> &BTreeMap<PathBuf, BTreeSet<Uuid>> {
        &self.last.dead_mounts
    }
}

/// Starts the host watcher's thread. Its reports go to `send`. `file_limit` is the limit of open files of this process.
///
/// # Errors
/// The error of the system when no thread can be started.
pub fn start(
    file_limit: u64,
    send: impl Fn(HostReport) + Send + 'static,
) -> Result<Sender<HostQuery>, NotStarted> {
    let (queries, received) = channel::<HostQuery>();
    let watch = move || {
        let mut processes = Processes::new();
        // This path leads to the running program even after an upgrade has replaced its file.
        let mut mounts = Mounts::new(Path::new("/proc/self/exe"));
        let mut cgroups = Cgroups::default();
        let mut quota_groups = QuotaGroups::default();
        let mut pressure_files = PressureFiles::new();
        while let Ok(query) = received.recv() {
            let mut report = inspect(&mut processes, &mut mounts, &query);
            let most_files = most_files(file_limit, query.vms.len());
            // The counters are read last, so that libvirt's figures are younger than these.
            if query.wants.net_dev {
                report.net_dev = NetDev::read(Path::new("/proc")).ok();
                report.in_our_netns = processes.in_our_netns();
            }
            if query.wants.cpu_usage {
                report.cpu_usage = cgroups.read(&processes.single_processes());
            }
            let usages = report.cpu_usage.iter();
            let groups = usages.map(|(uuid, usage)| (*uuid, usage.vcpus)).collect();
            report.figures = processes.figures(query.wants.vcpu_times.then_some(VcpuReading {
                groups: &groups,
                online: &query.online,
                most_files,
            }));
            if query.wants.throttling {
                let limited = limited(&query, &processes.single_processes());
                for (uuid, throttling) in quota_groups.read(&limited) {
                    report.figures.entry(uuid).or_default().throttling = Some(throttling);
                }
            }
            if query.wants.pressure {
                pressure_files.most_files = most_files;
                for (uuid, pressure) in pressure_files.read(&processes.single_processes()) {
                    report.figures.entry(uuid).or_default().pressure = pressure;
                }
            }
            let not_started = processes.not_started.as_ref();
            report.not_started = not_started.or(mounts.not_started.as_ref()).cloned();
            send(report);
        }
    };
    threads::start("host watcher", watch)?;
    Ok(queries)
}

/// The VMs of a query whose descriptions have a CPU quota.
fn limited(query: &HostQuery, processes: &[(Uuid, u32)]) -> Vec<Limited> {
    let has_quota = |quota: &CpuQuota| quota.vcpus || quota.vm;
    let quotas: HashMap<Uuid, CpuQuota> = query
        .vms
        .iter()
        .filter_map(|(vm, known)| Some((*vm, known.as_ref()?.description.as_ref()?.quota)))
        .filter(|(_, quota)| has_quota(quota))
        .collect();
    let limited = processes.iter().filter_map(|&(vm, process)| {
        let quota = *quotas.get(&vm)?;
        Some(Limited { vm, process, quota })
    });
    limited.collect()
}
