//! The facts of a check as plain data: the document of `--check --json`. Its keys are part of the interface.

use serde::Serialize;

use super::Examined;
use crate::config::{Loaded, Settings, VcpuDelay};
use crate::gather::protocol::DomainRef;
use crate::gather::{DeviceLeftOut, Problem, WhyLeftOut};
use crate::host::mounts::Health;
use crate::measurements::line_cap::Capped;
use crate::wording::dotted;

/// All that a check has found out. Numbers without a unit in their name are counts.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// This program's version.
    pub program_version: &'static str,
    /// Which configuration is used.
    pub configuration: String,
    /// The URI without passwords.
    pub uri: String,
    /// Where the URI was set.
    pub uri_origin: String,
    /// Whether libvirt answered. Without that there is nothing but `error`.
    pub connected: bool,
    /// Why it did not.
    pub error: Option<String>,
    /// What the connection leads to.
    pub libvirt: Option<Libvirt>,
    /// The VMs.
    pub vms: Option<Vms>,
    /// What is in sight on this host; `None` where the hypervisor is another host.
    pub host: Option<Host>,
    /// The storage of the disks.
    pub storage: Option<Storage>,
    /// What is written.
    pub output: Option<Output>,
    /// The gathers.
    pub gather: Option<Gather>,
}

/// What the connection leads to.
#[derive(Debug, Clone, Serialize)]
pub struct Libvirt {
    /// The daemon's version (`9.0.0`).
    pub daemon_version: Option<String>,
    /// The client library's version.
    pub client_version: Option<String>,
    /// The driver (`QEMU`).
    pub driver: Option<String>,
    /// The hypervisor's version.
    pub hypervisor_version: Option<String>,
    /// The socket of the daemon, where it is a local one.
    pub socket: Option<String>,
    /// Always true.
    pub read_only: bool,
    /// Whether the driver runs in this process, without a daemon.
    pub in_process: bool,
    /// Whether libvirt reports VMs and devices that come and go.
    pub events: bool,
    /// How many connections libvirtd lets in, if fewer than wanted.
    pub connections_limited_to: Option<usize>,
}

/// The VMs. `complete`, `not_answering` and `withheld` make up `wanted`.
#[derive(Debug, Clone, Serialize)]
pub struct Vms {
    /// Active VMs; `None` if no list came.
    pub active: Option<usize>,
    /// Those that do not pass `domain_include` and `domain_exclude`.
    pub filtered: Vec<String>,
    /// Those that pass, and were seen in the last gather.
    pub wanted: usize,
    /// Those whose figures came in full.
    pub complete: usize,
    /// VMs whose QEMU does not answer: their figures came in part.
    pub not_answering: Vec<String>,
    /// VMs of which nothing came in time.
    pub missing: Vec<String>,
    /// VMs that are locked inside libvirtd.
    pub locked: Vec<String>,
    /// VMs without any figure: missing, locked, or refused by libvirt.
    pub withheld: usize,
    /// What libvirt said of a VM, or refused.
    pub problems: Vec<String>,
    /// Whether guest memory is written at all.
    pub guest_memory_wanted: bool,
    /// VMs that run and whose guest does not report its memory, or has not for 2 minutes.
    pub without_guest_memory: Vec<String>,
    /// Devices without a line.
    pub devices_left_out: Vec<DeviceOut>,
}

/// A device without a line.
#[derive(Debug, Clone, Serialize)]
pub struct DeviceOut {
    /// The VM.
    pub vm: String,
    /// The device; a NIC without a name on the host has none.
    pub device: Option<String>,
    /// `no_host_name`, `filtered`, `cdrom`, `floppy` or `not_counted`.
    pub reason: &'static str,
}

/// What is in sight on this host.
#[derive(Debug, Clone, Serialize)]
pub struct Host {
    /// Whether /proc shows the processes of other users.
    pub proc_is_open: bool,
    /// VMs whose QEMU process is in sight.
    pub processes: usize,
    /// VMs whose control group is in sight.
    pub control_groups: usize,
    /// Whether a configured measurement has CPU time.
    pub cpu_time_wanted: bool,
    /// VMs whose vCPU threads are in sight.
    pub vms_with_vcpu_threads: usize,
    /// Those threads.
    pub vcpu_threads: usize,
    /// Whether a configured measurement has the times of vCPU threads, and `vcpu_delay` is not "off".
    pub vcpu_times_wanted: bool,
    /// Whether libvirt is asked for those of the other VMs (`vcpu_delay = "libvirt"`).
    pub vcpu_times_from_libvirt: bool,
    /// Whether `vm_pressure` is configured.
    pub pressure_wanted: bool,
    /// VMs whose pressure files are in sight.
    pub vms_with_pressure: usize,
    /// VMs whose CPU time is read on this host; libvirt is asked for that of the others.
    pub cpu_time_from_host: usize,
    /// Whether a configured measurement has network counters.
    pub network_wanted: bool,
    /// Network interfaces that have a name on the host.
    pub taps: usize,
    /// Those of them that are in sight.
    pub taps_in_sight: usize,
    /// VMs with such an interface.
    pub vms_with_taps: usize,
    /// Those whose network counters are read on this host.
    pub network_from_host: usize,
}

