//! The validated settings, which the rest of the program uses.

use std::time::Duration;

use log::LevelFilter;

use super::{NameFilter, Uri};
use crate::description::WantedValue;
use crate::device_filter::DeviceFilter;
use crate::libvirt::bulk::keys::KeyFilter;
use crate::line_protocol::Tags;
use crate::times::DEADLINE;

/// All settings. Each value is within its bounds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Settings {
    /// The libvirt to connect to.
    pub uri: Uri,
    /// The value of the tag `host` of all lines. `None`: they have no such tag.
    pub host: Option<String>,
    /// How long the cached XML of a VM is used where libvirt sends no events; 1 s to 30 days.
    pub device_cache_ttl: Duration,
    /// How long one gather may take; 100 ms to one hour.
    pub deadline: Duration,
    /// Threads that call libvirt, each on a connection of its own; 1 to 64.
    pub workers: usize,
    /// VMs per bulk call; 1 to 256. `None`: the size that suits the connection.
    pub chunk_size: Option<usize>,
    /// Calls that may be in libvirt at the same time, hanging ones included; 2 to 64.
    pub max_calls: usize,
    /// How disks are read.
    pub block_statistics: BlockStatistics,
    /// From which age of the guest's last memory report its figures are left out; 1 s to 30 days.
    pub guest_memory_max_age: Duration,
    /// Where the figures of each vCPU are had from.
    pub vcpu_delay: VcpuDelay,
    /// The level of the log where `RUST_LOG` is not set.
    pub log_level: LevelFilter,
    /// The VMs that are gathered, by name.
    pub domains: NameFilter,
    /// The network interfaces and disks that are written, by the name that libvirt uses (`vnet0`, `vda`).
    pub devices: NameFilter,
    /// Whether CD-ROM drives are written.
    pub cdrom: bool,
    /// Whether floppy drives are written.
    pub floppy: bool,
    /// Which measurements are written.
    pub measurements: Measurements,
    /// The most lines that a gather writes, if whole kinds of lines can be left out; 1 to 10 million. `None`: no limit.
    pub max_lines: Option<usize>,
    /// What timestamps are truncated to.
    pub timestamp_precision: Precision,
    /// How often all lines of `vm_info` are written; 1 s to 30 days.
    pub info_interval: Duration,
    /// The keys of libvirt's statistics that `vm_stats` has.
    pub statistics: KeyFilter,
    /// Whether shut-off VMs have lines of `vm_metrics`.
    pub inactive: bool,
    /// How often `vm_pools` is written; 1 s to 30 days.
    pub pool_interval: Duration,
    /// The values of a VM's XML that all its lines carry as tags.
    pub tags: Vec<WantedValue>,
}

/// Which measurements are written; at least one is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Measurements {
    /// `vm_metrics`.
    pub metrics: bool,
    /// `vm_features`.
    pub features: bool,
    /// `vm_devices`.
    pub devices: bool,
    /// `vm_totals`.
    pub totals: bool,
    /// `vm_collector`.
    pub collector: bool,
    /// `vm_info`; off by default.
    pub info: bool,
    /// `vm_vcpus`; off by default.
    pub vcpus: bool,
    /// `vm_pressure`; off by default.
    pub pressure: bool,
    /// `vm_stats`; off by default, on where [`Settings::statistics`] names keys.
    pub stats: bool,
    /// `vm_jobs`; off by default.
    pub jobs: bool,
    /// `vm_pools`; off by default.
    pub pools: bool,
    /// `vm_host`; off by default.
    pub host: bool,
}

impl Measurements {
    /// None of them.
    pub const NONE: Self = Self {
        metrics: false,
        features: false,
        devices: false,
        totals: false,
        collector: false,
        info: false,
        vcpus: false,
        pressure: false,
        stats: false,
        jobs: false,
        pools: false,
        host: false,
    };

    /// Whether a measurement has figures of vCPUs.
    pub fn any_of_vcpus(&self) -> bool {
        self.features || self.has_totals() || self.vcpus
    }

    /// Whether a measurement has the sums over the devices of a VM: `vm_host` adds those of all VMs up.
    pub fn has_totals(&self) -> bool {
        self.totals || self.host
    }

    /// Whether a measurement has lines of VMs whatever happens to them: `vm_jobs` has lines only of those with a job.
    pub fn any_of_vms(&self) -> bool {
        let on_request = self.info || self.vcpus || self.pressure || self.stats;
        self.metrics || self.features || self.devices || self.totals || on_request
    }
}

/// How disks are read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BlockStatistics {
    /// `"auto"`: in bulk, but one by one if the mount of a disk is dead or unknown.
    Auto,
    /// `"bulk"`: always in bulk.
    Bulk,
    /// `"per-disk"`: always one by one.
    PerDisk,
}

/// Where the CPU time and the waiting time of each vCPU are had from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VcpuDelay {
    /// `"auto"`: from this host's proc file system.
    Auto,
    /// `"libvirt"`: from libvirt's vcpu group where proc does not show a VM's vCPU threads.
    Libvirt,
    /// `"off"`: they are not written.
    Off,
}

/// What timestamps are truncated to, from coarse to fine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Precision {
    /// `"1s"`: the precision of Telegraf's own inputs.
    Second,
    /// `"1ms"`.
    Millisecond,
    /// `"1us"`.
    Microsecond,
    /// `"1ns"`: truncated to an even number.
    Nanosecond,
}

impl Default for Settings {
    fn default() -> Self {
        Self {
            uri: Uri::default(),
            host: None,
            device_cache_ttl: Duration::from_secs(300),
            deadline: DEADLINE,
            workers: 4,
            chunk_size: None,
            max_calls: 8,
            block_statistics: BlockStatistics::Auto,
            guest_memory_max_age: Duration::from_secs(300),
            vcpu_delay: VcpuDelay::Auto,
            log_level: LevelFilter::Info,
            domains: NameFilter::default(),
            devices: NameFilter::default(),
            cdrom: false,
            floppy: false,
            measurements: Measurements {
                metrics: true,
                features: true,
                devices: true,
                totals: true,
                collector: true,
                ..Measurements::NONE
            },
            max_lines: None,
            timestamp_precision: Precision::Second,
            info_interval: Duration::from_secs(300),
            statistics: KeyFilter::default(),
            inactive: false,
            pool_interval: Duration::from_secs(60),
            tags: Vec::new(),
        }
    }
}

impl Settings {
    /// Whether a change of a VM's metadata matters.
    pub fn needs_metadata(&self) -> bool {
        self.measurements.info || !self.tags.is_empty()
    }

    /// The tags that all lines have.
    pub fn tags_of_all_lines(&self) -> Tags {
        let host = self.host.iter();
        host.fold(Tags::new(), |tags, host| tags.with("host", host))
    }

    /// Whether libvirt is asked for shut-off VMs: for their lines, or for their number in `vm_host`.
    pub fn needs_inactive(&self) -> bool {
        self.inactive && (self.measurements.metrics || self.measurements.host)
    }

    /// The devices that are written.
    pub fn device_filter(&self) -> DeviceFilter {
        DeviceFilter {
            names: self.devices.clone(),
            cdrom: self.cdrom,
            floppy: self.floppy,
        }
    }
}
