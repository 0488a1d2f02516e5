//! The thread that goes from pool to pool. It never calls libvirt itself: its workers do, one at a time.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use super::session::{Answer, Request, Session};
use super::{HangingCall, MOST_HANGING, Pool, PoolRound};
use crate::gather::worker::Failure;
use crate::inventory::handle::Order;
use crate::inventory::worker::{self, Shared, Told};
use crate::inventory::{Part, Reply, Sink};
use crate::libvirt::Error;
use crate::threads::{self, NotStarted};
use crate::times::POOL_ANSWERS;

/// What the thread is told.
enum Input {
    /// Ask all pools.
    Round,
    /// Close the connections, but those on which calls hang.
    Close,
    /// What a worker of this number says.
    Worker(u64, Told<Answer>),
    /// No more is wanted.
    End,
}

/// The way to the thread, which ends when this is dropped.
pub(in crate::inventory) struct PoolReader(Sender<Input>);

impl PoolReader {
    /// Gives the order; returns whether there is a thread to take it.
    pub(in crate::inventory) fn order(&self, order: Order) -> bool {
        let input = match order {
            Order::Ask => Input::Round,
            Order::Close => Input::Close,
        };
        self.0.send(input).is_ok()
    }
}

impl Drop for PoolReader {
    fn drop(&mut self) {
        let _ = self.0.send(Input::End);
    }
}

/// Starts the thread.
pub(in crate::inventory) fn start(shared: &Shared, sink: &Sink) -> Result<PoolReader, NotStarted> {
    let (sender, inbox) = channel();
    let mut rounds = Rounds {
        shared: shared.clone(),
        tell: sink.clone(),
        sender: sender.clone(),
        inbox,
        worker: None,
        next: 0,
        known: None,
        hanging: Vec::new(),
        is_closing: false,
    };
    threads::start("pools", move || rounds.run())?;
    Ok(PoolReader(sender))
}

/// A known pool.
#[derive(Debug)]
struct Known {
    uuid: Uuid,
    name: SmolStr,
    /// Its type; `None`: not read yet.
    kind: Option<SmolStr>,
}

/// A call that hangs, and the worker that makes it.
struct Hanging {
    worker: u64,
    request: Request,
    call: HangingCall,
}

/// How a call ended.
enum Outcome {
    Answered(Answer),
    Failed(Failure),
    /// It hangs, or was not made because too many hang.
    Hangs,
    /// The thread is to end.
    End,
}

struct Rounds {
    shared: Shared,
    tell: Sink,
    /// For the workers.
    sender: Sender<Input>,
    inbox: Receiver<Input>,
    /// The worker that is idle, if there is one.
    worker: Option<(u64, Sender<Request>)>,
    /// The number of the next one.
    next: u64,
    /// The pools of the last list, in its order; `None`: there was none yet.
    known: Option<Vec<Known>>,
    hanging: Vec<Hanging>,
    /// The round under way is to end, and the idle connection is to be closed.
    is_closing: bool,
}

impl Rounds {
    fn run(&mut self) {
        while let Ok(input) = self.inbox.recv() {
            match input {
                Input::Round => {
                    self.is_closing = false;
                    match self.round() {
                        Some(failure) => self.report(true, failure),
                        None => return,
                    }
                    if self.is_closing {
                        self.worker = None;
                    }
                }
                Input::Close => self.worker = None,
                Input::Worker(number, told) => self.late(number, told),
                Input::End => return,
            }
        }
    }

    /// Asks all pools; returns the last failure. `None`: the thread is to end.
    ///
    /// The known pools come first. The list waits for a pool that is locked, and keeps others from defining pools while it
    /// waits; so it is not asked for while one is known to be locked.
    fn round(&mut self) -> Option<Option<Failure>> {
        let known: Vec<Uuid> = self.known.iter().flatten().map(|it| it.uuid).collect();
        let mut last = None;
        self.pools(&known, &mut last)?;
        if !self.hanging.is_empty() || self.is_futile(last.as_ref()) {
            return Some(last);
        }
        match self.call(Request::List, None) {
            Outcome::End => return None,
            Outcome::Hangs => {}
            Outcome::Failed(failure) => last = Some(failure),
            Outcome::Answered(answer) => {
                self.learn(answer);
                let new = self.known.iter().flatten().map(|it| it.uuid);
                let new: Vec<Uuid> = new.filter(|uuid| !known.contains(uuid)).collect();
                self.pools(&new, &mut last)?;
            }
        }
        Some(last)
    }

    /// Asks these pools, one after the other. `None`: the thread is to end.
    fn pools(&mut self, pools: &[Uuid], last: &mut Option<Failure>) -> Option<()> {
        for uuid in pools {
            if self.is_futile(last.as_ref()) {
                break;
            }
            self.pool(*uuid, last)?;
        }
        Some(())
    }

    /// Whether the next call would bring nothing: no connection can be opened, or none is to be.
    fn is_futile(&self, last: Option<&Failure>) -> bool {
        self.is_closing || matches!(last, Some(Failure::Unreachable(_)))
    }