/// The storage of the disks.
#[derive(Debug, Clone, Serialize)]
pub struct Storage {
    /// The network mounts that carry files of VMs.
    pub network_mounts: Vec<MountOut>,
    /// VMs of which some file lies on unknown storage.
    pub unknown_storage: Vec<String>,
    /// VMs whose disks are left out because a mount is slow.
    pub slow_storage: Vec<String>,
    /// Whether disks on mounts that do not answer are left out, not read one by one.
    pub disks_left_out: bool,
}

/// A network mount.
#[derive(Debug, Clone, Serialize)]
pub struct MountOut {
    /// Where it is mounted.
    pub mount: String,
    /// `answers`, `late`, `dead` or `unknown`.
    pub state: &'static str,
    /// VMs with a file there, where it is dead.
    pub vms: Vec<String>,
}

/// What a gather writes, and Telegraf's settings to match.
#[derive(Debug, Clone, Serialize)]
pub struct Output {
    /// Lines, each a metric of Telegraf's.
    pub lines: usize,
    /// Fields.
    pub fields: usize,
    /// Series.
    pub series: usize,
    /// Size in bytes.
    pub size_bytes: usize,
    /// Telegraf's `metric_batch_size`: one gather in one batch.
    pub metric_batch_size: usize,
    /// Telegraf's `metric_buffer_limit`: 60 gathers.
    pub metric_buffer_limit: usize,
    /// What `max_lines` leaves out of a gather in which the lines of all measurements are due; `None` without that key.
    pub limit: Option<Capped>,
}

/// The gathers.
#[derive(Debug, Clone, Serialize)]
pub struct Gather {
    /// Time of the first gather, in which connections are opened and XML is read.
    pub first_ms: f64,
    /// Time of the last gather after it; `None` if the first was not done by the deadline.
    pub last_ms: Option<f64>,
    /// The key `deadline`.
    pub deadline_ms: f64,
    /// Calls that hang.
    pub hanging_calls: usize,
    /// Whether libvirtd has no free worker.
    pub saturated: bool,
    /// A thread or process that could not be started.
    pub not_started: Option<String>,
}

impl Facts {
    /// What is known before libvirt is asked.
    fn unconnected(loaded: &Loaded) -> Self {
        let uri = &loaded.settings.uri;
        Self {
            program_version: env!("CARGO_PKG_VERSION"),
            configuration: loaded.source.to_string(),
            uri: uri.masked().text,
            uri_origin: uri.origin.to_string(),
            connected: false,
            error: None,
            libvirt: None,
            vms: None,
            host: None,
            storage: None,
            output: None,
            gather: None,
        }
    }

    /// The facts where libvirt could not be reached.
    pub fn of_failure(loaded: &Loaded, error: &str) -> Self {
        Self {
            error: Some(loaded.settings.uri.masked().mask_in(error).into_owned()),
            ..Self::unconnected(loaded)
        }
    }

    /// The facts of these gathers.
    pub(crate) fn of(loaded: &Loaded, examined: &Examined) -> Self {
        let settings = &loaded.settings;
        Self {
            connected: true,
            libvirt: Some(libvirt(settings, examined)),
            vms: Some(vms(settings, examined)),
            host: host(settings, examined),
            storage: examined.host.is_some().then(|| storage(examined)),
            output: Some(output(examined)),
            gather: Some(gather(settings, examined)),
            ..Self::unconnected(loaded)
        }
    }
}

fn names(domains: &[DomainRef]) -> Vec<String> {
    let mut names: Vec<String> = domains.iter().map(|d| d.name.to_string()).collect();
    names.sort_unstable();
    names
}

fn libvirt(settings: &Settings, examined: &Examined) -> Libvirt {
    let versions = examined.versions.clone().unwrap_or_default();
    let report = &examined.last().report;
    let daemon = versions.libvirt.or(report.libvirt_version);
    // Sockets of the system's own services may be inherited.
    let is_libvirts = |path: &&String| {
        path.contains("virt") || settings.uri.value.contains(&format!("socket={path}"))
    };
    Libvirt {
        daemon_version: daemon.map(dotted),
        client_version: versions.client.map(dotted),
        driver: versions.driver,
        hypervisor_version: versions.hypervisor.map(dotted),
        socket: examined.sockets.iter().find(is_libvirts).cloned(),
        read_only: true,
        in_process: settings.uri.in_process(),
        events: examined.events,
        connections_limited_to: report.limited_to,
    }
}

