//! Takes the replies of the workers: the scheduler learns what they mean, and their figures are stored.

use std::time::Instant;

use super::Gatherer;
use crate::gather::gather_report::Problem;
use crate::gather::protocol::{Completeness, DomainRef, Extra, Measured, Response};
use crate::gather::scheduler::Event;
use crate::gather::session::is_incoming;
use crate::gather::worker::{Failure, Reply};
use crate::sample::Sample;

impl Gatherer {
    /// Takes a worker's reply, or a part of it. What comes late is dropped.
    pub fn on_reply(&mut self, reply: Reply) {
        let now = Instant::now();
        let call_id = reply.call_id;
        if let Ok(Response::Versions(versions)) = reply.result {
            self.versions = Some(*versions);
            return;
        }
        if reply.is_last() {
            let begun = self.workers.returned(call_id);
            self.begun(begun);
        }
        let answered = match &reply.result {
            Ok(response) => !matches!(response, Response::Connected | Response::NotConnected),
            Err(failure) => matches!(failure, Failure::Refused(_)),
        };
        if answered {
            self.workers.answered(now);
        }
        let wanted = self.scheduler.is_wanted(call_id);
        if !wanted && reply.is_last() {
            self.late += 1;
            log::debug!("a late reply was dropped");
        }
        if let Some(version) = reply.version {
            self.host_watcher.set_libvirt_version(version);
            self.libvirt_version = Some(version);
        }
        let relisted = reply.opened && matches!(reply.result, Ok(Response::Domains(_)));
        if relisted {
            self.scheduler.reconnected();
        }
        if relisted || reply.reopened || matches!(reply.result, Err(Failure::Lost(_))) {
            self.vms.on_restart();
        }
        if let Ok(response @ (Response::Connected | Response::NotConnected)) = &reply.result {
            let connected = matches!(response, Response::Connected);
            let begun = self.workers.let_in(reply.worker, connected);
            self.begun(begun);
            return;
        }
        let mut measured = Vec::new();
        let event = match reply.result {
            Ok(Response::Samples(some, problems)) if wanted => {
                self.report.reached = true;
                measured = some;
                self.on_samples(&mut measured, problems)
            }
            Ok(response) => self.take(response, wanted),
            Err(Failure::Unreachable(error)) => {
                self.problem(wanted, Problem::Unreachable(error));
                Event::Unreachable
            }
            Err(Failure::Lost(error)) => {
                self.lost += 1;
                log::debug!("connection lost: {error}");
                Event::Lost
            }
            Err(Failure::Refused(error)) => {
                self.report.reached |= wanted;
                self.problem(wanted, Problem::Refused(error));
                Event::Refused
            }
        };
        log::trace!("call {call_id}: {event:?}");
        self.scheduler.on(call_id, event, now);
        self.carry_out();
        // Only now, when the worker has its next request.
        for one in measured {
            self.store(one);
        }
    }

    fn problem(&mut self, wanted: bool, problem: Problem) {
        if wanted {
            self.report.problems.push(problem);
        }
    }

