//! What the calls of a gather have shown of the daemon.

use std::time::Instant;

/// How many connections may be lost in one gather before nothing more is sent in it.
const LOSSES: u32 = 16;

/// The daemon, as far as this gather has seen it.
#[derive(Debug, Default)]
pub(super) struct Daemon {
    /// How many calls lost their connection.
    losses: u32,
    /// When the last reply of any call came.
    last_reply_at: Option<Instant>,
    /// It had no worker to spare, and then had one again.
    was_saturated: bool,
}

impl Daemon {
    /// A call brought something.
    pub(super) fn on_reply(&mut self, now: Instant) {
        self.last_reply_at = Some(now);
    }

    /// Whether a reply of any call came after this time.
    pub(super) fn has_replied_since(&self, time: Instant) -> bool {
        self.last_reply_at.is_some_and(|at| at > time)
    }

    /// A call lost its connection; returns whether more may be sent all the same.
    pub(super) fn on_loss(&mut self) -> bool {
        self.losses += 1;
        self.losses <= LOSSES
    }

    /// A call that waited for a free worker has returned.
    pub(super) fn has_workers_again(&mut self) {
        self.was_saturated = true;
    }

    /// Whether it had no worker to spare, and then had one again.
    pub(super) fn was_saturated(&self) -> bool {
        self.was_saturated
    }
}
