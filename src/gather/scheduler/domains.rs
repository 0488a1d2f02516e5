//! The domains of a gather: how much is asked of each, and how much of it has come.

use std::collections::BTreeMap;
use std::time::Duration;

use uuid::Uuid;

use crate::gather::protocol::{Completeness, Scope};
use crate::maps::HashSet;

/// A domain whose statistics are asked for.
#[derive(Debug, Clone, Copy)]
struct Vm {
    /// How much is asked of it.
    scope: Scope,
    /// How often it has been asked again.
    tries: u32,
    /// How much of it has come; `None`: it has not answered yet.
    completeness: Option<Completeness>,
}

/// The domains of a gather. None is taken up before the host was checked.
#[derive(Debug, Default)]
pub(super) struct Domains {
    vms: BTreeMap<Uuid, Vm>,
    /// Domains whose statistics were refused.
    refused: HashSet<Uuid>,
    /// Domains that are not active any more.
    gone: HashSet<Uuid>,
}

/// How long a domain that libvirt passed by is left alone before it is asked again, after so many tries.
pub(super) fn pause_before(tries: u32) -> Duration {
    Duration::from_millis(5 << tries.min(4))
}

impl Domains {
    /// The statistics of the domain are to be asked for.
    pub(super) fn take_up(&mut self, uuid: Uuid, scope: Scope) {
        let vm = Vm {
            scope,
            tries: 0,
            completeness: None,
        };
        self.vms.insert(uuid, vm);
    }

    pub(super) fn is_empty(&self) -> bool {
        self.vms.is_empty()
    }

    pub(super) fn has(&self, uuid: Uuid) -> bool {
        self.vms.contains_key(&uuid)
    }

    /// How much is asked of the domain.
    pub(super) fn scope(&self, uuid: Uuid) -> Option<Scope> {
        self.vms.get(&uuid).map(|vm| vm.scope)
    }

    /// What needs no monitor must do for the domain.
    pub(super) fn do_without_monitor(&mut self, uuid: Uuid) {
        if let Some(vm) = self.vms.get_mut(&uuid) {
            vm.scope = Scope::NoMonitor;
        }
    }

    /// Domains of which something is asked that needs the monitor.
    pub(super) fn with_monitor(&self) -> impl Iterator<Item = Uuid> {
        self.vms
            .iter()
            .filter(|(_, vm)| vm.scope != Scope::NoMonitor)
            .map(|(uuid, _)| *uuid)
    }

    /// The domain has answered; returns how much was asked of it. `None`: it is not asked in this
    /// gather.
    pub(super) fn answered(&mut self, uuid: Uuid, completeness: Completeness) -> Option<Scope> {
        let vm = self.vms.get_mut(&uuid)?;
        vm.completeness = Some(completeness);
        Some(vm.scope)
    }

    /// Counts one more try of the domain; returns the pause before it. `None` after so many `tries`.
    pub(super) fn try_again(&mut self, uuid: Uuid, tries: u32) -> Option<Duration> {
        let vm = self.vms.get_mut(&uuid).filter(|vm| vm.tries < tries)?;
        let pause = pause_before(vm.tries);
        vm.tries += 1;
        Some(pause)
    }

    /// How much of the domain has come.
    pub(super) fn completeness(&self, uuid: Uuid) -> Option<Completeness> {
        self.vms.get(&uuid)?.completeness
    }

    pub(super) fn has_answered(&self, uuid: Uuid) -> bool {
        self.completeness(uuid).is_some()
    }

    pub(super) fn has_any_answered(&self) -> bool {
        self.vms.values().any(|vm| vm.completeness.is_some())
    }

    /// Domains that have not answered yet, and how much is asked of each.
    pub(super) fn unanswered(&self) -> impl Iterator<Item = (Uuid, Scope)> {
        self.vms
            .iter()
            .filter(|(_, vm)| vm.completeness.is_none())
            .map(|(uuid, vm)| (*uuid, vm.scope))
    }

    /// The domain is not asked any more in this gather.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        self.vms.remove(&uuid);
    }

    /// The domain is not active any more.
    pub(super) fn remove_gone(&mut self, uuid: Uuid) {
        self.vms.remove(&uuid);
        self.gone.insert(uuid);
    }

    /// Whether nothing has come of the domain, although it is not known to be gone.
    pub(super) fn is_missing(&self, uuid: Uuid) -> bool {
        !self.has_answered(uuid) && !self.refused.contains(&uuid) && !self.gone.contains(&uuid)
    }

    /// The statistics of the domain were refused.
    pub(super) fn refuse(&mut self, uuid: Uuid) {
        self.vms.remove(&uuid);
        self.refused.insert(uuid);
    }

    pub(super) fn refused(&self) -> impl Iterator<Item = Uuid> {
        self.refused.iter().copied()
    }

    /// All domains that are asked, and how much of each has come.
    pub(super) fn into_completeness(self) -> impl Iterator<Item = (Uuid, Option<Completeness>)> {
        self.vms
            .into_iter()
            .map(|(uuid, vm)| (uuid, vm.completeness))
    }
}
