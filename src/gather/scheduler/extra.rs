//! When domains are asked for what only some configurations want ([`Request::Extra`]).
//!
//! Nothing else may suffer from such a call. So a domain is asked when it has answered in full in the same gather, after
//! all others have been asked; and these calls have a cap of their own.

use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::domains::pause_before;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{AskedMonitor, CallId, Request, RequestKind};
use crate::maps::{HashMap, HashSet};
use crate::times::COMES_PAST;

/// How many of these calls are waited for at a time.
const AT_A_TIME: usize = 2;
/// How many of them may be in flight, hanging ones included.
pub const MOST_EXTRA: usize = 3;
/// How often in one gather a domain is asked again if libvirt may have passed it by, because another call had its monitor.
const TRIES: u32 = 5;
/// The same for a domain of which nothing came in the last gather, however often it was asked again.
const TRIES_IN_STREAK: u32 = 2;
/// After so many gathers in a row without such keys, a domain counts as one that has none.
const MOST_STREAK: u32 = 20;

/// What the replies of a domain have shown.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct ExtraHistory {
    /// It has had keys that show that libvirt did not pass it by.
    has_keys: bool,
    /// The number of gathers in a row in which none came.
    streak: u32,
}

impl ExtraHistory {
    /// How often it is asked again in one gather.
    fn tries(self) -> u32 {
        match self {
            Self { streak: 0, .. } => TRIES,
            Self { has_keys: true, .. } => TRIES_IN_STREAK,
            // It seems to have none of what is wanted: a domain that was passed by looks the same.
            Self { .. } => 0,
        }
    }
}

/// The domains of a gather that are to be asked.
#[derive(Debug, Default)]
pub(super) struct Extra {
    /// Those that are still to be asked.
    left: Vec<Uuid>,
    /// Those that have not answered, or are to be asked again.
    missing: HashSet<Uuid>,
    /// Those whose call was given up, and came back.
    late: HashSet<Uuid>,
    /// Those that libvirt may have passed by: how often they were asked again, and when the last of these calls is or was due.
    passed_by: HashMap<Uuid, (u32, Instant)>,
    /// Until when those that are left are not to be asked.
    waits_until: Option<Instant>,
}

impl Extra {
    /// No domain is left to be asked.
    pub(super) fn is_empty(&self) -> bool {
        self.left.is_empty()
    }

    pub(super) fn add(&mut self, uuid: Uuid) {
        if self.missing.insert(uuid) {
            self.left.push(uuid);
        }
    }

    /// These domains are asked again: the call that asked them was blocked by another one.
    pub(super) fn again(&mut self, domains: &[Uuid]) {
        self.left.extend(domains);
    }

    /// The call for this domain was given up and came back: it was only slow. Asked again once.
    fn late(&mut self, uuid: Uuid) {
        let is_missing = self.missing.contains(&uuid) && !self.left.contains(&uuid);
        if is_missing && self.late.insert(uuid) {
            self.left.push(uuid);
        }
    }

    /// Nothing is asked of this domain any more.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        self.left.retain(|other| *other != uuid);
    }

    /// No domain is asked any more.
    pub(super) fn stop(&mut self) {
        self.left.clear();
    }

    pub(super) fn answered(&mut self, domains: &[Uuid]) {
        for uuid in domains {
            self.missing.remove(uuid);
        }
    }

    /// Asks the domain again in a while; `false` after so many `tries`.
    fn try_again(&mut self, uuid: Uuid, tries: u32, now: Instant) -> bool {
        let (tried, due) = self.passed_by.entry(uuid).or_insert((0, now));
        let is_left = *tried < tries;
        if is_left {
            *due = now + pause_before(*tried);
            *tried += 1;
            self.left.push(uuid);
        }
        is_left
    }

    /// The domains that did not answer, or were to be asked again.
    pub(super) fn into_missing(self) -> Vec<Uuid> {
        self.missing.into_iter().collect()
    }
}

