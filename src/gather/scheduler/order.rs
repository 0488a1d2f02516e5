//! What goes into the scheduler and what comes out of it.

use std::time::Duration;

use uuid::Uuid;

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

/// How much a call asks of its domains.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Scope {
    /// All groups.
    Full,
    /// All but the block group, which would touch storage that may be dead.
    NoBlock,
    /// What needs no monitor.
    NoMonitor,
}

/// One call to make.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Order {
    /// List the active domains.
    List,
    /// Read the XML of these, one by one, each reported at once ([`Event::Described`],
    /// [`Event::Withheld`], or [`Event::Served`] where it failed): from libvirt 11.0 on that waits for
    /// whoever has the domain's job.
    Describe(Vec<Uuid>),
    /// Look at the host for these; answered by [`super::Scheduler::looked`], not under a call's number.
    LookAtHost(Vec<Uuid>),
    /// `virDomainGetInfo` of this one: an ordinary call, to see whether there is a worker for it.
    Canary(Uuid),
    /// Statistics of these.
    Ask(Vec<Uuid>, Scope),
    /// The disks of this one, by `virDomainBlockStats`.
    Disks(Uuid),
    /// A call that concerns no domain (`virConnectGetLibVersion`), reported as [`Event::Alive`];
    /// then `virDomainGetControlInfo` of these, one by one, each reported at once.
    Probe(Vec<Uuid>),
    /// State and network of these by calls that libvirtd's priority workers serve.
    Priority(Vec<Uuid>),
    /// The call of this number, which waits for a worker, is not to be made any more.
    Withdraw,
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

/// How much of a domain's figures is there, from little to all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Completeness {
    /// What libvirtd's priority workers serve: state and network.
    PriorityOnly,
    /// What needs no monitor: libvirt has passed that by.
    Partial,
    /// All that it has.
    Full,
}

/// What `virDomainGetControlInfo` says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Control {
    /// Its monitor is free, or the driver cannot tell.
    Free,
    /// A command has been in its monitor for so long.
    Occupied(Duration),
    /// Somebody is at it within a backup, a migration, a dump or a save; since when, libvirt does not
    /// say.
    Job,
}

/// What a call brought. All but the first five end it.
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
    Withheld(Uuid),
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
