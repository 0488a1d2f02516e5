//! The phases of a gather, and how one leads to the next.

use std::time::Instant;

use uuid::Uuid;

use super::Scheduler;
use super::interface::Action;
use crate::gather::in_flight::Call;
use crate::gather::protocol::{Request, RequestKind, Risk, Scope};
use crate::maps::HashSet;

/// How far a gather has come. [`Scheduler::next_phase`] has their order.
#[derive(Debug, Default)]
pub(super) enum Phase {
    /// Nothing has been sent. Where the daemon was stopped when the gather began, its first reply is
    /// waited for.
    #[default]
    NotBegun,
    /// The list is waited for.
    Listing,
    /// New domains are being described.
    Describing,
    /// The check of the host is waited for.
    CheckingHost {
        /// How long it is waited for.
        until: Instant,
    },
    /// The canary is waited for.
    Canary,
    /// Statistics are being asked for.
    Statistics,
    /// Only calls that libvirtd's priority workers serve can be sent.
    Saturated {
        /// Why.
        cause: Saturation,
        /// Until when the canary may still show that the daemon has workers after all.
        recheck_until: Option<Instant>,
        /// Domains whose state and network are to be asked for.
        left: Vec<Uuid>,
    },
    /// Nothing more is sent.
    Over,
}

/// Why no ordinary call can be sent.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Saturation {
    /// The daemon has no worker to spare.
    Daemon,
    /// As many calls of ours hang as may.
    OurCalls,
}

/// How many new domains are described in one gather; those beyond have to wait for the next one.
const DESCRIBED: usize = 1000;

impl Scheduler {
    /// Goes on to the next phase, when nothing is left to wait for in the present one. A healthy
    /// gather goes through these arms from the first to the last.
    pub(super) fn next_phase(&mut self, now: Instant) {
        self.round.phase = match self.round.phase {
            Phase::NotBegun => self.list(now),
            // The list may come after a lost connection has ended the gather.
            Phase::Listing | Phase::Over => Phase::Describing,
            Phase::Describing if self.limits.calls_may_hang => self.check_host(now),
            Phase::Describing | Phase::CheckingHost { .. } => self.try_canary(now),
            // The daemon was saturated before any domain was taken up, and is not any more.
            Phase::Saturated { .. } if self.round.domains.is_empty() => Phase::Describing,
            Phase::Canary | Phase::Saturated { .. } | Phase::Statistics => self.queue_statistics(),
        };
    }

    /// Does what can be done now.
    pub(super) fn advance(&mut self, now: Instant) {
        if matches!(self.round.phase, Phase::Describing) {
            self.round.knows_domains = true;
            if self.describe(now) {
                self.next_phase(now);
            }
        }
        if let Phase::CheckingHost { until } = self.round.phase
            && now >= until
        {
            // What was assumed must do, and stalled calls are looked into.
            self.next_phase(now);
        }
        if self.cause_of_saturation() == Some(Saturation::OurCalls)
            && self.in_flight.room(Risk::Ordinary) > 0
        {
            // A call has returned that hung.
            self.next_phase(now);
        }
        let round = &mut self.round;
        let (grace, domains) = (&mut round.grace, &round.domains);
        grace.end_if_due(now, || domains.has_any_answered());
        self.watch_locks(now);
        match self.round.phase {
            Phase::Statistics => self.send_statistics(now),
            Phase::Saturated { .. } => self.send_priority(now),
            _ => {}
        }
    }

    /// Lists the domains. While a list hangs none is sent again: the domains last known serve.
    fn list(&mut self, now: Instant) -> Phase {
        let kind = RequestKind::List;
        let risk = kind.risk(!self.in_flight.has_orphaned(kind));
        if !self.in_flight.hangs(kind) && self.in_flight.room(risk) > 0 {
            self.send(Request::List, now);
            Phase::Listing
        } else {
            Phase::Describing
        }
    }

    /// Describes new domains: where their disks lie is to be known before statistics touch those.
    /// Without hedging a call for statistics describes as it goes. Returns whether nothing is left to
    /// wait for.
    fn describe(&mut self, now: Instant) -> bool {
        if !self.limits.calls_may_hang {
            return true;
        }
        if !self.round.descriptions.has_begun() {
            self.find_new_domains();
        }
        if self.in_flight.hangs(RequestKind::Canary) {
            // libvirtd has no worker that could read XML.
            self.round.descriptions.give_up();
        }
        while self.at_work() < self.limits.workers
            && self.in_flight.room(Risk::Ordinary) > 0
            && let Some(chunk) = self.round.descriptions.next_chunk(self.limits.chunk)
        {
            self.send(Request::Describe(chunk), now);
        }
        let in_hand = self.in_flight.count(|kind| kind == RequestKind::Describe) > 0;
        self.in_flight.is_used_up() || !in_hand && !self.round.descriptions.is_any_left()
    }

    fn find_new_domains(&mut self) {
        let listed = self.listed.iter().filter(|listed| !listed.described);
        let new: Vec<Uuid> = listed.map(|listed| listed.uuid).collect();
        // While a call of ours hangs on a domain, another would wait behind it.
        let is_held = |uuid: &Uuid| {
            self.in_flight.is_describing_blocked_on(*uuid) || self.in_flight.holds_monitor(*uuid)
        };
        let held: HashSet<Uuid> = new.iter().copied().filter(is_held).collect();
        let left = new
            .iter()
            .copied()
            .filter(|uuid| !self.is_locked(*uuid) && !held.contains(uuid))
            .take(DESCRIBED)
            .collect();
        self.round.descriptions.begin(&new, held, left);
    }

