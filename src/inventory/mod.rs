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
use crate::times::{CONNECTIONS_SCARCE, WORKER_HANGS};
use crate::uri;
use handle::{Ask, Order, Worker};
use worker::{Shared, Told};

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
    /// libvirtd lets in fewer connections than the gather wants.
    is_scarce: bool,
    /// When these workers gave up their connections, because one was not let in.
    closed_since: Option<Instant>,
    /// How long a connection may take to be opened.
    patience: Duration,
    /// When requests were last sent.
    asked_at: Option<Instant>,
    /// Each thread holds a sender, which it drops when its connection is closed.
    threads: Option<(Sender<()>, Receiver<()>)>,
}

impl Inventory {
    /// `sink` takes the replies; they come back through [`Inventory::on_reply`]. Threads start and connections are opened
    /// when they are needed.
    pub fn new(settings: &Settings, sink: Sink) -> Self {
        let threads = channel();
        let shared = Shared {
            uri: settings.uri.value.as_str().into(),
            alive: threads.0.clone(),
        };
        let measurements = &settings.measurements;
        let inactive = settings.needs_inactive().then(|| {
            let (shared, sink) = (shared.clone(), Arc::clone(&sink));
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
                asking(worker::start("inactive VMs", &shared, session, tell))
            })
        });
        let node = measurements.host.then(|| {
            let (shared, sink) = (shared.clone(), Arc::clone(&sink));
            Worker::new(Duration::ZERO, move || {
                let sink = Arc::clone(&sink);
                let tell = move |told| {
                    sink(match told {
                        Told::Begun => Reply::Begun(Part::Node),
                        Told::Ended(result) => Reply::Node(result),
                    });
                };
                asking(worker::start("node", &shared, node::Session::new, tell))
            })
        });
        let pools = measurements.pools.then(|| {
            Worker::new(settings.pool_interval, move || {
                let reader = pools::start(&shared, &sink)?;
                Ok(Box::new(move |order| reader.order(order)))
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
            is_scarce: false,
            closed_since: None,
            patience: uri::not_let_in(&settings.uri.value),
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

    /// Another gather begins. `is_scarce`: libvirtd lets in fewer connections than the gather wants, so that these workers,
    /// which come last, give up theirs.
    pub fn begin(&mut self, now: Instant, is_scarce: bool) {
        self.closed_since
            .take_if(|since| now >= *since + CONNECTIONS_SCARCE);
        if is_scarce && !self.is_scarce {
            self.workers_mut().for_each(Worker::close);
        }
        self.is_scarce = is_scarce;
        for worker in self.workers_mut() {
            worker.asked_in_this_gather = false;
        }
    }

    /// libvirtd may have been restarted with another configuration: what was given up is tried again.
    pub fn try_again(&mut self) {
        self.closed_since = None;
    }

    /// When [`Inventory::leave_room`] is to be called. `is_reached`: libvirtd answered the last gather.
    pub fn leave_room_at(&self, is_reached: bool) -> Option<Instant> {
        let connecting = self.workers().filter_map(|worker| worker.connecting);
        let since = connecting
            .min()
            .filter(|_| is_reached && !self.is_closed())?;
        Some(since + self.patience)
    }

    /// Where a connection of these workers is not let in, they give up all: one that waits is in the way of every later
    /// client (`virsh`). It is closed once libvirtd lets it in, for which the gather has to leave room, too: returns whether
    /// it has to.
    pub fn leave_room(&mut self, now: Instant, is_reached: bool) -> bool {
        let is_due = self.leave_room_at(is_reached).is_some_and(|at| now >= at);
        if is_due {
            self.workers_mut().for_each(Worker::close);
            self.closed_since = Some(now);
        }
        is_due
    }

    fn is_closed(&self) -> bool {
        let is_any_wanted = self.workers().next().is_some();
        is_any_wanted && (self.is_scarce || self.closed_since.is_some())
    }

    /// Sends a request to each worker that is due and idle.
    pub fn ask(&mut self) {
        let now = Instant::now();
        if self.is_closed() {
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
            let worker = worker.as_ref().filter(|it| it.connecting.is_none());
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
            Reply::Connecting(part) => return self.connecting(part, Some(Instant::now())),
            Reply::Begun(part) => return self.connecting(part, None),
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

    fn connecting(&mut self, part: Part, since: Option<Instant>) {
        let worker = match part {
            Part::Inactive => &mut self.inactive,
            Part::Node => &mut self.node,
            Part::Pools => &mut self.pools,
        };
        if let Some(worker) = worker {
            worker.connecting = since;
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
                is_connected: worker.is_some_and(|it| it.connecting.is_none()),
                failure: worker.and_then(|it| it.failure.clone()),
            }
        };
        InventoryReport {
            inactive: fares(&self.inactive),
            node: fares(&self.node),
            pools: fares(&self.pools),
            hanging: self.hanging.clone(),
            not_started: self.workers().find_map(|it| it.not_started.clone()),
            is_closed: self.is_closed(),
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
    Ok(Box::new(move |order| {
        order == Order::Ask && requests.send(()).is_ok()
    }))
}

#[cfg(test)]
mod tests;
