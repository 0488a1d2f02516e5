//! Calls that bring nothing: who holds them, who is locked, whether libvirtd has a worker to spare, whether it is stopped.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Scheduler;
use super::round::Phase;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Control, Request, RequestKind};
use crate::maps::HashSet;

/// What clocks and scheduling may make of a time that libvirt measured itself.
const SLACK: Duration = Duration::from_millis(100);

/// How long a daemon that seems to have no worker to spare may still prove the contrary: on a busy
/// host an answer takes its time.
const RECHECK_FOR: Duration = Duration::from_secs(1);

impl Scheduler {
    /// How long a call of this kind may bring nothing.
    fn patience(&self, kind: RequestKind) -> Duration {
        let far = self.list_pace * 12;
        match kind {
            RequestKind::Probe => (self.limits.stall / 2).max(far),
            RequestKind::List | RequestKind::Canary | RequestKind::Priority => {
                self.limits.stall.max(far)
            }
            RequestKind::Statistics(_) | RequestKind::Disks | RequestKind::Describe => {
                self.limits.stall.max(far).max(self.chunk_pace * 3)
            }
        }
    }

    /// Calls that have brought nothing for longer than they should.
    fn stalled(&self, now: Instant) -> Vec<(CallId, RequestKind)> {
        if !self.limits.hedge {
            return Vec::new();
        }
        let stalled =
            |call: &Call| !call.queued && now >= call.last_reply_at + self.patience(call.kind);
        self.in_flight
            .in_hand()
            .filter(|(_, call)| stalled(call))
            .map(|(call_id, call)| (call_id, call.kind))
            .collect()
    }

    /// When a call is to be looked into: when it stalls, and if that told nothing, from time to time.
    fn due_at(&self, call_id: CallId, call: &Call) -> Instant {
        let patience = self.patience(call.kind);
        let stalls = call.last_reply_at + patience;
        let probed = self.round.probed.get(&call_id);
        probed.map_or(stalls, |at| stalls.max(*at + 2 * patience))
    }

    /// When [`Scheduler::tick`] wants to be called.
    pub fn wake(&self) -> Option<Instant> {
        let round = &self.round;
        let mut times: Vec<Instant> = round.again.iter().map(|(at, _)| *at).collect();
        if round.phase == Phase::Looking {
            times.extend(round.look_by);
        }
        times.extend(round.recheck_until);
        if round.phase == Phase::Asking {
            times.extend(round.grace_until);
        }
        match round.probe.and_then(|probe| self.in_flight.get(probe)) {
            // It may be opening its connection; nothing can be said before it is through.
            Some(_) if !round.alive => {}
            Some(probe) => times.push(probe.last_reply_at + self.patience(RequestKind::Probe)),
            None if self.limits.hedge => {
                let begun = self.in_flight.in_hand().filter(|(_, call)| !call.queued);
                times.extend(begun.map(|(call_id, call)| self.due_at(call_id, call)));
            }
            None => {}
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
        if let Some(probe) = self.round.probe {
            let stalled = self.stalled(now);
            if self.round.alive && stalled.iter().any(|(call_id, _)| *call_id == probe) {
                self.on_probe_stalled(probe, now);
            }
            if self.round.probe.is_some() {
                return;
            }
        }
        let due: Vec<(CallId, RequestKind)> = self
            .stalled(now)
            .into_iter()
            .filter(|(call_id, _)| {
                self.in_flight
                    .get(*call_id)
                    .is_some_and(|c| now >= self.due_at(*call_id, c))
            })
            .collect();
        if due.is_empty() {
            return;
        }
        // One probe serves those that are about to stall as well.
        let mut whom: Vec<Uuid> = Vec::new();
        for (_, call) in self.in_flight.in_hand() {
            if now >= call.last_reply_at + self.patience(call.kind) / 2 {
                whom.extend(&call.asked);
            }
        }
        if due
            .iter()
            .any(|(_, kind)| matches!(kind, RequestKind::List | RequestKind::Canary))
        {
            whom.extend(self.listed.iter().map(|listed| listed.uuid));
        }
        let mut seen = HashSet::default();
        whom.retain(|uuid| !self.is_locked(*uuid) && seen.insert(*uuid));
        self.round.examined = due.into_iter().map(|(call_id, _)| call_id).collect();
        self.probe(whom, now);
    }

    pub(super) fn probe(&mut self, whom: Vec<Uuid>, now: Instant) {
        let risk = RequestKind::Probe.risk(true);
        if !whom.is_empty() && self.in_flight.room_to_look(risk) {
            self.round.jobs.clear();
            self.round.alive = false;
            self.round.probe = Some(self.send(Request::Probe(whom), now));
        } else {
            // Too many calls are out already; or nobody is known yet, and the list must be waited for.
            for (call_id, kind) in self.stalled(now) {
                self.round.probed.insert(call_id, now);
                if kind == RequestKind::List && !self.listed.is_empty() {
                    self.do_without_list(call_id);
                }
            }
        }
    }

    /// It hangs on a locked domain, or is slow: the domains last known serve.
    fn do_without_list(&mut self, list: CallId) {
        self.in_flight.abandon(list, None);
        self.round.phase = Phase::Describing;
    }

    /// The daemon answers: if the probe does not come back from a domain, that one is locked.
    pub(super) fn on_alive(&mut self, call_id: CallId, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            call.last_reply_at = now;
        }
        self.round.alive |= self.round.probe == Some(call_id);
    }

