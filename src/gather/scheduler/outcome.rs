//! The end of a gather.

use uuid::Uuid;

use super::Scheduler;
use super::interface::Action;
use super::phases::{Phase, Saturation};
use crate::gather::in_flight::Call;
use crate::gather::protocol::{CallId, Completeness, RequestKind};

/// How a gather ended.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Outcome {
    /// Domains that did not answer in time.
    pub unanswered: Vec<Uuid>,
    /// Domains whose statistics the driver or the daemon refused.
    pub refused: Vec<Uuid>,
    /// Domains that are locked inside libvirtd: nothing is asked of them.
    pub locked: Vec<Uuid>,
    /// libvirtd had no worker to spare; within it the domain whose monitor has been occupied the
    /// longest, as far as that is known.
    pub saturated: Option<Option<Uuid>>,
    /// As many calls of ours hang as may, so that some domains were asked for state and network alone.
    pub calls_used_up: bool,
    /// Domains that answered in full, but not for what only some configurations want.
    pub without_extra: Vec<Uuid>,
    /// The number of calls that hang.
    pub hanging: usize,
}

impl Scheduler {
    /// Ends the gather: calls that have not returned are not waited for any more.
    pub fn end(&mut self) -> Outcome {
        let mut outcome = Outcome {
            unanswered: self.unanswered(),
            refused: self.round.domains.refused().collect(),
            locked: self.locked().collect(),
            saturated: self.is_saturated(),
            calls_used_up: self.cause_of_saturation() == Some(Saturation::OurCalls),
            without_extra: std::mem::take(&mut self.round.extra).into_missing(),
            hanging: 0,
        };
        self.daemon_is_stopped |= self.is_daemon_stopped();
        for action in self.actions.drain(..) {
            if let Action::Send(call_id, _) = action {
                self.in_flight.forget(call_id);
            }
        }
        self.abandon_in_hand();
        let domains = std::mem::take(&mut self.round).domains;
        for (uuid, completeness) in domains.into_completeness() {
            let is_held_by_us = self.in_flight.holds_monitor(uuid);
            if let Some(history) = self.histories.get_mut(&uuid) {
                history.partial_streak = match completeness {
                    Some(Completeness::Partial) if !is_held_by_us => history.partial_streak + 1,
                    _ => 0,
                };
            }
        }
        self.round.phase = Phase::Over;
        outcome.hanging = self.hanging();
        outcome
    }

    fn abandon_in_hand(&mut self) {
        // Domains are described in their order, so such a call waits for the first that is left.
        let waits_for = |call: &Call| {
            let first = call.asked.first().copied();
            first.filter(|_| call.kind == RequestKind::Describe)
        };
        let left: Vec<(CallId, Option<Uuid>)> = self
            .in_flight
            .in_hand()
            .map(|(call_id, call)| (call_id, waits_for(call)))
            .collect();
        for (call_id, blocked_on) in left {
            match self.daemon_is_stopped {
                true => self.in_flight.abandon_in_stopped_daemon(call_id),
                false => self.in_flight.abandon(call_id, blocked_on),
            }
        }
    }

    /// Domains that have not answered, whether or not they were asked. None, where the gather has not come
    /// so far as to know its domains.
    fn unanswered(&self) -> Vec<Uuid> {
        let domains = &self.round.domains;
        let listed = self.listed.iter().filter(|_| self.round.knows_domains);
        let listed = listed.map(|listed| listed.uuid);
        listed
            .filter(|uuid| !self.is_locked(*uuid) && domains.is_missing(*uuid))
            .collect()
    }

    pub(super) fn cause_of_saturation(&self) -> Option<Saturation> {
        match self.round.phase {
            Phase::Saturated { cause, .. } => Some(cause),
            _ => None,
        }
    }

    /// See [`Outcome::saturated`].
    fn is_saturated(&self) -> Option<Option<Uuid>> {
        let is_now = self.cause_of_saturation() == Some(Saturation::Daemon);
        let saturated = is_now || self.round.daemon.was_saturated();
        saturated.then(|| self.round.probe.longest_occupied())
    }
}
