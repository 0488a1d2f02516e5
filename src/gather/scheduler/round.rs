//! The state of one gather. Each part owns its fields; this record only holds them together.

use std::collections::BTreeMap;
use std::time::Instant;

use uuid::Uuid;

use super::descriptions::Descriptions;
use super::grace::Grace;
use super::interface::HostVerdict;
use super::phases::Phase;
use super::probe::Probe;
use super::queue::Queue;
use crate::gather::protocol::{Completeness, Scope};
use crate::maps::HashSet;

/// A domain in this gather.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vm {
    /// How much is asked of it.
    pub(super) scope: Scope,
    /// How often it has been asked again.
    pub(super) tries: u32,
    /// How much of it has come; `None`: it has not answered yet.
    pub(super) completeness: Option<Completeness>,
}

#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) phase: Phase,
    pub(super) descriptions: Descriptions,
    /// What the check of the host showed; until then, what is assumed.
    pub(super) host: HostVerdict,
    /// The domains whose statistics are asked for.
    pub(super) vms: BTreeMap<Uuid, Vm>,
    /// Domains whose statistics were refused.
    pub(super) refused: HashSet<Uuid>,
    pub(super) queue: Queue,
    pub(super) probe: Probe,
    pub(super) grace: Grace,
    /// How many calls lost their connection.
    pub(super) losses: u32,
    /// When the last reply of any call came.
    pub(super) last_reply_at: Option<Instant>,
    /// libvirtd had no worker to spare, and then had one again.
    pub(super) was_saturated: bool,
}

impl Round {
    /// Nothing more is sent; what is in hand may still come.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
        self.queue.clear();
    }

    /// Nothing that is still to be sent concerns this domain.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        self.queue.leave_out(uuid);
        self.descriptions.leave_out(uuid);
        if let Phase::Saturated { left, .. } = &mut self.phase {
            left.retain(|other| *other != uuid);
        }
    }
}