    /// A probe's answer for one domain.
    pub(super) fn on_control(
        &mut self,
        call_id: CallId,
        uuid: Uuid,
        control: Control,
        now: Instant,
    ) {
        self.on_served(call_id, uuid, now);
        self.in_flight.cleared(uuid, control == Control::Free);
        if self.round.probe != Some(call_id) {
            return;
        }
        if control == Control::Free {
            return;
        }
        // One that reads XML asks one by one, and waits for whoever has the domain's job.
        let stands_at = |(_, call): &(CallId, &Call)| {
            call.kind == RequestKind::Describe && !call.queued && call.asked.first() == Some(&uuid)
        };
        let describes = self.in_flight.in_hand().find(stands_at);
        if let Some((call_id, _)) =
            describes.filter(|(_, c)| now >= c.last_reply_at + self.limits.stall / 2)
        {
            self.give_up(call_id, uuid);
        }
        let Control::Occupied(time) = control else {
            self.round.jobs.push(uuid);
            self.in_flight.confirm(uuid);
            return;
        };
        if self
            .round
            .occupied
            .is_none_or(|(_, longest)| time > longest)
        {
            self.round.occupied = Some((uuid, time));
        }
        let stall = self.limits.stall;
        let culprit = self.in_flight.in_hand().find(|(_, call)| {
            let age = now - call.since;
            // Occupied by our call, not by somebody's before it: that one would have been passed by.
            call.kind.needs_monitor()
                && !call.queued
                && call.asked.contains(&uuid)
                && time >= stall / 2
                && time <= age + SLACK
        });
        if let Some((call_id, _)) = culprit {
            self.give_up(call_id, uuid);
            // Its job is our call's, so no call of ours from before can have it.
            self.in_flight.cleared(uuid, true);
        } else {
            self.in_flight.confirm(uuid);
        }
    }

    /// The probe has been round.
    pub(super) fn on_probed(&mut self, now: Instant) {
        let examined = std::mem::take(&mut self.round.examined);
        self.give_up_behind_jobs(&examined, now);
        let mut stalled = self.stalled(now);
        stalled.retain(|(call_id, _)| examined.contains(call_id));
        let of = |wanted: RequestKind| stalled.iter().find(|s| s.1 == wanted).map(|s| s.0);
        if let Some(list) = of(RequestKind::List) {
            self.do_without_list(list);
        }
        let ordinary = |kind: RequestKind| {
            matches!(
                kind,
                RequestKind::Statistics(_) | RequestKind::Disks | RequestKind::Describe
            )
        };
        if let Some(canary) = of(RequestKind::Canary) {
            // Nobody is to blame: libvirtd has no worker to spare.
            self.in_flight.abandon(canary, None);
            self.round.stop();
            self.round.recheck_until = Some(now + RECHECK_FOR);
            self.ask_by_priority_calls();
        } else if stalled.iter().any(|(_, kind)| ordinary(*kind)) {
            // Slow, or is there no worker left? A cheap call will tell.
            self.send_canary(now);
        }
        for (call_id, _) in stalled {
            self.round.probed.insert(call_id, now);
        }
    }

    /// Of a domain with an async job (backup, migration, dump, save) libvirt does not say since when
    /// somebody is at its monitor. It may be our call, which would have passed by anybody else: so
    /// it is, where that stalls and no domain was found whose time fits.
    fn give_up_behind_jobs(&mut self, examined: &[CallId], now: Instant) {
        let jobs = std::mem::take(&mut self.round.jobs);
        for (call_id, kind) in self.stalled(now) {
            let Some(call) = self.in_flight.get(call_id).filter(|_| kind.needs_monitor()) else {
                continue;
            };
            let blocked_on = call.asked.iter().copied().find(|uuid| jobs.contains(uuid));
            if let Some(blocked_on) = blocked_on.filter(|_| examined.contains(&call_id)) {
                self.give_up(call_id, blocked_on);
            }
        }
    }

    /// A probe that found the daemon alive and does not come back from a domain: it is locked.
    fn on_probe_stalled(&mut self, probe: CallId, now: Instant) {
        let Some(call) = self.in_flight.get(probe).cloned() else {
            return;
        };
        let first = call.asked.first().copied();
        self.in_flight.abandon(probe, first);
        self.round.probe = None;
        if let Some(first) = first {
            self.lock(first, probe);
        }
        let rest = call.asked.into_iter().filter(|uuid| !self.is_locked(*uuid));
        let rest: Vec<Uuid> = rest.collect();
        if rest.is_empty() {
            self.on_probed(now);
        } else {
            self.probe(rest, now);
        }
    }

    /// Whether nothing has come back from anybody since a call was sent that any daemon answers
    /// which is not frozen: a probe, or the first list of all.
    pub(super) fn is_frozen(&self) -> bool {
        let probe = self.round.probe.filter(|_| !self.round.alive);
        let call = match probe {
            Some(probe) => self.in_flight.get(probe),
            None if !self.listed.is_empty() => None,
            None => {
                let mut in_hand = self.in_flight.in_hand().map(|(_, call)| call);
                in_hand.find(|call| call.kind == RequestKind::List)
            }
        };
        let since = call.map(|call| call.since);
        since.is_some_and(|since| {
            self.round
                .last_reply_at
                .is_none_or(|last_reply_at| last_reply_at <= since)
        })
    }
}
