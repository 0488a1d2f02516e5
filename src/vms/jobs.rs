//! Jobs that are over (a migration, a backup, ...), as libvirt's events reported it.

use uuid::Uuid;

use super::{DomainRef, Vms};
use crate::libvirt::CompletedJob;
use crate::sample::{JobStats, RunId};

/// How many jobs may wait for a gather that reports them. A program that is not asked to gather goes on receiving events.
const MOST: usize = 1_000;

/// A job that is over.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FinishedJob {
    /// The run, and the VM's name.
    pub domain: DomainRef,
    /// Its final figures.
    pub stats: JobStats,
}

impl FinishedJob {
    /// Whether lines of the two differ in their tags.
    fn has_other_tags(&self, other: &Self) -> bool {
        self.domain.run != other.domain.run || self.stats.operation != other.stats.operation
    }
}

impl Vms {
    /// A job of a VM is over. If the VM is not wanted, that is forgotten.
    pub fn job_completed(&mut self, job: CompletedJob) {
        let Some(domain) = self.run_of(job.uuid, job.id).cloned() else {
            return;
        };
        if self.finished_jobs.len() >= MOST {
            self.finished_jobs.remove(0);
        }
        let stats = job.stats;
        self.finished_jobs.push(FinishedJob { domain, stats });
    }

    /// The run of a VM that an event with this id is about. Without an id it is the run that has ended, or is about to: libvirt
    /// reports a migrated VM as stopped, and then its job as completed.
    fn run_of(&self, uuid: Uuid, id: Option<u32>) -> Option<&DomainRef> {
        let is_it = |domain: &&DomainRef| {
            domain.run.uuid == uuid && id.is_none_or(|id| id == domain.run.id)
        };
        let ended = self.endings.newest_first().find(is_it);
        ended
            .or_else(|| self.current(uuid).filter(is_it))
            .or_else(|| self.endings.reported(uuid).filter(is_it))
    }

    /// The jobs that are over and were not reported yet, but one of each kind and run at a time: a gather has one timestamp,
    /// so a second line with the same tags would replace the first one. `runs`: whether a run has a line of a job of that kind
    /// in this gather already.
    pub fn take_finished_jobs(&mut self, runs: impl Fn(RunId, i32) -> bool) -> Vec<FinishedJob> {
        let mut ready: Vec<FinishedJob> = Vec::new();
        self.finished_jobs.retain(|job| {
            let is_ready = !runs(job.domain.run, job.stats.operation)
                && ready.iter().all(|other| job.has_other_tags(other));
            if is_ready {
                ready.push(job.clone());
            }
            !is_ready
        });
        ready
    }
}
