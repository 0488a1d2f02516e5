//! Diagnoses calls that do not return: blocked by a domain, a locked domain, no free worker in
//! libvirtd, a stopped libvirtd.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Scheduler;
use super::phases::{Phase, Saturation};
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Monitor, Request, RequestKind};
use crate::maps::HashSet;
use crate::times::{SATURATION_RECHECK, STALL_SLACK};

impl Scheduler {
    /// How long a call of this kind may bring nothing.
    fn patience(&self, kind: RequestKind) -> Duration {
        let far = self.list_pace * 12;
        match kind {
            RequestKind::Probe => (self.limits.stall / 2).max(far),
            RequestKind::List | RequestKind::Canary | RequestKind::Priority => {
                self.limits.stall.max(far)
            }
            RequestKind::Statistics(_)
            | RequestKind::Disks
            | RequestKind::Extra
            | RequestKind::Describe => self.limits.stall.max(far).max(self.chunk_pace * 3),
        }
    }

    /// Calls that have brought nothing for longer than they should.
    fn stalled(&self, now: Instant) -> Vec<(CallId, RequestKind)> {
        if !self.limits.calls_may_hang {
            return Vec::new();
        }
        let is_stalled =
            |call: &Call| !call.queued && now >= call.last_reply_at + self.patience(call.kind);
        self.in_flight
            .in_hand()
            .filter(|(_, call)| is_stalled(call))
            .map(|(call_id, call)| (call_id, call.kind))
            .collect()
    }

    /// When a call is to be looked into: when it stalls, and if that showed nothing, from time to time.
    fn due_at(&self, call_id: CallId, call: &Call) -> Instant {
        let patience = self.patience(call.kind);
        let stalls = call.last_reply_at + patience;
        let looked_into = self.round.probe.looked_into_at(call_id);
        looked_into.map_or(stalls, |at| stalls.max(at + 2 * patience))
    }

    /// When [`Scheduler::tick`] is to be called.
    pub fn wake(&self) -> Option<Instant> {
        let round = &self.round;
        let phase = match round.phase {
            Phase::CheckingHost { until } => Some(until),
            Phase::Saturated { recheck_until, .. } => recheck_until,
            Phase::Statistics => {
                let grace = round.grace.until();
                let times = [grace, round.queue.next_due(), self.extra_due()];
                times.into_iter().flatten().min()
            }
            _ => None,
        };
        let in_flight = round.probe.in_flight();
        let stall = match in_flight.and_then(|probe| self.in_flight.get(probe)) {
            // It may be opening its connection: until that is done, its silence means nothing.
            Some(_) if !round.probe.daemon_answered() => None,
            Some(probe) => Some(probe.last_reply_at + self.patience(RequestKind::Probe)),
            None if self.limits.calls_may_hang => {
                let begun = self.in_flight.in_hand().filter(|(_, call)| !call.queued);
                begun
                    .map(|(call_id, call)| self.due_at(call_id, call))
                    .min()
            }
            None => None,
        };
        [phase, stall].into_iter().flatten().min()
    }

    /// Time has passed.
    pub fn tick(&mut self, now: Instant) {
        self.look_into_stalls(now);
        self.advance(now);
    }

    /// Sends a probe where calls stall, and draws the conclusion where a probe stalls itself.
    fn look_into_stalls(&mut self, now: Instant) {
        if let Some(probe) = self.round.probe.in_flight() {
            let stalled = self.stalled(now);
            if self.round.probe.daemon_answered()
                && stalled.iter().any(|(call_id, _)| *call_id == probe)
            {
                self.on_probe_stalled(probe, now);
            }
            if self.round.probe.in_flight().is_some() {
                return;
            }
        }
        let is_due = |call_id: CallId| {
            let call = self.in_flight.get(call_id);
            call.is_some_and(|call| now >= self.due_at(call_id, call))
        };
        let mut due = self.stalled(now);
        due.retain(|(call_id, _)| is_due(*call_id));
        if due.is_empty() {
            return;
        }
        // One probe serves the calls that are about to stall as well.
        let mut domains: Vec<Uuid> = self
            .in_flight
            .in_hand()
            .filter(|(_, call)| now >= call.last_reply_at + self.patience(call.kind) / 2)
            .flat_map(|(_, call)| call.asked.iter().copied())
            .collect();
        if due
            .iter()
            .any(|(_, kind)| matches!(kind, RequestKind::List | RequestKind::Canary))
        {
            domains.extend(self.listed.iter().map(|listed| listed.uuid));
        }
        let mut seen = HashSet::default();
        domains.retain(|uuid| !self.is_locked(*uuid) && seen.insert(*uuid));
        let examined = due.into_iter().map(|(call_id, _)| call_id);
        self.round.probe.examine(examined.collect());
        self.probe(domains, now);
    }

