//! The calls that have not returned: which are waited for, which hang, and on which domain.
//!
//! A call that hangs occupies one of libvirtd's 20 workers, which serve all clients of the host. So
//! calls are counted until they return, over any number of gathers, and their number is capped.

mod room;

use room::is_counted;

use std::collections::{BTreeMap, BTreeSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::protocol::{CallId, Request, RequestKind};
use crate::maps::HashSet;

/// A call that has not returned.
#[derive(Debug, Clone)]
pub struct Call {
    /// What it does.
    pub kind: RequestKind,
    /// The domains that it has not served yet.
    pub asked: Vec<Uuid>,
    /// When it was sent.
    pub since: Instant,
    /// When it last brought something.
    pub last_reply_at: Instant,
    /// It waits for a worker of ours, and was not made yet.
    pub queued: bool,
    /// It is not waited for any more; what it brings is dropped.
    pub abandoned: bool,
    /// The domain on which it hangs, where that is known.
    pub blocked_on: Option<Uuid>,
    /// The daemon was stopped when the call was abandoned: it returns when the daemon goes on.
    pub daemon_was_stopped: bool,
}

/// How long an orphaned call is counted where nothing shows what became of it. Without an end they
/// might become so many that no call could ever be sent again.
const ORPHAN_LIFETIME: Duration = Duration::from_secs(600);

/// All calls that have not returned.
#[derive(Debug)]
pub struct InFlight {
    calls: BTreeMap<CallId, Call>,
    /// Calls that hung when their connection was lost: they are taken to hang in libvirtd until a
    /// reply shows that they cannot.
    orphaned: BTreeMap<CallId, Call>,
    /// Calls whose connection was lost while they were waited for, or while the daemon was stopped.
    /// Whether they hang shows when their domains are asked again.
    lost: Vec<Call>,
    next: CallId,
    cap: usize,
    /// When the first of the calls that hang was sent, of those that count towards the cap.
    hanging_since: Option<Instant>,
}

impl InFlight {
    /// No calls yet; at most `cap` may be in flight at once, and one more for the priority workers.
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

    /// Adds a call that is being sent.
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

    /// The call, while it has not returned, to be changed.
    pub fn get_mut(&mut self, call_id: CallId) -> Option<&mut Call> {
        self.calls.get_mut(&call_id)
    }

    /// The call is not waited for any more. The trouble began when the first of such calls was sent: a
    /// domain that has answered since then answers in spite of it.
    pub fn abandon(&mut self, call_id: CallId, blocked_on: Option<Uuid>) {
        if let Some(call) = self.calls.get_mut(&call_id) {
            call.abandoned = true;
            call.blocked_on = call.blocked_on.or(blocked_on);
            if is_counted(call.kind) {
                let since = call.since;
                self.note_hanging(since);
            }
        }
    }

    /// The one that was abandoned first is not always the one that was sent first.
    fn note_hanging(&mut self, since: Instant) {
        let first = self.hanging_since.map_or(since, |first| first.min(since));
        self.hanging_since = Some(first);
    }

    /// The call is not waited for any more, because the daemon is stopped: no domain blocks it.
    pub fn abandon_in_stopped_daemon(&mut self, call_id: CallId) {
        self.abandon(call_id, None);
        if let Some(call) = self.calls.get_mut(&call_id) {
            (call.daemon_was_stopped, call.blocked_on) = (true, None);
        }
    }

    /// The daemon is not stopped: a call that does not return hangs for a reason of its own.
    pub fn daemon_serves(&mut self) {
        for call in self.calls.values_mut() {
            call.daemon_was_stopped = false;
        }
    }

    /// The call was never made.
    pub fn forget(&mut self, call_id: CallId) {
        self.calls.remove(&call_id);
        self.update_hanging_since();
    }

    /// The call returned. If it was `lost` with its connection, libvirtd may still work on it.
    pub fn returned(&mut self, call_id: CallId, lost: bool) -> Option<Call> {
        let call = self.calls.remove(&call_id)?;
        if !lost {
            // A call that concerns no domain, like a list, shows that others of its kind return, too.
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
        self.update_hanging_since();
        Some(call)
    }

    /// The domain is not locked, so no call hangs on its lock. If its monitor is free, none hangs on
    /// that either.
    pub fn rule_out(&mut self, uuid: Uuid, monitor_is_free: bool) {
        self.rule_out_where(|other| *other == uuid, monitor_is_free);
    }

    /// Domains on which orphaned calls may hang.
    pub fn suspected_domains(&self) -> BTreeSet<Uuid> {
        self.orphaned
            .values()
            .flat_map(|orphan| orphan.asked.iter().copied())
            .collect()
    }

    /// Only these domains are active: no call hangs on one that is gone.
    pub fn retain_active(&mut self, active: &HashSet<Uuid>) {
        self.rule_out_where(|uuid| !active.contains(uuid), true);
    }

    /// No orphaned or lost call hangs on one of `these`.
    fn rule_out_where(&mut self, these: impl Fn(&Uuid) -> bool, monitor_is_free: bool) {
        let may_hang = |call: &mut Call| {
            if call.kind.needs_monitor() && !monitor_is_free {
                return true;
            }
            if call
                .blocked_on
                .is_some_and(|blocked_on| !these(&blocked_on))
            {
                // Whether it will hang on its other domains, too, is not known.
                return true;
            }
            let list = call.asked.is_empty();
            call.asked.retain(|uuid| !these(uuid));
            // It may have come past the domain that blocked it, and hang on the next.
            call.blocked_on = None;
            list || !call.asked.is_empty()
        };
        self.orphaned.retain(|_, orphan| may_hang(orphan));
        self.lost.retain_mut(may_hang);
        self.update_hanging_since();
    }

    /// The domain's monitor is in use, or the domain is locked: a lost call that concerns it must be
    /// taken to hang on it.
    pub fn attribute_lost(&mut self, uuid: Uuid) {
        let concerned = self.lost.extract_if(.., |call| call.asked.contains(&uuid));
        let concerned: Vec<Call> = concerned.collect();
        for mut call in concerned {
            call.blocked_on = Some(uuid);
            let call_id = self.next;
            self.next += 1;
            if is_counted(call.kind) {
                self.note_hanging(call.since);
            }
            self.orphaned.insert(call_id, call);
        }
    }

    /// Forgets calls that were orphaned so long ago that they probably do not hang any more.
    pub fn age(&mut self, now: Instant) {
        self.orphaned
            .retain(|_, orphan| now < orphan.since + ORPHAN_LIFETIME);
        self.update_hanging_since();
    }

    fn update_hanging_since(&mut self) {
        let abandoned = self.calls.values().filter(|call| call.abandoned);
        let mut hanging = abandoned.chain(self.orphaned.values());
        if !hanging.any(|call| is_counted(call.kind)) {
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

    /// Calls that were abandoned, and have not returned.
    pub fn abandoned(&self) -> impl Iterator<Item = &Call> {
        self.calls.values().filter(|call| call.abandoned)
    }

    /// Whether any call is waited for.
    pub fn is_any_in_hand(&self) -> bool {
        self.in_hand().next().is_some()
    }

    /// How many calls of these kinds are waited for.
    pub fn count(&self, of: impl Fn(RequestKind) -> bool) -> usize {
        self.in_hand().filter(|(_, call)| of(call.kind)).count()
    }

    /// The number of calls that hang: those that were abandoned and have not returned, and the
    /// orphaned ones.
    pub fn hanging(&self) -> usize {
        self.calls.values().filter(|c| c.abandoned).count() + self.orphaned.len()
    }

    /// Whether a call of this kind hangs without a domain that is known to block it.
    pub fn hangs(&self, kind: RequestKind) -> bool {
        let hangs = |call: &Call| call.abandoned && call.kind == kind && call.blocked_on.is_none();
        self.calls.values().any(hangs)
    }

    /// How many calls of these kinds are in flight, those included that hung when their connection was lost.
    pub fn out(&self, of: impl Fn(RequestKind) -> bool) -> usize {
        let out = self.calls.values().chain(self.orphaned.values());
        out.filter(|call| of(call.kind)).count()
    }

    /// Whether a call of this kind hung when its connection was lost.
    pub fn has_orphaned(&self, kind: RequestKind) -> bool {
        self.orphaned.values().any(|orphan| orphan.kind == kind)
    }

    /// Whether a call of ours that needs the monitor hangs on this domain. Such a call has the domain's
    /// job, so that NOWAIT calls skip the monitor.
    pub fn holds_monitor(&self, uuid: Uuid) -> bool {
        let held = |c: &Call| c.abandoned && c.kind.needs_monitor() && c.blocked_on == Some(uuid);
        self.calls.values().chain(self.orphaned.values()).any(held)
    }

    /// When the first of the calls that hang was sent.
    pub fn hanging_since(&self) -> Option<Instant> {
        self.hanging_since
    }

    /// Whether a call that reads XML hangs on this domain.
    pub fn is_describing_blocked_on(&self, uuid: Uuid) -> bool {
        let hangs =
            |c: &Call| c.abandoned && c.kind == RequestKind::Describe && c.blocked_on == Some(uuid);
        self.calls.values().any(hangs)
    }
}
