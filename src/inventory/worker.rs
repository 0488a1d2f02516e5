//! A worker: one thread, one connection, one request at a time.

use std::sync::Arc;
use std::sync::mpsc::{Sender, TryRecvError, channel};

use crate::gather::worker::{Failure, open};
use crate::libvirt::{Connection, Error};
use crate::threads::{self, NotStarted};

/// An open connection, and what is asked on it.
pub(super) trait Session {
    /// A request.
    type Request: Send + 'static;
    /// What it brings.
    type Answer;

    /// The connection.
    fn connection(&self) -> &Connection;

    /// Makes the calls of a request.
    fn answer(&mut self, request: &Self::Request) -> Result<Self::Answer, Error>;
}

/// What a worker says of a request.
#[derive(Debug)]
pub(super) enum Told<A> {
    /// The connection stands, and the request's first call is made now.
    Begun,
    /// What it brought.
    Ended(Result<A, Failure>),
}

/// What the workers of an inventory share.
#[derive(Debug, Clone)]
pub(super) struct Shared {
    pub(super) uri: Arc<str>,
    /// Each thread holds a clone until its connection is closed.
    pub(super) alive: Sender<()>,
}

/// Starts a worker. `session` makes a session of a new connection. The thread ends when what this returns is dropped, and
/// makes no call any more if that was before its connection stood.
pub(super) fn start<S: Session>(
    name: &str,
    shared: &Shared,
    session: impl Fn(Connection) -> S + Send + 'static,
    tell: impl Fn(Told<S::Answer>) + Send + 'static,
) -> Result<Sender<S::Request>, NotStarted> {
    let (requests, inbox) = channel();
    let shared = shared.clone();
    threads::start(name, move || {
        let mut kept: Option<S> = None;
        while let Ok(request) = inbox.recv() {
            kept.take_if(|open| !open.connection().is_alive());
            let open = match kept.take() {
                Some(open) => Ok(open),
                None => open(&shared.uri)
                    .map(&session)
                    .map_err(Failure::Unreachable),
            };
            // The next request comes only after this one was answered.
            if matches!(inbox.try_recv(), Err(TryRecvError::Disconnected)) {
                break;
            }
            let result = open.and_then(|open| {
                tell(Told::Begun);
                answer(kept.insert(open), &request)
            });
            tell(Told::Ended(result));
        }
        drop(kept);
        drop(shared.alive);
    })?;
    Ok(requests)
}

/// Makes the calls of a request.
fn answer<S: Session>(open: &mut S, request: &S::Request) -> Result<S::Answer, Failure> {
    open.answer(request).map_err(|error| {
        // With modular daemons, an error of the transport may be that of virtqemud, which cannot reach virtstoraged.
        match open.connection().is_alive() {
            true => Failure::Refused(error),
            false => Failure::Lost(error),
        }
    })
}
