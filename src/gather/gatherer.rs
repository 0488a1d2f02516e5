//! One gather at a time: the scheduler decides, the worker pool queries libvirt, and the replies that
//! come in time become the report.

mod actions;
mod finish;
mod overview;
mod replies;

use std::sync::Arc;
use std::sync::mpsc::Sender;
use std::time::Instant;

use super::gather_report::GatherReport;
use super::groups::{ORDINARY, groups_needed, vcpu_group};
use super::host_watcher::{HostQuery, HostWatcher, Wanted};
use super::protocol::{DomainRef, Versions, WorkerConfig};
use super::samples::Samples;
use super::scheduler::{Limits, Listed, Scheduler};
use super::worker_pool::{Sink, WorkerPool};
use crate::config::{NameFilter, Settings, VcpuDelay};
use crate::device_filter::DeviceFilter;
use crate::libvirt::DomainEvent;
use crate::libvirt::bulk::Groups;
use crate::libvirt::bulk::keys::KeyFilter;
use crate::libvirt::events::EventUpdate;
use crate::sample::{RunId, Sample};
use crate::times::{HOST_CHECK, STALL};
use crate::vms::{EventFeed, VmRecord, Vms};

pub use overview::{DeviceLeftOut, HostOverview, WhyLeftOut};

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
    /// Whether the XML of each VM is needed.
    describes: bool,
    /// Whether a measurement needs the disks.
    reads_disks: bool,
    /// Whether a measurement says which VMs are persistent.
    reads_persistence: bool,
    samples: Samples,
    report: GatherReport,
    host_watcher: HostWatcher,
    /// Whether a worker may have to wait for its connection while others have one.
    recalls: bool,
    /// Replies that came too late, since the start.
    late: u64,
    /// Connections that were lost, since the start.
    lost: u64,
    /// The daemon's version of libvirt.
    libvirt_version: Option<u64>,
    /// What a connection leads to, where that was asked for.
    versions: Option<Versions>,
    device_filter: DeviceFilter,
    /// Whether `vm_devices` is wanted.
    writes_devices: bool,
    /// The keys of libvirt's statistics that are wanted.
    statistics: Arc<KeyFilter>,
}

