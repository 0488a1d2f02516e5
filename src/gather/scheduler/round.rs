//! The state of one gather. Each part owns its fields; this record only holds them together.

use uuid::Uuid;

use super::daemon::Daemon;
use super::descriptions::Descriptions;
use super::domains::Domains;
use super::extra::Extra;
use super::grace::Grace;
use super::interface::HostVerdict;
use super::phases::Phase;
use super::probe::Probe;
use super::queue::Queue;

#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) phase: Phase,
    /// The list has come, or the domains last known serve in its place.
    pub(super) knows_domains: bool,
    pub(super) descriptions: Descriptions,
    /// What the check of the host showed; until then, what is assumed.
    pub(super) host: HostVerdict,
    pub(super) domains: Domains,
    pub(super) queue: Queue,
    pub(super) extra: Extra,
    pub(super) probe: Probe,
    pub(super) grace: Grace,
    pub(super) daemon: Daemon,
}

impl Round {
    /// Nothing more is sent; what is in hand may still come.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
        self.queue.clear();
        self.extra.stop();
    }

    /// Nothing that is still to be sent concerns this domain.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        self.queue.leave_out(uuid);
        self.extra.leave_out(uuid);
        self.descriptions.leave_out(uuid);
        if let Phase::Saturated { left, .. } = &mut self.phase {
            left.retain(|other| *other != uuid);
        }
    }
}
