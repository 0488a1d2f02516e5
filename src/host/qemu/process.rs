//! One QEMU process: the state of its main thread, its age, its network namespace and its control
//! group.

use std::fs::{self, File};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::Instant;

use rustix::io::pread;
use rustix::time::{ClockId, clock_gettime};
use uuid::Uuid;

use super::block_nodes::BlockNode;
use super::freezer::Freezer;
use super::scan::QemuProcess;
use super::vcpus::{Expected, ThreadTimes, VcpuThreads};

/// A process which is checked again and again. Up to two descriptors stay open, and one for each vCPU
/// whose thread is read.
#[derive(Debug)]
pub(super) struct Process {
    /// Its number.
    pub pid: u32,
    /// The number of its parent.
    pub parent: u32,
    /// Kept open: a read returns the state of this process, or fails with ESRCH once it has ended. It
    /// never returns the state of a later process with the same number.
    stat: File,
    /// The files on its command line.
    pub nodes: Vec<BlockNode>,
    /// `None` where `/proc` does not show it.
    pub net_namespace: Option<NetNamespace>,
    freezer: Freezer,
    /// As of the last refresh.
    pub state: ProcessState,
    /// When it was started, in clock ticks since the host was.
    started: Option<u64>,
    /// Its resident memory as of the last refresh, pages.
    resident: Option<u64>,
    vcpus: VcpuThreads,
    /// For a process in uninterruptible sleep: how often it had been scheduled when it was first
    /// found asleep, and the time since which this number has not changed.
    pub asleep_since: Option<(u64, Instant)>,
}

/// The state of the main thread, as far as it matters here (proc_pid_stat(5), third field).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ProcessState {
    /// It runs, or waits for something to do.
    Responsive,
    /// T or t: stopped by a signal or a debugger. Also frozen by cgroup v2, where the state field
    /// says S.
    Stopped,
    /// D: in uninterruptible sleep. Also Z: the main thread has ended, while other threads of the
    /// process cannot.
    Uninterruptible,
    /// The process no longer exists.
    Exited,
}

/// A network namespace, identified by device and inode of its `net/dev` file: each namespace has a
/// file of its own, and `/proc/PID/net/dev` is that of the process's namespace (get_proc_task_net).
/// Every user may read it.
pub(super) type NetNamespace = (u64, u64);

/// The network namespace of the process with this folder in `/proc`.
pub(super) fn net_namespace(process: &Path) -> Option<NetNamespace> {
    let dev = fs::metadata(process.join("net/dev")).ok()?;
    Some((dev.dev(), dev.ino()))
}

