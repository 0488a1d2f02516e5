//! How long a gather waits for domains that it found locked, and for calls that may only be slow.

use std::collections::BTreeSet;
use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::gather::protocol::CallId;
use crate::maps::HashSet;
use crate::times::{GRACE, GRACE_AFTER_START};

/// What a gather waits for although there is nothing left to send.
#[derive(Debug, Default)]
pub(super) struct Grace {
    /// When the gather began.
    began: Option<Instant>,
    /// The list came on a new connection: the daemon may just have been started, and be busy with
    /// every domain for a moment.
    daemon_is_fresh: bool,
    /// Domains that were found locked before they answered in this gather.
    locked: HashSet<Uuid>,
    /// Calls that need the monitor and were abandoned in this gather: a slow one may still return.
    slow: BTreeSet<CallId>,
    /// The end of the wait, while there is one.
    until: Option<Instant>,
}

impl Grace {
    pub(super) fn new(began: Instant) -> Self {
        Self {
            began: Some(began),
            ..Self::default()
        }
    }

    pub(super) fn set_daemon_is_fresh(&mut self) {
        self.daemon_is_fresh = true;
    }

    pub(super) fn daemon_is_fresh(&self) -> bool {
        self.daemon_is_fresh
    }

    /// The end of the wait, while there is one.
    pub(super) fn until(&self) -> Option<Instant> {
        self.until
    }

    /// The domain was found locked.
    pub(super) fn wait_for_domain(&mut self, uuid: Uuid) {
        self.locked.insert(uuid);
        self.extend();
    }

    /// The call was abandoned.
    pub(super) fn wait_for_call(&mut self, call_id: CallId) {
        self.slow.insert(call_id);
        self.extend();
    }

    /// The domain is not locked any more.
    pub(super) fn released(&mut self, uuid: Uuid) {
        self.locked.remove(&uuid);
        self.end_if_all_back();
    }

    /// The abandoned call has returned.
    pub(super) fn returned(&mut self, call_id: CallId) {
        self.slow.remove(&call_id);
        self.end_if_all_back();
    }

    /// Ends the wait when it is due. As long as no domain has answered a daemon that may just have
    /// been started, nothing better is to be done than to wait until the deadline.
    pub(super) fn end_if_due(&mut self, now: Instant, any_answered: impl FnOnce() -> bool) {
        let due = self.until.take_if(|until| now >= *until).is_some();
        if due && self.daemon_is_fresh && !any_answered() {
            self.until = Some(now + GRACE);
        }
    }

    fn end_if_all_back(&mut self) {
        if self.locked.is_empty() && self.slow.is_empty() {
            self.until = None;
        }
    }

    fn extend(&mut self) {
        self.until = self.began.map(|began| began + self.length());
    }

    fn length(&self) -> Duration {
        match self.daemon_is_fresh {
            true => GRACE_AFTER_START,
            false => GRACE,
        }
    }
}
