//! Three gathers for `--check`: their lines are counted and not written, and the log says nothing of them.

use std::fs;
use std::time::{Duration, Instant};

use super::MainLoop;
use crate::doctor::written::WrittenByMeasurement;
use crate::doctor::{Examined, Gathered};
use crate::libvirt;
use crate::measurements::line_cap::Capped;

/// How many gathers follow the first one. What libvirt reports while its connections are opened proves nothing, so that
/// what was read on this host can be seen to be libvirt's figure in the third gather.
const FURTHER: usize = 2;
/// The pause before each of them, in which counters move.
const PAUSE: Duration = Duration::from_millis(500);

/// How long the version of the hypervisor is waited for after the last gather: libvirtd may have to start a QEMU to know
/// it.
const VERSIONS: Duration = Duration::from_secs(3);

impl MainLoop {
    /// Gathers once, and then again as long as gathers are done by their deadline.
    pub fn examine(&mut self) -> Examined {
        self.gatherer.read_versions();
        let mut written = WrittenByMeasurement::default();
        let first = self.gathered();
        written.add(&self.buffer);
        let mut last = None;
        let mut is_done = first.report.reached && first.took < self.settings.deadline;
        for _ in 0..FURTHER {
            if !is_done {
                break;
            }
            self.receive_until(Instant::now() + PAUSE);
            let gathered = self.gathered();
            written.add(&self.buffer);
            is_done = gathered.took < self.settings.deadline;
            last = Some(gathered);
        }
        if is_done {
            let limit = Instant::now() + VERSIONS;
            while Instant::now() < limit && !self.knows_versions() {
                self.receive_until(limit.min(Instant::now() + PAUSE / 5));
            }
        }
        let report = &last.as_ref().unwrap_or(&first).report;
        let wanted = &self.settings.measurements;
        let max = self.settings.max_lines;
        let all = written.all_but(&[]).lines;
        let of = |measurement: &str| written.lines_of(measurement);
        let capped = max.map(|max| Capped::of_lines(all, of, max, wanted));
        let left_out = capped.as_ref().map(|it| it.kinds_left_out.as_slice());
        Examined {
            written: written.all_but(left_out.unwrap_or_default()),
            lines_of_stats: written.lines_of("vm_stats"),
            patterns_without_key: self.gatherer.patterns_without_key(),
            capped,
            running: self.running,
            without_guest_memory: self.lacking_guest_memory(report),
            left_out: self.gatherer.devices_left_out(),
            versions: self.gatherer.versions().cloned(),
            sockets: libvirt::connected_sockets(),
            events: self.gatherer.has_events(),
            host: self.gatherer.host_overview(),
            // With hidepid the files of init cannot be read.
            proc_is_open: fs::read("/proc/1/stat").is_ok(),
            inventory: self.inventory.overview(),
            inventory_report: self.inventory.report(),
            first,
            last,
        }
    }

    fn knows_versions(&self) -> bool {
        self.gatherer.versions().is_some_and(|known| known.is_final)
    }

    fn gathered(&mut self) -> Gathered {
        let start = Instant::now();
        let report = self.fill_buffer();
        let took = start.elapsed();
        Gathered { report, took }
    }

    fn receive_until(&mut self, limit: Instant) {
        while Instant::now() < limit {
            if let Some(message) = self.receive(limit) {
                self.on_message(message);
            }
        }
    }
}
