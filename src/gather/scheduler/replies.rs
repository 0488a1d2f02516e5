//! What follows from the replies to calls.

use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::interface::{Event, Listed};
use super::phases::Phase;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Completeness, Request, RequestKind, Scope};
use crate::maps::{HashMap, HashSet};

/// How often a domain that came in part is asked again in one gather.
const TRIES: u32 = 7;
/// The same for a domain that came in part in the last gathers, too.
const TRIES_IN_STREAK: u32 = 2;
/// The same where the daemon may just have been started.
const TRIES_AFTER_START: u32 = 24;

impl Scheduler {
    /// A call that serves its domains one by one has come past this one, which is therefore not
    /// locked.
    pub(super) fn on_served(&mut self, call_id: CallId, uuid: Uuid, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            call.last_reply_at = now;
            call.asked.retain(|asked| *asked != uuid);
            if call.blocked_on == Some(uuid) {
                call.blocked_on = call.asked.first().copied();
            }
        }
        if self.locks.remove(uuid) {
            self.release(uuid);
        }
    }

    /// A call is over.
    pub(super) fn on_return(&mut self, call_id: CallId, call: &Call, event: Event, now: Instant) {
        let lost = matches!(event, Event::Lost | Event::Unreachable);
        if !lost {
            for uuid in self.locks.remove_shown_by(call_id) {
                self.release(uuid);
            }
        }
        if self.round.probe.end(call_id) && !lost {
            self.on_probed(now);
        }
        if call.abandoned {
            self.on_late(call_id, call, lost, now);
            return;
        }
        match (call.kind, event) {
            (_, Event::Unreachable) => self.round.stop(),
            (_, Event::Lost) => self.on_lost(call, now),
            (RequestKind::List, Event::Listed(domains)) => {
                self.list_pace = now - call.since;
                self.on_list(domains, now);
            }
            (RequestKind::List, _) => self.round.stop(),
            (RequestKind::Canary, _) if matches!(self.round.phase, Phase::Canary) => {
                self.next_phase(now);
            }
            (RequestKind::Statistics(_), Event::Samples(samples)) => {
                self.on_samples(call, samples, now);
            }
            (RequestKind::Priority, Event::Done) => {
                // Those that were not served are gone.
                for uuid in &call.asked {
                    self.round.domains.remove_gone(*uuid);
                }
            }
            (RequestKind::Extra, Event::Extra(came)) => {
                self.on_extra(&call.asked, &came, now);
            }
            (RequestKind::Extra, _) => self.round.extra.answered(&call.asked),
            (RequestKind::Statistics(_), _) => {
                for uuid in &call.asked {
                    self.round.domains.refuse(*uuid);
                }
            }
            _ => {}
        }
    }

    /// What was asked on a connection that was lost is asked again on another, within reason.
    fn on_lost(&mut self, call: &Call, now: Instant) {
        if !self.round.daemon.on_loss() {
            self.round.stop();
            return;
        }
        match call.kind {
            RequestKind::List => {
                self.send(Request::List, now);
            }
            RequestKind::Describe => {
                let domains = call.asked.iter().copied();
                self.round.descriptions.again(domains);
            }
            RequestKind::Canary if matches!(self.round.phase, Phase::Canary) => {
                self.next_phase(now);
            }
            RequestKind::Statistics(_) => self.requeue(&call.asked),
            RequestKind::Disks => {
                for uuid in &call.asked {
                    self.round.queue.push_disks(*uuid);
                }
            }
            RequestKind::Priority => self.ask_by_priority(&call.asked),
            RequestKind::Extra | RequestKind::Canary | RequestKind::Probe => {}
        }
    }

    /// A call that was abandoned is over: what it brought is dropped, but it hangs no more. One that
    /// was `lost` with its connection tells nothing of libvirtd's workers.
    fn on_late(&mut self, call_id: CallId, call: &Call, lost: bool, now: Instant) {
        self.round.grace.returned(call_id);
        match (&self.round.phase, call.kind) {
            (Phase::Saturated { .. }, RequestKind::Canary) if !lost => {
                // libvirtd has workers again.
                self.round.daemon.has_workers_again();
                self.next_phase(now);
            }
            (Phase::Statistics, kind) if kind.needs_monitor() => {
                if kind == RequestKind::Extra && !lost {
                    self.on_late_extra(call);
                }
                // A domain that is locked stays so though the call that shows it was cut.
                let unlocked = |uuid: &Uuid| !self.is_locked(*uuid);
                let Some(blocked_on) = call.blocked_on.filter(unlocked) else {
                    return;
                };
                match self.round.domains.completeness(blocked_on) {
                    Some(Completeness::Partial) if !self.is_asked_again(blocked_on) => {
                        self.round.queue.push_again(now, blocked_on);
                    }
                    Some(Completeness::Full) if kind == RequestKind::Disks => {
                        self.round.queue.push_disks(blocked_on);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    /// Whether the statistics of the domain are being asked for, or to be asked for again. Two calls may have seemed to hang on
    /// it.
    fn is_asked_again(&self, uuid: Uuid) -> bool {
        let asks = |(_, call): (CallId, &Call)| {
            matches!(call.kind, RequestKind::Statistics(_)) && call.asked.contains(&uuid)
        };
        self.round.queue.has(uuid) || self.in_flight.in_hand().any(asks)
    }

    fn on_list(&mut self, domains: Vec<Listed>, now: Instant) {
        let active: HashSet<Uuid> = domains.iter().map(|listed| listed.uuid).collect();
        self.histories.retain(|uuid, _| active.contains(uuid));
        self.locks.retain(|uuid| active.contains(uuid));
        self.in_flight.retain_active(&active);
        self.listed = domains;
        self.next_phase(now);
    }

    fn on_samples(&mut self, call: &Call, samples: Vec<(Uuid, Completeness)>, now: Instant) {
        let needs_monitor = call.kind.needs_monitor();
        if needs_monitor {
            self.chunk_pace = (now - call.since).max(self.chunk_pace.mul_f64(0.8));
        }
        let samples: HashMap<Uuid, Completeness> = samples.into_iter().collect();
        for uuid in &call.asked {
            let Some(completeness) = samples.get(uuid) else {
                // The domain is gone, which happens every day.
                self.round.domains.remove_gone(*uuid);
                continue;
            };
            match completeness {
                Completeness::Full => self.in_flight.rule_out(*uuid, needs_monitor),
                Completeness::Partial | Completeness::PriorityOnly => {
                    self.in_flight.rule_out(*uuid, false);
                    self.in_flight.attribute_lost(*uuid);
                }
            }
            self.on_sample(*uuid, *completeness, now);
        }
    }

    /// Decides whether the domain is asked again, or for its disks.
    fn on_sample(&mut self, uuid: Uuid, completeness: Completeness, now: Instant) {
        let is_held_by_us = self.in_flight.holds_monitor(uuid);
        let history = self.histories.entry(uuid).or_default();
        let Some(scope) = self.round.domains.answered(uuid, completeness) else {
            return;
        };
        match (scope, completeness) {
            (Scope::NoMonitor, _) => {}
            (_, Completeness::Full) => {
                history.full_at = Some(now);
                if scope == Scope::NoBlock && !self.round.host.no_disks.contains(&uuid) {
                    self.round.queue.push_disks(uuid);
                }
                if self.limits.asks_extra {
                    self.round.extra.add(uuid);
                }
            }
            _ if is_held_by_us => {}
            _ => {
                let tries = match history.partial_streak {
                    _ if self.round.grace.daemon_is_fresh() => TRIES_AFTER_START,
                    0 | 1 => TRIES,
                    _ => TRIES_IN_STREAK,
                };
                if let Some(pause) = self.round.domains.try_again(uuid, tries) {
                    self.round.queue.push_again(now + pause, uuid);
                }
            }
        }
    }
}
