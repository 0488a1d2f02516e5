//! How many calls were made to libvirt, by kind, since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// A kind of call.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Call {
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
    /// `virDomainBlockStats`.
    Block,
    /// `virDomainGetControlInfo`.
    Control,
    /// `virDomainGetXMLDesc`.
    Xml,
}

/// The fields of `vm_collector`, in the order of [`Call`].
pub const FIELDS: [&str; 12] = [
    "calls_open",
    "calls_list",
    "calls_lookup",
    "calls_bulk",
    "calls_info",
    "calls_state",
    "calls_cpu",
    "calls_memory",
    "calls_interface",
    "calls_block",
    "calls_control",
    "xml_reads",
];

static COUNTS: [AtomicU64; FIELDS.len()] = [const { AtomicU64::new(0) }; FIELDS.len()];

/// One call is being made.
pub(super) fn count(call: Call) {
    if let Some(counter) = COUNTS.get(call as usize) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

/// The counts so far, in the order of [`FIELDS`].
pub fn counts() -> [u64; FIELDS.len()] {
    COUNTS
        .each_ref()
        .map(|counter| counter.load(Ordering::Relaxed))
}
