//! What is known of the VMs that are to be gathered: one record for the current run of each.
//!
//! A record begins when the list, an event or a sample has a run of a VM that was not known, and ends
//! when the VM is no longer active. Active VMs whose names are not wanted have none.

mod arrival;
mod balloon;
mod cached_description;
mod counts;
mod cpu;
mod ended;
mod freshness;
mod io_errors;
mod jobs;
mod nics;
mod proof;
mod readings;
mod record;

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::description::Nic;
use crate::maps::HashMap;
use crate::sample::{Devices, Memory, NIC_COUNTERS, RunId};

pub use arrival::PAUSED_BY_MIGRATION;
pub use cached_description::{CachedDescription, DeviceNames, Known};
pub use counts::HostCounts;
pub use cpu::Processor;
pub use ended::EndedRun;
pub use freshness::EventFeed;
pub use io_errors::FirstIoError;
pub use jobs::FinishedJob;
pub use record::{DomainRef, VcpuSource, VmRecord};

use cpu::CpuReadings;
use ended::Endings;
use freshness::Freshness;
use io_errors::IoErrors;
use nics::NetReadings;

/// The records, and what is known of the host and of libvirt as a whole.
#[derive(Debug)]
pub struct Vms {
    records: HashMap<Uuid, VmRecord>,
    /// Starts and stops that events reported, and that are not in the records yet. Both are absolute,
    /// so the last one holds.
    changes: HashMap<Uuid, Change>,
    endings: Endings,
    io_errors: IoErrors,
    /// Jobs that are over and were not reported yet, the oldest first.
    finished_jobs: Vec<FinishedJob>,
    /// When the list that is under way was requested.
    list_requested_at: Option<Instant>,
    freshness: Freshness,
    net: NetReadings,
    cpu: CpuReadings,
    /// What this host says of the VMs is known in this gather, or there is nothing that it could say.
    host_was_read: bool,
    /// Memory figures that cannot have changed are not asked for, if they are not wanted from libvirt in any case.
    keeps_memory: bool,
    /// Since when events tell of balloons that change and of guests that are reset, if they do.
    memory_events: Option<Instant>,
    /// libvirtd may have become another process in this gather. Replies of the last process may still
    /// be under way, so what is reported in this gather proves nothing.
    restarted: bool,
}

/// A start or a stop of a VM, and when the event came.
#[derive(Debug)]
struct Change {
    at: Instant,
    /// The run that began; `None`: the VM stopped.
    begun: Option<DomainRef>,
    /// The QEMU of that run has arrived.
    has_arrived: bool,
}

/// A VM whose figures are wanted, with what a worker has to know before it queries it.
#[derive(Debug, Clone)]
pub struct Target {
    /// The VM and its run.
    pub domain: DomainRef,
    /// What the cache knows of its devices.
    pub known: Known,
    /// The counters of its NICs, where they were read on this host: libvirt is not asked for them.
    pub nics: Option<Devices<NIC_COUNTERS>>,
    /// Its CPU time and the number of its vCPUs, where they were read on this host.
    pub processor: Option<Processor>,
    /// Its memory, where that cannot have changed: libvirt is not asked for it.
    pub memory: Option<Memory>,
    /// Whether libvirt may be asked for the figures of its vCPUs: this host does not show their threads.
    pub asks_vcpus: bool,
    /// Whether the VM stays paused as it arrived, so that it is not being migrated in although its state says so.
    pub left_paused: bool,
}

impl Vms {
    /// No VM is known. Descriptions are read again after `ttl` where events cannot be had.
    pub fn new(ttl: Duration) -> Self {
        Self {
            records: HashMap::default(),
            changes: HashMap::default(),
            endings: Endings::default(),
            io_errors: IoErrors::default(),
            finished_jobs: Vec::new(),
            list_requested_at: None,
            freshness: Freshness::new(ttl),
            net: NetReadings::default(),
            cpu: CpuReadings::default(),
            host_was_read: false,
            keeps_memory: false,
            memory_events: None,
            restarted: false,
        }
    }

    /// A gather begins. The starts and stops that events reported until now hold in it, unless there
    /// is a list: that is requested later and is more recent.
    pub fn begin(&mut self) {
        let described = self.iter().filter(|vm| vm.description.is_some());
        self.freshness.begin(described.count());
        self.net.begin();
        self.cpu.begin();
        self.restarted = false;
        self.host_was_read = false;
        self.list_requested_at = None;
        for vm in self.records.values_mut() {
            vm.figures = None;
        }
        for (uuid, change) in std::mem::take(&mut self.changes) {
            match change.begun {
                Some(domain) => {
                    let vm = self.put(domain);
                    if change.has_arrived {
                        vm.arrival.on_arrived();
                    }
                }
                None => {
                    self.records.remove(&uuid);
                }
            }
        }
    }

    /// A list was requested.
    pub fn list_requested(&mut self, at: Instant) {
        self.list_requested_at = Some(at);
    }