impl Scheduler {
    /// Asks the next domains; `false` when none can be asked now.
    pub(super) fn ask_extra(&mut self, now: Instant) -> bool {
        let (in_hand, out) = self.extra_calls();
        if out >= MOST_EXTRA && in_hand == 0 {
            self.round.extra.stop();
        }
        if !self.may_ask_extra() {
            return false;
        }
        let mut left = std::mem::take(&mut self.round.extra.left);
        let busy = self.not_yet(now);
        let is_ready = |uuid: &mut Uuid| !busy.contains_key(uuid);
        let ready = left.extract_if(.., is_ready).take(self.limits.chunk);
        let ready: Vec<Uuid> = ready.collect();
        self.round.extra.waits_until = left.iter().filter_map(|uuid| busy.get(uuid)).min().copied();
        self.round.extra.left = left;
        let is_any = !ready.is_empty();
        if is_any {
            self.send(Request::Extra(ready), now);
        }
        is_any
    }

    /// How many of these calls are waited for, and how many are in flight, hanging ones included.
    fn extra_calls(&self) -> (usize, usize) {
        let is_extra = |kind| kind == RequestKind::Extra;
        (self.in_flight.count(is_extra), self.in_flight.out(is_extra))
    }

    /// Whether such a call can be sent, if a domain is ready.
    fn may_ask_extra(&self) -> bool {
        let (in_hand, out) = self.extra_calls();
        let is_full = in_hand >= AT_A_TIME || out >= MOST_EXTRA;
        // The others come first, those that are asked again included.
        let is_early = self.at_work() > in_hand || !self.round.queue.is_empty();
        let has_worker = self.at_work() < self.limits.workers;
        !self.round.extra.is_empty() && !is_full && !is_early && has_worker
    }

    /// A call has asked these domains, and so much `came` of them. Those that libvirt may have passed by are asked again. One
    /// whose monitor a call of ours holds has to wait for that: if it is such a call, the domain is asked when it returns.
    pub(super) fn on_extra(&mut self, asked: &[Uuid], came: &[(Uuid, AskedMonitor)], now: Instant) {
        let extra = &mut self.round.extra;
        extra.answered(asked);
        for (uuid, monitor) in came {
            let history = &mut self.histories.entry(*uuid).or_default().extra;
            match monitor {
                AskedMonitor::Yes => (history.has_keys, history.streak) = (true, 0),
                AskedMonitor::PerhapsNot => {
                    if self.in_flight.holds_monitor(*uuid)
                        || extra.try_again(*uuid, history.tries(), now)
                    {
                        extra.missing.insert(*uuid);
                    } else {
                        history.streak = history.streak.saturating_add(1);
                        history.has_keys &= history.streak < MOST_STREAK;
                    }
                }
                AskedMonitor::Unknown => {}
            }
        }
    }

    /// The domains that are not to be asked yet, and until when: a call which was given up may still come past them, or libvirt
    /// has just passed them by.
    fn not_yet(&self, now: Instant) -> HashMap<Uuid, Instant> {
        let passed_by = self.round.extra.passed_by.iter();
        let mut until: HashMap<Uuid, Instant> = passed_by
            .filter(|(_, (_, due))| *due > now)
            .map(|(uuid, (_, due))| (*uuid, *due))
            .collect();
        for call in self.in_flight.abandoned() {
            let end = call.since + COMES_PAST;
            if call.kind.needs_monitor() && now < end {
                for uuid in &call.asked {
                    let known = until.entry(*uuid).or_insert(end);
                    *known = end.max(*known);
                }
            }
        }
        until
    }

    /// When domains can be asked that cannot be yet; `None` while something else comes first.
    pub(super) fn extra_due(&self) -> Option<Instant> {
        let waits_until = self.round.extra.waits_until;
        waits_until.filter(|_| self.may_ask_extra())
    }

    /// A call that was given up is over.
    pub(super) fn on_late_extra(&mut self, call: &Call) {
        for uuid in &call.asked {
            let is_blocked_on = call.blocked_on.is_none_or(|other| other == *uuid);
            let is_asked = |(_, other): (CallId, &Call)| {
                other.kind == RequestKind::Extra && other.asked.contains(uuid)
            };
            // The other domains of its call were asked again at once.
            if is_blocked_on && !self.is_locked(*uuid) && !self.in_flight.in_hand().any(is_asked) {
                self.round.extra.late(*uuid);
            }
        }
    }

    /// The call stalls, and no domain is known to block it: it is not worth waiting for.
    pub(super) fn give_up_extra(&mut self, call_id: CallId) {
        self.in_flight.abandon(call_id, None);
    }
}
