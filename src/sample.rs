//! The figures of one VM in one gather, each of them an `Option`.
//!
//! `None` means that libvirt did not report the figure, which is never the same as 0. A sample holds no
//! handle of libvirt and knows nothing of line protocol.

mod host;
mod job;
mod memory;
mod stats;

use std::sync::Arc;
use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::description::{Description, Info, TagValues};
use crate::device_filter::DeviceFilter;

pub use host::{Pressure, RESOURCES, Throttling, VcpuTime, VcpuTimes};
pub use job::{JobStats, JobStatus};
pub use memory::Memory;
pub use stats::{StatValue, Stats};

/// How many counters a NIC has.
pub const NIC_COUNTERS: usize = 8;

/// How many counters and sizes a disk has.
pub const DISK_COUNTERS: usize = 12;

/// The names of a NIC's counters, in the order in which [`Device::counters`] holds them.
pub const NIC_FIELDS: [&str; NIC_COUNTERS] = [
    "rxbytes",
    "rxpackets",
    "rxerrors",
    "rxdrops",
    "txbytes",
    "txpackets",
    "txerrors",
    "txdrops",
];

/// The names of a disk's counters and sizes, in the same order. Times are in ns. QEMU adds a request's time to them when
/// the request has ended, also when it failed, but counts only those that succeeded (block_account_one_io in its
/// block/accounting.c).
pub const DISK_FIELDS: [&str; DISK_COUNTERS] = [
    "rd_req",
    "rd_bytes",
    "wr_reqs",
    "wr_bytes",
    "errors",
    "rd_time_ns",
    "wr_time_ns",
    "fl_time_ns",
    "fl_reqs",
    "capacity_bytes",
    "allocation_bytes",
    "physical_bytes",
];

/// One run of one VM. A VM that is started again keeps its UUID and gets a new id.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct RunId {
    /// The domain's UUID.
    pub uuid: Uuid,
    /// libvirt's domain id.
    pub id: u32,
}

/// The figures of one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The run of the VM.
    pub run: RunId,
    /// The domain's name.
    pub name: SmolStr,
    /// The state (virDomainState).
    pub state: Option<i32>,
    /// The reason for the state; what a number means depends on the state.
    pub reason: Option<i32>,
    /// Whether the VM's QEMU answered in this gather; `None` where none has to answer, and where it was
    /// not asked.
    pub answers: Option<bool>,
    /// Virtual CPUs online.
    pub vcpus: Option<u64>,
    /// CPU time.
    pub cpu: Cpu,
    /// What the threads of the vCPUs have counted.
    pub vcpu_times: Option<VcpuTimes>,
    /// How often its CPU quota has stopped it; `None` if it has no quota.
    pub throttling: Option<Throttling>,
    /// How much its processes have waited for resources of the host; empty if that is not known or not wanted.
    pub pressure: Vec<Pressure>,
    /// How long ago the VM's QEMU process was started, s.
    pub uptime: Option<u64>,
    /// Memory.
    pub memory: Memory,
    /// The figures that the configuration names by libvirt's own keys, of the groups that are asked for anyway.
    pub stats: Vec<Stats>,
    /// Network interfaces; `None` if they were not reported in this gather.
    pub nics: Option<Devices<NIC_COUNTERS>>,
    /// Disks; `None` if they were not reported in this gather.
    pub disks: Option<Devices<DISK_COUNTERS>>,
    /// The paths of the disks' images (`block.N.path`), where the disks came from bulk statistics: each path with a
    /// NUL after it, in the order of the statistics. It is one string because each gather compares it with the
    /// last one.
    pub paths: String,
    /// When devices were last removed from the VM.
    pub removed: Removed,
    /// The values of its XML that are wanted as tags; `None`: none are, or the XML has not been read.
    pub tags: Option<Arc<TagValues>>,
    /// What `vm_info` shows; `None`: that is not wanted, or the XML has not been read.
    pub info: Option<Arc<Info>>,
}

/// When libvirt last reported that a device was removed from a VM. A new device may have taken its name since.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// The last removal of a network interface; `None` if none was reported.
    pub nic: Option<Instant>,
    /// The last removal of a disk; `None` if none was reported.
    pub disk: Option<Instant>,
}

/// CPU time of a VM, in ns since it started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// Midpoint of the call that reported it.
    pub at: Instant,
    /// All CPU time, that of QEMU itself and of vhost threads included.
    pub time: Option<u64>,
    /// CPU time in user mode.
    pub user: Option<u64>,
    /// CPU time in the kernel.
    pub system: Option<u64>,
}

