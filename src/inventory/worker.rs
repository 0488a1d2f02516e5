//! A worker: one thread, one connection, one request at a time.

use std::sync::mpsc::{Sender, channel};

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

/// Starts a worker. `session` makes a session of a new connection. The thread ends when what this returns is dropped; it
/// holds a clone of `thread` until its connection is closed.
pub(super) fn start<S: Session>(
    name: &str,
    uri: &str,
    thread: &Sender<()>,
    session: impl Fn(Connection) -> S + Send + 'static,
    tell: impl Fn(Told<S::Answer>) + Send + 'static,
) -> Result<Sender<S::Request>, NotStarted> {
    let (requests, inbox) = channel();
    let (uri, thread) = (uri.to_owned(), thread.clone());
    threads::start(name, move || {
        let mut kept: Option<S> = None;
        for request in inbox {
            tell(Told::Ended(perform(
                &mut kept,
                &uri,
                &request,
                &session,
                || tell(Told::Begun),
            )));
        }
        drop(kept);
        drop(thread);
    })?;
    Ok(requests)
}

/// Makes the calls of a request, on a new connection if there is none or it was lost.
fn perform<S: Session>(
    kept: &mut Option<S>,
    uri: &str,
    request: &S::Request,
    session: impl Fn(Connection) -> S,
    begun: impl Fn(),
) -> Result<S::Answer, Failure> {
    kept.take_if(|open| !open.connection().is_alive());
    let open = match kept {
        Some(open) => open,
        None => kept.insert(session(open(uri).map_err(Failure::Unreachable)?)),
    };
    begun();
    open.answer(request).map_err(|error| {
        // With modular daemons, an error of the transport may be that of virtqemud, which cannot reach virtstoraged.
        match open.connection().is_alive() {
            true => Failure::Refused(error),
            false => Failure::Lost(error),
        }
    })
}
