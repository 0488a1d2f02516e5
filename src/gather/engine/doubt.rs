//! Calls that bring nothing: who holds them, who is locked, whether the daemon is spent or frozen.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::course::Phase;
use super::order::{Control, Order};
use super::{Engine, Scope};
use crate::gather::ledger::{Call, Kind, Ticket};

/// What clocks and scheduling may make of a time that libvirt measured itself.
const SLACK: Duration = Duration::from_millis(100);

impl Engine {
    /// How long a call of this kind may bring nothing.
    fn patience(&self, kind: Kind) -> Duration {
        let far = self.list_pace * 12;
        match kind {
            Kind::Probe => (self.limits.stall / 2).max(far),
            Kind::List | Kind::Canary | Kind::Urgent => self.limits.stall.max(far),
            Kind::Ask | Kind::Quiet | Kind::Disks | Kind::Describe => {
                self.limits.stall.max(far).max(self.chunk_pace * 3)
            }
        }
    }

    /// Calls that have brought nothing for longer than they should.
    fn stalled(&self, now: Instant) -> Vec<(Ticket, Kind)> {
        if !self.limits.hedge {
            return Vec::new();
        }
        let stalled = |call: &Call| now >= call.heard + self.patience(call.kind);
        self.ledger
            .in_hand()
            .filter(|(_, call)| stalled(call))
            .map(|(ticket, call)| (ticket, call.kind))
            .collect()
    }

    /// When [`Engine::tick`] wants to be called.
    pub fn wake(&self) -> Option<Instant> {
        let course = &self.course;
        let mut times: Vec<Instant> = course.again.iter().map(|(at, _)| *at).collect();
        if course.phase == Phase::Looking {
            times.extend(course.look_by);
        }
        if self.limits.hedge {
            let in_hand = self.ledger.in_hand();
            let in_hand = in_hand.filter(|(ticket, _)| course.probe.is_none_or(|p| p == *ticket));
            times.extend(in_hand.map(|(ticket, call)| {
                let patience = self.patience(call.kind);
                match course.probed.get(&ticket) {
                    Some(at) => *at + 2 * patience,
                    None => call.heard + patience,
                }
            }));
        }
        times.into_iter().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.look_into(now);
        self.advance(now);
    }

    /// Sends a probe where calls stall, and makes something of a probe that stalls itself.
    fn look_into(&mut self, now: Instant) {
        let stalled = self.stalled(now);
        if let Some(probe) = self.course.probe {
            if stalled.iter().any(|(ticket, _)| *ticket == probe) {
                self.on_probe_stalled(probe, now);
            }
            return;
        }
        let due = |(ticket, kind): &(Ticket, Kind)| {
            let probed = self.course.probed.get(ticket);
            probed.is_none_or(|at| now >= *at + 2 * self.patience(*kind))
        };
        let due: Vec<(Ticket, Kind)> = stalled.into_iter().filter(due).collect();
        if due.is_empty() {
            return;
        }
        let mut whom: Vec<Uuid> = Vec::new();
        for call in due
            .iter()
            .filter_map(|(ticket, _)| self.ledger.get(*ticket))
        {
            whom.extend(&call.asked);
        }
        if due
            .iter()
            .any(|(_, kind)| matches!(kind, Kind::List | Kind::Canary))
        {
            let others = self.listed.iter().map(|listed| listed.uuid);
            let others: Vec<Uuid> = others.filter(|uuid| !whom.contains(uuid)).collect();
            whom.extend(others);
        }
        let suspect = self.course.suspect.map(|(suspect, _)| suspect);
        whom.retain(|uuid| !self.is_locked(*uuid) && suspect != Some(*uuid));
        self.probe(whom, now);
    }

