//! The QEMU processes: which of them would not answer their monitor.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use rustix::io::pread;
use uuid::Uuid;

use super::block_nodes::BlockNode;
use super::freezer::Freezer;
use super::scan::{QemuProcess, Scan, ScanProgress};
use crate::maps::{HashMap, HashSet};
use crate::times::{PROCESS_RECHECK, PROCESS_SCAN};

#[cfg(test)]
mod tests;

/// VMs that a scan did not find are searched for again after so long,
const MIN_RETRY_DELAY: Duration = Duration::from_secs(1);
/// twice as long each time, up to this.
const MAX_RETRY_DELAY: Duration = Duration::from_secs(30);
/// With so many scans hanging there are no further ones.
const MAX_SCANS: usize = 4;

/// What the process table says of some VMs.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct ProcessReport {
    /// QEMU's main thread is stopped, frozen by its control group, or stuck in the kernel: its
    /// monitor would not answer.
    pub stuck: HashSet<Uuid>,
    /// No QEMU process of it can be seen.
    pub unseen: HashSet<Uuid>,
}

/// The QEMU processes of the VMs asked for last. Two descriptors a VM stay open.
#[derive(Debug)]
pub struct Processes {
    root: PathBuf,
    /// Where control groups are mounted.
    cgroups: PathBuf,
    known: HashMap<Uuid, Vec<Process>>,
    scans: Vec<Scan>,
    /// Why the last scan could not be started.
    pub not_started: Option<String>,
    /// What the last scan did not find, and when to search again.
    not_found: HashSet<Uuid>,
    retry_delay: Duration,
    retry_at: Option<Instant>,
    /// Stuck at the last look.
    stuck: HashSet<Uuid>,
}

#[derive(Debug)]
struct Process {
    pid: u32,
    parent: u32,
    /// Kept open: it answers for this process, or fails with ESRCH, never for a later one of the
    /// same number.
    stat: File,
    nodes: Vec<BlockNode>,
    /// The network namespace that it is in.
    net_namespace: Option<NetNamespace>,
    freezer: Freezer,
    state: ProcessState,
    /// How often it had run when it was last seen asleep, and since when that holds.
    asleep_since: Option<(u64, Instant)>,
}

/// The main thread's state, as far as it matters (proc_pid_stat(5), third field).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum ProcessState {
    /// It runs, or waits for something to do.
    Responsive,
    /// T, t: by a signal, or a debugger; or by the freezer of cgroup v2, which shows S.
    Stopped,
    /// D; and Z: a main thread that ended while others of its process cannot.
    Uninterruptible,
    /// The process is no more.
    Exited,
}

/// Which `net/dev` it is, by device and inode: each network namespace has one of its own, and a
/// process shows that of its own (get_proc_task_net), to every user.
type NetNamespace = (u64, u64);

fn net_namespace(process: &Path) -> Option<NetNamespace> {
    let dev = fs::metadata(process.join("net/dev")).ok()?;
    Some((dev.dev(), dev.ino()))
}

impl Process {
    fn new(root: &Path, cgroups: &Path, found: QemuProcess) -> (Uuid, Self) {
        let QemuProcess {
            uuid,
            pid,
            stat,
            nodes,
        } = found;
        let (folder, now) = (root.join(pid.to_string()), Instant::now());
        let mut process = Self {
            pid,
            parent: 0,
            stat,
            nodes,
            net_namespace: net_namespace(&folder),
            freezer: Freezer::of(&folder, cgroups, now),
            state: ProcessState::Exited,
            asleep_since: None,
        };
        // Now, for its `net/dev` and its control group were found by its number.
        process.refresh();
        (uuid, process)
    }

    fn refresh(&mut self) {
        let mut buffer = [0; 1024];
        let length = pread(&self.stat, &mut buffer, 0).unwrap_or(0);
        (self.state, self.parent) = state_of(&buffer[..length]);
        if self.state == ProcessState::Responsive && self.freezer.is_frozen() {
            self.state = ProcessState::Stopped;
        }
        if self.state != ProcessState::Uninterruptible {
            self.asleep_since = None;
        }
    }

