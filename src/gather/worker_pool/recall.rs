//! Requests that are taken back from workers which libvirtd does not let in.

use std::time::{Duration, Instant};

use super::{Busy, NotLetIn, WorkerPool};
use crate::gather::protocol::{CallId, WorkerRequest};

impl WorkerPool {
    /// When a request will have waited for `patience` for its worker's connection while another
    /// worker has one: then [`WorkerPool::recall`] is to be called.
    pub fn recall_at(&self, patience: Duration) -> Option<Instant> {
        let busy = || self.busy.values();
        let is_any_connected = !self.idle.is_empty() || busy().any(|busy| busy.slot.is_taken());
        let unbegun = busy().filter(|busy| !busy.slot.is_taken());
        let oldest = unbegun.map(|busy| busy.since).min();
        oldest.filter(|_| is_any_connected).map(|at| at + patience)
    }

    /// Takes the requests back that have waited for so long for their worker's connection, and gives
    /// them to others. Returns them, and whether each is begun now.
    pub fn recall(&mut self, now: Instant, patience: Duration) -> Vec<(CallId, bool)> {
        let late = self.take_back(now, patience).into_iter();
        let again = late.map(|(call_id, request)| match self.give(call_id, request) {
            None => (call_id, true),
            Some(request) => {
                self.waiting.push_back((call_id, request));
                (call_id, false)
            }
        });
        again.collect()
    }

    /// Takes back the requests that have waited for so long while another worker has a connection,
    /// the oldest first.
    fn take_back(&mut self, now: Instant, patience: Duration) -> Vec<(CallId, WorkerRequest)> {
        if self.recall_at(patience).is_none_or(|at| now < at) {
            return Vec::new();
        }
        let is_late = |busy: &Busy| now >= busy.since + patience;
        let mut late: Vec<CallId> = self
            .busy
            .iter()
            .filter(|(_, busy)| is_late(busy))
            .map(|(call_id, _)| *call_id)
            .collect();
        late.sort_unstable();
        let take = |call_id: CallId| {
            let request = self.busy.get(&call_id)?.slot.take()?;
            let worker = self.busy.remove(&call_id)?.worker;
            let number = worker.number;
            let answered = None;
            self.not_let_in
                .insert(number, NotLetIn { worker, answered });
            Some((call_id, request))
        };
        late.into_iter().filter_map(take).collect()
    }

    /// Drops the requests that were not begun, when the gather ends; returns their calls.
    pub fn forget_waiting(&mut self) -> Vec<CallId> {
        // Where a worker is given two requests, the second waits for the first, not for a connection.
        let mut unbegun = match self.requests_each {
            1 => self.take_back(Instant::now(), Duration::ZERO),
            _ => Vec::new(),
        };
        unbegun.extend(self.waiting.drain(..));
        unbegun.into_iter().map(|(call_id, _)| call_id).collect()
    }
}