/// The network interfaces or the disks of one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices<const N: usize> {
    /// Midpoint of the call that reported the counters.
    pub at: Instant,
    /// Each device that the VM has and that is wanted.
    pub list: Vec<Device<N>>,
    /// Whether the list is known to be complete. Only then is there a sum.
    pub complete: bool,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device<const N: usize> {
    /// Its name (`vnet0`, `vda`); a user-mode NIC has none, and no counters either.
    pub name: Option<SmolStr>,
    /// Its type in the XML (`bridge`, `cdrom`). Devices of the same kind have the same counters.
    pub kind: SmolStr,
    /// The counters (of a disk its sizes too), in the order of [`NIC_FIELDS`] or [`DISK_FIELDS`].
    pub counters: [Option<u64>; N],
    /// How many I/O errors libvirt's events have reported of a disk since this program began to watch the run; `None`
    /// where there are no such events, and for a NIC. Our own count, so there is no sum of it and no rate.
    pub io_errors: Option<u64>,
}

impl Sample {
    /// A sample of this moment in which nothing is reported yet.
    pub fn new(run: RunId, name: SmolStr, at: Instant) -> Self {
        Self {
            run,
            name,
            state: None,
            reason: None,
            answers: None,
            vcpus: None,
            cpu: Cpu::new(at),
            vcpu_times: None,
            throttling: None,
            pressure: Vec::new(),
            uptime: None,
            memory: Memory::new(at),
            stats: Vec::new(),
            nics: None,
            disks: None,
            paths: String::new(),
            removed: Removed::default(),
            tags: None,
            info: None,
        }
    }

    /// Whether the sample has a figure for which libvirt had QEMU's monitor: of the memory, whose resident size libvirt
    /// gives with the monitor alone, or of a disk.
    pub fn has_figures_of_qemu(&self) -> bool {
        let mut disks = self.disks.iter().flat_map(|disks| &disks.list);
        self.memory.rss.is_some() || disks.any(|disk| disk.counters.iter().any(Option::is_some))
    }

    /// Whether the VM runs and there are no figures of its guest's memory: it never reported them, or so long ago that
    /// they were dropped ([`Memory::set_report_age`]). A guest reports once when its driver starts, and from then on
    /// only where a period is set.
    pub fn lacks_guest_memory(&self) -> bool {
        let memory = &self.memory;
        let has_figures = memory.available.is_some() || memory.usable.is_some();
        self.is_running() && !has_figures
    }

    /// Whether the VM runs (virDomainState).
    pub fn is_running(&self) -> bool {
        self.state == Some(1)
    }

    /// Sets the kinds of the devices, and removes devices that are not wanted and disks that cannot have
    /// counters. Without a description all disks are removed: only the XML says which of them are CD-ROM drives.
    pub fn describe(&mut self, description: Option<&Description>, wanted: &DeviceFilter) {
        if let Some(nics) = &mut self.nics {
            for nic in &mut nics.list {
                let described = description
                    .filter(|_| nic.name.is_some())
                    .and_then(|d| d.nics.iter().find(|described| described.target == nic.name));
                if let Some(described) = described {
                    nic.kind.clone_from(&described.kind);
                }
            }
            // A filter of names does not apply to a NIC without a name.
            nics.list
                .retain(|nic| nic.name.as_deref().is_none_or(|name| wanted.nic(name)));
        }
        let Some(description) = description else {
            self.disks = None;
            return;
        };
        let Some(disks) = &mut self.disks else {
            return;
        };
        let mut complete = disks.complete;
        let mut uncounted = false;
        disks.list.retain_mut(|disk| {
            let described = description
                .disks
                .iter()
                .find(|described| Some(&described.target) == disk.name.as_ref());
            let Some(described) = described else {
                complete = false;
                return false;
            };
            disk.kind = SmolStr::new_static(described.kind.word());
            uncounted |= !described.counted;
            described.counted && wanted.disk(&described.target, described.kind)
        });
        // If all disks are of a kind that libvirt does not count, the sum is unknown, not 0.
        disks.complete = complete && !(uncounted && disks.list.is_empty());
    }
}

impl Cpu {
    fn new(at: Instant) -> Self {
        Self {
            at,
            time: None,
            user: None,
            system: None,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
