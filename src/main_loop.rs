//! The main loop: waits for a trigger, gathers, writes. It never calls libvirt itself.

mod examine;
mod gather;
mod inventory_lines;

use std::io;
use std::sync::mpsc::Receiver;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::derive::History;
use crate::gather::Gatherer;
use crate::gather::host_watcher::HostReport;
use crate::gather::protocol::DomainRef;
use crate::gather::worker::Reply;
use crate::hypervisor;
use crate::inventory::{self, Inventory};
use crate::libvirt::events::EventUpdates;
use crate::line_protocol::Tags;
use crate::measurements::host::HostSums;
use crate::measurements::info::InfoWriter;
use crate::measurements::line_cap::{Capped, LineCap};
use crate::output::Output;
use crate::report::Reporter;
use crate::times::{END_DRAIN, END_GRACE, FIRST_REQUEST, LONGEST_DRAIN, STOP_DRAIN, STOP_GRACE};
use crate::timestamp::Timestamps;
use crate::trigger::{Requests, Trigger};

/// What is said where no request comes.
const UNASKED: &str = "no request to gather for a minute: with signal = \"none\" Telegraf never asks; write signal = \
     \"STDIN\" in the stanza, or add \"--interval\", \"10s\" to its command (if Telegraf's interval is longer, all is well)";

/// Everything that other threads send to the loop.
#[derive(Debug)]
pub enum Message {
    /// From the threads that read stdin and signals.
    Trigger(Trigger),
    /// From a worker.
    Reply(Reply),
    /// From the thread that receives libvirt's events.
    EventUpdates(EventUpdates),
    /// From the host watcher.
    HostReport(Box<HostReport>),
    /// From a worker that is asked beside the gather.
    Inventory(inventory::Reply),
}

/// When the loop gathers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Mode {
    /// Once, immediately.
    Once,
    /// Three times for `--check`, without writing ([`MainLoop::examine`]).
    Check,
    /// Whenever a trigger asks for it.
    Triggered,
    /// In this interval, the first time immediately.
    Every(Duration),
}

/// What came of a run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum End {
    /// Lines of VMs were written, or a signal came first.
    Done,
    /// VMs answered, but the configured measurements have no line after one gather.
    NothingToWrite,
    /// VMs answered, and `max_lines` left out all that there was.
    AllLeftOut,
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
    inventory: Inventory,
    inbox: Receiver<Message>,
    requests: Requests,
    history: History,
    host_sums: HostSums,
    info: InfoWriter,
    /// With `max_lines` only.
    line_cap: Option<LineCap>,
    /// What it left out of the last gather.
    capped: Option<Capped>,
    timestamps: Timestamps,
    reporter: Reporter,
    buffer: String,
    /// Whether a gather is due.
    pending: bool,
    ending: Option<Ending>,
    /// Whether a line was written.
    lines_written: bool,
    /// Whether a line of a VM was written, or the configuration asks for none.
    vm_lines_written: bool,
    /// Whether a gather had figures of VMs, or found what was asked beside it.
    vms_gathered: bool,
    /// Whether stdout has no reader any more.
    reader_is_gone: bool,
    /// Whether libvirt answered the last gather.
    was_reached: bool,
    /// Connections that were lost, when the last gather began.
    lost: u64,
    /// Whether libvirt has answered since the start.
    answered: bool,
    /// Whether libvirt had not answered yet when the gather under way began.
    opening: bool,
    started: Instant,
    /// The tags of `vm_collector` and of `vm_host`.
    of_collector: Tags,
    /// When to say that no request has come; `None` once one has, or where none is expected.
    unasked: Option<Instant>,
    /// How many VMs of the last gather run, without those whose QEMU does not answer.
    running: usize,
    /// VMs of the last gather that run and of which no memory figure of the guest came, where somebody is told of them.
    without_guest_memory: Vec<DomainRef>,
}

