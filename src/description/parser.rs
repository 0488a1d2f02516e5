//! Reads a domain's XML, element by element.

use std::sync::Arc;

use quick_xml::XmlVersion;
use quick_xml::events::BytesStart;
use quick_xml::name::{NamespaceResolver, ResolveResult};
use smol_str::SmolStr;

use super::info::InfoReader;
use super::source::{self, SourceKind};
use super::values::Values;
use super::{Description, Disk, DiskKind, Nic, WantedValue};

/// The state of the reading. Two numbers stand for the path of open elements.
#[derive(Default)]
pub(super) struct Parser<'w> {
    pub(super) description: Description,
    values: Values<'w>,
    /// `None`: `vm_info` is not wanted.
    info: Option<InfoReader>,
    /// How many elements are open.
    depth: usize,
    /// How many of the open elements, from the root, are on the path
    /// `/domain/devices/(interface|disk)/(target|alias)`, `/domain/devices/memballoon/stats`, `/domain/os/(loader|nvram)` or
    /// `/domain/cputune/(quota|global_quota)`.
    matched: usize,
    /// Which one the second open element is.
    section: Section,
    root_seen: bool,
    pub(super) finished: bool,
    device: Option<OpenDevice>,
}

/// The elements below `<domain>` that are read.
#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum Section {
    /// `<devices>`
    #[default]
    Devices,
    /// `<os>`
    Os,
    /// `<cputune>`
    CpuTune,
}

impl Section {
    fn of(name: &str) -> Option<Self> {
        match name {
            "devices" => Some(Self::Devices),
            "os" => Some(Self::Os),
            "cputune" => Some(Self::CpuTune),
            _ => None,
        }
    }

    /// Whether an element of this name in the section is read.
    fn has(self, name: &str) -> bool {
        match self {
            Self::Devices => matches!(name, "interface" | "disk" | "memballoon"),
            Self::Os => name == "nvram" || name == "loader",
            Self::CpuTune => name == "quota" || name == "global_quota",
        }
    }
}

/// The device whose element is open.
enum OpenDevice {
    Nic {
        target: Option<SmolStr>,
        mac: Option<SmolStr>,
        kind: SmolStr,
        is_host_device: bool,
    },
    Disk {
        target: Option<SmolStr>,
        alias: Option<SmolStr>,
        kind: DiskKind,
        sources: Vec<String>,
        counted: bool,
    },
    /// `<loader>` or `<nvram>`, and the text in it.
    Firmware(String),
    /// `<memballoon>`
    Balloon,
    /// `<quota>`, or if `global` `<global_quota>`, and the text in it.
    Quota { global: bool, text: String },
}

impl<'w> Parser<'w> {
    pub(super) fn new(wanted: &'w [WantedValue], info: bool) -> Self {
        Self {
            values: Values::of(wanted),
            info: info.then(InfoReader::default),
            ..Self::default()
        }
    }

