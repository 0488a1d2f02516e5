//! A worker: one thread, one connection, one request at a time.

use std::cell::Cell;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::{Duration, Instant};

use super::protocol::{CallId, Response, Versions, WorkerConfig};
use super::session::Session;
use super::worker_pool::Slot;
use crate::libvirt::{self, Connection, Error};
use crate::times::QUICK_FAILURE;

/// Why a request brought nothing.
#[derive(Debug, Clone)]
pub enum Failure {
    /// No connection could be opened.
    Unreachable(Error),
    /// The connection was lost during the call.
    Lost(Error),
    /// The connection stands, but the call failed.
    Refused(Error),
}

/// A worker's reply to one request, or a part of it.
#[derive(Debug)]
pub struct Reply {
    /// The call.
    pub call_id: CallId,
    /// The number of the worker.
    pub worker: u64,
    /// What the call brought.
    pub result: Result<Response, Failure>,
    /// Whether a connection was opened for the call.
    pub opened: bool,
    /// Whether that connection replaces one that was lost.
    pub reopened: bool,
    /// The daemon's version of libvirt, where a connection was opened.
    pub version: Option<u64>,
}

impl Reply {
    /// Whether nothing more follows for this call.
    pub fn is_last(&self) -> bool {
        self.result.as_ref().map_or(true, Response::is_last)
    }
}

/// How often a connection is tried that fails within [`QUICK_FAILURE`].
const TRIES: u32 = 3;

/// A worker that has had no request for this long reads the versions, if it is to.
const IDLE: Duration = Duration::from_millis(100);

/// Opens a connection.
pub(crate) fn open(uri: &str) -> Result<Connection, Error> {
    let mut tries = 0;
    loop {
        tries += 1;
        let begun = Instant::now();
        match Connection::open(uri) {
            // A daemon that is just stopping or starting closes connections which it has accepted.
            Err(error)
                if error.is_transport() && tries < TRIES && begun.elapsed() < QUICK_FAILURE => {}
            result => return result,
        }
    }
}

/// Tells what is known at once, and then the same with the version of the hypervisor, which may take seconds.
fn read_versions(connection: &Connection, tell: impl Fn(Versions)) {
    let mut versions = Versions {
        libvirt: connection.lib_version().ok(),
        client: libvirt::client_version().ok(),
        driver: connection.driver(),
        hypervisor: None,
        is_final: false,
    };
    tell(versions.clone());
    versions.hypervisor = connection.hypervisor_version().ok();
    versions.is_final = true;
    tell(versions);
}

/// The worker's thread. It ends when no request can come any more, and closes its connection. Returns whether that was
/// alive: then the daemon has answered the closing, or the connection was lost meanwhile.
///
/// While `reads_versions` is set, the first worker that is connected and idle clears it and reports [`Versions`]. That may
/// take seconds; a request which comes meanwhile is given to another worker, as it is while a connection is opened.
pub fn run(
    number: u64,
    config: &WorkerConfig,
    reads_versions: &AtomicBool,
    requests: &Receiver<(CallId, Slot)>,
    reply: &dyn Fn(Reply),
) -> bool {
    let mut session: Option<Session> = None;
    loop {
        let received = match &session {
            Some(open) if reads_versions.load(Ordering::Relaxed) => {
                match requests.recv_timeout(IDLE) {
                    Err(RecvTimeoutError::Timeout) => {
                        // Another worker may have taken it in this moment.
                        if !reads_versions.swap(false, Ordering::Relaxed) {
                            continue;
                        }
                        read_versions(&open.connection, |versions| {
                            reply(Reply {
                                call_id: CallId::default(),
                                worker: number,
                                result: Ok(Response::Versions(Box::new(versions))),
                                opened: false,
                                reopened: false,
                                version: None,
                            });
                        });
                        continue;
                    }
                    received => received.ok(),
                }
            }
            _ => requests.recv().ok(),
        };
        let Some((call_id, slot)) = received else {
            return session.is_some_and(|open| open.connection.is_alive());
        };
        let lost = session.take_if(|s| !s.connection.is_alive());
        let (opened, reopened) = (session.is_none(), lost.is_some());
        let version = Cell::new(None);
        let tell = |result| {
            reply(Reply {
                call_id,
                worker: number,
                result,
                opened,
                reopened,
                version: version.get(),
            });
        };
        let open = match &mut session {
            Some(open) => open,
            None => match open(&config.uri) {
                Ok(connection) => {
                    version.set(connection.lib_version().ok());
                    session.insert(Session::new(connection))
                }
                Err(error) => {
                    tell(match slot.take() {
                        Some(_) => Err(Failure::Unreachable(error)),
                        None => Ok(Response::NotConnected),
                    });
                    continue;
                }
            },
        };
        // If opening took too long, another worker has the request.
        let Some(mut request) = slot.take() else {
            tell(Ok(Response::Connected));
            continue;
        };
        request.forget_old_memory();
        match open.perform(config, &request, &|response| tell(Ok(response))) {
            Ok(response) => tell(Ok(response)),
            Err(error) if error.is_transport() || !open.connection.is_alive() => {
                session = None;
                tell(Err(Failure::Lost(error)));
            }
            Err(error) => tell(Err(Failure::Refused(error))),
        }
    }
}