    /// Asks a pool, unless a call for it hangs. `None`: the thread is to end.
    fn pool(&mut self, uuid: Uuid, last: &mut Option<Failure>) -> Option<()> {
        let known = self.known.iter().flatten().find(|it| it.uuid == uuid);
        // A late reply may have shown that it is gone.
        let Some(known) = known else { return Some(()) };
        let reads_type = known.kind.is_none();
        let name = known.name.clone();
        let is_it = |hanging: &Hanging| matches!(hanging.request, Request::Pool { uuid: other, .. } if other == uuid);
        if self.hanging.iter().any(is_it) {
            return Some(());
        }
        let request = Request::Pool { uuid, reads_type };
        match self.call(request, Some(name)) {
            Outcome::End => return None,
            Outcome::Hangs => {}
            Outcome::Failed(failure) => *last = Some(failure),
            Outcome::Answered(answer) => self.on_pool(uuid, answer),
        }
        Some(())
    }

    /// Has a worker make this call, and waits for it, but no longer than a call should take. Until it is made, that is while
    /// the connection is opened, there is no limit: nothing would come from another connection either.
    fn call(&mut self, request: Request, pool: Option<SmolStr>) -> Outcome {
        if self.hanging.len() >= MOST_HANGING {
            return Outcome::Hangs;
        }
        let (number, worker) = match self.idle() {
            Ok(worker) => worker,
            Err(error) => {
                let error = Error::invalid(error.to_string());
                return Outcome::Failed(Failure::Unreachable(error));
            }
        };
        (self.tell)(Reply::Connecting(Part::Pools));
        if worker.send(request).is_err() {
            return Outcome::Hangs;
        }
        let mut begun: Option<Instant> = None;
        loop {
            let received = match begun {
                None => self
                    .inbox
                    .recv()
                    .map_err(|_| RecvTimeoutError::Disconnected),
                Some(since) => {
                    let limit = since + POOL_ANSWERS;
                    let left = limit.saturating_duration_since(Instant::now());
                    self.inbox.recv_timeout(left)
                }
            };
            match (received, begun) {
                (Ok(Input::Worker(from, Told::Begun)), _) if from == number => {
                    begun = Some(Instant::now());
                    (self.tell)(Reply::Begun(Part::Pools));
                }
                (Ok(Input::Worker(from, Told::Ended(result))), _) if from == number => {
                    self.worker = Some((number, worker));
                    return match result {
                        Ok(answer) => Outcome::Answered(answer),
                        Err(failure) => Outcome::Failed(failure),
                    };
                }
                (Ok(Input::Worker(from, told)), _) => self.late(from, told),
                // Nobody asks while a round is under way.
                (Ok(Input::Round), _) => {}
                (Ok(Input::Close), since) => {
                    self.is_closing = true;
                    if since.is_none() {
                        // The worker ends when it is connected.
                        return Outcome::Hangs;
                    }
                }
                (Err(RecvTimeoutError::Timeout), Some(since)) => {
                    let call = HangingCall { pool, since };
                    self.hanging.push(Hanging {
                        worker: number,
                        request,
                        call,
                    });
                    self.report(false, None);
                    return Outcome::Hangs;
                }
                (Ok(Input::End) | Err(_), _) => return Outcome::End,
            }
        }
    }

    /// Takes the idle worker, or starts one.
    fn idle(&mut self) -> Result<(u64, Sender<Request>), NotStarted> {
        if let Some(worker) = self.worker.take() {
            return Ok(worker);
        }
        let number = self.next;
        self.next += 1;
        let sender = self.sender.clone();
        let tell = move |told| drop(sender.send(Input::Worker(number, told)));
        let started = worker::start("pool", &self.shared, Session::new, tell);
        Ok((number, started?))
    }

    /// A call that hung has returned. Its worker ends, for there is another one.
    fn late(&mut self, number: u64, told: Told<Answer>) {
        let Told::Ended(result) = told else { return };
        let Some(at) = self.hanging.iter().position(|it| it.worker == number) else {
            return;
        };
        let hanging = self.hanging.swap_remove(at);
        match (hanging.request, result) {
            (Request::List, Ok(answer)) => self.learn(answer),
            (Request::Pool { uuid, .. }, Ok(answer)) => self.on_pool(uuid, answer),
            (_, Err(_)) => {}
        }
        self.report(false, None);
    }

    /// Takes over a list.
    fn learn(&mut self, answer: Answer) {
        let Answer::List(listed) = answer else { return };
        let before = self.known.take().unwrap_or_default();
        let kind = |uuid: Uuid| before.iter().find(|it| it.uuid == uuid)?.kind.clone();
        let known = listed.into_iter().map(|(uuid, name)| Known {
            uuid,
            name,
            kind: kind(uuid),
        });
        let mut known: Vec<Known> = known.collect();
        known.sort_unstable_by(|a, b| a.name.cmp(&b.name));
        self.known = Some(known);
    }

    /// Passes on what a pool has answered.
    fn on_pool(&mut self, uuid: Uuid, answer: Answer) {
        let Some(known) = &mut self.known else { return };
        match answer {
            Answer::Gone => known.retain(|it| it.uuid != uuid),
            Answer::Pool(info, read) => {
                let Some(pool) = known.iter_mut().find(|it| it.uuid == uuid) else {
                    return;
                };
                pool.kind = read.or(pool.kind.take());
                (self.tell)(Reply::Pool(Pool {
                    uuid,
                    name: pool.name.clone(),
                    kind: pool.kind.clone().unwrap_or_default(),
                    info,
                }));
            }
            Answer::List(_) => {}
        }
    }

    fn report(&self, is_over: bool, failure: Option<Failure>) {
        let names = self.known.as_ref();
        (self.tell)(Reply::Pools(PoolRound {
            is_over,
            names: names.map(|known| known.iter().map(|it| it.name.clone()).collect()),
            hanging: self.hanging.iter().map(|it| it.call.clone()).collect(),
            failure,
        }));
    }
}
