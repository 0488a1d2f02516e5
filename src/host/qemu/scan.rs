//! Searches the process table for QEMU processes.
//!
//! Reading a command line takes the memory lock of the other process and may hang for as long as that
//! process does. Each scan therefore runs in a thread of its own, and a scan that hangs is left to
//! itself.

use std::fs::{self, File};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use rustix::fs::{Mode, OFlags, open, openat};
use uuid::Uuid;

use super::block_nodes::{self, BlockNode};
use crate::maps::HashSet;
use crate::threads::{self, NotStarted};
use crate::times::SCAN_HANGS;

/// How often a scan is checked for whether it hangs.
const POLL_INTERVAL: Duration = Duration::from_millis(10);

/// A process with `-uuid UUID` on its command line.
#[derive(Debug)]
pub(super) struct QemuProcess {
    /// The UUID on its command line.
    pub uuid: Uuid,
    /// Its number.
    pub pid: u32,
    /// Its `stat`, opened through the folder from which the command line was read. It belongs to the
    /// same process even if the number has been reused since.
    pub stat: File,
    /// The files on its command line.
    pub nodes: Vec<BlockNode>,
}

/// A scan that has not ended, or whose finds have not all been taken.
#[derive(Debug)]
pub(super) struct Scan {
    current_pid: Arc<AtomicU32>,
    found: Receiver<QemuProcess>,
}

/// How far a scan has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ScanProgress {
    /// All processes were read.
    Done,
    /// The time was not enough; the scan goes on by itself.
    Unfinished,
    /// It hangs on the command line of [`Scan::current_pid`].
    Hanging,
}

impl Scan {
    /// Starts a search for the processes of the `wanted` VMs in the proc file system at `root`. The
    /// processes in `skip` are not read.
    ///
    /// # Errors
    /// The error of the system when no thread can be started.
    pub fn start(
        root: &Path,
        wanted: HashSet<Uuid>,
        skip: HashSet<u32>,
    ) -> Result<Self, NotStarted> {
        let current_pid = Arc::new(AtomicU32::new(0));
        let (tell, found) = channel();
        let (root, at) = (PathBuf::from(root), Arc::clone(&current_pid));
        threads::start("process scan", move || {
            scan(&root, &wanted, &skip, &at, &tell)
        })?;
        Ok(Self { current_pid, found })
    }

    /// The process whose command line is being read.
    pub fn current_pid(&self) -> u32 {
        self.current_pid.load(Ordering::Relaxed)
    }

    /// Takes what has been found so far. Returns false once the scan has ended.
    pub fn take(&self, mut each: impl FnMut(QemuProcess)) -> bool {
        loop {
            match self.found.recv_timeout(Duration::ZERO) {
                Ok(found) => each(found),
                Err(error) => return error == RecvTimeoutError::Timeout,
            }
        }
    }

    /// Takes what is found, until the scan is done or hangs, at most until `until`.
    pub fn wait(&self, until: Instant, mut each: impl FnMut(QemuProcess)) -> ScanProgress {
        let (mut pid, mut since) = (self.current_pid(), Instant::now());
        loop {
            match self.found.recv_timeout(POLL_INTERVAL) {
                Ok(found) => each(found),
                Err(RecvTimeoutError::Disconnected) => return ScanProgress::Done,
                Err(RecvTimeoutError::Timeout) => {}
            }
            let now = Instant::now();
            if self.current_pid() != pid {
                (pid, since) = (self.current_pid(), now);
            } else if now - since >= SCAN_HANGS {
                return ScanProgress::Hanging;
            }
            if now >= until {
                return ScanProgress::Unfinished;
            }
        }
    }
}

fn scan(
    root: &Path,
    wanted: &HashSet<Uuid>,
    skip: &HashSet<u32>,
    at: &AtomicU32,
    tell: &Sender<QemuProcess>,
) {
    // One buffer for all processes: the command line of a QEMU has some kilobytes.
    let mut line = Vec::new();
    for entry in fs::read_dir(root).into_iter().flatten().flatten() {
        let name = entry.file_name();
        let Some(pid) = name.to_str().and_then(|name| name.parse().ok()) else {
            continue;
        };
        if skip.contains(&pid) {
            continue;
        }
        at.store(pid, Ordering::Relaxed);
        // A process which may not be read (hidepid), or has ended meanwhile, is skipped.
        if let Ok(Some(found)) = read_process(&entry.path(), pid, wanted, &mut line)
            && tell.send(found).is_err()
        {
            return;
        }
    }
}

/// Reads one process. `None` if it is not the QEMU of a wanted VM. `line` is a buffer.
fn read_process(
    folder: &Path,
    pid: u32,
    wanted: &HashSet<Uuid>,
    line: &mut Vec<u8>,
) -> io::Result<Option<QemuProcess>> {
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let path = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let folder = open(folder, path, Mode::empty())?;
    let open_in = |name| openat(&folder, name, flags, Mode::empty()).map(File::from);
    line.clear();
    open_in("cmdline")?.read_to_end(line)?;
    let Some(uuid) = uuid_of(line).filter(|uuid| wanted.contains(uuid)) else {
        return Ok(None);
    };
    let stat = open_in("stat")?;
    let nodes = block_nodes::parse(line);
    Ok(Some(QemuProcess {
        uuid,
        pid,
        stat,
        nodes,
    }))
}

/// The argument after `-uuid`, which libvirt has always given to QEMU. Each argument ends with NUL.
fn uuid_of(line: &[u8]) -> Option<Uuid> {
    let mut arguments = line.split(|byte| *byte == 0);
    arguments.find(|argument| *argument == b"-uuid")?;
    Uuid::try_parse_ascii(arguments.next()?).ok()
}