impl MainLoop {
    /// `inbox` receives the messages of all other threads, the gatherer's workers among them; `requests` is
    /// told when a request to gather was taken out of it.
    pub fn new(
        settings: Settings,
        mode: Mode,
        gatherer: Gatherer,
        inventory: Inventory,
        inbox: Receiver<Message>,
        requests: Requests,
    ) -> Self {
        Self {
            of_collector: settings
                .tags_of_all_lines()
                .with("uri", &settings.uri.masked().text),
            history: History::new(settings.tags_of_all_lines()),
            info: InfoWriter::new(settings.info_interval),
            // A check counts all lines.
            line_cap: settings
                .max_lines
                .filter(|_| mode != Mode::Check)
                .map(LineCap::new),
            capped: None,
            timestamps: Timestamps::new(settings.timestamp_precision),
            reporter: match mode {
                Mode::Once => Reporter::of_one_gather(settings.uri.clone()),
                _ => Reporter::new(settings.uri.clone()),
            },
            settings,
            mode,
            gatherer,
            inventory,
            inbox,
            requests,
            host_sums: HostSums::default(),
            buffer: String::new(),
            pending: mode != Mode::Triggered,
            ending: None,
            lines_written: false,
            vm_lines_written: false,
            vms_gathered: false,
            reader_is_gone: false,
            was_reached: false,
            lost: 0,
            answered: false,
            opening: true,
            started: Instant::now(),
            unasked: (mode == Mode::Triggered).then(|| Instant::now() + FIRST_REQUEST),
            running: 0,
            without_guest_memory: Vec::new(),
        }
    }

    /// Gathers until the end, and writes to `output`; returns what came of it.
    ///
    /// # Errors
    /// An error of stdout. A closed pipe is none: the loop ends as it does at the end of input.
    pub fn run(&mut self, output: &Output) -> io::Result<End> {
        let mut tick = Instant::now();
        loop {
            self.wait(tick);
            if let Mode::Every(interval) = self.mode
                && Instant::now() >= tick
            {
                self.pending = true;
                // Ticks that were missed are skipped.
                let missed = tick.elapsed().as_nanos() / interval.as_nanos().max(1);
                tick += interval * u32::try_from(missed + 1).unwrap_or(1);
            }
            if std::mem::take(&mut self.pending) && !self.is_stopped() {
                match self.gather(output) {
                    Err(error) if error.kind() == io::ErrorKind::BrokenPipe => {
                        self.reader_is_gone = true;
                        break;
                    }
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
                None => Instant::now() + LONGEST_DRAIN,
            };
            output.drain(limit);
        }
        Ok(
            if self.is_stopped() || (self.vms_gathered && self.vm_lines_written) {
                End::Done
            } else if self.vms_gathered {
                match &self.capped {
                    Some(capped) if capped.lines_dropped > 0 => End::AllLeftOut,
                    _ => End::NothingToWrite,
                }
            } else {
                End::NothingGathered
            },
        )
    }

    /// Whether the loop has ended because stdout has no reader any more.
    pub fn reader_is_gone(&self) -> bool {
        self.reader_is_gone
    }

    /// Makes the loop say nothing where no request comes: another one does.
    pub fn leave_unasked_unsaid(&mut self) {
        self.unasked = None;
    }

    /// Closes the workers' connections that are not in use; waits for that until `limit` at the longest. Returns whether the
    /// daemon answered.
    pub fn close_workers(&mut self, limit: Instant) -> bool {
        self.gatherer.close(limit)
    }

    /// Closes the connections of what is asked beside the VMs; waits for that until `limit` at the longest.
    pub fn close_inventory(&mut self, limit: Instant) {
        self.inventory.close(limit);
    }

    fn is_stopped(&self) -> bool {
        matches!(self.ending, Some(Ending::Stop(_)))
    }

    /// Waits until a gather is due or the loop is to end.
    fn wait(&mut self, tick: Instant) {
        while !self.pending && self.ending.is_none() {
            let due = match self.mode {
                Mode::Every(_) => Some(tick),
                Mode::Once | Mode::Check | Mode::Triggered => self.unasked,
            };
            let room = self.leave_room_at();
            let message = match room.into_iter().chain(due).min() {
                Some(limit) => self.receive(limit),
                None => self.inbox.recv().ok(),
            };
            let Some(message) = message else {
                if room.is_some() && due.is_none_or(|due| Instant::now() < due) {
                    self.leave_room();
                    continue;
                }
                if self.unasked.take().is_some() {
                    hypervisor::for_all(|| log::info!("{UNASKED}"));
                    continue;
                }
                return;
            };
            self.on_message(message);
        }
    }

    /// The next message; `None` if none came until `limit`.
    fn receive(&self, limit: Instant) -> Option<Message> {
        let timeout = limit.saturating_duration_since(Instant::now());
        self.inbox.recv_timeout(timeout).ok()
    }

    fn on_message(&mut self, message: Message) {
        match message {
            Message::Trigger(Trigger::Gather) => {
                self.requests.taken();
                self.unasked = None;
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
            Message::HostReport(report) => self.gatherer.on_host_report(*report),
            Message::Inventory(reply) => self.inventory.on_reply(reply),
        }
    }
}

#[cfg(test)]
mod tests;
