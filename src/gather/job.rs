//! What a worker is asked to do, and what it brings.

use std::sync::Arc;

use uuid::Uuid;

use super::scheduler::{Completeness, Control, Scope};
use crate::libvirt::bulk::Groups;
use crate::sample::{DeviceFilter, Devices, RunId, Sample};
use crate::vms::{CachedDescription, Known, Processor};

pub use crate::vms::DomainRef;

/// What every worker has to know.
#[derive(Debug, Clone)]
pub struct WorkerConfig {
    /// Where to connect.
    pub uri: String,
    /// Which groups the wanted measurements need.
    pub groups: Groups,
    /// Whether a field needs `virDomainGetInfo`.
    pub info: bool,
    /// Which devices are wanted.
    pub wanted: DeviceFilter,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Job {
    /// List the active domains.
    List,
    /// Read the XML of these.
    Describe(Vec<DomainRef>),
    /// One cheap ordinary call.
    Canary(DomainRef),
    /// Bring the statistics of these.
    Ask {
        /// Whom to ask.
        targets: Vec<Target>,
        /// How much.
        scope: Scope,
        /// How many domains are active in all.
        active: usize,
    },
    /// Bring the disks of this one, by calls of their own.
    Disks(Target),
    /// Who occupies whose monitor.
    Probe(Vec<DomainRef>),
    /// State and network of these by priority calls.
    Priority(Vec<Target>),
}

/// A domain to ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whom.
    pub found: DomainRef,
    /// What the cache knows of it.
    pub known: Known,
    /// Its NICs' counters, where they were read already: libvirt is not asked for them.
    pub nics: Option<Devices<8>>,
    /// Its CPU time and vCPUs, likewise.
    pub processor: Option<Processor>,
}

impl Target {
    /// What of `groups` libvirt has to be asked for.
    pub fn unread(&self, groups: Groups) -> Groups {
        let mut unread = groups;
        if self.nics.is_some() {
            unread = unread.without(Groups::NET);
        }
        if self.processor.is_some() {
            unread = unread.without(Groups::CPU);
        }
        unread
    }

    /// Puts what was read on this host into a sample of the same run.
    pub fn lend(&self, sample: &mut Sample) {
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
    /// A description that was read for it just now.
    pub described: Option<Arc<CachedDescription>>,
    /// It names other devices or images than the known description, and that could not be read anew.
    pub outdated: bool,
    /// What went wrong with this domain alone.
    pub problem: Option<String>,
}

/// What a job brought.
#[derive(Debug)]
pub enum Answer {
    /// For [`Job::List`].
    Domains(Vec<DomainRef>),
    /// Of [`Job::Describe`], one domain, and what is wrong with its XML; more follows.
    Described(RunId, Arc<CachedDescription>, Option<String>),
    /// Of [`Job::Describe`]: this domain's XML cannot be had, for this reason; more follows.
    Undescribed(DomainRef, String),
    /// Of [`Job::Describe`]: somebody has had this domain's monitor for long, and reading its XML
    /// might wait for that; more follows.
    Withheld(Uuid),
    /// For [`Job::Ask`]: domains that are gone are missing from it; trouble with single domains
    /// that brought no figures is beside it.
    Samples(Vec<Measured>, Vec<(DomainRef, String)>),
    /// For [`Job::Disks`].
    Disks(RunId, Devices<5>),
    /// Of [`Job::Probe`]: the daemon answers; more follows.
    Alive,
    /// Of [`Job::Probe`], one domain; more follows.
    Control(Uuid, Control),
    /// Of [`Job::Priority`], one domain; more follows.
    Priority(Box<Sample>),
    /// The connection stands that took so long to open that the job was given to another worker,
    LetIn,
    /// or it cannot be opened.
    Outside,
    /// For the jobs whose answers came one by one, and for the canary.
    Done,
}
