//! How the simulated libvirtd serves its calls.

use std::collections::BTreeMap;

use telegraf_kvm::gather::protocol::{AskedMonitor, CallId, Completeness, Monitor, Request, Scope};
use telegraf_kvm::gather::scheduler::{Event, Listed};
use uuid::Uuid;

use super::daemon::{Daemon, Dead, JobOwner, KEEPALIVE, Ms, SimCall};

/// The numbers of libvirtd's ordinary and priority workers, which serve all clients. Priority workers take
/// only calls that cannot take long.
const WORKERS: (usize, usize) = (20, 5);
const CORES: u64 = 2;
impl Daemon {
    /// Advances the time to `now`; calls are worked on only in the last millisecond of it.
    pub fn run(&mut self, now: Ms) {
        self.now = now;
        self.moved = false;
        if self.is_away() {
            for (call_id, _) in std::mem::take(&mut self.calls) {
                self.events.push((call_id, Event::Unreachable));
            }
            return;
        }
        if let Some(stopped) = self.stopped {
            if now >= stopped + KEEPALIVE {
                // A connection that is still being opened keeps waiting.
                let old: Vec<CallId> = self
                    .calls
                    .iter()
                    .filter(|(_, c)| c.since < stopped + KEEPALIVE)
                    .map(|(t, _)| *t)
                    .collect();
                self.cut(|call_id| old.contains(&call_id));
                self.moved = false;
            }
            return;
        }
        let mut calls = std::mem::take(&mut self.calls);
        self.assign_workers(&mut calls);
        let at_work = calls
            .values()
            .filter(|c| c.has_worker && c.blocked.is_none())
            .count() as u64;
        let share = (1000 * CORES / at_work.max(CORES)) / self.slowness;
        calls.retain(|call_id, call| {
            let over = call.has_worker && self.work(*call_id, call, share);
            !over
        });
        self.calls = calls;
    }

    fn assign_workers(&mut self, calls: &mut BTreeMap<CallId, SimCall>) {
        let busy = |priority: bool, calls: &BTreeMap<CallId, SimCall>| {
            let of = |c: &&SimCall| c.has_worker && c.request.kind().is_priority() == priority;
            calls.values().filter(of).count()
        };
        let locked = self
            .vms
            .values()
            .filter(|vm| vm.exists && vm.locked)
            .count();
        let mut ordinary = WORKERS
            .0
            .saturating_sub(busy(false, calls) + self.others + locked);
        let busy_priority_workers = busy(true, calls);
        let mut free_priority_workers = WORKERS.1.saturating_sub(busy_priority_workers);
        ordinary = ordinary.saturating_sub(busy_priority_workers.saturating_sub(WORKERS.1));
        for call in calls.values_mut().filter(|call| !call.has_worker) {
            let pool = if call.request.kind().is_priority() && free_priority_workers > 0 {
                &mut free_priority_workers
            } else {
                &mut ordinary
            };
            if *pool > 0 {
                *pool -= 1;
                call.has_worker = true;
                call.blocked = None;
                self.moved = true;
            } else {
                call.blocked.get_or_insert(self.now);
            }
        }
    }

    /// Does a millisecond's work on a call. Returns whether the call is finished.
    fn work(&mut self, call_id: CallId, call: &mut SimCall, share: u64) -> bool {
        let mut budget = share;
        if matches!(call.request, Request::Probe(_)) && call.connected && !call.reported {
            call.reported = true;
            self.events.push((call_id, Event::Alive));
        }
        loop {
            let next = call.left.front().copied();
            if self.blocks(call_id, call, next) {
                call.blocked.get_or_insert(self.now);
                return false;
            }
            call.blocked = None;
            self.moved = true;
            let passed_by = next.is_some_and(|uuid| !self.holds_job(call_id, call, uuid));
            let cost = self.cost(call, passed_by);
            if call.work_done + budget < cost {
                call.work_done += budget;
                return false;
            }
            budget -= cost.saturating_sub(call.work_done);
            call.work_done = 0;
            let Some(uuid) = call.left.pop_front() else {
                self.finish(call_id, call);
                return true;
            };
            self.served(call_id, call, uuid, passed_by);
        }
    }

    /// Whether the call cannot proceed with this VM for now. Takes the VM's job if it is free.
    fn blocks(&mut self, call_id: CallId, call: &SimCall, next: Option<Uuid>) -> bool {
        let Some(uuid) = next else {
            return call.request == Request::List
                && self.vms.keys().any(|uuid| self.is_locked(*uuid));
        };
        let held_by_others = self.is_held_by_others(uuid);
        let vm = self.vms.get_mut(&uuid).unwrap();
        if !vm.exists {
            return false;
        }
        if vm.locked || vm.locked_by.is_some() {
            return true;
        }
        if matches!(call.request, Request::Describe(_)) {
            let held = vm.job.is_some() || held_by_others;
            // libvirtd checks this once, at the start of the call: a call that already waits keeps waiting.
            let withheld = call.blocked.is_none() && self.is_withheld(uuid);
            return self.xml_takes_job && held && !withheld;
        }
        let vm = self.vms.get_mut(&uuid).unwrap();
        let (monitor, waits) = match &call.request {
            Request::Statistics { scope, .. } => (*scope != Scope::NoMonitor, false),
            Request::Disks(_) => (true, true),
            Request::Extra(_) => (true, false),
            _ => (false, false),
        };
        if !monitor {
            return false;
        }
        let ours = matches!(vm.job, Some(JobOwner::Ours(by, _)) if by == call_id);
        if !ours && (vm.job.is_some() || held_by_others) {
            return waits;
        }
        // A VM that was skipped stays skipped until the call has passed it.
        if !ours && call.work_done > 0 {
            return false;
        }
        vm.job.get_or_insert(JobOwner::Ours(call_id, self.now));
        match vm.dead {
            Some(Dead::Sparse) if asks_blocks(&call.request) => {
                vm.locked_by = Some(call_id);
                return true;
            }
            Some(Dead::Written) if asks_blocks(&call.request) => {
                vm.frozen = true;
            }
            _ => {}
        }
        vm.frozen
    }

