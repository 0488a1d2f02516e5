//! One run of one VM.

use std::sync::Arc;
use std::time::Instant;

use smol_str::SmolStr;

use super::arrival::Arrival;
use super::balloon::VmBalloon;
use super::cached_description::CachedDescription;
use super::cpu::VmCpu;
use super::ended::Endings;
use super::nics::{NetReadings, VmNics};
use super::readings::VcpuMiscount;
use crate::host::qemu::HostFigures;
use crate::sample::{Removed, RunId};

/// An active domain, as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DomainRef {
    /// Which run of which domain.
    pub run: RunId,
    /// Its name.
    pub name: SmolStr,
}

/// Where the figures of a VM's vCPUs come from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VcpuSource {
    /// This host's proc file system.
    Host,
    /// libvirt's vcpu group.
    Libvirt,
}

/// What is known of the current run of a VM. Another run of the VM begins with nothing, except for the
/// changes that events reported: they name the VM and not the run.
#[derive(Debug)]
pub struct VmRecord {
    /// The run, and the VM's name.
    pub domain: DomainRef,
    /// Its devices, if its XML has been read.
    pub(super) description: Option<Arc<CachedDescription>>,
    /// When libvirt last reported that a device or an image changed.
    pub(super) changed: Option<Instant>,
    /// When libvirt last reported that a device was removed.
    pub(super) removed: Removed,
    pub(super) nics: VmNics,
    pub(super) cpu: VmCpu,
    pub(super) balloon: VmBalloon,
    /// The number of vCPUs online in the last sample that had it.
    pub(super) online: Option<u64>,
    /// What this host said of its QEMU in this gather.
    pub(super) figures: Option<HostFigures>,
    /// Whether its QEMU is being started, or has arrived.
    pub(super) arrival: Arrival,
    /// An event has reported the end of the run.
    pub(super) has_ended: bool,
    /// Where the figures of its vCPUs come from in this run; `None` as long as there were none. libvirt
    /// rounds them in another way than the kernel, so the two are not mixed.
    pub(super) vcpu_source: Option<VcpuSource>,
    /// libvirt counts other vCPUs than there are threads.
    pub(super) vcpu_miscount: Option<VcpuMiscount>,
    /// The list that is being processed has this VM.
    pub(super) is_listed: bool,
}

impl VmRecord {
    pub(super) fn new(domain: DomainRef) -> Self {
        Self {
            domain,
            description: None,
            changed: None,
            removed: Removed::default(),
            nics: VmNics::default(),
            cpu: VmCpu::default(),
            balloon: VmBalloon::default(),
            online: None,
            figures: None,
            arrival: Arrival::default(),
            has_ended: false,
            vcpu_source: None,
            vcpu_miscount: None,
            is_listed: false,
        }
    }

    /// This run of the VM is active, under this name.
    pub(super) fn update(&mut self, domain: DomainRef, endings: &mut Endings) {
        if self.domain.run == domain.run {
            self.domain = domain;
        } else {
            let anew = Self {
                changed: self.changed,
                removed: self.removed,
                ..Self::new(domain)
            };
            let before = std::mem::replace(self, anew);
            endings.on_left(&before);
        }
    }

    /// Its description, if libvirt has reported no change since it was read.
    pub(super) fn unchanged_description(&self) -> Option<&Arc<CachedDescription>> {
        let description = self.description.as_ref()?;
        let changed = self.changed;
        let unchanged = changed.is_none_or(|changed| changed < description.read_at);
        unchanged.then_some(description)
    }

    /// Its XML was read.
    pub(super) fn on_description(&mut self, net: &NetReadings, described: Arc<CachedDescription>) {
        self.nics
            .on_description(net, described.description.as_ref());
        self.cpu.on_description();
        self.description = Some(described);
    }

    /// libvirt reports that the device of this alias was removed. If the description does not tell
    /// whether that is a NIC or a disk, it may be either.
    pub(super) fn device_removed(&mut self, alias: &str, at: Instant) {
        if let Some(described) = &self.description {
            let has = |aliases: &[SmolStr]| aliases.iter().any(|known| known == alias);
            let known = described.description.as_ref();
            let mut nic = known.is_some_and(|known| has(&known.nic_aliases));
            let mut disk = known.is_some_and(|known| has(&known.disk_aliases));
            // The device may be younger than a description that was read before the last change.
            let is_complete = known.is_some() && self.unchanged_description().is_some();
            if !nic && !disk && !is_complete {
                (nic, disk) = (true, true);
            }
            self.removed.nic = nic.then_some(at).or(self.removed.nic);
            self.removed.disk = disk.then_some(at).or(self.removed.disk);
        }
        self.changed = Some(at);
    }
}
