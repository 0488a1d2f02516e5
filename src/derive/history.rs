//! What the lines of a gather need of earlier gathers: the tags of each VM, escaped once, the
//! counters that its devices can report, and the last values that rates are made of.
//!
//! Like [`Vms`](crate::vms::Vms), this is one record for each VM, renewed when another run of the VM
//! begins. The two are apart because they follow different things at different times: `Vms` follows
//! libvirt's list and events and decides what to ask; the history follows the samples, when they are
//! written. Code that only writes the lines of samples needs the history alone, without a gather and
//! without libvirt.

mod device_tags;

use std::sync::Arc;

use smol_str::SmolStr;
use uuid::Uuid;

pub use device_tags::device_tags;

use self::device_tags::DeviceTags;
use super::features::{Features, Previous};
use super::latency::DiskLatencies;
use super::totals::{self, SupportedCounters};
use crate::description::TagValues;
use crate::line_protocol::Tags;
use crate::maps::{HashMap, HashSet};
use crate::sample::{DISK_COUNTERS, Devices, NIC_COUNTERS, RunId, Sample};

/// The VMs of which samples have been written.
#[derive(Debug, Default)]
pub struct History {
    /// The tags that all lines have.
    of_all: Arc<Tags>,
    vms: HashMap<Uuid, VmHistory>,
    /// The tags of runs that were dropped since the last list, for their last lines: the event that reports the end of a
    /// run may come after a list without it.
    dropped: Vec<(RunId, Tags)>,
}

/// One run of one VM.
#[derive(Debug)]
pub struct VmHistory {
    run: RunId,
    name: SmolStr,
    /// The values in `tags` that come from the XML.
    values: Option<Arc<TagValues>>,
    /// Those of all lines, `,VMID=..,name=..,uuid=..`, then those of the configuration.
    pub tags: Tags,
    of_all: Arc<Tags>,
    nic_tags: DeviceTags,
    disk_tags: DeviceTags,
    nics: SupportedCounters,
    disks: SupportedCounters,
    latencies: DiskLatencies,
    previous: Previous,
    /// It has been logged that this run has NICs without a name.
    nameless_logged: bool,
}

/// What is calculated for one VM in one gather.
#[derive(Debug)]
pub struct Derived {
    /// Sums over the NICs, in the order of [`crate::sample::NIC_FIELDS`].
    pub net: [Option<u64>; NIC_COUNTERS],
    /// Sums over the disks, in the order of [`crate::sample::DISK_FIELDS`].
    pub disk: [Option<u64>; DISK_COUNTERS],
    /// Rates.
    pub features: Features,
}

impl History {
    /// A history whose lines all have these tags.
    pub fn new(of_all: Tags) -> Self {
        Self {
            of_all: Arc::new(of_all),
            ..Self::default()
        }
    }

    /// Adds a sample to the history of its VM, and calculates the sums and rates of this gather. The
    /// history begins anew where the VM was restarted.
    pub fn update(&mut self, sample: &Sample) -> (&VmHistory, Derived) {
        let vm = self
            .vms
            .entry(sample.run.uuid)
            .or_insert_with(|| VmHistory::new(sample, &self.of_all));
        if vm.run != sample.run {
            let before = std::mem::replace(vm, VmHistory::new(sample, &self.of_all));
            self.dropped.push((before.run, before.tags));
        }
        let derived = vm.update(sample);
        (vm, derived)
    }

    /// Drops the runs that are not active any more, and calls `gone` with the VM of each.
    pub fn retain(&mut self, active: &HashSet<RunId>, mut gone: impl FnMut(Uuid)) {
        self.dropped.clear();
        let no_longer = self.vms.extract_if(|_, vm| !active.contains(&vm.run));
        self.dropped.extend(no_longer.map(|(uuid, vm)| {
            gone(uuid);
            (vm.run, vm.tags)
        }));
    }

