//! What is asked beside the gather: shut-off VMs, the node, and storage pools.
//!
//! Each of the three has a worker, with a connection of its own and one request at a time. A gather sends a request to each
//! worker that is due and idle. One that has not answered gets no further request, so at most one of its calls is ever in
//! libvirtd, and it is not waited for. The scheduler knows nothing of it: whatever hangs here costs the VMs nothing.

mod handle;
mod inactive;
mod node;
mod pools;
mod protocol;
mod worker;

use std::sync::Arc;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use crate::config::Settings;
use crate::threads::NotStarted;
use crate::times::{CONNECTIONS_SCARCE, NOT_LET_IN, WORKER_HANGS};
use handle::{Ask, Worker};
use worker::Told;

pub use inactive::InactiveVm;
pub use node::NodeFigures;
pub use pools::{HangingCall, MOST_HANGING, Pool};
pub use protocol::{Fares, Found, InventoryOverview, InventoryReport, Part, Reply, Sink};

/// The workers that the configuration needs.
pub struct Inventory {
    inactive: Option<Worker>,
    node: Option<Worker>,
    pools: Option<Worker>,
    hanging: Vec<HangingCall>,
    /// The last reply, until it was written.
    inactive_vms: Option<Vec<InactiveVm>>,
    found: Found,
    overview: InventoryOverview,
    /// Until when nothing is asked, because libvirtd lets in too few connections.
    closed_until: Option<Instant>,
    /// When requests were last sent.
    asked_at: Option<Instant>,
    /// Each thread holds a sender, which it drops when its connection is closed.
    threads: Option<(Sender<()>, Receiver<()>)>,
}

impl Inventory {
    /// `sink` takes the replies; they come back through [`Inventory::on_reply`]. Threads start and connections are opened
    /// when they are needed.
    pub fn new(settings: &Settings, sink: Sink) -> Self {
        let uri: Arc<str> = settings.uri.value.as_str().into();
        let threads = channel();
        let measurements = &settings.measurements;
        let inactive = settings.needs_inactive().then(|| {
            let (uri, sink, thread) = (Arc::clone(&uri), Arc::clone(&sink), threads.0.clone());
            let names = settings.domains.clone();
            Worker::new(Duration::ZERO, move || {
                let names = names.clone();
                let session = move |connection| inactive::Session::new(connection, names.clone());
                let sink = Arc::clone(&sink);
                let tell = move |told| {
                    sink(match told {
                        Told::Begun => Reply::Begun(Part::Inactive),
                        Told::Ended(result) => Reply::Inactive(result),
                    });
                };
                asking(worker::start("inactive VMs", &uri, &thread, session, tell))
            })
        });
        let node = measurements.host.then(|| {
            let (uri, sink, thread) = (Arc::clone(&uri), Arc::clone(&sink), threads.0.clone());
            Worker::new(Duration::ZERO, move || {
                let sink = Arc::clone(&sink);
                let tell = move |told| {
                    sink(match told {
                        Told::Begun => Reply::Begun(Part::Node),
                        Told::Ended(result) => Reply::Node(result),
                    });
                };
                asking(worker::start(
                    "node",
                    &uri,
                    &thread,
                    node::Session::new,
                    tell,
                ))
            })
        });
        let pools = measurements.pools.then(|| {
            let (uri, sink, thread) = (Arc::clone(&uri), Arc::clone(&sink), threads.0.clone());
            Worker::new(settings.pool_interval, move || {
                let reader = pools::start(&uri, &thread, &sink)?;
                Ok(Box::new(move || reader.ask()))
            })
        });
        Self {
            inactive,
            node,
            pools,
            hanging: Vec::new(),
            inactive_vms: None,
            found: Found::default(),
            overview: InventoryOverview::default(),
            closed_until: None,
            asked_at: None,
            threads: Some(threads),
        }
    }

    fn workers(&self) -> impl Iterator<Item = &Worker> {
        [&self.inactive, &self.node, &self.pools]
            .into_iter()
            .flatten()
    }

    fn workers_mut(&mut self) -> impl Iterator<Item = &mut Worker> {
        [&mut self.inactive, &mut self.node, &mut self.pools]
            .into_iter()
            .flatten()
    }

    /// Another gather begins. `is_scarce`: libvirtd lets in fewer connections than the gather wants; `answered`: it answered
    /// the last gather.
    ///
    /// These workers come last: where one is not let in, they give up all their connections. A connection that waits is
    /// in the way of every later client (`virsh`). It is closed once libvirtd lets it in, for which the gather has to make
    /// room: returns whether it has to.
    pub fn begin(&mut self, is_scarce: bool, answered: bool) -> bool {
        if self.workers().next().is_none() {
            return false;
        }
        let now = Instant::now();
        self.closed_until.take_if(|until| now >= *until);
        let waits = |worker: &Worker| {
            let since = worker.asked.filter(|_| !worker.is_connected);
            since.is_some_and(|since| now >= since + NOT_LET_IN)
        };
        let is_not_let_in = answered && self.workers().any(waits);
        for worker in self.workers_mut() {
            worker.asked_in_this_gather = false;
            if is_scarce || is_not_let_in {
                worker.close();
            }
        }
        if is_scarce || is_not_let_in {
            self.closed_until.get_or_insert(now + CONNECTIONS_SCARCE);
        }
        is_not_let_in
    }

