//! Who is asked what, and when.

use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::interface::Action;
use super::round::{Phase, Vm};
use crate::gather::in_flight::Call;
use crate::gather::protocol::{Request, RequestKind, Risk, Scope};
use crate::maps::HashSet;

/// How many new domains are described in one gather; the others' disks wait for the next one.
const DESCRIBED: usize = 1000;

impl Scheduler {
    /// Does what can be done now.
    pub(super) fn advance(&mut self, now: Instant) {
        if self.round.phase == Phase::Describing {
            self.describe(now);
        }
        if self.round.phase == Phase::Looking && self.round.look_by.is_some_and(|by| now >= by) {
            // The host does not say: what was taken for granted must do, and calls are hedged.
            self.after_look(now);
        }
        self.round.recheck_until.take_if(|until| now >= *until);
        self.end_grace(now);
        self.watch_locks(now);
        match self.round.phase {
            Phase::Asking => self.hand_out(now),
            Phase::Saturated => self.hand_out_priority(now),
            _ => {}
        }
    }

    /// New domains are described first: where their disks lie is to be known before anybody
    /// touches them. Without hedging a call describes as it goes.
    fn describe(&mut self, now: Instant) {
        if !self.limits.hedge {
            self.after_look(now);
            return;
        }
        let mut undescribed = match self.round.undescribed.take() {
            Some(undescribed) => undescribed,
            None => self.new_domains(),
        };
        if self.in_flight.hangs(RequestKind::Canary) {
            // libvirtd has no worker that could read XML.
            undescribed.clear();
        }
        while !undescribed.is_empty()
            && self.at_work() < self.limits.workers
            && self.in_flight.room(Risk::Ordinary) > 0
        {
            let rest = undescribed.split_off(undescribed.len().min(self.limits.chunk));
            let chunk = std::mem::replace(&mut undescribed, rest);
            self.send(Request::Describe(chunk), now);
        }
        let hopeless =
            self.in_flight.room(Risk::Ordinary) == 0 && self.in_flight.in_hand().next().is_none();
        let left = !undescribed.is_empty()
            || self.in_flight.count(|kind| kind == RequestKind::Describe) > 0;
        let waiting = left && !hopeless;
        self.round.undescribed = Some(undescribed);
        if !waiting {
            let listed = self.listed.iter().map(|listed| listed.uuid).collect();
            self.actions.push(Action::LookAtHost(listed));
            self.round.phase = Phase::Looking;
            self.round.look_by = Some(now + self.limits.look);
        }
    }

    /// The domains to describe. Of all that are new it is noted that nothing is known of them yet.
    fn new_domains(&mut self) -> Vec<Uuid> {
        let new = self.listed.iter().filter(|listed| !listed.described);
        let new: Vec<Uuid> = new.map(|listed| listed.uuid).collect();
        self.round.unknown = new.iter().copied().collect();
        // While a call of ours hangs on one, another would wait behind it.
        let is_held = |uuid: &Uuid| self.in_flight.describes(*uuid) || self.in_flight.holds(*uuid);
        let held = new.iter().copied().filter(is_held).collect();
        let free = |uuid: &Uuid| !self.is_locked(*uuid) && !is_held(uuid);
        let free = new.into_iter().filter(free).take(DESCRIBED).collect();
        self.round.held = held;
        free
    }

    /// The host has been looked at; a canary goes first.
    pub(super) fn after_look(&mut self, now: Instant) {
        for uuid in self
            .listed
            .iter()
            .map(|listed| listed.uuid)
            .collect::<Vec<_>>()
        {
            if !self.is_locked(uuid) {
                self.enter(uuid);
            }
        }
        // Whoever a lost call may hang on: if nobody is at its monitor, it does not.
        let mut suspects = self.in_flight.suspects();
        suspects.retain(|uuid| self.round.vms.contains_key(uuid));
        if !suspects.is_empty() && self.round.probe.is_none() {
            self.probe(suspects.into_iter().collect(), now);
        }
        if self.in_flight.hangs(RequestKind::Canary) {
            self.ask_by_priority_calls();
        } else if self.limits.hedge && self.send_canary(now) {
            self.round.phase = Phase::Canary;
        } else {
            self.start();
        }
    }

    /// Takes the domain up into this gather; returns how much is to be asked of it.
    pub(super) fn enter(&mut self, uuid: Uuid) -> Scope {
        let round = &self.round;
        let scope = if round.look.stuck.contains(&uuid) || round.held.contains(&uuid) {
            Scope::NoMonitor
        } else if round.look.no_block.contains(&uuid) || round.unknown.contains(&uuid) {
            Scope::NoBlock
        } else {
            Scope::Full
        };
        let vm = Vm {
            scope,
            tries: 0,
            completeness: None,
        };
        self.round.vms.insert(uuid, vm);
        scope
    }

    /// One cheap ordinary call, to a domain that is likely to answer; `false` if there is none.
    pub(super) fn send_canary(&mut self, now: Instant) -> bool {
        let out = self.in_flight.count(|kind| kind == RequestKind::Canary) > 0
            || self.in_flight.hangs(RequestKind::Canary);
        if out || self.in_flight.room(Risk::Ordinary) == 0 {
            return false;
        }
        let fit = |uuid: &Uuid| !self.in_flight.holds(*uuid) && !self.is_locked(*uuid);
        let whole_at = |uuid: &Uuid| self.histories.get(uuid).and_then(|s| s.whole_at);
        let vms = self.round.vms.iter();
        let able = vms.filter(|(_, vm)| vm.scope != Scope::NoMonitor);
        let able = able.map(|(uuid, _)| *uuid).filter(fit);
        // While VMs are being described none has been taken up yet.
        let listed = self.listed.iter().map(|listed| listed.uuid);
        let listed = listed.filter(|_| self.round.vms.is_empty()).filter(fit);
        let Some(canary) = able.chain(listed).max_by_key(whole_at) else {
            return false;
        };
        self.send(Request::Canary(canary), now);
        true
    }

