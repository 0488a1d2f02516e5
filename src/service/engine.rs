//! The main loop of one hypervisor with the threads that serve it, and what is set up once for the process.

use std::sync::Arc;
use std::time::Instant;

use super::{Fatal, Host};
use crate::config::{Loaded, Settings};
use crate::gather::{Gatherer, MOST_EXTRA, host_watcher};
use crate::hypervisor::{self, Hypervisor};
use crate::inventory::{self, Inventory};
use crate::libvirt::events::Watcher;
use crate::libvirt::{self, OptionalKinds};
use crate::main_loop::{MainLoop, Message, Mode};
use crate::times::CLOSE;

/// What is set up once, however many hypervisors there are.
pub(super) struct Process {
    /// How many files each host watcher may count on.
    file_limit: u64,
}

impl Process {
    /// Raises the limit of open files, and starts libvirt's library and its event loop.
    ///
    /// # Errors
    /// Too few files may be open, or the library or its thread does not start.
    pub(super) fn set_up(loaded: &Loaded) -> Result<Self, Fatal> {
        // Files of /proc are kept open for each VM, so the usual soft limit of 1024 is soon reached.
        let file_limit = match libvirt::raise_file_limit() {
            Ok(limit) => {
                let needed = files_needed(loaded.all());
                if limit < needed {
                    return Err(Fatal::Files { limit, needed });
                }
                let watchers = loaded.all().filter(|host| host.uri.is_this_host());
                limit / (watchers.count() as u64).max(1)
            }
            Err(error) => {
                log::debug!("the limit of open files stays as it is: {error}");
                0
            }
        };
        libvirt::initialize()?;
        libvirt::start_event_loop()?;
        Ok(Self { file_limit })
    }
}

/// The main loop, and the threads that send it messages.
pub(super) struct Engine {
    pub(super) main_loop: MainLoop,
    events: Option<Watcher>,
    in_process: bool,
}

impl Engine {
    /// Starts the threads that serve gathers: libvirt's events and the host watcher. Workers start when they are needed. From
    /// now on this thread works for the hypervisor, and so do those that it starts.
    ///
    /// # Errors
    /// A thread does not start.
    pub(super) fn start(host: Host<'_>, mode: Mode, process: &Process) -> Result<Self, Fatal> {
        let Host {
            settings,
            name,
            inbox,
            receiver,
            is_first,
        } = host;
        hypervisor::set(Some(Arc::new(Hypervisor {
            name,
            ..Hypervisor::default()
        })));
        let sender = inbox.sender;
        let in_process = settings.uri.in_process();
        let host_watcher = if settings.uri.is_this_host() {
            let tell = sender.clone();
            Some(host_watcher::start(process.file_limit, move |report| {
                let _ = tell.send(Message::HostReport(Box::new(report)));
            })?)
        } else {
            None
        };
        let tell = sender.clone();
        let inventory = Inventory::new(
            settings,
            Arc::new(move |reply| {
                let _ = tell.send(Message::Inventory(reply));
            }),
        );
        let tell = sender.clone();
        let gatherer = Gatherer::new(
            settings,
            Arc::new(move |reply| {
                let _ = tell.send(Message::Reply(reply));
            }),
            host_watcher,
        );
        // This is the last that may fail: its thread makes calls at once, and may be left only by `close`.
        let mut events = None;
        if mode != Mode::Once && !in_process {
            let uri = settings.uri.value.clone();
            let wanted = OptionalKinds {
                io_errors: true,
                metadata: settings.needs_metadata(),
                jobs: settings.measurements.jobs,
                memory: true,
            };
            events = Some(libvirt::events::start(uri, wanted, move |updates| {
                let _ = sender.send(Message::EventUpdates(updates));
            })?);
        }
        let settings = settings.clone();
        let (inbox, requests) = (receiver, inbox.requests);
        let mut main_loop = MainLoop::new(settings, mode, gatherer, inventory, inbox, requests);
        if !is_first {
            main_loop.leave_unasked_unsaid();
        }
        Ok(Self {
            main_loop,
            events,
            in_process,
        })
    }

    /// Closes the connections that are not in use. The workers' come first: they show whether libvirtd answers, which must be
    /// known before the one for events is closed. Before the first gather there are none.
    pub(super) fn close(mut self) {
        if self.in_process {
            return;
        }
        let limit = Instant::now() + CLOSE;
        let answers = self.main_loop.close_workers(limit);
        if let Some(events) = self.events {
            events.end(answers, limit);
        }
        self.main_loop.close_inventory(limit);
    }
}

/// How many files must be allowed to be open. Where no more can be opened, GLib, inside libvirt, ends the process
/// (g_wakeup_new).
fn files_needed<'s>(hosts: impl Iterator<Item = &'s Settings>) -> u64 {
    /// The program itself has 16 open, and a few more while it scans /proc and starts mount checkers.
    const OWN: usize = 32;
    /// A connection has a socket and an eventfd, and while it is opened two files more (configuration, user database).
    const EACH_CONNECTION: usize = 4;
    let connections = |settings: &Settings| {
        let beside = inventory::connections(settings);
        let of_gathers = if settings.uri.in_process() {
            1
        } else {
            // A worker that hangs keeps its connection and is replaced: as many calls as may hang, the one more that finds
            // out why, those that ask for more, and the workers that are kept. And the event feed.
            let wanted = &settings.measurements;
            let extra = match wanted.stats || wanted.jobs {
                true => MOST_EXTRA,
                false => 0,
            };
            settings.workers.min(settings.max_calls) + settings.max_calls + extra + 1 + 1
        };
        of_gathers + beside
    };
    (OWN + EACH_CONNECTION * hosts.map(connections).sum::<usize>()) as u64
}
