//! The result of a simulated gather.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::daemon::Ms;
use telegraf_kvm::gather::protocol::Completeness;

/// The result of one gather.
#[derive(Debug, Default)]
pub struct GatherResult {
    pub took: Ms,
    /// For each VM the number of calls that returned its figures, and the best of the results.
    pub completeness: BTreeMap<Uuid, (u32, Completeness)>,
    pub disks: BTreeSet<Uuid>,
    /// The VMs that were asked for what only some configurations want, by calls that returned in time, and answered.
    pub extra: BTreeSet<Uuid>,
    /// How often each VM was asked for that.
    pub asked_extra: BTreeMap<Uuid, u32>,
    /// The VMs of the list; empty if none came.
    pub listed: BTreeSet<Uuid>,
    /// Whether the daemon had no free worker, and the VM whose monitor was occupied the longest.
    pub saturated: Option<Option<Uuid>>,
    pub actions: usize,
    pub ticks: usize,
}

impl GatherResult {
    /// The number of VMs that are complete.
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

    /// The number of VMs whose figures came in part.
    pub fn part(&self) -> usize {
        self.completeness
            .values()
            .filter(|(_, completeness)| *completeness == Completeness::Partial)
            .count()
    }
}