    /// Looks its control group up again when it is time.
    fn refresh_cgroup(&mut self, root: &Path, cgroups: &Path, now: Instant) {
        if self.freezer.needs_lookup(now) {
            let folder = root.join(self.pid.to_string());
            self.freezer = Freezer::of(&folder, cgroups, now);
        }
    }

    /// How often it was given a processor. `None` where the kernel does not count (then it says 0).
    ///
    /// Opened by its number, so it holds only if the kept `stat` still answers afterwards.
    fn times_scheduled(&self, root: &Path) -> Option<u64> {
        let text = fs::read_to_string(root.join(format!("{}/schedstat", self.pid))).ok()?;
        let runs = text.split_whitespace().nth(2)?.parse().ok()?;
        (runs > 0).then_some(runs)
    }
}

/// ProcessState and parent from the text of `stat`: `PID (NAME) STATE PARENT ...`; the name may hold spaces
/// and parentheses.
fn state_of(stat: &[u8]) -> (ProcessState, u32) {
    let end = stat.iter().rposition(|byte| *byte == b')');
    let fields = end.and_then(|end| std::str::from_utf8(&stat[end + 1..]).ok());
    let mut fields = fields.unwrap_or_default().split_ascii_whitespace();
    let state = match fields.next() {
        Some("T" | "t") => ProcessState::Stopped,
        Some("D" | "Z") => ProcessState::Uninterruptible,
        Some("X" | "x") | None => ProcessState::Exited,
        Some(_) => ProcessState::Responsive,
    };
    let parent = fields.next().and_then(|parent| parent.parse().ok());
    (state, parent.unwrap_or(0))
}

impl Default for Processes {
    fn default() -> Self {
        Self::new()
    }
}

