//! What the lines of a gather need of earlier gathers: the tags of each VM, escaped once, the
//! counters that its devices can report, and the last values that rates are made of.
//!
//! Like [`Vms`](crate::vms::Vms), this is one record for each VM, renewed when another run of the VM
//! begins. The two are apart because they follow different things at different times: `Vms` follows
//! libvirt's list and events and decides what to ask; the history follows the samples, when they are
//! written. Code that only writes the lines of samples needs the history alone, without a gather and
//! without libvirt.

use std::sync::Arc;

use smol_str::SmolStr;
use uuid::Uuid;

use super::features::{Features, Previous};
use super::latency::DiskLatencies;
use super::totals::{self, SupportedCounters};
use crate::description::TagValues;
use crate::line_protocol::{self, Tags};
use crate::maps::{HashMap, HashSet};
use crate::sample::{DISK_COUNTERS, Devices, NIC_COUNTERS, RunId, Sample};

/// The VMs of which samples have been written.
#[derive(Debug, Default)]
pub struct History {
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
    /// `,VMID=..,name=..,uuid=..`, then those of the configuration.
    pub tags: Tags,
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
    /// Adds a sample to the history of its VM, and calculates the sums and rates of this gather. The
    /// history begins anew where the VM was restarted.
    pub fn update(&mut self, sample: &Sample) -> (&VmHistory, Derived) {
        let vm = self
            .vms
            .entry(sample.run.uuid)
            .or_insert_with(|| VmHistory::new(sample));
        if vm.run != sample.run {
            let before = std::mem::replace(vm, VmHistory::new(sample));
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
    fn new(sample: &Sample) -> Self {
        Self {
            run: sample.run,
            name: sample.name.clone(),
            values: sample.tags.clone(),
            tags: tags(sample, sample.tags.as_deref()),
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
            self.tags = tags(sample, self.values.as_deref());
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

    /// `,VMID=..,name=..,uuid=..` alone.
    pub fn identity(&self) -> Tags {
        identity(self.run, &self.name)
    }

    /// `,devtype=nic,device=..` of each NIC that has a name, in the order of the last sample that has
    /// NICs.
    pub fn nic_tags(&self) -> impl Iterator<Item = &Tags> {
        self.nic_tags.0.iter().map(|(_, tags)| tags)
    }

    /// `,devtype=disk,device=..` of each disk, in the order of the last sample that has disks.
    pub fn disk_tags(&self) -> impl Iterator<Item = &Tags> {
        self.disk_tags.0.iter().map(|(_, tags)| tags)
    }

    /// Milliseconds per read, write and flush of each disk, in the same order.
    pub fn disk_latencies(&self) -> impl Iterator<Item = [Option<f64>; 3]> {
        self.latencies.iter()
    }
}

fn identity(run: RunId, name: &str) -> Tags {
    let uuid = run.uuid.to_string();
    Tags::new()
        .with("VMID", &run.id.to_string())
        .with_or("name", name, &uuid)
        .with("uuid", &uuid)
}

fn tags(sample: &Sample, values: Option<&TagValues>) -> Tags {
    let tags = identity(sample.run, &sample.name);
    let values = values.unwrap_or_default().iter();
    values.fold(tags, |tags, (tag, value)| tags.with_any(tag, value))
}

/// `,devtype=..,device=..` of each of these devices of one VM.
pub fn device_tags<'n>(
    devtype: &'static str,
    names: impl Iterator<Item = &'n SmolStr>,
) -> Vec<Tags> {
    let tags = DeviceTags::of(devtype, names).0.into_iter();
    tags.map(|(_, tags)| tags).collect()
}

/// The names and tags of a VM's NICs or of its disks, in the order in which the samples have them.
#[derive(Debug, Default)]
struct DeviceTags(Vec<(SmolStr, Tags)>);

impl DeviceTags {
    /// Makes the tags anew where the sample has other devices, or has them in another order.
    fn update<const N: usize>(&mut self, devtype: &'static str, devices: &Devices<N>) {
        let names = || devices.list.iter().filter_map(|d| d.name.as_ref());
        if !self.0.iter().map(|(name, _)| name).eq(names()) {
            *self = Self::of(devtype, names());
        }
    }

    fn of<'n>(devtype: &'static str, names: impl Iterator<Item = &'n SmolStr>) -> Self {
        let new = |name: &SmolStr| {
            let tags = Tags::new().with("devtype", devtype).with("device", name);
            (name.clone(), tags)
        };
        let mut tags = Self(names.map(new).collect());
        tags.number_duplicates();
        tags
    }

    /// Names that differ only in characters which line protocol cannot carry would get the same tag. A
    /// name that it carries unchanged keeps its tag. Of the other names, each whose tag is taken gets
    /// the first of `-2`, `-3` and so on that is free.
    fn number_duplicates(&mut self) {
        let mut taken = HashSet::default();
        let (exact, changed): (Vec<usize>, Vec<usize>) =
            (0..self.0.len()).partition(|&i| line_protocol::is_carried(&self.0[i].0));
        for i in exact.into_iter().chain(changed) {
            let own = self.0[i].1.clone();
            let mut number = 1;
            while !taken.insert(self.0[i].1.as_str().to_owned()) {
                number += 1;
                self.0[i].1 = own.numbered(number);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::testing::{device, devices, full, run};

    #[test]
    fn tags_name_the_run_and_follow_a_rename() {
        let mut history = History::default();
        let mut sample = full(Instant::now());
        sample.name = "a b".into();
        let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
        let tags = format!(",VMID=1,name=a\\ b,uuid={uuid}");
        assert_eq!(history.update(&sample).0.tags.as_str(), tags);
        sample.name = "c".into();
        let tags = format!(",VMID=1,name=c,uuid={uuid}");
        assert_eq!(history.update(&sample).0.tags.as_str(), tags);
        sample.run = run(2);
        let tags = format!(",VMID=2,name=c,uuid={uuid}");
        assert_eq!(history.update(&sample).0.tags.as_str(), tags);
        assert_eq!(history.vms.len(), 1, "the earlier run is gone");
    }

    #[test]
    fn tags_of_the_configuration_change_and_the_run_goes_on() {
        let at = Instant::now();
        let mut history = History::default();
        let mut sample = full(at);
        let values = |text: &str| -> Option<Arc<TagValues>> {
            Some(Arc::from(vec![
                ("owner".into(), text.into()),
                ("b".into(), "c".into()),
            ]))
        };
        sample.tags = values("a b");
        let start = ",VMID=1,name=test,uuid=6695eb01-f6a4-8304-79aa-97f2502e193f";
        let tags = |history: &mut History, sample: &Sample| {
            let (vm, derived) = history.update(sample);
            let tags = vm.tags.as_str().strip_prefix(start).unwrap().to_owned();
            (tags, derived.features.net[0].is_some())
        };
        assert_eq!(
            tags(&mut history, &sample),
            (r",owner=a\ b,b=c".into(), false)
        );
        let later = |sample: &mut Sample| {
            let at = &mut sample.nics.as_mut().unwrap().at;
            *at += std::time::Duration::from_secs(1);
        };
        later(&mut sample);
        sample.tags = values("d");
        assert_eq!(tags(&mut history, &sample), (",owner=d,b=c".into(), true));
        // Its VM is going away: there is no description any more.
        later(&mut sample);
        sample.tags = None;
        assert_eq!(tags(&mut history, &sample), (",owner=d,b=c".into(), true));
        // Nothing of this can be written.
        sample.tags = values("\\");
        assert_eq!(tags(&mut history, &sample).0, ",b=c");
        sample.run = run(2);
        sample.tags = None;
        let (vm, _) = history.update(&sample);
        assert!(vm.tags.as_str().ends_with("193f"), "a new run has its own");
    }

    #[test]
    fn device_tags_come_and_go_with_the_devices() {
        let at = Instant::now();
        let mut history = History::default();
        let mut sample = full(at);
        let nics = |vm: &VmHistory| -> Vec<String> {
            vm.nic_tags().map(|tags| tags.as_str().to_owned()).collect()
        };
        let (vm, _) = history.update(&sample);
        assert_eq!(nics(vm), [",devtype=nic,device=vnet0"]);
        let disks: Vec<&str> = vm.disk_tags().map(Tags::as_str).collect();
        assert_eq!(disks, [",devtype=disk,device=vda"]);
        let other = device("tap,1", "bridge", [Some(1); NIC_COUNTERS]);
        sample.nics = Some(devices(at, vec![other]));
        let (vm, _) = history.update(&sample);
        assert_eq!(nics(vm), [",devtype=nic,device=tap\\,1"]);
    }

    #[test]
    fn devices_whose_names_become_the_same_are_told_apart() {
        for (names, expected) in [
            (&["a", "b"][..], &["a", "b"][..]),
            (&["a", r"a\"], &["a", "a-2"]),
            (&[r"a\", "a"], &["a-2", "a"]),
            (&[r"a\", r"a\\"], &["a", "a-2"]),
            (&[r"a\", r"a\\", "a-2", "a"], &["a-3", "a-4", "a-2", "a"]),
            (&[r"\", "\\\\"], &["-", "--2"]),
            (&["a b", "a\tb"], &[r"a\ b", r"a\ b-2"]),
            (&["a", "a"], &["a", "a-2"]),
        ] {
            let at = Instant::now();
            let named = |name: &&str| device(name, "disk", [Some(1); DISK_COUNTERS]);
            let mut tags = DeviceTags::default();
            tags.update("disk", &devices(at, names.iter().map(named).collect()));
            let found: Vec<&str> = tags
                .0
                .iter()
                .map(|(_, tags)| tags.as_str())
                .map(|tags| tags.strip_prefix(",devtype=disk,device=").unwrap())
                .collect();
            assert_eq!(found, expected, "{names:?}");
        }
    }

    #[test]
    fn a_counter_reported_in_another_run_is_no_veto_in_this_one() {
        let at = Instant::now();
        let mut history = History::default();
        let with = full(at);
        let mut without = full(at);
        let counters = &mut without.disks.as_mut().unwrap().list[0].counters;
        counters[0] = None;
        let mut rest = device("vdb", "disk", [None; DISK_COUNTERS]);
        rest.counters[1] = Some(1);
        without.disks.as_mut().unwrap().list.push(rest);
        history.update(&with);
        without.run = run(2);
        let (_, derived) = history.update(&without);
        assert_eq!(derived.disk[1], Some(43));
        assert_eq!(derived.disk[0], None, "no device reported it");
    }

    #[test]
    fn runs_that_are_gone_are_dropped_and_named() {
        let mut history = History::default();
        history.update(&full(Instant::now()));
        let mut gone = Vec::new();
        history.retain(&HashSet::from_iter([run(1)]), |uuid| gone.push(uuid));
        assert!(gone.is_empty());
        history.retain(&HashSet::from_iter([run(2)]), |uuid| gone.push(uuid));
        assert_eq!(gone, [run(1).uuid]);
        assert!(history.vms.is_empty());
    }

    #[test]
    fn the_tags_of_a_run_are_there_until_the_second_list_without_it() {
        let mut history = History::default();
        assert!(history.tags(run(1)).is_none(), "no line of it was written");
        let mut sample = full(Instant::now());
        history.update(&sample);
        let tags = history.tags(run(1)).unwrap().clone();
        for _ in 0..2 {
            history.retain(&HashSet::from_iter([run(1)]), |_| {});
            assert_eq!(history.tags(run(1)), Some(&tags));
        }
        history.retain(&HashSet::default(), |_| {});
        assert_eq!(history.tags(run(1)), Some(&tags));
        history.retain(&HashSet::default(), |_| {});
        assert!(history.tags(run(1)).is_none());
        // Restarted: both runs are known.
        history.update(&sample);
        sample.run = run(2);
        history.update(&sample);
        assert_eq!(history.tags(run(1)), Some(&tags));
        assert!(history.tags(run(2)).unwrap().as_str().contains("VMID=2"));
    }
}