impl Process {
    /// Takes over a process that a scan has found. `root` is where proc is mounted, `cgroups` where
    /// control groups are.
    pub fn new(root: &Path, cgroups: &Path, found: QemuProcess) -> (Uuid, Self) {
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
            started: None,
            resident: None,
            vcpus: VcpuThreads::default(),
            asleep_since: None,
        };
        // `net/dev` and the control group were looked up by the process's number: only if the process
        // still exists afterwards are they its own.
        process.refresh();
        (uuid, process)
    }

    /// Reads the state anew.
    pub fn refresh(&mut self) {
        let mut buffer = [0; 1024];
        let length = pread(&self.stat, &mut buffer, 0).unwrap_or(0);
        let stat = Stat::parse(&buffer[..length]);
        (self.state, self.parent) = (stat.state, stat.parent);
        (self.started, self.resident) = (stat.started, stat.resident);
        if self.state == ProcessState::Responsive && self.freezer.is_frozen() {
            self.state = ProcessState::Stopped;
        }
        if self.state != ProcessState::Uninterruptible {
            self.asleep_since = None;
        }
    }

    /// How long ago it was started, in whole seconds. The time for which the host was suspended counts.
    pub fn uptime(&self) -> Option<u64> {
        let second = 1_000_000_000;
        let now = clock_gettime(ClockId::Boottime);
        let now = u64::try_from(now.tv_sec).ok()? * second + u64::try_from(now.tv_nsec).ok()?;
        let tick = second / rustix::param::clock_ticks_per_second().max(1);
        Some(now.checked_sub(self.started?.checked_mul(tick)?)? / second)
    }

    /// Its resident memory, KiB, as libvirt has it for `balloon.rss` (virProcessGetStatInfo).
    pub fn resident(&self) -> Option<u64> {
        let page = u64::try_from(rustix::param::page_size()).ok()?;
        self.resident?.checked_mul(page / 1024)
    }

    /// The CPU time of the threads of its vCPUs, of which there should be as many as `expected`. `room` is
    /// the number of files that may still be kept open.
    pub fn vcpu_times(
        &mut self,
        root: &Path,
        expected: Expected,
        room: &mut usize,
    ) -> Option<ThreadTimes> {
        let stat = &self.stat;
        let exists = || pread(stat, &mut [0; 16], 0).is_ok_and(|length| length > 0);
        self.vcpus.read(root, self.pid, expected, room, exists)
    }

    /// The number of files that are kept open for its vCPUs.
    pub fn vcpu_files(&self) -> usize {
        self.vcpus.files()
    }

    /// Closes up to `most` of these files, and returns how many.
    pub fn close_vcpu_files(&mut self, most: usize) -> usize {
        self.vcpus.close_files(most)
    }

    /// Looks up its control group again if the last lookup is too old. The lookup goes by the
    /// process's number, so [`Process::refresh`] has to follow.
    pub fn refresh_cgroup(&mut self, root: &Path, cgroups: &Path, now: Instant) {
        if self.freezer.needs_lookup(now) {
            let folder = root.join(self.pid.to_string());
            self.freezer = Freezer::of(&folder, cgroups, now);
        }
    }

    /// How often the main thread has been given a CPU. `None` where the kernel does not count this: the
    /// number is 0 there.
    ///
    /// The file is opened by the process's number, so the result is valid only if
    /// [`Process::refresh`] finds the process alive afterwards.
    pub fn times_scheduled(&self, root: &Path) -> Option<u64> {
        let text = fs::read_to_string(root.join(format!("{}/schedstat", self.pid))).ok()?;
        let count = text.split_whitespace().nth(2)?.parse().ok()?;
        (count > 0).then_some(count)
    }
}

/// What `stat` says of a process.
struct Stat {
    state: ProcessState,
    parent: u32,
    started: Option<u64>,
    resident: Option<u64>,
}

impl Stat {
    /// Parses `PID (NAME) STATE PARENT ...`: state, parent, the start of the process and its resident
    /// memory are the fields 3, 4, 22 and 24 (proc_pid_stat(5)). The name may contain spaces and parentheses.
    fn parse(stat: &[u8]) -> Self {
        let mut fields = stat
            .iter()
            .rposition(|byte| *byte == b')')
            .and_then(|end| std::str::from_utf8(&stat[end + 1..]).ok())
            .unwrap_or_default()
            .split_ascii_whitespace();
        let state = match fields.next() {
            Some("T" | "t") => ProcessState::Stopped,
            Some("D" | "Z") => ProcessState::Uninterruptible,
            Some("X" | "x") | None => ProcessState::Exited,
            Some(_) => ProcessState::Responsive,
        };
        let parent = fields.next().and_then(|parent| parent.parse().ok());
        let started = fields.nth(17).and_then(|started| started.parse().ok());
        let resident = fields.nth(1).and_then(|resident| resident.parse().ok());
        Self {
            state,
            parent: parent.unwrap_or(0),
            started,
            resident,
        }
    }
}

/// The processes of a VM that are QEMUs.
///
/// A child with QEMU's command line does not count as a second QEMU: it is about to execute a helper,
/// or it is the process that `-run-with async-teardown=on` leaves to wait for the end of QEMU.
pub(super) fn qemus(processes: &[Process]) -> impl Iterator<Item = &Process> {
    let is_child = |process: &Process| processes.iter().any(|it| it.pid == process.parent);
    processes.iter().filter(move |process| !is_child(process))
}

/// The QEMU of a VM, if it has exactly one.
pub(super) fn sole_qemu(processes: &[Process]) -> Option<&Process> {
    let mut qemus = qemus(processes);
    let qemu = qemus.next()?;
    qemus.next().is_none().then_some(qemu)
}

/// Whether none of a VM's processes can answer its monitor.
pub(super) fn all_stuck(processes: &[Process]) -> bool {
    !qemus(processes).any(|process| process.state == ProcessState::Responsive)
}
