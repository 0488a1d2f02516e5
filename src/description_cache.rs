//! The cache of descriptions: whose XML has been read, and who must be read again.
//!
//! XML is read for a VM that is new, whose device names in the statistics changed, or of which
//! libvirt reported a change. The time to live applies only where events cannot be had. So a
//! hot-plugged device shows at the next gather, and a steady host makes no XML call at all.

use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use uuid::Uuid;

use crate::description::{Description, Nic};
use crate::maps::{HashMap, HashSet};
use crate::sample::{Removed, RunId, Sample};

/// A description, and what the statistics called the VM's devices when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedDescription {
    /// The devices by the XML; `None`: it could not be understood, which is remembered so that it
    /// is not read again at every gather.
    pub description: Option<Description>,
    /// The devices by the statistics of the same moment; `None`: read before any statistics.
    pub names: Option<DeviceNames>,
    /// When the XML was asked for.
    pub read_at: Instant,
    /// Of some file that QEMU looks at for block statistics the path is not known: the XML does not
    /// give it, or could not be understood, or the statistics name a path that the XML does not have.
    pub unresolved: bool,
}

impl CachedDescription {
    /// What was read at `read_at`, and what the statistics said beside it.
    pub fn new(
        description: Option<Description>,
        names: Option<DeviceNames>,
        read_at: Instant,
    ) -> Self {
        let unresolved = description.as_ref().is_none_or(|known| {
            let paths = names.as_ref().map_or("", |names| &names.paths);
            // A name without a root is no local file.
            let paths = paths.split('\0').filter(|path| path.starts_with('/'));
            let others = paths.filter(|path| !known.sources().any(|source| source == *path));
            // The paths of volumes are in the statistics, and not in the XML.
            known.unresolved || others.count() > known.volumes.len()
        });
        Self {
            description,
            names,
            read_at,
            unresolved,
        }
    }

    /// The numbers of the block nodes whose path QEMU's command line has.
    pub fn volumes(&self) -> &[u32] {
        let known = self.description.as_ref();
        known.map_or(&[], |known| &known.volumes)
    }

    /// The local paths of the files that QEMU looks at for block statistics, but for volumes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let known = self.description.iter();
        known.flat_map(Description::sources).map(Path::new)
    }
}

/// Device names as a statistics record has them; `None`: not reported (a VM that does not answer,
/// or a driver without these groups), which is no change.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct DeviceNames {
    nics: Option<Vec<Option<SmolStr>>>,
    disks: Option<Vec<Option<SmolStr>>>,
    /// The paths of the disks' images, as [`Sample::paths`] has them.
    paths: String,
}

impl DeviceNames {
    /// The names in a sample, before anything was filtered out of it.
    pub fn of(sample: &Sample) -> Self {
        Self {
            nics: sample.nics.as_ref().map(|nics| names(&nics.list)),
            disks: sample.disks.as_ref().map(|disks| names(&disks.list)),
            paths: sample.paths.clone(),
        }
    }

    /// Whether the sample names other devices than these, or other images: the medium of a drive was
    /// changed, a snapshot or a finished block job put another file in its place. What one of the two
    /// does not report is no difference.
    pub fn differ(&self, now: &Sample) -> bool {
        let nics = self.nics.as_ref().zip(now.nics.as_ref());
        let nics = nics.is_none_or(|(names, nics)| same(names, &nics.list));
        let disks = self.disks.as_ref().zip(now.disks.as_ref());
        let disks =
            disks.is_none_or(|(names, disks)| same(names, &disks.list) && self.paths == now.paths);
        !nics || !disks
    }

    /// These, and what the sample reports beyond them (a VM's disks, once they are asked for in
    /// bulk); `None`: nothing.
    pub fn and(&self, now: &Sample) -> Option<Self> {
        let nics = self.nics.is_none() && now.nics.is_some();
        let disks = self.disks.is_none() && now.disks.is_some();
        (nics || disks).then(|| {
            let mut all = Self::of(now);
            if self.nics.is_some() {
                all.nics.clone_from(&self.nics);
            }
            if self.disks.is_some() {
                all.disks.clone_from(&self.disks);
                all.paths.clone_from(&self.paths);
            }
            all
        })
    }
}

