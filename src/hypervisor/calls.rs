//! How many calls of each kind this program has made to a libvirt since it started.

use std::sync::atomic::{AtomicU64, Ordering};

use super::current;

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CallKind {
    /// `virConnectOpenReadOnly`.
    Open,
    /// `virConnectListAllDomains`.
    List,
    /// `virDomainLookupByUUID`.
    Lookup,
    /// `virDomainListGetStats`.
    Bulk,
    /// `virDomainGetInfo`.
    Info,
    /// `virDomainGetState`.
    State,
    /// `virDomainGetCPUStats`.
    Cpu,
    /// `virDomainMemoryStats`.
    Memory,
    /// `virDomainInterfaceStats`.
    Interface,
    /// `virDomainBlockStats` or `virDomainBlockStatsFlags`.
    Block,
    /// `virDomainGetControlInfo`.
    Control,
    /// `virDomainGetJobStats`.
    Job,
    /// `virDomainGetAutostart`.
    Autostart,
    /// `virDomainIsPersistent`.
    Persistent,
    /// `virDomainGetXMLDesc`.
    Xml,
    /// A call for storage pools.
    Pool,
    /// A call for the node.
    Node,
}

const KINDS: usize = CallKind::Node as usize + 1;

/// The counters of one libvirt.
#[derive(Debug, Default)]
pub(crate) struct Counters([AtomicU64; KINDS]);

/// Counts one call of this thread, right before it is made.
pub fn count(kind: CallKind) {
    if let Some(hypervisor) = current()
        && let Some(counter) = hypervisor.calls.0.get(kind as usize)
    {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCounts([u64; KINDS]);

impl CallCounts {
    /// The calls so far of all threads that work for the hypervisor of this one.
    pub fn now() -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        current().map_or_else(Self::default, |hypervisor| {
            Self(hypervisor.calls.0.each_ref().map(load))
        })
    }

    /// How many calls of this kind were made.
    pub fn of(&self, kind: CallKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }
}
