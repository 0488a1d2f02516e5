//! Which statistics are asked for next, and of which domains.

use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::phases::Saturation;
use crate::gather::protocol::{Request, RequestKind, Scope};

impl Scheduler {
    /// Sends calls for statistics as long as there is a worker for them.
    pub(super) fn send_statistics(&mut self, now: Instant) {
        let due = self.round.queue.take_due(now);
        for chunk in due.chunks(self.limits.chunk) {
            self.requeue(chunk);
        }
        while self.at_work() < self.limits.workers {
            let sent = if let Some((scope, domains)) = self.round.queue.pop() {
                self.ask(scope, domains, now)
            } else if let Some(uuid) = self.round.queue.pop_disks() {
                self.ask_disks(uuid, now)
            } else {
                self.ask_extra(now)
            };
            if !sent {
                break;
            }
        }
        if self.in_flight.is_used_up() && self.round.grace.until().is_none() {
            // As many calls hang as may, and there is none to wait for. What priority workers serve can
            // still be had.
            self.round.stop();
            self.round.phase = self.saturated(Saturation::OurCalls, None);
            self.send_priority(now);
        }
    }

    /// How many workers are busy with calls that take their time.
    pub(super) fn at_work(&self) -> usize {
        self.in_flight.count(|kind| {
            matches!(
                kind,
                RequestKind::Statistics(_)
                    | RequestKind::Disks
                    | RequestKind::Extra
                    | RequestKind::Describe
            )
        })
    }

    /// Queues these domains once more, behind those that have not been asked yet: if more calls hang
    /// than may, as many domains as possible have answered by then.
    pub(super) fn requeue(&mut self, domains: &[Uuid]) {
        for scope in Scope::ALL {
            let is_of_scope = |uuid: &Uuid| self.round.domains.scope(*uuid) == Some(scope);
            let batch: Vec<Uuid> = domains.iter().copied().filter(is_of_scope).collect();
            if !batch.is_empty() {
                self.round.queue.push(scope, batch);
            }
        }
    }

    /// Whether the domain answered since the first of the hanging calls was sent, or cannot make a
    /// call hang.
    fn is_trusted(&self, uuid: Uuid) -> bool {
        let Some(hanging_since) = self.in_flight.hanging_since() else {
            return true;
        };
        self.full_at(uuid).is_some_and(|at| at >= hanging_since)
            || self.in_flight.holds_monitor(uuid)
    }

    /// Sends a batch, or puts it back; `false` when nothing more can be sent now.
    fn ask(&mut self, scope: Scope, domains: Vec<Uuid>, now: Instant) -> bool {
        let kind = RequestKind::Statistics(scope);
        let is_risky = |uuid: &Uuid| kind.needs_monitor() && !self.is_trusted(*uuid);
        let (risky, safe): (Vec<Uuid>, Vec<Uuid>) = domains.into_iter().partition(is_risky);
        if self.in_flight.room(kind.risk(risky.is_empty())) > 0 {
            let request = Request::Statistics {
                of: safe.into_iter().chain(risky).collect(),
                scope,
                active: self.listed.len(),
            };
            self.send(request, now);
            return true;
        }
        let may_return = self.in_flight.is_any_in_hand() || self.round.grace.until().is_some();
        if risky.is_empty() || may_return {
            // The room is taken by calls that will return, or may.
            let domains = safe.into_iter().chain(risky).collect();
            self.round.queue.push_first(scope, domains);
            return false;
        }
        // The risky domains might make the last calls hang that may be sent: what needs no monitor
        // must do for them.
        for uuid in &risky {
            self.round.domains.do_without_monitor(*uuid);
        }
        self.round.queue.push(Scope::NoMonitor, risky);
        if !safe.is_empty() {
            self.round.queue.push_first(scope, safe);
        }
        true
    }

    /// Asks for the disks of a domain, or puts it back; `false` when nothing more can be sent now.
    fn ask_disks(&mut self, uuid: Uuid, now: Instant) -> bool {
        let risk = RequestKind::Disks.risk(self.is_trusted(uuid));
        if self.in_flight.room(risk) == 0 {
            let may_return = self.in_flight.is_any_in_hand();
            if may_return {
                self.round.queue.push_disks_first(uuid);
            }
            return !may_return;
        }
        self.send(Request::Disks(uuid), now);
        true
    }
}
