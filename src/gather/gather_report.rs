//! The result of a gather: the figures, and what went wrong.

use std::collections::BTreeMap;
use std::path::PathBuf;

use uuid::Uuid;

use super::protocol::{DomainRef, Extra};
use crate::libvirt::Error;
use crate::maps::{HashMap, HashSet};
use crate::sample::{RunId, Sample};
use crate::vms::{EndedRun, FinishedJob, FirstIoError};

/// Something that the operator is told once.
#[derive(Debug, Clone)]
pub enum Problem {
    /// No connection can be opened.
    Unreachable(Error),
    /// The list or a whole chunk was refused.
    Refused(Error),
    /// The figures of one domain cannot be read.
    Domain(DomainRef, String),
    /// The description of one domain cannot be read.
    Description(DomainRef, String),
}

/// The result of a gather.
#[derive(Debug, Default)]
pub struct GatherReport {
    /// One sample for each domain that answered in time, without those that were taken before.
    pub samples: Vec<Sample>,
    /// What only some configurations want of the domains.
    pub extra: HashMap<RunId, Extra>,
    /// The domains that answered in full, but not for that.
    pub without_extra: Vec<DomainRef>,
    /// The number of domains that answered in time.
    pub answered: usize,
    /// The domains whose samples are full.
    pub whole: HashSet<Uuid>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// Whether libvirt answered at all.
    pub reached: bool,
    /// The active domains by the list of this gather; `None` if no list came.
    pub active: Option<HashSet<RunId>>,
    /// Domains that were to be asked and did not answer in time.
    pub missing: Vec<DomainRef>,
    /// Domains that are not queried, because a call of ours hangs on their lock inside libvirtd.
    pub locked: Vec<DomainRef>,
    /// `Some` if libvirtd had no worker to spare; in it the domain whose monitor has been occupied the
    /// longest, if one was found.
    pub saturated: Option<Option<DomainRef>>,
    /// Whether as many calls of ours hang as `max_calls` allows, so that some domains came with state and
    /// network alone.
    pub calls_used_up: bool,
    /// Mounts that do not answer, and the VMs with a disk there.
    pub dead: BTreeMap<PathBuf, Vec<DomainRef>>,
    /// Whether disks on mounts that do not answer are left out: from libvirt 11.4 on, a call for one disk
    /// would hang, too.
    pub disks_left_out: bool,
    /// VMs whose disks are left out because it is not known where all their files lie.
    pub unknown_storage: Vec<DomainRef>,
    /// VMs whose disks are left out because a mount that holds some of their files answers, but not in time.
    pub slow_storage: Vec<DomainRef>,
    /// Runs that ended, as events reported it, and of which no figures come any more.
    pub ended: Vec<EndedRun>,
    /// Jobs of VMs that are over, as events reported it.
    pub finished_jobs: Vec<FinishedJob>,
    /// VMs whose guest panicked, as events reported it.
    pub panicked: Vec<DomainRef>,
    /// Disks that have had their first I/O error in a run of their VM.
    pub io_errors: Vec<FirstIoError>,
    /// The number of active domains that pass the name filter, as far as this gather has seen them: those that
    /// answered and those without figures.
    pub seen: usize,
    /// The number of domains without figures: locked, refused, or no answer in time.
    pub withheld: usize,
    /// The number of domains whose figures came in full.
    pub complete: usize,
    /// Domains whose figures came without those that only QEMU knows.
    pub partial: Vec<DomainRef>,
    /// Domains of which only state and network came, by calls that libvirtd's priority workers serve.
    pub priority_only: Vec<DomainRef>,
    /// Domains whose figures came in full, but for those of their disks, which are wanted.
    pub without_disks: Vec<DomainRef>,
    /// Why the gather ended before the deadline although domains had not answered.
    pub cut: Option<&'static str>,
    /// A thread or process that could not be started, and the remedy.
    pub not_started: Option<String>,
    /// Whether a call had no worker at all, because no thread could be started.
    pub unasked: bool,
    /// The number of calls that hang.
    pub hanging: usize,
    /// The number of workers there may be, if libvirtd lets in fewer connections than configured.
    pub limited_to: Option<usize>,
    /// The active domains that do not pass the name filter.
    pub filtered: Vec<DomainRef>,
    /// The daemon's version of libvirt, 11_003_000 for 11.3.0.
    pub libvirt_version: Option<u64>,
}
