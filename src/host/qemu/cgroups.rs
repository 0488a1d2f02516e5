//! The CPU time of VMs, read from their control groups.
//!
//! libvirt's `cpu` group comes from the same files (virCgroupGetCpuacctUsage,
//! virCgroupGetCpuacctStat). Reading them here spares a call that waits for QEMU's monitor: since
//! libvirt 7.1 and QEMU 7.1 it does so for a figure which this program does not write.
//!
//! The group found here may be another one than libvirt's (in another hierarchy or namespace). The
//! caller therefore compares its figures with libvirt's before it uses them.

use std::fs::{self, File};
use std::mem::MaybeUninit;
use std::path::{Path, PathBuf};
use std::time::Instant;

use rustix::fs::{RawDir, SeekFrom, seek};
use rustix::io::pread;
use uuid::Uuid;

use crate::maps::HashMap;

/// What a VM's control group has counted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct CpuUsage {
    /// When it was read.
    pub at: Instant,
    /// The total CPU time, ns.
    pub time: u64,
    /// The CPU time in user mode, ns.
    pub user: u64,
    /// The CPU time in the kernel, ns.
    pub system: u64,
    /// The number of vCPU groups in the VM's group. libvirt makes one for each vCPU that is online and
    /// has a thread of its own, beside the groups of the emulator and of I/O threads.
    pub vcpus: u64,
    /// The resolution of the total, user and system time, ns.
    pub resolution: [u64; 3],
}

/// The control groups of the VMs that were read last. Two or three descriptors a VM stay open.
#[derive(Debug)]
pub struct Cgroups {
    /// Where proc is mounted.
    proc: PathBuf,
    /// Where control groups are mounted.
    root: PathBuf,
    /// The number of the QEMU process and its group, which is `None` where it was not found.
    known: HashMap<Uuid, (u32, Option<VmCgroup>)>,
}

#[derive(Debug)]
struct VmCgroup {
    folder: File,
    files: CpuFiles,
}

#[derive(Debug)]
enum CpuFiles {
    /// `cpu.stat` of cgroup v2.
    V2(File),
    /// `cpuacct.usage` and `cpuacct.stat` of cgroup v1.
    V1(File, File),
}

impl Default for Cgroups {
    fn default() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl Cgroups {
    /// The control groups mounted at `root`, of processes in the proc file system mounted at `proc`.
    #[must_use]
    pub fn at(proc: &Path, root: &Path) -> Self {
        Self {
            proc: proc.into(),
            root: root.into(),
            known: HashMap::default(),
        }
    }

    /// Reads the groups of these QEMU processes and forgets all others. A VM whose group is not
    /// visible is missing from the result.
    pub fn read(&mut self, qemus: &[(Uuid, u32)]) -> HashMap<Uuid, CpuUsage> {
        let mut before = std::mem::take(&mut self.known);
        let mut usages = HashMap::with_capacity_and_hasher(qemus.len(), Default::default());
        for &(uuid, pid) in qemus {
            let known = before.remove(&uuid).filter(|(of, _)| *of == pid);
            // A QEMU that has just started is not in its group yet, so a failed lookup is repeated.
            let group = known
                .and_then(|(_, group)| group)
                .or_else(|| VmCgroup::of(&self.proc, &self.root, pid));
            let usage = group.as_ref().and_then(VmCgroup::read);
            usages.extend(usage.map(|usage| (uuid, usage)));
            // A group that was removed can no longer be read, and is looked up again next time.
            let group = group.filter(|_| usage.is_some());
            self.known.insert(uuid, (pid, group));
        }
        usages
    }
}

impl VmCgroup {
    /// Finds the group of a QEMU process.
    fn of(proc: &Path, root: &Path, pid: u32) -> Option<Self> {
        let text = fs::read_to_string(proc.join(format!("{pid}/cgroup"))).ok()?;
        // Where libvirt uses both versions, it takes the CPU time from v2
        // (VIR_CGROUP_BACKEND_TYPE_V2 comes first).
        if let Some(path) = vm_group(&text, "") {
            // Where v1 is mounted at the root, v2 is mounted at its folder `unified`.
            let mut roots = [root.to_path_buf(), root.join("unified")].into_iter();
            roots.find_map(|root| {
                let folder = root.join(path);
                let files = CpuFiles::V2(File::open(folder.join("cpu.stat")).ok()?);
                Self::with(&folder, files)
            })
        } else {
            let folder = root.join("cpuacct").join(vm_group(&text, "cpuacct")?);
            let open = |name| File::open(folder.join(name)).ok();
            let files = CpuFiles::V1(open("cpuacct.usage")?, open("cpuacct.stat")?);
            Self::with(&folder, files)
        }
    }