impl Processes {
    /// Those of this host.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/proc"))
    }

    /// Those of another proc file system.
    #[must_use]
    pub fn at(root: &Path) -> Self {
        Self::below(root, Path::new("/sys/fs/cgroup"))
    }

    /// Those of another proc file system, with control groups mounted elsewhere.
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

    /// Looks at the QEMU processes of `vms`; the others are forgotten.
    ///
    /// Usually two preads a VM. 50 ms more where one is newly found in uninterruptible sleep; a scan
    /// of all command lines (300 ms at most) where one is new, has restarted, or is newly stuck.
    pub fn check(&mut self, vms: &[Uuid]) -> ProcessReport {
        self.check_at(vms, Instant::now(), || thread::sleep(PROCESS_RECHECK))
    }

    fn check_at(&mut self, vms: &[Uuid], now: Instant, pause: impl FnOnce()) -> ProcessReport {
        let vms: HashSet<Uuid> = vms.iter().copied().collect();
        self.take_late_finds();
        self.known.retain(|uuid, _| vms.contains(uuid));
        for process in self.known.values_mut().flatten() {
            // Before `stat` is read, which tells whether the number is still this process's.
            process.refresh_cgroup(&self.root, &self.cgroups, now);
            process.refresh();
        }
        self.drop_exited();
        let scanned = self.search_missing(&vms, now);

        self.recheck_sleepers(now, pause);
        let mut stuck = self.all_stuck();
        // The same VM may run twice here, where it migrates from one daemon to another: before one
        // is called stuck, its other process is searched for.
        if !scanned && !stuck.is_subset(&self.stuck) {
            self.scan(&vms);
            let known = &self.known;
            stuck.retain(|uuid| known.get(uuid).is_some_and(|them| all_stuck(them)));
        }
        self.stuck.clone_from(&stuck);
        let known = |uuid: &&Uuid| self.known.contains_key(uuid);
        let unseen = vms.iter().filter(|uuid| !known(uuid)).copied().collect();
        ProcessReport { stuck, unseen }
    }

    /// The file that the VM's QEMU was started with as the block node of this number; `None` also
    /// where more than one process says that it is this VM's.
    pub fn block_node_path(&self, vm: Uuid, number: u32) -> Option<&Path> {
        let [one] = self.known.get(&vm)?.as_slice() else {
            return None;
        };
        let node = one.nodes.iter().find(|node| node.number == number)?;
        Some(&node.path)
    }

    /// The VMs of which exactly one QEMU process is known, and its number.
    pub fn single_processes(&self) -> Vec<(Uuid, u32)> {
        let only = |(uuid, them): (&Uuid, &Vec<Process>)| match &them[..] {
            [one] => Some((*uuid, one.pid)),
            _ => None,
        };
        self.known.iter().filter_map(only).collect()
    }

    /// The VMs of which every QEMU process known is in our own network namespace.
    pub fn in_our_netns(&self) -> HashSet<Uuid> {
        let Some(here) = net_namespace(&self.root.join("self")) else {
            return HashSet::default();
        };
        let in_our_netns = |them: &[Process]| {
            them.iter()
                .all(|process| process.net_namespace == Some(here))
        };
        let known = self.known.iter().filter(|(_, them)| in_our_netns(them));
        known.map(|(uuid, _)| *uuid).collect()
    }

    fn drop_exited(&mut self) {
        self.known.retain(|_, processes| {
            processes.retain(|process| process.state != ProcessState::Exited);
            !processes.is_empty()
        });
    }

    /// Scans if a VM's process is missing and it is time; says whether it did.
    fn search_missing(&mut self, vms: &HashSet<Uuid>, now: Instant) -> bool {
        let missing = |known: &HashMap<Uuid, Vec<Process>>| -> HashSet<Uuid> {
            let missing = vms.iter().filter(|uuid| !known.contains_key(uuid));
            missing.copied().collect()
        };
        let lost = missing(&self.known);
        let news = !lost.is_subset(&self.not_found);
        let due = !lost.is_empty() && self.retry_at.is_none_or(|at| now >= at);
        if !news && !due {
            return false;
        }
        self.retry_delay = if news {
            MIN_RETRY_DELAY
        } else {
            (self.retry_delay * 2).min(MAX_RETRY_DELAY)
        };
        self.retry_at = Some(now + self.retry_delay);
        self.scan(vms);
        self.not_found = missing(&self.known);
        true
    }

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

    /// What scans found that an earlier look did not wait for.
    fn take_late_finds(&mut self) {
        let (root, cgroups, known) = (&self.root, &self.cgroups, &mut self.known);
        self.scans
            .retain(|scan| scan.take(|found| add(root, cgroups, known, found)));
    }

    /// Looks twice, once for all, at those asleep, so that an ordinary wait for a disk is told from
    /// one without end. Who ran in between, or has left that state, is well.
    fn recheck_sleepers(&mut self, now: Instant, pause: impl FnOnce()) {
        let root = &self.root;
        let mut sleepers = Vec::new();
        for process in self.known.values_mut().flatten() {
            if process.state != ProcessState::Uninterruptible {
                continue;
            }
            let runs = process.times_scheduled(root);
            match (process.asleep_since, runs) {
                (Some((then, since)), Some(runs))
                    if then == runs && now >= since + PROCESS_RECHECK => {}
                _ => {
                    process.asleep_since = runs.map(|runs| (runs, now));
                    sleepers.push((process, runs));
                }
            }
        }
        if sleepers.is_empty() {
            return;
        }
        pause();
        for (process, before) in sleepers {
            let runs = process.times_scheduled(root);
            process.refresh();
            if process.state == ProcessState::Uninterruptible && runs != before {
                process.state = ProcessState::Responsive;
                process.asleep_since = None;
            }
        }
        self.drop_exited();
    }

    fn all_stuck(&self) -> HashSet<Uuid> {
        let stuck = self.known.iter().filter(|(_, them)| all_stuck(them));
        stuck.map(|(uuid, _)| *uuid).collect()
    }
}

/// A child with QEMU's command line is not another QEMU: it may be on its way to run a helper, or be
/// the process that `-run-with async-teardown=on` leaves to wait for QEMU's end.
fn all_stuck(processes: &[Process]) -> bool {
    let is_child = |child: &Process| processes.iter().any(|it| it.pid == child.parent);
    let mut own = processes.iter().filter(|process| !is_child(process));
    !own.any(|process| process.state == ProcessState::Responsive)
}

fn add(root: &Path, cgroups: &Path, known: &mut HashMap<Uuid, Vec<Process>>, found: QemuProcess) {
    let (uuid, process) = Process::new(root, cgroups, found);
    let there = known.entry(uuid).or_default();
    // Two scans may overlap.
    if there.iter().all(|other| other.pid != process.pid) {
        there.push(process);
    }
}
