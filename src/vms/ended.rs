//! Runs that are over, as libvirt's events reported it, and why they ended.
//!
//! An event of a stop names the VM, and its run only in some cases: libvirt has mostly dropped the id by then. But each run
//! has one such event, and the events come in the order of the runs. So a stop is that of the oldest run of the VM that has
//! not ended yet.

use std::time::Instant;

use uuid::Uuid;

use super::{Change, DomainRef, VmRecord, Vms};
use crate::libvirt::Stop;
use crate::sample::RunId;

/// virDomainShutoffReason: crashed.
const CRASHED: i32 = 3;
/// virDomainShutoffReason: failed to start.
const FAILED: i32 = 6;

/// A run that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EndedRun {
    /// The run, and the VM's name.
    pub domain: DomainRef,
    /// Why it ended (virDomainShutoffReason).
    pub reason: i32,
    /// When the event came.
    pub(super) at: Instant,
}

impl EndedRun {
    /// For tests: a run that ended for this reason.
    #[cfg(test)]
    pub(crate) fn new(domain: DomainRef, reason: i32) -> Self {
        let at = Instant::now();
        Self { domain, reason, at }
    }

    /// Whether the VM's QEMU crashed or was killed, or its guest panicked.
    pub fn has_crashed(&self) -> bool {
        self.reason == CRASHED
    }
}

/// What is known of the end of runs.
#[derive(Debug, Default)]
pub(super) struct Endings {
    /// Ended, and not reported yet.
    ended: Vec<EndedRun>,
    /// Those that were reported in the last gather.
    reported: Vec<DomainRef>,
    /// Runs that are not in the records any more, though no event of their end has come: the list may overtake it.
    /// They are kept until the next list.
    left: Vec<LeftRun>,
    /// Runs whose guest panicked, not reported yet.
    panicked: Vec<DomainRef>,
}

#[derive(Debug)]
struct LeftRun {
    domain: DomainRef,
    has_run: bool,
}

impl Endings {
    /// Events may have been lost, so the next stop may be that of a later run.
    pub(super) fn on_events_lost(&mut self) {
        self.left.clear();
    }

    /// A list has come that was requested then. What was assumed of a run that is in it is wrong.
    pub(super) fn on_list(&mut self, requested_at: Option<Instant>, listed: &[DomainRef]) {
        self.left.clear();
        self.ended.retain(|ended| {
            requested_at.is_none_or(|requested_at| ended.at >= requested_at)
                || !listed.iter().any(|listed| listed.run == ended.domain.run)
        });
    }

    /// A run is no longer in the records.
    pub(super) fn on_left(&mut self, vm: &VmRecord) {
        if !vm.has_ended {
            self.left.push(LeftRun {
                domain: vm.domain.clone(),
                has_run: vm.arrival.has_run(),
            });
        }
    }

    /// The runs that are over and were not reported yet, each VM's last one first.
    pub(super) fn newest_first(&self) -> impl Iterator<Item = &DomainRef> {
        let left = self.left.iter().map(|left| &left.domain);
        let ended = self.ended.iter().map(|ended| &ended.domain);
        left.rev().chain(ended.rev())
    }

    /// The last run of a VM whose end was reported in the last gather.
    pub(super) fn reported(&self, uuid: Uuid) -> Option<&DomainRef> {
        let mut reported = self.reported.iter().rev();
        reported.find(|domain| domain.run.uuid == uuid)
    }

    /// Whether a run has ended that is not reported yet.
    pub(super) fn has_ended(&self, run: RunId) -> bool {
        self.ended.iter().any(|ended| ended.domain.run == run)
    }
}

impl Vms {
    /// A VM has stopped; for the records that takes effect when the next gather begins.
    pub fn stopped(&mut self, stop: Stop, at: Instant) {
        if let Some(LeftRun { domain, has_run }) = self.run_that_ended(stop) {
            // libvirt sends "failed" where it finds QEMU gone without a word (qemuProcessHandleMonitorEOF), and then calls
            // the VM crashed; and where a VM could not be migrated in or restored.
            let reason = match stop.reason {
                FAILED if has_run => CRASHED,
                reason => reason,
            };
            self.endings.ended.push(EndedRun { domain, reason, at });
        }
        let change = Change {
            at,
            begun: None,
            has_arrived: false,
        };
        self.changes.insert(stop.uuid, change);
    }

    /// The run that a stop ended: the oldest one of this VM that has not ended. `None`: none is known, or the VM is not
    /// wanted.
    fn run_that_ended(&mut self, stop: Stop) -> Option<LeftRun> {
        let is_it = |domain: &DomainRef| {
            domain.run.uuid == stop.uuid && stop.id.is_none_or(|id| id == domain.run.id)
        };
        let left = &mut self.endings.left;
        if let Some(place) = left.iter().position(|left| is_it(&left.domain)) {
            return Some(left.remove(place));
        }
        let domain = self.current(stop.uuid).filter(|domain| is_it(domain))?;
        let domain = domain.clone();
        let change = self.changes.get(&stop.uuid);
        let mut has_run = change.is_some_and(|change| change.has_arrived);
        let record = self.records.get_mut(&stop.uuid);
        if let Some(vm) = record.filter(|vm| vm.domain.run == domain.run) {
            vm.has_ended = true;
            has_run |= vm.arrival.has_run();
        }
        Some(LeftRun { domain, has_run })
    }

    /// The run of a VM, if it is active, by the last event or, without one since the gather began, by the records.
    pub(super) fn current(&self, uuid: Uuid) -> Option<&DomainRef> {
        match self.changes.get(&uuid) {
            Some(change) => change.begun.as_ref(),
            None => self.get(uuid),
        }
    }

    /// The runs that ended and have no sample in this gather. The others are reported in the next one, so that no figures
    /// of a run have the timestamp of its end, or a later one.
    pub fn take_ended(&mut self, has_sample: impl Fn(RunId) -> bool) -> Vec<EndedRun> {
        let ended = &mut self.endings.ended;
        let ready = ended.extract_if(.., |ended| !has_sample(ended.domain.run));
        let ready: Vec<EndedRun> = ready.collect();
        self.endings.reported = ready.iter().map(|ended| ended.domain.clone()).collect();
        ready
    }

    /// The guest of a VM has panicked.
    pub fn panicked(&mut self, uuid: Uuid) {
        let domain = self.current(uuid).cloned();
        self.endings.panicked.extend(domain);
    }

    /// The runs whose guest has panicked since the last call.
    pub fn take_panicked(&mut self) -> Vec<DomainRef> {
        std::mem::take(&mut self.endings.panicked)
    }
}
