//! What to ask of whom, what to hedge, what to set aside: the decisions of a gather, without a
//! thread, a clock or a libvirt in them.
//!
//! Events come in with their time ([`Engine::on`], [`Engine::looked`], [`Engine::tick`]), orders
//! go out ([`Engine::orders`]). What an order brings is reported call by call under its ticket.
//!
//! A gather goes: list -> describe who is new -> look at the host -> canary -> statistics.

mod course;
mod doubt;
mod order;
mod plan;

use std::collections::{HashMap, HashSet};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::ledger::{Call, Kind, Ledger, Ticket};
use course::{Course, Phase};
pub use order::{Came, Control, Event, Limits, Listed, Look, Order, Scope};

/// How often a domain that came in part is asked again, and how often one that keeps doing so is.
const TRIES: (u32, u32) = (7, 2);

/// How often where the daemon may just have been started.
const FRESH_TRIES: u32 = 24;
/// How long after its beginning a gather waits for whom it found locked or slow, and how long
/// where the daemon may just have been started.
const HOLD: (Duration, Duration) = (Duration::from_millis(600), Duration::from_secs(3));
/// How many connections may be lost in one gather before nothing more is sent in it.
const LOSSES: u32 = 16;

/// What is known of a domain beyond one gather.
#[derive(Debug, Clone, Copy, Default)]
struct Standing {
    /// When it last answered in full.
    whole_at: Option<Instant>,
    /// Gathers in a row in which it came in part with no call of ours to blame.
    misses: u32,
    /// Our call that hangs on its lock: nothing more is asked of it until that returns.
    locked: Option<Ticket>,
}

/// The decisions.
#[derive(Debug)]
pub struct Engine {
    limits: Limits,
    ledger: Ledger,
    standings: HashMap<Uuid, Standing>,
    /// The domains of the last list, and whether each is described.
    listed: Vec<Listed>,
    course: Course,
    orders: Vec<(Ticket, Order)>,
    /// Nothing came back from anybody: nothing is sent until something does.
    frozen: bool,
    /// How long a list takes, and a chunk, when all is well.
    list_pace: Duration,
    chunk_pace: Duration,
}