    /// Tells what a response means to the scheduler. Its figures are stored if the call is still wanted.
    fn take(&mut self, response: Response, wanted: bool) -> Event {
        self.report.reached |= wanted;
        match response {
            Response::Domains(domains) if wanted => self.on_list(domains),
            Response::Domains(_) | Response::Samples(..) | Response::Done => Event::Done,
            // A problem is told once, in the report of its gather, and that gather is over. So the description is
            // dropped, and read again.
            Response::Described(run, _, Some(_)) if !wanted => Event::Served(run.uuid),
            Response::Described(run, described, problem) => {
                self.vms.on_description(run, described);
                if let Some((domain, text)) = self.vms.get(run.uuid).cloned().zip(problem) {
                    self.problem(wanted, Problem::Description(domain, text));
                }
                Event::Described(run.uuid)
            }
            Response::Undescribed(domain, text) => {
                let uuid = domain.run.uuid;
                self.problem(wanted, Problem::Description(domain, text));
                Event::Served(uuid)
            }
            Response::MonitorHeld(uuid) => Event::MonitorHeld(uuid),
            Response::Disks(run, mut disks) => {
                if wanted {
                    self.vms.add_io_errors(run, &mut disks);
                    self.samples.add_disks(run, disks);
                }
                Event::Done
            }
            Response::Extra(extra, problems) => {
                let asked = extra
                    .iter()
                    .map(|one| (one.run.uuid, one.monitor))
                    .collect();
                if wanted {
                    for one in extra {
                        let known = self.report.extra.entry(one.run);
                        known.or_insert_with(|| Extra::of(one.run)).add(one);
                    }
                    self.single_domains(problems);
                }
                Event::Extra(asked)
            }
            Response::Connected | Response::NotConnected | Response::Versions(_) => Event::Done,
            Response::Alive => Event::Alive,
            Response::Control(uuid, control) => Event::Control(uuid, control),
            Response::Priority(sample) => {
                let uuid = sample.run.uuid;
                if wanted {
                    self.store_sample(Completeness::PriorityOnly, *sample);
                }
                Event::Served(uuid)
            }
        }
    }

    fn on_list(&mut self, mut domains: Vec<DomainRef>) -> Event {
        self.report.active = Some(domains.iter().map(|domain| domain.run).collect());
        let (wanted, filtered) = domains
            .into_iter()
            .partition(|domain| self.domains.matches(&domain.name));
        domains = wanted;
        self.report.filtered = filtered;
        self.vms.on_list(domains);
        Event::Listed(self.wanted())
    }

    /// Takes from samples what the scheduler and the records have to know before they are stored.
    fn on_samples(
        &mut self,
        measured: &mut [Measured],
        problems: Vec<(DomainRef, String)>,
    ) -> Event {
        let mut completeness = Vec::with_capacity(measured.len());
        for one in measured {
            let run = one.sample.run;
            if let Some(described) = one.described.take() {
                let name = one.sample.name.clone();
                self.vms.on_run(DomainRef { run, name });
                self.vms.on_description(run, described);
            }
            if one.outdated {
                self.vms.device_changed(run.uuid, Instant::now());
            }
            if let (Some(problem), Some(domain)) = (one.problem.take(), self.vms.get(run.uuid)) {
                let problem = Problem::Description(domain.clone(), problem);
                self.report.problems.push(problem);
            }
            completeness.push((run.uuid, one.completeness));
        }
        self.single_domains(problems);
        Event::Samples(completeness)
    }

    fn single_domains(&mut self, problems: Vec<(DomainRef, String)>) {
        let problems = problems.into_iter();
        let problems = problems.map(|(domain, text)| Problem::Domain(domain, text));
        self.report.problems.extend(problems);
    }

    fn store(&mut self, one: Measured) {
        let run = one.sample.run;
        if let Some(active) = &mut self.report.active
            && active.insert(run)
        {
            // The VM was restarted since the list: its last run is over.
            active.retain(|other| other.uuid != run.uuid || *other == run);
        }
        self.store_sample(one.completeness, one.sample);
    }

    /// Stores a sample, with what the host and libvirt's events tell of its devices. Where QEMU was not
    /// asked because it is known not to answer, the sample says that it does not.
    fn store_sample(&mut self, completeness: Completeness, mut sample: Sample) {
        let full = completeness == Completeness::Full;
        if !full
            && sample.answers.is_none()
            && self.scheduler.is_qemu_stuck(sample.run.uuid)
            && !is_incoming(&sample, self.vms.is_left_paused(sample.run))
        {
            sample.answers = Some(false);
        }
        self.vms.on_sample(full, &mut sample);
        if let Some(disks) = &mut sample.disks {
            self.vms.add_io_errors(sample.run, disks);
        }
        self.samples.store(completeness, sample);
    }
}
