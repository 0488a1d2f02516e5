//! What the threads of a VM's vCPUs have counted: `/proc/PID/task/TID/schedstat`.
//!
//! libvirt's `vcpu.N.delay` is the second number of the same file (qemuGetSchedstatDelay). Here it is read
//! without libvirt and QEMU, so also while the VM does not answer. Every user may read it, unless proc is
//! mounted with `hidepid`.
//!
//! QEMU calls the thread of a vCPU `CPU N/KVM` or `CPU N/TCG`; libvirt has QEMU set these names since
//! 1.2.5 (`-name ...,debug-threads=on`). N is QEMU's index of the vCPU, which is libvirt's number of it, also
//! where the numbers have gaps.
//!
//! With emulation in a single thread (`ALL CPUs/TCG`), that thread is the vCPU where the VM has one. With
//! more vCPUs than one, no time is that of a vCPU, and libvirt has no such figures either.

use std::fs::{self, File};
use std::io;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::io::pread;

use crate::sample::{VcpuTime, VcpuTimes};

/// Threads that have not been found are searched for again after this time. It matters only while the number
/// of vCPUs is not known, or is not the number of threads: QEMU is just starting, one thread serves all
/// vCPUs, or libvirt has left the control group of a removed vCPU behind. A search reads the name of each
/// thread of QEMU, 2 to 5 us a thread.
const SEARCH_AGAIN: Duration = Duration::from_secs(30);

/// What the vCPU threads of a VM have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadTimes {
    /// The figures.
    pub times: VcpuTimes,
    /// One thread serves all vCPUs, however many there are.
    pub shared: bool,
}

/// How many vCPUs there should be: a change tells that some were added or removed. The number of QEMU's threads
/// tells nothing, because QEMU starts and ends threads for requests to a disk all the time.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) struct Expected {
    /// The number of vCPU groups in the VM's control group; `None` where that is not visible.
    pub groups: Option<u64>,
    /// The number of vCPUs online that the last sample of the VM had.
    pub online: Option<u64>,
}

/// The vCPU threads of one process, as the last search has found them.
#[derive(Debug, Default)]
pub(super) struct VcpuThreads {
    /// In the order of the vCPUs' numbers.
    list: Vec<VcpuThread>,
    shared: bool,
    /// What was expected at the last search, and when another one is due. `None`: there was none.
    searched: Option<(Expected, Instant)>,
}

#[derive(Debug)]
struct VcpuThread {
    /// The number of its vCPU.
    number: u32,
    /// The number of the thread.
    id: u32,
    /// Its `schedstat`, of which a read fails once the thread has ended. `None`: it is opened for each
    /// read, because too many files would be open.
    file: Option<File>,
}

impl VcpuThreads {
    /// Reads the vCPU threads of a process in the proc file system at `root`. They are searched for when
    /// what is expected, or a thread that has ended, tells that there may be others. A search goes by the
    /// number of the process; `exists` then says whether that still is the same process. At most `room`
    /// more files are kept open.
    ///
    /// `None` where no vCPU thread is visible, or where the kernel does not count these times.
    pub fn read(
        &mut self,
        root: &Path,
        process: u32,
        expected: Expected,
        room: &mut usize,
        exists: impl Fn() -> bool,
    ) -> Option<ThreadTimes> {
        let mut by_number = self.list.iter().any(|thread| thread.file.is_none());
        let mut searched = false;
        if self.may_have_changed(expected) {
            self.search(root, process, expected, room);
            searched = true;
        }
        let mut read = self.times(root, process, room);
        if read.is_err() && !searched {
            self.search(root, process, expected, room);
            searched = true;
            read = self.times(root, process, room);
        }
        by_number |= searched;
        if by_number && !exists() {
            *room += self.files();
            *self = Self::default();
            return None;
        }
        read.ok().flatten()
    }

    /// The number of files that are kept open.
    pub fn files(&self) -> usize {
        self.list.iter().filter(|one| one.file.is_some()).count()
    }

    /// Closes up to `most` of the files that are kept open, and returns how many.
    pub fn close_files(&mut self, most: usize) -> usize {
        let kept = self.list.iter_mut().filter(|one| one.file.is_some());
        kept.take(most).map(|one| one.file = None).count()
    }

    /// As many threads as expected means that nothing has changed: where one vCPU was removed and another
    /// one added, a thread has ended.
    fn may_have_changed(&self, expected: Expected) -> bool {
        let known = u64::try_from(self.list.len()).ok();
        let as_many = !self.list.is_empty() && expected.groups.or(expected.online) == known;
        let nothing_new = || {
            self.searched
                .is_some_and(|(with, again)| with == expected && Instant::now() < again)
        };
        !as_many && !nothing_new()
    }

