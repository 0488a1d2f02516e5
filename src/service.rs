//! Starts the threads and connects them: triggers, workers, libvirt's events and the host watcher send
//! their messages to one inbox, which the main loop reads.

use std::io;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::gather::{Gatherer, host_watcher};
use crate::libvirt::{self, Connection};
pub use crate::main_loop::{End, Mode};
use crate::main_loop::{MainLoop, Message};
use crate::output::Output;
use crate::threads::{self, NotStarted};
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
    // Files of /proc are kept open for each VM, so the usual soft limit of 1024 is soon reached.
    let file_limit = libvirt::raise_file_limit().unwrap_or_else(|error| {
        log::debug!("the limit of open files stays as it is: {error}");
        0
    });
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
        // A VM may have many vCPUs. What they do not get is left to connections and other files.
        let for_vcpus = usize::try_from(file_limit / 4).unwrap_or(usize::MAX);
        Some(host_watcher::start(for_vcpus, move |report| {
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
    let mut main_loop = MainLoop::new(settings, mode, gatherer, inbox, requests);
    let end = main_loop.run(output);
    if !in_process {
        let limit = Instant::now() + CLOSE;
        main_loop.close(limit);
        if let Some(watcher) = watcher {
            watcher.close(limit);
        }
    }
    end.map_err(Fatal::Output)
}

/// How many VMs `--check` found.
#[derive(Debug)]
pub struct ActiveVms {
    /// Active domains.
    pub active: usize,
    /// Active domains that pass the name filter.
    pub wanted: usize,
}

/// Opens a connection and counts the VMs.
///
/// # Errors
/// The message to print: libvirt's error and the remedy, that libvirt does not answer within
/// `settings.deadline`, or that no thread can be started.
pub fn check(settings: &Settings) -> Result<ActiveVms, String> {
    let (sender, receiver) = channel();
    let uri = settings.uri.clone();
    let domains = settings.domains.clone();
    let count = move || {
        let count = || {
            let active = Connection::open(&uri.value)?.active_domains()?;
            let wanted = active.iter().filter(|d| domains.matches(&d.name()));
            Ok(ActiveVms {
                active: active.len(),
                wanted: wanted.count(),
            })
        };
        let reached = libvirt::initialize()
            .map_err(|error| Fatal::Library(error).to_string())
            .and_then(|()| {
                count().map_err(|error: libvirt::Error| {
                    let remedy = error.remedy(&uri.value);
                    format!("cannot reach libvirt at {uri}: {error}; {remedy}")
                })
            });
        let _ = sender.send(reached);
    };
    threads::start("check", count).map_err(|error| error.to_string())?;
    receiver
        .recv_timeout(settings.deadline)
        .unwrap_or_else(|_| {
            let deadline = humantime::format_duration(settings.deadline);
            let uri = &settings.uri;
            Err(format!(
                "cannot reach libvirt at {uri}: no answer within {deadline}; is the daemon hung?"
            ))
        })
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
