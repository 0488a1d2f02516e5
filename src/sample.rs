//! What was measured of one VM in one gather: plain figures, every one an `Option`.
//!
//! `None` is "libvirt did not report it", which is never the same as 0. A sample holds no libvirt
//! handle and knows nothing of line protocol.

use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::description::Description;
pub use crate::device_filter::DeviceFilter;

/// How many counters a NIC has.
pub const NIC_COUNTERS: usize = 8;

/// How many counters a disk has.
pub const DISK_COUNTERS: usize = 5;

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

/// The names of a disk's counters, in the same order.
pub const DISK_FIELDS: [&str; DISK_COUNTERS] =
    ["rd_req", "rd_bytes", "wr_reqs", "wr_bytes", "errors"];

/// One run of one VM: a restarted VM keeps its UUID and gets a new id.
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
    /// Whose figures.
    pub run: RunId,
    /// The domain's name.
    pub name: SmolStr,
    /// virDomainState.
    pub state: Option<i32>,
    /// The reason for it; its meaning depends on the state.
    pub reason: Option<i32>,
    /// Virtual CPUs online.
    pub vcpus: Option<u64>,
    /// CPU time.
    pub cpu: Cpu,
    /// Memory.
    pub memory: Memory,
    /// Network interfaces; `None`: not reported in this gather.
    pub nics: Option<Devices<NIC_COUNTERS>>,
    /// Disks; `None`: not reported in this gather.
    pub disks: Option<Devices<DISK_COUNTERS>>,
    /// The paths of the disks' images (`block.N.path`), where the bulk statistics brought the disks: each path and a NUL
    /// after it, in the order of the statistics. One text: it is compared with the last one in each gather.
    pub paths: String,
    /// When devices were last removed.
    pub removed: Removed,
}

/// When libvirt last reported that a device of each sort was removed from a VM: another one may have
/// taken its name.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Removed {
    /// A network interface; `None`: never, as far as it told.
    pub nic: Option<Instant>,
    /// A disk, likewise.
    pub disk: Option<Instant>,
}

/// CPU time of a VM in ns since it started.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Cpu {
    /// Midpoint of the call that brought it.
    pub at: Instant,
    /// All of it, QEMU's own and vhost threads included.
    pub time: Option<u64>,
    /// In user mode.
    pub user: Option<u64>,
    /// In the kernel.
    pub system: Option<u64>,
}

/// Memory of a VM, sizes in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// Midpoint of the call that brought it.
    pub at: Instant,
    /// The most it may have.
    pub maximum: Option<u64>,
    /// Now given to it.
    pub current: Option<u64>,
    /// The balloon's size, as libvirt's memory statistics have it.
    pub actual: Option<u64>,
    /// Resident on the host.
    pub rss: Option<u64>,
    /// What the guest calls its total.
    pub available: Option<u64>,
    /// What the guest could use without swapping.
    pub usable: Option<u64>,
    /// Swapped in by the guest.
    pub swap_in: Option<u64>,
    /// Swapped out by the guest.
    pub swap_out: Option<u64>,
    /// Faults that needed the disk (a count).
    pub major_fault: Option<u64>,
    /// Faults that did not (a count).
    pub minor_fault: Option<u64>,
    /// The guest's page cache.
    pub disk_caches: Option<u64>,
}

/// The devices of one sort, of one VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Devices<const N: usize> {
    /// Midpoint of the call that brought the counters.
    pub at: Instant,
    /// Each device that the VM has.
    pub list: Vec<Device<N>>,
    /// Whether the list is surely all of them: only then can it be summed.
    pub complete: bool,
}

/// One device.
#[derive(Debug, Clone, PartialEq)]
pub struct Device<const N: usize> {
    /// Its name on the host; a user-mode NIC has none, and no counters either.
    pub name: Option<SmolStr>,
    /// What the XML calls its sort (`bridge`, `cdrom`): devices of one kind report alike.
    pub kind: SmolStr,
    /// The counters, in the order of [`NIC_FIELDS`] or [`DISK_FIELDS`].
    pub counters: [Option<u64>; N],
}

impl Sample {
    /// A sample in which nothing is reported yet, taken at `at`.
    pub fn new(run: RunId, name: SmolStr, at: Instant) -> Self {
        Self {
            run,
            name,
            state: None,
            reason: None,
            vcpus: None,
            cpu: Cpu::new(at),
            memory: Memory::new(at),
            nics: None,
            disks: None,
            paths: String::new(),
            removed: Removed::default(),
        }
    }

    /// Names the devices' kinds, and leaves out those that the configuration does not want, and
    /// disks that cannot have counters.
    /// Without a description the disks are left out altogether: which of them are CD-ROM drives is
    /// known from the XML alone.
    pub fn describe(&mut self, description: Option<&Description>, wanted: &DeviceFilter) {
        if let Some(nics) = &mut self.nics {
            for nic in &mut nics.list {
                let known = description.and_then(|d| {
                    let mut nics = d.nics.iter();
                    nics.find(|known| nic.name.is_some() && known.target == nic.name)
                });
                if let Some(known) = known {
                    nic.kind.clone_from(&known.kind);
                }
            }
            // A NIC without a name cannot be meant by a filter of names.
            let list = &mut nics.list;
            list.retain(|nic| nic.name.as_deref().is_none_or(|name| wanted.nic(name)));
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
            let mut known = description.disks.iter();
            let Some(known) = known.find(|d| Some(&d.target) == disk.name.as_ref()) else {
                complete = false;
                return false;
            };
            disk.kind = SmolStr::new_static(known.kind.word());
            uncounted |= !known.counted;
            known.counted && wanted.disk(&known.target, known.kind)
        });
        // Of disks that libvirt does not count there is no sum, and 0 would be false.
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

impl Memory {
    fn new(at: Instant) -> Self {
        Self {
            at,
            maximum: None,
            current: None,
            actual: None,
            rss: None,
            available: None,
            usable: None,
            swap_in: None,
            swap_out: None,
            major_fault: None,
            minor_fault: None,
            disk_caches: None,
        }
    }
}

#[cfg(test)]
pub(crate) mod testing;
#[cfg(test)]
mod tests;
