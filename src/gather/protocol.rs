//! What passes between the scheduler, the gatherer and the workers: requests, and what comes back.

mod request;

use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::description::WantedValue;
use crate::device_filter::DeviceFilter;
use crate::libvirt::bulk::Groups;
use crate::libvirt::bulk::keys::KeyFilter;
use crate::sample::{DISK_COUNTERS, Devices, JobStats, RunId, Sample, Stats};
use crate::vms::{CachedDescription, Processor};

pub use crate::libvirt::Monitor;
pub use crate::vms::{DomainRef, Target};
pub use request::{CallId, Request, RequestKind, Risk, Scope};

/// What every worker needs to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// The libvirt URI to connect to.
    pub uri: String,
    /// The groups of statistics that the wanted measurements need.
    pub groups: Groups,
    /// The keys of statistics that are wanted under libvirt's own names.
    pub statistics: Arc<KeyFilter>,
    /// The groups of which only such keys are wanted: a call of its own asks for them.
    pub extra_groups: Groups,
    /// Whether jobs are wanted while they run.
    pub jobs: bool,
    /// Whether a field needs `virDomainGetInfo`.
    pub domain_info: bool,
    /// From which age of the guest's last memory report its figures are left out.
    pub guest_memory_max_age: Duration,
    /// The devices that are wanted.
    pub devices: DeviceFilter,
    /// The values that are wanted as tags.
    pub tags: Vec<WantedValue>,
    /// Whether `vm_info` is wanted.
    pub vm_info: bool,
    /// Whether the XML of each VM is needed: for its devices, its tags or `vm_info`.
    pub describes: bool,
}

impl Target {
    /// Those of `groups` that were not read on this host, and may have changed: libvirt has to be asked for them.
    pub fn unread(&self, groups: Groups) -> Groups {
        let mut unread = groups;
        if self.nics.is_some() {
            unread = unread.without(Groups::NET);
        }
        if self.processor.is_some() {
            unread = unread.without(Groups::CPU);
        }
        // Where memory is all that is asked of QEMU, its answer shows that QEMU answers.
        if self.memory.is_some() && groups.has(Groups::BLOCK) {
            unread = unread.without(Groups::BALLOON);
        }
        if !self.asks_vcpus {
            unread = unread.without(Groups::VCPU);
        }
        unread
    }

    /// Puts what was read on this host into a sample of the same run.
    pub fn add_read(&self, sample: &mut Sample) {
        if let Some(nics) = &self.nics {
            sample.nics = Some(nics.clone());
        }
        if let Some(Processor { cpu, vcpus }) = self.processor {
            sample.cpu = cpu;
            sample.vcpus = Some(vcpus);
        }
    }
}

/// What came back for one domain.
#[derive(Debug)]
pub struct Measured {
    /// The figures.
    pub sample: Sample,
    /// How much of them.
    pub completeness: Completeness,
    /// A description that was just read for it.
    pub described: Option<Arc<CachedDescription>>,
    /// The statistics name other devices or images than the known description, and the description
    /// could not be read anew.
    pub outdated: bool,
    /// What went wrong with this domain alone.
    pub problem: Option<String>,
}

/// What came of a domain by [`Request::Extra`].
#[derive(Debug)]
pub struct Extra {
    /// The run of the domain.
    pub run: RunId,
    /// The figures that the configuration names by libvirt's own keys.
    pub stats: Vec<Stats>,
    /// The job that runs on it, if that is wanted and there is one.
    pub job: Option<JobStats>,
    /// Whether libvirt has asked the domain's monitor, if that is known.
    pub monitor: AskedMonitor,
}

/// What a reply to [`Request::Extra`] shows of whether libvirt has asked the domain's monitor. There are groups of which a domain
/// has keys whenever libvirt asks its monitor, or never.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AskedMonitor {
    /// Such keys came.
    Yes,
    /// None came: another call had the monitor, or the domain never has any.
    PerhapsNot,
    /// They were not asked for.
    Unknown,
}

impl Extra {
    /// Nothing of this run.
    pub fn of(run: RunId) -> Self {
        Self {
            run,
            stats: Vec::new(),
            job: None,
            monitor: AskedMonitor::Unknown,
        }
    }

