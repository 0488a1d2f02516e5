//! The crew: the workers' threads, each with a connection of its own.

use std::collections::HashMap;
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::ledger::Ticket;
use super::worker::{self, Brief, Job, Reply};

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// The workers.
pub struct Crew {
    brief: Arc<Brief>,
    sink: Sink,
    /// How many stay when there is nothing to do.
    size: usize,
    idle: Vec<Sender<(Ticket, Job)>>,
    busy: HashMap<Ticket, Sender<(Ticket, Job)>>,
}

impl Crew {
    /// A crew of which `size` stay; their threads and connections come when they are needed.
    pub fn new(brief: Brief, size: usize, sink: Sink) -> Self {
        Self {
            brief: Arc::new(brief),
            sink,
            size,
            idle: Vec::new(),
            busy: HashMap::new(),
        }
    }

    /// Gives the job to somebody who is free, or who is taken on for it; `false` when no thread can
    /// be had.
    pub fn assign(&mut self, ticket: Ticket, mut job: Job) -> bool {
        // A worker whose thread is gone, which only a defect of ours brings about, is passed by.
        while let Some(worker) = self.idle.pop() {
            match worker.send((ticket, job)) {
                Ok(()) => {
                    self.busy.insert(ticket, worker);
                    return true;
                }
                Err(returned) => job = returned.0.1,
            }
        }
        let (worker, inbox) = channel();
        let brief = Arc::clone(&self.brief);
        let sink = Arc::clone(&self.sink);
        let thread = thread::Builder::new()
            .name("worker".into())
            .spawn(move || worker::run(&brief, &inbox, &*sink));
        if let Err(error) = thread {
            log::debug!("cannot start a thread: {error}");
            return false;
        }
        let sent = worker.send((ticket, job)).is_ok();
        self.busy.insert(ticket, worker);
        sent
    }

    /// The last reply to a job came: its worker is free again, or ends where enough are.
    pub fn returned(&mut self, ticket: Ticket) {
        if let Some(worker) = self.busy.remove(&ticket)
            && self.idle.len() < self.size
        {
            self.idle.push(worker);
        }
    }
}
