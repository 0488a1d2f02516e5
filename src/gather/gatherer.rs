//! One gather at a time: the scheduler decides, the worker pool queries libvirt, and the replies that
//! come in time become the report.

mod actions;

use std::sync::mpsc::Sender;
use std::time::Instant;

use uuid::Uuid;

use super::gather_report::{GatherReport, Problem};
use super::groups::groups_needed;
use super::host_watcher::{HostQuery, HostWatcher};
use super::protocol::{Completeness, DomainRef, Measured, Response, WorkerConfig};
use super::samples::Samples;
use super::scheduler::{Event, Limits, Listed, Scheduler};
use super::worker::{Failure, Reply};
use super::worker_pool::{Sink, WorkerPool};
use crate::config::{NameFilter, Settings};
use crate::libvirt::DomainEvent;
use crate::libvirt::bulk::Groups;
use crate::libvirt::events::EventUpdate;
use crate::sample::{RunId, Sample};
use crate::times::{HOST_CHECK, STALL};
use crate::vms::{EventFeed, VmRecord, Vms};

/// How many domains are queried by one call. From 4 to 32 took libvirtd the same time, and a call
/// that hangs holds up fewer domains if they are few.
const CHUNK: usize = 8;
/// The same for a driver in our own process, where no call hangs. Waiting for the next request took the
/// worker a tenth of its time, so the requests are few, and it has the next one before it needs it.
const CHUNK_IN_PROCESS: usize = 256;

/// Runs gathers without ever calling libvirt itself.
pub struct Gatherer {
    scheduler: Scheduler,
    workers: WorkerPool,
    vms: Vms,
    domains: NameFilter,
    devices: NameFilter,
    /// Whether a measurement needs to know the devices.
    describes: bool,
    samples: Samples,
    report: GatherReport,
    host_watcher: HostWatcher,
    /// Whether a worker may have to wait for its connection while others have one.
    recalls: bool,
    /// Replies that came too late, since the start.
    late: u64,
    /// Connections that were lost, since the start.
    lost: u64,
}

impl Gatherer {
    /// `sink` takes the replies of the workers; they come back through [`Gatherer::on_reply`].
    /// `host_watcher` takes queries where the hypervisor is this host; the reports come back through
    /// [`Gatherer::on_host_report`].
    pub fn new(settings: &Settings, sink: Sink, host_watcher: Option<Sender<HostQuery>>) -> Self {
        let measurements = &settings.measurements;
        let groups = groups_needed(measurements);
        let config = WorkerConfig {
            uri: settings.uri.value.clone(),
            groups,
            info: measurements.metrics || measurements.features || measurements.totals,
            devices: settings.device_filter(),
        };
        // Each connection to a driver in our own process may be to another node, so there is only one.
        // There is no daemon that could fail to answer.
        let in_process = settings.uri.in_process();
        let (workers, jobs, chunk) = if in_process {
            (1, 2, CHUNK_IN_PROCESS)
        } else {
            (settings.workers.min(settings.max_calls), 1, CHUNK)
        };
        Self {
            scheduler: Scheduler::new(Limits {
                workers: workers * jobs,
                chunk: settings.chunk_size.unwrap_or(chunk),
                stall: STALL,
                host_check: HOST_CHECK.min(settings.deadline / 2),
                cap: settings.max_calls,
                calls_may_hang: !in_process,
            }),
            workers: WorkerPool::new(config, workers, jobs, sink),
            vms: Vms::new(settings.device_cache_ttl),
            domains: settings.domains.clone(),
            devices: settings.devices.clone(),
            describes: groups_needed(measurements).has(Groups::NET),
            samples: Samples::default(),
            report: GatherReport::default(),
            host_watcher: HostWatcher::new(host_watcher, settings.block_statistics, groups),
            recalls: !in_process,
            late: 0,
            lost: 0,
        }
    }

    /// Begins a gather.
    pub fn begin(&mut self) {
        self.workers.begin(Instant::now());
        self.vms.begin();
        self.samples = Samples::default();
        self.report = GatherReport::default();
        // For the case that no list comes. Some descriptions may no longer be current.
        let known = self.wanted();
        self.scheduler.set_known(known);
        self.scheduler.begin(Instant::now());
        self.carry_out();
    }

