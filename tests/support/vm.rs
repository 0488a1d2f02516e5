//! VMs of a lab: QEMU under TCG, with or without the Linux guest.

use super::lab::Lab;
use super::{cached, succeed, wait_for};
use std::fmt::Write as _;
use std::fs::File;
use std::io::Write as _;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::time::{Duration, Instant};

/// The description of a VM to start. The default: 16 MiB, 1 vCPU, running, transient, no disk, no NIC, a
/// balloon, no system to boot.
#[derive(Debug, Clone)]
pub struct VmSpec {
    /// The name, which follows the lab's prefix and a hyphen: any characters that libvirt allows.
    pub name: String,
    /// Memory in MiB; the Linux guest needs 96.
    pub memory_mib: u64,
    /// vCPUs online at the start.
    pub vcpus: u32,
    /// vCPUs that can be online.
    pub max_vcpus: u32,
    /// Disks, as empty sparse raw images in the lab's folder.
    pub disks: Vec<Disk>,
    /// Network interfaces.
    pub nics: Vec<Nic>,
    /// A CD-ROM drive without a medium (`hdc`).
    pub cdrom: bool,
    /// A floppy drive with a medium (`fda`).
    pub floppy: bool,
    /// A virtio balloon.
    pub balloon: bool,
    /// The balloon's statistics period in seconds.
    pub stats_period: Option<u32>,
    /// Boot the Linux guest (see [`Vm::guest`]).
    pub guest: bool,
    /// The VM is created paused: it uses no CPU.
    pub paused: bool,
    /// The VM is defined, then started: when it ends, it stays as an inactive VM.
    pub persistent: bool,
    /// Further XML, directly below `<domain>`: `<title>`, `<metadata>`.
    pub extra: String,
    /// Further XML, inside `<os>`: the firmware.
    pub os: String,
    /// Further XML, inside `<devices>`.
    pub devices: String,
}

/// A disk: its target determines the bus (`vda` virtio, `sda` SATA, `hda` IDE).
#[derive(Debug, Clone)]
pub struct Disk {
    /// Target name.
    pub target: String,
    /// Size.
    pub mib: u64,
}

/// A network interface.
#[derive(Debug, Clone)]
pub enum Nic {
    /// A tap on the lab's bridge, with the name that libvirt gives it (`vnet0`).
    Tap,
    /// A tap of this name: at most 15 bytes.
    Named(String),
    /// A NIC in user mode: it has no name on the host, and no counters.
    User,
}

impl Default for VmSpec {
    fn default() -> Self {
        VmSpec {
            name: "vm".to_owned(),
            memory_mib: 16,
            vcpus: 1,
            max_vcpus: 1,
            disks: Vec::new(),
            nics: Vec::new(),
            cdrom: false,
            floppy: false,
            balloon: true,
            stats_period: None,
            guest: false,
            paused: false,
            persistent: false,
            extra: String::new(),
            os: String::new(),
            devices: String::new(),
        }
    }
}

/// Disks of 8 MiB with these targets.
pub fn disks(targets: &[&str]) -> Vec<Disk> {
    let disk = |target: &&str| Disk {
        target: (*target).to_owned(),
        mib: 8,
    };
    targets.iter().map(disk).collect()
}

/// A VM that was started. When the handle is dropped, the VM runs on: it ends with its lab, or by
/// [`Vm::destroy`].
pub struct Vm<'lab> {
    lab: &'lab Lab,
    name: String,
    uuid: String,
    files: PathBuf,
    console: Mutex<Option<UnixStream>>,
    commands: Mutex<u32>,
}

