//! Starts the threads and connects them: triggers, workers, libvirt's events and the host watcher send
//! their messages to one inbox, which the main loop reads.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use crate::config::{Loaded, Settings};
use crate::doctor::Facts;
use crate::gather::{Gatherer, MOST_EXTRA, Problem, host_watcher};
use crate::libvirt;
use crate::libvirt::events::Watcher;
pub use crate::main_loop::{End, Mode};
use crate::main_loop::{MainLoop, Message};
use crate::output::Output;
use crate::threads::NotStarted;
use crate::times::CLOSE;
use crate::trigger::{self, Requests, SignalThread};

/// Why the program cannot run or go on.
#[derive(Debug)]
pub enum Fatal {
    /// A thread cannot be started.
    Thread(NotStarted),
    /// stdout cannot be written: the disk is full, for example, or stdout was closed when the program started.
    Output(io::Error),
    /// libvirt's client library cannot be set up.
    Library(libvirt::Error),
    /// The limit of open files is lower than what is needed.
    Files {
        /// The hard limit.
        limit: u64,
        /// How many files must be allowed.
        needed: u64,
    },
}

impl std::fmt::Display for Fatal {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Thread(error) => write!(f, "{error}"),
            Self::Output(error) => write!(f, "standard output: {error}"),
            // What it reads at its start are these variables (virLogSetFromEnv).
            Self::Library(error) => write!(
                f,
                "libvirt's client library does not start: {error}; check LIBVIRT_DEBUG, \
                 LIBVIRT_LOG_FILTERS and LIBVIRT_LOG_OUTPUTS in the environment"
            ),
            Self::Files { limit, needed } => write!(
                f,
                "the limit of open files is {limit}, and this configuration needs {needed}; raise the hard limit \
                 (LimitNOFILE= of the systemd unit, ulimit -n), or lower workers and max_calls"
            ),
        }
    }
}

impl From<NotStarted> for Fatal {
    fn from(error: NotStarted) -> Self {
        Self::Thread(error)
    }
}

impl From<libvirt::Error> for Fatal {
    fn from(error: libvirt::Error) -> Self {
        Self::Library(error)
    }
}

/// Gathers until the end, and writes to `output`; returns what came of it.
///
/// # Errors
/// No thread can be started, libvirt's library cannot be set up, or stdout cannot be written.
pub fn run(
    settings: Settings,
    mode: Mode,
    signals: SignalThread,
    output: &Output,
) -> Result<End, Fatal> {
    let (sender, inbox) = channel();
    // Sending fails only when the main loop has ended.
    let tell = sender.clone();
    let requests = Requests::default();
    signals.watch(requests.clone(), move |trigger| {
        let _ = tell.send(Message::Trigger(trigger));
    })?;
    if mode != Mode::Once {
        let tell = sender.clone();
        let self_timed = matches!(mode, Mode::Every(_));
        trigger::watch_stdin(self_timed, requests.clone(), move |trigger| {
            let _ = tell.send(Message::Trigger(trigger));
        })?;
    }
    let mut engine = Engine::start(settings, mode, requests, sender, inbox)?;
    let end = engine.main_loop.run(output);
    engine.close();
    end.map_err(Fatal::Output)
}

/// The main loop, and the threads that send it messages.
struct Engine {
    main_loop: MainLoop,
    events: Option<Watcher>,
    in_process: bool,
}

