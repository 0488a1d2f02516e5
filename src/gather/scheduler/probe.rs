//! The probe of a gather: the call that finds out why others do not return.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::gather::protocol::CallId;
use crate::maps::HashMap;

/// The probe that is in flight, and what the probes of this gather have shown. There is at most one
/// at a time.
#[derive(Debug, Default)]
pub(super) struct Probe {
    in_flight: Option<CallId>,
    /// The daemon has answered the probe that is in flight: a domain from which that does not come
    /// back is locked.
    daemon_answered: bool,
    /// The stalled calls for which the probe was sent.
    examined: Vec<CallId>,
    /// When stalled calls were last looked into.
    looked_into: HashMap<CallId, Instant>,
    /// Domains that the probe which is in flight found with an async job.
    jobs: Vec<Uuid>,
    /// The domain whose monitor has been occupied the longest, and for how long.
    longest_occupied: Option<(Uuid, Duration)>,
}

impl Probe {
    pub(super) fn sent(&mut self, call_id: CallId) {
        self.jobs.clear();
        self.daemon_answered = false;
        self.in_flight = Some(call_id);
    }

    pub(super) fn in_flight(&self) -> Option<CallId> {
        self.in_flight
    }

    pub(super) fn is(&self, call_id: CallId) -> bool {
        self.in_flight == Some(call_id)
    }

    /// The daemon answered this call.
    pub(super) fn on_alive(&mut self, call_id: CallId) {
        self.daemon_answered |= self.is(call_id);
    }

    pub(super) fn daemon_answered(&self) -> bool {
        self.daemon_answered
    }

    /// The probe is over if it was this call; returns whether it was.
    pub(super) fn end(&mut self, call_id: CallId) -> bool {
        self.in_flight.take_if(|probe| *probe == call_id).is_some()
    }

    /// The probe that is sent next is for these calls.
    pub(super) fn examine(&mut self, calls: Vec<CallId>) {
        self.examined = calls;
    }

    pub(super) fn take_examined(&mut self) -> Vec<CallId> {
        std::mem::take(&mut self.examined)
    }

    pub(super) fn note_looked_into(&mut self, call_id: CallId, now: Instant) {
        self.looked_into.insert(call_id, now);
    }

    pub(super) fn looked_into_at(&self, call_id: CallId) -> Option<Instant> {
        self.looked_into.get(&call_id).copied()
    }

    /// The domain has an async job.
    pub(super) fn add_job(&mut self, uuid: Uuid) {
        self.jobs.push(uuid);
    }

    pub(super) fn take_jobs(&mut self) -> Vec<Uuid> {
        std::mem::take(&mut self.jobs)
    }

    /// The monitor of the domain has been occupied for so long.
    pub(super) fn add_occupied(&mut self, uuid: Uuid, time: Duration) {
        let longest = self.longest_occupied;
        if longest.is_none_or(|(_, longest)| time > longest) {
            self.longest_occupied = Some((uuid, time));
        }
    }

    pub(super) fn longest_occupied(&self) -> Option<Uuid> {
        self.longest_occupied.map(|(uuid, _)| uuid)
    }
}
