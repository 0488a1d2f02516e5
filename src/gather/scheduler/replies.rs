//! What calls bring, and what follows from it.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::Scheduler;
use super::interface::{Event, Listed};
use super::round::Phase;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Completeness, Request, RequestKind, Scope};
use crate::maps::{HashMap, HashSet};

/// How often a domain that came in part is asked again, and how often one that keeps doing so is.
const TRIES: (u32, u32) = (7, 2);
/// How often where the daemon may just have been started.
const FRESH_TRIES: u32 = 24;
/// How many connections may be lost in one gather before nothing more is sent in it.
const LOSSES: u32 = 16;

impl Scheduler {
    /// A call that asks one by one has come past this domain, which is therefore not locked.
    pub(super) fn on_served(&mut self, call_id: CallId, uuid: Uuid, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            call.last_reply_at = now;
            call.asked.retain(|asked| *asked != uuid);
            if call.blocked_on == Some(uuid) {
                call.blocked_on = call.asked.first().copied();
            }
        }
        let history = self.histories.get_mut(&uuid);
        if history.is_some_and(|history| history.locked.take().is_some()) {
            self.release(uuid);
        }
    }

    pub(super) fn on_return(&mut self, call_id: CallId, call: &Call, event: Event, now: Instant) {
        let lost = matches!(event, Event::Lost | Event::Unreachable);
        if !lost {
            let histories = self.histories.iter_mut();
            let released = histories.filter_map(|(uuid, history)| {
                let locked = history.locked.take_if(|by| *by == call_id);
                locked.is_some().then_some(*uuid)
            });
            for uuid in released.collect::<Vec<_>>() {
                self.release(uuid);
            }
        }
        if self
            .round
            .probe
            .take_if(|probe| *probe == call_id)
            .is_some()
            && !lost
        {
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
                self.on_list(domains);
            }
            (RequestKind::List, _) => self.round.stop(),
            (RequestKind::Canary, _) if self.round.phase == Phase::Canary => self.start(),
            (RequestKind::Statistics(_), Event::Samples(completeness)) => {
                self.on_samples(call, completeness, now)
            }
            (RequestKind::Statistics(_), _) => {
                for uuid in &call.asked {
                    self.round.vms.remove(uuid);
                    self.round.refused.insert(*uuid);
                }
            }
            _ => {}
        }
    }

    /// What was asked on a connection that was lost is asked again on another, within reason.
    fn on_lost(&mut self, call: &Call, now: Instant) {
        self.round.losses += 1;
        if self.round.losses > LOSSES {
            self.round.stop();
            return;
        }
        match call.kind {
            RequestKind::List => {
                self.send(Request::List, now);
            }
            RequestKind::Describe => {
                let undescribed = self.round.undescribed.get_or_insert_default();
                undescribed.extend(&call.asked);
            }
            RequestKind::Canary if self.round.phase == Phase::Canary => self.start(),
            RequestKind::Statistics(_) => self.requeue(&call.asked),
            RequestKind::Disks => self.round.disks.extend(&call.asked),
            RequestKind::Priority => self.round.priority.extend(&call.asked),
            RequestKind::Canary | RequestKind::Probe => {}
        }
    }

    /// What comes too late is dropped, but tells that its call hangs no more. One that was `lost`
    /// with its connection tells nothing of libvirtd's workers.
    fn on_late(&mut self, call_id: CallId, call: &Call, lost: bool, now: Instant) {
        self.round.slow.remove(&call_id);
        self.end_grace_if_all_back();
        match (self.round.phase, call.kind) {
            (Phase::Saturated, RequestKind::Canary) if !lost => {
                // libvirtd has workers again.
                self.round.was_saturated = true;
                if self.round.vms.is_empty() {
                    // It was found out before any was taken up.
                    self.round.phase = Phase::Describing;
                } else {
                    self.start();
                }
            }
            (Phase::Asking, kind) if kind.needs_monitor() => {
                let Some(blocked_on) = call.blocked_on else {
                    return;
                };
                match self
                    .round
                    .vms
                    .get(&blocked_on)
                    .and_then(|vm| vm.completeness)
                {
                    Some(Completeness::Partial) => self.round.again.push((now, blocked_on)),
                    Some(Completeness::Full) if call.kind == RequestKind::Disks => {
                        self.round.disks.push_back(blocked_on);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn on_list(&mut self, domains: Vec<Listed>) {
        let active: HashSet<Uuid> = domains.iter().map(|listed| listed.uuid).collect();
        self.histories.retain(|uuid, _| active.contains(uuid));
        self.in_flight.keep(&active);
        self.listed = domains;
        self.round.phase = Phase::Describing;
    }

    fn on_samples(&mut self, call: &Call, completeness: Vec<(Uuid, Completeness)>, now: Instant) {
        if call.kind.needs_monitor() {
            self.chunk_pace = (now - call.since).max(self.chunk_pace.mul_f64(0.8));
        }
        let completeness: HashMap<Uuid, Completeness> = completeness.into_iter().collect();
        for uuid in &call.asked {
            let Some(completeness) = completeness.get(uuid) else {
                // It is gone, which is daily life.
                self.round.vms.remove(uuid);
                continue;
            };
            match completeness {
                Completeness::Full => self.in_flight.cleared(*uuid, call.kind.needs_monitor()),
                Completeness::Partial | Completeness::PriorityOnly => {
                    self.in_flight.cleared(*uuid, false);
                    self.in_flight.confirm(*uuid);
                }
            }
            let held = self.in_flight.holds(*uuid);
            let history = self.histories.entry(*uuid).or_default();
            let Some(vm) = self.round.vms.get_mut(uuid) else {
                continue;
            };
            vm.completeness = Some(*completeness);
            match (vm.scope, completeness) {
                (Scope::NoMonitor, _) => {}
                (scope, Completeness::Full) => {
                    history.whole_at = Some(now);
                    if scope == Scope::NoBlock && !self.round.look.no_disks.contains(uuid) {
                        self.round.disks.push_back(*uuid);
                    }
                }
                _ if held => {}
                _ => {
                    let tries = match history.partial_streak {
                        _ if self.round.fresh => FRESH_TRIES,
                        0 | 1 => TRIES.0,
                        _ => TRIES.1,
                    };
                    if vm.tries < tries {
                        let pause = Duration::from_millis(5 << vm.tries.min(4));
                        vm.tries += 1;
                        self.round.again.push((now + pause, *uuid));
                    }
                }
            }
        }
    }
}
