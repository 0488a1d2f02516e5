//! The devices of a VM, the files that QEMU has open for them, its CPU quota, and the values that the configuration wants
//! as tags, from its XML.
//!
//! Only `/domain/devices/interface` and `/domain/devices/disk` without a namespace are devices: a backing chain, a
//! mirror, metadata and `<qemu:commandline>` may have elements of the same names.

mod info;
mod parser;
mod places;
mod source;
mod values;

use std::sync::Arc;

use quick_xml::events::Event;
use quick_xml::reader::NsReader;
use smol_str::SmolStr;

pub use info::{DiskInfo, Info, LIMIT_FIELDS, NicInfo};
use parser::Parser;
pub use places::{NamePart, Place, Step, WantedValue};
pub use values::{TagValues, cut};

/// The devices of one VM in its live XML.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Network interfaces, in the order of the XML.
    pub nics: Vec<Nic>,
    /// Disks of every kind, in the order of the XML. A disk without a target is skipped; libvirt gives each disk one.
    pub disks: Vec<Disk>,
    /// The aliases (`<alias name='net0'/>`) of the network interfaces. libvirt's events name devices by them.
    pub nic_aliases: Vec<SmolStr>,
    /// The aliases of the disks, also of those without a target.
    pub disk_aliases: Vec<SmolStr>,
    /// Local paths of block nodes that belong to no disk: the firmware (`<os><loader type='pflash'>`) and its variables
    /// (`<os><nvram>`).
    pub firmware: Vec<String>,
    /// The numbers of the block nodes that are volumes of a pool (`<source pool='...' volume='...' index='N'/>`). Their
    /// paths are not in the XML, but on QEMU's command line.
    pub volumes: Vec<u32>,
    /// Its CPU quota.
    pub quota: CpuQuota,
    /// How often the guest is asked for its memory figures, s (`<memballoon><stats period='5'/>`); 0: never.
    pub stats_period: u64,
    /// Whether QEMU may have a file open whose local path is not in the XML (see [`Description::parse`]).
    pub unresolved: bool,
    /// Whether QEMU may wait for the server of a network disk when it is asked for the size of the image.
    pub waits_for_server: bool,
    /// The values that are wanted as tags; `None` if none are. They are compared by their pointer in each gather.
    pub tags: Option<Arc<TagValues>>,
    /// What `vm_info` shows; `None` if that is not wanted.
    pub info: Option<Arc<Info>>,
}

impl Description {
    /// The local paths of all files, except volumes, that QEMU looks at when it is asked for block statistics.
    ///
    /// Two kinds of files are not known. The scratch files or targets of a running backup are neither in the XML nor in
    /// the statistics, and libvirt sends no event when a backup begins. Only `virDomainBackupGetXMLDesc` has them, which
    /// would be a call for each VM in each gather. libvirt puts these files beside the disk's image unless it is told
    /// another place (virDomainBackupDefAssignStore), so the mount of the image stands for theirs. The target of a
    /// block copy is in the XML, but the first event of the copy comes when the target is in step with its source. A
    /// copy that began after the XML was read is not known before that.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.iter().flat_map(|disk| &disk.sources);
        disks.chain(&self.firmware).map(String::as_str)
    }
}

/// Which control groups of a VM have a limit of CPU time, by `<cputune>`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct CpuQuota {
    /// `<quota>`: the group of each vCPU.
    pub vcpus: bool,
    /// `<global_quota>`: the group of the VM.
    pub vm: bool,
}

/// One `<interface>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// `<target dev='vnet0'/>`: the name on the host; a user-mode NIC has none.
    pub target: Option<SmolStr>,
    /// `<mac address='...'/>`, if the NIC is a device of the host that was given to the VM (`<interface type='hostdev'>`, and a
    /// network of such devices, where its alias is `hostdevN`). It has no name on the host, but libvirt may count its traffic
    /// by this address (virNetDevVFInterfaceStats).
    pub mac: Option<SmolStr>,
    /// `<interface type='bridge'>`: what libvirt connects it to. Empty if the XML lacks the attribute, which libvirt
    /// always writes.
    pub kind: SmolStr,
}

