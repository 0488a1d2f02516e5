//! The facts of a check as plain data: the document of `--check --json`. Its keys are part of the interface.

mod of_check;

use serde::Serialize;

use crate::measurements::line_cap::Capped;

/// All that a check has found out. Numbers without a unit in their name are counts.
#[derive(Debug, Clone, Serialize)]
pub struct Facts {
    /// The name of the hypervisor, where the configuration has tables `[[host]]`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
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
    /// Shut-off VMs and storage pools.
    pub inventory: Option<Inventory>,
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

/// The VMs. `complete`, `partial` and `withheld` make up `wanted`, as in vm_collector.
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
    /// VMs that run, without those whose QEMU does not answer.
    pub running: usize,
    /// Those whose figures came in part: the VMs of the next three.
    pub partial: usize,
    /// VMs whose QEMU does not answer.
    pub not_answering: Vec<String>,
    /// VMs of which only state and network came, because libvirtd had no free worker, or because of `max_calls`.
    pub state_and_network_only: Vec<String>,
    /// VMs of which all came but the figures of their disks.
    pub without_disks: Vec<String>,
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
    /// VMs that run and whose guest does not report its memory, or has not for as long as `guest_memory_max_age` says.
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

/// What is asked beside the VMs that run, where the configuration has it.
#[derive(Debug, Clone, Serialize)]
pub struct Inventory {
    /// Whether shut-off VMs are asked for (`inactive`).
    pub inactive_wanted: bool,
    /// Those that pass `domain_include` and `domain_exclude`; `None` if no reply came.
    pub inactive: Option<usize>,
    /// Whether `vm_pools` is configured.
    pub pools_wanted: bool,
    /// The storage pools; `None` if no reply came.
    pub pools: Option<Vec<String>>,
    /// The pools that do not answer.
    pub pools_not_answering: Vec<String>,
    /// What libvirt refused.
    pub problems: Vec<String>,
}

/// What a gather writes in which the lines of all measurements are due, and Telegraf's settings to match.
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
    /// What came of the key `statistics`; `None` without that key.
    pub statistics: Option<Statistics>,
    /// What `max_lines` leaves out of such a gather; `None` without that key. The numbers above are without it.
    pub limit: Option<Capped>,
}

/// What came of the keys of libvirt's statistics that the configuration names.
#[derive(Debug, Clone, Serialize)]
pub struct Statistics {
    /// The patterns.
    pub patterns: Vec<String>,
    /// Those that no key of any VM matches.
    pub without_key: Vec<String>,
    /// Lines of vm_stats.
    pub lines: usize,
    /// VMs that did not answer in time for the groups that need calls of their own, though for all else.
    pub unanswered: Vec<String>,
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
