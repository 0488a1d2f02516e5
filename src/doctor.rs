//! `--check`: what three gathers of the usual engine tell of this host, as plain facts, as findings with remedies, and as
//! text or JSON.
//!
//! Nothing here calls libvirt or waits: [`Examined`] is made by the main loop, and all that follows is computed.

mod facts;
mod findings;
mod json;
mod text;
pub(crate) mod written;

use std::time::Duration;

use crate::gather::protocol::{DomainRef, Versions};
use crate::gather::{DeviceLeftOut, GatherReport, HostOverview};
use crate::inventory::{InventoryOverview, InventoryReport};
use crate::measurements::line_cap::Capped;
use written::Written;

pub use facts::Facts;
pub use json::json;
pub use text::text;

/// One gather of the check.
#[derive(Debug)]
pub(crate) struct Gathered {
    /// Its result.
    pub report: GatherReport,
    /// How long it took.
    pub took: Duration,
}

/// What the gathers of a check have brought.
#[derive(Debug)]
pub(crate) struct Examined {
    /// The first gather.
    pub first: Gathered,
    /// The last one after it; `None` if the first one did not end by itself.
    pub last: Option<Gathered>,
    /// What a gather would write in which the lines of all measurements are due.
    pub written: Written,
    /// The most lines of `vm_stats` that a gather had.
    pub lines_of_stats: usize,
    /// The patterns of `statistics` that no key of any VM matches.
    pub patterns_without_key: Vec<String>,
    /// What `max_lines` leaves out of a gather in which the lines of all measurements are due; `None` without that key.
    pub capped: Option<Capped>,
    /// How many VMs run, without those whose QEMU does not answer.
    pub running: usize,
    /// VMs that run and answer, and of which no memory figure of the guest came.
    pub without_guest_memory: Vec<DomainRef>,
    /// The devices that have no line.
    pub left_out: Vec<DeviceLeftOut>,
    /// What the connection leads to, if that was read.
    pub versions: Option<Versions>,
    /// The sockets to which this process is connected.
    pub sockets: Vec<String>,
    /// Whether libvirt reports VMs and devices that come and go.
    pub events: bool,
    /// What is in sight on this host; `None` where the hypervisor is another host.
    pub host: Option<HostOverview>,
    /// Whether /proc shows the processes of other users.
    pub proc_is_open: bool,
    /// What was found beside the VMs that run.
    pub inventory: InventoryOverview,
    /// How the asking for it fared.
    pub inventory_report: InventoryReport,
}

impl Examined {
    /// The last gather.
    pub fn last(&self) -> &Gathered {
        self.last.as_ref().unwrap_or(&self.first)
    }
}
