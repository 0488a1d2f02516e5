//! A worker as the main loop sees it: when it is asked, and what became of that.

use std::time::{Duration, Instant};

use crate::gather::worker::Failure;
use crate::threads::NotStarted;

/// A worker as the main loop sees it.
pub(super) struct Worker {
    /// Starts its thread, and returns what sends it a request.
    start: Box<dyn Fn() -> Result<Ask, NotStarted>>,
    ask: Option<Ask>,
    interval: Duration,
    /// When it is to be asked again.
    due: Option<Instant>,
    /// Since when its request is out.
    pub(super) asked: Option<Instant>,
    pub(super) asked_in_this_gather: bool,
    /// Since when it waits for a connection, without which the request's calls are not made.
    pub(super) connecting: Option<Instant>,
    /// Its connection is to be closed when its call returns.
    is_closing: bool,
    /// What its last reply was, if it was none.
    pub(super) failure: Option<Failure>,
    /// Why its thread could not be started.
    pub(super) not_started: Option<String>,
}

/// What a thread is to do.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Order {
    /// Ask, and answer.
    Ask,
    /// Close its connections, but those on which calls hang.
    Close,
}

/// Sends an order; returns whether there is a thread to take it. The thread ends when this is dropped.
pub(super) type Ask = Box<dyn Fn(Order) -> bool>;

impl Worker {
    pub(super) fn new(
        interval: Duration,
        start: impl Fn() -> Result<Ask, NotStarted> + 'static,
    ) -> Self {
        Self {
            start: Box::new(start),
            ask: None,
            interval,
            due: None,
            asked: None,
            asked_in_this_gather: false,
            connecting: None,
            is_closing: false,
            failure: None,
            not_started: None,
        }
    }

    /// Sends a request, if one is due and the last one was answered.
    pub(super) fn ask(&mut self, now: Instant) {
        // Gathers come a little early at times: a period that is a multiple of their interval holds.
        let early = (self.interval / 10).min(Duration::from_secs(1));
        if self.asked.is_some() || self.due.is_some_and(|due| now + early < due) {
            return;
        }
        self.not_started = None;
        let is_sent = |ask: &Ask| ask(Order::Ask);
        if !self.ask.as_ref().is_some_and(is_sent) {
            match (self.start)() {
                Ok(ask) => {
                    ask(Order::Ask);
                    self.ask = Some(ask);
                }
                Err(error) => {
                    self.not_started = Some(error.to_string());
                    return;
                }
            }
        }
        let next = self.due.unwrap_or(now) + self.interval;
        self.due = Some(next.max(now));
        self.asked = Some(now);
        self.asked_in_this_gather = true;
        (self.connecting, self.is_closing) = (Some(now), false);
    }

    /// Closes its connection: at once if it is idle, and else when its call has returned, or libvirtd has let it in. A call
    /// that hangs is not forgotten.
    pub(super) fn close(&mut self) {
        (self.due, self.failure, self.not_started) = (None, None, None);
        if self.ask.as_ref().is_some_and(|ask| ask(Order::Close)) {
            return;
        }
        if self.asked.is_some() && self.connecting.is_none() {
            self.is_closing = true;
        } else {
            (self.ask, self.asked, self.connecting) = (None, None, None);
        }
    }

    /// Its reply came. Where a connection failed, it is asked again in the next gather. What libvirt refuses it will refuse
    /// again, so that the period holds.
    pub(super) fn answered(&mut self, failure: Option<Failure>) {
        (self.asked, self.connecting) = (None, None);
        if std::mem::take(&mut self.is_closing) {
            self.ask = None;
        }
        if matches!(failure, Some(Failure::Unreachable(_) | Failure::Lost(_))) {
            self.due = None;
        }
        self.failure = failure;
    }
}
