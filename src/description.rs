//! What a VM's XML says of its devices, and of the files that QEMU has open for them.
//!
//! Only `/domain/devices/interface` and `/domain/devices/disk` in no namespace are devices: a backing chain, a mirror,
//! metadata and `<qemu:commandline>` may hold elements of the same names.

mod source;

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};
use quick_xml::reader::NsReader;
use smol_str::SmolStr;

use source::Source;

/// The devices of one VM, as its live XML names them: those with a name, and interfaces without one.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Network interfaces, in the order of the XML.
    pub nics: Vec<Nic>,
    /// Disks of every kind, in the order of the XML. One without a target is skipped: libvirt gives each a target.
    pub disks: Vec<Disk>,
    /// Local paths of block nodes that are no disk's: the firmware (`<os><loader type='pflash'>`) and its variables
    /// (`<os><nvram>`).
    pub firmware: Vec<String>,
    /// The numbers of the block nodes that are volumes of a pool (`<source pool='...' volume='...' index='N'/>`): the XML
    /// does not have their paths, QEMU's command line does.
    pub volumes: Vec<u32>,
    /// QEMU may have a block node open of which the XML gives no local path, and that may wait for a server when QEMU is
    /// asked for its size (see [`Description::parse`]).
    pub unresolved: bool,
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
    /// passed in open, a network disk that may wait for its server, a type of source that is not known here, or
    /// a block device on QEMU's own command line.
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

/// The walk through the elements. Of where it stands it keeps two numbers, not the path itself.
#[derive(Default)]
struct Walk {
    description: Description,
    /// How many elements are open.
    depth: usize,
    /// How many of them, from the root, lie on `/domain/devices/(interface|disk)/target` or
    /// `/domain/os/(loader|nvram)`.
    matched: usize,
    /// The second of them is `<os>`.
    in_os: bool,
    root_seen: bool,
    finished: bool,
    device: Option<Device>,
}

/// The device whose element is open.
enum Device {
    Nic {
        target: Option<SmolStr>,
        kind: SmolStr,
    },
    Disk {
        target: Option<SmolStr>,
        kind: DiskKind,
        sources: Vec<String>,
        counted: bool,
    },
    /// `<loader>` or `<nvram>`, and the text in it.
    Firmware(String),
}

impl Walk {
    fn enter(&mut self, element: &BytesStart, resolver: &NamespaceResolver) -> Result<(), String> {
        let name = element.name().into_inner();
        let may_match = self.matched == self.depth
            && match self.depth {
                0 => name == "domain",
                1 => name == "devices" || name == "os",
                2 if self.in_os => name == "nvram" || name == "loader",
                2 => name == "interface" || name == "disk",
                3 => name == "target" && !self.in_os,
                _ => false,
            };
        // Resolving costs a look at each namespace in scope: only where the name already fits.
        let on_path =
            may_match && resolver.resolve_element(element.name()).0 == ResolveResult::Unbound;
        if self.depth == 0 {
            if self.root_seen {
                return Err(format!("a second root element, <{name}>"));
            }
            if !on_path {
                return Err(format!(
                    "the root element <{name}> is no <domain> without a namespace"
                ));
            }
            self.root_seen = true;
        }
        if self.depth == 2 {
            self.description.unresolved |= source::is_block_argument(element)?;
        }
        if matches!(self.device, Some(Device::Disk { .. } | Device::Firmware(_)))
            && source::NAMES.contains(&name)
            && resolver.resolve_element(element.name()).0 == ResolveResult::Unbound
        {
            self.source(element)?;
        }
        self.depth += 1;
        if on_path {
            self.matched = self.depth;
            match self.depth {
                2 => self.in_os = name == "os",
                3 => {
                    self.device = Device::open(element)?;
                    if matches!(self.device, Some(Device::Disk { .. } | Device::Firmware(_))) {
                        self.description.unresolved |= !source::type_is_known(element)?;
                    }
                }
                4 => self.target(attribute(element, "dev")?),
                _ => {}
            }
        }
        Ok(())
    }

