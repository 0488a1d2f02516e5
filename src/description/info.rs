//! What `vm_info` shows of a VM: its firmware, its machine, how its devices are connected.

use quick_xml::events::BytesStart;
use quick_xml::name::{NamespaceResolver, ResolveResult};
use smol_str::SmolStr;

use super::DiskKind;
use super::parser::attribute;
use crate::device_filter::DeviceFilter;

/// How many limits a disk may have.
pub const LIMITS: usize = 6;

/// The elements of `<iotune>` that are the limits, and the fields for them. Bytes and requests per second.
pub const LIMIT_FIELDS: [(&str, &str); LIMITS] = [
    ("total_bytes_sec", "limit_total_bytes_per_sec"),
    ("read_bytes_sec", "limit_rd_bytes_per_sec"),
    ("write_bytes_sec", "limit_wr_bytes_per_sec"),
    ("total_iops_sec", "limit_total_req_per_sec"),
    ("read_iops_sec", "limit_rd_req_per_sec"),
    ("write_iops_sec", "limit_wr_req_per_sec"),
];

/// What changes seldom. `None`: the XML does not have it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Info {
    /// `<title>`.
    pub title: Option<String>,
    /// `<os><type>`: `hvm`, `exe`, ...
    pub os_type: Option<String>,
    /// `<os><type arch='x86_64'>`.
    pub arch: Option<String>,
    /// `<os><type machine='pc-q35-8.2'>`.
    pub machine: Option<String>,
    /// `bios` or `efi`; `None`: the XML does not say it.
    pub firmware: Option<&'static str>,
    /// Whether it starts with the host (`virDomainGetAutostart`), when the XML was read.
    pub autostart: Option<bool>,
    /// Whether it has a configuration that stays when it stops (`virDomainIsPersistent`), when the XML was read.
    pub persistent: Option<bool>,
    /// Network interfaces, in the order of the XML.
    pub nics: Vec<NicInfo>,
    /// Disks that have a target, in the order of the XML.
    pub disks: Vec<DiskInfo>,
}

/// One `<interface>`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NicInfo {
    /// Its name on the host; without one its MAC address.
    pub device: SmolStr,
    /// `<mac address='...'/>`.
    pub mac: Option<String>,
    /// `<model type='virtio'/>`.
    pub model: Option<String>,
    /// `<source>`: the network, else the bridge, else the host's device.
    pub source: Option<String>,
    /// `<source portgroup='...'>`.
    pub portgroup: Option<String>,
    /// `<target dev='vnet0'/>`.
    has_target: bool,
}

/// One `<disk>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DiskInfo {
    /// Its target: `vda`.
    pub device: SmolStr,
    /// `<disk device='...'>`.
    pub kind: DiskKind,
    /// `<target bus='virtio'/>`.
    pub bus: Option<String>,
    /// `<source>`: the path; `PROTOCOL:NAME` of a network disk, `POOL/VOLUME` of a volume.
    pub source: Option<String>,
    /// `<driver type='qcow2'/>`.
    pub format: Option<String>,
    /// `<serial>`.
    pub serial: Option<String>,
    /// `<driver cache='none'/>`.
    pub cache: Option<String>,
    /// In the order of [`LIMIT_FIELDS`].
    pub limits: [Option<u64>; LIMITS],
}

impl Info {
    /// Drops the devices that are not wanted.
    pub fn keep(&mut self, wanted: &DeviceFilter) {
        self.nics
            .retain(|nic| !nic.has_target || wanted.nic(&nic.device));
        self.disks
            .retain(|disk| wanted.disk(&disk.device, disk.kind));
    }
}

/// Reads an [`Info`] while a domain's XML is read.
#[derive(Default)]
pub(super) struct InfoReader {
    info: Info,
    /// The child of `<domain>` that is open.
    section: Section,
    device: Option<OpenDevice>,
    /// `<iotune>` of the open disk is open.
    in_iotune: bool,
    /// The text that is wanted of the open element, and how many elements below `<domain>` are open in it.
    text: Option<(Wanted, usize, String)>,
    /// `<os firmware='...'>`.
    firmware: Option<String>,
    /// `<loader type='...'>`; empty without a type.
    loader: Option<String>,
}

#[derive(Default, PartialEq)]
enum Section {
    #[default]
    Other,
    Os,
    Devices,
}

enum OpenDevice {
    Nic(NicInfo),
    Disk(DiskInfo),
}

/// What a text is.
#[derive(Clone, Copy)]
enum Wanted {
    Title,
    OsType,
    Serial,
    Limit(usize),
}

impl InfoReader {
    /// An element is entered, when `depth` elements below `<domain>` are open.
    pub(super) fn enter(
        &mut self,
        depth: usize,
        element: &BytesStart,
        resolver: &NamespaceResolver,
    ) -> Result<(), String> {
        let may_matter = match depth {
            0 => true,
            1 => self.section != Section::Other,
            2 => self.device.is_some(),
            3 => self.in_iotune,
            _ => false,
        };
        if !may_matter || resolver.resolve_element(element.name()).0 != ResolveResult::Unbound {
            return Ok(());
        }
        let name = element.name().into_inner();
        match (depth, name) {
            (0, "title") => self.begin_text(Wanted::Title, 1),
            (0, "os") => {
                self.section = Section::Os;
                self.firmware = attribute(element, "firmware")?;
            }
            (0, "devices") => self.section = Section::Devices,
            (1, "type") if self.section == Section::Os => {
                self.info.arch = attribute(element, "arch")?;
                self.info.machine = attribute(element, "machine")?;
                self.begin_text(Wanted::OsType, 2);
            }
            (1, "loader") if self.section == Section::Os => {
                self.loader = Some(attribute(element, "type")?.unwrap_or_default());
            }
            (1, "interface") if self.section == Section::Devices => {
                self.device = Some(OpenDevice::Nic(NicInfo::default()));
            }
            (1, "disk") if self.section == Section::Devices => {
                self.device = Some(OpenDevice::Disk(DiskInfo::open(element)?));
            }
            (2, _) => self.part(name, element)?,
            (3, _) => {
                let limit = LIMIT_FIELDS.iter().position(|(known, _)| *known == name);
                if let Some(limit) = limit {
                    self.begin_text(Wanted::Limit(limit), 4);
                }
            }
            _ => {}
        }
        Ok(())
    }

