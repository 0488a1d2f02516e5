//! How many calls of each kind this program has made to libvirt since it started.

use std::sync::atomic::{AtomicU64, Ordering};

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
    /// `virDomainGetAutostart`.
    Autostart,
    /// `virDomainIsPersistent`.
    Persistent,
    /// `virDomainGetXMLDesc`.
    Xml,
}

const KINDS: usize = CallKind::Xml as usize + 1;

static COUNTS: [AtomicU64; KINDS] = [const { AtomicU64::new(0) }; KINDS];

/// Counts one call, right before it is made.
pub(super) fn count(kind: CallKind) {
    if let Some(counter) = COUNTS.get(kind as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counts at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct CallCounts([u64; KINDS]);

impl CallCounts {
    /// The calls of all threads so far.
    pub fn now() -> Self {
        let load = |counter: &AtomicU64| counter.load(Ordering::Relaxed);
        Self(COUNTS.each_ref().map(load))
    }

    /// How many calls of this kind were made.
    pub fn of(&self, kind: CallKind) -> u64 {
        self.0.get(kind as usize).copied().unwrap_or_default()
    }
}
