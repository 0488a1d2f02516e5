//! A worker: one thread, one connection, one job at a time.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use super::session::Session;
use crate::inventory::{Described, Known};
use crate::libvirt::bulk::Groups;
use crate::libvirt::{Connection, Error};
use crate::sample::{Run, Sample, Wanted};

/// What every worker has to know.
#[derive(Debug)]
pub struct Brief {
    /// Where to connect.
    pub uri: String,
    /// Which groups the wanted measurements need.
    pub groups: Groups,
    /// Which devices are wanted.
    pub wanted: Wanted,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Job {
    /// List the active domains.
    List,
    /// Bring the statistics of these.
    Chunk {
        /// Whom to ask.
        targets: Vec<Target>,
        /// How many domains are active in all.
        active: usize,
    },
}

/// An active domain, as the list has it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// Which run of which domain.
    pub run: Run,
    /// Its name.
    pub name: String,
}

/// A domain to ask.
#[derive(Debug, Clone)]
pub struct Target {
    /// Whom.
    pub found: Found,
    /// What the cache knows of it.
    pub known: Known,
}

/// What came back for one domain.
#[derive(Debug)]
pub struct Measured {
    /// The figures.
    pub sample: Sample,
    /// A description that was read for it just now.
    pub described: Option<Arc<Described>>,
    /// What went wrong with this domain alone.
    pub trouble: Option<String>,
}

/// What a job brought.
#[derive(Debug)]
pub enum Answer {
    /// For [`Job::List`].
    Domains(Vec<Found>),
    /// For [`Job::Chunk`]: domains that are gone are missing from it; trouble with single domains
    /// that brought no figures is beside it.
    Samples(Vec<Measured>, Vec<(Found, String)>),
}

/// Why a job brought nothing.
#[derive(Debug, Clone)]
pub enum Failure {
    /// No connection could be opened.
    Unreachable(Error),
    /// The connection stands, but the call failed.
    Refused(Error),
}

/// A worker's reply to one job.
#[derive(Debug)]
pub struct Reply {
    /// Which job: numbers are never used twice.
    pub ticket: u64,
    /// What came of it.
    pub result: Result<Answer, Failure>,
}

/// The worker's thread: ends when nobody can send it jobs any more.
pub fn run(brief: &Brief, jobs: &Receiver<(u64, Job)>, reply: &dyn Fn(Reply)) {
    let mut session: Option<Session> = None;
    while let Ok((ticket, job)) = jobs.recv() {
        let result = perform(brief, &mut session, &job);
        reply(Reply { ticket, result });
    }
}

/// A connection lost in the middle is opened anew, and the job done again, once.
fn perform(brief: &Brief, session: &mut Option<Session>, job: &Job) -> Result<Answer, Failure> {
    let mut last = None;
    for _ in 0..2 {
        if session.as_ref().is_some_and(|s| !s.connection.is_alive()) {
            *session = None;
        }
        let open = match session {
            Some(open) => open,
            None => {
                let connection = Connection::open(&brief.uri).map_err(Failure::Unreachable)?;
                session.insert(Session::new(connection))
            }
        };
        let result = match job {
            Job::List => open.list(),
            Job::Chunk { targets, active } => open.ask(brief, targets, *active),
        };
        match result {
            Ok(answer) => return Ok(answer),
            Err(error) if error.is_transport() || !open.connection.is_alive() => {
                log::debug!("connection lost: {error}");
                *session = None;
                last = Some(Failure::Unreachable(error));
            }
            Err(error) => return Err(Failure::Refused(error)),
        }
    }
    Err(last.unwrap_or_else(|| Failure::Refused(Error::invalid("no answer"))))
}
