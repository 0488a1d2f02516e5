//! Finds the QEMU processes of VMs and tells which of them cannot answer their monitor.

use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::process::{Process, ProcessState, all_stuck, net_namespace, sole_qemu};
use super::scan::{QemuProcess, Scan, ScanProgress};
use crate::maps::{HashMap, HashSet};
use crate::times::{PROCESS_RECHECK, PROCESS_SCAN};

mod figures;
#[cfg(test)]
mod tests;

pub use figures::{HostFigures, VcpuReading};

/// The delay before VMs that a scan did not find are searched for again. It doubles with each scan
/// that does not find them either.
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// The longest such delay.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// While this many scans have not ended, no further one is started.
const MAX_SCANS: usize = 4;

/// What the process table says about some VMs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// The VMs whose QEMU cannot answer its monitor: its main thread is stopped, frozen by its control
    /// group, or stuck in the kernel.
    pub stuck: HashSet<Uuid>,
    /// The VMs without a visible QEMU process.
    pub unseen: HashSet<Uuid>,
}

/// The QEMU processes of the VMs of the last check. Two descriptors a VM stay open, and more while its
/// vCPUs are read.
#[derive(Debug)]
pub struct Processes {
    /// Where proc is mounted.
    root: PathBuf,
    /// Where control groups are mounted.
    cgroups: PathBuf,
    known: HashMap<Uuid, Vec<Process>>,
    /// The scans that did not end in the check that started them.
    scans: Vec<Scan>,
    /// Why the last scan could not be started.
    pub not_started: Option<String>,
    /// The VMs that the last scan did not find.
    not_found: HashSet<Uuid>,
    retry_delay: Duration,
    /// When the VMs that were not found are searched for again.
    retry_at: Option<Instant>,
    /// The VMs that were stuck at the last check.
    stuck: HashSet<Uuid>,
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Processes {
    /// The processes of this host.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/proc"))
    }

