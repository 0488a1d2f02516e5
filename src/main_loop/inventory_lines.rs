//! What is asked beside the gather: waiting for it for a moment, and its lines.

use std::time::Instant;

use uuid::Uuid;

use super::{Ending, MainLoop};
use crate::gather::GatherReport;
use crate::maps::HashSet;
use crate::measurements;
use crate::times::{INVENTORY_GRACE, LIBRARY_OUTPUT};

impl MainLoop {
    /// Waits for a moment for what this gather has asked beside the VMs, which are done. What comes later is written in the
    /// next gather.
    pub(super) fn receive_inventory(&mut self, start: Instant) {
        let asked = self.inventory.asked_at().unwrap_or(start);
        let grace = asked + INVENTORY_GRACE;
        while !self.inventory.is_done() {
            let limit = self.limit(start, Instant::now()).min(grace);
            if Instant::now() >= limit || matches!(self.ending, Some(Ending::Stop(_))) {
                return;
            }
            if let Some(message) = self.receive(limit.min(Instant::now() + LIBRARY_OUTPUT)) {
                self.on_message(message);
            }
        }
    }

    /// After a connection was lost in the last gather, all that was given up for want of connections is tried again.
    pub(super) fn try_more_connections(&mut self) {
        let (_, lost) = self.gatherer.losses();
        if lost > std::mem::replace(&mut self.lost, lost) {
            self.gatherer.try_more_connections();
            self.inventory.try_again();
        }
    }

    /// When [`MainLoop::leave_room`] is to be called.
    pub(super) fn leave_room_at(&self) -> Option<Instant> {
        let inventory = self.inventory.leave_room_at(self.was_reached);
        inventory
            .into_iter()
            .chain(self.gatherer.leave_room_at())
            .min()
    }

    /// Connections that libvirtd does not let in keep other clients out, so they are given up.
    pub(super) fn leave_room(&mut self) {
        self.gatherer.leave_room();
        if self.inventory.leave_room(Instant::now(), self.was_reached) {
            self.gatherer.make_room();
        }
    }

    /// Appends the lines of what was found beside the VMs. All samples of the gather have been written.
    pub(super) fn write_inventory(&mut self, report: &GatherReport, timestamp: i64) {
        let begun = self.buffer.len();
        let wanted = self.settings.measurements;
        let off = self.write_inactive(report, timestamp);
        let found = self.inventory.take_found();
        let of_all = self.settings.tags_of_all_lines();
        for pool in &found.pools {
            measurements::pools::write(&mut self.buffer, pool, &of_all, timestamp);
        }
        if wanted.host {
            // A VM without figures is in no sum, and without a list it is not known which VMs there are.
            let is_whole = report.reached && report.active.is_some() && report.withheld == 0;
            let sums = is_whole.then_some(&self.host_sums);
            let (buffer, tags) = (&mut self.buffer, &self.of_collector);
            measurements::host::write(buffer, sums, off, &found, tags, timestamp);
        }
        self.vms_gathered |= self.buffer.len() > begun;
    }

    /// Appends the lines of the VMs that are shut off; returns how many there are, if that is known. Whatever came of them
    /// waits for a gather that knows which VMs are active: one that was started meanwhile is written as active alone.
    fn write_inactive(&mut self, report: &GatherReport, timestamp: i64) -> Option<u64> {
        let active = report.active.as_ref()?;
        let vms = self.inventory.take_inactive()?;
        let active: HashSet<Uuid> = active.iter().map(|run| run.uuid).collect();
        let of_all = self.settings.tags_of_all_lines();
        let mut count = 0;
        for vm in vms.iter().filter(|vm| !active.contains(&vm.uuid)) {
            count += 1;
            if self.settings.measurements.metrics {
                measurements::inactive::write(&mut self.buffer, vm, &of_all, timestamp);
            }
        }
        Some(count)
    }
}
