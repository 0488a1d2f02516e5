//! What a VM's XML says of its devices, and of the files that QEMU has open for them.
//!
//! Only `/domain/devices/interface` and `/domain/devices/disk` in no namespace are devices: a backing chain, a mirror,
//! metadata and `<qemu:commandline>` may hold elements of the same names.

mod source;
mod walk;

use quick_xml::events::Event;
use quick_xml::reader::NsReader;
use smol_str::SmolStr;

use walk::Walk;

/// The devices of one VM, as its live XML names them: those with a name, and interfaces without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Network interfaces, in the order of the XML.
    pub nics: Vec<Nic>,
    /// Disks of every kind, in the order of the XML. One without a target is skipped: libvirt gives each a target.
    pub disks: Vec<Disk>,
    /// `<alias name='net0'/>` of the network interfaces that have one: libvirt's events name devices by it.
    pub nic_aliases: Vec<SmolStr>,
    /// The same of the disks.
    pub disk_aliases: Vec<SmolStr>,
    /// Local paths of block nodes that are no disk's: the firmware (`<os><loader type='pflash'>`) and its variables
    /// (`<os><nvram>`).
    pub firmware: Vec<String>,
    /// The numbers of the block nodes that are volumes of a pool (`<source pool='...' volume='...' index='N'/>`): the XML
    /// does not have their paths, QEMU's command line does.
    pub volumes: Vec<u32>,
    /// QEMU may have a file open of which the XML gives no local path (see [`Description::parse`]).
    pub unresolved: bool,
    /// For a network disk QEMU may wait for its server when it is asked for the image's size.
    pub waits_for_server: bool,
}

impl Description {
    /// The local path of every file that QEMU looks at when it is asked for block statistics, but for volumes.
    ///
    /// Two sorts of files cannot be known. The scratch files of a running backup, or its targets, are neither in the XML
    /// nor in the statistics, and libvirt sends no event when it begins: only `virDomainBackupGetXMLDesc` has them, a
    /// call for each VM and gather. libvirt puts them beside the disk's image unless it is told another place
    /// (virDomainBackupDefAssignStore), so the image's mount stands for them. The target of a block copy is in the XML,
    /// but the first event of the copy tells that it is in step with its source: what was begun after the XML was read
    /// is not known before.
    pub fn sources(&self) -> impl Iterator<Item = &str> {
        let disks = self.disks.iter().flat_map(|disk| &disk.sources);
        disks.chain(&self.firmware).map(String::as_str)
    }
}

/// One `<interface>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// `<target dev='vnet0'/>`: the name on the host; a user-mode NIC has none.
    pub target: Option<SmolStr>,
    /// `<interface type='bridge'>`: what libvirt connects it to. Empty where the attribute, always there, is missing.
    pub kind: SmolStr,
}

/// One `<disk>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `<target dev='vda'/>`.
    pub target: SmolStr,
    /// `<disk device='disk'>`.
    pub kind: DiskKind,
    /// Every local path that its image lies at: `<source file='...'>`, `dev` and `dir`, those of its backing chain
    /// and of a mirror among them, for QEMU stats each of them when it is asked for block statistics.
    pub sources: Vec<String>,
    /// Whether libvirt can have counters of it. Of a vhost-user disk (`<disk type='vhostuser'>`) it has none: QEMU only
    /// connects the guest with another process, and has no block node for it (qemuBuildVhostUserChardevStr).
    pub counted: bool,
}

/// `<disk device='...'>`; libvirt's default is `disk`. Its schema (domaincommon.rng) has these four words; a word that
/// it does not have is read as `disk`, so that a device of a newer libvirt is shown rather than lost.
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
    /// The word of the XML.
    pub fn word(self) -> &'static str {
        match self {
            Self::Disk => "disk",
            Self::Lun => "lun",
            Self::Cdrom => "cdrom",
            Self::Floppy => "floppy",
        }
    }
}

/// Why a domain's XML could not be read; one short line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct DescriptionError {
    /// Where, in bytes from the start of the XML.
    pub offset: u64,
    /// What is wrong there; never longer than some 160 characters.
    pub reason: String,
}

impl std::fmt::Display for DescriptionError {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "domain XML, byte {}: {}", self.offset, self.reason)
    }
}

impl std::error::Error for DescriptionError {}

impl DescriptionError {
    /// The XML library quotes names, which may be of any length and hold anything.
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
    /// Reads the devices from a domain's XML, as `virDomainGetXMLDesc` gives it.
    ///
    /// It is [`unresolved`](Self::unresolved) where the XML has a volume of a pool without a number, a file that was
    /// passed in open, a type of source that is not known here, or a block device on QEMU's own command line.
    ///
    /// Time and memory grow linearly with the XML; nothing recurses.
    ///
    /// # Errors
    /// When the XML is broken, or is no `<domain>`. (The XML library takes 65,535 levels, more than libvirt's own does.)
    pub fn parse(xml: &str) -> Result<Self, DescriptionError> {
        let mut reader = NsReader::from_str(xml);
        // `<target/>` and `<target></target>` are the same: Start, End.
        reader.config_mut().expand_empty_elements = true;
        // Metadata may declare as many as it likes: we resolve only the few names on our own path.
        reader.resolver_mut().set_max_namespace_bindings(usize::MAX);
        let mut walk = Walk::default();
        loop {
            let offset = reader.buffer_position();
            let event = reader
                .read_event()
                .map_err(|error| DescriptionError::new(reader.error_position(), error))?;
            match event {
                Event::Start(element) => walk.enter(&element, reader.resolver()),
                Event::End(_) => {
                    walk.leave();
                    Ok(())
                }
                Event::Text(text) if text.trim().is_empty() => Ok(()),
                Event::Text(text) => walk.text(&text),
                Event::CData(text) => walk.text(&text),
                Event::GeneralRef(entity) => match source::resolved(&entity) {
                    Some(text) => walk.text(&text),
                    None => walk.unreadable_text(),
                },
                Event::Eof => walk.finish(),
                Event::Empty(_)
                | Event::Comment(_)
                | Event::Decl(_)
                | Event::PI(_)
                | Event::DocType(_) => Ok(()),
            }
            .map_err(|reason| DescriptionError::new(offset, reason))?;
            if walk.finished {
                return Ok(walk.description);
            }
        }
    }
}