    /// The statistics: who needs the monitor first, who is stuck last. Who has been asked already,
    /// before the daemon had no worker to spare, is left out.
    pub(super) fn start(&mut self) {
        self.round.phase = Phase::Asking;
        let statistics = |call: &Call| matches!(call.kind, RequestKind::Statistics(_));
        let asked = self
            .in_flight
            .in_hand()
            .filter(|(_, call)| statistics(call));
        let asked: HashSet<Uuid> = asked.flat_map(|(_, call)| call.asked.clone()).collect();
        let vms = self.round.vms.iter();
        let left = vms.filter(|(uuid, vm)| vm.completeness.is_none() && !asked.contains(*uuid));
        self.round.queue.clear();
        for scope in Scope::ALL {
            let of_scope = left.clone().filter(|(_, vm)| vm.scope == scope);
            let domains: Vec<Uuid> = of_scope.map(|(uuid, _)| *uuid).collect();
            for chunk in domains.chunks(self.limits.chunk) {
                self.round.queue.push_back((scope, chunk.to_vec()));
            }
        }
    }

    /// Everybody who has not answered is asked by priority calls.
    pub(super) fn ask_by_priority_calls(&mut self) {
        self.round.phase = Phase::Saturated;
        let vms = &self.round.vms;
        let silent = |uuid: &Uuid| vms.get(uuid).is_none_or(|vm| vm.completeness.is_none());
        let listed = self.listed.iter().map(|listed| listed.uuid);
        let urgent = listed.filter(|uuid| !self.is_locked(*uuid) && silent(uuid));
        self.round.priority = urgent.collect();
    }

    fn hand_out_priority(&mut self, now: Instant) {
        let idle = self.in_flight.count(|kind| kind == RequestKind::Priority) == 0
            && self.in_flight.room(Risk::Priority) > 0;
        if idle && !self.round.priority.is_empty() {
            let whom = std::mem::take(&mut self.round.priority);
            self.send(Request::Priority(whom), now);
        }
    }

    fn hand_out(&mut self, now: Instant) {
        let again = &mut self.round.again;
        let due = again.iter().filter(|(at, _)| *at <= now);
        let due: Vec<Uuid> = due.map(|(_, uuid)| *uuid).collect();
        again.retain(|(at, _)| *at > now);
        for chunk in due.chunks(self.limits.chunk) {
            self.requeue(chunk);
        }
        while self.at_work() < self.limits.workers {
            let sent = if let Some((scope, domains)) = self.round.queue.pop_front() {
                self.ask(scope, domains, now)
            } else if let Some(uuid) = self.round.disks.pop_front() {
                self.ask_disks(uuid, now)
            } else {
                false
            };
            if !sent {
                break;
            }
        }
        let stuck =
            self.in_flight.room(Risk::Ordinary) == 0 && self.in_flight.in_hand().next().is_none();
        if stuck && self.round.grace_until.is_none() {
            // As many hang as may: nobody can be asked, and nothing is there to wait for.
            self.round.stop();
        }
    }

    fn at_work(&self) -> usize {
        self.in_flight.count(|kind| {
            matches!(
                kind,
                RequestKind::Statistics(_) | RequestKind::Disks | RequestKind::Describe
            )
        })
    }

    /// Whether it answered since the trouble began, or cannot make a call hang.
    fn is_trusted(&self, uuid: Uuid) -> bool {
        let Some(hanging_since) = self.in_flight.hanging_since() else {
            return true;
        };
        let whole_at = self.histories.get(&uuid).and_then(|s| s.whole_at);
        whole_at.is_some_and(|at| at >= hanging_since) || self.in_flight.holds(uuid)
    }

    /// Sends a batch, or puts it back; `false` when nothing more can be sent now.
    fn ask(&mut self, scope: Scope, domains: Vec<Uuid>, now: Instant) -> bool {
        let kind = RequestKind::Statistics(scope);
        let risky = |uuid: &Uuid| kind.needs_monitor() && !self.is_trusted(*uuid);
        let (risky, safe): (Vec<Uuid>, Vec<Uuid>) = domains.into_iter().partition(risky);
        if self.in_flight.room(kind.risk(risky.is_empty())) > 0 {
            let request = Request::Statistics {
                of: safe.into_iter().chain(risky).collect(),
                scope,
                active: self.listed.len(),
            };
            self.send(request, now);
            return true;
        }
        let busy = self.in_flight.in_hand().next().is_some();
        if risky.is_empty() || busy || self.round.grace_until.is_some() {
            // Calls that will return, or may yet, take up the room.
            let domains = safe.into_iter().chain(risky).collect();
            self.round.queue.push_front((scope, domains));
            return false;
        }
        // They might hang the last calls that we may make: what needs no monitor must do.
        for uuid in &risky {
            if let Some(vm) = self.round.vms.get_mut(uuid) {
                vm.scope = Scope::NoMonitor;
            }
        }
        self.round.queue.push_back((Scope::NoMonitor, risky));
        if !safe.is_empty() {
            self.round.queue.push_front((scope, safe));
        }
        true
    }

    fn ask_disks(&mut self, uuid: Uuid, now: Instant) -> bool {
        let risk = RequestKind::Disks.risk(self.is_trusted(uuid));
        if self.in_flight.room(risk) == 0 {
            let waiting = self.in_flight.in_hand().next().is_some();
            if waiting {
                self.round.disks.push_front(uuid);
            }
            return !waiting;
        }
        self.send(Request::Disks(uuid), now);
        true
    }
}