    /// Sends a request to each worker that is due and idle.
    pub fn ask(&mut self) {
        let now = Instant::now();
        if self.closed_until.is_some() {
            return;
        }
        self.asked_at = Some(now);
        for worker in self.workers_mut() {
            worker.ask(now);
        }
    }

    /// When requests were last sent.
    pub fn asked_at(&self) -> Option<Instant> {
        self.asked_at
    }

    /// How many calls do not return.
    pub fn hanging(&self) -> usize {
        let now = Instant::now();
        let hangs = |worker: &Option<Worker>| {
            let worker = worker.as_ref().filter(|it| it.is_connected);
            let asked = worker.and_then(|it| it.asked);
            asked.is_some_and(|asked| now >= asked + WORKER_HANGS)
        };
        let single = [&self.inactive, &self.node].into_iter();
        self.hanging.len() + single.filter(|it| hangs(it)).count()
    }

    /// Whether no reply to a request of this gather is missing.
    pub fn is_done(&self) -> bool {
        let waits = |worker: &Worker| worker.asked_in_this_gather && worker.asked.is_some();
        !self.workers().any(waits)
    }

    /// Takes a worker's reply.
    pub fn on_reply(&mut self, reply: Reply) {
        let (worker, failure) = match reply {
            Reply::Begun(part) => {
                let worker = match part {
                    Part::Inactive => &mut self.inactive,
                    Part::Node => &mut self.node,
                    Part::Pools => &mut self.pools,
                };
                if let Some(worker) = worker {
                    worker.is_connected = true;
                }
                return;
            }
            Reply::Pool(pool) => {
                self.found.pools.retain(|other| other.uuid != pool.uuid);
                self.found.pools.push(pool);
                return;
            }
            Reply::Pools(round) => {
                self.hanging = round.hanging;
                self.overview.pools = round.names.or(self.overview.pools.take());
                if !round.is_over {
                    return;
                }
                (&mut self.pools, round.failure)
            }
            Reply::Inactive(Ok(vms)) => {
                self.overview.inactive = Some(vms.len());
                self.inactive_vms = Some(vms);
                (&mut self.inactive, None)
            }
            Reply::Node(Ok(figures)) => {
                self.found.node = figures.info.or(self.found.node);
                self.found.free_memory = figures.free_memory;
                (&mut self.node, None)
            }
            Reply::Inactive(Err(failure)) => (&mut self.inactive, Some(failure)),
            Reply::Node(Err(failure)) => (&mut self.node, Some(failure)),
        };
        if let Some(worker) = worker {
            worker.answered(failure);
        }
    }

    /// Takes the shut-off VMs, if a reply came that was not taken yet.
    pub fn take_inactive(&mut self) -> Option<Vec<InactiveVm>> {
        self.inactive_vms.take()
    }

    /// Takes what else has come.
    pub fn take_found(&mut self) -> Found {
        Found {
            pools: std::mem::take(&mut self.found.pools),
            node: self.found.node,
            free_memory: self.found.free_memory.take(),
        }
    }

    /// How the workers fare.
    pub fn report(&self) -> InventoryReport {
        let now = Instant::now();
        let fares = |worker: &Option<Worker>| {
            let worker = worker.as_ref();
            Fares {
                silent: worker.and_then(|it| it.asked).map(|at| now - at),
                is_connected: worker.is_some_and(|it| it.is_connected),
                failure: worker.and_then(|it| it.failure.clone()),
            }
        };
        InventoryReport {
            inactive: fares(&self.inactive),
            node: fares(&self.node),
            pools: fares(&self.pools),
            hanging: self.hanging.clone(),
            not_started: self.workers().find_map(|it| it.not_started.clone()),
            is_closed: self.closed_until.is_some(),
        }
    }

    /// What has been found so far.
    pub fn overview(&self) -> InventoryOverview {
        self.overview.clone()
    }

    /// Ends the threads, and waits until their connections are closed, but not beyond `limit`.
    pub fn close(&mut self, limit: Instant) {
        (self.inactive, self.node, self.pools) = (None, None, None);
        if let Some((own, threads)) = self.threads.take() {
            drop(own);
            let patience = limit.saturating_duration_since(Instant::now());
            // Nothing is ever sent: the last thread's end disconnects it.
            let _: Result<(), RecvTimeoutError> = threads.recv_timeout(patience);
        }
    }
}

/// How many connections these settings need at the most.
pub fn connections(settings: &Settings) -> usize {
    let pools = match settings.measurements.pools {
        true => 1 + MOST_HANGING,
        false => 0,
    };
    usize::from(settings.needs_inactive()) + usize::from(settings.measurements.host) + pools
}

fn asking(started: Result<Sender<()>, NotStarted>) -> Result<Ask, NotStarted> {
    let requests = started?;
    Ok(Box::new(move || requests.send(()).is_ok()))
}

#[cfg(test)]
mod tests;
