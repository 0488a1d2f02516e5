//! Domains that calls hang on: whoever is locked is left out, whoever was asked beside one that
//! hangs is asked again.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Scheduler;
use super::interface::Action;
use super::round::Phase;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Request, RequestKind, Scope};

/// How long after its beginning a gather waits for whom it found locked or slow, and how long
/// where the daemon may just have been started.
const GRACE: (Duration, Duration) = (Duration::from_millis(600), Duration::from_secs(3));

impl Scheduler {
    /// A domain is locked inside libvirtd: whoever asks it hangs. `by` is our call that shows it.
    pub(super) fn lock(&mut self, uuid: Uuid, by: CallId) {
        self.histories.entry(uuid).or_default().locked = Some(by);
        self.in_flight.confirm(uuid);
        if self
            .round
            .vms
            .get(&uuid)
            .is_none_or(|vm| vm.completeness.is_none())
        {
            self.round.vms.remove(&uuid);
            self.round.withheld.insert(uuid);
            self.extend_grace();
        }
        self.round.leave_out(uuid);
        let asks_it =
            |(call_id, call): (CallId, &Call)| call.asked.contains(&uuid).then_some(call_id);
        let hung: Vec<CallId> = self.in_flight.in_hand().filter_map(asks_it).collect();
        for call_id in hung {
            self.give_up(call_id, uuid);
        }
    }

    /// The gather does not end at once: who is only slow may come back.
    pub(super) fn extend_grace(&mut self) {
        let patience = if self.round.fresh { GRACE.1 } else { GRACE.0 };
        self.round.grace_until = self.round.began.map(|began| began + patience);
    }

    /// Ends the wait when it is due; but as long as nobody at all has answered a daemon that may just
    /// have been started, there is nothing better to do than to wait until the deadline.
    pub(super) fn end_grace(&mut self, now: Instant) {
        if self
            .round
            .grace_until
            .take_if(|until| now >= *until)
            .is_none()
        {
            return;
        }
        let mut vms = self.round.vms.values();
        if self.round.fresh && !vms.any(|vm| vm.completeness.is_some()) {
            self.round.grace_until = Some(now + GRACE.0);
        }
    }

    /// Nothing more to wait for, if all have come back.
    pub(super) fn end_grace_if_all_back(&mut self) {
        if self.round.withheld.is_empty() && self.round.slow.is_empty() {
            self.round.grace_until = None;
        }
    }

    /// Its lock is free again: if it was left out of this gather, it is taken up.
    pub(super) fn release(&mut self, uuid: Uuid) {
        self.round.withheld.remove(&uuid);
        self.end_grace_if_all_back();
        let missed = self.round.phase == Phase::Asking && !self.round.vms.contains_key(&uuid);
        if missed && self.listed.iter().any(|listed| listed.uuid == uuid) {
            let scope = self.enter(uuid);
            self.round.queue.push_back((scope, vec![uuid]));
        }
    }

    /// Abandons a call and asks again whom it asked: who is held or locked is passed by.
    pub(super) fn give_up(&mut self, call_id: CallId, blocked_on: Uuid) {
        let Some(call) = self.in_flight.get(call_id).cloned() else {
            return;
        };
        let locked = self.is_locked(blocked_on);
        if call.queued {
            // It was not made yet, so it does not hang.
            self.in_flight.forget(call_id);
            self.actions.push(Action::Withdraw(call_id));
        } else {
            self.in_flight.abandon(call_id, Some(blocked_on));
            if call.kind.needs_monitor() {
                self.round.slow.insert(call_id);
                self.extend_grace();
            }
        }
        let others = call
            .asked
            .iter()
            .copied()
            .filter(|u| !locked || *u != blocked_on);
        match call.kind {
            RequestKind::Statistics(Scope::Full | Scope::NoBlock) => {
                // In halves: who else hangs shows sooner, and who answers is sooner on his own.
                let others: Vec<Uuid> = others.collect();
                let (one, other) = others.split_at(others.len() / 2);
                self.requeue(one);
                self.requeue(other);
            }
            RequestKind::Statistics(Scope::NoMonitor) => self.requeue(&others.collect::<Vec<_>>()),
            RequestKind::Priority => self.round.priority.extend(others),
            RequestKind::Describe => {
                // It stands at this one, which is left to whoever has its job.
                self.round.held.insert(blocked_on);
                let undescribed = self.round.undescribed.get_or_insert_default();
                undescribed.extend(call.asked.iter().filter(|uuid| **uuid != blocked_on));
            }
            RequestKind::Canary if self.round.phase == Phase::Canary => self.start(),
            RequestKind::List | RequestKind::Canary | RequestKind::Disks | RequestKind::Probe => {}
        }
    }

    /// Asks these again, after those who have not been asked yet: if more hang than may, as many as
    /// possible have answered by then.
    pub(super) fn requeue(&mut self, domains: &[Uuid]) {
        for scope in Scope::ALL {
            let vms = &self.round.vms;
            let of_scope = |u: &&Uuid| vms.get(u).is_some_and(|vm| vm.scope == scope);
            let batch: Vec<Uuid> = domains.iter().filter(of_scope).copied().collect();
            if !batch.is_empty() {
                self.round.queue.push_back((scope, batch));
            }
        }
    }

    /// A locked domain whose hanging call was lost with its connection would never be heard of
    /// again: another call takes that one's place.
    pub(super) fn watch_locks(&mut self, now: Instant) {
        let unwatched = |by: &CallId| self.in_flight.get(*by).is_none();
        let locked = self.histories.iter();
        let locked = locked.filter(|(_, s)| s.locked.as_ref().is_some_and(unwatched));
        for uuid in locked.map(|(uuid, _)| *uuid).collect::<Vec<_>>() {
            let risk = RequestKind::Probe.risk(false);
            if self.in_flight.room(risk) > 0 && self.round.watched.insert(uuid) {
                let call_id = self.send(Request::Probe(vec![uuid]), now);
                self.in_flight.abandon(call_id, Some(uuid));
                self.histories.entry(uuid).or_default().locked = Some(call_id);
            }
        }
    }
}
