//! Starts the threads and connects them: triggers, workers, libvirt's events and the host watcher send
//! their messages to one inbox, which the main loop reads. Each hypervisor has a main loop and an inbox of its own, and none
//! waits for another.

mod check;
mod engine;

use std::io;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::thread;
use std::time::Duration;

use self::engine::{Engine, Process};
use crate::config::{Loaded, Settings};
use crate::libvirt;
use crate::main_loop::Message;
pub use crate::main_loop::{End, Mode};
use crate::output::Output;
use crate::threads::{self, NotStarted};
use crate::trigger::{self, Requests, SignalThread, Trigger};
pub use check::check;

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

/// A main loop, as other threads see it.
#[derive(Clone)]
struct Inbox {
    sender: Sender<Message>,
    requests: Requests,
}

impl Inbox {
    fn new() -> (Self, Receiver<Message>) {
        let (sender, receiver) = channel();
        let requests = Requests::default();
        (Self { sender, requests }, receiver)
    }

    fn tell(&self, trigger: Trigger) {
        if trigger != Trigger::Gather || self.requests.is_first() {
            // Sending fails only when the main loop has ended.
            let _ = self.sender.send(Message::Trigger(trigger));
        }
    }
}

/// Tells all main loops.
fn tell_all(inboxes: &[Inbox]) -> impl Fn(Trigger) + Send + use<> {
    let inboxes = inboxes.to_vec();
    move |trigger| inboxes.iter().for_each(|inbox| inbox.tell(trigger))
}

/// One hypervisor, about to be gathered.
struct Host<'s> {
    settings: &'s Settings,
    /// What its messages begin with, where there are others.
    name: Option<String>,
    inbox: Inbox,
    receiver: Receiver<Message>,
    /// Whether it is the first one.
    is_first: bool,
}

/// All hypervisors of a configuration.
fn hosts(loaded: &Loaded) -> Vec<Host<'_>> {
    let several = !loaded.others.is_empty();
    let numbered = loaded.all().enumerate();
    let hosts = numbered.map(|(number, settings)| {
        let (inbox, receiver) = Inbox::new();
        let name = settings.host.clone();
        Host {
            settings,
            name: name.filter(|_| several),
            inbox,
            receiver,
            is_first: number == 0,
        }
    });
    hosts.collect()
}

/// What came of one main loop.
struct Ended {
    end: End,
    reader_is_gone: bool,
}

/// Gathers until the end, and writes to `output`; returns what came of it for each hypervisor.
///
/// # Errors
/// No thread can be started, libvirt's library cannot be set up, or stdout cannot be written.
pub fn run(
    loaded: &Loaded,
    mode: Mode,
    signals: SignalThread,
    output: &Output,
) -> Result<Vec<End>, Fatal> {
    let hosts = hosts(loaded);
    let inboxes: Vec<Inbox> = hosts.iter().map(|host| host.inbox.clone()).collect();
    signals.watch(tell_all(&inboxes))?;
    if mode != Mode::Once {
        let self_timed = matches!(mode, Mode::Every(_));
        trigger::watch_stdin(self_timed, tell_all(&inboxes))?;
    }
    let process = Process::set_up(loaded)?;
    let gather = |host: Host<'_>| -> Result<Ended, Fatal> {
        let mut engine = Engine::start(host, mode, &process)?;
        let end = engine.main_loop.run(output);
        let reader_is_gone = engine.main_loop.reader_is_gone();
        engine.close();
        let end = end.map_err(Fatal::Output)?;
        Ok(Ended {
            end,
            reader_is_gone,
        })
    };
    // Where one cannot go on, the program ends.
    let stop = tell_all(&inboxes);
    let ended = |result: &Result<Ended, Fatal>| {
        if result.as_ref().map_or(true, |ended| ended.reader_is_gone) {
            stop(Trigger::Stop);
        }
    };
    let not_started = |error| Err(Fatal::Thread(error));
    let results = each(hosts, gather, not_started, ended);
    let ends = results.into_iter().map(|result| Ok(result?.end));
    ends.collect()
}

/// Does the work of each hypervisor: that of a single one on this thread, that of several each on a thread of its own.
/// `ended` is called with the result of each of several when it comes. Returns the results in the order of the hypervisors.
fn each<'s, T: Send>(
    hosts: Vec<Host<'s>>,
    work: impl Fn(Host<'s>) -> T + Sync,
    not_started: impl Fn(NotStarted) -> T,
    ended: impl Fn(&T),
) -> Vec<T> {
    if hosts.len() == 1 {
        return hosts.into_iter().map(work).collect();
    }
    thread::scope(|scope| {
        let (results, received) = channel();
        for (number, host) in hosts.into_iter().enumerate() {
            let (work, sender) = (&work, results.clone());
            let started = threads::start_in(scope, "main loop", move || {
                let _ = sender.send((number, work(host)));
            });
            if let Err(error) = started {
                let _ = results.send((number, not_started(error)));
            }
        }
        drop(results);
        let mut all: Vec<(usize, T)> = Vec::new();
        for (number, result) in received {
            ended(&result);
            all.push((number, result));
        }
        all.sort_by_key(|(number, _)| *number);
        all.into_iter().map(|(_, result)| result).collect()
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
