//! One gather: receives messages until it is done or its time is up, and writes the lines.

use std::io;
use std::time::Instant;

use super::{Ending, MainLoop, Message, Mode};
use crate::gather::GatherReport;
use crate::gather::protocol::DomainRef;
use crate::hypervisor::calls::CallCounts;
use crate::measurements::collector::{self, Collector};
use crate::measurements::jobs;
use crate::output::Output;
use crate::sample::{JobStatus, Sample};
use crate::times::{END_FIRST_GRACE, END_GRACE, END_PATIENCE, LIBRARY_OUTPUT, STOP_GRACE};
use crate::{logging, measurements, wording};

/// Room in the output buffer for the lines of one VM with some 100 devices, in bytes.
const ROOM: usize = 32 * 1024;

impl MainLoop {
    pub(super) fn gather(&mut self, output: &Output) -> io::Result<()> {
        let start = Instant::now();
        let report = self.fill_buffer();
        self.reporter.report(&report);
        if report.reached {
            self.reporter.inventory(&self.inventory.report());
        }
        if let Some(capped) = &self.capped {
            self.reporter.line_cap(capped);
        }
        if log::log_enabled!(log::Level::Debug) && report.reached {
            let devices = self.gatherer.devices_left_out();
            let without_memory = self.lacking_guest_memory(&report);
            self.reporter.left_out(&report, &devices, &without_memory);
        }
        log::debug!(
            "{} in {} ms, {} bytes; {} in part, {} withheld; hanging calls: {}",
            wording::count(report.answered as u64, "VM"),
            start.elapsed().as_millis(),
            self.buffer.len(),
            report.answered - report.complete,
            report.withheld,
            report.hanging
        );
        self.lines_written |= !self.buffer.is_empty();
        self.vms_gathered |= report.answered > 0;
        output.write(self.buffer.as_bytes())
    }

    /// Gathers, and puts the lines into the buffer.
    pub(super) fn fill_buffer(&mut self) -> GatherReport {
        let timestamp = self.timestamps.take();
        let start = Instant::now();
        self.opening = !self.answered;
        self.buffer.clear();
        self.without_guest_memory.clear();
        self.running = 0;
        self.host_sums.begin();
        self.try_more_connections();
        let is_scarce = self.gatherer.has_too_few_connections();
        self.inventory.begin(start, is_scarce);
        self.leave_room();
        self.gatherer.begin();
        self.receive_replies(start, timestamp);
        self.receive_inventory(start);
        let is_in_time = start.elapsed() < self.settings.deadline;
        let cut = self
            .ending
            .filter(|_| is_in_time && !self.gatherer.is_done());
        let mut report = self.gatherer.finish();
        self.was_reached = report.reached;
        report.cut = cut.map(|ending| match ending {
            Ending::EndOfInput(_) => "standard input ended",
            Ending::Stop(_) => "a signal to stop arrived",
        });
        logging::pass_on();
        // Before the runs that are not active any more are dropped, with their tags.
        self.write_last_lines(&report, timestamp);
        if let Some(active) = &report.active {
            self.history
                .retain(active, |uuid| self.reporter.forget(uuid));
            self.info.retain(active);
            self.host_sums.retain(active);
        }
        for sample in &report.samples {
            self.write(sample, timestamp);
        }
        self.write_extra(&report, timestamp);
        self.write_inventory(&report, timestamp);
        self.limit_lines(report.reached);
        let measurements = &self.settings.measurements;
        self.vm_lines_written |= !self.buffer.is_empty() || !measurements.any_of_vms();
        if measurements.collector {
            self.write_collector(&report, start, timestamp);
        }
        report
    }

    /// The VMs of the last gather that run and answer, and of which no memory figure of the guest came.
    pub(super) fn lacking_guest_memory(&self, report: &GatherReport) -> Vec<DomainRef> {
        let lacking = self.without_guest_memory.iter();
        let lacking = lacking.filter(|vm| report.whole.contains(&vm.run.uuid));
        lacking
            .filter(|_| self.settings.measurements.totals)
            .cloned()
            .collect()
    }

    /// Handles messages until the gather is done or its time is up. The lines of each VM are written as
    /// soon as its figures are complete.
    fn receive_replies(&mut self, start: Instant, timestamp: i64) {
        let mut last_reply = start;
        // Before libvirt has answered for the first time, the connections of the workers come first.
        if self.answered {
            self.inventory.ask();
        }
        while !self.gatherer.is_done() {
            let limit = self.limit(start, last_reply);
            let wake = self.gatherer.wake().map_or(limit, |wake| wake.min(limit));
            let Some(message) = self.receive(wake.min(Instant::now() + LIBRARY_OUTPUT)) else {
                if Instant::now() >= limit {
                    break;
                }
                logging::pass_on();
                if Instant::now() >= wake {
                    self.gatherer.tick();
                }
                continue;
            };
            if let Message::Reply(reply) = &message {
                last_reply = Instant::now();
                let is_first = !self.answered && reply.result.is_ok();
                self.answered |= is_first;
                if is_first {
                    self.inventory.ask();
                }
            }
            self.on_message(message);
            while let Some(sample) = self.gatherer.take_ready() {
                self.write(&sample, timestamp);
            }
        }
    }

