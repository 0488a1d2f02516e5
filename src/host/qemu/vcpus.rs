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
use std::io::{self, Read};
use std::path::Path;
use std::time::Instant;

use rustix::io::pread;

use crate::sample::{VcpuTime, VcpuTimes};

/// What the vCPU threads of a VM have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct ThreadTimes {
    /// The figures.
    pub times: VcpuTimes,
    /// One thread serves all vCPUs, however many there are.
    pub shared: bool,
}

/// What tells that vCPUs were added or removed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Hints {
    /// The number of vCPU groups in the VM's control group; `None` where that is not visible.
    pub groups: Option<u64>,
    /// The number of all threads of the process. It also changes with each thread that QEMU starts or ends
    /// for requests to a disk.
    pub threads: Option<u64>,
}

/// The vCPU threads of one process, as the last search has found them.
#[derive(Debug, Default)]
pub(super) struct VcpuThreads {
    /// In the order of the vCPUs' numbers.
    list: Vec<VcpuThread>,
    shared: bool,
    /// What was known at the last search. `None`: there was none.
    searched_with: Option<Hints>,
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
    /// the hints, or a thread that has ended, tell that there may be others. A search goes by the number
    /// of the process; `exists` then says whether that still is the same process. At most `room` more files
    /// are kept open.
    ///
    /// `None` where no vCPU thread is visible, or where the kernel does not count these times.
    pub fn read(
        &mut self,
        root: &Path,
        process: u32,
        hints: Hints,
        room: &mut usize,
        exists: impl Fn() -> bool,
    ) -> Option<ThreadTimes> {
        let mut searched = false;
        if self.may_have_changed(hints) {
            self.search(root, process, hints, room);
            searched = true;
        }
        let mut read = self.times(root, process);
        if read.is_err() && !searched {
            self.search(root, process, hints, room);
            searched = true;
            read = self.times(root, process);
        }
        let by_number = searched || self.list.iter().any(|thread| thread.file.is_none());
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

    /// As many vCPU groups as there are threads means that nothing has changed: where one vCPU was removed
    /// and another one added, a thread has ended.
    fn may_have_changed(&self, hints: Hints) -> bool {
        let known = u64::try_from(self.list.len()).ok();
        let as_many = !self.list.is_empty() && hints.groups == known;
        !as_many && self.searched_with != Some(hints)
    }

    fn search(&mut self, root: &Path, process: u32, hints: Hints, room: &mut usize) {
        *room += self.files();
        *self = Self::default();
        self.searched_with = Some(hints);
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
            let file = (*room > 0)
                .then(|| File::open(entry.path().join("schedstat")).ok())
                .flatten();
            *room -= usize::from(file.is_some());
            self.list.push(VcpuThread { number, id, file });
        }
        self.list.sort_unstable_by_key(|thread| thread.number);
    }

    /// # Errors
    /// A thread has ended.
    fn times(&self, root: &Path, process: u32) -> io::Result<Option<ThreadTimes>> {
        if self.list.is_empty() {
            return Ok(None);
        }
        let mut all = Vec::with_capacity(self.list.len());
        let at = Instant::now();
        for thread in &self.list {
            let [time, delay, runs] = thread.schedstat(root, process)?;
            // A kernel that does not count has zeros there (proc_pid_schedstat in its fs/proc/base.c).
            if runs == 0 {
                return Ok(None);
            }
            all.push(VcpuTime {
                number: thread.number,
                thread: thread.id,
                time: Some(time),
                delay: Some(delay),
                state: None,
                wait: None,
            });
        }
        let times = VcpuTimes {
            at: at + at.elapsed() / 2,
            list: all.into(),
        };
        let shared = self.shared;
        Ok(Some(ThreadTimes { times, shared }))
    }
}

impl VcpuThread {
    /// The time on a CPU and the time of waiting for one, ns, and how often it was given one.
    fn schedstat(&self, root: &Path, process: u32) -> io::Result<[u64; 3]> {
        // Three numbers of up to 20 digits.
        let mut buffer = [0; 80];
        let length = match &self.file {
            Some(file) => pread(file, &mut buffer, 0)?,
            None => {
                let path = root.join(format!("{process}/task/{}/schedstat", self.id));
                File::open(path)?.read(&mut buffer)?
            }
        };
        let text = str::from_utf8(&buffer[..length]).unwrap_or_default();
        let mut numbers = text.split_ascii_whitespace().map(str::parse);
        let mut figures = [0; 3];
        for figure in &mut figures {
            let number = numbers.next().and_then(Result::ok);
            *figure = number.ok_or(io::ErrorKind::InvalidData)?;
        }
        Ok(figures)
    }
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
