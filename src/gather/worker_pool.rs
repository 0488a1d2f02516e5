//! The worker pool: the workers' threads, each with a connection of its own.
//!
//! A worker opens its connection when it is given its first job, and libvirtd may let it wait
//! (`max_clients`): it takes the job once it is in. Until then the job can be taken back and given to
//! a worker that has a connection.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::protocol::{CallId, WorkerConfig, WorkerRequest};
use super::worker::{self, Reply};
use crate::maps::{HashMap, HashSet};
use crate::threads;

/// Where workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// A job on its way to a worker that may still be opening its connection: it belongs to the one that takes it.
#[derive(Debug, Clone)]
pub struct Slot(Arc<Mutex<Option<WorkerRequest>>>);

impl Slot {
    fn new(request: WorkerRequest) -> Self {
        Self(Arc::new(Mutex::new(Some(request))))
    }

    /// The job, unless it was taken before.
    pub fn take(&self) -> Option<WorkerRequest> {
        self.request().take()
    }

    fn is_taken(&self) -> bool {
        self.request().is_none()
    }

    fn request(&self) -> MutexGuard<'_, Option<WorkerRequest>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A worker's number, and the way to it. The worker ends when no way is left.
#[derive(Debug, Clone)]
struct Worker {
    number: u64,
    jobs: Sender<(CallId, Slot)>,
}

/// Fewer connections than were wanted are to be had.
#[derive(Debug, Clone, Copy)]
struct Scarce {
    /// How many workers there are until then.
    most: usize,
    until: Instant,
}

/// A worker that libvirtd has not let in for so long waits because of `max_clients`.
const OUTSIDE: Duration = Duration::from_secs(5);
/// After so long more connections are tried again.
const SCARCE: Duration = Duration::from_secs(3600);
/// A worker that has been busy for so long with one job hangs.
const HANGS: Duration = Duration::from_secs(1);

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
    /// No more connections, or threads, are to be had: it waits for a worker that has one.
    Waits,
    /// There is no worker, and no thread can be had for one.
    NoThread,
}

/// The workers.
pub struct WorkerPool {
    config: Arc<WorkerConfig>,
    sink: Sink,
    /// How many stay when there is nothing to do,
    size: usize,
    /// and how many jobs each is given at a time.
    jobs: usize,
    /// A place for each job that could be given.
    idle: Vec<Worker>,
    busy: HashMap<CallId, Busy>,
    /// Workers that libvirtd has not let in yet, by number, and since when each waits.
    outside: HashMap<u64, (Worker, Instant)>,
    /// Jobs for the worker that is free next.
    waiting: VecDeque<(CallId, WorkerRequest)>,
    scarce: Option<Scarce>,
    /// The number of the next worker.
    next: u64,
    /// Where each worker reports its end, its connection closed.
    ended: (Sender<()>, Receiver<()>),
    /// Why no thread could be started for a worker.
    pub not_started: Option<String>,
}

impl WorkerPool {
    /// A worker pool of which `size` stay; their threads and connections come when they are needed. Each is
    /// given so many `jobs` at a time: the second is at hand when the first is done.
    pub fn new(config: WorkerConfig, size: usize, jobs: usize, sink: Sink) -> Self {
        Self {
            config: Arc::new(config),
            sink,
            size,
            jobs,
            idle: Vec::new(),
            busy: HashMap::default(),
            outside: HashMap::default(),
            waiting: VecDeque::new(),
            scarce: None,
            next: 0,
            ended: channel(),
            not_started: None,
        }
    }

    /// A gather begins. A daemon that has let in fewer workers than were wanted is left one of its
    /// connections for others: `virsh` would wait for as long as we are there.
    pub fn begin(&mut self, now: Instant) {
        self.scarce.take_if(|scarce| now >= scarce.until);
        self.not_started = None;
        let (connected, _) = self.connections();
        let kept_out = |(_, since): &(Worker, Instant)| now >= *since + OUTSIDE;
        if connected > 0 && self.outside.values().any(kept_out) {
            // They end once they are let in.
            self.outside.clear();
            let most = connected.saturating_sub(1).max(1);
            let until = now + SCARCE;
            self.scarce = Some(Scarce { most, until });
            self.idle.truncate(most.saturating_sub(self.busy.len()));
        }
    }

    /// How many workers there may be, where libvirtd lets in fewer than were wanted.
    pub fn limited_to(&self) -> Option<usize> {
        self.scarce.map(|scarce| scarce.most)
    }

    /// Whether another worker would have to wait for its connection, or take the last one. One that
    /// hangs does not count: the others must go on.
    fn is_full(&self) -> bool {
        if !self.outside.is_empty() {
            return true;
        }
        let now = Instant::now();
        let works = |busy: &&Busy| now < busy.since + HANGS;
        let at_work = self.busy.values().filter(works).count();
        self.scarce.is_some_and(|scarce| at_work >= scarce.most)
    }

