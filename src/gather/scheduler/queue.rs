//! The statistics that are still to be asked for in a gather.

use std::collections::VecDeque;
use std::time::Instant;

use uuid::Uuid;

use crate::gather::protocol::Scope;

/// The calls for statistics that are to be sent.
#[derive(Debug, Default)]
pub(super) struct Queue {
    /// The domains of one call each.
    batches: VecDeque<(Scope, Vec<Uuid>)>,
    /// Domains to ask again, and from when on.
    again: Vec<(Instant, Uuid)>,
    /// Domains whose disks are asked for by calls of their own.
    disks: VecDeque<Uuid>,
}

impl Queue {
    pub(super) fn is_empty(&self) -> bool {
        self.batches.is_empty() && self.again.is_empty() && self.disks.is_empty()
    }

    /// Whether statistics of this domain are to be asked for.
    pub(super) fn has(&self, uuid: Uuid) -> bool {
        let mut batches = self.batches.iter();
        batches.any(|(_, batch)| batch.contains(&uuid))
            || self.again.iter().any(|(_, other)| *other == uuid)
    }

    pub(super) fn clear(&mut self) {
        *self = Self::default();
    }

    pub(super) fn clear_batches(&mut self) {
        self.batches.clear();
    }

    /// Nothing that is still to be sent concerns this domain.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        for (_, batch) in &mut self.batches {
            batch.retain(|other| *other != uuid);
        }
        self.batches.retain(|(_, batch)| !batch.is_empty());
        self.again.retain(|(_, other)| *other != uuid);
        self.disks.retain(|other| *other != uuid);
    }

    pub(super) fn push(&mut self, scope: Scope, batch: Vec<Uuid>) {
        self.batches.push_back((scope, batch));
    }

    /// The next batch to be sent is this one.
    pub(super) fn push_first(&mut self, scope: Scope, batch: Vec<Uuid>) {
        self.batches.push_front((scope, batch));
    }

    pub(super) fn pop(&mut self) -> Option<(Scope, Vec<Uuid>)> {
        self.batches.pop_front()
    }

    pub(super) fn push_disks(&mut self, uuid: Uuid) {
        self.disks.push_back(uuid);
    }

    /// The next disks to be asked for are those of this domain.
    pub(super) fn push_disks_first(&mut self, uuid: Uuid) {
        self.disks.push_front(uuid);
    }

    pub(super) fn pop_disks(&mut self) -> Option<Uuid> {
        self.disks.pop_front()
    }

    /// The domain is to be asked again at this time.
    pub(super) fn push_again(&mut self, at: Instant, uuid: Uuid) {
        self.again.push((at, uuid));
    }

    /// Takes the domains whose time to be asked again has come.
    pub(super) fn take_due(&mut self, now: Instant) -> Vec<Uuid> {
        let due = self.again.extract_if(.., |(at, _)| *at <= now);
        due.map(|(_, uuid)| uuid).collect()
    }

    /// When the next domain is to be asked again.
    pub(super) fn next_due(&self) -> Option<Instant> {
        self.again.iter().map(|(at, _)| *at).min()
    }
}
