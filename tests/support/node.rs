//! Nodes of libvirt's test driver, as files.

use super::vm::escape;
use std::fmt::Write as _;
use tempfile::NamedTempFile;

/// A domain of a node file.
#[derive(Debug, Clone)]
pub struct Domain {
    /// The name: anything but a slash or a newline.
    pub name: String,
    /// The domain's number n: its UUID is [`uuid`] of n.
    pub number: u32,
    /// vCPUs: online, and the maximum.
    pub vcpus: (u32, u32),
    /// Memory: current and maximum, KiB.
    pub memory: (u64, u64),
    /// `virDomainState`: 1 running, 3 paused, 5 shut off and so on.
    pub state: u32,
    /// `<disk>`, `<interface>` and the like, made by [`disk`] and [`nic`].
    pub devices: String,
}

impl Domain {
    /// A running domain of 1 vCPU and 1 MiB, without devices.
    pub fn new(number: u32, name: &str) -> Domain {
        Domain {
            name: name.to_owned(),
            number,
            vcpus: (1, 1),
            memory: (1024, 1024),
            state: 1,
            devices: String::new(),
        }
    }
}

/// The UUID of a node file's domain.
pub fn uuid(number: u32) -> String {
    format!("11111111-0000-4000-8000-{number:012}")
}

/// The UUIDs of the domains that are not shut off.
pub fn active(domains: &[Domain]) -> Vec<String> {
    let active = domains.iter().filter(|domain| domain.state != 5);
    active.map(|domain| uuid(domain.number)).collect()
}

/// A `<disk>` of that kind (disk, cdrom, floppy, lun); the target's name determines its bus.
pub fn disk(kind: &str, target: &str) -> String {
    let bus = match target.get(..2) {
        Some("vd") => "virtio",
        Some("hd") => "ide",
        Some("fd") => "fdc",
        _ => "scsi",
    };
    let (of, source) = match kind {
        "lun" => ("block", "<source dev='/dev/lun'/>".to_owned()),
        "cdrom" => ("file", String::new()),
        _ => ("file", format!("<source file='/images/{target}'/>")),
    };
    format!("<disk type='{of}' device='{kind}'>{source}<target dev='{target}' bus='{bus}'/></disk>")
}

/// An `<interface>`. Without a target the driver makes one up. The driver drops a target that begins with
/// `vnet`, so do not use one.
pub fn nic(target: Option<&str>) -> String {
    let target = target.map_or_else(String::new, |t| format!("<target dev='{}'/>", escape(t)));
    format!("<interface type='bridge'><source bridge='br0'/>{target}</interface>")
}

/// A node file, which is deleted when the handle is dropped.
pub fn write(domains: &[Domain]) -> NamedTempFile {
    let mut xml = String::from("<node>\n");
    for domain in domains {
        let (online, most) = domain.vcpus;
        let (now, maximum) = domain.memory;
        let _ = writeln!(
            xml,
            "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
             <name>{}</name><uuid>{}</uuid><memory>{maximum}</memory>\
             <currentMemory>{now}</currentMemory><vcpu current='{online}'>{most}</vcpu>\
             <os><type>hvm</type></os><devices>{}</devices>\
             <test:runstate>{}</test:runstate></domain>",
            escape(&domain.name),
            uuid(domain.number),
            domain.devices,
            domain.state
        );
    }
    xml.push_str("</node>\n");
    let file = NamedTempFile::with_suffix(".xml").unwrap();
    std::fs::write(file.path(), xml).unwrap();
    file
}

/// `test:///FILE`
pub fn uri(file: &NamedTempFile) -> String {
    format!("test://{}", file.path().to_str().unwrap())
}

const ODD: &str = r#"odd, name=x "q" \b é\"#;

/// Domains as different as the driver allows, in every state, with awkward names. The last one is shut off.
pub fn wide() -> Vec<Domain> {
    let devices = [
        disk("disk", "vda"),
        disk("disk", "sdb"),
        disk("cdrom", "hdc"),
        disk("floppy", "fda"),
        disk("lun", "sdl"),
        nic(Some("tapa")),
        nic(Some(r#"tap,odd=1 "q" é"#)),
        nic(None),
        "<memballoon model='virtio'/>".to_owned(),
    ];
    let mut domains = vec![
        Domain {
            vcpus: (3, 5),
            memory: (3_145_728, 4_194_304),
            devices: devices.concat(),
            ..Domain::new(1, "wide")
        },
        Domain {
            state: 3,
            memory: (2048, 8192),
            devices: disk("cdrom", "hda"),
            ..Domain::new(2, ODD)
        },
        Domain {
            vcpus: (2, 2),
            devices: nic(Some("tapb")),
            ..Domain::new(3, "tabs\tand blanks ")
        },
        Domain {
            devices: disk("disk", "vda"),
            ..Domain::new(4, "日本 = 語,\\")
        },
        Domain::new(8, "no devices"),
    ];
    for (number, state) in [(12, 2), (14, 4), (16, 6), (17, 7), (15, 5)] {
        domains.push(Domain {
            state,
            ..Domain::new(number, &format!("state {state}"))
        });
    }
    domains
}
