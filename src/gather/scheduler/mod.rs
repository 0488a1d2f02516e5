//! Decides which call to make next, which to retry and which to abandon. A pure state machine: no
//! threads, no clock, no libvirt.
//!
//! Events come in with their time ([`Scheduler::on`], [`Scheduler::on_host_checked`], [`Scheduler::tick`]),
//! and [`Scheduler::actions`] says what is to be done. What a call brings is reported under its
//! number.
//!
//! A healthy gather: list, describe the new domains, check the host, canary, statistics
//! (`next_phase` in `phases.rs`).

mod daemon;
mod descriptions;
mod domains;
mod extra;
mod grace;
mod interface;
mod locks;
mod outcome;
mod phases;
mod probe;
mod queue;
mod replies;
mod round;
mod stalls;
mod statistics;

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::in_flight::InFlight;
use super::protocol::{CallId, Request, RequestKind};
use crate::maps::HashMap;
use extra::ExtraHistory;
pub use extra::MOST_EXTRA;
use grace::Grace;
pub use interface::{Action, Event, HostVerdict, Limits, Listed};
use locks::Locks;
pub use outcome::Outcome;
use phases::Phase;
use round::Round;

/// What is known of a domain beyond one gather.
#[derive(Debug, Clone, Copy, Default)]
struct DomainHistory {
    /// When it last answered in full.
    full_at: Option<Instant>,
    /// The number of gathers in a row in which it came in part although no call of ours blocked it.
    partial_streak: u32,
    /// What its replies to [`Request::Extra`] have shown.
    extra: ExtraHistory,
}

/// The decisions.
#[derive(Debug)]
pub struct Scheduler {
    limits: Limits,
    in_flight: InFlight,
    histories: HashMap<Uuid, DomainHistory>,
    locks: Locks,
    /// The domains of the list, or those last known, and whether each is described.
    listed: Vec<Listed>,
    round: Round,
    actions: Vec<Action>,
    /// No reply came in the last gather: nothing is sent until one does.
    daemon_is_stopped: bool,
    /// How long the last list took.
    list_pace: Duration,
    /// How long a chunk takes when all is well.
    chunk_pace: Duration,
}

