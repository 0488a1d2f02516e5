//! The crew: the workers' threads, each with a connection of its own.
//!
//! A worker opens its connection when it is given its first job, and libvirtd may let it wait
//! (`max_clients`): it takes the job once it is in. Until then the job can be taken back and given to
//! a worker that has a connection.

use std::collections::VecDeque;
use std::sync::mpsc::{Sender, channel};
use std::sync::{Arc, Mutex, PoisonError};
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
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }

    fn is_taken(&self) -> bool {
        self.0
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .is_none()
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
mod tests {
    use std::sync::mpsc::Receiver;
    use std::thread::sleep;

    use super::*;
    use crate::config::Measurements;
    use crate::gather::engine::Scope;
    use crate::gather::examples::{Frozen, LIMIT, inbox, settings};
    use crate::gather::job::Answer;
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
            assert_eq!(crew.assign(ticket, Job::List), Assigned::Begun);
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
        assert_eq!(crew.assign(1, nobody()), Assigned::Begun);
        assert_eq!(crew.assign(2, nobody()), Assigned::Begun);
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
        assert_eq!(crew.assign(1, nobody()), Assigned::Begun);
        assert_eq!(counts(&crew), (1, 1));
        assert_eq!(crew.assign(2, nobody()), Assigned::Begun);
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
            assert_eq!(crew.assign(ticket, Job::List), Assigned::Begun);
        }
        let tickets = [1, 2].map(|_| replies.recv_timeout(LIMIT).unwrap().ticket);
        assert_eq!(tickets, [1, 2]);
    }

    #[test]
    fn who_comes_back_where_enough_are_free_goes() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 2);
        for ticket in 1..=4 {
            assert_eq!(crew.assign(ticket, nobody()), Assigned::Begun);
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
        assert_eq!(crew.assign(7, Job::List), Assigned::Begun);
        assert_eq!(counts(&crew), (1, 0));
        assert_eq!(replies.recv_timeout(LIMIT).unwrap().ticket, 7);
    }

    #[test]
    fn a_ticket_of_nobody_changes_nothing() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 1);
        assert_eq!(crew.assign(1, nobody()), Assigned::Begun);
        crew.returned(99);
        assert_eq!(counts(&crew), (1, 0));
    }

    /// A crew with one worker that is connected, and one that waits for a daemon.
    fn half_let_in(frozen: &Frozen) -> (Crew, Receiver<Reply>) {
        let (mut crew, replies) = crew("test:///default", 4);
        assert_eq!(crew.assign(1, Job::List), Assigned::Begun);
        assert_eq!(replies.recv_timeout(LIMIT).unwrap().ticket, 1);
        // The next worker is to open another connection.
        let mut brief = Brief::clone(&crew.brief);
        brief.uri = frozen.uri();
        crew.brief = Arc::new(brief);
        let connected = crew.busy.remove(&1).unwrap().worker;
        assert_eq!(crew.assign(2, Job::List), Assigned::Begun);
        let slot = Slot::new(Job::List);
        slot.take();
        crew.busy.insert(
            1,
            Busy {
                worker: connected,
                slot,
                since: Instant::now(),
            },
        );
        (crew, replies)
    }

    #[test]
    fn a_job_that_waits_for_a_connection_goes_to_a_worker_that_has_one() {
        let frozen = Frozen::start();
        let (mut crew, replies) = half_let_in(&frozen);
        let now = Instant::now();
        assert!(crew.recall_at(LIMIT).is_some_and(|at| at > now));
        assert_eq!(crew.recall(now, LIMIT), [0; 0], "not yet");
        assert_eq!(crew.recall(now + LIMIT, LIMIT), [2], "the other is busy");
        assert_eq!(crew.connections(), (1, 1));
        assert_eq!(crew.assign(3, Job::Describe(vec![])), Assigned::Waits);
        assert_eq!(crew.assign(4, Job::Probe(vec![])), Assigned::Waits);
        // What libvirtd's priority workers serve goes first.
        let begun = [1, 4, 2].map(|ticket| crew.returned(ticket));
        assert_eq!(begun, [Some(4), Some(2), Some(3)]);
        let mut last = None;
        while last != Some(3) {
            let reply = replies.recv_timeout(LIMIT).unwrap();
            assert!(reply.result.is_ok(), "{reply:?}");
            last = Some(reply.ticket);
        }
        assert_eq!(crew.returned(3), None);
        // The daemon goes: whoever waited learns so, and nothing is said of the job.
        drop(frozen);
        let reply = replies.recv_timeout(LIMIT).unwrap();
        assert_eq!(reply.ticket, 2);
        assert!(matches!(reply.result, Ok(Answer::Outside)), "{reply:?}");
        assert_eq!(crew.let_in(2, false), None);
        assert_eq!(crew.connections(), (1, 0));
    }

    #[test]
    fn a_worker_that_is_let_in_takes_what_waits() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = half_let_in(&frozen);
        assert_eq!(crew.recall(Instant::now() + LIMIT, LIMIT), [2]);
        assert_eq!(crew.let_in(2, true), Some(2));
        assert_eq!(crew.assign(5, Job::List), Assigned::Begun, "by a new one");
    }

    #[test]
    fn where_nobody_has_a_connection_nothing_is_taken_back() {
        let frozen = Frozen::start();
        let (mut crew, _replies) = crew(&frozen.uri(), 4);
        assert_eq!(crew.assign(1, Job::List), Assigned::Begun);
        assert_eq!(crew.recall_at(Duration::ZERO), None);
        assert_eq!(crew.recall(Instant::now(), Duration::ZERO), [0; 0]);
        assert_eq!(crew.connections(), (0, 0));
    }
}
