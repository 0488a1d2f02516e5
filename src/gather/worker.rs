//! A worker: one thread, one connection, one job at a time.

use std::sync::Arc;
use std::sync::mpsc::Receiver;

use uuid::Uuid;

use super::engine::{Came, Control, Scope};
use super::ledger::Ticket;
use super::session::Session;
use crate::inventory::{Described, Known};
use crate::libvirt::bulk::Groups;
use crate::libvirt::{Connection, Error};
use crate::sample::{Devices, Run, Sample, Wanted};

/// What every worker has to know.
#[derive(Debug)]
pub struct Brief {
    /// Where to connect.
    pub uri: String,
    /// Which groups the wanted measurements need.
    pub groups: Groups,
    /// Whether a field needs `virDomainGetInfo`.
    pub info: bool,
    /// Which devices are wanted.
    pub wanted: Wanted,
}

/// One thing to do.
#[derive(Debug, Clone)]
pub enum Job {
    /// List the active domains.
    List,
    /// Read the XML of these.
    Describe(Vec<Found>),
    /// One cheap ordinary call.
    Canary(Found),
    /// Bring the statistics of these.
    Ask {
        /// Whom to ask.
        targets: Vec<Target>,
        /// How much.
        scope: Scope,
        /// How many domains are active in all.
        active: usize,
    },
    /// Bring the disks of this one, by calls of their own.
    Disks(Target),
    /// Who occupies whose monitor.
    Probe(Vec<Found>),
    /// State and network of these by priority calls.
    Urgent(Vec<Target>),
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
    /// How much of them.
    pub came: Came,
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
    /// For [`Job::Describe`]; trouble with single domains is beside it.
    Described(Vec<(Run, Arc<Described>)>, Vec<(Found, String)>),
    /// For [`Job::Ask`]: domains that are gone are missing from it; trouble with single domains
    /// that brought no figures is beside it.
    Samples(Vec<Measured>, Vec<(Found, String)>),
    /// For [`Job::Disks`].
    Disks(Run, Devices<5>),
    /// Of [`Job::Probe`]: the daemon answers; more follows.
    Alive,
    /// Of [`Job::Probe`], one domain; more follows.
    Control(Uuid, Control),
    /// Of [`Job::Urgent`], one domain; more follows.
    Urgent(Box<Sample>),
    /// For the jobs whose answers came one by one, and for the canary.
    Done,
}

/// Why a job brought nothing.
#[derive(Debug, Clone)]
pub enum Failure {
    /// No connection could be opened.
    Unreachable(Error),
    /// The connection was lost in the middle.
    Lost(Error),
    /// The connection stands, but the call failed.
    Refused(Error),
}

/// A worker's reply to one job, or a part of it.
#[derive(Debug)]
pub struct Reply {
    /// Which job: numbers are never used twice.
    pub ticket: Ticket,
    /// What came of it.
    pub result: Result<Answer, Failure>,
    /// Whether a connection was opened for it.
    pub opened: bool,
}

impl Reply {
    /// Whether nothing more follows under this ticket.
    pub fn is_last(&self) -> bool {
        !matches!(
            self.result,
            Ok(Answer::Alive | Answer::Control(..) | Answer::Urgent(_))
        )
    }
}

/// The worker's thread: ends when nobody can send it jobs any more.
pub fn run(brief: &Brief, jobs: &Receiver<(Ticket, Job)>, reply: &dyn Fn(Reply)) {
    let mut session: Option<Session> = None;
    while let Ok((ticket, job)) = jobs.recv() {
        session.take_if(|s| !s.connection.is_alive());
        let opened = session.is_none();
        let tell = |result| {
            reply(Reply {
                ticket,
                result,
                opened,
            });
        };
        let open = match &mut session {
            Some(open) => open,
            None => match Connection::open(&brief.uri) {
                Ok(connection) => session.insert(Session::new(connection)),
                Err(error) => {
                    tell(Err(Failure::Unreachable(error)));
                    continue;
                }
            },
        };
        match open.perform(brief, &job, &|answer| tell(Ok(answer))) {
            Ok(answer) => tell(Ok(answer)),
            Err(error) if error.is_transport() || !open.connection.is_alive() => {
                session = None;
                tell(Err(Failure::Lost(error)));
            }
            Err(error) => tell(Err(Failure::Refused(error))),
        }
    }
}