    /// The tags of a run, also if it was dropped since the last list. `None`: no line of it was written.
    pub fn tags(&self, run: RunId) -> Option<&Tags> {
        let kept = self.vms.get(&run.uuid).filter(|vm| vm.run == run);
        kept.map(|vm| &vm.tags).or_else(|| {
            let mut dropped = self.dropped.iter();
            let (_, tags) = dropped.find(|(other, _)| *other == run)?;
            Some(tags)
        })
    }
}

impl VmHistory {
    fn new(sample: &Sample, of_all: &Arc<Tags>) -> Self {
        Self {
            run: sample.run,
            name: sample.name.clone(),
            values: sample.tags.clone(),
            tags: tags(of_all, sample, sample.tags.as_deref()),
            of_all: Arc::clone(of_all),
            nic_tags: DeviceTags::default(),
            disk_tags: DeviceTags::default(),
            nics: SupportedCounters::default(),
            disks: SupportedCounters::default(),
            latencies: DiskLatencies::default(),
            previous: Previous::default(),
            nameless_logged: false,
        }
    }

    fn update(&mut self, sample: &Sample) -> Derived {
        // Without a description the values stay: its VM is about to go, or its XML could not be read.
        let other_values = sample.tags.as_ref().is_some_and(|now| {
            let before = self.values.as_ref();
            !before.is_some_and(|before| Arc::ptr_eq(before, now))
        });
        if other_values {
            self.values.clone_from(&sample.tags);
        }
        if self.name != sample.name || other_values {
            self.name.clone_from(&sample.name);
            self.tags = tags(&self.of_all, sample, self.values.as_deref());
        }
        let mut net = [None; NIC_COUNTERS];
        if let Some(nics) = &sample.nics {
            self.nic_tags.update("nic", nics);
            self.log_nameless(nics);
            self.nics.update(nics);
            net = totals::sum(nics, &self.nics);
        }
        let mut disk = [None; DISK_COUNTERS];
        if let Some(disks) = &sample.disks {
            self.disk_tags.update("disk", disks);
            self.disks.update(disks);
            disk = totals::sum(disks, &self.disks);
            self.latencies.update(disks, sample.removed.disk);
        }
        let features = self.previous.advance(sample, &net, &disk);
        Derived {
            net,
            disk,
            features,
        }
    }

    fn log_nameless(&mut self, nics: &Devices<NIC_COUNTERS>) {
        let nameless = nics.list.iter().filter(|nic| nic.name.is_none()).count();
        if nameless > 0 && !self.nameless_logged {
            self.nameless_logged = true;
            log::debug!(
                "{}: {nameless} of its NICs have no name on the host (user-mode, hostdev) and so \
                 no counters there",
                self.name
            );
        }
    }

    /// Those of all lines and `,VMID=..,name=..,uuid=..` alone.
    pub fn identity(&self) -> Tags {
        identity(&self.of_all, self.run, &self.name)
    }

    /// `,devtype=nic,device=..` of each NIC that has a name, in the order of the last sample that has
    /// NICs.
    pub fn nic_tags(&self) -> impl Iterator<Item = &Tags> {
        self.nic_tags.iter()
    }

    /// `,devtype=disk,device=..` of each disk, in the order of the last sample that has disks.
    pub fn disk_tags(&self) -> impl Iterator<Item = &Tags> {
        self.disk_tags.iter()
    }

    /// Milliseconds per read, write and flush of each disk, in the same order.
    pub fn disk_latencies(&self) -> impl Iterator<Item = [Option<f64>; 3]> {
        self.latencies.iter()
    }
}

fn identity(of_all: &Tags, run: RunId, name: &str) -> Tags {
    let uuid = run.uuid.to_string();
    let of_all = of_all.clone();
    of_all
        .with("VMID", &run.id.to_string())
        .with_or("name", name, &uuid)
        .with("uuid", &uuid)
}

fn tags(of_all: &Tags, sample: &Sample, values: Option<&TagValues>) -> Tags {
    let tags = identity(of_all, sample.run, &sample.name);
    let values = values.unwrap_or_default().iter();
    values.fold(tags, |tags, (tag, value)| tags.with_any(tag, value))
}

#[cfg(test)]
mod tests;
