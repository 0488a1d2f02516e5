//! What the scheduler orders, carried out: who is asked, by which job, and who looks at the host.

use std::time::Instant;

use uuid::Uuid;

use super::Gatherer;
use crate::gather::host_watcher::HostReport;
use crate::gather::in_flight::CallId;
use crate::gather::job::{DomainRef, Job, Target};
use crate::gather::scheduler::{Event, Order};
use crate::gather::worker_pool::Assigned;
use crate::times::STALL;

impl Gatherer {
    /// Carries out what the scheduler orders.
    pub(super) fn carry_out(&mut self) {
        for (call_id, order) in self.scheduler.orders() {
            log::trace!("call {call_id}: {order:?}");
            let job = match order {
                Order::Withdraw => {
                    self.workers.withdraw(call_id);
                    continue;
                }
                Order::LookAtHost(domains) => {
                    self.look(&domains);
                    continue;
                }
                Order::List => {
                    self.vms.list_requested(Instant::now());
                    Job::List
                }
                Order::Describe(domains) => Job::Describe(self.domains(&domains)),
                Order::Canary(domain) => match self.vms.get(domain) {
                    Some(found) => Job::Canary(found.clone()),
                    None => Job::Probe(Vec::new()),
                },
                Order::Ask(domains, scope) => Job::Ask {
                    targets: self.targets(&domains),
                    scope,
                    active: self.vms.len(),
                },
                Order::Disks(domain) => match self.targets(&[domain]).pop() {
                    Some(target) => Job::Disks(target),
                    None => Job::Probe(Vec::new()),
                },
                Order::Probe(domains) => Job::Probe(self.domains(&domains)),
                Order::Priority(domains) => Job::Priority(self.targets(&domains)),
            };
            self.assign(call_id, job);
        }
    }

    fn look(&mut self, domains: &[Uuid]) {
        let vms = domains.iter();
        let vms = vms.map(|uuid| (*uuid, self.vms.description(*uuid)));
        let asked = self.host_watcher.ask(vms.collect());
        let presumed = self.host_watcher.verdict_without_report(domains);
        if asked {
            self.scheduler.presume(presumed);
        } else {
            // Nobody to ask, or still at the last question.
            self.scheduler.looked(presumed, Instant::now());
            self.carry_out();
        }
    }

    fn assign(&mut self, call_id: CallId, job: Job) {
        match self.workers.assign(call_id, job) {
            Assigned::Begun => {}
            Assigned::Waits => self.scheduler.queued(call_id),
            Assigned::NoThread => {
                self.gathered.unasked = true;
                self.scheduler
                    .on(call_id, Event::Unreachable, Instant::now());
            }
        }
    }

    /// Takes back the jobs of workers that libvirtd does not let in, for those that have a connection.
    pub(super) fn recall(&mut self, now: Instant) {
        if self.recalls {
            for (call_id, begun) in self.workers.recall(now, STALL) {
                match begun {
                    true => self.scheduler.begun(call_id, now),
                    false => self.scheduler.queued(call_id),
                }
            }
        }
    }

    /// A worker is free, and this job of those that waited is begun by it.
    pub(super) fn begun(&mut self, call_id: Option<CallId>) {
        if let Some(call_id) = call_id {
            self.scheduler.begun(call_id, Instant::now());
        }
    }

    /// What the host watcher has seen.
    pub fn on_host_report(&mut self, mut seen: HostReport) {
        let (taps, cpus) = (seen.net_dev.take(), std::mem::take(&mut seen.cpu_usage));
        let in_our_netns = std::mem::take(&mut seen.in_our_netns);
        self.gathered.not_started = seen.not_started.take();
        if self.host_watcher.accept(seen) {
            let net_dev = taps.map(|net_dev| (net_dev, in_our_netns));
            self.vms.on_readings(net_dev, cpus);
            let domains: Vec<Uuid> = self.vms.iter().map(|vm| vm.domain.run.uuid).collect();
            let look = self.host_watcher.verdict(&domains);
            self.scheduler.looked(look, Instant::now());
            self.carry_out();
        }
    }

    fn domains(&self, domains: &[Uuid]) -> Vec<DomainRef> {
        let found = domains.iter().filter_map(|uuid| self.vms.get(*uuid));
        found.cloned().collect()
    }

    fn targets(&self, domains: &[Uuid]) -> Vec<Target> {
        let now = Instant::now();
        let wanted = |name: &str| self.devices.matches(name);
        let prepared = domains
            .iter()
            .filter_map(|uuid| self.vms.prepare(*uuid, wanted, now));
        prepared
            .map(|prepared| Target {
                found: prepared.domain,
                known: prepared.known,
                nics: prepared.nics,
                processor: prepared.processor,
            })
            .collect()
    }
}
