//! A description that was read, and when another one has to be read in its place.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use smol_str::SmolStr;

use crate::description::{Description, Nic};
use crate::sample::{Device, Sample};

/// A description, and the names that the statistics had for the VM's devices when it was read.
#[derive(Debug, Clone, PartialEq)]
pub struct CachedDescription {
    /// The devices by the XML. `None`: the XML could not be understood; this is remembered so that it
    /// is not read again in every gather.
    pub description: Option<Description>,
    /// The devices by the statistics of the same moment; `None`: read before any statistics.
    pub names: Option<DeviceNames>,
    /// When the XML was requested.
    pub read_at: Instant,
    /// The path of some file that QEMU reads for block statistics is not known: the XML does not have
    /// it or could not be understood, or the statistics have a path that the XML does not have.
    pub unresolved: bool,
}

impl CachedDescription {
    /// What was read at `read_at`, and what the statistics reported beside it.
    pub fn new(
        description: Option<Description>,
        names: Option<DeviceNames>,
        read_at: Instant,
    ) -> Self {
        let unresolved = description.as_ref().is_none_or(|known| {
            let paths = names.as_ref().map_or("", |names| &names.paths);
            let others = paths
                .split('\0')
                // Other names are not those of local files.
                .filter(|path| path.starts_with('/'))
                .filter(|path| !known.sources().any(|source| source == *path));
            // The statistics have the paths of volumes, the XML does not.
            known.unresolved || others.count() > known.volumes.len()
        });
        Self {
            description,
            names,
            read_at,
            unresolved,
        }
    }

    /// The numbers of the block nodes whose paths are on QEMU's command line.
    pub fn volumes(&self) -> &[u32] {
        let known = self.description.as_ref();
        known.map_or(&[], |known| &known.volumes)
    }

    /// The local paths of the files that QEMU reads for block statistics, without volumes.
    pub fn paths(&self) -> impl Iterator<Item = &Path> {
        let known = self.description.iter();
        known.flat_map(Description::sources).map(Path::new)
    }

    /// Whether QEMU may wait for the server of a network disk when it is asked for block statistics.
    pub fn waits_for_server(&self) -> bool {
        let known = self.description.as_ref();
        known.is_some_and(|known| known.waits_for_server)
    }

    /// Whether QEMU certainly reads the same files by both descriptions.
    pub fn has_same_files(&self, other: &Self) -> bool {
        // In another run of the VM the number of a volume may belong to another one.
        let no_volumes = self.volumes().is_empty() && other.volumes().is_empty();
        (no_volumes || self.read_at == other.read_at)
            && self.unresolved == other.unresolved
            && self.waits_for_server() == other.waits_for_server()
            && self.paths().eq(other.paths())
    }

    /// The NICs, if the XML and the statistics have the same ones. The statistics are older than the
    /// XML, and a NIC may have been added or removed in between.
    pub(super) fn agreed_nics(&self) -> Option<&[Nic]> {
        let by_statistics = self.names.as_ref()?.nics.as_deref()?;
        let by_xml = &self.description.as_ref()?.nics;
        let targets = by_xml.iter().map(|nic| &nic.target);
        targets.eq(by_statistics).then_some(by_xml)
    }
}

/// The device names of a statistics record. `None`: the record does not report these devices (the VM
/// does not answer, or the driver lacks the group), and that is no change.
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

    /// Whether the sample has other devices than these, or other images: another medium in a drive,
    /// or another file after a snapshot or a block job. What one of the two does not report is no
    /// difference.
    pub fn differ(&self, now: &Sample) -> bool {
        let nics = self.nics.as_ref().zip(now.nics.as_ref());
        let disks = self.disks.as_ref().zip(now.disks.as_ref());
        nics.is_some_and(|(names, nics)| !have(&nics.list, names))
            || disks
                .is_some_and(|(names, disks)| !have(&disks.list, names) || self.paths != now.paths)
    }

    /// These names, and those that only the sample reports (the disks of a VM, once bulk statistics
    /// report them); `None`: it reports nothing else.
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

fn have<const N: usize>(list: &[Device<N>], names: &[Option<SmolStr>]) -> bool {
    names.iter().eq(list.iter().map(|device| &device.name))
}

fn names<const N: usize>(list: &[Device<N>]) -> Vec<Option<SmolStr>> {
    list.iter().map(|device| device.name.clone()).collect()
}

/// What is known of the devices of a VM that is about to be queried.
#[derive(Debug, Clone)]
pub enum Known {
    /// Nothing: its XML has to be read.
    New,
    /// A description that holds as long as the statistics have the same device names.
    Fresh(Arc<CachedDescription>),
    /// A description that has to be read again.
    Stale(Arc<CachedDescription>),
}

impl Known {
    /// The description, fresh or stale, if there is one.
    pub fn description(&self) -> Option<&Description> {
        match self {
            Self::New => None,
            Self::Fresh(known) | Self::Stale(known) => known.description.as_ref(),
        }
    }