impl Engine {
    /// Nothing known yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            ledger: Ledger::new(limits.cap),
            standings: HashMap::new(),
            listed: Vec::new(),
            course: Course::default(),
            orders: Vec::new(),
            frozen: false,
            list_pace: Duration::ZERO,
            chunk_pace: Duration::ZERO,
        }
    }

    /// Begins a gather.
    pub fn begin(&mut self, now: Instant) {
        self.course = Course {
            began: Some(now),
            ..Course::default()
        };
        self.ledger.age(now);
        if self.frozen {
            self.course.phase = Phase::Over;
            return;
        }
        // While a list hangs none is sent again: the domains last known serve.
        let risky = self.ledger.haunts(Kind::List);
        if !self.ledger.hangs(Kind::List) && self.ledger.room(risky) > 0 {
            self.send(Kind::List, Vec::new(), Order::List, now);
        } else {
            self.course.phase = Phase::Describing;
        }
        self.advance(now);
    }

    /// Ends it: whoever has not answered is not waited for any more.
    pub fn end(&mut self) {
        self.frozen |= self.is_frozen();
        for (ticket, _) in self.orders.drain(..) {
            // It was never sent.
            self.ledger.returned(ticket, false);
        }
        let left: Vec<Ticket> = self.ledger.in_hand().map(|(ticket, _)| ticket).collect();
        for ticket in left {
            if self.frozen {
                self.ledger.excuse(ticket);
            } else {
                self.ledger.set_aside(ticket, None);
            }
        }
        for (uuid, vm) in std::mem::take(&mut self.course).vms {
            let held = self.ledger.holds(uuid);
            if let Some(standing) = self.standings.get_mut(&uuid) {
                let missed = vm.came == Some(Came::Part) && !held;
                standing.misses = if missed { standing.misses + 1 } else { 0 };
            }
        }
        self.course.phase = Phase::Over;
    }

    /// Whether nothing is left to wait for.
    pub fn is_done(&self) -> bool {
        let mut in_hand = self.ledger.in_hand();
        match self.course.phase {
            Phase::Over => in_hand.next().is_none(),
            // What is queued in a daemon without workers may stay there.
            Phase::Spent => {
                let urgent = &self.course.urgent;
                self.course.hope.is_none()
                    && urgent.is_empty()
                    && !in_hand.any(|(_, c)| c.kind == Kind::Urgent)
            }
            Phase::Asking => {
                let course = &self.course;
                course.hold.is_none() && course.is_empty() && in_hand.next().is_none()
            }
            Phase::Listing | Phase::Describing | Phase::Looking | Phase::Canary => false,
        }
    }

    /// Calls that hang.
    pub fn hanging(&self) -> usize {
        self.ledger.hanging()
    }

    /// Domains that are locked inside libvirtd: nothing is asked of them.
    pub fn locked(&self) -> impl Iterator<Item = Uuid> {
        let locked = self.standings.iter().filter(|(_, s)| s.locked.is_some());
        locked.map(|(uuid, _)| *uuid)
    }

    /// Domains of this gather that have not answered yet.
    pub fn unanswered(&self) -> impl Iterator<Item = Uuid> {
        let silent = self.course.vms.iter().filter(|(_, vm)| vm.came.is_none());
        silent.map(|(uuid, _)| *uuid)
    }

    /// Whether this gather found libvirtd without a worker to spare, and which domain's monitor has
    /// been occupied the longest.
    pub fn spent(&self) -> Option<Option<Uuid>> {
        let spent = self.course.phase == Phase::Spent || self.course.was_spent;
        spent.then_some(self.course.occupied.map(|(uuid, _)| uuid))
    }

    /// Whether what this call brings is still wanted.
    pub fn is_wanted(&self, ticket: Ticket) -> bool {
        self.ledger.get(ticket).is_some_and(|call| !call.aside)
    }

    /// The list is coming on a connection that was opened for it.
    pub fn reconnected(&mut self) {
        self.course.fresh = true;
    }

    /// The calls to make now.
    pub fn orders(&mut self) -> Vec<(Ticket, Order)> {
        std::mem::take(&mut self.orders)
    }

    /// What the host says.
    pub fn looked(&mut self, look: Look, now: Instant) {
        if self.course.phase == Phase::Looking {
            self.after_look(look, now);
        }
        self.advance(now);
    }

    /// What a call brought.
    pub fn on(&mut self, ticket: Ticket, event: Event, now: Instant) {
        self.frozen = false;
        self.course.heard = Some(now);
        if !matches!(event, Event::Lost | Event::Unreachable) {
            self.ledger.serves();
        }
        match event {
            Event::Alive => self.on_alive(ticket, now),
            Event::Control(uuid, control) => self.on_control(ticket, uuid, control, now),
            Event::Served(uuid) => self.on_served(ticket, uuid, now),
            event => {
                let lost = event == Event::Lost;
                if let Some(call) = self.ledger.returned(ticket, lost) {
                    self.on_return(ticket, &call, event, now);
                }
            }
        }
        self.advance(now);
    }

    /// A call that asks one by one has come past this domain, which is therefore not locked.
    fn on_served(&mut self, ticket: Ticket, uuid: Uuid, now: Instant) {
        if let Some(call) = self.ledger.get_mut(ticket) {
            call.heard = now;
            call.asked.retain(|asked| *asked != uuid);
            if call.blames == Some(uuid) {
                call.blames = call.asked.first().copied();
            }
        }
        let standing = self.standings.get_mut(&uuid);
        if standing.is_some_and(|standing| standing.locked.take().is_some()) {
            self.release(uuid);
        }
    }

    fn on_return(&mut self, ticket: Ticket, call: &Call, event: Event, now: Instant) {
        let lost = matches!(event, Event::Lost | Event::Unreachable);
        if !lost {
            let standings = self.standings.iter_mut();
            let released = standings.filter_map(|(uuid, standing)| {
                let locked = standing.locked.take_if(|by| *by == ticket);
                locked.is_some().then_some(*uuid)
            });
            for uuid in released.collect::<Vec<_>>() {
                self.release(uuid);
            }
        }
        if self
            .course
            .probe
            .take_if(|probe| *probe == ticket)
            .is_some()
            && !lost
        {
            self.on_probed(now);
        }
        if call.aside {
            self.on_late(ticket, call, now);
            return;
        }
        match (call.kind, event) {
            (_, Event::Unreachable) => self.course.stop(),
            (_, Event::Lost) => self.on_lost(call, now),
            (Kind::List, Event::Listed(domains)) => {
                self.list_pace = now - call.since;
                self.on_list(domains);
            }
            (Kind::List, _) => self.course.stop(),
            (Kind::Canary, _) if self.course.phase == Phase::Canary => self.start(),
            (Kind::Ask | Kind::Quiet, Event::Samples(came)) => self.on_samples(call, came, now),
            (Kind::Ask | Kind::Quiet, _) => {
                for uuid in &call.asked {
                    self.course.vms.remove(uuid);
                }
            }
            _ => {}
        }
    }

    /// What was asked on a connection that was lost is asked again on another, within reason.
    fn on_lost(&mut self, call: &Call, now: Instant) {
        self.course.losses += 1;
        if self.course.losses > LOSSES {
            self.course.stop();
            return;
        }
        match call.kind {
            Kind::List => {
                self.send(Kind::List, Vec::new(), Order::List, now);
            }
            Kind::Describe => {
                let undescribed = self.course.undescribed.get_or_insert_default();
                undescribed.extend(&call.asked);
            }
            Kind::Canary if self.course.phase == Phase::Canary => self.start(),
            Kind::Ask | Kind::Quiet => self.requeue(&call.asked),
            Kind::Disks => self.course.disks.extend(&call.asked),
            Kind::Urgent => self.course.urgent.extend(&call.asked),
            Kind::Canary | Kind::Probe => {}
        }
    }

    /// What comes too late is dropped, but tells that its call hangs no more.
    fn on_late(&mut self, ticket: Ticket, call: &Call, now: Instant) {
        self.course.slow.remove(&ticket);
        self.let_go();
        match (self.course.phase, call.kind) {
            (Phase::Spent, Kind::Canary) => {
                // libvirtd has workers again.
                self.course.was_spent = true;
                self.start();
            }
            (Phase::Asking, Kind::Ask | Kind::Disks) => {
                let Some(blamed) = call.blames else { return };
                match self.course.vms.get(&blamed).and_then(|vm| vm.came) {
                    Some(Came::Part) => self.course.again.push((now, blamed)),
                    Some(Came::Whole) if call.kind == Kind::Disks => {
                        self.course.disks.push_back(blamed);
                    }
                    _ => {}
                }
            }
            _ => {}
        }
    }

    fn on_list(&mut self, domains: Vec<Listed>) {
        let active: HashSet<Uuid> = domains.iter().map(|listed| listed.uuid).collect();
        self.standings.retain(|uuid, _| active.contains(uuid));
        self.ledger.keep(&active);
        self.listed = domains;
        self.course.phase = Phase::Describing;
    }

    fn on_samples(&mut self, call: &Call, came: Vec<(Uuid, Came)>, now: Instant) {
        if call.kind == Kind::Ask {
            self.chunk_pace = (now - call.since).max(self.chunk_pace.mul_f64(0.8));
        }
        let came: HashMap<Uuid, Came> = came.into_iter().collect();
        for uuid in &call.asked {
            let Some(came) = came.get(uuid) else {
                // It is gone, which is daily life.
                self.course.vms.remove(uuid);
                continue;
            };
            match came {
                Came::Whole => self.ledger.cleared(*uuid, call.kind.needs_monitor()),
                Came::Part => {
                    self.ledger.cleared(*uuid, false);
                    self.ledger.confirm(*uuid);
                }
            }
            let held = self.ledger.holds(*uuid);
            let standing = self.standings.entry(*uuid).or_default();
            let Some(vm) = self.course.vms.get_mut(uuid) else {
                continue;
            };
            vm.came = Some(*came);
            match (vm.scope, came) {
                (Scope::Quiet, _) => {}
                (scope, Came::Whole) => {
                    standing.whole_at = Some(now);
                    if scope == Scope::NoBlock {
                        self.course.disks.push_back(*uuid);
                    }
                }
                (_, Came::Part) if held => {}
                (_, Came::Part) => {
                    let tries = match standing.misses {
                        _ if self.course.fresh => FRESH_TRIES,
                        0 | 1 => TRIES.0,
                        _ => TRIES.1,
                    };
                    if vm.tries < tries {
                        let pause = Duration::from_millis(5 << vm.tries.min(4));
                        vm.tries += 1;
                        self.course.again.push((now + pause, *uuid));
                    }
                }
            }
        }
    }

    fn is_locked(&self, uuid: Uuid) -> bool {
        self.standings
            .get(&uuid)
            .is_some_and(|s| s.locked.is_some())
    }

    fn send(&mut self, kind: Kind, asked: Vec<Uuid>, order: Order, now: Instant) -> Ticket {
        let ticket = self.ledger.send(kind, asked, now);
        self.orders.push((ticket, order));
        ticket
    }
}