fn same<const N: usize>(names: &[Option<SmolStr>], list: &[crate::sample::Device<N>]) -> bool {
    names.iter().eq(list.iter().map(|device| &device.name))
}

fn names<const N: usize>(list: &[crate::sample::Device<N>]) -> Vec<Option<SmolStr>> {
    list.iter().map(|device| device.name.clone()).collect()
}

/// What the cache has to say of a VM that is about to be asked.
#[derive(Debug, Clone)]
pub enum Known {
    /// Nothing: read it.
    New,
    /// This, and it holds as long as the device names in the statistics do.
    Fresh(Arc<CachedDescription>),
    /// This, but read it again.
    Stale(Arc<CachedDescription>),
}

impl Known {
    /// The description, old or new, where there is one.
    pub fn description(&self) -> Option<&Description> {
        match self {
            Self::New => None,
            Self::Fresh(known) | Self::Stale(known) => known.description.as_ref(),
        }
    }

    /// Whether the sample names other devices or images than this, which was taken to hold.
    pub fn is_outdated(&self, sample: &Sample) -> bool {
        let Self::Fresh(known) = self else {
            return false;
        };
        let names = known.names.as_ref();
        names.is_some_and(|names| names.differ(sample))
    }
}

/// How libvirt tells of changes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFeed {
    /// By events, since then.
    Live(Instant),
    /// Not now: the time to live applies.
    Down,
    /// Not any more, since then: what was read before this gather may not hold, until the time to
    /// live is over.
    Lost(Instant),
}

/// The descriptions of all VMs.
#[derive(Debug)]
pub struct DescriptionCache {
    entries: HashMap<Uuid, Entry>,
    /// When libvirt last reported a change. Beside the entries: an event may come while a VM that
    /// has none yet is being read.
    changed: HashMap<Uuid, Instant>,
    /// When it last reported that a device was removed.
    removed: HashMap<Uuid, Removed>,
    ttl: Duration,
    events: EventFeed,
    /// How many descriptions may yet be read again in this gather for age alone.
    budget: usize,
    /// When this gather began.
    began: Instant,
    /// Events were lost at some time.
    lost: bool,
}

#[derive(Debug)]
struct Entry {
    id: u32,
    described: Arc<CachedDescription>,
}

impl DescriptionCache {
    /// Empty; `ttl` applies where events cannot be had.
    pub fn new(ttl: Duration) -> Self {
        Self {
            entries: HashMap::default(),
            changed: HashMap::default(),
            removed: HashMap::default(),
            ttl,
            events: EventFeed::Down,
            budget: 0,
            began: Instant::now(),
            lost: false,
        }
    }

    /// A new gather: what is re-read for age is spread over several of them.
    pub fn begin(&mut self) {
        self.budget = (self.entries.len() / 8).max(8);
        self.began = Instant::now();
    }

    /// Whether a description of this VM still says where its images lie: libvirt would have told of a
    /// change. While events are lost, for libvirtd is being restarted, it does so for one gather.
    fn holds(&self, uuid: Uuid, described: &CachedDescription) -> bool {
        let read_at = described.read_at;
        let changed = self.changed.get(&uuid);
        changed.is_none_or(|&changed| changed < read_at)
            && match self.events {
                // What was read a moment before the first events is read again for age alone.
                EventFeed::Live(since) => read_at >= since || !self.lost,
                EventFeed::Down => true,
                EventFeed::Lost(at) => read_at >= self.began || self.began >= at + self.ttl,
            }
    }

    /// What is known of this run of a VM.
    pub fn look_up(&mut self, run: RunId, now: Instant) -> Known {
        let Some(entry) = self.entries.get(&run.uuid).filter(|e| e.id == run.id) else {
            return Known::New;
        };
        let read_at = entry.described.read_at;
        let described = Arc::clone(&entry.described);
        let changed = self.changed.get(&run.uuid);
        if changed.is_some_and(|&changed| changed >= read_at) {
            return Known::Stale(described);
        }
        let aged = match self.events {
            EventFeed::Live(since) => read_at < since,
            EventFeed::Down | EventFeed::Lost(_) => {
                now.saturating_duration_since(read_at) >= self.ttl
            }
        };
        if aged && self.budget > 0 {
            self.budget -= 1;
            return Known::Stale(described);
        }
        Known::Fresh(described)
    }

