//! How often CPU quotas have stopped the vCPUs of a VM.
//!
//! libvirt sets `<quota>` on the control group of each vCPU and `<global_quota>` on the VM's
//! (virDomainCgroupSetupVcpuBW). The kernel counts in the group that has the quota, and does not sum up the tree.
//! Where both are set, all these groups are summed.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use rustix::fs::{Mode, OFlags, openat};
use uuid::Uuid;

use super::cgroups::{each_vcpu, figure, vm_group};
use super::kept::Kept;
use crate::description::CpuQuota;
use crate::maps::HashMap;
use crate::sample::Throttling;

/// A VM whose CPU quota is read.
#[derive(Debug, Clone, Copy)]
pub struct Limited {
    /// The VM.
    pub vm: Uuid,
    /// The number of its QEMU process.
    pub process: u32,
    /// Which of its groups have a quota.
    pub quota: CpuQuota,
}

/// The control groups of the VMs with a quota that were read last. One descriptor a VM stays open.
#[derive(Debug)]
pub struct QuotaGroups {
    /// Where proc is mounted.
    proc: PathBuf,
    /// Where control groups are mounted.
    root: PathBuf,
    /// The folder of each VM's group.
    kept: Kept<File>,
}

impl Default for QuotaGroups {
    fn default() -> Self {
        Self::at(Path::new("/proc"), Path::new("/sys/fs/cgroup"))
    }
}

impl QuotaGroups {
    /// The control groups mounted at `root`, of processes in the proc file system mounted at `proc`.
    fn at(proc: &Path, root: &Path) -> Self {
        Self {
            proc: proc.into(),
            root: root.into(),
            kept: Kept::new(),
        }
    }

    /// Reads the groups of these VMs and forgets all others. A VM of which a group is not visible, or does
    /// not count, is missing from the result.
    pub fn read(&mut self, limited: &[Limited]) -> HashMap<Uuid, Throttling> {
        self.kept.read(
            limited.iter().map(|one| (one.vm, one.process, one.quota)),
            usize::MAX,
            |process| vm_folder(&self.proc, &self.root, process),
            throttling,
        )
    }
}

/// The folder of the VM's group with the cpu controller. Where v1 has that controller, libvirt sets the
/// quota there.
fn vm_folder(proc: &Path, root: &Path, process: u32) -> Option<File> {
    let text = std::fs::read_to_string(proc.join(format!("{process}/cgroup"))).ok()?;
    if let Some(path) = vm_group(&text, "cpu") {
        return File::open(root.join("cpu").join(path)).ok();
    }
    let path = vm_group(&text, "")?;
    let mut roots = [root.to_path_buf(), root.join("unified")].into_iter();
    roots.find_map(|root| File::open(root.join(path)).ok())
}

/// The sum over the groups that have a quota; `None` if one of them cannot be read.
fn throttling(folder: &File, quota: CpuQuota) -> Option<Throttling> {
    let mut sum = Throttling::default();
    let mut complete = true;
    let mut add = |group: &[u8]| match of_group(folder, group) {
        Some(one) => sum += one,
        None => complete = false,
    };
    if quota.vm {
        add(b".");
    }
    if quota.vcpus {
        each_vcpu(folder, add)?;
    }
    complete.then_some(sum)
}

/// Reads `cpu.stat` of a group in the folder.
fn of_group(folder: &File, group: &[u8]) -> Option<Throttling> {
    let path = [group, b"/cpu.stat"].concat();
    let flags = OFlags::RDONLY | OFlags::CLOEXEC;
    let mut file = File::from(openat(folder, path, flags, Mode::empty()).ok()?);
    let mut buffer = [0; 1024];
    let length = file.read(&mut buffer).ok()?;
    let text = str::from_utf8(&buffer[..length]).ok()?;
    let throttled = match figure(text, "throttled_usec") {
        Some(microseconds) => microseconds.checked_mul(1000)?,
        None => figure(text, "throttled_time")?,
    };
    Some(Throttling {
        periods: figure(text, "nr_periods")?,
        throttled_periods: figure(text, "nr_throttled")?,
        throttled,
    })
}

#[cfg(test)]
mod tests;
