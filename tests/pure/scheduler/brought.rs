//! What a simulated gather brought.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::daemon::Ms;
use telegraf_kvm::gather::protocol::Completeness;

/// What one gather brought.
#[derive(Debug, Default)]
pub struct Gather {
    pub took: Ms,
    /// By VM how many calls brought its figures, and the best of them.
    pub completeness: BTreeMap<Uuid, (u32, Completeness)>,
    pub disks: BTreeSet<Uuid>,
    /// Whether the daemon had no worker to spare, and whose monitor was occupied the longest.
    pub saturated: Option<Option<Uuid>>,
    pub actions: usize,
    pub ticks: usize,
}

impl Gather {
    /// How many VMs are complete.
    pub fn whole(&self) -> usize {
        self.completeness
            .keys()
            .filter(|uuid| self.is_whole(**uuid))
            .count()
    }

    pub fn is_whole(&self, uuid: Uuid) -> bool {
        self.completeness
            .get(&uuid)
            .is_some_and(|(_, completeness)| *completeness == Completeness::Full)
    }

    /// How many came in part.
    pub fn part(&self) -> usize {
        self.completeness
            .values()
            .filter(|(_, completeness)| *completeness == Completeness::Partial)
            .count()
    }
}