    /// Before it reads XML, a worker checks whether the VM's monitor is in use, and does not wait for a
    /// command that has been in it for long.
    fn is_withheld(&self, uuid: Uuid) -> bool {
        let vm = &self.vms[&uuid];
        let since = match vm.job {
            Some(JobOwner::Ours(_, since) | JobOwner::Others(since)) => since,
            None => return false,
        };
        vm.exists && !vm.async_job && self.now >= since + 100
    }

    fn holds_job(&self, call_id: CallId, call: &SimCall, uuid: Uuid) -> bool {
        let scope = scope(&call.request);
        let is_extra = matches!(call.request, Request::Extra(_));
        let monitor = is_extra || scope.is_some_and(|scope| scope != Scope::NoMonitor);
        let job = self.vms[&uuid].job;
        !monitor || matches!(job, Some(JobOwner::Ours(by, _)) if by == call_id)
    }

    fn is_held_by_others(&self, uuid: Uuid) -> bool {
        let vm = &self.vms[&uuid];
        let phase = (uuid.as_u128() as Ms) * 7;
        matches!(vm.job, Some(JobOwner::Others(_)))
            || vm
                .busy
                .is_some_and(|(held, of)| (self.now + phase) % of < held)
    }

    /// Microseconds that the next piece of the call takes.
    fn cost(&self, call: &SimCall, passed_by: bool) -> u64 {
        let Some(uuid) = call.left.front() else {
            return match call.request {
                Request::List => 1200 + 10 * self.vms.len() as u64,
                _ => 300,
            };
        };
        if !self.vms[uuid].exists {
            return 50;
        }
        match &call.request {
            Request::Statistics { scope, .. } => match scope {
                Scope::Full if !passed_by => 7000,
                Scope::NoBlock if !passed_by => 4400,
                _ => 1000,
            },
            Request::Disks(_) => 3000,
            Request::Extra(_) if !passed_by => 2000,
            Request::Extra(_) => 300,
            Request::Describe(_) => 400,
            Request::Priority(_) => 500,
            Request::Canary(_) | Request::Probe(_) | Request::List => 110,
        }
    }

    fn served(&mut self, call_id: CallId, call: &mut SimCall, uuid: Uuid, passed_by: bool) {
        let now = self.now;
        let withheld = self.is_withheld(uuid);
        let vm = self.vms.get_mut(&uuid).unwrap();
        let event = match &call.request {
            Request::Probe(_) => {
                let since = match vm.job.filter(|_| vm.exists) {
                    Some(JobOwner::Ours(_, since) | JobOwner::Others(since)) => Some(since),
                    None => None,
                };
                let control = match since {
                    Some(_) if vm.async_job => Monitor::Job,
                    Some(since) => Monitor::Occupied(std::time::Duration::from_millis(now - since)),
                    None => Monitor::Free,
                };
                Some(Event::Control(uuid, control))
            }
            Request::Describe(_) if vm.exists && withheld => Some(Event::MonitorHeld(uuid)),
            Request::Describe(_) if vm.exists => {
                if call.connected {
                    self.described.insert(uuid);
                }
                Some(Event::Described(uuid))
            }
            Request::Priority(_) if vm.exists => Some(Event::Served(uuid)),
            _ => None,
        };
        if matches!(vm.job, Some(JobOwner::Ours(by, _)) if by == call_id) {
            vm.job = None;
        }
        let lacks = matches!(call.request, Request::Extra(_)) && vm.bare;
        if vm.exists {
            call.completeness.push((
                uuid,
                if passed_by || lacks {
                    Completeness::Partial
                } else {
                    Completeness::Full
                },
            ));
        }
        if call.connected {
            self.events.extend(event.map(|event| (call_id, event)));
        }
    }

    fn finish(&mut self, call_id: CallId, call: &mut SimCall) {
        let event = match &call.request {
            Request::List => {
                let exists = self.vms.iter().filter(|(_, vm)| vm.exists);
                let listed = |uuid: &Uuid| Listed {
                    uuid: *uuid,
                    described: self.described.contains(uuid),
                };
                Event::Listed(exists.map(|(uuid, _)| listed(uuid)).collect())
            }
            Request::Statistics { .. } => Event::Samples(std::mem::take(&mut call.completeness)),
            Request::Extra(_) => {
                let came = call.completeness.iter().map(|(uuid, came)| match came {
                    Completeness::Full => (*uuid, AskedMonitor::Yes),
                    _ => (*uuid, AskedMonitor::PerhapsNot),
                });
                Event::Extra(came.collect())
            }
            _ => Event::Done,
        };
        if call.connected {
            self.events.push((call_id, event));
        }
    }
}

/// The scope of a call for statistics.
fn scope(request: &Request<Uuid>) -> Option<Scope> {
    match request {
        Request::Statistics { scope, .. } => Some(*scope),
        _ => None,
    }
}

/// Whether the call touches the images.
fn asks_blocks(request: &Request<Uuid>) -> bool {
    scope(request) == Some(Scope::Full)
}