impl Scheduler {
    /// A scheduler that knows nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            in_flight: InFlight::new(limits.cap),
            histories: HashMap::default(),
            locks: Locks::default(),
            listed: Vec::new(),
            round: Round::default(),
            actions: Vec::new(),
            daemon_is_stopped: false,
            list_pace: Duration::ZERO,
            chunk_pace: Duration::ZERO,
        }
    }

    /// The domains to ask, should no list come in the gather that begins next.
    pub fn set_known(&mut self, listed: Vec<Listed>) {
        self.listed = listed;
    }

    /// Begins a gather.
    pub fn begin(&mut self, now: Instant) {
        self.round = Round {
            grace: Grace::new(now),
            ..Round::default()
        };
        self.locks.begin();
        self.in_flight.age(now);
        // Nothing is sent into a stopped daemon: its first reply begins the gather.
        if !self.daemon_is_stopped {
            self.next_phase(now);
            self.advance(now);
        }
    }

    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        let round = &self.round;
        match &round.phase {
            Phase::Over => !self.in_flight.is_any_in_hand(),
            // What is queued in a daemon without workers may stay there.
            Phase::Saturated {
                recheck_until,
                left,
                ..
            } => {
                let in_hand = self.in_flight.count(|kind| kind == RequestKind::Priority);
                recheck_until.is_none() && left.is_empty() && in_hand == 0
            }
            Phase::Statistics => {
                let is_waiting = round.grace.until().is_some();
                let is_all_sent = round.queue.is_empty() && round.extra.is_empty();
                !is_waiting && is_all_sent && !self.in_flight.is_any_in_hand()
            }
            Phase::NotBegun | Phase::Listing | Phase::Describing => false,
            Phase::CheckingHost { .. } | Phase::Canary => false,
        }
    }

    /// The number of calls that hang.
    pub fn hanging(&self) -> usize {
        self.in_flight.hanging()
    }

    /// Domains that are locked inside libvirtd: nothing is asked of them.
    pub fn locked(&self) -> impl Iterator<Item = Uuid> {
        self.locks.domains()
    }

    /// Whether the domain's QEMU is known not to answer without being asked in this gather: the check of the
    /// host has shown it, its monitor has been in use for long, or a call of ours hangs on it.
    pub fn is_qemu_stuck(&self, uuid: Uuid) -> bool {
        self.round.host.stuck.contains(&uuid)
            || self.round.descriptions.is_held(uuid)
            || self.in_flight.holds_monitor(uuid)
    }

    /// Whether what this call brings is still wanted.
    pub fn is_wanted(&self, call_id: CallId) -> bool {
        self.in_flight
            .get(call_id)
            .is_some_and(|call| !call.abandoned)
    }

    /// The list is coming on a connection that was opened for it.
    pub fn reconnected(&mut self) {
        self.round.grace.set_daemon_is_fresh();
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

    /// A worker begins a call that has waited for one.
    pub fn begun(&mut self, call_id: CallId, now: Instant) {
        if let Some(call) = self.in_flight.get_mut(call_id) {
            (call.queued, call.since, call.last_reply_at) = (false, now, now);
        }
    }

    /// The call was never made.
    pub fn dropped(&mut self, call_id: CallId) {
        self.in_flight.forget(call_id);
    }

    /// What to assume of the host if the check of it is late.
    pub fn assume_of_host(&mut self, host: HostVerdict) {
        self.round.host = host;
    }

    /// What the check of the host has shown.
    pub fn on_host_checked(&mut self, host: HostVerdict, now: Instant) {
        if matches!(self.round.phase, Phase::CheckingHost { .. }) {
            self.round.host = host;
            self.next_phase(now);
        }
        self.advance(now);
    }

    /// What a call brought.
    pub fn on(&mut self, call_id: CallId, event: Event, now: Instant) {
        self.daemon_is_stopped = false;
        self.round.daemon.on_reply(now);
        if !matches!(event, Event::Lost | Event::Unreachable) {
            self.in_flight.daemon_serves();
        }
        match event {
            Event::Alive => self.on_alive(call_id, now),
            Event::Control(uuid, control) => self.on_control(call_id, uuid, control, now),
            Event::Served(uuid) => self.on_served(call_id, uuid, now),
            Event::Described(uuid) => {
                self.round.descriptions.on_described(uuid);
                self.on_served(call_id, uuid, now);
            }
            Event::MonitorHeld(uuid) => {
                self.round.descriptions.on_held(uuid);
                self.on_served(call_id, uuid, now);
            }
            Event::Listed(_)
            | Event::Samples(_)
            | Event::Extra(_)
            | Event::Done
            | Event::Refused
            | Event::Lost
            | Event::Unreachable => self.on_end_of_call(call_id, event, now),
        }
        if matches!(self.round.phase, Phase::NotBegun) {
            // The daemon was stopped, and goes on.
            self.next_phase(now);
        }
        self.advance(now);
    }

    fn on_end_of_call(&mut self, call_id: CallId, event: Event, now: Instant) {
        let is_lost = event == Event::Lost;
        if let Some(call) = self.in_flight.returned(call_id, is_lost) {
            self.on_return(call_id, &call, event, now);
        }
    }

    fn is_locked(&self, uuid: Uuid) -> bool {
        self.locks.has(uuid)
    }

    /// When the domain last answered in full.
    fn full_at(&self, uuid: Uuid) -> Option<Instant> {
        self.histories.get(&uuid)?.full_at
    }

    fn send(&mut self, request: Request<Uuid>, now: Instant) -> CallId {
        let call_id = self.in_flight.send(&request, now);
        self.actions.push(Action::Send(call_id, request));
        call_id
    }
}
