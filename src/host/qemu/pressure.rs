//! How much the processes of a VM have waited for CPU, memory and I/O of this host: the kernel's pressure stall
//! information (Documentation/accounting/psi.rst), from the files `cpu.pressure`, `memory.pressure` and `io.pressure` of
//! the VM's control group.
//!
//! They are there in cgroup v2 only, every user may read them, and no controller has to be on. Without pressure stall
//! information (`psi=0`, or the default of the kernel's build) they are missing, or reading one fails (EOPNOTSUPP).

use std::fs::{self, File};
use std::path::{Path, PathBuf};

use rustix::io::pread;
use uuid::Uuid;

use super::kept::Kept;
use crate::maps::HashMap;
use crate::sample::{Pressure, RESOURCES};

/// The pressure files of the VMs that were read last. The three files of each VM stay open, as long as there is room.
#[derive(Debug)]
pub struct PressureFiles {
    /// Where proc is mounted.
    proc: PathBuf,
    /// Where control groups are mounted.
    root: PathBuf,
    /// How many files may be kept open.
    pub most_files: usize,
    kept: Kept<Files>,
}

/// The files of one group, in the order of [`RESOURCES`].
type Files = [File; RESOURCES.len()];

impl PressureFiles {
    /// Those of this host. None is kept open as long as `most_files` is 0.
    pub fn new() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"), 0)
    }

    /// The control groups mounted at `root`, of processes in the proc file system mounted at `proc`.
    fn at(proc: &Path, root: &Path, most_files: usize) -> Self {
        Self {
            proc: proc.into(),
            root: root.into(),
            most_files,
            kept: Kept::new(),
        }
    }

    /// Reads the files of these QEMU processes and forgets all others. A VM without such files is missing from the
    /// result.
    pub fn read(&mut self, qemus: &[(Uuid, u32)]) -> HashMap<Uuid, Vec<Pressure>> {
        // Those of a group whose `cgroup.pressure` was switched off cannot be read.
        self.kept.read(
            qemus.iter().map(|&(uuid, pid)| (uuid, pid, ())),
            self.most_files / RESOURCES.len(),
            |pid| open(&self.proc, &self.root, pid),
            |files, ()| all(files),
        )
    }
}

/// Opens the files of the group of a QEMU process.
fn open(proc: &Path, root: &Path, pid: u32) -> Option<Files> {
    let text = fs::read_to_string(proc.join(format!("{pid}/cgroup"))).ok()?;
    let path = whole_group(&text)?;
    // Where v1 is mounted at the root, v2 is mounted at its folder `unified`.
    let mut roots = [root.to_path_buf(), root.join("unified")].into_iter();
    roots.find_map(|root| {
        let folder = root.join(path);
        let open = |resource| File::open(folder.join(format!("{resource}.pressure"))).ok();
        let [cpu, memory, io] = RESOURCES.map(open);
        Some([cpu?, memory?, io?])
    })
}

/// Finds the group that has all processes of the VM, in the text of `/proc/PID/cgroup` of its QEMU.
///
/// QEMU's main thread is in the group `emulator`. With systemd, the folder above that is `libvirt`, which is inside the
/// scope of the VM. Where systemd uses v2 only to follow processes, libvirt makes no groups there, and QEMU is in
/// the scope itself.
fn whole_group(text: &str) -> Option<&str> {
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    if let Some(group) = path.strip_suffix("/emulator") {
        return Some(group.strip_suffix("/libvirt").unwrap_or(group));
    }
    let (_, scope) = path.rsplit_once('/')?;
    let is_vms = scope.starts_with("machine-qemu") && scope.ends_with(".scope");
    is_vms.then_some(path)
}

/// The figures of all files; `None` if one cannot be read.
fn all(files: &Files) -> Option<Vec<Pressure>> {
    let mut all = Vec::with_capacity(2 * RESOURCES.len());
    for (resource, file) in RESOURCES.into_iter().zip(files) {
        let mut buffer = [0; 512];
        let length = pread(file, &mut buffer[..], 0).ok()?;
        let text = str::from_utf8(&buffer[..length]).ok()?;
        all.extend(text.lines().filter_map(|line| parse(resource, line)));
    }
    Some(all)
}

/// Reads a line such as `some avg10=0.12 avg60=0.00 avg300=0.00 total=345`. Before Linux 5.13 the file of the CPU has
/// no line `full`.
fn parse(resource: &'static str, line: &str) -> Option<Pressure> {
    let (kind, mut rest) = line.split_once(' ')?;
    let kind = ["some", "full"].into_iter().find(|known| *known == kind)?;
    let mut value = |key: &str| {
        let (first, others) = rest.split_once(' ').unwrap_or((rest, ""));
        rest = others;
        first.strip_prefix(key)?.strip_prefix('=')
    };
    Some(Pressure {
        resource,
        kind,
        avg10: value("avg10")?.parse().ok()?,
        avg60: value("avg60")?.parse().ok()?,
        avg300: value("avg300")?.parse().ok()?,
        total: value("total")?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests;