    pub(super) fn enter(
        &mut self,
        element: &BytesStart,
        resolver: &NamespaceResolver,
    ) -> Result<(), String> {
        let name = element.name().into_inner();
        let may_match = self.matched == self.depth
            && match self.depth {
                0 => name == "domain",
                1 => Section::of(name).is_some(),
                2 => self.section.has(name),
                3 => {
                    matches!(name, "target" | "alias" | "mac" | "stats")
                        && self.section == Section::Devices
                }
                _ => false,
            };
        // Resolving looks at each namespace in scope, so it is done only if the name fits.
        let on_path =
            may_match && resolver.resolve_element(element.name()).0 == ResolveResult::Unbound;
        if self.depth == 0 {
            if self.root_seen {
                return Err(format!("there is a second root element, <{name}>"));
            }
            if !on_path {
                return Err(format!(
                    "the root element is <{name}>, not a <domain> without a namespace"
                ));
            }
            self.root_seen = true;
        } else {
            self.values.enter(self.depth - 1, element, resolver)?;
            if let Some(info) = &mut self.info {
                info.enter(self.depth - 1, element, resolver)?;
            }
        }
        if self.depth == 2 {
            self.description.unresolved |= source::is_block_argument(element)?;
        }
        if matches!(
            self.device,
            Some(OpenDevice::Disk { .. } | OpenDevice::Firmware(_))
        ) && source::NAMES.contains(&name)
            && resolver.resolve_element(element.name()).0 == ResolveResult::Unbound
        {
            self.source(element)?;
        }
        self.depth += 1;
        if on_path {
            self.matched = self.depth;
            match self.depth {
                2 => self.section = Section::of(name).unwrap_or_default(),
                3 => {
                    self.device = OpenDevice::open(element)?;
                    if matches!(
                        self.device,
                        Some(OpenDevice::Disk { .. } | OpenDevice::Firmware(_))
                    ) {
                        self.description.unresolved |= !source::type_is_known(element)?;
                    }
                }
                4 if name == "alias" => self.alias(attribute(element, "name")?),
                4 if name == "mac" => self.mac(attribute(element, "address")?),
                4 if name == "stats" => self.stats(attribute(element, "period")?),
                4 => self.target(attribute(element, "dev")?),
                _ => {}
            }
        }
        Ok(())
    }

    fn alias(&mut self, name: Option<String>) {
        let name = name.map(SmolStr::from);
        match &mut self.device {
            Some(OpenDevice::Nic { is_host_device, .. }) => {
                *is_host_device |= name.as_ref().is_some_and(|it| it.starts_with("hostdev"));
                self.description.nic_aliases.extend(name);
            }
            Some(OpenDevice::Disk { alias, .. }) => {
                alias.clone_from(&name);
                self.description.disk_aliases.extend(name);
            }
            Some(OpenDevice::Firmware(_) | OpenDevice::Balloon | OpenDevice::Quota { .. })
            | None => {}
        }
    }

    fn mac(&mut self, address: Option<String>) {
        if let Some(OpenDevice::Nic { mac, .. }) = &mut self.device {
            *mac = address.map(SmolStr::from);
        }
    }

    /// Handles a `<source>` at any depth of a disk or of the firmware, or the element that it is in.
    fn source(&mut self, element: &BytesStart) -> Result<(), String> {
        if element.name().into_inner() != "source" {
            self.description.unresolved |= !source::type_is_known(element)?;
            return Ok(());
        }
        let files = match &mut self.device {
            Some(OpenDevice::Disk { sources, .. }) => sources,
            _ => &mut self.description.firmware,
        };
        match source::read(element, files)? {
            SourceKind::Known => {}
            SourceKind::Volume(number) => self.description.volumes.push(number),
            SourceKind::Server => self.description.waits_for_server = true,
            SourceKind::Unknown => self.description.unresolved = true,
        }
        Ok(())
    }

    fn target(&mut self, dev: Option<String>) {
        if let Some(OpenDevice::Nic { target, .. } | OpenDevice::Disk { target, .. }) =
            &mut self.device
            && target.is_none()
        {
            *target = dev.filter(|name| !name.is_empty()).map(SmolStr::from);
        }
    }

    fn stats(&mut self, period: Option<String>) {
        if matches!(self.device, Some(OpenDevice::Balloon)) {
            let period = period.and_then(|period| period.parse().ok());
            self.description.stats_period = period.unwrap_or(0);
        }
    }