    /// Appends a VM's lines to the buffer.
    pub(super) fn write(&mut self, sample: &Sample, timestamp: i64) {
        // The buffer grows by an eighth and not to twice its size: it stays as large as the largest gather.
        if self.buffer.capacity() - self.buffer.len() < ROOM {
            self.buffer.reserve_exact(ROOM.max(self.buffer.len() / 8));
        }
        self.running += usize::from(sample.is_running() && sample.answers != Some(false));
        // Only the check and the log at debug level tell of them.
        let is_told = self.mode == Mode::Check || log::log_enabled!(log::Level::Debug);
        if is_told && sample.lacks_guest_memory() {
            let (run, name) = (sample.run, sample.name.clone());
            self.without_guest_memory.push(DomainRef { run, name });
        }
        let wanted = &self.settings.measurements;
        let (vm, derived) = self.history.update(sample);
        if wanted.host {
            self.host_sums.add(sample, &derived);
        }
        measurements::write(&mut self.buffer, wanted, sample, vm, &derived, timestamp);
        if wanted.info {
            let now = Instant::now();
            self.info
                .write(&mut self.buffer, sample, vm, now, timestamp);
        }
    }

    /// Leaves out of the buffer what `max_lines` does not allow.
    pub(super) fn limit_lines(&mut self, reached: bool) {
        let wanted = &self.settings.measurements;
        let cap = self.line_cap.as_mut();
        self.capped = cap.map(|cap| cap.apply(&mut self.buffer, wanted, reached));
        let left_out = self.capped.iter().flat_map(|it| &it.kinds_left_out);
        let info_is_written = left_out.into_iter().all(|kind| *kind != "vm_info");
        self.info.end(info_is_written);
    }

    /// Appends the last lines of the VMs that have stopped, and of the jobs that are over.
    pub(super) fn write_last_lines(&mut self, report: &GatherReport, timestamp: i64) {
        let wanted = &self.settings.measurements;
        for ended in &report.ended {
            if let Some(tags) = self.history.tags(ended.domain.run) {
                let reason = ended.reason;
                measurements::write_last_line(&mut self.buffer, wanted, tags, reason, timestamp);
            }
        }
        for job in &report.finished_jobs {
            if let Some(tags) = self.history.tags(job.domain.run) {
                let status = job.stats.final_status();
                jobs::write(&mut self.buffer, tags, &job.stats, status, timestamp);
            }
        }
    }

    /// Appends what only some configurations want of the VMs, whose tags are known by now.
    fn write_extra(&mut self, report: &GatherReport, timestamp: i64) {
        for extra in report.extra.values() {
            if let Some(tags) = self.history.tags(extra.run) {
                measurements::stats::write(&mut self.buffer, &extra.stats, tags, timestamp);
                if let Some(job) = &extra.job {
                    jobs::write(&mut self.buffer, tags, job, JobStatus::Running, timestamp);
                }
            }
        }
    }

    /// Appends the line of `vm_collector` to the buffer.
    fn write_collector(&mut self, report: &GatherReport, start: Instant, timestamp: i64) {
        let (late, reconnects) = self.gatherer.losses();
        let collector = Collector {
            up: report.reached,
            uptime: self.started.elapsed(),
            duration: start.elapsed(),
            seen: report.seen,
            complete: report.complete,
            partial: report.answered - report.complete,
            withheld: report.withheld,
            lines: memchr::memchr_iter(b'\n', self.buffer.as_bytes()).count(),
            lines_dropped: self.capped.as_ref().map(|capped| capped.lines_dropped),
            calls: CallCounts::now(),
            reconnects,
            hanging: report.hanging + self.inventory.hanging(),
            late,
            dead_mounts: report.dead.len(),
        };
        let (buffer, wanted) = (&mut self.buffer, &self.settings.measurements);
        collector::write(buffer, &collector, wanted, &self.of_collector, timestamp);
    }

    /// When the gather under way ends at the latest.
    pub(super) fn limit(&self, start: Instant, last_reply: Instant) -> Instant {
        let deadline = start + self.settings.deadline;
        deadline.min(match self.ending {
            None => deadline,
            Some(Ending::Stop(at)) => at + STOP_GRACE,
            Some(Ending::EndOfInput(at)) => {
                let grace = if self.opening {
                    END_FIRST_GRACE
                } else {
                    END_GRACE
                };
                if self.answered {
                    (last_reply + END_PATIENCE).min(at + grace)
                } else {
                    at + grace
                }
            }
        })
    }
}
