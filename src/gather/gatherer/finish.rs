//! The end of a gather: what has come becomes its report.

use std::time::Instant;

use uuid::Uuid;

use super::Gatherer;
use crate::description::Disk;
use crate::gather::gather_report::{GatherReport, Problem};
use crate::gather::protocol::Completeness;
use crate::maps::HashSet;

impl Gatherer {
    /// Ends the gather with what has come; replies that come later are dropped.
    pub fn finish(&mut self) -> GatherReport {
        for call_id in self.workers.forget_waiting() {
            self.scheduler.dropped(call_id);
        }
        let mut report = std::mem::take(&mut self.report);
        report.limited_to = self.workers.limited_to(Instant::now());
        report.libvirt_version = self.libvirt_version;
        let not_started = self.workers.not_started.clone();
        report.not_started = not_started.or(report.not_started);
        let find = |uuid: Uuid| self.vms.get(uuid).cloned();
        let outcome = self.scheduler.end();
        report.locked = outcome.locked.into_iter().filter_map(&find).collect();
        // By the last report: in a gather that ends without one no mount has come back.
        let dead = self.host_watcher.dead_mounts().iter();
        let dead = dead.map(|(mount, uuids)| {
            let domains = uuids.iter().filter_map(|uuid| find(*uuid));
            (mount.clone(), domains.collect())
        });
        report.dead = dead.collect();
        report.disks_left_out = self.host_watcher.omits_unanswering_disks();
        report.saturated = outcome.saturated.map(|uuid| uuid.and_then(&find));
        report.calls_used_up = outcome.calls_used_up;
        let without_extra = outcome.without_extra.into_iter();
        report.without_extra = without_extra.filter_map(&find).collect();
        // A daemon without workers may have served a domain by priority calls all the same.
        let unanswered = outcome.unanswered.into_iter();
        report.missing = unanswered
            .filter(|uuid| !self.samples.has(*uuid))
            .filter_map(&find)
            .collect();
        report.hanging = outcome.hanging;
        report.withheld = self.withheld(&report, &outcome.refused);
        report.complete = self.samples.complete(self.reads_disks);
        let in_part = |completeness| self.samples.of(completeness).filter_map(&find).collect();
        report.partial = in_part(Completeness::Partial);
        report.priority_only = in_part(Completeness::PriorityOnly);
        if self.reads_disks {
            let watcher = &self.host_watcher;
            let unknown = watcher.omitted_for_unknown_storage();
            report.unknown_storage = unknown.filter_map(&find).collect();
            let slow = watcher.omitted_for_slow_mounts();
            report.slow_storage = slow.filter_map(&find).collect();
            report.without_disks = self.samples.without_disks().filter_map(&find).collect();
        }
        report.whole = self.samples.of(Completeness::Full).collect();
        report.ended = self.vms.take_ended(|run| self.samples.has_run(run));
        let runs = |run, operation| {
            let job = report.extra.get(&run).and_then(|extra| extra.job);
            job.is_some_and(|job| job.operation == operation)
        };
        report.finished_jobs = self.vms.take_finished_jobs(runs);
        report.panicked = self.vms.take_panicked();
        let is_written = |disk: &Disk| {
            let is_wanted = self.device_filter.disk(&disk.target, disk.kind);
            self.writes_devices && disk.counted && is_wanted
        };
        report.io_errors = self.vms.take_first_io_errors(is_written);
        report.answered = self.samples.len();
        report.seen = report.answered + report.withheld;
        report.samples = std::mem::take(&mut self.samples).in_order();
        report
    }

    /// The number of domains without figures: each is counted once, and none that has answered all the same.
    /// A domain that is gone is none of them.
    fn withheld(&self, report: &GatherReport, refused: &[Uuid]) -> usize {
        let unread = report.problems.iter().filter_map(|problem| match problem {
            Problem::Domain(domain, _) => Some(domain.run.uuid),
            _ => None,
        });
        let silent = report.locked.iter().chain(&report.missing);
        let withheld: HashSet<Uuid> = silent
            .map(|domain| domain.run.uuid)
            .chain(refused.iter().copied())
            .chain(unread)
            .filter(|uuid| !self.samples.has(*uuid))
            .collect();
        withheld.len()
    }
}
