//! The calls that have not returned: which are waited for, which hang, and on which domain.
//!
//! A call that hangs in libvirtd is a resource of the host: its 20 workers serve everybody. So
//! calls are counted until they return, over any number of gathers, and there is a cap.

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::protocol::{CallId, Request, RequestKind, Risk};
use crate::maps::HashSet;

/// By how many calls those that were lost with their connection may pass the cap.
const ORPHANS_PAST_CAP: usize = 4;

/// A call that has not returned.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it does.
    pub kind: RequestKind,
    /// Whom it asks; those that have answered are taken out.
    pub asked: Vec<Uuid>,
    /// When it was sent.
    pub since: Instant,
    /// When it last brought something.
    pub last_reply_at: Instant,
    /// It waits for a worker, and so in nobody's hands.
    pub queued: bool,
    /// Not waited for any more; what it brings is dropped.
    pub abandoned: bool,
    /// The domain it hangs on, where that is known.
    pub blocked_on: Option<Uuid>,
    /// The daemon served nobody when it was abandoned: it will return when the daemon goes on.
    pub daemon_was_stopped: bool,
}

/// How long a call whose connection died is counted where nothing tells what became of it. Without
/// an end so many of them might come together that nothing could ever be asked again.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(600);

/// All calls that have not returned.
#[derive(Debug)]
pub struct InFlight {
    calls: BTreeMap<CallId, Call>,
    /// Calls that hung when their connection died: they go on hanging in libvirtd, until an answer
    /// shows that they cannot.
    orphaned: BTreeMap<CallId, Call>,
    /// Calls whose connection died while they were waited for, or the daemon served nobody: whether they hang shows when those
    /// that they asked are asked again.
    lost: Vec<Call>,
    next: CallId,
    cap: usize,
    /// Since when something hangs.
    hanging_since: Option<Instant>,
}

impl InFlight {
    /// Empty; at most `cap` calls may be out at once, and one more for the priority workers.
    pub fn new(cap: usize) -> Self {
        Self {
            calls: BTreeMap::new(),
            orphaned: BTreeMap::new(),
            lost: Vec::new(),
            next: 0,
            cap,
            hanging_since: None,
        }
    }

    /// Notes a call that is being sent.
    pub fn send(&mut self, request: &Request<Uuid>, now: Instant) -> CallId {
        let call_id = self.next;
        self.next += 1;
        self.calls.insert(
            call_id,
            Call {
                kind: request.kind(),
                asked: request.domains().to_vec(),
                since: now,
                last_reply_at: now,
                queued: false,
                abandoned: false,
                blocked_on: None,
                daemon_was_stopped: false,
            },
        );
        call_id
    }

    /// The call, while it has not returned.
    pub fn get(&self, call_id: CallId) -> Option<&Call> {
        self.calls.get(&call_id)
    }

    /// As [`InFlight::get`].
    pub fn get_mut(&mut self, call_id: CallId) -> Option<&mut Call> {
        self.calls.get_mut(&call_id)
    }

    /// Not waited for any more. The trouble is as old as its first call: who answered since then
    /// answered in spite of it.
    pub fn abandon(&mut self, call_id: CallId, blocked_on: Option<Uuid>) {
        if let Some(call) = self.calls.get_mut(&call_id) {
            call.abandoned = true;
            call.blocked_on = call.blocked_on.or(blocked_on);
            self.hanging_since.get_or_insert(call.since);
        }
    }

    /// The daemon serves nobody: that a call hangs is neither its fault nor its domain's.
    pub fn abandon_in_stopped_daemon(&mut self, call_id: CallId) {
        self.abandon(call_id, None);
        if let Some(call) = self.calls.get_mut(&call_id) {
            (call.daemon_was_stopped, call.blocked_on) = (true, None);
        }
    }

    /// The daemon serves somebody: what does not return now hangs for a reason of its own.
    pub fn serves(&mut self) {
        for call in self.calls.values_mut() {
            call.daemon_was_stopped = false;
        }
    }

    /// It was never sent.
    pub fn forget(&mut self, call_id: CallId) {
        self.calls.remove(&call_id);
        self.settle();
    }

    /// It returned. With `lost` its connection died first: libvirtd may still be at it.
    pub fn returned(&mut self, call_id: CallId, lost: bool) -> Option<Call> {
        let call = self.calls.remove(&call_id)?;
        if !lost {
            // What asked no domain, a list, shows by itself that it can return.
            let same = |orphan: &Call| orphan.kind == call.kind && orphan.asked.is_empty();
            self.orphaned
                .retain(|_, orphan| !(same(orphan) && orphan.blocked_on.is_none()));
        } else if call.abandoned
            && !call.daemon_was_stopped
            && (call.kind == RequestKind::List || !call.asked.is_empty())
        {
            self.orphaned.insert(call_id, call.clone());
        } else if call.kind.needs_monitor() {
            self.lost.push(call.clone());
        }
        self.settle();
        Some(call)
    }

    /// The domain's lock can be had, so no call hangs on that. With `idle` nobody is at its monitor
    /// either.
    pub fn cleared(&mut self, uuid: Uuid, idle: bool) {
        self.acquit(|u| *u == uuid, idle);
    }

    /// Whom lost calls may hang on.
    pub fn suspects(&self) -> BTreeSet<Uuid> {
        self.orphaned
            .values()
            .flat_map(|orphan| orphan.asked.iter().copied())
            .collect()
    }