    /// This run's NICs, as its statistics and its XML have them, where they are surely all: libvirt
    /// would have told of a change.
    pub fn nics(&self, run: RunId) -> Option<&[Nic]> {
        let entry = self.entries.get(&run.uuid).filter(|e| e.id == run.id)?;
        let described = &entry.described;
        let EventFeed::Live(since) = self.events else {
            return None;
        };
        let changed = self.changed.get(&run.uuid);
        let holds = described.read_at >= since
            && changed.is_none_or(|&changed| changed < described.read_at);
        let names = described.names.as_ref().filter(|_| holds)?;
        let nics = names.nics.as_deref()?;
        // The statistics are older than the XML, and a NIC may have come or gone in between.
        let known = &described.description.as_ref()?.nics;
        let alike = known.iter().map(|nic| &nic.target).eq(nics);
        alike.then_some(known)
    }

    /// What is known of this VM's last described run; `None` also where libvirt has told of a change
    /// since: where its images lie now is not known.
    pub fn described(&self, uuid: Uuid) -> Option<Arc<CachedDescription>> {
        let entry = self.entries.get(&uuid)?;
        let holds = self.holds(uuid, &entry.described);
        holds.then(|| Arc::clone(&entry.described))
    }

    /// Whether this run has been described, and libvirt has told of no change since.
    pub fn is_current(&self, run: RunId) -> bool {
        let entry = self.entries.get(&run.uuid).filter(|e| e.id == run.id);
        entry.is_some_and(|entry| self.holds(run.uuid, &entry.described))
    }

    /// A description was read.
    pub fn learn(&mut self, run: RunId, described: Arc<CachedDescription>) {
        let id = run.id;
        self.entries.insert(run.uuid, Entry { id, described });
    }

    /// libvirt says that a device was added or removed, or that a disk's image may be another one.
    pub fn device_changed(&mut self, uuid: Uuid, now: Instant) {
        self.changed.insert(uuid, now);
    }

    /// libvirt says that the device of this alias was removed.
    pub fn device_removed(&mut self, uuid: Uuid, alias: &str, now: Instant) {
        if let Some(Entry { described, .. }) = self.entries.get(&uuid) {
            let has = |aliases: &[SmolStr]| aliases.iter().any(|known| known == alias);
            let known = described.description.as_ref();
            let mut nic = known.is_some_and(|known| has(&known.nic_aliases));
            let mut disk = known.is_some_and(|known| has(&known.disk_aliases));
            // A description that lacks a device may be older than it.
            let changed = self.changed.get(&uuid);
            let holds =
                known.is_some() && changed.is_none_or(|&changed| changed < described.read_at);
            if !nic && !disk && !holds {
                (nic, disk) = (true, true);
            }
            let removed = self.removed.entry(uuid).or_default();
            removed.nic = nic.then_some(now).or(removed.nic);
            removed.disk = disk.then_some(now).or(removed.disk);
        }
        self.device_changed(uuid, now);
    }

    /// When devices of a VM were last removed, as far as libvirt told.
    pub fn removed(&self, uuid: Uuid) -> Removed {
        self.removed.get(&uuid).copied().unwrap_or_default()
    }

    /// Events come from now on, or no more.
    pub fn events(&mut self, feed: EventFeed) {
        self.events = match (feed, self.events) {
            (EventFeed::Down, EventFeed::Live(_)) => {
                self.lost = true;
                EventFeed::Lost(Instant::now())
            }
            (EventFeed::Down, before) => before,
            _ => feed,
        };
    }

    /// Forgets the VMs that are gone.
    pub fn keep(&mut self, active: &HashSet<RunId>) {
        self.entries
            .retain(|&uuid, entry| active.contains(&RunId { uuid, id: entry.id }));
        if !self.changed.is_empty() || !self.removed.is_empty() {
            let active: HashSet<Uuid> = active.iter().map(|run| run.uuid).collect();
            self.changed.retain(|uuid, _| active.contains(uuid));
            self.removed.retain(|uuid, _| active.contains(uuid));
        }
    }
}

#[cfg(test)]
mod tests;