    fn check_host(&mut self, now: Instant) -> Phase {
        let listed = self.listed.iter().map(|listed| listed.uuid).collect();
        self.actions.push(Action::CheckHost(listed));
        Phase::CheckingHost {
            until: now + self.limits.host_check,
        }
    }

    /// The host has been looked at: the domains are taken up, and a canary goes before their
    /// statistics.
    fn try_canary(&mut self, now: Instant) -> Phase {
        let listed: Vec<Uuid> = self.listed.iter().map(|listed| listed.uuid).collect();
        for uuid in listed {
            if !self.is_locked(uuid) {
                self.take_up(uuid);
            }
        }
        // If the monitor of a domain is free, no lost call hangs on it.
        let mut suspected = self.in_flight.suspected_domains();
        suspected.retain(|uuid| self.round.domains.has(*uuid));
        if !suspected.is_empty() && self.round.probe.in_flight().is_none() {
            self.probe(suspected.into_iter().collect(), now);
        }
        if self.in_flight.hangs(RequestKind::Canary) {
            self.saturated(Saturation::Daemon, None)
        } else if self.limits.calls_may_hang && self.send_canary(now) {
            Phase::Canary
        } else {
            self.queue_statistics()
        }
    }

    /// Takes the domain up into this gather; returns how much is to be asked of it.
    pub(super) fn take_up(&mut self, uuid: Uuid) -> Scope {
        let host = &self.round.host;
        let scope = match self.round.descriptions.scope(uuid) {
            _ if host.stuck.contains(&uuid) => Scope::NoMonitor,
            Scope::Full if host.no_block.contains(&uuid) => Scope::NoBlock,
            scope => scope,
        };
        self.round.domains.take_up(uuid, scope);
        scope
    }

    /// Sends one cheap ordinary call to a domain that is likely to answer; `false` if there is none.
    pub(super) fn send_canary(&mut self, now: Instant) -> bool {
        let kind = RequestKind::Canary;
        let is_out = self.in_flight.count(|other| other == kind) > 0 || self.in_flight.hangs(kind);
        if is_out || self.in_flight.room(kind.risk(true)) == 0 {
            return false;
        }
        let is_fit = |uuid: &Uuid| !self.in_flight.holds_monitor(*uuid) && !self.is_locked(*uuid);
        let domains = &self.round.domains;
        // While domains are being described none has been taken up yet.
        let none_taken_up = domains.is_empty();
        let listed = self.listed.iter().filter(|_| none_taken_up);
        let canary = domains
            .with_monitor()
            .chain(listed.map(|listed| listed.uuid))
            .filter(is_fit)
            .max_by_key(|uuid| self.full_at(*uuid));
        let Some(canary) = canary else {
            return false;
        };
        self.send(Request::Canary(canary), now);
        true
    }

    /// Queues the statistics of all domains that have not answered and are not being asked: first
    /// those that need the monitor, last those whose QEMU is stuck.
    fn queue_statistics(&mut self) -> Phase {
        let is_statistics = |call: &Call| matches!(call.kind, RequestKind::Statistics(_));
        let asked: HashSet<Uuid> = self
            .in_flight
            .in_hand()
            .filter(|(_, call)| is_statistics(call))
            .flat_map(|(_, call)| call.asked.iter().copied())
            .collect();
        let unanswered = self.round.domains.unanswered();
        let left: Vec<_> = unanswered
            .filter(|(uuid, _)| !asked.contains(uuid))
            .collect();
        self.round.queue.clear_batches();
        for scope in Scope::ALL {
            let of_scope = left.iter().filter(|(_, of)| *of == scope);
            let domains: Vec<Uuid> = of_scope.map(|(uuid, _)| *uuid).collect();
            for chunk in domains.chunks(self.limits.chunk) {
                self.round.queue.push(scope, chunk.to_vec());
            }
        }
        Phase::Statistics
    }

    /// No ordinary call can be sent: all domains that have not answered are asked by priority calls.
    pub(super) fn saturated(&self, cause: Saturation, recheck_until: Option<Instant>) -> Phase {
        let has_answered = |uuid: Uuid| self.round.domains.has_answered(uuid);
        let listed = self.listed.iter().map(|listed| listed.uuid);
        let left = listed.filter(|uuid| !self.is_locked(*uuid) && !has_answered(*uuid));
        Phase::Saturated {
            cause,
            recheck_until,
            left: left.collect(),
        }
    }

    pub(super) fn send_priority(&mut self, now: Instant) {
        let kind = RequestKind::Priority;
        let is_idle = self.in_flight.count(|other| other == kind) == 0
            && self.in_flight.room(kind.risk(true)) > 0;
        let Phase::Saturated {
            recheck_until,
            left,
            ..
        } = &mut self.round.phase
        else {
            return;
        };
        recheck_until.take_if(|until| now >= *until);
        if is_idle && !left.is_empty() {
            let left = std::mem::take(left);
            self.send(Request::Priority(left), now);
        }
    }
}
