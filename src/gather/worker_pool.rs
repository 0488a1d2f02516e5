//! The worker pool: the workers' threads, each with a connection of its own.
//!
//! A worker opens its connection when it is given its first request, and libvirtd may let it wait
//! (`max_clients`). It takes the request once it is connected; until then the request can be taken
//! back and given to a worker that has a connection.

mod recall;
mod slot;

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::Instant;

use super::protocol::{CallId, WorkerConfig, WorkerRequest};
use super::worker::{self, Reply};
use crate::maps::{HashMap, HashSet};
use crate::threads;
use crate::times::{CONNECTIONS_SCARCE, WORKER_HANGS};
use crate::uri;
pub use slot::Slot;

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// A worker. Its thread ends when all senders are dropped.
#[derive(Debug, Clone)]
struct Worker {
    number: u64,
    requests: Sender<(CallId, Slot)>,
}

/// A worker that libvirtd has not let in yet, and whose request was taken back.
#[derive(Debug)]
struct NotLetIn {
    worker: Worker,
    /// When libvirtd first answered another worker since then. Until it does, it may be frozen, and answers nobody.
    answered: Option<Instant>,
}

/// libvirtd allows fewer connections than were wanted.
#[derive(Debug, Clone, Copy)]
struct Scarce {
    /// The most workers that are kept.
    most: usize,
    /// When more connections are tried again.
    until: Instant,
}

impl Scarce {
    /// One of those that are connected now is left to others.
    fn after(connected: usize, now: Instant) -> Self {
        Self {
            most: connected.saturating_sub(1).max(1),
            until: now + CONNECTIONS_SCARCE,
        }
    }
}

/// A worker with a request.
#[derive(Debug)]
struct Busy {
    worker: Worker,
    slot: Slot,
    since: Instant,
}

/// What became of a request.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Assigned {
    /// A worker has it.
    Begun,
    /// No more connections, or threads, are to be had: it waits for a worker that is connected.
    Waits,
    /// There is no worker, and no thread can be had for one.
    NoThread,
}

/// The workers.
pub struct WorkerPool {
    config: Arc<WorkerConfig>,
    sink: Sink,
    /// How many workers are kept when there is nothing to do.
    size: usize,
    /// How many requests each worker is given at a time.
    requests_each: usize,
    /// The workers that can be given requests, each as often as it can be given one.
    idle: Vec<Worker>,
    busy: HashMap<CallId, Busy>,
    /// By number.
    not_let_in: HashMap<u64, NotLetIn>,
    /// Requests for the worker that is free next.
    waiting: VecDeque<(CallId, WorkerRequest)>,
    scarce: Option<Scarce>,
    /// The number of the next worker.
    next: u64,
    /// Where each worker reports its end, after its connection is closed, and whether that was alive ([`worker::run`]).
    ended: (Sender<bool>, Receiver<bool>),
    /// Why no thread could be started for a worker.
    pub not_started: Option<String>,
    /// Whether the next worker that is idle reports what its connection leads to.
    pub reads_versions: Arc<AtomicBool>,
}

impl WorkerPool {
    /// A pool that keeps `size` workers. Their threads are started and their connections opened when
    /// they are needed. Each worker is given `requests_each` at a time: it has the second at hand when
    /// the first is done.
    pub fn new(config: WorkerConfig, size: usize, requests_each: usize, sink: Sink) -> Self {
        Self {
            config: Arc::new(config),
            sink,
            size,
            requests_each,
            idle: Vec::new(),
            busy: HashMap::default(),
            not_let_in: HashMap::default(),
            waiting: VecDeque::new(),
            scarce: None,
            next: 0,
            ended: channel(),
            not_started: None,
            reads_versions: Arc::default(),
        }
    }

    /// A gather begins.
    pub fn begin(&mut self, now: Instant) {
        self.scarce.take_if(|scarce| now >= scarce.until);
        self.not_started = None;
        self.leave_room(now);
    }

