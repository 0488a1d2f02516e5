//! The loop: trigger -> gather -> write. It never calls libvirt itself.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::gather::Gatherer;
use crate::gather::host_watcher::HostReport;
use crate::gather::worker::Reply;
use crate::history::History;
use crate::libvirt::events::EventUpdates;
use crate::line_protocol::Tags;
use crate::logging;
use crate::measurements;
use crate::measurements::collector::{self, Collector};
use crate::output::Output;
use crate::report::Reporter;
use crate::sample::Sample;
use crate::times::{END_DRAIN, END_FIRST_GRACE, END_GRACE, END_PATIENCE, STOP_DRAIN, STOP_GRACE};
use crate::timestamp::Timestamps;
use crate::trigger::{Requests, Trigger};

/// Everything that reaches the loop.
#[derive(Debug)]
pub enum Message {
    /// From stdin, signals.
    Trigger(Trigger),
    /// From a worker.
    Reply(Reply),
    /// From the watch.
    EventUpdates(EventUpdates),
    /// From the host watcher.
    HostReport(Box<HostReport>),
}

/// When the loop gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once, at once.
    Once,
    /// When a trigger says so.
    Triggered,
    /// By itself, first at once.
    Every(Duration),
}

/// Room in the output buffer for the lines of a VM, bytes: of one with some 100 devices.
const ROOM: usize = 32 * 1024;

/// How often what libraries print is read while a gather waits: libvirt may wait for room in their
/// pipe (LIBVIRT_LOG_OUTPUTS=1:file:/dev/stderr).
const PASS_ON: Duration = Duration::from_millis(100);

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Lines of VMs were written, or a signal came first.
    Done,
    /// VMs answered, but `measurements` wants nothing that one gather gives.
    NothingToWrite,
    /// No VM answered, or there is none.
    NothingGathered,
}

/// Why the loop is about to end, and since when.
#[derive(Debug, Clone, Copy)]
enum Ending {
    EndOfInput(Instant),
    Stop(Instant),
}

/// The loop's state.
pub struct MainLoop {
    settings: Settings,
    mode: Mode,
    gatherer: Gatherer,
    inbox: Receiver<Message>,
    requests: Requests,
    history: History,
    timestamps: Timestamps,
    reporter: Reporter,
    buffer: String,
    pending: bool,
    ending: Option<Ending>,
    lines_written: bool,
    vms_gathered: bool,
    /// libvirt has answered since the start,
    answered: bool,
    /// but had not when the gather in hand began.
    opening: bool,
    started: Instant,
    /// The tag of `vm_collector`.
    uri: Tags,
}

impl MainLoop {
    /// `inbox` is where triggers, and the gatherer's workers, put what they have; `requests` is told
    /// when a request was taken out of it.
    pub fn new(
        settings: Settings,
        mode: Mode,
        gatherer: Gatherer,
        inbox: Receiver<Message>,
        requests: Requests,
    ) -> Self {
        Self {
            uri: Tags::new().with("uri", &settings.uri.masked().text),
            timestamps: Timestamps::new(settings.timestamp_precision),
            reporter: Reporter::new(settings.uri.clone()),
            settings,
            mode,
            gatherer,
            inbox,
            requests,
            history: History::default(),
            buffer: String::new(),
            pending: mode != Mode::Triggered,
            ending: None,
            lines_written: false,
            vms_gathered: false,
            answered: false,
            opening: true,
            started: Instant::now(),
        }
    }