    /// Takes a worker's reply, or a part of it. What comes late is dropped.
    pub fn on_reply(&mut self, reply: Reply) {
        let now = Instant::now();
        let call_id = reply.call_id;
        if reply.is_last() {
            let begun = self.workers.returned(call_id);
            self.begun(begun);
        }
        let wanted = self.scheduler.is_wanted(call_id);
        if !wanted && reply.is_last() {
            self.late += 1;
            log::debug!("a late reply was dropped");
        }
        if let Some(version) = reply.version {
            self.host_watcher.set_libvirt_version(version);
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
            Response::Disks(run, disks) => {
                if wanted {
                    self.samples.add_disks(run, disks);
                }
                Event::Done
            }
            Response::Connected | Response::NotConnected => Event::Done,
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
        domains.retain(|domain| self.domains.matches(&domain.name));
        self.vms.on_list(domains);
        Event::Listed(self.wanted())
    }

    /// The domains to gather, and which of them are described.
    fn wanted(&self) -> Vec<Listed> {
        let listed = |vm: &VmRecord| Listed {
            uuid: vm.domain.run.uuid,
            described: !self.describes || self.vms.is_current(vm),
        };
        self.vms.iter().map(listed).collect()
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
        self.report.problems.extend(
            problems
                .into_iter()
                .map(|(domain, text)| Problem::Domain(domain, text)),
        );
        Event::Samples(completeness)
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

    /// Stores a sample, with what the host and libvirt's events tell of its devices.
    fn store_sample(&mut self, completeness: Completeness, mut sample: Sample) {
        let full = completeness == Completeness::Full;
        self.vms.on_sample(full, &mut sample);
        self.samples.store(completeness, sample);
    }

    /// A sample of this gather to which nothing more can be added. It can be written while the gather
    /// waits for others.
    pub fn take_ready(&mut self) -> Option<Sample> {
        self.samples.take_ready()
    }

    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        self.scheduler.is_done()
    }

    /// When [`Gatherer::tick`] has to be called.
    pub fn wake(&self) -> Option<Instant> {
        let recall = self
            .recalls
            .then(|| self.workers.recall_at(STALL))
            .flatten();
        self.scheduler.wake().into_iter().chain(recall).min()
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.recall(now);
        self.scheduler.tick(now);
        self.carry_out();
    }

    /// Ends the gather with what has come; replies that come later are dropped.
    pub fn finish(&mut self) -> GatherReport {
        for call_id in self.workers.forget_waiting() {
            self.scheduler.dropped(call_id);
        }
        let mut report = std::mem::take(&mut self.report);
        report.limited_to = self.workers.limited_to();
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
        report.unknown_storage = self
            .host_watcher
            .omitted_for_unknown_storage()
            .filter_map(&find)
            .collect();
        report.slow_storage = self
            .host_watcher
            .omitted_for_slow_mounts()
            .filter_map(&find)
            .collect();
        report.saturated = outcome.saturated.map(|uuid| uuid.and_then(&find));
        report.calls_used_up = outcome.calls_used_up;
        // A daemon without workers may have served a domain by priority calls all the same.
        let silent = |uuids: &[Uuid]| {
            let silent = uuids
                .iter()
                .copied()
                .filter(|uuid| !self.samples.has(*uuid));
            silent.filter_map(&find).collect()
        };
        report.missing = silent(&outcome.unanswered);
        report.refused = silent(&outcome.refused);
        report.hanging = outcome.hanging;
        report.seen = self.vms.len();
        report.complete = self.samples.complete(self.describes);
        report.partial = self
            .samples
            .of(Completeness::Partial)
            .filter_map(find)
            .collect();
        report.whole = self.samples.of(Completeness::Full).collect();
        report.answered = self.samples.len();
        report.samples = std::mem::take(&mut self.samples).in_order();
        report
    }

    /// Closes the connections that are not in use, until `limit` at the longest.
    pub fn close(&mut self, limit: Instant) {
        self.workers.close(limit);
    }

    /// Replies that came too late and connections that were lost, since the start.
    pub fn losses(&self) -> (u64, u64) {
        (self.late, self.lost)
    }

    /// An event came, or events come from now on, or no more.
    pub fn on_event_update(&mut self, update: EventUpdate) {
        match update {
            EventUpdate::Live(since) => self.vms.set_feed(EventFeed::Live(since)),
            EventUpdate::Down => self.vms.set_feed(EventFeed::Down),
            EventUpdate::Event(DomainEvent::DeviceAdded(uuid), at) => {
                self.vms.device_changed(uuid, at);
            }
            EventUpdate::Event(DomainEvent::DeviceRemoved(uuid, alias), at) => {
                self.vms.device_removed(uuid, &alias, at);
            }
            EventUpdate::Event(DomainEvent::ImageChanged(uuid), at) => {
                self.vms.device_changed(uuid, at);
            }
            EventUpdate::Event(DomainEvent::Stopped(uuid), at) => self.vms.stopped(uuid, at),
            EventUpdate::Event(DomainEvent::Started(uuid, id, name), at) => {
                if self.domains.matches(&name) {
                    let run = RunId { uuid, id };
                    let name = name.into();
                    self.vms.started(DomainRef { run, name }, at);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
