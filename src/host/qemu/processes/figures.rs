//! What this host says of each VM's QEMU.

use uuid::Uuid;

use super::Processes;
use crate::host::qemu::process::{Process, sole_qemu};
use crate::host::qemu::vcpus::{Expected, ThreadTimes};
use crate::maps::HashMap;
use crate::sample::{Pressure, Throttling};

/// What this host says of one VM's QEMU.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct HostFigures {
    /// How long ago its process was started, s.
    pub uptime: Option<u64>,
    /// The resident memory of its process, KiB.
    pub resident: Option<u64>,
    /// What its vCPU threads have counted.
    pub vcpus: Option<ThreadTimes>,
    /// How often its CPU quota has stopped it.
    pub throttling: Option<Throttling>,
    /// How much it has waited for resources of this host; empty if that is not known or not wanted.
    pub pressure: Vec<Pressure>,
}

/// Of what the figures of vCPUs are read.
#[derive(Debug, Clone, Copy)]
pub struct VcpuReading<'g> {
    /// The number of vCPU groups in each VM's control group, where that is visible.
    pub groups: &'g HashMap<Uuid, u64>,
    /// The number of vCPUs online in the last sample of each VM that had it.
    pub online: &'g HashMap<Uuid, u64>,
    /// How many files may be kept open.
    pub most_files: usize,
}

impl Processes {
    /// The figures of the VMs of the last check that have exactly one QEMU process.
    pub fn figures(&mut self, vcpus: Option<VcpuReading>) -> HashMap<Uuid, HostFigures> {
        let kept = self.vcpu_files();
        let most = vcpus.map_or(0, |vcpus| vcpus.most_files);
        let mut excess = kept.saturating_sub(most);
        for process in self.known.values_mut().flatten() {
            excess -= process.close_vcpu_files(excess);
        }
        let mut room = most.saturating_sub(kept);
        let mut figures = HashMap::default();
        for (uuid, processes) in &mut self.known {
            let pid = sole_qemu(processes).map(|qemu| qemu.pid);
            let Some(process) = processes.iter_mut().find(|one| Some(one.pid) == pid) else {
                continue;
            };
            let (uptime, resident) = (process.uptime(), process.resident());
            let vcpus = vcpus.and_then(|vcpus| {
                let expected = Expected {
                    groups: vcpus.groups.get(uuid).copied(),
                    online: vcpus.online.get(uuid).copied(),
                };
                process.vcpu_times(&self.root, expected, &mut room)
            });
            let of_vm = HostFigures {
                uptime,
                resident,
                vcpus,
                throttling: None,
                pressure: Vec::new(),
            };
            figures.insert(*uuid, of_vm);
        }
        figures
    }

    /// How many files of vCPU threads are kept open.
    pub(super) fn vcpu_files(&self) -> usize {
        let all = self.known.values().flatten();
        all.map(Process::vcpu_files).sum()
    }
}
