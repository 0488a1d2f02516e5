//! What is known of the VMs and of this host after a gather: for `--check`, and for the log at debug level.

use std::sync::atomic::Ordering;
use std::time::Instant;

use smol_str::SmolStr;

use super::Gatherer;
use crate::description::DiskKind;
use crate::gather::protocol::Versions;
use crate::host::mounts::Health;
use crate::vms::{EventFeed, HostCounts};

/// What is in sight on this host, and how figures come.
#[derive(Debug, Clone, Default)]
pub struct HostOverview {
    /// The VMs with a visible QEMU process.
    pub processes: usize,
    /// What was read on this host, and what libvirt need not be asked for any more.
    pub counts: HostCounts,
    /// Whether vCPU threads are read.
    pub reads_vcpus: bool,
    /// The network mounts that carry files of VMs, and how each has answered.
    pub mounts: Vec<(std::path::PathBuf, Health)>,
}

/// A device of which no line is written.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct DeviceLeftOut {
    /// The VM's name.
    pub vm: SmolStr,
    /// The device's name; a NIC without a name on the host has none.
    pub device: Option<SmolStr>,
    /// Why it is left out.
    pub why: WhyLeftOut,
}

/// Why a device has no line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum WhyLeftOut {
    /// A NIC without a name on the host: nothing there counts its traffic.
    NoHostName,
    /// `device_include` or `device_exclude`.
    Filtered,
    /// A CD-ROM drive, without `cdrom = true`.
    Cdrom,
    /// A floppy drive, without `floppy = true`.
    Floppy,
    /// libvirt never has counters of it (vhost-user).
    NotCounted,
}

impl Gatherer {
    /// Has one worker read what its connection leads to, when it is idle.
    pub fn read_versions(&mut self) {
        self.workers.reads_versions.store(true, Ordering::Relaxed);
    }

    /// Whether libvirtd lets in fewer connections than are wanted.
    pub fn has_too_few_connections(&self) -> bool {
        self.workers.limited_to(Instant::now()).is_some()
    }

    /// What a worker has read after [`Gatherer::read_versions`].
    pub fn versions(&self) -> Option<&Versions> {
        self.versions.as_ref()
    }

    /// Whether libvirt reports changes of devices by events.
    pub fn has_events(&self) -> bool {
        matches!(self.vms.feed(), EventFeed::Live(_))
    }

    /// What is in sight on this host; `None` where the hypervisor is another host.
    pub fn host_overview(&self) -> Option<HostOverview> {
        let last = self.host_watcher.last()?;
        let uuids = self.vms.iter().map(|vm| vm.domain.run.uuid);
        let mut mounts = last.mounts.clone();
        mounts.sort_unstable();
        Some(HostOverview {
            processes: uuids.filter(|uuid| !last.unseen.contains(uuid)).count(),
            counts: self.vms.host_counts(),
            reads_vcpus: self.host_watcher.reads_vcpus(),
            mounts,
        })
    }

    /// The patterns of `statistics` that no key has matched.
    pub fn patterns_without_key(&self) -> Vec<String> {
        self.statistics.unmatched().map(str::to_owned).collect()
    }

    /// The devices of described VMs of which no line is written, in the order of VMs and devices.
    pub fn devices_left_out(&self) -> Vec<DeviceLeftOut> {
        let filter = &self.device_filter;
        let mut left_out = Vec::new();
        for vm in self.vms.iter() {
            let Some(known) = vm.described() else {
                continue;
            };
            let nics = known.nics.iter().filter_map(|nic| match &nic.target {
                None if nic.mac.is_some() => None,
                None => Some((None, WhyLeftOut::NoHostName)),
                Some(name) if !filter.nic(name) => Some((Some(name), WhyLeftOut::Filtered)),
                Some(_) => None,
            });
            let disks = known.disks.iter().filter_map(|disk| {
                let why = match disk.kind {
                    _ if !filter.names.matches(&disk.target) => WhyLeftOut::Filtered,
                    DiskKind::Cdrom if !filter.cdrom => WhyLeftOut::Cdrom,
                    DiskKind::Floppy if !filter.floppy => WhyLeftOut::Floppy,
                    _ if !disk.counted => WhyLeftOut::NotCounted,
                    _ => return None,
                };
                Some((Some(&disk.target), why))
            });
            left_out.extend(nics.chain(disks).map(|(device, why)| DeviceLeftOut {
                vm: vm.domain.name.clone(),
                device: device.cloned(),
                why,
            }));
        }
        left_out.sort_unstable();
        left_out
    }
}