    /// When [`WorkerPool::leave_room`] is to be called.
    pub fn leave_room_at(&self) -> Option<Instant> {
        let (connected, _) = self.connections();
        let answered = self.not_let_in.values().filter_map(|one| one.answered);
        let answered = answered.min().filter(|_| connected > 0)?;
        Some(answered + uri::not_let_in(&self.config.uri))
    }

    /// If libvirtd has let in fewer workers than were wanted, one of its connections is left to others: `virsh` would otherwise
    /// wait for as long as this program runs.
    pub fn leave_room(&mut self, now: Instant) {
        if self.leave_room_at().is_some_and(|at| now >= at) {
            self.make_room(now);
        }
    }

    /// One connection fewer is used from now on.
    pub fn make_room(&mut self, now: Instant) {
        // They end once libvirtd lets them in.
        self.not_let_in.clear();
        let (connected, _) = self.connections();
        let most = self.scarce.insert(Scarce::after(connected, now)).most;
        self.idle.truncate(most.saturating_sub(self.at_work()));
    }

    /// A connection was lost, so libvirtd may have been restarted with another configuration: more connections are tried again.
    pub fn try_more(&mut self) {
        self.scarce = None;
    }

    /// The most workers there may be, where libvirtd lets in fewer than were wanted.
    pub fn limited_to(&self, now: Instant) -> Option<usize> {
        let scarce = self.scarce.filter(|scarce| now < scarce.until);
        scarce.map(|scarce| scarce.most)
    }

    /// Whether another worker would have to wait for its connection, or would take the last one. A
    /// worker that hangs does not count: the others must go on.
    fn is_full(&self) -> bool {
        if !self.not_let_in.is_empty() {
            return true;
        }
        let at_work = self.at_work();
        self.scarce.is_some_and(|scarce| at_work >= scarce.most)
    }

    /// The number of workers that are busy, and do not hang.
    fn at_work(&self) -> usize {
        let now = Instant::now();
        let is_working = |busy: &&Busy| now < busy.since + WORKER_HANGS;
        self.busy.values().filter(is_working).count()
    }

    /// When [`WorkerPool::start_waiting`] is to be called: a request waits, and a worker that will hang then makes room for
    /// another.
    pub fn hangs_at(&self) -> Option<Instant> {
        let now = Instant::now();
        let hangs = self.busy.values().map(|busy| busy.since + WORKER_HANGS);
        let next = hangs.filter(|at| *at > now).min();
        next.filter(|_| !self.waiting.is_empty())
    }

    /// Starts workers for requests that wait, if there is room for them. Returns the calls that are begun.
    pub fn start_waiting(&mut self) -> Vec<CallId> {
        let mut begun = Vec::new();
        while !self.waiting.is_empty() && !self.is_full() && self.start() {
            while let Some((call_id, request)) = self.waiting.pop_front() {
                if let Some(request) = self.give(call_id, request) {
                    self.waiting.push_front((call_id, request));
                    break;
                }
                begun.push(call_id);
            }
        }
        begun
    }

    /// Assigns the request to an idle worker, starting one if needed.
    pub fn assign(&mut self, call_id: CallId, request: WorkerRequest) -> Assigned {
        let Some(request) = self.give(call_id, request) else {
            return Assigned::Begun;
        };
        if self.is_full() && !self.busy.is_empty() {
            return self.wait(call_id, request);
        }
        if !self.start() {
            // The workers that are there must do.
            return match self.busy.is_empty() {
                true => Assigned::NoThread,
                false => self.wait(call_id, request),
            };
        }
        match self.give(call_id, request) {
            None => Assigned::Begun,
            Some(_) => Assigned::NoThread,
        }
    }

    /// Starts a worker; `false` if there is no thread for it.
    fn start(&mut self) -> bool {
        let (requests, inbox) = channel();
        let number = self.next;
        let reads_versions = Arc::clone(&self.reads_versions);
        self.next += 1;
        let config = Arc::clone(&self.config);
        let sink = Arc::clone(&self.sink);
        let ended = self.ended.0.clone();
        let work = move || {
            let answered = worker::run(number, &config, &reads_versions, &inbox, &*sink);
            let _ = ended.send(answered);
        };
        if let Err(error) = threads::start("worker", work) {
            self.not_started = Some(error.to_string());
            return false;
        }
        self.not_started = None;
        let worker = Worker { number, requests };
        let places = (0..self.requests_each).map(|_| worker.clone());
        self.idle.extend(places);
        true
    }