/// One `<disk>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `<target dev='vda'/>`.
    pub target: SmolStr,
    /// `<alias name='virtio-disk0'/>`, or an operator's own, which begins with `ua-`. A VM that is not active has none.
    pub alias: Option<SmolStr>,
    /// `<disk device='disk'>`.
    pub kind: DiskKind,
    /// The local paths of its image (`<source file='...'>`, `dev` and `dir`), of its backing chain and of a mirror. QEMU
    /// calls stat(2) for each of them when it is asked for block statistics.
    pub sources: Vec<String>,
    /// Whether libvirt can have counters of it. It has none of a vhost-user disk (`<disk type='vhostuser'>`): QEMU only
    /// connects the guest with another process, and has no block node for the disk (qemuBuildVhostUserChardevStr).
    pub counted: bool,
}

/// `<disk device='...'>`; libvirt's default is `disk`. libvirt's schema (domaincommon.rng) has these four words. Any
/// other word is read as `disk`, so that a device of a newer libvirt is shown rather than lost.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskKind {
    /// A disk.
    Disk,
    /// A SCSI device passed through.
    Lun,
    /// A CD-ROM drive, with or without a medium.
    Cdrom,
    /// A floppy drive.
    Floppy,
}

impl DiskKind {
    /// The kind for this word in the XML.
    fn of(word: Option<&str>) -> Self {
        match word {
            Some("lun") => Self::Lun,
            Some("cdrom") => Self::Cdrom,
            Some("floppy") => Self::Floppy,
            _ => Self::Disk,
        }
    }

    /// The word in the XML.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Lun => "lun",
            Self::Cdrom => "cdrom",
            Self::Floppy => "floppy",
        }
    }
}

/// Why a domain's XML could not be read, in one short line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptionError {
    /// The place of the error, in bytes from the start of the XML.
    pub offset: u64,
    /// What is wrong there, in 163 characters at the most.
    pub reason: String,
}

impl std::fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "domain XML, byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for DescriptionError {}

impl DescriptionError {
    /// Shortens the reason, for the XML library quotes names of any length with any characters.
    fn new(offset: u64, reason: impl std::fmt::Display) -> Self {
        const LONGEST: usize = 160;
        let reason = reason.to_string();
        let mut short: String = reason
            .chars()
            .take(LONGEST)
            .map(|c| if c.is_control() { ' ' } else { c })
            .collect();
        if reason.chars().nth(LONGEST).is_some() {
            short.push_str("...");
        }
        Self {
            offset,
            reason: short,
        }
    }
}

impl Description {
    /// Reads the devices from a domain's XML, without any value that could be wanted as a tag.
    ///
    /// # Errors
    /// As of [`Description::parse_with`].
    pub fn parse(xml: &str) -> Result<Self, DescriptionError> {
        Self::parse_with(xml, &[], false)
    }

    /// Reads the devices and the wanted values from a domain's XML, as `virDomainGetXMLDesc` gives it. `info`: what
    /// `vm_info` shows is wanted, too.
    ///
    /// The description is [`unresolved`](Self::unresolved) if the XML has a volume of a pool without a number, a file
    /// that was passed to libvirt as an open descriptor, an unknown type of source, or a block device on QEMU's own
    /// command line.
    ///
    /// Time and memory grow linearly with the XML; nothing recurses.
    ///
    /// # Errors
    /// The XML is malformed, or it is no `<domain>`. (The XML library allows 65,535 levels, more than libvirt's does.)
    pub fn parse_with(
        xml: &str,
        wanted: &[WantedValue],
        info: bool,
    ) -> Result<Self, DescriptionError> {
        let mut reader = NsReader::from_str(xml);
        // `<target/>` gives the same events as `<target></target>`.
        reader.config_mut().expand_empty_elements = true;
        // Metadata may declare any number of namespaces. Only the few names on the path of a device are resolved.
        reader.resolver_mut().set_max_namespace_bindings(usize::MAX);
        let mut parser = Parser::new(wanted, info);
        loop {
            let offset = reader.buffer_position();
            let event = reader
                .read_event()
                .map_err(|error| DescriptionError::new(reader.error_position(), error))?;
            match event {
                Event::Start(element) => parser.enter(&element, reader.resolver()),
                Event::End(_) => {
                    parser.leave();
                    Ok(())
                }
                Event::Text(text) if text.trim().is_empty() => {
                    parser.white_space(&text);
                    Ok(())
                }
                Event::Text(text) => parser.text(&text),
                Event::CData(text) => parser.text(&text),
                Event::GeneralRef(entity) => match source::resolved(&entity) {
                    Some(text) => parser.text(&text),
                    None => parser.unreadable_text(),
                },
                Event::Eof => parser.finish(),
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => Ok(()),
            }
            .map_err(|reason| DescriptionError::new(offset, reason))?;
            if parser.finished {
                return Ok(parser.description);
            }
        }
    }
}