    fn probe(&mut self, whom: Vec<Uuid>, now: Instant) {
        if !whom.is_empty() && self.ledger.room(false) > 0 {
            let order = Order::Probe(whom.clone());
            self.course.alive = false;
            self.course.probe = Some(self.send(Kind::Probe, whom, order, now));
        } else {
            // Too many calls are out already; or nobody is known yet, and the list must be waited for.
            for (ticket, _) in self.stalled(now) {
                self.course.probed.insert(ticket, now);
            }
        }
    }

    /// The daemon answers: whoever another probe did not come back from is locked.
    pub(super) fn on_alive(&mut self, ticket: Ticket, now: Instant) {
        if let Some(call) = self.ledger.get_mut(ticket) {
            call.heard = now;
        }
        if self.course.probe == Some(ticket) {
            self.course.alive = true;
            self.lock_suspect();
        }
    }

    fn lock_suspect(&mut self) {
        if let Some((suspect, by)) = self.course.suspect.take() {
            self.lock(suspect, by);
        }
    }

    /// A probe's answer for one domain.
    pub(super) fn on_control(
        &mut self,
        ticket: Ticket,
        uuid: Uuid,
        control: Control,
        now: Instant,
    ) {
        self.on_served(ticket, uuid, now);
        self.ledger.cleared(uuid, control == Control::Free);
        if self.course.probe != Some(ticket) {
            return;
        }
        self.lock_suspect();
        let Control::Occupied(time) = control else {
            return;
        };
        if self
            .course
            .occupied
            .is_none_or(|(_, longest)| time > longest)
        {
            self.course.occupied = Some((uuid, time));
        }
        let stall = self.limits.stall;
        let culprit = self.ledger.in_hand().find(|(_, call)| {
            let age = now - call.since;
            // Occupied by our call, not by somebody's before it: that one would have been passed by.
            call.kind.needs_monitor()
                && call.asked.contains(&uuid)
                && time >= stall / 2
                && time <= age + SLACK
        });
        if let Some((ticket, _)) = culprit {
            self.give_up(ticket, uuid);
        }
    }

    /// A domain is locked inside libvirtd: whoever asks it hangs. `by` is our call that shows it.
    fn lock(&mut self, uuid: Uuid, by: Ticket) {
        self.standings.entry(uuid).or_default().locked = Some(by);
        self.course.vms.remove(&uuid);
        self.course.urgent.retain(|u| *u != uuid);
        self.course.disks.retain(|u| *u != uuid);
        if let Some(undescribed) = &mut self.course.undescribed {
            undescribed.retain(|u| *u != uuid);
        }
        let asks_it =
            |(ticket, call): (Ticket, &Call)| call.asked.contains(&uuid).then_some(ticket);
        let hung: Vec<Ticket> = self.ledger.in_hand().filter_map(asks_it).collect();
        for ticket in hung {
            self.give_up(ticket, uuid);
        }
    }

    /// Sets a call aside and asks again whom it asked: who is held or locked is passed by.
    fn give_up(&mut self, ticket: Ticket, blames: Uuid) {
        let Some(call) = self.ledger.get(ticket).cloned() else {
            return;
        };
        self.ledger.set_aside(ticket, Some(blames));
        let locked = self.is_locked(blames);
        let others = call
            .asked
            .iter()
            .copied()
            .filter(|u| !locked || *u != blames);
        match call.kind {
            Kind::Ask => {
                // In halves: who else hangs shows sooner, and who answers is sooner on his own.
                let others: Vec<Uuid> = others.collect();
                let (one, other) = others.split_at(others.len() / 2);
                self.requeue(other);
                self.requeue(one);
            }
            Kind::Quiet => self.requeue(&others.collect::<Vec<_>>()),
            Kind::Urgent => self.course.urgent.extend(others),
            Kind::Describe => {
                let undescribed = self.course.undescribed.get_or_insert_default();
                undescribed.extend(others);
            }
            Kind::Canary if self.course.phase == Phase::Canary => self.start(),
            Kind::List | Kind::Canary | Kind::Disks | Kind::Probe => {}
        }
    }

