//! What goes into the scheduler and what comes out of it.

use std::time::Duration;

use uuid::Uuid;

use crate::gather::protocol::{AskedMonitor, CallId, Completeness, Monitor, Request};
use crate::maps::HashSet;

/// The bounds of a gather.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// The number of calls for statistics at a time.
    pub workers: usize,
    /// The number of domains per call.
    pub chunk: usize,
    /// A call that has brought nothing for so long is looked into.
    pub stall: Duration,
    /// How long the check of the host is waited for.
    pub host_check: Duration,
    /// The number of calls that may be in flight at once, hanging ones included.
    pub cap: usize,
    /// Whether domains are asked for what only some configurations want ([`Request::Extra`]).
    pub asks_extra: bool,
    /// Whether a call can hang at all. Where libvirt runs in our own process none can, and no call is
    /// looked into or sent twice.
    pub calls_may_hang: bool,
}

/// What the scheduler wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this call; what it brings goes to [`super::Scheduler::on`] under its number.
    Send(CallId, Request<Uuid>),
    /// Check the host for these domains; [`super::Scheduler::on_host_checked`] takes the result.
    CheckHost(Vec<Uuid>),
    /// Do not make this call any more: it still waits for a worker.
    Withdraw(CallId),
}

/// An active domain that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// The domain.
    pub uuid: Uuid,
    /// Whether the cache has a description of it that is current.
    pub described: bool,
}

/// What the host shows before any domain is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostVerdict {
    /// Domains whose QEMU does not run, so that it would not answer.
    pub stuck: HashSet<Uuid>,
    /// Domains with a disk on a mount that is dead or unknown: the block group is not asked for.
    pub no_block: HashSet<Uuid>,
    /// Domains whose disks are not asked for one by one either.
    pub no_disks: HashSet<Uuid>,
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// [`Request::Probe`], before its first domain: the daemon answered a call that concerns none.
    Alive,
    /// [`Request::Probe`]: what it found of this domain.
    Control(Uuid, Monitor),
    /// A call that serves its domains one by one has come past this domain.
    Served(Uuid),
    /// [`Request::Describe`]: it is known now where the disks of this domain lie.
    Described(Uuid),
    /// [`Request::Describe`]: the monitor of this domain has been in use for long, so its XML was not
    /// asked for.
    MonitorHeld(Uuid),
    /// [`Request::List`]: the active domains that are wanted.
    Listed(Vec<Listed>),
    /// [`Request::Statistics`]: these domains came; one that was asked and is not among them is gone.
    Samples(Vec<(Uuid, Completeness)>),
    /// [`Request::Extra`]: these domains came.
    Extra(Vec<(Uuid, AskedMonitor)>),
    /// The call is over, and brought nothing more that matters here.
    Done,
    /// The driver or the daemon refused the call.
    Refused,
    /// The connection was lost during the call: what was asked is asked again on another.
    Lost,
    /// No connection can be opened: all further calls would fail in the same way.
    Unreachable,
}

impl Event {
    /// Whether the call is over: nothing more follows under its number.
    pub fn ends_call(&self) -> bool {
        match self {
            Self::Alive | Self::Control(..) => false,
            Self::Served(_) | Self::Described(_) | Self::MonitorHeld(_) => false,
            Self::Listed(_) | Self::Samples(_) | Self::Extra(_) | Self::Done => true,
            Self::Refused | Self::Lost | Self::Unreachable => true,
        }
    }
}