    fn with(folder: &Path, files: CpuFiles) -> Option<Self> {
        let folder = File::open(folder).ok()?;
        Some(Self { folder, files })
    }

    fn read(&self) -> Option<CpuUsage> {
        let mut buffer = [0; 1024];
        let at = Instant::now();
        let ([time, user, system], resolution) = match &self.files {
            CpuFiles::V2(file) => {
                let keys = ["usage_usec", "user_usec", "system_usec"];
                let times = figures(text(file, &mut buffer)?, keys, 1_000)?;
                (times, [1_000; 3])
            }
            CpuFiles::V1(usage, stat) => {
                let time = text(usage, &mut buffer)?.trim().parse().ok()?;
                let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second().max(1);
                let [user, system] = figures(text(stat, &mut buffer)?, ["user", "system"], tick)?;
                ([time, user, system], [1, tick, tick])
            }
        };
        let vcpus = self.vcpus()?;
        Some(CpuUsage {
            at,
            time,
            user,
            system,
            vcpus,
            resolution,
        })
    }

    /// Counts the folders `vcpuN`.
    fn vcpus(&self) -> Option<u64> {
        let mut vcpus = 0;
        each_vcpu(&self.folder, |_| vcpus += 1)?;
        Some(vcpus)
    }
}

/// Finds the VM's group in the text of `/proc/PID/cgroup` of its QEMU: the line of this controller, or with
/// `""` that of v2. libvirt puts QEMU's main thread in the group `emulator` inside the VM's group.
pub(super) fn vm_group<'t>(text: &'t str, controller: &str) -> Option<&'t str> {
    text.lines().find_map(|line| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (controllers, path) = (parts.next()?, parts.next()?);
        let path = path.strip_suffix("/emulator")?.trim_start_matches('/');
        let has = controllers.split(',').any(|name| name == controller);
        has.then_some(path)
    })
}

/// Calls `each` with the name of each vCPU's group (`vcpuN`) in the folder of a VM's group. `None` if the
/// folder cannot be read.
pub(super) fn each_vcpu(folder: &File, mut each: impl FnMut(&[u8])) -> Option<()> {
    let mut buffer = [MaybeUninit::uninit(); 4096];
    seek(folder, SeekFrom::Start(0)).ok()?;
    let mut entries = RawDir::new(folder, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        let name = entry.file_name().to_bytes();
        let number = name.strip_prefix(b"vcpu");
        if number.is_some_and(|n| !n.is_empty() && n.iter().all(u8::is_ascii_digit)) {
            each(name);
        }
    }
    Some(())
}

/// The figure with this key in lines of `KEY NUMBER`.
pub(super) fn figure(text: &str, key: &str) -> Option<u64> {
    let mut lines = text.lines().filter_map(|line| line.split_once(' '));
    let (_, number) = lines.find(|(known, _)| *known == key)?;
    number.trim().parse().ok()
}

fn text<'b>(file: &File, buffer: &'b mut [u8]) -> Option<&'b str> {
    let length = pread(file, &mut *buffer, 0).ok()?;
    std::str::from_utf8(buffer.get(..length)?).ok()
}

/// The figures with these keys, multiplied by `unit`, from lines of `KEY NUMBER`. `None` if one is
/// missing.
fn figures<const N: usize>(text: &str, keys: [&str; N], unit: u64) -> Option<[u64; N]> {
    let mut found = [None; N];
    for (key, number) in text.lines().filter_map(|line| line.split_once(' ')) {
        if let Some(place) = keys.iter().position(|wanted| *wanted == key) {
            found[place] = number.trim().parse::<u64>().ok()?.checked_mul(unit);
        }
    }
    let mut figures = [0; N];
    for (figure, found) in figures.iter_mut().zip(found) {
        *figure = found?;
    }
    Some(figures)
}

#[cfg(test)]
mod tests;
