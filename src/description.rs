//! What a VM's XML says of its devices.
//!
//! Only `/domain/devices/interface` and `/domain/devices/disk` in no namespace are devices: a backing chain, a mirror,
//! metadata and `<qemu:commandline>` may hold elements of the same names.

use quick_xml::XmlVersion;
use quick_xml::events::{BytesStart, Event};
use quick_xml::name::{NamespaceResolver, ResolveResult};
use quick_xml::reader::NsReader;
use smol_str::SmolStr;

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
                Event::Text(_) | Event::CData(_) | Event::GeneralRef(_) => walk.text(),
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
    /// How many of them, from the root, lie on `/domain/devices/(interface|disk)/(target|alias)`.
    matched: usize,
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
    },
}

impl Walk {
    fn enter(&mut self, element: &BytesStart, resolver: &NamespaceResolver) -> Result<(), String> {
        let name = element.name().into_inner();
        let may_match = self.matched == self.depth
            && match self.depth {
                0 => name == "domain",
                1 => name == "devices",
                2 => name == "interface" || name == "disk",
                3 => name == "target" || name == "alias",
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
        if name == "source"
            && let Some(Device::Disk { sources, .. }) = &mut self.device
            && resolver.resolve_element(element.name()).0 == ResolveResult::Unbound
        {
            for key in ["file", "dev", "dir"] {
                sources.extend(attribute(element, key)?);
            }
        }
        self.depth += 1;
        if on_path {
            self.matched = self.depth;
            match self.depth {
                3 => self.device = Some(Device::open(element)?),
                4 if name == "alias" => self.alias(attribute(element, "name")?),
                4 => self.target(attribute(element, "dev")?),
                _ => {}
            }
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

    fn alias(&mut self, name: Option<String>) {
        let aliases = match &self.device {
            Some(Device::Nic { .. }) => &mut self.description.nic_aliases,
            Some(Device::Disk { .. }) => &mut self.description.disk_aliases,
            None => return,
        };
        aliases.extend(name.map(SmolStr::from));
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
                }) => self.description.disks.push(Disk {
                    target,
                    kind,
                    sources,
                }),
                Some(Device::Disk { target: None, .. }) | None => {}
            }
        }
    }

    fn text(&self) -> Result<(), String> {
        if self.depth == 0 {
            Err("text outside the root element".to_owned())
        } else {
            Ok(())
        }
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
    fn open(element: &BytesStart) -> Result<Self, String> {
        if element.name().into_inner() == "interface" {
            let kind = attribute(element, "type")?.unwrap_or_default().into();
            return Ok(Self::Nic { target: None, kind });
        }
        let kind = match attribute(element, "device")?.as_deref() {
            Some("lun") => DiskKind::Lun,
            Some("cdrom") => DiskKind::Cdrom,
            Some("floppy") => DiskKind::Floppy,
            _ => DiskKind::Disk,
        };
        Ok(Self::Disk {
            target: None,
            kind,
            sources: Vec::new(),
        })
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
