//! What is remembered of each run of each VM between gathers: tags escaped once, which counters its
//! devices can report, and the last values that rates are made of.

use std::collections::{HashMap, HashSet};

use uuid::Uuid;

use crate::features::{Features, Past};
use crate::line_protocol::Tags;
use crate::sample::{Devices, Run, Sample};
use crate::totals::{self, Reported};

/// All runs.
#[derive(Debug, Default)]
pub struct Runs(HashMap<Uuid, Memory>);

/// One run of one VM.
#[derive(Debug)]
pub struct Memory {
    run: Run,
    name: String,
    /// `,VMID=..,name=..,uuid=..`
    pub tags: Tags,
    nic_tags: HashMap<String, Tags>,
    disk_tags: HashMap<String, Tags>,
    nics: Reported,
    disks: Reported,
    past: Past,
    told_nameless: bool,
}

/// What is worked out for one VM in one gather.
#[derive(Debug)]
pub struct Derived {
    /// Sums over the NICs, in the order of [`crate::sample::NIC_FIELDS`].
    pub net: [Option<u64>; 8],
    /// Sums over the disks, in the order of [`crate::sample::DISK_FIELDS`].
    pub disk: [Option<u64>; 5],
    /// Rates.
    pub features: Features,
}

impl Runs {
    /// The memory of the sample's run: a new one where the VM was restarted or renamed.
    pub fn of(&mut self, sample: &Sample) -> &mut Memory {
        let memory = self
            .0
            .entry(sample.run.uuid)
            .or_insert_with(|| Memory::new(sample));
        if memory.run != sample.run {
            *memory = Memory::new(sample);
        } else if memory.name != sample.name {
            memory.name.clone_from(&sample.name);
            memory.tags = tags(sample);
        }
        memory
    }

    /// Forgets runs that are gone and calls `gone` with each VM that is.
    pub fn keep(&mut self, active: &HashSet<Run>, mut gone: impl FnMut(Uuid)) {
        self.0.retain(|uuid, memory| {
            let stays = active.contains(&memory.run);
            if !stays {
                gone(*uuid);
            }
            stays
        });
    }
}

impl Memory {
    fn new(sample: &Sample) -> Self {
        Self {
            run: sample.run,
            name: sample.name.clone(),
            tags: tags(sample),
            nic_tags: HashMap::new(),
            disk_tags: HashMap::new(),
            nics: Reported::default(),
            disks: Reported::default(),
            past: Past::default(),
            told_nameless: false,
        }
    }

    /// Sums and rates of this gather.
    pub fn derive(&mut self, sample: &Sample) -> Derived {
        let nics = sample.nics.as_ref();
        let disks = sample.disks.as_ref();
        let net = nics.map_or([None; 8], |nics| totals::sum(nics, &mut self.nics));
        let disk = disks.map_or([None; 5], |disks| totals::sum(disks, &mut self.disks));
        if let Some(nics) = nics {
            self.note(nics);
        }
        if let Some(disks) = disks {
            cache_tags(&mut self.disk_tags, "disk", disks);
        }
        let features = self.past.advance(sample, &net, &disk);
        Derived {
            net,
            disk,
            features,
        }
    }

    fn note(&mut self, nics: &Devices<8>) {
        cache_tags(&mut self.nic_tags, "nic", nics);
        let nameless = nics.list.iter().filter(|nic| nic.name.is_none()).count();
        if nameless > 0 && !self.told_nameless {
            self.told_nameless = true;
            log::debug!(
                "{}: {nameless} of its NICs have no name on the host (user-mode, hostdev) and so \
                 no counters there",
                self.name
            );
        }
    }

    /// `,devtype=nic,device=..` of this NIC.
    pub fn nic_tags(&self, device: &str) -> Option<&Tags> {
        self.nic_tags.get(device)
    }

    /// `,devtype=disk,device=..` of this disk.
    pub fn disk_tags(&self, device: &str) -> Option<&Tags> {
        self.disk_tags.get(device)
    }
}

fn tags(sample: &Sample) -> Tags {
    let uuid = sample.run.uuid.to_string();
    Tags::new()
        .with("VMID", &sample.run.id.to_string())
        .with_or("name", &sample.name, &uuid)
        .with("uuid", &uuid)
}

fn cache_tags<const N: usize>(
    cache: &mut HashMap<String, Tags>,
    devtype: &'static str,
    devices: &Devices<N>,
) {
    let names = || devices.list.iter().filter_map(|d| d.name.as_ref());
    if cache.len() > names().count() {
        let present: HashSet<&String> = names().collect();
        cache.retain(|name, _| present.contains(name));
    }
    for name in names() {
        if !cache.contains_key(name) {
            let tags = Tags::new().with("devtype", devtype).with("device", name);
            cache.insert(name.clone(), tags);
        }
    }
}