    /// Only these domains still are: nothing hangs on one that is gone.
    pub fn keep(&mut self, active: &HashSet<Uuid>) {
        self.acquit(|uuid| !active.contains(uuid), true);
    }

    /// None of the lost calls hangs on one of these.
    fn acquit(&mut self, these: impl Fn(&Uuid) -> bool, idle: bool) {
        let hangs = |call: &mut Call| {
            if call.kind.needs_monitor() && !idle {
                return true;
            }
            if call
                .blocked_on
                .is_some_and(|blocked_on| !these(&blocked_on))
            {
                // Whether it will hang on the others when it comes to them is not known.
                return true;
            }
            let list = call.asked.is_empty();
            call.asked.retain(|uuid| !these(uuid));
            // It may have come past the one that it hung on, and hang on the next.
            call.blocked_on = None;
            list || !call.asked.is_empty()
        };
        self.orphaned.retain(|_, orphan| hangs(orphan));
        self.lost.retain_mut(hangs);
        self.settle();
    }

    /// Somebody is at the domain's monitor or has its lock: a lost call that asked it, if there is
    /// one, must be taken to hang on it.
    pub fn confirm(&mut self, uuid: Uuid) {
        for mut call in self.lost.extract_if(.., |call| call.asked.contains(&uuid)) {
            call.blocked_on = Some(uuid);
            let call_id = self.next;
            self.next += 1;
            self.hanging_since.get_or_insert(call.since);
            self.orphaned.insert(call_id, call);
        }
    }

    /// Forgets calls that were lost so long ago that they say nothing of today.
    pub fn age(&mut self, now: Instant) {
        self.orphaned
            .retain(|_, orphan| now < orphan.since + ORPHAN_LIFETIME);
        self.settle();
    }

    fn settle(&mut self) {
        if self.hanging() == 0 {
            self.hanging_since = None;
        }
    }

    /// Calls that are waited for.
    pub fn in_hand(&self) -> impl Iterator<Item = (CallId, &Call)> {
        self.calls
            .iter()
            .filter(|(_, c)| !c.abandoned)
            .map(|(t, c)| (*t, c))
    }

    /// How many calls of these kinds are waited for.
    pub fn count(&self, of: impl Fn(RequestKind) -> bool) -> usize {
        self.in_hand().filter(|(_, call)| of(call.kind)).count()
    }

    /// Calls that hang: abandoned and not returned, orphaned ones included.
    pub fn hanging(&self) -> usize {
        self.calls.values().filter(|c| c.abandoned).count() + self.orphaned.len()
    }

    /// Whether a call of this kind hangs that is not known to hang on some domain alone.
    pub fn hangs(&self, kind: RequestKind) -> bool {
        let hangs = |call: &Call| call.abandoned && call.kind == kind && call.blocked_on.is_none();
        self.calls.values().any(hangs)
    }

    /// Whether a call of this kind hung when its connection died.
    pub fn has_orphaned(&self, kind: RequestKind) -> bool {
        self.orphaned.values().any(|orphan| orphan.kind == kind)
    }

    /// Whether a call of ours that needs the monitor hangs on this domain: it holds the domain's
    /// job, so that a call that does not wait passes the domain by.
    pub fn holds(&self, uuid: Uuid) -> bool {
        let held = |c: &Call| c.abandoned && c.kind.needs_monitor() && c.blocked_on == Some(uuid);
        self.calls.values().chain(self.orphaned.values()).any(held)
    }

    /// Since when something hangs.
    pub fn hanging_since(&self) -> Option<Instant> {
        self.hanging_since
    }

    /// Whether a call that describes hangs on this domain.
    pub fn describes(&self, uuid: Uuid) -> bool {
        let hangs =
            |c: &Call| c.abandoned && c.kind == RequestKind::Describe && c.blocked_on == Some(uuid);
        self.calls.values().any(hangs)
    }

    /// How many calls may be out when one of this risk is sent. Of the risky ones one fewer than the
    /// cap, so that there is always room to ask the domains that answer; and beyond the cap one that
    /// libvirtd's priority workers serve, for that is the way to find out what hangs, and all that a
    /// libvirtd without ordinary workers still answers.
    fn limit(&self, risk: Risk) -> usize {
        match risk {
            Risk::Priority => self.cap + 1,
            Risk::Ordinary => self.cap,
            Risk::Risky => self.cap - 1,
        }
    }

    /// How many more calls of this risk may be sent. Lost calls do not take the last ordinary one.
    pub fn room(&self, risk: Risk) -> usize {
        let out = self.calls.len() + self.orphaned.len();
        let last = risk == Risk::Ordinary
            && self.in_hand().next().is_none()
            && self.room_to_look(Risk::Ordinary);
        self.limit(risk).saturating_sub(out).max(usize::from(last))
    }

    /// Whether one more call may be sent to find out what became of the others, for nothing but an
    /// answer shows that a lost one hangs no more: it may pass the limit by some, within reason.
    pub fn room_to_look(&self, risk: Risk) -> bool {
        let (calls, orphaned) = (self.calls.len(), self.orphaned.len());
        let limit = self.limit(risk);
        calls < limit && calls + orphaned < limit + orphaned.min(ORPHANS_PAST_CAP)
    }
}