    /// Gives the job to an idle worker, or to a new one.
    pub fn assign(&mut self, call_id: CallId, request: WorkerRequest) -> Assigned {
        let Some(request) = self.give(call_id, request) else {
            return Assigned::Begun;
        };
        if self.is_full() && !self.busy.is_empty() {
            return self.wait(call_id, request);
        }
        let (jobs, inbox) = channel();
        let number = self.next;
        self.next += 1;
        let config = Arc::clone(&self.config);
        let sink = Arc::clone(&self.sink);
        let ended = self.ended.0.clone();
        let work = move || {
            worker::run(number, &config, &inbox, &*sink);
            let _ = ended.send(());
        };
        if let Err(error) = threads::start("worker", work) {
            self.not_started = Some(error.to_string());
            // Those that are there serve.
            if self.busy.is_empty() {
                return Assigned::NoThread;
            }
            return self.wait(call_id, request);
        }
        self.not_started = None;
        let worker = Worker { number, jobs };
        self.idle.extend((0..self.jobs).map(|_| worker.clone()));
        match self.give(call_id, request) {
            None => Assigned::Begun,
            Some(_) => Assigned::NoThread,
        }
    }

    /// Keeps the job for the next worker that is free.
    fn wait(&mut self, call_id: CallId, request: WorkerRequest) -> Assigned {
        match request.kind().is_priority() {
            true => self.waiting.push_front((call_id, request)),
            false => self.waiting.push_back((call_id, request)),
        }
        Assigned::Waits
    }

    /// Gives the job to an idle worker; gives it back where there is none.
    fn give(&mut self, call_id: CallId, mut request: WorkerRequest) -> Option<WorkerRequest> {
        // A worker whose thread is gone, which only a defect of ours brings about, is passed by.
        while let Some(worker) = self.idle.pop() {
            let slot = Slot::new(request);
            if worker.jobs.send((call_id, slot.clone())).is_ok() {
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

    /// The last reply to a job came: its worker is free again, or ends where enough are. Returns the
    /// job that was waiting and is begun now.
    pub fn returned(&mut self, call_id: CallId) -> Option<CallId> {
        let worker = self.busy.remove(&call_id)?.worker;
        self.free(worker)
    }

    /// The worker of this number, from which the job was taken back, is connected at last, or cannot
    /// be: `connected`.
    pub fn let_in(&mut self, number: u64, connected: bool) -> Option<CallId> {
        let (worker, _) = self.outside.remove(&number)?;
        connected.then(|| self.free(worker))?
    }

    fn free(&mut self, worker: Worker) -> Option<CallId> {
        let size = self.size * self.jobs;
        let room = self.scarce.map_or(size, |scarce| {
            size.min(scarce.most.saturating_sub(self.busy.len()))
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

    /// When a job will have waited for `patience` for its worker's connection while another worker
    /// has one: then [`WorkerPool::recall`] wants to be called.
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
    /// them to others. Returns them, and whether each is begun now.
    pub fn recall(&mut self, now: Instant, patience: Duration) -> Vec<(CallId, bool)> {
        let late = self.take_back(now, patience).into_iter();
        let again = late.map(|(call_id, request)| match self.give(call_id, request) {
            None => (call_id, true),
            Some(request) => {
                self.waiting.push_back((call_id, request));
                (call_id, false)
            }
        });
        again.collect()
    }

    /// The jobs that have waited for so long while another worker has a connection, oldest first.
    fn take_back(&mut self, now: Instant, patience: Duration) -> Vec<(CallId, WorkerRequest)> {
        if self.recall_at(patience).is_none_or(|at| now < at) {
            return Vec::new();
        }
        let late = |busy: &Busy| now >= busy.since + patience;
        let late = self.busy.iter().filter(|(_, busy)| late(busy));
        let mut late: Vec<CallId> = late.map(|(call_id, _)| *call_id).collect();
        late.sort_unstable();
        let take = |call_id: CallId| {
            let request = self.busy.get(&call_id)?.slot.take()?;
            let Busy { worker, since, .. } = self.busy.remove(&call_id)?;
            self.outside.insert(worker.number, (worker, since));
            Some((call_id, request))
        };
        late.into_iter().filter_map(take).collect()
    }

    /// How many workers have a connection, and how many libvirtd has not let in.
    pub fn connections(&self) -> (usize, usize) {
        let taken = self.busy.values().filter(|busy| busy.slot.is_taken());
        (self.idle.len() + taken.count(), self.outside.len())
    }

    /// A job that waits is not to be begun any more.
    pub fn withdraw(&mut self, call_id: CallId) {
        self.waiting.retain(|(waiting, _)| *waiting != call_id);
    }

    /// Nobody waits any more for the jobs that were not begun.
    pub fn forget_waiting(&mut self) -> Vec<CallId> {
        // A worker that is given two has the second at hand and is not outside.
        let mut unbegun = match self.jobs {
            1 => self.take_back(Instant::now(), Duration::ZERO),
            _ => Vec::new(),
        };
        unbegun.extend(self.waiting.drain(..));
        unbegun.into_iter().map(|(call_id, _)| call_id).collect()
    }

    /// Ends the workers that have nothing to do, and waits until their connections are closed, until
    /// `limit` at the longest: libvirtd logs a connection that just breaks off.
    pub fn close(&mut self, limit: Instant) {
        let idle: HashSet<u64> = self.idle.iter().map(|worker| worker.number).collect();
        while self.ended.1.try_recv().is_ok() {}
        self.idle.clear();
        for _ in idle {
            let patience = limit.saturating_duration_since(Instant::now());
            if self.ended.1.recv_timeout(patience).is_err() {
                return;
            }
        }
    }
}

#[cfg(test)]
mod tests;