    /// The processes in another proc file system.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self::below(root, Path::new("/sys/fs/cgroup"))
    }

    /// The processes in another proc file system, with control groups mounted at `cgroups`.
    fn below(root: &Path, cgroups: &Path) -> Self {
        Self {
            root: root.into(),
            cgroups: cgroups.into(),
            known: HashMap::default(),
            scans: Vec::new(),
            not_started: None,
            not_found: HashSet::default(),
            retry_delay: MIN_RETRY_DELAY,
            retry_at: None,
            stuck: HashSet::default(),
        }
    }

    /// Checks the QEMU processes of `vms` and forgets all others.
    ///
    /// This usually takes two preads a VM. It takes 50 ms more when a process is newly found in
    /// uninterruptible sleep. A scan of all command lines (300 ms at most) is needed when a VM is new,
    /// has restarted, or is newly stuck.
    pub fn check(&mut self, vms: &[Uuid]) -> ProcessReport {
        self.check_at(vms, Instant::now(), || thread::sleep(PROCESS_RECHECK))
    }

    fn check_at(&mut self, vms: &[Uuid], now: Instant, pause: impl FnOnce()) -> ProcessReport {
        let vms: HashSet<Uuid> = vms.iter().copied().collect();
        self.take_late_finds();
        self.known.retain(|uuid, _| vms.contains(uuid));
        for process in self.known.values_mut().flatten() {
            process.refresh_cgroup(&self.root, &self.cgroups, now);
            process.refresh();
        }
        self.drop_exited();
        let scanned = self.search_missing(&vms, now);

        self.recheck_sleepers(now, pause);
        let mut stuck = self.all_stuck();
        // During a migration from one daemon of this host to another a VM has two processes. Before it
        // is reported as stuck, the second one is searched for.
        if !scanned && !stuck.is_subset(&self.stuck) {
            self.scan(&vms);
            let known = &self.known;
            stuck.retain(|uuid| {
                known
                    .get(uuid)
                    .is_some_and(|processes| all_stuck(processes))
            });
        }
        self.stuck.clone_from(&stuck);
        let unseen = self.missing(&vms);
        ProcessReport { stuck, unseen }
    }

    /// The file that the VM's QEMU was started with as the block node of this number. `None` also where
    /// more than one process has the VM's UUID.
    pub fn block_node_path(&self, vm: Uuid, number: u32) -> Option<&Path> {
        let [process] = self.known.get(&vm)?.as_slice() else {
            return None;
        };
        let node = process.nodes.iter().find(|node| node.number == number)?;
        Some(&node.path)
    }

    /// The VMs with exactly one known QEMU process, and its number.
    pub fn single_processes(&self) -> Vec<(Uuid, u32)> {
        self.known
            .iter()
            .filter_map(|(uuid, processes)| Some((*uuid, sole_qemu(processes)?.pid)))
            .collect()
    }

    /// The VMs of which every known QEMU process is in our own network namespace.
    pub fn in_our_netns(&self) -> HashSet<Uuid> {
        let Some(ours) = net_namespace(&self.root.join("self")) else {
            return HashSet::default();
        };
        let is_ours = |process: &Process| process.net_namespace == Some(ours);
        self.known
            .iter()
            .filter(|(_, processes)| processes.iter().all(is_ours))
            .map(|(uuid, _)| *uuid)
            .collect()
    }

    /// The VMs of which no process is known.
    fn missing(&self, vms: &HashSet<Uuid>) -> HashSet<Uuid> {
        vms.iter()
            .filter(|uuid| !self.known.contains_key(uuid))
            .copied()
            .collect()
    }

    fn all_stuck(&self) -> HashSet<Uuid> {
        self.known
            .iter()
            .filter(|(_, processes)| all_stuck(processes))
            .map(|(uuid, _)| *uuid)
            .collect()
    }

    fn drop_exited(&mut self) {
        self.known.retain(|_, processes| {
            processes.retain(|process| process.state != ProcessState::Exited);
            !processes.is_empty()
        });
    }

    /// Scans if a VM's process is missing and either was not missing before or is due to be searched
    /// for again. Returns whether it scanned.
    fn search_missing(&mut self, vms: &HashSet<Uuid>, now: Instant) -> bool {
        let missing = self.missing(vms);
        let is_new = !missing.is_subset(&self.not_found);
        let is_due = !missing.is_empty() && self.retry_at.is_none_or(|at| now >= at);
        if !is_new && !is_due {
            return false;
        }
        self.retry_delay = if is_new {
            MIN_RETRY_DELAY
        } else {
            (self.retry_delay * 2).min(MAX_RETRY_DELAY)
        };
        self.retry_at = Some(now + self.retry_delay);
        self.scan(vms);
        self.not_found = self.missing(vms);
        true
    }

    /// Scans for at most [`PROCESS_SCAN`]. When a scan hangs on a process, another one is started that
    /// leaves this process out.
    fn scan(&mut self, vms: &HashSet<Uuid>) {
        let until = Instant::now() + PROCESS_SCAN;
        while self.scans.len() < MAX_SCANS {
            let hanging = self.scans.iter().map(Scan::current_pid);
            let known = self.known.values().flatten();
            let skip = known.map(|process| process.pid).chain(hanging).collect();
            let scan = match Scan::start(&self.root, vms.clone(), skip) {
                Ok(scan) => {
                    self.not_started = None;
                    scan
                }
                Err(error) => {
                    self.not_started = Some(error.to_string());
                    return;
                }
            };
            let (root, cgroups, known) = (&self.root, &self.cgroups, &mut self.known);
            let progress = scan.wait(until, |found| add(root, cgroups, known, found));
            if progress == ScanProgress::Done {
                break;
            }
            self.scans.push(scan);
            if progress == ScanProgress::Unfinished {
                break;
            }
        }
        self.drop_exited();
    }

    /// Takes what scans have found after the check that started them had ended.
    fn take_late_finds(&mut self) {
        let (root, cgroups, known) = (&self.root, &self.cgroups, &mut self.known);
        self.scans
            .retain(|scan| scan.take(|found| add(root, cgroups, known, found)));
    }

    /// Distinguishes an ordinary wait for a disk from one without end: the processes in uninterruptible
    /// sleep are checked a second time after one pause for all of them. A process that was scheduled in
    /// between, or has left that state, is responsive. A process which was already found asleep at
    /// an earlier check and has not run since is not checked a second time.
    fn recheck_sleepers(&mut self, now: Instant, pause: impl FnOnce()) {
        let root = &self.root;
        let mut sleepers = Vec::new();
        for process in self.known.values_mut().flatten() {
            if process.state != ProcessState::Uninterruptible {
                continue;
            }
            let count = process.times_scheduled(root);
            match (process.asleep_since, count) {
                (Some((earlier, since)), Some(count))
                    if earlier == count && now >= since + PROCESS_RECHECK => {}
                _ => {
                    process.asleep_since = count.map(|count| (count, now));
                    sleepers.push((process, count));
                }
            }
        }
        if sleepers.is_empty() {
            return;
        }
        pause();
        for (process, before) in sleepers {
            let count = process.times_scheduled(root);
            process.refresh();
            if process.state == ProcessState::Uninterruptible && count != before {
                process.state = ProcessState::Responsive;
                process.asleep_since = None;
            }
        }
        self.drop_exited();
    }
}

fn add(root: &Path, cgroups: &Path, known: &mut HashMap<Uuid, Vec<Process>>, found: QemuProcess) {
    let (uuid, process) = Process::new(root, cgroups, found);
    let processes = known.entry(uuid).or_default();
    // Two scans may overlap and find the same process.
    if processes.iter().all(|other| other.pid != process.pid) {
        processes.push(process);
    }
}