    /// A child of the open device.
    fn part(&mut self, name: &str, element: &BytesStart) -> Result<(), String> {
        match (&mut self.device, name) {
            (Some(OpenDevice::Nic(nic)), "mac") => nic.mac = attribute(element, "address")?,
            (Some(OpenDevice::Nic(nic)), "model") => nic.model = attribute(element, "type")?,
            (Some(OpenDevice::Nic(nic)), "target") => {
                let target = attribute(element, "dev")?.filter(|name| !name.is_empty());
                nic.has_target = target.is_some();
                nic.device = target.unwrap_or_default().into();
            }
            (Some(OpenDevice::Nic(nic)), "source") => {
                for kind in ["network", "bridge", "dev"] {
                    if nic.source.is_none() {
                        nic.source = attribute(element, kind)?;
                    }
                }
                nic.portgroup = attribute(element, "portgroup")?;
            }
            (Some(OpenDevice::Disk(disk)), "target") => {
                disk.device = attribute(element, "dev")?.unwrap_or_default().into();
                disk.bus = attribute(element, "bus")?;
            }
            (Some(OpenDevice::Disk(disk)), "driver") => {
                disk.format = attribute(element, "type")?;
                disk.cache = attribute(element, "cache")?;
            }
            (Some(OpenDevice::Disk(disk)), "source") => disk.source = source(element)?,
            (Some(OpenDevice::Disk(_)), "serial") => self.begin_text(Wanted::Serial, 3),
            (Some(OpenDevice::Disk(_)), "iotune") => self.in_iotune = true,
            _ => {}
        }
        Ok(())
    }

    fn begin_text(&mut self, wanted: Wanted, depth: usize) {
        self.text = Some((wanted, depth, String::new()));
    }

    /// There is text in the innermost element; `depth` elements below `<domain>` are open.
    pub(super) fn text(&mut self, depth: usize, text: &str) {
        if let Some((_, wanted, before)) = &mut self.text
            && *wanted == depth
        {
            before.push_str(text);
        }
    }

    /// An element was left; `depth` elements below `<domain>` are still open.
    pub(super) fn leave(&mut self, depth: usize) {
        if let Some((wanted, _, text)) = self.text.take_if(|(_, wanted, _)| *wanted > depth) {
            let disk = match &mut self.device {
                Some(OpenDevice::Disk(disk)) => Some(disk),
                _ => None,
            };
            match (wanted, disk) {
                (Wanted::Title, _) => self.info.title = Some(text),
                (Wanted::OsType, _) => self.info.os_type = Some(text),
                (Wanted::Serial, Some(disk)) => disk.serial = Some(text),
                (Wanted::Limit(limit), Some(disk)) => disk.limits[limit] = text.trim().parse().ok(),
                _ => {}
            }
        }
        match depth {
            0 => self.section = Section::Other,
            1 => match self.device.take() {
                Some(OpenDevice::Nic(mut nic)) => {
                    if !nic.has_target {
                        nic.device = nic.mac.as_deref().unwrap_or_default().into();
                    }
                    self.info.nics.push(nic);
                }
                Some(OpenDevice::Disk(disk)) if !disk.device.is_empty() => {
                    self.info.disks.push(disk)
                }
                _ => {}
            },
            2 => self.in_iotune = false,
            _ => {}
        }
    }

    pub(super) fn finish(self) -> Info {
        let mut info = self.info;
        let is_x86 = matches!(info.arch.as_deref(), Some("x86_64" | "i686"));
        info.firmware = match (self.firmware.as_deref(), self.loader.as_deref()) {
            (Some("efi"), _) | (None, Some("pflash")) => Some("efi"),
            (Some("bios"), _) => Some("bios"),
            // QEMU's default for a PC is SeaBIOS.
            (None, None) if is_x86 => Some("bios"),
            _ => None,
        };
        info
    }
}

impl DiskInfo {
    fn open(element: &BytesStart) -> Result<Self, String> {
        Ok(Self {
            device: SmolStr::default(),
            kind: DiskKind::of(attribute(element, "device")?.as_deref()),
            bus: None,
            source: None,
            format: None,
            serial: None,
            cache: None,
            limits: [None; LIMITS],
        })
    }
}

/// What a disk's `<source>` names.
fn source(element: &BytesStart) -> Result<Option<String>, String> {
    for path in ["file", "dev", "dir", "path"] {
        if let Some(path) = attribute(element, path)? {
            return Ok(Some(path));
        }
    }
    for (of, name, between) in [("protocol", "name", ':'), ("pool", "volume", '/')] {
        if let (Some(of), Some(name)) = (attribute(element, of)?, attribute(element, name)?) {
            return Ok(Some(format!("{of}{between}{name}")));
        }
    }
    Ok(None)
}
