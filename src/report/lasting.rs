//! VMs that are in trouble for longer than a moment.

use std::time::{Duration, Instant};

use uuid::Uuid;

use crate::gather::protocol::DomainRef;
use crate::maps::HashMap;

/// A VM in trouble is reported after this time. A monitor that is busy, or a VM that is locked, for less is not worth a
/// line: the VM is being started, saved or ended on a busy host, or libvirt waits 5 s for a guest to release a device
/// (qemuDomainWaitForDeviceRemoval), which a paused guest never does.
pub(super) const MOMENT: Duration = Duration::from_secs(7);

/// Since when each VM has been in one kind of trouble.
#[derive(Debug)]
pub(super) struct Lasting {
    /// How long a VM must have been so before it is reported.
    delay: Duration,
    /// Of the VMs that were so in the last gather.
    since: HashMap<Uuid, Instant>,
}

impl Default for Lasting {
    fn default() -> Self {
        Self {
            delay: MOMENT,
            since: HashMap::default(),
        }
    }
}

impl Lasting {
    /// Each VM in trouble is reported at once: there will be no other gather.
    pub(super) fn without_delay() -> Self {
        Self {
            delay: Duration::ZERO,
            ..Self::default()
        }
    }

    /// Of the VMs that are in trouble in this gather, those that have been so for longer than a moment, in every gather.
    pub(super) fn of(&mut self, in_trouble: &[DomainRef], now: Instant) -> Vec<DomainRef> {
        let since = |domain: &DomainRef| {
            let uuid = domain.run.uuid;
            (uuid, self.since.get(&uuid).copied().unwrap_or(now))
        };
        self.since = in_trouble.iter().map(since).collect();
        let lasts = |domain: &&DomainRef| {
            let since = self.since.get(&domain.run.uuid);
            since.is_some_and(|at| now >= *at + self.delay)
        };
        in_trouble.iter().filter(lasts).cloned().collect()
    }

    /// Forgets a VM that is gone.
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.since.remove(&uuid);
    }
}
