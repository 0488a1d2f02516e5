//! What to ask of whom, what to hedge, what to abandon: the decisions of a gather, without a
//! thread, a clock or a libvirt in them.
//!
//! Events come in with their time ([`Scheduler::on`], [`Scheduler::looked`], [`Scheduler::tick`]), orders
//! go out ([`Scheduler::orders`]). What an order brings is reported call by call under its number.
//!
//! A gather goes: list -> describe who is new -> look at the host -> canary -> statistics.

mod interface;
mod locks;
mod plan;
mod replies;
mod round;
mod stalls;

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::in_flight::{Call, InFlight};
use super::protocol::{CallId, Completeness, Request, RequestKind};
use crate::maps::HashMap;
pub use interface::{Action, Event, HostVerdict, Limits, Listed};
use round::{Phase, Round};

/// What is known of a domain beyond one gather.
#[derive(Debug, Clone, Copy, Default)]
struct DomainHistory {
    /// When it last answered in full.
    whole_at: Option<Instant>,
    /// Gathers in a row in which it came in part with no call of ours to blame.
    partial_streak: u32,
    /// Our call that hangs on its lock: nothing more is asked of it until that returns.
    locked: Option<CallId>,
}

/// The decisions.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    in_flight: InFlight,
    histories: HashMap<Uuid, DomainHistory>,
    /// The domains of the list, or those last known, and whether each is described.
    listed: Vec<Listed>,
    round: Round,
    actions: Vec<Action>,
    /// Nothing came back from anybody: nothing is sent until something does.
    frozen: bool,
    /// How long a list takes, and a chunk, when all is well.
    list_pace: Duration,
    chunk_pace: Duration,
}