    /// Leaves an element. The XML library checks that each end has its start.
    pub(super) fn leave(&mut self) {
        self.depth = self.depth.saturating_sub(1);
        let depth = self.depth.saturating_sub(1);
        self.values.leave(depth);
        if let Some(info) = &mut self.info {
            info.leave(depth);
        }
        if self.matched <= self.depth {
            return;
        }
        self.matched = self.depth;
        // At this depth only the device's own element can have ended.
        if self.depth == 2 {
            match self.device.take() {
                Some(OpenDevice::Nic {
                    target,
                    mac,
                    kind,
                    is_host_device,
                }) => {
                    let mac = mac.filter(|_| is_host_device && target.is_none());
                    self.description.nics.push(Nic { target, mac, kind });
                }
                Some(OpenDevice::Disk {
                    target: Some(target),
                    alias,
                    kind,
                    sources,
                    counted,
                }) => self.description.disks.push(Disk {
                    target,
                    alias,
                    kind,
                    sources,
                    counted,
                }),
                Some(OpenDevice::Firmware(path)) if !path.is_empty() => {
                    self.description.firmware.push(path);
                }
                // A disk without a target is no disk here, but QEMU has its files open.
                Some(OpenDevice::Disk { sources, .. }) => self.description.firmware.extend(sources),
                Some(OpenDevice::Quota { global, text }) => self.quota(global, &text),
                Some(OpenDevice::Firmware(_) | OpenDevice::Balloon) | None => {}
            }
        }
    }

    /// libvirt has -1 for no limit, and leaves out a quota of 0 (virDomainCputuneDef).
    fn quota(&mut self, global: bool, text: &str) {
        let quota = &mut self.description.quota;
        let place = if global {
            &mut quota.vm
        } else {
            &mut quota.vcpus
        };
        *place |= text.trim().parse().is_ok_and(|quota: i64| quota > 0);
    }

    pub(super) fn text(&mut self, text: &str) -> Result<(), String> {
        if self.depth == 0 {
            return Err("there is text outside the root element".to_owned());
        }
        self.white_space(text);
        // The text directly in the element, not that of an element within it.
        if self.depth == 3
            && let Some(OpenDevice::Firmware(inner) | OpenDevice::Quota { text: inner, .. }) =
                &mut self.device
        {
            inner.push_str(text);
        }
        Ok(())
    }

    /// Handles white space between two elements, or in a text beside an entity.
    pub(super) fn white_space(&mut self, text: &str) {
        let depth = self.depth.saturating_sub(1);
        self.values.text(depth, text);
        if let Some(info) = &mut self.info {
            info.text(depth, text);
        }
    }

    /// Handles an entity that cannot be resolved; libvirt's XML has none.
    pub(super) fn unreadable_text(&mut self) -> Result<(), String> {
        self.description.unresolved |= matches!(self.device, Some(OpenDevice::Firmware(_)));
        self.text("")
    }

    pub(super) fn finish(&mut self) -> Result<(), String> {
        if !self.root_seen {
            return Err("there is no element".to_owned());
        }
        if self.depth > 0 {
            return Err(format!("it ends with {} elements still open", self.depth));
        }
        self.description.tags = self.values.finish();
        let info = self.info.take();
        self.description.info = info.map(|info| Arc::new(info.finish()));
        self.finished = true;
        Ok(())
    }
}

impl OpenDevice {
    /// `None` for a loader that is no block node: QEMU read it when it started (`-bios`).
    fn open(element: &BytesStart) -> Result<Option<Self>, String> {
        let of_type = attribute(element, "type")?;
        let of_type = of_type.as_deref();
        match element.name().into_inner() {
            "interface" => {
                let kind = of_type.unwrap_or_default().into();
                return Ok(Some(Self::Nic {
                    target: None,
                    mac: None,
                    is_host_device: kind == "hostdev",
                    kind,
                }));
            }
            "memballoon" => return Ok(Some(Self::Balloon)),
            "loader" if of_type != Some("pflash") => return Ok(None),
            "loader" | "nvram" => return Ok(Some(Self::Firmware(String::new()))),
            name @ ("quota" | "global_quota") => {
                return Ok(Some(Self::Quota {
                    global: name == "global_quota",
                    text: String::new(),
                }));
            }
            _ => {}
        }
        let kind = DiskKind::of(attribute(element, "device")?.as_deref());
        Ok(Some(Self::Disk {
            target: None,
            alias: None,
            kind,
            sources: Vec::new(),
            counted: of_type != Some("vhostuser"),
        }))
    }
}

/// The value of an attribute without a namespace, with entities resolved.
pub(super) fn attribute(element: &BytesStart, name: &str) -> Result<Option<String>, String> {
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
