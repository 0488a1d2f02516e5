//! Domains on which calls hang: a locked domain is left out, and the domains that were asked by the
//! same call are asked again.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::interface::Action;
use super::phases::Phase;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Request, RequestKind, Scope};
use crate::maps::HashSet;

/// The domains that are locked inside libvirtd: nothing is asked of them until they are unlocked.
#[derive(Debug, Default)]
pub(super) struct Locks {
    /// By domain our call that hangs on its lock. When that returns, the domain is unlocked.
    shown_by: BTreeMap<Uuid, CallId>,
    /// Domains for which a call was sent in this gather that returns when they are unlocked.
    watched: HashSet<Uuid>,
}

impl Locks {
    /// A gather begins.
    pub(super) fn begin(&mut self) {
        self.watched.clear();
    }

    pub(super) fn has(&self, uuid: Uuid) -> bool {
        self.shown_by.contains_key(&uuid)
    }

    pub(super) fn domains(&self) -> impl Iterator<Item = Uuid> {
        self.shown_by.keys().copied()
    }

    fn add(&mut self, uuid: Uuid, shown_by: CallId) {
        self.shown_by.insert(uuid, shown_by);
    }

    /// Domains whose call has been lost with its connection, and for which none was sent in this gather.
    fn unwatched(&self, hangs: impl Fn(CallId) -> bool) -> Vec<Uuid> {
        self.shown_by
            .iter()
            .filter(|(uuid, shown_by)| !hangs(**shown_by) && !self.watched.contains(uuid))
            .map(|(uuid, _)| *uuid)
            .collect()
    }

    /// This call was sent in the place of one that was lost.
    fn watch(&mut self, uuid: Uuid, shown_by: CallId) {
        self.watched.insert(uuid);
        self.add(uuid, shown_by);
    }

    /// The domain is unlocked; whether it was locked.
    pub(super) fn remove(&mut self, uuid: Uuid) -> bool {
        self.shown_by.remove(&uuid).is_some()
    }

    /// The call has returned: the domains on whose locks it hung are unlocked.
    pub(super) fn remove_shown_by(&mut self, call_id: CallId) -> Vec<Uuid> {
        let mut unlocked = Vec::new();
        self.shown_by.retain(|uuid, shown_by| {
            let stays = *shown_by != call_id;
            if !stays {
                unlocked.push(*uuid);
            }
            stays
        });
        unlocked
    }

    /// Forgets the domains that are not `active` any more.
    pub(super) fn retain(&mut self, active: impl Fn(&Uuid) -> bool) {
        self.shown_by.retain(|uuid, _| active(uuid));
    }
}

impl Scheduler {
    /// The domain is locked inside libvirtd, so that each call which concerns it hangs. `by` is our
    /// call that shows it.
    pub(super) fn lock(&mut self, uuid: Uuid, by: CallId, now: Instant) {
        self.locks.add(uuid, by);
        self.in_flight.attribute_lost(uuid);
        if !self.round.domains.has_answered(uuid) {
            self.round.domains.leave_out(uuid);
            self.round.grace.wait_for_domain(uuid);
        }
        self.round.leave_out(uuid);
        let concerns_it =
            |(call_id, call): (CallId, &Call)| call.asked.contains(&uuid).then_some(call_id);
        let hanging: Vec<CallId> = self.in_flight.in_hand().filter_map(concerns_it).collect();
        for call_id in hanging {
            self.give_up(call_id, uuid, now);
        }
    }

    /// The domain is not locked any more: if it was left out of this gather, it is taken up.
    pub(super) fn release(&mut self, uuid: Uuid) {
        self.round.grace.released(uuid);
        let is_missed =
            !self.round.domains.has(uuid) && self.listed.iter().any(|listed| listed.uuid == uuid);
        if !is_missed {
            return;
        }
        match &mut self.round.phase {
            Phase::Statistics => {
                let scope = self.take_up(uuid);
                self.round.queue.push(scope, vec![uuid]);
            }
            Phase::Canary => {
                self.take_up(uuid);
            }
            Phase::Saturated { left, .. } => {
                left.push(uuid);
                // Where no domain has been taken up yet, the host is checked before that.
                if !self.round.domains.is_empty() {
                    self.take_up(uuid);
                }
            }
            // All domains that are not locked are taken up later, or none.
            Phase::NotBegun | Phase::Listing | Phase::Describing => {}
            Phase::CheckingHost { .. } | Phase::Over => {}
        }
    }

    /// Abandons a call and asks again for what it should have brought. `blocked_on`, if it is locked,
    /// is left out; otherwise libvirt passes its monitor by.
    pub(super) fn give_up(&mut self, call_id: CallId, blocked_on: Uuid, now: Instant) {
        let Some(call) = self.in_flight.get(call_id).cloned() else {
            return;
        };
        if call.queued {
            // It was not made yet, so it does not hang.
            self.in_flight.forget(call_id);
            self.actions.push(Action::Withdraw(call_id));
        } else {
            self.in_flight.abandon(call_id, Some(blocked_on));
            if call.kind.needs_monitor() {
                self.round.grace.wait_for_call(call_id);
            }
        }
        let is_locked = self.is_locked(blocked_on);
        let others: Vec<Uuid> = call
            .asked
            .iter()
            .copied()
            .filter(|uuid| !is_locked || *uuid != blocked_on)
            .collect();
        match call.kind {
            RequestKind::Statistics(Scope::Full | Scope::NoBlock) => {
                // In halves: it shows sooner on which other domain a call hangs, and a domain that
                // answers waits for fewer others.
                let (one, other) = others.split_at(others.len() / 2);
                self.requeue(one);
                self.requeue(other);
            }
            RequestKind::Statistics(Scope::NoMonitor) => self.requeue(&others),
            RequestKind::Priority => self.ask_by_priority(&others),
            RequestKind::Describe => {
                // Domains are described in their order, so the call hangs on the first that is left.
                let rest = call.asked.iter().copied();
                self.round.descriptions.on_held(blocked_on);
                self.round
                    .descriptions
                    .again(rest.filter(|uuid| *uuid != blocked_on));
            }
            RequestKind::Canary if matches!(self.round.phase, Phase::Canary) => {
                self.next_phase(now);
            }
            RequestKind::List | RequestKind::Canary => {}
            RequestKind::Extra => {
                let others = call.asked.iter().copied();
                let others: Vec<Uuid> = others.filter(|uuid| *uuid != blocked_on).collect();
                self.round.extra.again(&others);
            }
            RequestKind::Disks | RequestKind::Probe => {}
        }
    }

    /// A call for these domains that libvirtd's priority workers serve did not return.
    pub(super) fn ask_by_priority(&mut self, domains: &[Uuid]) {
        if let Phase::Saturated { left, .. } = &mut self.round.phase {
            left.extend(domains);
        }
    }

    /// If the connection of the call that hangs on a lock was lost, nothing would show that the domain
    /// is unlocked: another call takes its place.
    pub(super) fn watch_locks(&mut self, now: Instant) {
        let hangs = |call_id: CallId| self.in_flight.get(call_id).is_some();
        for uuid in self.locks.unwatched(hangs) {
            let risk = RequestKind::Probe.risk(false);
            if self.in_flight.room(risk) > 0 {
                let call_id = self.send(Request::Probe(vec![uuid]), now);
                self.in_flight.abandon(call_id, Some(uuid));
                self.locks.watch(uuid, call_id);
            }
        }
    }
}
