//! Does what the scheduler wants done: gives its calls to workers, and has the host looked at.

use std::time::Instant;

use uuid::Uuid;

use super::Gatherer;
use crate::gather::host_watcher::HostReport;
use crate::gather::protocol::{CallId, Request, WorkerRequest};
use crate::gather::scheduler::{Action, Event};
use crate::gather::worker_pool::Assigned;
use crate::maps::HashMap;
use crate::times::STALL;

impl Gatherer {
    /// Does what the scheduler wants done.
    pub(super) fn carry_out(&mut self) {
        for action in self.scheduler.actions() {
            log::trace!("{action:?}");
            match action {
                Action::Send(call_id, request) => self.send(call_id, request),
                Action::CheckHost(domains) => self.check_host(&domains),
                Action::Withdraw(call_id) => self.workers.withdraw(call_id),
            }
        }
    }

    fn send(&mut self, call_id: CallId, request: Request<Uuid>) {
        if request == Request::List {
            self.vms.list_requested(Instant::now());
        }
        let now = Instant::now();
        let wanted = |name: &str| self.device_filter.nic(name);
        let domain = |uuid: Uuid| self.vms.get(uuid).cloned();
        let target = |uuid: Uuid| self.vms.prepare(uuid, wanted, now);
        // Where the one domain is gone, a call that asks none takes its place.
        let request = request.map(domain, target);
        self.assign(call_id, request.unwrap_or(Request::Probe(Vec::new())));
    }

    fn check_host(&mut self, domains: &[Uuid]) {
        let vms = domains
            .iter()
            .map(|uuid| (*uuid, self.vms.description(*uuid)));
        let online = if self.host_watcher.reads_vcpus() {
            self.vms.vcpus_online()
        } else {
            HashMap::default()
        };
        let asked = self.host_watcher.ask(vms.collect(), online);
        if !self.host_watcher.exists() {
            self.vms.on_other_host();
        }
        let assumed = self.host_watcher.verdict_without_report(domains);
        if asked {
            self.scheduler.assume_of_host(assumed);
        } else {
            // There is no host watcher, or it is still busy with the last query.
            self.scheduler.on_host_checked(assumed, Instant::now());
            self.carry_out();
        }
    }

    fn assign(&mut self, call_id: CallId, request: WorkerRequest) {
        match self.workers.assign(call_id, request) {
            Assigned::Begun => {}
            Assigned::Waits => self.scheduler.queued(call_id),
            Assigned::NoThread => {
                self.report.unasked = true;
                self.scheduler
                    .on(call_id, Event::Unreachable, Instant::now());
            }
        }
    }

    /// Gives the requests of workers that libvirtd does not let in to workers that have a connection, and those that wait to
    /// others in the place of workers that hang.
    pub(super) fn recall(&mut self, now: Instant) {
        if self.recalls {
            for (call_id, begun) in self.workers.recall(now, STALL) {
                match begun {
                    true => self.scheduler.begun(call_id, now),
                    false => self.scheduler.queued(call_id),
                }
            }
        }
        for call_id in self.workers.start_waiting() {
            self.scheduler.begun(call_id, now);
        }
    }

    /// A worker is free and begins this call, which has waited for one.
    pub(super) fn begun(&mut self, call_id: Option<CallId>) {
        if let Some(call_id) = call_id {
            self.scheduler.begun(call_id, Instant::now());
        }
    }

    /// Takes what the host watcher has found.
    pub fn on_host_report(&mut self, mut report: HostReport) {
        let net_dev = report.net_dev.take();
        let cpu_usage = std::mem::take(&mut report.cpu_usage);
        let figures = std::mem::take(&mut report.figures);
        let in_our_netns = std::mem::take(&mut report.in_our_netns);
        self.report.not_started = report.not_started.take();
        if self.host_watcher.accept(report) {
            let net_dev = net_dev.map(|net_dev| (net_dev, in_our_netns));
            self.vms.on_readings(net_dev, cpu_usage, figures);
            let domains: Vec<Uuid> = self.vms.iter().map(|vm| vm.domain.run.uuid).collect();
            let verdict = self.host_watcher.verdict(&domains);
            self.scheduler.on_host_checked(verdict, Instant::now());
            self.carry_out();
        }
    }
}