impl Engine {
    /// Starts the threads that serve gathers: libvirt's events and the host watcher. Workers start when they are needed.
    fn start(
        settings: Settings,
        mode: Mode,
        requests: Requests,
        sender: Sender<Message>,
        inbox: Receiver<Message>,
    ) -> Result<Self, Fatal> {
        // Files of /proc are kept open for each VM, so the usual soft limit of 1024 is soon reached.
        let file_limit = match libvirt::raise_file_limit() {
            Ok(limit) => {
                let needed = files_needed(&settings);
                if limit < needed {
                    return Err(Fatal::Files { limit, needed });
                }
                limit
            }
            Err(error) => {
                log::debug!("the limit of open files stays as it is: {error}");
                0
            }
        };
        libvirt::initialize()?;
        libvirt::start_event_loop()?;
        let in_process = settings.uri.in_process();
        let mut watcher = None;
        if mode != Mode::Once && !in_process {
            let tell = sender.clone();
            let uri = settings.uri.value.clone();
            let metadata = settings.needs_metadata();
            watcher = Some(libvirt::events::start(uri, metadata, move |updates| {
                let _ = tell.send(Message::EventUpdates(updates));
            })?);
        }
        let host_watcher = if settings.uri.is_this_host() {
            let tell = sender.clone();
            Some(host_watcher::start(file_limit, move |report| {
                let _ = tell.send(Message::HostReport(Box::new(report)));
            })?)
        } else {
            None
        };
        let gatherer = Gatherer::new(
            &settings,
            Arc::new(move |reply| {
                let _ = sender.send(Message::Reply(reply));
            }),
            host_watcher,
        );
        let main_loop = MainLoop::new(settings, mode, gatherer, inbox, requests);
        Ok(Self {
            main_loop,
            events: watcher,
            in_process,
        })
    }

    /// Closes the connections that are not in use.
    fn close(mut self) {
        if self.in_process {
            return;
        }
        let limit = Instant::now() + CLOSE;
        self.main_loop.close(limit);
        if let Some(events) = self.events {
            events.close(limit);
        }
    }
}

/// How many files must be allowed to be open. Where no more can be opened, GLib, inside libvirt, ends the process
/// (g_wakeup_new).
fn files_needed(settings: &Settings) -> u64 {
    /// The program itself has 16 open, and a few more while it scans /proc and starts mount checkers.
    const OWN: usize = 32;
    /// A connection has a socket and an eventfd, and while it is opened two files more (configuration, user database).
    const EACH_CONNECTION: usize = 4;
    let connections = if settings.uri.in_process() {
        1
    } else {
        // A worker that hangs keeps its connection and is replaced: as many calls as may hang, the one more that finds
        // out why, those that ask for more, and the workers that are kept. And the event feed.
        let extra = match settings.measurements.stats {
            true => MOST_EXTRA,
            false => 0,
        };
        settings.workers.min(settings.max_calls) + settings.max_calls + extra + 1 + 1
    };
    (OWN + EACH_CONNECTION * connections) as u64
}

/// Gathers three times without writing, and returns what that tells of libvirt, this host and the configuration.
///
/// # Errors
/// The message to print: libvirt's error and the remedy, that libvirt does not answer within the deadline, or that
/// no thread can be started.
pub fn check(loaded: &Loaded) -> Result<Facts, String> {
    let settings = &loaded.settings;
    let (sender, inbox) = channel();
    let engine = Engine::start(
        settings.clone(),
        Mode::Check,
        Requests::default(),
        sender,
        inbox,
    );
    let mut engine = engine.map_err(|error| error.to_string())?;
    let examined = engine.main_loop.examine();
    engine.close();
    let report = &examined.first.report;
    let error = report.problems.iter().find_map(|problem| match problem {
        Problem::Unreachable(error) => Some(error),
        // Without a list there is nothing to gather.
        Problem::Refused(error) if report.active.is_none() => Some(error),
        _ => None,
    });
    let uri = &settings.uri;
    let cannot_reach = format!("cannot reach libvirt at {uri}");
    match (error, &report.not_started) {
        (Some(error), _) if !report.reached || report.active.is_none() => {
            let remedy = error.remedy(&uri.value);
            Err(format!("{cannot_reach}: {error}; {remedy}"))
        }
        (None, Some(not_started)) if report.unasked => Err(not_started.clone()),
        _ if !report.reached => {
            let deadline = humantime::format_duration(settings.deadline);
            Err(format!(
                "{cannot_reach}: no answer within {deadline}; is the daemon hung?"
            ))
        }
        _ => Ok(Facts::of(loaded, &examined)),
    }
}

/// What a run by hand on a terminal prints first.
pub const HINT: &str = "Enter gathers, Ctrl-D ends";

/// The mode that the flags ask for.
pub fn mode(once: bool, interval: Option<Duration>) -> Mode {
    match (once, interval) {
        (true, _) => Mode::Once,
        (false, Some(interval)) => Mode::Every(interval),
        (false, None) => Mode::Triggered,
    }
}