fn vms(settings: &Settings, examined: &Examined) -> Vms {
    let report = &examined.last().report;
    let problems = report.problems.iter().map(|problem| match problem {
        Problem::Unreachable(error) => format!("a connection could not be opened: {error}"),
        Problem::Refused(error) => format!("libvirt refused a call: {error}"),
        Problem::Domain(domain, text) | Problem::Description(domain, text) => {
            format!("VM {}: {text}", domain.name)
        }
    });
    Vms {
        active: report.active.as_ref().map(|active| active.len()),
        filtered: names(&report.filtered),
        wanted: report.seen,
        complete: report.complete,
        not_answering: names(&report.partial),
        missing: names(&report.missing),
        locked: names(&report.locked),
        withheld: report.withheld,
        problems: problems.collect(),
        guest_memory_wanted: settings.measurements.totals,
        without_guest_memory: names(&examined.without_guest_memory),
        devices_left_out: examined.left_out.iter().map(device).collect(),
    }
}

fn device(left_out: &DeviceLeftOut) -> DeviceOut {
    DeviceOut {
        vm: left_out.vm.to_string(),
        device: left_out.device.as_ref().map(ToString::to_string),
        reason: match left_out.why {
            WhyLeftOut::NoHostName => "no_host_name",
            WhyLeftOut::Filtered => "filtered",
            WhyLeftOut::Cdrom => "cdrom",
            WhyLeftOut::Floppy => "floppy",
            WhyLeftOut::NotCounted => "not_counted",
        },
    }
}

fn host(settings: &Settings, examined: &Examined) -> Option<Host> {
    let host = examined.host.as_ref()?;
    let wanted = &settings.measurements;
    let counts = host.counts;
    Some(Host {
        proc_is_open: examined.proc_is_open,
        processes: host.processes,
        control_groups: counts.control_groups,
        vms_with_vcpu_threads: counts.vms_with_vcpu_threads,
        vcpu_threads: counts.vcpu_threads,
        vcpu_times_wanted: host.reads_vcpus,
        vcpu_times_from_libvirt: settings.vcpu_delay == VcpuDelay::Libvirt,
        pressure_wanted: wanted.pressure,
        vms_with_pressure: counts.vms_with_pressure,
        cpu_time_wanted: wanted.metrics || wanted.features || wanted.totals,
        cpu_time_from_host: counts.cpu_from_host,
        network_wanted: wanted.features || wanted.devices || wanted.totals,
        taps: counts.taps,
        taps_in_sight: counts.taps_in_sight,
        vms_with_taps: counts.vms_with_taps,
        network_from_host: counts.net_from_host,
    })
}

fn storage(examined: &Examined) -> Storage {
    let report = &examined.last().report;
    let mounts = examined.host.iter().flat_map(|host| &host.mounts);
    let network_mounts = mounts.map(|(point, health)| MountOut {
        mount: point.display().to_string(),
        state: match health {
            Health::Alive => "answers",
            Health::Late => "late",
            Health::Dead => "dead",
            Health::Unknown => "unknown",
        },
        vms: report.dead.get(point).map_or(Vec::new(), |vms| names(vms)),
    });
    Storage {
        network_mounts: network_mounts.collect(),
        unknown_storage: names(&report.unknown_storage),
        slow_storage: names(&report.slow_storage),
        disks_left_out: report.disks_left_out,
    }
}

/// Telegraf's defaults are a batch of 1,000 and a buffer of 10,000. A batch that holds one gather, and a buffer of 60
/// gathers (10 minutes at an interval of 10 s), as docs/performance.md has them.
fn output(examined: &Examined) -> Output {
    let written = examined.written;
    let round_up = |number: usize, step: usize| number.div_ceil(step) * step;
    Output {
        lines: written.lines,
        fields: written.fields,
        series: written.series,
        size_bytes: written.bytes,
        metric_batch_size: round_up(written.lines, 100).max(1_000),
        metric_buffer_limit: round_up(written.lines * 60, 1_000).max(10_000),
        limit: examined.capped.clone(),
    }
}

fn gather(settings: &Settings, examined: &Examined) -> Gather {
    let ms = |time: std::time::Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    let report = &examined.last().report;
    Gather {
        first_ms: ms(examined.first.took),
        last_ms: examined.last.as_ref().map(|last| ms(last.took)),
        deadline_ms: ms(settings.deadline),
        hanging_calls: report.hanging,
        saturated: report.saturated.is_some() || report.calls_used_up,
        not_started: report.not_started.clone(),
    }
}
