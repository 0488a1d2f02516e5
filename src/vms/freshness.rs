//! Until when a description holds.
//!
//! XML is read for a VM that is new, for one whose device names in the statistics changed, and for
//! one of which libvirt reported a change. The time to live applies only where events cannot be had.
//! So a hot-plugged device shows in the next gather, and a steady host causes no XML call at all.

use std::cell::Cell;
use std::time::{Duration, Instant};

/// Whether libvirt reports changes by events.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum EventFeed {
    /// It does, since then.
    Live(Instant),
    /// It does not yet, or never will: the time to live applies.
    Down,
    /// It did until then. What was read before this gather may not hold, until the time to live is
    /// over.
    Lost(Instant),
}

/// What decides whether descriptions hold, the same for all VMs.
#[derive(Debug)]
pub(super) struct Freshness {
    /// How long a description holds where events cannot be had.
    ttl: Duration,
    feed: EventFeed,
    /// Events were lost at some time.
    was_lost: bool,
    /// When this gather began.
    began: Instant,
    /// How many descriptions may still be read again in this gather for their age alone.
    /// A cell, for it is all that changes while VMs are prepared for a query.
    budget: Cell<usize>,
}

impl Freshness {
    pub(super) fn new(ttl: Duration) -> Self {
        Self {
            ttl,
            feed: EventFeed::Down,
            was_lost: false,
            began: Instant::now(),
            budget: Cell::new(0),
        }
    }

    /// A new gather begins. Descriptions that are read again for their age, out of so many, are spread
    /// over several gathers.
    pub(super) fn begin(&mut self, descriptions: usize) {
        self.budget.set((descriptions / 8).max(8));
        self.began = Instant::now();
    }

    /// Whether events come.
    pub(super) fn feed(&self) -> EventFeed {
        self.feed
    }

    /// Events come from now on, or no more.
    pub(super) fn set_feed(&mut self, feed: EventFeed) {
        self.feed = match (feed, self.feed) {
            (EventFeed::Down, EventFeed::Live(_)) => {
                self.was_lost = true;
                EventFeed::Lost(Instant::now())
            }
            (EventFeed::Down, before) => before,
            _ => feed,
        };
    }

    /// Whether a description that was read then, of a VM without a change since, still has the paths
    /// of all its images. After events were lost, as when libvirtd is restarted, it does so for one
    /// gather.
    pub(super) fn holds(&self, read_at: Instant) -> bool {
        match self.feed {
            // What was read a moment before the first events came is read again for its age alone.
            EventFeed::Live(since) => read_at >= since || !self.was_lost,
            EventFeed::Down => true,
            EventFeed::Lost(at) => read_at >= self.began || self.began >= at + self.ttl,
        }
    }

    /// Whether libvirt would have reported any change since then.
    pub(super) fn reports_changes_since(&self, read_at: Instant) -> bool {
        matches!(self.feed, EventFeed::Live(since) if read_at >= since)
    }

    /// Whether a description that was read then is to be read again for its age, in this gather.
    pub(super) fn has_expired(&self, read_at: Instant, now: Instant) -> bool {
        let is_old = match self.feed {
            EventFeed::Live(since) => read_at < since,
            EventFeed::Down | EventFeed::Lost(_) => {
                now.saturating_duration_since(read_at) >= self.ttl
            }
        };
        let budget = self.budget.get();
        let expired = is_old && budget > 0;
        self.budget.set(budget - usize::from(expired));
        expired
    }
}