impl Scheduler {
    /// Nothing known yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: InFlight::new(limits.cap),
            histories: HashMap::default(),
            listed: Vec::new(),
            round: Round::default(),
            actions: Vec::new(),
            frozen: false,
            list_pace: Duration::ZERO,
            chunk_pace: Duration::ZERO,
        }
    }

    /// The domains to ask, should no list come in the gather that begins next.
    pub fn knows(&mut self, listed: Vec<Listed>) {
        self.listed = listed;
    }

    /// Begins a gather.
    pub fn begin(&mut self, now: Instant) {
        self.round = Round {
            began: Some(now),
            ..Round::default()
        };
        self.in_flight.age(now);
        if self.frozen {
            // Nothing is sent into a daemon that is frozen, but its first word is waited for.
            self.round.waiting = true;
            return;
        }
        self.ask_for_list(now);
        self.advance(now);
    }

    fn ask_for_list(&mut self, now: Instant) {
        // While a list hangs none is sent again: the domains last known serve.
        let risk = RequestKind::List.risk(!self.in_flight.has_orphaned(RequestKind::List));
        if !self.in_flight.hangs(RequestKind::List) && self.in_flight.room(risk) > 0 {
            self.send(Request::List, now);
        } else {
            self.round.phase = Phase::Describing;
        }
    }

    /// Ends it: whoever has not answered is not waited for any more.
    pub fn end(&mut self) {
        self.frozen |= self.is_frozen();
        for action in self.actions.drain(..) {
            if let Action::Send(call_id, _) = action {
                self.in_flight.forget(call_id);
            }
        }
        // One that describes stands at the first of those that it has not described.
        let stands_at = |call: &Call| {
            let describes = call.kind == RequestKind::Describe;
            call.asked.first().copied().filter(|_| describes)
        };
        let left = self.in_flight.in_hand();
        let left: Vec<_> = left
            .map(|(call_id, call)| (call_id, stands_at(call)))
            .collect();
        for (call_id, blocked_on) in left {
            if self.frozen {
                self.in_flight.abandon_in_stopped_daemon(call_id);
            } else {
                self.in_flight.abandon(call_id, blocked_on);
            }
        }
        for (uuid, vm) in std::mem::take(&mut self.round).vms {
            let held = self.in_flight.holds(uuid);
            if let Some(history) = self.histories.get_mut(&uuid) {
                let missed = vm.completeness == Some(Completeness::Partial) && !held;
                history.partial_streak = if missed {
                    history.partial_streak + 1
                } else {
                    0
                };
            }
        }
        self.round.phase = Phase::Over;
    }

    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        let mut in_hand = self.in_flight.in_hand();
        match self.round.phase {
            Phase::Over => in_hand.next().is_none(),
            // What is queued in a daemon without workers may stay there.
            Phase::Saturated => {
                let urgent = &self.round.priority;
                self.round.recheck_until.is_none()
                    && urgent.is_empty()
                    && !in_hand.any(|(_, c)| c.kind == RequestKind::Priority)
            }
            Phase::Asking => {
                let round = &self.round;
                round.grace_until.is_none() && round.is_empty() && in_hand.next().is_none()
            }
            Phase::Listing | Phase::Describing | Phase::Looking | Phase::Canary => false,
        }
    }

    /// Calls that hang.
    pub fn hanging(&self) -> usize {
        self.in_flight.hanging()
    }

    /// Domains that are locked inside libvirtd: nothing is asked of them.
    pub fn locked(&self) -> impl Iterator<Item = Uuid> {
        let locked = self.histories.iter().filter(|(_, s)| s.locked.is_some());
        locked.map(|(uuid, _)| *uuid)
    }

    /// Domains of this gather that have not answered yet: all that are listed, where it did not come
    /// to asking them.
    pub fn unanswered(&self) -> impl Iterator<Item = Uuid> {
        let silent = self
            .round
            .vms
            .iter()
            .filter(|(_, vm)| vm.completeness.is_none());
        let unasked = matches!(self.round.phase, Phase::Describing | Phase::Looking);
        let unasked = self.listed.iter().filter(move |_| unasked);
        let unasked = unasked.map(|listed| listed.uuid);
        let unasked = unasked.filter(|uuid| !self.is_locked(*uuid));
        silent.map(|(uuid, _)| *uuid).chain(unasked)
    }

    /// Domains of this gather whose statistics were refused.
    pub fn refused(&self) -> impl Iterator<Item = Uuid> {
        self.round.refused.iter().copied()
    }

    /// Whether this gather found libvirtd without a worker to spare, and which domain's monitor has
    /// been occupied the longest.
    pub fn saturated(&self) -> Option<Option<Uuid>> {
        let saturated = self.round.phase == Phase::Saturated || self.round.was_saturated;
        saturated.then_some(self.round.occupied.map(|(uuid, _)| uuid))
    }

    /// Whether what this call brings is still wanted.
    pub fn is_wanted(&self, call_id: CallId) -> bool {
        self.in_flight
            .get(call_id)
            .is_some_and(|call| !call.abandoned)
    }

    /// The list is coming on a connection that was opened for it.
    pub fn reconnected(&mut self) {
        self.round.fresh = true;
    }

    /// What is to be done now, in this order.
    pub fn actions(&mut self) -> Vec<Action> {
        std::mem::take(&mut self.actions)
    }

    /// The call waits for a worker that has a connection.
    pub fn queued(&mut self, call_id: CallId) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            call.queued = true;
        }
    }

    /// A call that waited for a worker is begun.
    pub fn begun(&mut self, call_id: CallId, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            (call.queued, call.since, call.last_reply_at) = (false, now, now);
        }
    }

    /// The call was never begun.
    pub fn dropped(&mut self, call_id: CallId) {
        self.in_flight.forget(call_id);
    }

    /// What to take for granted, should the host's look that was ordered be late.
    pub fn presume(&mut self, look: HostVerdict) {
        self.round.look = look;
    }

    /// What the host says.
    pub fn looked(&mut self, look: HostVerdict, now: Instant) {
        if self.round.phase == Phase::Looking {
            self.round.look = look;
            self.after_look(now);
        }
        self.advance(now);
    }

    /// What a call brought.
    pub fn on(&mut self, call_id: CallId, event: Event, now: Instant) {
        self.frozen = false;
        self.round.last_reply_at = Some(now);
        if !matches!(event, Event::Lost | Event::Unreachable) {
            self.in_flight.serves();
        }
        match event {
            Event::Alive => self.on_alive(call_id, now),
            Event::Control(uuid, control) => self.on_control(call_id, uuid, control, now),
            Event::Served(uuid) => self.on_served(call_id, uuid, now),
            Event::Described(uuid) => {
                self.round.unknown.remove(&uuid);
                self.on_served(call_id, uuid, now);
            }
            Event::MonitorHeld(uuid) => {
                self.round.held.insert(uuid);
                self.on_served(call_id, uuid, now);
            }
            event => {
                let lost = event == Event::Lost;
                if let Some(call) = self.in_flight.returned(call_id, lost) {
                    self.on_return(call_id, &call, event, now);
                }
            }
        }
        if std::mem::take(&mut self.round.waiting) {
            self.ask_for_list(now);
        }
        self.advance(now);
    }

    fn is_locked(&self, uuid: Uuid) -> bool {
        self.histories
            .get(&uuid)
            .is_some_and(|s| s.locked.is_some())
    }

    fn send(&mut self, request: Request<Uuid>, now: Instant) -> CallId {
        let call_id = self.in_flight.send(&request, now);
        self.actions.push(Action::Send(call_id, request));
        call_id
    }
}
