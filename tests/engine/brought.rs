//! What a simulated gather brought.

use std::collections::{BTreeMap, BTreeSet};

use uuid::Uuid;

use super::daemon::Ms;

/// What one gather brought.
#[derive(Debug, Default)]
pub struct Gather {
    pub took: Ms,
    /// By VM how many calls brought its figures, and the best of them.
    pub came: BTreeMap<Uuid, (u32, Brought)>,
    pub disks: BTreeSet<Uuid>,
    /// Whether the daemon had no worker to spare, and who is to blame.
    pub saturated: Option<Option<Uuid>>,
    pub orders: usize,
    pub ticks: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Brought {
    /// State and network.
    PriorityOnly,
    /// What needs no monitor.
    Part,
    Whole,
}

impl Gather {
    /// How many VMs are complete.
    pub fn whole(&self) -> usize {
        self.came
            .keys()
            .filter(|uuid| self.is_whole(**uuid))
            .count()
    }

    pub fn is_whole(&self, uuid: Uuid) -> bool {
        self.came
            .get(&uuid)
            .is_some_and(|(_, came)| *came == Brought::Whole)
    }

    /// How many came in part.
    pub fn part(&self) -> usize {
        self.came
            .values()
            .filter(|(_, came)| *came == Brought::Part)
            .count()
    }
}