impl Gatherer {
    /// `sink` takes the replies of the workers; they come back through [`Gatherer::on_reply`].
    /// `host_watcher` takes queries where the hypervisor is this host; the reports come back through
    /// [`Gatherer::on_host_report`].
    pub fn new(settings: &Settings, sink: Sink, host_watcher: Option<Sender<HostQuery>>) -> Self {
        let measurements = &settings.measurements;
        let needed = groups_needed(measurements);
        let named = settings.statistics.groups();
        let groups = needed | named.and(ORDINARY);
        let asked = groups | vcpu_group(measurements, settings.vcpu_delay);
        let extra_groups = named.without(asked);
        let has_devices = groups.has(Groups::NET) || groups.has(Groups::BLOCK);
        let describes = has_devices || settings.needs_metadata();
        let statistics = Arc::new(settings.statistics.clone());
        let config = WorkerConfig {
            uri: settings.uri.value.clone(),
            groups: asked,
            statistics: Arc::clone(&statistics),
            extra_groups,
            jobs: measurements.jobs,
            domain_info: measurements.metrics || measurements.any_of_vcpus(),
            guest_memory_max_age: settings.guest_memory_max_age,
            devices: settings.device_filter(),
            tags: settings.tags.clone(),
            vm_info: measurements.info,
            describes,
        };
        let vcpu_times = measurements.any_of_vcpus() && settings.vcpu_delay != VcpuDelay::Off;
        let wanted = Wanted {
            net_dev: needed.has(Groups::NET),
            // The control groups also tell at once when vCPUs were added.
            cpu_usage: needed.has(Groups::CPU) || vcpu_times,
            vcpu_times,
            throttling: measurements.has_totals(),
            pressure: measurements.pressure,
        };
        // Each connection to a driver in our own process may be to another node, so there is only one.
        // There is no daemon that could fail to answer.
        let in_process = settings.uri.in_process();
        let (workers, jobs, chunk) = if in_process {
            (1, 2, CHUNK_IN_PROCESS)
        } else {
            (settings.workers.min(settings.max_calls), 1, CHUNK)
        };
        let mut vms = Vms::new(settings.device_cache_ttl);
        if !named.has(Groups::BALLOON) {
            vms.keep_memory();
        }
        Self {
            scheduler: Scheduler::new(Limits {
                workers: workers * jobs,
                chunk: settings.chunk_size.unwrap_or(chunk),
                stall: STALL,
                host_check: HOST_CHECK.min(settings.deadline / 2),
                cap: settings.max_calls,
                asks_extra: extra_groups != Groups::NONE || measurements.jobs,
                calls_may_hang: !in_process,
            }),
            workers: WorkerPool::new(config, workers, jobs, sink),
            vms,
            domains: settings.domains.clone(),
            describes,
            reads_disks: groups.has(Groups::BLOCK),
            reads_persistence: measurements.info,
            samples: Samples::default(),
            report: GatherReport::default(),
            host_watcher: HostWatcher::new(host_watcher, settings.block_statistics, wanted),
            recalls: !in_process,
            late: 0,
            lost: 0,
            libvirt_version: None,
            versions: None,
            device_filter: settings.device_filter(),
            writes_devices: measurements.devices,
            statistics,
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

    /// The domains to gather, and which of them are described.
    fn wanted(&self) -> Vec<Listed> {
        let listed = |vm: &VmRecord| Listed {
            uuid: vm.domain.run.uuid,
            described: !self.describes || self.vms.is_current(vm),
        };
        self.vms.iter().map(listed).collect()
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
        let times = [self.scheduler.wake(), recall, self.workers.hangs_at()];
        times.into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self) {
        let now = Instant::now();
        self.recall(now);
        self.scheduler.tick(now);
        self.carry_out();
    }

    /// Leaves connections to what is asked beside the gather, and to other clients.
    pub fn make_room(&mut self) {
        self.workers.make_room(Instant::now());
    }

    /// When [`Gatherer::leave_room`] is to be called.
    pub fn leave_room_at(&self) -> Option<Instant> {
        self.workers.leave_room_at()
    }

    /// libvirtd may have been restarted with another configuration.
    pub fn try_more_connections(&mut self) {
        self.workers.try_more();
    }

    /// Leaves a connection to other clients, where libvirtd lets in too few.
    pub fn leave_room(&mut self) {
        self.workers.leave_room(Instant::now());
    }

    /// Closes the connections that are not in use, until `limit` at the longest. Returns whether the daemon answered.
    pub fn close(&mut self, limit: Instant) -> bool {
        self.workers.close(limit)
    }

    /// Replies that came too late and connections that were lost, since the start.
    pub fn losses(&self) -> (u64, u64) {
        (self.late, self.lost)
    }

    /// An event came, or events come from now on, or no more.
    pub fn on_event_update(&mut self, update: EventUpdate) {
        match update {
            EventUpdate::Live(since, kinds) => {
                self.vms.set_feed(EventFeed::Live(since));
                self.vms.set_io_errors(kinds.io_errors);
                self.vms.set_memory_events(kinds.memory.then_some(since));
            }
            EventUpdate::Down => {
                self.vms.set_feed(EventFeed::Down);
                self.vms.set_io_errors(false);
                self.vms.set_memory_events(None);
            }
            EventUpdate::Event(DomainEvent::DeviceAdded(uuid), at) => {
                self.vms.device_changed(uuid, at);
            }
            EventUpdate::Event(DomainEvent::DeviceRemoved(uuid, alias), at) => {
                self.vms.device_removed(uuid, &alias, at);
            }
            EventUpdate::Event(
                DomainEvent::ImageChanged(uuid)
                | DomainEvent::MetadataChanged(uuid)
                | DomainEvent::TunableChanged(uuid),
                at,
            ) => self.vms.device_changed(uuid, at),
            EventUpdate::Event(DomainEvent::DefinitionChanged(uuid), at) => {
                if self.reads_persistence {
                    self.vms.device_changed(uuid, at);
                }
            }
            EventUpdate::Event(DomainEvent::IoError(error), at) => self.vms.io_error(error, at),
            EventUpdate::Event(DomainEvent::JobCompleted(job), _) => self.vms.job_completed(job),
            EventUpdate::Event(DomainEvent::Panicked(uuid), _) => self.vms.panicked(uuid),
            EventUpdate::Event(DomainEvent::MemoryChanged(uuid), at) => {
                self.vms.memory_changed(uuid, at);
            }
            EventUpdate::Event(DomainEvent::Reset(uuid), at) => self.vms.guest_starts(uuid, at),
            EventUpdate::Event(DomainEvent::Arrived(uuid, id), at) => {
                self.vms.arrived(RunId { uuid, id });
                self.vms.guest_starts(uuid, at);
            }
            EventUpdate::Event(DomainEvent::Stopped(stop), at) => self.vms.stopped(stop, at),
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