    /// History until there is an end, and writes on `output`; returns what came of it.
    ///
    /// # Errors
    /// stdout's, but for a closed pipe, which is a quiet end.
    pub fn run(&mut self, output: &Output) -> io::Result<End> {
        let mut tick = Instant::now();
        loop {
            self.wait(tick);
            if let Mode::Every(interval) = self.mode
                && Instant::now() >= tick
            {
                self.pending = true;
                // Ticks that were missed are not caught up with.
                let missed = tick.elapsed().as_nanos() / interval.as_nanos().max(1);
                tick += interval * u32::try_from(missed + 1).unwrap_or(1);
            }
            if std::mem::take(&mut self.pending) && !self.is_stopped() {
                match self.gather(output) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => break,
                    Err(error) => return Err(error),
                    Ok(()) => {}
                }
            }
            if self.mode == Mode::Once || (self.ending.is_some() && !self.pending) {
                break;
            }
            if self.is_stopped() {
                break;
            }
        }
        if self.lines_written {
            let limit = match self.ending {
                Some(Ending::Stop(at)) => at + STOP_GRACE + STOP_DRAIN,
                Some(Ending::EndOfInput(at)) => at + END_GRACE + END_DRAIN,
                None => Instant::now() + Duration::from_secs(1),
            };
            output.drain(limit);
        }
        Ok(
            if self.is_stopped() || (self.vms_gathered && self.lines_written) {
                End::Done
            } else if self.vms_gathered {
                End::NothingToWrite
            } else {
                End::NothingGathered
            },
        )
    }

    /// Closes the connections that are not in use, until `limit` at the longest.
    pub fn close(&mut self, limit: Instant) {
        self.gatherer.close(limit);
    }

    fn is_stopped(&self) -> bool {
        matches!(self.ending, Some(Ending::Stop(_)))
    }

    /// Waits until a gather is due or the end has come.
    fn wait(&mut self, tick: Instant) {
        while !self.pending && self.ending.is_none() {
            let message = match self.mode {
                Mode::Every(_) => match self.receive(tick) {
                    Some(message) => message,
                    None => return,
                },
                Mode::Once | Mode::Triggered => match self.inbox.recv() {
                    Ok(message) => message,
                    Err(_) => return,
                },
            };
            self.on_message(message);
        }
    }

    /// The next message, `None` when `until` has come.
    fn receive(&self, until: Instant) -> Option<Message> {
        let patience = until.saturating_duration_since(Instant::now());
        self.inbox.recv_timeout(patience).ok()
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Trigger(Trigger::Gather) => {
                self.requests.taken();
                self.pending = true;
            }
            Message::Trigger(Trigger::EndOfInput) => {
                self.ending
                    .get_or_insert(Ending::EndOfInput(Instant::now()));
            }
            Message::Trigger(Trigger::Stop) => {
                if !self.is_stopped() {
                    self.ending = Some(Ending::Stop(Instant::now()));
                }
            }
            Message::Reply(reply) => self.gatherer.on_reply(reply),
            Message::EventUpdates(updates) => {
                for update in updates.take() {
                    self.gatherer.on_event_update(update);
                }
            }
            Message::HostReport(seen) => self.gatherer.on_host_report(*seen),
        }
    }

    fn gather(&mut self, output: &Output) -> io::Result<()> {
        let timestamp = self.timestamps.take();
        let start = Instant::now();
        let mut last_answer = start;
        self.opening = !self.answered;
        self.buffer.clear();
        self.gatherer.begin();
        while !self.gatherer.is_done() {
            let limit = self.limit(start, last_answer);
            let wake = self.gatherer.wake().map_or(limit, |wake| wake.min(limit));
            let Some(message) = self.receive(wake.min(Instant::now() + PASS_ON)) else {
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
                last_answer = Instant::now();
                self.answered |= reply.result.is_ok();
            }
            self.on_message(message);
            while let Some(sample) = self.gatherer.take_ready() {
                self.write(&sample, timestamp);
            }
        }
        let in_time = start.elapsed() < self.settings.deadline;
        let cut = self.ending.filter(|_| in_time && !self.gatherer.is_done());
        let mut gathered = self.gatherer.finish();
        gathered.cut = cut.map(|ending| match ending {
            Ending::EndOfInput(_) => "the input ended",
            Ending::Stop(_) => "a signal to stop came",
        });
        logging::pass_on();
        if let Some(active) = &gathered.active {
            self.history
                .retain(active, |uuid| self.reporter.forget(uuid));
        }
        self.reporter.report(&gathered);
        for sample in &gathered.samples {
            self.write(sample, timestamp);
        }
        let withheld = gathered.locked.len() + gathered.missing.len() + gathered.refused.len();
        if self.settings.measurements.collector {
            let (late, reconnects) = self.gatherer.losses();
            let collector = Collector {
                up: gathered.reached,
                uptime: self.started.elapsed(),
                duration: start.elapsed(),
                seen: gathered.seen,
                complete: gathered.complete,
                partial: gathered.answered - gathered.complete,
                withheld,
                lines: memchr::memchr_iter(b'\n', self.buffer.as_bytes()).count(),
                reconnects,
                hanging: gathered.hanging,
                late,
                dead_mounts: gathered.dead.len(),
            };
            collector::write(&mut self.buffer, &collector, &self.uri, timestamp);
        }
        log::debug!(
            "{} VMs in {} ms, {} bytes; {} in part, {withheld} withheld, {} calls hang",
            gathered.answered,
            start.elapsed().as_millis(),
            self.buffer.len(),
            gathered.answered - gathered.complete,
            gathered.hanging
        );
        self.lines_written |= !self.buffer.is_empty();
        self.vms_gathered |= gathered.answered > 0;
        output.write(self.buffer.as_bytes())
    }

    /// Appends a VM's lines to the buffer.
    fn write(&mut self, sample: &Sample, timestamp: i64) {
        // By an eighth, not by twice: it stays as large as the largest gather.
        if self.buffer.capacity() - self.buffer.len() < ROOM {
            self.buffer.reserve_exact(ROOM.max(self.buffer.len() / 8));
        }
        let wanted = &self.settings.measurements;
        let (vm, derived) = self.history.update(sample);
        measurements::write(&mut self.buffer, wanted, sample, vm, &derived, timestamp);
    }

    /// When the gather under way ends at the latest.
    fn limit(&self, start: Instant, last_answer: Instant) -> Instant {
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
                    (last_answer + END_PATIENCE).min(at + grace)
                } else {
                    at + grace
                }
            }
        })
    }
}
