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

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::time::Duration;

    use super::*;
    use crate::config::Measurements;
    use crate::gather::examples::{Frozen, LIMIT, inbox, settings};
    use crate::libvirt::bulk::Groups;
    use crate::sample::Wanted;

    fn crew(uri: &str, size: usize) -> (Crew, Receiver<Reply>) {
        let settings = settings(uri);
        let brief = Brief {
            uri: uri.to_owned(),
            groups: Groups::needed(&Measurements {
                metrics: true,
                features: false,
                devices: false,
                totals: false,
            }),
            wanted: Wanted::new(&settings),
        };
        let (sink, replies) = inbox();
        (Crew::new(brief, size, sink), replies)
    }

    fn nobody() -> Job {
        Job::Chunk {
            targets: Vec::new(),
            active: 0,
        }
    }

    #[test]
    fn a_worker_is_taken_on_when_it_is_needed_and_kept() {
        let (mut crew, replies) = crew("test:///default", 4);
        assert!(crew.members.is_empty());
        for ticket in 0..3 {
            assert_eq!(crew.assign(Job::List), Some(ticket));
            assert!(crew.list_hangs());
            let reply = replies.recv_timeout(LIMIT).unwrap();
            assert_eq!(reply.ticket, ticket);
            crew.returned(ticket);
            assert!(!crew.list_hangs());
            assert_eq!(crew.members.len(), 1);
        }
    }

    #[test]
    fn no_more_work_at_once_than_the_crew_is_large() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 2);
        assert!(crew.assign(nobody()).is_some());
        assert!(crew.has_free());
        assert!(crew.assign(nobody()).is_some());
        assert!(!crew.has_free());
        assert_eq!(crew.assign(nobody()), None);
        assert_eq!(crew.hanging(), 0, "this gather's calls do not hang yet");
    }

    #[test]
    fn a_job_goes_to_nobody_whose_call_hangs() {
        let frozen = Frozen::start();
        let (mut crew, replies) = crew(&frozen.uri(), 1);
        let first = crew.assign(nobody()).unwrap();
        assert!(!crew.has_free());
        crew.set_aside();
        assert_eq!(crew.hanging(), 1);
        let second = crew.assign(nobody()).unwrap();
        assert_ne!(first, second);
        assert_eq!(crew.members.len(), 2, "a fresh worker took the place");
        assert!(replies.recv_timeout(Duration::from_millis(200)).is_err());
        // The place is taken, so who comes back late goes.
        crew.returned(first);
        assert_eq!((crew.members.len(), crew.hanging()), (1, 0));
        crew.returned(second);
        assert_eq!(crew.members.len(), 1);
        assert!(crew.has_free());
    }

    #[test]
    fn who_comes_back_to_an_empty_place_stays() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        let first = crew.assign(nobody()).unwrap();
        crew.set_aside();
        crew.returned(first);
        assert_eq!((crew.members.len(), crew.hanging()), (1, 0));
    }

    #[test]
    fn calls_are_capped_and_a_large_crew_has_its_own_cap() {
        let frozen = Frozen::start();
        for (size, cap) in [(3, CAP), (10, 10)] {
            let (mut crew, _replies) = crew(&frozen.uri(), size);
            for _ in 0..10 {
                while crew.assign(nobody()).is_some() {}
                crew.set_aside();
            }
            assert_eq!(crew.members.len(), cap);
            assert_eq!(crew.hanging(), cap);
        }
    }

    #[test]
    fn a_ticket_of_nobody_changes_nothing() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        crew.assign(nobody()).unwrap();
        crew.returned(99);
        assert!(!crew.has_free());
    }
}