    /// A `<source>` at any depth of a disk or of the firmware, or what it stands in.
    fn source(&mut self, element: &BytesStart) -> Result<(), String> {
        if element.name().into_inner() != "source" {
            self.description.unresolved |= !source::type_is_known(element)?;
            return Ok(());
        }
        let files = match &mut self.device {
            Some(Device::Disk { sources, .. }) => sources,
            _ => &mut self.description.firmware,
        };
        match source::read(element, files)? {
            Source::Known => {}
            Source::Volume(number) => self.description.volumes.push(number),
            Source::Unknown => self.description.unresolved = true,
        }
        Ok(())
    }

    fn target(&mut self, dev: Option<String>) {
        if let Some(Device::Nic { target, .. } | Device::Disk { target, .. }) = &mut self.device
            && target.is_none()
        {
            *target = dev.filter(|name| !name.is_empty()).map(SmolStr::from);
        }
    }

    /// The library has seen to it that each end has its start.
    fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        if self.matched <= self.depth {
            return;
        }
        self.matched = self.depth;
        // Only the device's own end finds the walk this far up with a device open.
        if self.depth == 2 {
            match self.device.take() {
                Some(Device::Nic { target, kind }) => {
                    self.description.nics.push(Nic { target, kind });
                }
                Some(Device::Disk {
                    target: Some(target),
                    kind,
                    sources,
                    counted,
                }) => self.description.disks.push(Disk {
                    target,
                    kind,
                    sources,
                    counted,
                }),
                Some(Device::Firmware(path)) if !path.is_empty() => {
                    self.description.firmware.push(path);
                }
                // QEMU has its files open all the same.
                Some(Device::Disk { sources, .. }) => self.description.firmware.extend(sources),
                Some(Device::Firmware(_)) | None => {}
            }
        }
    }

    fn text(&mut self, text: &str) -> Result<(), String> {
        if self.depth == 0 {
            return Err("text outside the root element".to_owned());
        }
        // Not the text of an element inside it.
        if self.depth == 3
            && let Some(Device::Firmware(path)) = &mut self.device
        {
            path.push_str(text);
        }
        Ok(())
    }

    /// Text with an entity that libvirt's XML does not have.
    fn unreadable_text(&mut self) -> Result<(), String> {
        self.description.unresolved |= matches!(self.device, Some(Device::Firmware(_)));
        self.text("")
    }

    fn finish(&mut self) -> Result<(), String> {
        if !self.root_seen {
            return Err("no element at all".to_owned());
        }
        if self.depth > 0 {
            return Err(format!("ends with {} elements still open", self.depth));
        }
        self.finished = true;
        Ok(())
    }
}

impl Device {
    /// `None` for the loader that is no block node: QEMU read it at its start (`-bios`).
    fn open(element: &BytesStart) -> Result<Option<Self>, String> {
        let of_type = attribute(element, "type")?;
        let of_type = of_type.as_deref();
        match element.name().into_inner() {
            "interface" => {
                let kind = of_type.unwrap_or_default().into();
                return Ok(Some(Self::Nic { target: None, kind }));
            }
            "loader" if of_type != Some("pflash") => return Ok(None),
            "loader" | "nvram" => return Ok(Some(Self::Firmware(String::new()))),
            _ => {}
        }
        let kind = match attribute(element, "device")?.as_deref() {
            Some("lun") => DiskKind::Lun,
            Some("cdrom") => DiskKind::Cdrom,
            Some("floppy") => DiskKind::Floppy,
            _ => DiskKind::Disk,
        };
        Ok(Some(Self::Disk {
            target: None,
            kind,
            sources: Vec::new(),
            counted: of_type != Some("vhostuser"),
        }))
    }
}

/// The value of an attribute in no namespace, entities resolved.
fn attribute(element: &BytesStart, name: &str) -> Result<Option<String>, String> {
    for attribute in element.attributes() {
        let attribute = attribute.map_err(|error| error.to_string())?;
        if attribute.key.into_inner() == name {
            return match attribute.normalized_value(XmlVersion::Implicit1_0) {
                Ok(value) => Ok(Some(value.into_owned())),
                Err(error) => Err(format!("attribute {name}: {error}")),
            };
        }
    }
    Ok(None)
}