    /// Whether the sample has other devices or images than a description that was taken to hold.
    pub fn is_outdated(&self, sample: &Sample) -> bool {
        let Self::Fresh(known) = self else {
            return false;
        };
        let names = known.names.as_ref();
        names.is_some_and(|names| names.differ(sample))
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sample::testing::{device, devices, empty};
    use crate::sample::{DISK_COUNTERS, NIC_COUNTERS};

    #[test]
    fn other_names_differ_and_unreported_ones_do_not() {
        let at = Instant::now();
        let sample = |nics: Option<&[&str]>, disks: Option<&[&str]>| {
            let mut sample = empty(at);
            let nic = |name: &&str| device(name, "", [None; NIC_COUNTERS]);
            let disk = |name: &&str| device(name, "", [Some(1); DISK_COUNTERS]);
            sample.nics = nics.map(|names| devices(at, names.iter().map(nic).collect()));
            sample.disks = disks.map(|names| devices(at, names.iter().map(disk).collect()));
            sample
        };
        let all = sample(Some(&["vnet0", ""]), Some(&["vda"]));
        let known = DeviceNames::of(&all);
        assert!(!known.differ(&all));
        assert!(!known.differ(&sample(None, None)), "not reported");
        assert!(!known.differ(&sample(Some(&["vnet0", ""]), None)));
        assert!(known.differ(&sample(Some(&["vnet0"]), Some(&["vda"]))));
        assert!(known.differ(&sample(Some(&["vnet1", ""]), Some(&["vda"]))));
        assert!(known.differ(&sample(None, Some(&["vda", "vdb"]))));
        assert!(known.differ(&sample(None, Some(&[]))));
        // What was not reported is added once it is.
        let unreported = DeviceNames::of(&sample(None, None));
        assert!(!unreported.differ(&all));
        assert_eq!(unreported.and(&all), Some(DeviceNames::of(&all)));
        let nics_alone = DeviceNames::of(&sample(Some(&["vnet0", ""]), None));
        assert_eq!(nics_alone.and(&all), Some(DeviceNames::of(&all)));
        assert_eq!(known.and(&all), None);
        assert_eq!(known.and(&sample(None, None)), None);
    }

    /// Statistics with one disk that has this image.
    fn with_image(at: Instant, path: &str) -> Sample {
        let mut sample = empty(at);
        sample.disks = Some(devices(
            at,
            vec![device("vda", "", [Some(1); DISK_COUNTERS])],
        ));
        sample.paths = format!("{path}\0");
        sample
    }

    #[test]
    fn another_image_differs() {
        let at = Instant::now();
        let known = DeviceNames::of(&with_image(at, "/a"));
        assert!(!known.differ(&with_image(at, "/a")));
        assert!(known.differ(&with_image(at, "/b")));
        let mut ejected = with_image(at, "/a");
        ejected.paths.clear();
        assert!(known.differ(&ejected));
        ejected.disks = None;
        assert!(!known.differ(&ejected), "not reported");
    }

    #[test]
    fn an_image_that_the_xml_does_not_have_leaves_it_unresolved() {
        let at = Instant::now();
        let xml = |source: &str| {
            let disk = format!("<disk><source {source}/><target dev='vda'/></disk>");
            let xml = format!("<domain><devices>{disk}</devices></domain>");
            Some(Description::parse(&xml).unwrap())
        };
        let unresolved = |description, path: &str| {
            let names = DeviceNames::of(&with_image(at, path));
            CachedDescription::new(description, Some(names), at).unresolved
        };
        assert!(!unresolved(xml("file='/a'"), "/a"));
        assert!(unresolved(xml("file='/a'"), "/b"));
        assert!(
            !unresolved(xml("protocol='nbd' name='b'"), "b"),
            "no local file"
        );
        assert!(!unresolved(xml("pool='p' volume='v' index='1'"), "/pool/v"));
        assert!(
            unresolved(None, "/a"),
            "an XML that could not be understood"
        );
        assert!(!CachedDescription::new(xml("file='/a'"), None, at).unresolved);
    }

    #[test]
    fn files_are_the_same_by_what_qemu_reads() {
        let at = Instant::now();
        let read = |disks: &str, names: Option<&Sample>, seconds: u64| {
            let xml = format!("<domain><devices>{disks}</devices></domain>");
            let description = Description::parse(&xml).unwrap();
            let read_at = at + Duration::from_secs(seconds);
            CachedDescription::new(Some(description), names.map(DeviceNames::of), read_at)
        };
        let file = "<disk><source file='/a'/><target dev='vda'/></disk>";
        let other = "<disk><source file='/b'/><target dev='vda'/></disk>";
        let volume = "<disk><source pool='p' volume='v' index='1'/><target dev='vda'/></disk>";
        let gluster = "<disk><source protocol='gluster' name='g'/><target dev='vda'/></disk>";
        let a = with_image(at, "/a");
        let before = read(file, None, 0);
        assert!(
            before.has_same_files(&read(file, Some(&a), 0)),
            "with names"
        );
        assert!(before.has_same_files(&read(file, None, 9)), "read again");
        assert!(!before.has_same_files(&read(other, None, 9)));
        assert!(!before.has_same_files(&read(volume, None, 9)));
        let waits = read(&format!("{file}{gluster}"), None, 9);
        assert!(!before.has_same_files(&waits), "QEMU waits for a server");
        let b = with_image(at, "/b");
        let unresolved = read(file, Some(&b), 9);
        assert!(!before.has_same_files(&unresolved), "an unknown file");
        let of_a_volume = read(volume, None, 0);
        assert!(of_a_volume.has_same_files(&of_a_volume));
        assert!(
            !of_a_volume.has_same_files(&read(volume, None, 9)),
            "perhaps of another run"
        );
    }
}
