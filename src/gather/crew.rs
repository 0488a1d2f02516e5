//! The crew: the workers' threads, each with a connection of its own.

use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use super::job::{Brief, Job};
use super::ledger::Ticket;
use super::worker::{self, Reply};
use crate::maps::HashMap;

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// The workers.
pub struct Crew {
    brief: Arc<Brief>,
    sink: Sink,
    /// How many stay when there is nothing to do,
    size: usize,
    /// and how many jobs each is given at a time.
    jobs: usize,
    /// A place for each job that could be given.
    idle: Vec<Sender<(Ticket, Job)>>,
    busy: HashMap<Ticket, Sender<(Ticket, Job)>>,
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
        self.idle.extend((1..self.jobs).map(|_| worker.clone()));
        self.busy.insert(ticket, worker);
        sent
    }

    /// The last reply to a job came: its worker is free again, or ends where enough are.
    pub fn returned(&mut self, ticket: Ticket) {
        if let Some(worker) = self.busy.remove(&ticket)
            && self.idle.len() < self.size * self.jobs
        {
            self.idle.push(worker);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::Receiver;
    use std::thread::sleep;
    use std::time::{Duration, Instant};

    use super::*;
    use crate::config::Measurements;
    use crate::gather::engine::Scope;
    use crate::gather::examples::{Frozen, LIMIT, inbox, settings};
    use crate::libvirt::bulk::Groups;
    use crate::sample::Wanted;

    fn crew(uri: &str, size: usize) -> (Crew, Receiver<Reply>) {
        crew_with(uri, size, 1)
    }

    fn crew_with(uri: &str, size: usize, jobs: usize) -> (Crew, Receiver<Reply>) {
        let settings = settings(uri);
        let brief = Brief {
            uri: uri.to_owned(),
            groups: Groups::needed(&Measurements {
                features: false,
                devices: false,
                totals: false,
                ..settings.measurements
            }),
            info: true,
            wanted: Wanted::new(&settings),
        };
        let (sink, replies) = inbox();
        (Crew::new(brief, size, jobs, sink), replies)
    }

    fn nobody() -> Job {
        Job::Ask {
            targets: Vec::new(),
            scope: Scope::Full,
            active: 0,
        }
    }

    impl Crew {
        /// The jobs that have not come back, in no order.
        pub(in crate::gather) fn busy(&self) -> Vec<Ticket> {
            self.busy.keys().copied().collect()
        }
    }

    fn counts(crew: &Crew) -> (usize, usize) {
        (crew.busy.len(), crew.idle.len())
    }

    #[test]
    fn a_worker_is_taken_on_when_it_is_needed_and_kept() {
        let (mut crew, replies) = crew("test:///default", 4);
        assert_eq!(counts(&crew), (0, 0));
        for ticket in 0..3 {
            assert!(crew.assign(ticket, Job::List));
            assert_eq!(counts(&crew), (1, 0));
            let reply = replies.recv_timeout(LIMIT).unwrap();
            assert_eq!(reply.ticket, ticket);
            crew.returned(ticket);
            assert_eq!(counts(&crew), (0, 1));
        }
    }

    #[test]
    fn a_job_goes_to_nobody_whose_call_hangs() {
        let frozen = Frozen::start();
        let (mut crew, replies) = crew(&frozen.uri(), 1);
        assert!(crew.assign(1, nobody()));
        assert!(crew.assign(2, nobody()));
        assert_eq!(counts(&crew), (2, 0), "a fresh worker for the second");
        let until = Instant::now() + LIMIT;
        let mut standing = 0;
        while standing < 2 && Instant::now() < until {
            assert!(replies.recv_timeout(Duration::from_millis(20)).is_err());
            standing += frozen.waiting();
        }
        assert_eq!(standing, 2, "each on a connection of its own");
    }

    #[test]
    fn one_worker_has_the_second_job_at_hand() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew_with(&frozen.uri(), 1, 2);
        assert!(crew.assign(1, nobody()));
        assert_eq!(counts(&crew), (1, 1));
        assert!(crew.assign(2, nobody()));
        assert_eq!(counts(&crew), (2, 0));
        sleep(Duration::from_millis(300));
        assert_eq!(frozen.waiting(), 1, "one connection");
        crew.returned(1);
        crew.returned(2);
        assert_eq!(counts(&crew), (0, 2));
    }

    #[test]
    fn jobs_come_back_in_their_order() {
        let (mut crew, replies) = crew_with("test:///default", 1, 2);
        for ticket in [1, 2] {
            assert!(crew.assign(ticket, Job::List));
        }
        let tickets = [1, 2].map(|_| replies.recv_timeout(LIMIT).unwrap().ticket);
        assert_eq!(tickets, [1, 2]);
    }

    #[test]
    fn who_comes_back_where_enough_are_free_goes() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 2);
        for ticket in 1..=4 {
            assert!(crew.assign(ticket, nobody()));
        }
        let mut after = Vec::new();
        for ticket in 1..=4 {
            crew.returned(ticket);
            after.push(counts(&crew));
        }
        assert_eq!(after, [(3, 1), (2, 2), (1, 2), (0, 2)]);
    }

    #[test]
    fn a_worker_whose_thread_is_gone_is_passed_by() {
        let (mut crew, replies) = crew("test:///default", 2);
        let (gone, _) = channel();
        crew.idle.push(gone);
        assert!(crew.assign(7, Job::List));
        assert_eq!(counts(&crew), (1, 0));
        assert_eq!(replies.recv_timeout(LIMIT).unwrap().ticket, 7);
    }

    #[test]
    fn a_ticket_of_nobody_changes_nothing() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        assert!(crew.assign(1, nobody()));
        crew.returned(99);
        assert_eq!(counts(&crew), (1, 0));
    }
}