    /// Adds what came of the domain when it was asked again. In that call, too, libvirt may have passed it by.
    pub fn add(&mut self, later: Self) {
        let figures = |stats: &[Stats]| stats.iter().map(|one| one.fields.len()).sum::<usize>();
        if figures(&later.stats) >= figures(&self.stats) {
            self.stats = later.stats;
        }
        self.job = later.job.or(self.job);
    }
}

/// How much of a domain's figures is there, from little to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    /// What libvirtd's priority workers serve: state and network.
    PriorityOnly,
    /// What libvirt knows without QEMU's monitor: the monitor was in use, or was not asked.
    Partial,
    /// All figures that the domain has.
    Full,
}

/// A request as a worker gets it.
pub type WorkerRequest = Request<DomainRef, Target>;

/// A request that has waited for so long for its worker is made as if nothing were known of the domains' memory.
const MEMORY_HOLDS: Duration = Duration::from_millis(500);

impl WorkerRequest {
    /// Forgets memory figures that libvirt may have others of by now.
    pub fn forget_old_memory(&mut self) {
        if let Self::Statistics { of, .. } = self {
            for target in of {
                target.memory = target
                    .memory
                    .filter(|memory| memory.at.elapsed() < MEMORY_HOLDS);
            }
        }
    }
}

/// A result of a worker's call. [`Response::is_last`] tells whether more follows.
#[derive(Debug)]
pub enum Response {
    /// For [`Request::List`]: the active domains.
    Domains(Vec<DomainRef>),
    /// Of [`Request::Describe`], one domain, and what is wrong with its XML; more follows.
    Described(RunId, Arc<CachedDescription>, Option<String>),
    /// Of [`Request::Describe`]: the XML of this domain cannot be had, for this reason; more follows.
    Undescribed(DomainRef, String),
    /// Of [`Request::Describe`]: the monitor of this domain has been in use for long. Its XML was not
    /// asked for, because that might wait; more follows.
    MonitorHeld(Uuid),
    /// For [`Request::Statistics`]: the figures, which lack the domains that are gone, and the problems
    /// of single domains for which there are no figures.
    Samples(Vec<Measured>, Vec<(DomainRef, String)>),
    /// For [`Request::Disks`].
    Disks(RunId, Devices<DISK_COUNTERS>),
    /// For [`Request::Extra`]: what came of each domain, and the problems of single domains of which nothing came.
    Extra(Vec<Extra>, Vec<(DomainRef, String)>),
    /// Of [`Request::Probe`]: the daemon answers; more follows.
    Alive,
    /// Of [`Request::Probe`], one domain; more follows.
    Control(Uuid, Monitor),
    /// Of [`Request::Priority`], one domain; more follows.
    Priority(Box<Sample>),
    /// For the requests whose results came one by one, for the canary, and where a single domain is
    /// gone.
    Done,
    /// Of no request: the worker's connection stands, but took so long to open that its request was
    /// given to another worker.
    Connected,
    /// Of no request: the same, but the connection cannot be opened.
    NotConnected,
    /// Of no request: what the worker's connection leads to ([`Versions`]).
    Versions(Box<Versions>),
}

/// What a connection leads to. A version is `major * 1_000_000 + minor * 1_000 + release`, as libvirt has it.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Versions {
    /// The version of the daemon's libvirt; of the client library's where the driver runs in this process.
    pub libvirt: Option<u64>,
    /// The version of libvirt's client library.
    pub client: Option<u64>,
    /// The driver (`QEMU`, `TEST`, `LXC`).
    pub driver: Option<String>,
    /// The version of the hypervisor that libvirt would start a VM with. A VM that runs for long may have another one.
    pub hypervisor: Option<u64>,
    /// Whether `hypervisor` has been asked for.
    pub is_final: bool,
}

impl Response {
    /// Whether nothing more follows for the same call.
    pub fn is_last(&self) -> bool {
        match self {
            Self::Domains(_) | Self::Samples(..) | Self::Disks(..) => true,
            Self::Extra(..) | Self::Done => true,
            Self::Described(..) | Self::Undescribed(..) | Self::MonitorHeld(_) => false,
            Self::Alive | Self::Control(..) | Self::Priority(_) => false,
            Self::Connected | Self::NotConnected | Self::Versions(_) => false,
        }
    }
}