    fn search(&mut self, root: &Path, process: u32, expected: Expected, room: &mut usize) {
        *room += self.files();
        *self = Self::default();
        self.searched = Some((expected, Instant::now() + SEARCH_AGAIN));
        let task = root.join(format!("{process}/task"));
        for entry in fs::read_dir(task).into_iter().flatten().flatten() {
            let id = entry.file_name().to_str().and_then(|id| id.parse().ok());
            // A thread that has ended meanwhile has no name.
            let name = fs::read(entry.path().join("comm")).unwrap_or_default();
            let (Some(id), Some(vcpu)) = (id, Vcpu::of(&name)) else {
                continue;
            };
            let number = match vcpu {
                Vcpu::Number(number) => number,
                Vcpu::All => {
                    self.shared = true;
                    0
                }
            };
            let file = None;
            self.list.push(VcpuThread { number, id, file });
        }
        self.list.sort_unstable_by_key(|thread| thread.number);
    }

    /// # Errors
    /// A thread has ended.
    fn times(
        &mut self,
        root: &Path,
        process: u32,
        room: &mut usize,
    ) -> io::Result<Option<ThreadTimes>> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let mut list: Arc<[VcpuTime]> = self.list.iter().map(VcpuThread::without_figures).collect();
        let at = Instant::now();
        // The list is not shared yet, so this does not copy it.
        for (vcpu, thread) in Arc::make_mut(&mut list).iter_mut().zip(&mut self.list) {
            let [time, delay, runs] = thread.schedstat(root, process, room)?;
            // A kernel that does not count has zeros there (proc_pid_schedstat in its fs/proc/base.c).
            if runs == 0 {
                return Ok(None);
            }
            (vcpu.time, vcpu.delay) = (Some(time), Some(delay));
        }
        let times = VcpuTimes {
            at: at + at.elapsed() / 2,
            list,
        };
        let shared = self.shared;
        Ok(Some(ThreadTimes { times, shared }))
    }
}

impl VcpuThread {
    fn without_figures(&self) -> VcpuTime {
        VcpuTime {
            number: self.number,
            thread: self.id,
            time: None,
            delay: None,
            state: None,
            wait: None,
        }
    }

    /// The time on a CPU and the time of waiting for one, ns, and how often it was given one. The file is
    /// kept open where there is room.
    fn schedstat(&mut self, root: &Path, process: u32, room: &mut usize) -> io::Result<[u64; 3]> {
        // Three numbers of up to 20 digits, each with a space or the end of the line.
        let mut buffer = [0; 64];
        let length = if let Some(file) = &self.file {
            pread(file, &mut buffer, 0)?
        } else {
            let path = root.join(format!("{process}/task/{}/schedstat", self.id));
            let file = File::open(path)?;
            let length = pread(&file, &mut buffer, 0)?;
            if *room > 0 {
                *room -= 1;
                self.file = Some(file);
            }
            length
        };
        let line = buffer.get(..length).and_then(numbers);
        line.ok_or_else(|| io::ErrorKind::InvalidData.into())
    }
}

/// The first three numbers of a line, which have a space or the end of the line between them; `None` if it has
/// not as many. The kernel writes none that is too large for 64 bits.
fn numbers(line: &[u8]) -> Option<[u64; 3]> {
    let mut numbers = [0_u64; 3];
    let mut rest = line;
    for number in &mut numbers {
        let mut digits = 0;
        for byte in rest {
            let digit = byte.wrapping_sub(b'0');
            if digit > 9 {
                break;
            }
            *number = number.wrapping_mul(10).wrapping_add(digit.into());
            digits += 1;
        }
        let after = rest.get(digits).unwrap_or(&b'\n');
        if digits == 0 || !matches!(after, b' ' | b'\n') {
            return None;
        }
        rest = rest.get(digits + 1..).unwrap_or_default();
    }
    Some(numbers)
}

/// What a thread serves, by its name.
#[derive(Debug, PartialEq, Eq)]
enum Vcpu {
    /// The vCPU of this number.
    Number(u32),
    /// All vCPUs.
    All,
}

impl Vcpu {
    /// Parses a name such as `CPU 0/KVM`. `None` for the other threads of QEMU.
    fn of(name: &[u8]) -> Option<Self> {
        let name = str::from_utf8(name).ok()?;
        if name.starts_with("ALL CPUs/") {
            return Some(Self::All);
        }
        let (number, _) = name.strip_prefix("CPU ")?.split_once('/')?;
        number.parse().ok().map(Self::Number)
    }
}

#[cfg(test)]
mod tests;