impl<'lab> Vm<'lab> {
    pub(super) fn create(lab: &'lab Lab, spec: &VmSpec, number: u32) -> Vm<'lab> {
        let name = format!("{}-{}", lab.prefix(), spec.name);
        let files = lab.dir().join(format!("vm{number}"));
        let uuid = std::fs::read_to_string("/proc/sys/kernel/random/uuid").unwrap();
        let uuid = uuid.trim().to_owned();
        let xml = xml(&name, &uuid, spec, &files);
        let file = files.with_extension("xml");
        std::fs::write(&file, xml).unwrap();
        let file = file.to_str().unwrap();
        let paused: &[&str] = if spec.paused { &["--paused"] } else { &[] };
        if spec.persistent {
            lab.virsh(&["define", file]);
            lab.virsh(&[&["start", "--domain", &name], paused].concat());
        } else {
            lab.virsh(&[&["create", file], paused].concat());
        }
        Vm {
            lab,
            name,
            uuid,
            files,
            console: Mutex::new(None),
            commands: Mutex::new(0),
        }
    }

    /// The name in libvirt at its creation, including the prefix.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The uuid.
    pub fn uuid(&self) -> &str {
        &self.uuid
    }

    /// The image of the disk with this target.
    pub fn image(&self, target: &str) -> PathBuf {
        suffixed(&self.files, &format!("-{target}.img"))
    }

    /// The process id of the VM's QEMU, as the lab numbers it.
    pub fn qemu_pid(&self) -> u32 {
        let processes = std::fs::read_dir(self.lab.inside("/proc")).unwrap();
        processes
            .flatten()
            .filter_map(|entry| {
                let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
                let line = std::fs::read(entry.path().join("cmdline")).ok()?;
                let mut words = line.split(|byte| *byte == 0);
                words.find(|word| *word == b"-uuid")?;
                (words.next()? == self.uuid.as_bytes()).then_some(pid)
            })
            .next()
            .unwrap_or_else(|| panic!("{} has no QEMU process", self.name))
    }

    /// Sends the VM's QEMU a signal by name.
    pub fn signal(&self, signal: &str) {
        let pid = self.qemu_pid().to_string();
        succeed(self.lab.command("kill").args(["-s", signal, &pid]));
    }

    /// Stops the VM's QEMU, as a kernel in trouble would: no part of it answers any more.
    pub fn freeze(&self) {
        self.signal("STOP");
    }

    /// Lets a frozen QEMU go on.
    pub fn thaw(&self) {
        self.signal("CONT");
    }

    /// Destroys the VM at once.
    pub fn destroy(&self) {
        self.lab.virsh(&["destroy", "--domain", &self.uuid]);
    }

    /// The output of the serial console so far.
    pub fn console(&self) -> String {
        let bytes = std::fs::read(suffixed(&self.files, "-console.log")).unwrap_or_default();
        String::from_utf8_lossy(&bytes).into_owned()
    }

    /// Waits until the console's output contains `text`.
    pub fn wait_for_console(&self, text: &str, limit: Duration) {
        wait_for(&format!("{text:?} on the console"), limit, || {
            self.console().contains(text).then_some(())
        });
    }

    /// Sends the guest a shell command (after its boot) without waiting for the result, as the command may
    /// end the VM. Returns the text that the console shows after the command, and the length of the console's
    /// output before it.
    pub fn begin(&self, command: &str) -> (String, usize) {
        self.wait_for_console("guest: ready", Duration::from_secs(120));
        let mut number = self.commands.lock().unwrap();
        *number += 1;
        let token = format!("command-{number}");
        let before = self.console().len();
        let mut console = self.console.lock().unwrap();
        let stream = console.get_or_insert_with(|| {
            let stream = UnixStream::connect(suffixed(&self.files, "-console")).unwrap();
            // When its output is not read, a few hundred bytes in small writes fill the socket, and the guest
            // stops.
            let mut reader = stream.try_clone().unwrap();
            std::thread::spawn(move || std::io::copy(&mut reader, &mut std::io::sink()));
            stream
        });
        stream
            .write_all(format!("{token} {command}\n").as_bytes())
            .unwrap();
        (token, before)
    }

    /// Runs a shell command in the Linux guest (after its boot) and returns its output with stderr; panics
    /// unless it succeeds within 2 minutes. Busybox: dd, ip, ping and the like.
    pub fn guest(&self, command: &str) -> String {
        let limit = Duration::from_secs(120);
        let (token, before) = self.begin(command);
        let marker = format!("guest: {token} ");
        let start = Instant::now();
        let (output, status) = loop {
            let said = self.console()[before..].replace('\r', "");
            if let Some((output, rest)) = said.split_once(&marker)
                && let Some((status, _)) = rest.split_once('\n')
            {
                break (output.to_owned(), status.to_owned());
            }
            assert!(
                start.elapsed() < limit,
                "in the guest, {command} has no end; so far:\n{said}"
            );
            std::thread::sleep(Duration::from_millis(20));
        };
        assert_eq!(status, "0", "in the guest, {command}:\n{output}");
        output
    }
}

fn suffixed(path: &Path, suffix: &str) -> PathBuf {
    let mut path = path.as_os_str().to_owned();
    path.push(suffix);
    path.into()
}

/// Escapes text and attribute values for XML.
pub fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
        .replace('\'', "&apos;")
}

