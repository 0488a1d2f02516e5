//! The loop: trigger -> gather -> write. It never calls libvirt itself.

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use log::Level;

use crate::config::Settings;
use crate::gather::worker::Reply;
use crate::gather::{Gathered, Gatherer, Trouble};
use crate::libvirt::events::Notice;
use crate::logging::Troubles;
use crate::measurements;
use crate::output;
use crate::runs::Runs;
use crate::stamp::Stamps;
use crate::trigger::Trigger;

/// Everything that reaches the loop.
#[derive(Debug)]
pub enum Message {
    /// From stdin, signals.
    Trigger(Trigger),
    /// From a worker.
    Reply(Reply),
    /// From the watch.
    Notice(Notice),
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

/// After SIGTERM the gather in hand goes on for so long.
const STOP_GRACE: Duration = Duration::from_millis(1500);
/// After the end of input a gather goes on while the last answer is younger than this,
const END_PATIENCE: Duration = Duration::from_millis(1500);
/// and for so long at the most; of the four seconds the rest is for the pipe to be read.
const END_GRACE: Duration = Duration::from_millis(2700);

/// Why the loop is about to end, and since when.
#[derive(Debug, Clone, Copy)]
enum Ending {
    EndOfInput(Instant),
    Stop(Instant),
}

/// The loop's state.
pub struct Agent {
    settings: Settings,
    mode: Mode,
    gatherer: Gatherer,
    inbox: Receiver<Message>,
    runs: Runs,
    stamps: Stamps,
    troubles: Troubles,
    buffer: String,
    pending: bool,
    ending: Option<Ending>,
    lines_written: bool,
}

impl Agent {
    /// `inbox` is where triggers, and the gatherer's workers, put what they have.
    pub fn new(
        settings: Settings,
        mode: Mode,
        gatherer: Gatherer,
        inbox: Receiver<Message>,
    ) -> Self {
        Self {
            stamps: Stamps::new(settings.timestamp_precision),
            settings,
            mode,
            gatherer,
            inbox,
            runs: Runs::default(),
            troubles: Troubles::default(),
            buffer: String::new(),
            pending: mode != Mode::Triggered,
            ending: None,
            lines_written: false,
        }
    }

    /// Runs until there is an end; returns whether any line was written.
    ///
    /// # Errors
    /// stdout's, but for a closed pipe, which is a quiet end.
    pub fn run(&mut self) -> io::Result<bool> {
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
                match self.gather() {
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
                Some(Ending::Stop(at)) => at + STOP_GRACE + Duration::from_millis(250),
                Some(Ending::EndOfInput(at)) => at + END_GRACE + Duration::from_millis(1050),
                None => Instant::now() + Duration::from_secs(1),
            };
            output::drain(limit);
        }
        Ok(self.lines_written)
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
            Message::Trigger(Trigger::Gather) => self.pending = true,
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
            Message::Notice(notice) => self.gatherer.on_notice(notice),
        }
    }

    fn gather(&mut self) -> io::Result<()> {
        let stamp = self.stamps.take();
        let start = Instant::now();
        let mut last_answer = start;
        self.gatherer.begin();
        while !self.gatherer.is_done() {
            let Some(message) = self.receive(self.limit(start, last_answer)) else {
                break;
            };
            if matches!(message, Message::Reply(_)) {
                last_answer = Instant::now();
            }
            self.on_message(message);
        }
        let gathered = self.gatherer.finish();
        self.report(&gathered);
        self.buffer.clear();
        for sample in &gathered.samples {
            let wanted = &self.settings.measurements;
            measurements::write(&mut self.buffer, wanted, sample, &mut self.runs, stamp);
        }
        log::debug!(
            "{} VMs in {} ms, {} bytes",
            gathered.samples.len(),
            start.elapsed().as_millis(),
            self.buffer.len()
        );
        self.lines_written |= !self.buffer.is_empty();
        output::write(self.buffer.as_bytes())
    }

    /// When the gather under way ends at the latest.
    fn limit(&self, start: Instant, last_answer: Instant) -> Instant {
        let deadline = start + self.settings.deadline;
        deadline.min(match self.ending {
            None => deadline,
            Some(Ending::Stop(at)) => at + STOP_GRACE,
            Some(Ending::EndOfInput(at)) => (last_answer + END_PATIENCE).min(at + END_GRACE),
        })
    }

    /// The same trouble is said once, then counted; its end is said too.
    fn report(&mut self, gathered: &Gathered) {
        let troubles = &mut self.troubles;
        if let Some(active) = &gathered.active {
            self.runs.keep(active, |uuid| {
                troubles.clear(&uuid.to_string());
            });
        }
        for trouble in &gathered.troubles {
            match trouble {
                Trouble::Unreachable(error) => troubles.report("libvirt", Level::Warn, || {
                    let uri = &self.settings.uri;
                    let remedy = error.remedy();
                    format!("cannot reach libvirt at {uri}: {error}; {remedy}; trying again at every gather")
                }),
                Trouble::Refused(error) => troubles.report("refused", Level::Warn, || {
                    format!("libvirt refused statistics: {error}")
                }),
                Trouble::Domain(found, text) => {
                    let uuid = found.run.uuid;
                    troubles.report(uuid.to_string(), Level::Warn, || {
                        format!("VM {} ({uuid}): {text}", found.name)
                    });
                }
            }
        }
        let met = |one: fn(&Trouble) -> bool| gathered.troubles.iter().any(one);
        if gathered.reached {
            // One worker of several may find no connection.
            if !met(|trouble| matches!(trouble, Trouble::Unreachable(_)))
                && let Some(times) = troubles.clear("libvirt")
            {
                log::info!("libvirt answers again after {times} gathers without");
            }
            if !met(|trouble| matches!(trouble, Trouble::Refused(_)))
                && let Some(times) = troubles.clear("refused")
            {
                log::info!("libvirt refuses no statistics any more, after {times} times");
            }
        } else if gathered.troubles.is_empty() {
            troubles.report("libvirt", Level::Warn, || {
                let uri = &self.settings.uri;
                format!("libvirt at {uri} does not answer; trying again at every gather")
            });
        }
        if gathered.reached && gathered.missing > 0 {
            troubles.report("late", Level::Warn, || {
                let (missing, hanging) = (gathered.missing, gathered.hanging);
                format!("{missing} VMs did not answer in time; {hanging} calls hang")
            });
        } else if gathered.reached
            && let Some(times) = troubles.clear("late")
        {
            log::info!("all VMs answer in time again, after {times} gathers in which some did not");
        }
    }
}

#[cfg(test)]
mod tests;