    /// The list came; these are its VMs that are wanted. It includes what events reported before it was
    /// requested, and may not include what they reported later.
    pub fn on_list(&mut self, wanted: Vec<DomainRef>) {
        let requested_at = self.list_requested_at.take();
        let mut arrived = Vec::new();
        self.changes.retain(|_, change| {
            let stays = requested_at.is_none_or(|requested_at| change.at >= requested_at);
            if !stays && change.has_arrived {
                arrived.extend(change.begun.take());
            }
            stays
        });
        self.endings.on_list(requested_at, &wanted);
        for domain in wanted {
            self.put(domain).is_listed = true;
        }
        for domain in arrived {
            self.arrived(domain.run);
        }
        self.records.retain(|_, vm| {
            let is_active = std::mem::take(&mut vm.is_listed);
            if is_active {
                vm.has_ended &= self.endings.has_ended(vm.domain.run);
            } else {
                self.endings.on_left(vm);
            }
            is_active
        });
        self.io_errors.on_list(requested_at, &self.records);
    }

    /// A VM was started; this run of it takes effect when the next gather begins.
    pub fn started(&mut self, domain: DomainRef, at: Instant) {
        let uuid = domain.run.uuid;
        let change = Change {
            at,
            begun: Some(domain),
            has_arrived: false,
        };
        self.changes.insert(uuid, change);
    }

    /// All VMs that are to be gathered.
    pub fn iter(&self) -> impl Iterator<Item = &VmRecord> {
        self.records.values()
    }

    /// The VM of this UUID, if it is to be gathered.
    pub fn get(&self, uuid: Uuid) -> Option<&DomainRef> {
        self.records.get(&uuid).map(|vm| &vm.domain)
    }

    /// A sample or a description is of this run, which may have begun since the list.
    pub fn on_run(&mut self, domain: DomainRef) {
        if let Some(vm) = self.records.get_mut(&domain.run.uuid) {
            vm.update(domain, &mut self.endings);
        }
    }

    fn put(&mut self, domain: DomainRef) -> &mut VmRecord {
        match self.records.entry(domain.run.uuid) {
            Entry::Occupied(known) => {
                let vm = known.into_mut();
                vm.update(domain, &mut self.endings);
                vm
            }
            Entry::Vacant(slot) => slot.insert(VmRecord::new(domain)),
        }
    }
}

/// Descriptions, and the events that tell whether they hold.
impl Vms {
    /// Whether events come.
    pub fn feed(&self) -> EventFeed {
        self.freshness.feed()
    }

    /// Events come from now on, or no more.
    pub fn set_feed(&mut self, feed: EventFeed) {
        self.endings.on_events_lost();
        self.freshness.set_feed(feed);
    }

    /// libvirt reports that a device was added or removed, that a disk may have another image, or that the metadata
    /// or what is known beside the XML changed.
    /// Where the VM is not known yet, its XML is read after the event in any case.
    pub fn device_changed(&mut self, uuid: Uuid, at: Instant) {
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.changed = Some(at);
        }
    }

    /// libvirt reports that the device of this alias was removed.
    pub fn device_removed(&mut self, uuid: Uuid, alias: &str, at: Instant) {
        self.io_errors.on_removed(uuid, alias);
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.device_removed(alias, at);
        }
    }

    /// The XML of a run was read. What the run has proven before is to be proven again.
    pub fn on_description(&mut self, run: RunId, described: Arc<CachedDescription>) {
        if let Some(vm) = self.records.get_mut(&run.uuid)
            && vm.domain.run == run
        {
            vm.on_description(&self.net, described);
        }
    }

    /// Whether the description of a VM still has the paths of all its images, as far as libvirt
    /// reports changes.
    pub fn is_current(&self, vm: &VmRecord) -> bool {
        let described = vm.unchanged_description();
        described.is_some_and(|described| self.freshness.holds(described.read_at))
    }

    /// The description of a VM, if it is current.
    pub fn description(&self, uuid: Uuid) -> Option<Arc<CachedDescription>> {
        let vm = self.records.get(&uuid).filter(|vm| self.is_current(vm))?;
        vm.description.clone()
    }

    /// What a worker needs to know of a VM before it queries it. NICs whose names are not `wanted` get
    /// no counters.
    pub fn prepare(
        &self,
        uuid: Uuid,
        wanted: impl Fn(&str) -> bool,
        now: Instant,
    ) -> Option<Target> {
        let vm = self.records.get(&uuid)?;
        let known = match (&vm.description, vm.unchanged_description()) {
            (None, _) => Known::New,
            (Some(changed), None) => Known::Stale(Arc::clone(changed)),
            (_, Some(described)) if self.freshness.has_expired(described.read_at, now) => {
                Known::Stale(Arc::clone(described))
            }
            (_, Some(described)) => Known::Fresh(Arc::clone(described)),
        };
        let nics = self.all_nics(vm);
        Some(Target {
            domain: vm.domain.clone(),
            known,
            nics: nics.and_then(|nics| vm.nics.counters(&self.net, uuid, nics, wanted)),
            processor: vm.cpu.processor(self.cpu.now.get(&uuid)),
            memory: self.kept_memory(vm, now),
            left_paused: vm.is_left_paused(),
            asks_vcpus: match vm.vcpu_source {
                Some(source) => source == VcpuSource::Libvirt,
                // A check of the host that is late says nothing.
                None => self.host_was_read,
            },
        })
    }

    /// The NICs of a VM, where it is certain that these are all: libvirt would have reported a change.
    fn all_nics<'v>(&self, vm: &'v VmRecord) -> Option<&'v [Nic]> {
        let described = vm.unchanged_description()?;
        if !self.freshness.reports_changes_since(described.read_at) {
            return None;
        }
        described.agreed_nics()
    }
}

#[cfg(test)]
mod tests;