fn xml(name: &str, uuid: &str, spec: &VmSpec, files: &Path) -> String {
    let mut devices = spec.devices.clone();
    for disk in &spec.disks {
        let image = suffixed(files, &format!("-{}.img", disk.target));
        File::create(&image)
            .and_then(|file| file.set_len(disk.mib << 20))
            .unwrap();
        devices += &disk_xml("disk", &disk.target, Some(&image));
    }
    if spec.cdrom {
        devices += &disk_xml("cdrom", "hdc", None);
    }
    if spec.floppy {
        let image = suffixed(files, "-fda.img");
        File::create(&image)
            .and_then(|file| file.set_len(1_474_560))
            .unwrap();
        devices += &disk_xml("floppy", "fda", Some(&image));
    }
    for nic in &spec.nics {
        devices += &nic_xml(nic);
    }
    devices += match (spec.balloon, spec.stats_period) {
        (false, _) => "<memballoon model='none'/>".to_owned(),
        (true, None) => "<memballoon model='virtio'/>".to_owned(),
        (true, Some(period)) => {
            format!("<memballoon model='virtio'><stats period='{period}'/></memballoon>")
        }
    }
    .as_str();
    let mut boot = spec.os.clone();
    if spec.guest {
        let (kernel, initrd) = (cached("guest/vmlinuz"), cached("guest/initrd"));
        // The journal goes to the console, and IPv6 is off, as it would send packets by itself.
        let _ = write!(
            boot,
            "<kernel>{}</kernel><initrd>{}</initrd>\
             <cmdline>console=ttyS0 quiet ipv6.disable=1 panic=0</cmdline>",
            escape(kernel.to_str().unwrap()),
            escape(initrd.to_str().unwrap())
        );
        let console = suffixed(files, "-console");
        let console = escape(console.to_str().unwrap());
        let _ = write!(
            devices,
            "<serial type='unix'><source mode='bind' path='{console}'/>\
             <log file='{console}.log' append='off'/></serial>"
        );
    }
    format!(
        "<domain type='qemu'><name>{}</name><uuid>{uuid}</uuid><memory unit='MiB'>{}</memory>\
         <vcpu current='{}'>{}</vcpu>{}\
         <os><type arch='x86_64' machine='pc'>hvm</type>{boot}</os><features><acpi/></features>\
         <devices><controller type='usb' model='none'/>{devices}</devices></domain>",
        escape(name),
        spec.memory_mib,
        spec.vcpus,
        spec.max_vcpus,
        spec.extra,
    )
}

/// A `<disk>`; without an image it is a drive without a medium.
pub fn disk_xml(device: &str, target: &str, image: Option<&Path>) -> String {
    let bus = match target.get(..2) {
        Some("vd") => "virtio",
        Some("hd") => "ide",
        Some("fd") => "fdc",
        _ => "sata",
    };
    let source = image.map_or_else(String::new, |image| {
        format!("<source file='{}'/>", escape(image.to_str().unwrap()))
    });
    format!(
        "<disk type='file' device='{device}'><driver name='qemu' type='raw'/>{source}\
         <target dev='{}' bus='{bus}'/></disk>",
        escape(target)
    )
}

/// An `<interface>` on the lab's bridge, or in user mode.
pub fn nic_xml(nic: &Nic) -> String {
    let target = match nic {
        Nic::User => {
            return "<interface type='user'><model type='virtio'/></interface>".to_owned();
        }
        Nic::Tap => String::new(),
        Nic::Named(name) => format!("<target dev='{}'/>", escape(name)),
    };
    format!(
        "<interface type='bridge'><source bridge='br0'/>{target}<model type='virtio'/></interface>"
    )
}
