//! Whether the QEMU of a run is still being started, restored or migrated in, or has arrived.
//!
//! The state does not tell: libvirt calls a VM that was restored and left paused (`virsh restore --paused`, or saved
//! while it was paused) `paused (migration)` until it is resumed, as it does one that is being migrated in. While a
//! VM is migrated in, or its memory is read from a file, libvirt holds an asynchronous job that allows no query
//! (VIR_ASYNC_JOB_MIGRATION_IN and VIR_ASYNC_JOB_START, both with the mask VIR_JOB_NONE). QEMU would answer on its
//! monitor meanwhile, but libvirt asks nothing for statistics. So figures of the monitor prove that the job has ended.
//! So do the events of a start and of a resume, except that libvirt reports a VM that is being migrated in as started
//! (VIR_DOMAIN_EVENT_STARTED_MIGRATED) when the migration begins.

use super::{VmRecord, Vms};
use crate::sample::{RunId, Sample};

/// The state and the reason (virDomainState, virDomainPausedReason) of a VM that is being migrated in, of one that is
/// leaving, and of one that was restored and left paused.
pub const PAUSED_BY_MIGRATION: (i32, i32) = (3, 2);
/// States and reasons of a VM that may be about to run: it is being migrated in or restored, or its QEMU is being
/// started.
const ARRIVING: [(i32, i32); 2] = [PAUSED_BY_MIGRATION, (3, 11)];

/// How far the start of a run is, as far as it is known.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(super) enum Arrival {
    /// The VM may be about to run.
    #[default]
    UnderWay,
    /// Its QEMU has arrived; no sample has shown another state than those of a VM that is about to run.
    LeftPaused,
    /// A sample has shown that the VM runs or has run. If it is paused by a migration later, it is leaving.
    Over,
}

impl Arrival {
    /// Whether the VM is not about to run, but runs or has run.
    pub(super) fn has_run(self) -> bool {
        self != Self::UnderWay
    }

    /// An event, or a figure of QEMU, tells that the QEMU has arrived.
    pub(super) fn on_arrived(&mut self) {
        if *self == Self::UnderWay {
            *self = Self::LeftPaused;
        }
    }

    /// What a sample tells.
    pub(super) fn on_sample(&mut self, sample: &Sample) {
        match sample.state.zip(sample.reason) {
            Some(state) if !ARRIVING.contains(&state) => *self = Self::Over,
            Some(PAUSED_BY_MIGRATION) if sample.has_figures_of_qemu() => self.on_arrived(),
            _ => {}
        }
    }
}

impl VmRecord {
    /// Whether the VM stays paused as it arrived: that it is paused by a migration does not mean that it is being
    /// migrated in.
    pub(super) fn is_left_paused(&self) -> bool {
        self.arrival == Arrival::LeftPaused
    }
}

impl Vms {
    /// An event tells that the QEMU of this run has arrived.
    pub fn arrived(&mut self, run: RunId) {
        if let Some(change) = self.changes.get_mut(&run.uuid)
            && change.begun.as_ref().is_some_and(|begun| begun.run == run)
        {
            change.has_arrived = true;
        }
        if let Some(vm) = self.records.get_mut(&run.uuid)
            && vm.domain.run == run
        {
            vm.arrival.on_arrived();
        }
    }

    /// Whether this run has arrived and stays paused as it arrived.
    pub fn is_left_paused(&self, run: RunId) -> bool {
        let vm = self.records.get(&run.uuid);
        vm.is_some_and(|vm| vm.domain.run == run && vm.is_left_paused())
    }
}
