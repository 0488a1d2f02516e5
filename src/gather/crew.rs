//! The crew: the workers' threads, each with a connection of its own.
//!
//! A worker opens its connection when it is given its first job, and libvirtd may let it wait
//! (`max_clients`): it takes the job once it is in. Until then the job can be taken back and given to
//! a worker that has a connection.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::job::{Brief, Job};
use super::ledger::Ticket;
use super::worker::{self, Reply};
use crate::maps::HashMap;

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// A job on its way to a worker that may still be opening its connection: whoever takes it has it.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Option<Job>>>);

impl Slot {
    fn new(job: Job) -> Self {
        Self(Arc::new(Mutex::new(Some(job))))
    }

    /// The job, unless it was taken before.
    pub fn take(&self) -> Option<Job> {
        self.job().take()
    }

    fn is_taken(&self) -> bool {
        self.job().is_none()
    }

    fn job(&self) -> MutexGuard<'_, Option<Job>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

type Worker = Sender<(Ticket, Slot)>;

/// A worker with a job.
#[derive(Debug)]
struct Busy {
    worker: Worker,
    slot: Slot,
    since: Instant,
}

/// What became of a job.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    /// A worker has it.
    Begun,
    /// No more connections are to be had: it waits for a worker that has one.
    Waits,
    /// There is no worker, and no thread can be had for one.
    NoThread,
}

/// The workers.
pub struct Crew {
    brief: Arc<Brief>,
    sink: Sink,
    /// How many stay when there is nothing to do,
    size: usize,
    /// and how many jobs each is given at a time.
    jobs: usize,
    /// A place for each job that could be given.
    idle: Vec<Worker>,
    busy: HashMap<Ticket, Busy>,
    /// Workers that libvirtd has not let in yet, by the job that was taken back from each.
    outside: HashMap<Ticket, Worker>,
    /// Jobs for whoever is free next.
    waiting: VecDeque<(Ticket, Job)>,
}

impl Crew {
    /// A crew of which `size` stay; their threads and connections come when they are needed. Each is
    /// given so many `jobs` at a time: the second is at hand when the first is done.
    pub fn new(brief: Brief, size: usize, jobs: usize, sink: Sink) -> Self {
        Self {
            brief: Arc::new(brief),
            sink,
            size,
            jobs,
            idle: Vec::new(),
            busy: HashMap::default(),
            outside: HashMap::default(),
            waiting: VecDeque::new(),
        }
    }

    /// Gives the job to an idle worker, or to a new one.
    pub fn assign(&mut self, ticket: Ticket, job: Job) -> Assigned {
        let Some(job) = self.give(ticket, job) else {
            return Assigned::Begun;
        };
        // Another would wait outside, too.
        if !self.outside.is_empty() && !self.busy.is_empty() {
            match job {
                Job::List | Job::Probe(_) | Job::Urgent(_) => {
                    self.waiting.push_front((ticket, job));
                }
                _ => self.waiting.push_back((ticket, job)),
            }
            return Assigned::Waits;
        }
        let (worker, inbox) = channel();
        let brief = Arc::clone(&self.brief);
        let sink = Arc::clone(&self.sink);
        let thread = thread::Builder::new()
            .name("worker".into())
            .spawn(move || worker::run(&brief, &inbox, &*sink));
        if let Err(error) = thread {
            log::debug!("cannot start a thread: {error}");
            return Assigned::NoThread;
        }
        self.idle.extend((0..self.jobs).map(|_| worker.clone()));
        match self.give(ticket, job) {
            None => Assigned::Begun,
            Some(_) => Assigned::NoThread,
        }
    }

    /// Gives the job to an idle worker; gives it back where there is none.
    fn give(&mut self, ticket: Ticket, mut job: Job) -> Option<Job> {
        // A worker whose thread is gone, which only a defect of ours brings about, is passed by.
        while let Some(worker) = self.idle.pop() {
            let slot = Slot::new(job);
            if worker.send((ticket, slot.clone())).is_ok() {
                let since = Instant::now();
                let busy = Busy {
                    worker,
                    slot,
                    since,
                };
                self.busy.insert(ticket, busy);
                return None;
            }
            job = slot.take()?;
        }
        Some(job)
    }

    /// The last reply to a job came: its worker is free again, or ends where enough are. Returns the
    /// job that was waiting and is begun now.
    pub fn returned(&mut self, ticket: Ticket) -> Option<Ticket> {
        let worker = self.busy.remove(&ticket)?.worker;
        self.free(worker)
    }

    /// A worker from which the job was taken back is connected at last, or cannot be: `connected`.
    pub fn let_in(&mut self, ticket: Ticket, connected: bool) -> Option<Ticket> {
        let worker = self.outside.remove(&ticket)?;
        connected.then(|| self.free(worker))?
    }

    fn free(&mut self, worker: Worker) -> Option<Ticket> {
        if self.idle.len() < self.size * self.jobs || !self.waiting.is_empty() {
            self.idle.push(worker);
        }
        let (ticket, job) = self.waiting.pop_front()?;
        match self.give(ticket, job) {
            None => Some(ticket),
            Some(job) => {
                self.waiting.push_front((ticket, job));
                None
            }
        }
    }

    /// When a job will have waited for `patience` for its worker's connection while another worker
    /// has one: then [`Crew::recall`] wants to be called.
    pub fn recall_at(&self, patience: Duration) -> Option<Instant> {
        let mut connected = !self.idle.is_empty();
        let mut oldest: Option<Instant> = None;
        for busy in self.busy.values() {
            if busy.slot.is_taken() {
                connected = true;
            } else {
                oldest = Some(oldest.map_or(busy.since, |at| at.min(busy.since)));
            }
        }
        oldest.filter(|_| connected).map(|at| at + patience)
    }

    /// Takes the jobs back that have waited for so long for their worker's connection, and gives
    /// them to others. Returns those of them that wait on.
    pub fn recall(&mut self, now: Instant, patience: Duration) -> Vec<Ticket> {
        if self.recall_at(patience).is_none_or(|at| now < at) {
            return Vec::new();
        }
        let late = |busy: &Busy| now >= busy.since + patience;
        let late = self.busy.iter().filter(|(_, busy)| late(busy));
        let mut late: Vec<Ticket> = late.map(|(ticket, _)| *ticket).collect();
        late.sort_unstable();
        late.retain(|ticket| {
            let job = self.busy.get(ticket).and_then(|busy| busy.slot.take());
            let Some(job) = job else { return false };
            if let Some(busy) = self.busy.remove(ticket) {
                self.outside.insert(*ticket, busy.worker);
            }
            let left = self.give(*ticket, job);
            let waits = left.is_some();
            self.waiting.extend(left.map(|job| (*ticket, job)));
            waits
        });
        late
    }

    /// How many workers have a connection, and how many libvirtd has not let in.
    pub fn connections(&self) -> (usize, usize) {
        let taken = self.busy.values().filter(|busy| busy.slot.is_taken());
        (self.idle.len() + taken.count(), self.outside.len())
    }

    /// Nobody waits any more for the jobs that were not begun.
    pub fn forget_waiting(&mut self) -> Vec<Ticket> {
        self.waiting.drain(..).map(|(ticket, _)| ticket).collect()
    }
}

#[cfg(test)]
mod tests;
