//! Whether the CPU time of a VM that we read from its control group is libvirt's.
//!
//! libvirt is queried until what it reports has been seen to lie between two of our readings
//! ([`Proof`]).

use uuid::Uuid;

use super::proof::Proof;
use crate::host::lie_between;
use crate::host::qemu::cgroups::CpuUsage;
use crate::maps::HashMap;
use crate::sample::{Cpu, Sample};

/// CPU time and vCPUs of a VM, read on this host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processor {
    /// The CPU time.
    pub cpu: Cpu,
    /// Virtual CPUs online.
    pub vcpus: u64,
}

/// The resolution in which the kernel counts a process's CPU time in /proc, ns: 1/100 s (USER_HZ) on
/// every architecture where libvirt has QEMU. A control group counts its CPU time in finer steps.
const TICK: u64 = 10_000_000;

/// What the control groups of all VMs say: read in this gather, and in the last one.
#[derive(Debug, Default)]
pub(super) struct CpuReadings {
    pub(super) now: HashMap<Uuid, CpuUsage>,
    pub(super) before: HashMap<Uuid, CpuUsage>,
}

impl CpuReadings {
    /// A new gather begins.
    pub(super) fn begin(&mut self) {
        self.before = std::mem::take(&mut self.now);
    }
}

/// What libvirt reported of a VM.
#[derive(Debug)]
struct Reported {
    /// As [`times`] has them.
    times: [u64; 3],
    vcpus: u64,
}

/// What is known of the CPU time of one run of a VM.
#[derive(Debug, Default)]
pub(super) struct VmCpu {
    /// Proven: our control group is libvirt's, and both count so many vCPUs.
    proof: Proof<Reported, u64>,
    /// libvirt's CPU time is a control group's: it came in finer steps than a process's.
    is_cgroups: bool,
}

impl VmCpu {
    /// `sample` is libvirt's of this gather, `usage` is our reading of this gather.
    pub(super) fn report(&mut self, usage: Option<&CpuUsage>, sample: &Sample) {
        let cpu = &sample.cpu;
        if let (Some(time), Some(user), Some(system), Some(vcpus)) =
            (cpu.time, cpu.user, cpu.system, sample.vcpus)
            && let Some(usage) = usage
            && self.processor(Some(usage)).is_none()
            // A sample with our own figures proves nothing.
            && usage.at != cpu.at
        {
            let times = [time, user, system];
            self.proof.report(Reported { times, vcpus });
        }
    }

    /// Compares what libvirt reported with our readings before and after.
    pub(super) fn compare(
        &mut self,
        uuid: Uuid,
        before: &HashMap<Uuid, CpuUsage>,
        after: &HashMap<Uuid, CpuUsage>,
    ) {
        self.proof.compare(|libvirt| {
            let (before, after) = before.get(&uuid).zip(after.get(&uuid))?;
            // A counter in other steps than ours is another counter, and would go backwards when
            // ours takes its place.
            let mut resolution = libvirt.times.iter().zip(after.resolution);
            let same = before.vcpus == libvirt.vcpus
                && after.vcpus == libvirt.vcpus
                && resolution.all(|(time, step)| time.is_multiple_of(step))
                && lie_between(&times(before), &libvirt.times, &times(after));
            same.then_some(libvirt.vcpus)
        });
    }

    /// The VM's CPU time and vCPUs by our reading; `None` where libvirt has to be queried.
    pub(super) fn processor(&self, usage: Option<&CpuUsage>) -> Option<Processor> {
        let usage = usage?;
        // Where a vCPU was added or removed, libvirt has to show again that it counts the same.
        let vcpus = self
            .proof
            .proven()
            .copied()
            .filter(|vcpus| *vcpus == usage.vcpus)?;
        Some(Processor {
            cpu: Cpu {
                at: usage.at,
                time: Some(usage.time),
                user: Some(usage.user),
                system: Some(usage.system),
            },
            vcpus,
        })
    }

    /// Drops the CPU time of a VM that came in part (not `full`) if it is another counter than before.
    /// libvirt 9.0 gives the process's CPU time (7.0: none) where it does not know the control group,
    /// and a libvirtd that was restarted does not know it until the VM's QEMU has answered
    /// (qemuProcessReconnect). The two counters differ by any amount: the process's includes what QEMU
    /// used before it was put in its control group.
    pub(super) fn correct(&mut self, full: bool, sample: &mut Sample) {
        let cpu = &mut sample.cpu;
        let Some(time) = cpu.time else { return };
        if !time.is_multiple_of(TICK) {
            self.is_cgroups = true;
        } else if !full && self.is_cgroups {
            (cpu.time, cpu.user, cpu.system) = (None, None, None);
        }
    }

    /// The run was described anew: a device changed, or events were lost for a while.
    pub(super) fn on_description(&mut self) {
        self.proof.reopen();
    }

    /// libvirtd may be another process.
    pub(super) fn on_restart(&mut self) {
        self.proof.clear();
    }
}

fn times(usage: &CpuUsage) -> [u64; 3] {
    [usage.time, usage.user, usage.system]
}

#[cfg(test)]
mod tests;
