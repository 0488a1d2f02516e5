//! What goes into the scheduler and what comes out of it.

use std::time::Duration;

use uuid::Uuid;

use crate::gather::protocol::{CallId, Completeness, Control, Request};
use crate::maps::HashSet;

/// What bounds a gather.
#[derive(Debug, Clone, Copy)]
pub struct Limits {
    /// Calls for statistics at a time.
    pub workers: usize,
    /// Domains per call.
    pub chunk: usize,
    /// A call that has brought nothing for so long is looked into.
    pub stall: Duration,
    /// How long the look at the host is waited for.
    pub look: Duration,
    /// Calls that may be out at once, hanging ones included.
    pub cap: usize,
    /// Whether a call may be doubted at all: not where all of libvirt lives in our own process.
    pub hedge: bool,
}

/// What the scheduler wants done.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Action {
    /// Make this call; what it brings goes to [`super::Scheduler::on`] under its number.
    Send(CallId, Request<Uuid>),
    /// Look at the host for these domains; [`super::Scheduler::looked`] takes the result.
    LookAtHost(Vec<Uuid>),
    /// Do not make this call any more: it still waits for a worker.
    Withdraw(CallId),
}

/// An active domain that is wanted.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listed {
    /// Which.
    pub uuid: Uuid,
    /// Whether its description is in the cache, and holds.
    pub described: bool,
}

/// What the host says before anybody is asked.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct HostVerdict {
    /// Their QEMU does not run: it would not answer.
    pub stuck: HashSet<Uuid>,
    /// A disk of theirs lies on a mount that is dead or unknown: the block group is not asked for.
    pub no_block: HashSet<Uuid>,
    /// Nor are their disks one by one.
    pub no_disks: HashSet<Uuid>,
}

/// What a call brought.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event {
    /// Of a probe, before it asks the first domain: the daemon answered a call that concerns none.
    Alive,
    /// Of a probe: this domain answered.
    Control(Uuid, Control),
    /// Of a call that asks one by one: this domain was served.
    Served(Uuid),
    /// Of one that describes: it is known now where this domain's disks lie.
    Described(Uuid),
    /// Of one that describes: somebody has had this domain's monitor for long, so its XML was not
    /// asked for.
    MonitorHeld(Uuid),
    /// The active domains that are wanted.
    Listed(Vec<Listed>),
    /// These came; who was asked and is not among them is gone.
    Samples(Vec<(Uuid, Completeness)>),
    /// It is over.
    Done,
    /// The driver or the daemon refused.
    Refused,
    /// The connection was lost in the middle: what was asked is asked again on another.
    Lost,
    /// No connection can be opened: whoever is still to be asked would meet the same.
    Unreachable,
}

impl Event {
    /// Whether the call is over: nothing more follows under its number.
    pub fn ends_call(&self) -> bool {
        match self {
            Self::Alive | Self::Control(..) => false,
            Self::Served(_) | Self::Described(_) | Self::MonitorHeld(_) => false,
            Self::Listed(_) | Self::Samples(_) | Self::Done => true,
            Self::Refused | Self::Lost | Self::Unreachable => true,
        }
    }
}
