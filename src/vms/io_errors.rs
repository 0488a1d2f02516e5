//! I/O errors of disks, counted by libvirt's events.
//!
//! QEMU has no counter of errors. The events name a disk by its alias, and may come before the VM is listed or its
//! description is read. So they are counted by run and alias, and the disk is found when there is a sample.

use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use super::{DomainRef, VmRecord, Vms};
use crate::description::Disk;
use crate::libvirt::IoError;
use crate::maps::HashMap;
use crate::sample::{DISK_COUNTERS, Device, Devices, RunId};

/// The counts of all runs that are active, or may be.
#[derive(Debug, Default)]
pub(super) struct IoErrors {
    /// Whether events of I/O errors come. While they do not, a count may be too small.
    are_reported: bool,
    by_run: HashMap<RunId, Vec<DiskErrors>>,
}

/// The I/O errors of one disk in one run.
#[derive(Debug)]
struct DiskErrors {
    alias: SmolStr,
    count: u64,
    /// When the last event came.
    at: Instant,
    /// libvirt's word for the cause of the first one; taken when it is reported.
    first: Option<SmolStr>,
}

/// The first I/O error of a disk in a run.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FirstIoError {
    /// The VM.
    pub domain: DomainRef,
    /// The disk's target, or its alias if it is not in the description.
    pub disk: SmolStr,
    /// libvirt's word for the cause; empty if it gave none, as QEMU tells it only of an error that stops the VM.
    pub reason: SmolStr,
    /// Whether the disk has lines, in which `io_error_events` goes on counting.
    pub is_written: bool,
}

impl IoErrors {
    /// A list has come that was requested then; only a run that began later may be active without being in it.
    pub(super) fn on_list(
        &mut self,
        requested_at: Option<Instant>,
        records: &HashMap<Uuid, VmRecord>,
    ) {
        self.by_run.retain(|run, disks| {
            let is_active = records
                .get(&run.uuid)
                .is_some_and(|vm| vm.domain.run == *run);
            is_active || disks.iter().any(|disk| Some(disk.at) >= requested_at)
        });
    }

    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.by_run.len()
    }

    /// A device was removed. Another one may get its alias.
    pub(super) fn on_removed(&mut self, uuid: Uuid, alias: &str) {
        for (run, disks) in &mut self.by_run {
            if run.uuid == uuid {
                disks.retain(|disk| disk.alias != alias);
            }
        }
    }
}

impl Vms {
    /// Events of I/O errors come from now on, or no more.
    pub fn set_io_errors(&mut self, are_reported: bool) {
        self.io_errors.are_reported = are_reported;
    }

    /// Requests of a guest to a disk failed.
    pub fn io_error(&mut self, error: IoError, at: Instant) {
        let run = RunId {
            uuid: error.uuid,
            id: error.id,
        };
        let disks = self.io_errors.by_run.entry(run).or_default();
        match disks.iter_mut().find(|disk| disk.alias == error.alias) {
            Some(disk) => {
                disk.count += error.count;
                disk.at = at;
            }
            None => disks.push(DiskErrors {
                alias: error.alias.into(),
                count: error.count,
                at,
                first: Some(error.reason.into()),
            }),
        }
    }

    /// Adds to the disks of a run how many I/O errors each has had.
    pub fn add_io_errors(&self, run: RunId, disks: &mut Devices<DISK_COUNTERS>) {
        let Some(vm) = self.records.get(&run.uuid) else {
            return;
        };
        if !self.io_errors.are_reported || vm.domain.run != run {
            return;
        }
        let counts = self
            .io_errors
            .by_run
            .get(&run)
            .map_or(&[][..], Vec::as_slice);
        // A disk without any counter has no line, and this alone is worth none.
        let counted = |disk: &&mut Device<DISK_COUNTERS>| disk.counters.iter().any(Option::is_some);
        for disk in disks.list.iter_mut().filter(counted) {
            let described = described(vm).find(|known| Some(&known.target) == disk.name.as_ref());
            disk.io_errors = described.and_then(|known| {
                let alias = known.alias.as_ref()?;
                let counted = counts.iter().find(|disk| disk.alias == *alias);
                Some(counted.map_or(0, |disk| disk.count))
            });
        }
    }

    /// The first I/O error of each disk that had none when this was last called. `is_written`: whether a disk has lines.
    pub fn take_first_io_errors(
        &mut self,
        is_written: impl Fn(&Disk) -> bool,
    ) -> Vec<FirstIoError> {
        let mut errors = Vec::new();
        for (run, disks) in &mut self.io_errors.by_run {
            // VMs that are not wanted have no record, and those that the next list will have do not yet.
            let record = self.records.get(&run.uuid);
            let Some(vm) = record.filter(|vm| vm.domain.run == *run) else {
                continue;
            };
            for disk in disks {
                let Some(reason) = disk.first.take() else {
                    continue;
                };
                let target = described(vm).find(|known| known.alias.as_ref() == Some(&disk.alias));
                errors.push(FirstIoError {
                    domain: vm.domain.clone(),
                    disk: target.map_or(&disk.alias, |known| &known.target).clone(),
                    reason,
                    is_written: target.is_some_and(&is_written),
                });
            }
        }
        errors
    }
}

/// The disks of a VM by its XML, as far as that has been read.
fn described(vm: &VmRecord) -> impl Iterator<Item = &Disk> {
    let known = vm.description.as_ref();
    let known = known.and_then(|known| known.description.as_ref());
    known.into_iter().flat_map(|known| &known.disks)
}