    /// Asks these again, before anybody else.
    pub(super) fn requeue(&mut self, domains: &[Uuid]) {
        for scope in [Scope::Quiet, Scope::NoBlock, Scope::Full] {
            let vms = &self.course.vms;
            let of_scope = |u: &&Uuid| vms.get(u).is_some_and(|vm| vm.scope == scope);
            let batch: Vec<Uuid> = domains.iter().filter(of_scope).copied().collect();
            if !batch.is_empty() {
                self.course.queue.push_front((scope, batch));
            }
        }
    }

    /// The probe has been round.
    pub(super) fn on_probed(&mut self, now: Instant) {
        self.lock_suspect();
        let stalled = self.stalled(now);
        let of = |wanted: Kind| stalled.iter().find(|s| s.1 == wanted).map(|s| s.0);
        if let Some(list) = of(Kind::List) {
            // It hangs on a locked domain, or is slow: the domains last known serve.
            self.ledger.set_aside(list, None);
            self.course.phase = Phase::Describing;
        }
        let ordinary =
            |kind: Kind| kind.needs_monitor() || matches!(kind, Kind::Quiet | Kind::Describe);
        if let Some(canary) = of(Kind::Canary) {
            // Nobody is to blame: libvirtd has no worker to spare.
            self.ledger.set_aside(canary, None);
            self.course.stop();
            self.ask_urgently();
        } else if stalled.iter().any(|(_, kind)| ordinary(*kind)) {
            // Slow, or is there no worker left? A cheap call will tell.
            self.send_canary(now);
        }
        for (ticket, _) in stalled {
            self.course.probed.insert(ticket, now);
        }
    }

    /// A probe that does not come back from a domain: the domain is locked, if another probe does
    /// come back from others; else the daemon is frozen.
    fn on_probe_stalled(&mut self, probe: Ticket, now: Instant) {
        let Some(call) = self.ledger.get(probe).cloned() else {
            return;
        };
        let Some(first) = call.asked.first().copied() else {
            return;
        };
        self.ledger.set_aside(probe, Some(first));
        self.course.probe = None;
        if self.course.alive {
            self.lock(first, probe);
        } else if let Some((_, before)) = self.course.suspect {
            self.freeze(&[before, probe]);
            return;
        } else {
            self.course.suspect = Some((first, probe));
        }
        let mut rest: Vec<Uuid> = call.asked.into_iter().skip(1).collect();
        rest.retain(|uuid| !self.is_locked(*uuid));
        if rest.is_empty() {
            let others = self.listed.iter().map(|listed| listed.uuid);
            let other = others.filter(|u| *u != first && !self.is_locked(*u));
            rest.extend(other.take(1));
        }
        self.probe(rest, now);
    }

    /// Nothing comes back from anybody, these probes least of all.
    fn freeze(&mut self, probes: &[Ticket]) {
        self.frozen = true;
        self.course.stop();
        for ticket in self.tickets_in_hand().iter().chain(probes) {
            self.ledger.excuse(*ticket);
        }
    }

    /// A locked domain whose hanging call was lost with its connection would never be heard of
    /// again: another call takes that one's place.
    pub(super) fn watch_locks(&mut self, now: Instant) {
        let unwatched = |by: &Ticket| self.ledger.get(*by).is_none();
        let locked = self.standings.iter();
        let locked = locked.filter(|(_, s)| s.locked.as_ref().is_some_and(unwatched));
        for uuid in locked.map(|(uuid, _)| *uuid).collect::<Vec<_>>() {
            if self.ledger.room(true) > 0 {
                let order = Order::Probe(vec![uuid]);
                let ticket = self.send(Kind::Probe, vec![uuid], order, now);
                self.ledger.set_aside(ticket, Some(uuid));
                self.standings.entry(uuid).or_default().locked = Some(ticket);
            }
        }
    }
}