    pub(super) fn probe(&mut self, domains: Vec<Uuid>, now: Instant) {
        let risk = RequestKind::Probe.risk(true);
        if !domains.is_empty() && self.in_flight.has_room_to_look(risk) {
            let call_id = self.send(Request::Probe(domains), now);
            self.round.probe.sent(call_id);
            return;
        }
        // Too many calls are in flight; or no domain is known yet, and the list must be waited for.
        for (call_id, kind) in self.stalled(now) {
            self.round.probe.note_looked_into(call_id, now);
            match kind {
                RequestKind::List if !self.listed.is_empty() => self.do_without_list(call_id),
                // Nothing will show what blocks it.
                RequestKind::Extra => self.give_up_extra(call_id),
                _ => {}
            }
        }
    }

    /// The list hangs on a locked domain, or is slow: the domains last known serve.
    fn do_without_list(&mut self, list: CallId) {
        self.in_flight.abandon(list, None);
        self.round.phase = Phase::Describing;
    }

    /// The daemon answers: if the probe does not come back from a domain, that domain is locked.
    pub(super) fn on_alive(&mut self, call_id: CallId, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            call.last_reply_at = now;
        }
        self.round.probe.on_alive(call_id);
    }

    /// What a probe says of one domain.
    pub(super) fn on_control(
        &mut self,
        call_id: CallId,
        uuid: Uuid,
        control: Monitor,
        now: Instant,
    ) {
        self.on_served(call_id, uuid, now);
        self.in_flight.rule_out(uuid, control == Monitor::Free);
        if !self.round.probe.is(call_id) || control == Monitor::Free {
            return;
        }
        if let Some(call_id) = self.describing_blocked_on(uuid, now) {
            self.give_up(call_id, uuid, now);
        }
        let Monitor::Occupied(time) = control else {
            self.round.probe.add_job(uuid);
            self.in_flight.attribute_lost(uuid);
            return;
        };
        self.round.probe.add_occupied(uuid, time);
        if let Some(call_id) = self.occupant(uuid, time, now) {
            self.give_up(call_id, uuid, now);
            // Our call has the domain's job, so that no call of ours from before can have it.
            self.in_flight.rule_out(uuid, true);
        } else {
            self.in_flight.attribute_lost(uuid);
        }
    }

    /// Our call that waits for the XML of this domain, whose job or monitor is in use: such a call
    /// asks one domain after the other.
    fn describing_blocked_on(&self, uuid: Uuid, now: Instant) -> Option<CallId> {
        let waits_for_it = |call: &Call| {
            call.kind == RequestKind::Describe && !call.queued && call.asked.first() == Some(&uuid)
        };
        let mut in_hand = self.in_flight.in_hand();
        let (call_id, call) = in_hand.find(|(_, call)| waits_for_it(call))?;
        (now >= call.last_reply_at + self.limits.stall / 2).then_some(call_id)
    }

    /// Our call that has occupied the monitor of this domain for `time`. If another client had had it
    /// before, libvirt would have skipped the domain in ours.
    fn occupant(&self, uuid: Uuid, time: Duration, now: Instant) -> Option<CallId> {
        let occupies = |call: &Call| {
            call.kind.needs_monitor()
                && !call.queued
                && call.asked.contains(&uuid)
                && time >= self.limits.stall / 2
                && time <= now - call.since + STALL_SLACK
        };
        let mut in_hand = self.in_flight.in_hand();
        let (call_id, _) = in_hand.find(|(_, call)| occupies(call))?;
        Some(call_id)
    }

    /// The probe has come back from all its domains.
    pub(super) fn on_probed(&mut self, now: Instant) {
        let examined = self.round.probe.take_examined();
        self.give_up_behind_jobs(&examined, now);
        let mut stalled = self.stalled(now);
        stalled.retain(|(call_id, _)| examined.contains(call_id));
        let of_kind = |wanted: RequestKind| {
            let mut stalled = stalled.iter();
            let found = stalled.find(|(_, kind)| *kind == wanted);
            found.map(|(call_id, _)| *call_id)
        };
        for (call_id, kind) in &stalled {
            // At the second look: it may only be slow.
            let was_looked_into = self.round.probe.looked_into_at(*call_id).is_some();
            if *kind == RequestKind::Extra && was_looked_into {
                self.give_up_extra(*call_id);
            }
        }
        let shows_nothing = [RequestKind::Canary, RequestKind::Extra];
        let needs_worker =
            |kind: RequestKind| !kind.is_priority() && !shows_nothing.contains(&kind);
        if let Some(list) = of_kind(RequestKind::List) {
            self.do_without_list(list);
        }
        if let Some(canary) = of_kind(RequestKind::Canary) {
            // No domain blocks it: libvirtd has no worker to spare. On a busy host an answer takes
            // its time, so that the canary may still prove the contrary.
            self.in_flight.abandon(canary, None);
            self.round.stop();
            self.round.phase = self.saturated(Saturation::Daemon, Some(now + SATURATION_RECHECK));
        } else if stalled.iter().any(|(_, kind)| needs_worker(*kind)) {
            // Is the call slow, or has libvirtd no worker left? A cheap call shows that.
            self.send_canary(now);
        }
        for (call_id, _) in stalled {
            self.round.probe.note_looked_into(call_id, now);
        }
    }

    /// Of a domain with an async job (backup, migration, dump, save) libvirt does not say since when
    /// its monitor has been in use. If a call of ours stalls which concerns the domain, and no other
    /// domain was found whose time fits, our call is the one: in any other call libvirt would have skipped the domain.
    fn give_up_behind_jobs(&mut self, examined: &[CallId], now: Instant) {
        let jobs = self.round.probe.take_jobs();
        for (call_id, kind) in self.stalled(now) {
            let Some(call) = self.in_flight.get(call_id).filter(|_| kind.needs_monitor()) else {
                continue;
            };
            let blocked_on = call.asked.iter().copied().find(|uuid| jobs.contains(uuid));
            if let Some(blocked_on) = blocked_on.filter(|_| examined.contains(&call_id)) {
                self.give_up(call_id, blocked_on, now);
                if kind == RequestKind::Extra {
                    // Which of them it is does not show, and the next call would stall on the next of them.
                    for uuid in &jobs {
                        self.round.extra.leave_out(*uuid);
                    }
                }
            }
        }
    }

    /// The probe found that the daemon answers, and does not come back from a domain, which is
    /// therefore locked.
    fn on_probe_stalled(&mut self, probe: CallId, now: Instant) {
        let Some(call) = self.in_flight.get(probe).cloned() else {
            return;
        };
        let first = call.asked.first().copied();
        self.in_flight.abandon(probe, first);
        self.round.probe.end(probe);
        if let Some(first) = first {
            self.lock(first, probe, now);
        }
        let mut rest = call.asked;
        rest.retain(|uuid| !self.is_locked(*uuid));
        if rest.is_empty() {
            self.on_probed(now);
        } else {
            self.probe(rest, now);
        }
    }

    /// Whether no reply has come since a call was sent that any daemon answers unless it is stopped:
    /// a probe, or the first list of all.
    pub(super) fn is_daemon_stopped(&self) -> bool {
        let probe = self.round.probe.in_flight();
        let call = match probe.filter(|_| !self.round.probe.daemon_answered()) {
            Some(probe) => self.in_flight.get(probe),
            None if !self.listed.is_empty() => None,
            None => {
                let mut in_hand = self.in_flight.in_hand().map(|(_, call)| call);
                in_hand.find(|call| call.kind == RequestKind::List)
            }
        };
        call.is_some_and(|call| !self.round.daemon.has_replied_since(call.since))
    }
}