    /// Keeps the request for the next worker that is free.
    fn wait(&mut self, call_id: CallId, request: WorkerRequest) -> Assigned {
        match request.kind().is_priority() {
            true => self.waiting.push_front((call_id, request)),
            false => self.waiting.push_back((call_id, request)),
        }
        Assigned::Waits
    }

    /// Gives the request to an idle worker; returns it where there is none.
    fn give(&mut self, call_id: CallId, mut request: WorkerRequest) -> Option<WorkerRequest> {
        // A worker whose thread has ended, which only a defect of this program brings about, is skipped.
        while let Some(worker) = self.idle.pop() {
            let slot = Slot::new(request);
            if worker.requests.send((call_id, slot.clone())).is_ok() {
                let since = Instant::now();
                let busy = Busy {
                    worker,
                    slot,
                    since,
                };
                self.busy.insert(call_id, busy);
                return None;
            }
            request = slot.take()?;
        }
        Some(request)
    }

    /// The last reply to a request came: its worker is free again, or ends where there are enough.
    /// Returns the call that was waiting and is begun now.
    pub fn returned(&mut self, call_id: CallId) -> Option<CallId> {
        let worker = self.busy.remove(&call_id)?.worker;
        self.free(worker)
    }

    /// libvirtd has answered a worker.
    pub fn answered(&mut self, now: Instant) {
        for one in self.not_let_in.values_mut() {
            one.answered.get_or_insert(now);
        }
    }

    /// The worker of this number, from which the request was taken back, is connected at last, or
    /// cannot be (`connected`). Returns the call that was waiting and is begun now.
    pub fn let_in(&mut self, number: u64, connected: bool) -> Option<CallId> {
        let NotLetIn { worker, .. } = self.not_let_in.remove(&number)?;
        connected.then(|| self.free(worker))?
    }

    fn free(&mut self, worker: Worker) -> Option<CallId> {
        let size = self.size * self.requests_each;
        let room = self.scarce.map_or(size, |scarce| {
            size.min(scarce.most.saturating_sub(self.at_work()))
        });
        if self.idle.len() < room || !self.waiting.is_empty() {
            self.idle.push(worker);
        }
        let (call_id, request) = self.waiting.pop_front()?;
        match self.give(call_id, request) {
            None => Some(call_id),
            Some(request) => {
                self.waiting.push_front((call_id, request));
                None
            }
        }
    }

    /// The number of workers that have a connection, and of those that libvirtd has not let in.
    pub fn connections(&self) -> (usize, usize) {
        let taken = self.busy.values().filter(|busy| busy.slot.is_taken());
        (self.idle.len() + taken.count(), self.not_let_in.len())
    }

    /// A request that waits for a worker is not to be begun any more.
    pub fn withdraw(&mut self, call_id: CallId) {
        self.waiting.retain(|(waiting, _)| *waiting != call_id);
    }

    /// Ends the idle workers and waits until their connections are closed, but not beyond `limit`:
    /// libvirtd logs a connection that just breaks off. Returns whether the daemon answered;
    /// `false` also where no worker was connected and idle.
    pub fn close(&mut self, limit: Instant) -> bool {
        let idle: HashSet<u64> = self.idle.iter().map(|worker| worker.number).collect();
        while self.ended.1.try_recv().is_ok() {}
        self.idle.clear();
        let mut answered = false;
        for _ in idle {
            let patience = limit.saturating_duration_since(Instant::now());
            match self.ended.1.recv_timeout(patience) {
                Ok(of_worker) => answered |= of_worker,
                Err(_) => break,
            }
        }
        answered
    }
}

#[cfg(test)]
mod tests;
