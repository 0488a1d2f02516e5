//! A libvirtd on simulated time: what it does with our calls while QEMUs freeze, locks are held and
//! connections die. The figures and the behaviour are those measured on the real one (libvirt 9.0,
//! two cores): NOWAIT skips a VM whose job is taken, the first call that meets a frozen QEMU
//! hangs and keeps the job, a list hangs while any VM is locked.

use std::collections::{BTreeMap, HashSet, VecDeque};

use telegraf_kvm::gather::protocol::{CallId, Completeness, Request};
use telegraf_kvm::gather::scheduler::Event;
use uuid::Uuid;

/// Simulated time: milliseconds since the start.
pub type Ms = u64;

/// After so long without a sign of a stopped daemon, keepalive closes our connections.
pub const KEEPALIVE: Ms = 30_000;

/// The owner of a VM's job, and since when.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Job {
    Ours(CallId, Ms),
    Others(Ms),
}

/// What asking the block group does to a VM whose image lies on a dead mount.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dead {
    /// QEMU's main thread hangs.
    Written,
    /// libvirtd's worker hangs with the VM's lock held.
    Sparse,
}

#[derive(Debug, Clone, Default)]
pub struct Vm {
    pub here: bool,
    /// Its QEMU is stopped.
    pub frozen: bool,
    /// It has an async job (a backup): of its monitor libvirtd says "job", and not since when.
    pub async_job: bool,
    /// Another client's call hangs with its lock held.
    pub locked: bool,
    pub dead: Option<Dead>,
    /// Other clients hold its job for so many milliseconds of every so many.
    pub busy: Option<(Ms, Ms)>,
    /// A call of ours that hangs with its lock held.
    pub locked_by: Option<CallId>,
    pub job: Option<Job>,
}

#[derive(Debug)]
pub struct Call {
    pub request: Request<Uuid>,
    pub left: VecDeque<Uuid>,
    pub completeness: Vec<(Uuid, Completeness)>,
    /// Microseconds of work done on the VM at the front.
    pub paid: u64,
    pub has_worker: bool,
    /// It has told that the daemon is alive.
    pub told: bool,
    /// Our end still listens.
    pub connected: bool,
    pub since: Ms,
    /// It waits for something that is not work, since then.
    pub blocked: Option<Ms>,
}

#[derive(Debug, Default)]
pub struct Daemon {
    pub now: Ms,
    pub vms: BTreeMap<Uuid, Vm>,
    /// Ordinary workers taken by other clients' hanging calls.
    pub others: usize,
    pub described: HashSet<Uuid>,
    /// libvirt 11.0 and newer: reading XML waits for a VM's job.
    pub xml_takes_job: bool,
    /// How many times slower than measured.
    pub slowness: u64,
    /// How many times it was killed.
    pub deaths: u32,
    pub stopped: Option<Ms>,
    away_until: Ms,
    pub calls: BTreeMap<CallId, Call>,
    pub told: Vec<(CallId, Event)>,
    pub moved: bool,
}

impl Daemon {
    pub fn new(vms: usize) -> Self {
        let vm = || Vm {
            here: true,
            ..Vm::default()
        };
        Self {
            vms: (0..vms).map(|n| (uuid(n), vm())).collect(),
            slowness: 1,
            ..Self::default()
        }
    }

    pub fn vm(&mut self, n: usize) -> &mut Vm {
        self.vms.get_mut(&uuid(n)).unwrap()
    }

    pub fn is_locked(&self, uuid: Uuid) -> bool {
        let vm = &self.vms[&uuid];
        vm.here && (vm.locked || vm.locked_by.is_some())
    }

    pub fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    pub fn stop(&mut self) {
        self.stopped.get_or_insert(self.now);
    }

    pub fn go_on(&mut self) {
        self.stopped = None;
        // What waited on a connection that is closed by now is not even read.
        self.calls
            .retain(|_, call| call.connected || call.has_worker);
    }

    /// Killed, and started again after `away`: what hung in it is gone.
    pub fn restart(&mut self, away: Ms) {
        self.cut(|_| true);
        self.calls.clear();
        self.others = 0;
        self.deaths += 1;
        self.stopped = None;
        self.away_until = self.now + away;
        for vm in self.vms.values_mut() {
            (vm.locked, vm.locked_by, vm.job) = (false, None, None);
        }
    }

    /// The connections of those calls die; the calls do not.
    pub fn cut(&mut self, which: impl Fn(CallId) -> bool) {
        for (call_id, call) in &mut self.calls {
            if call.connected && which(*call_id) {
                call.connected = false;
                self.told.push((*call_id, Event::Lost));
                self.moved = true;
            }
        }
    }

    pub fn call_ids(&self) -> Vec<CallId> {
        let connected = self.calls.iter().filter(|(_, call)| call.connected);
        connected.map(|(call_id, _)| *call_id).collect()
    }

    /// A call of ours arrives.
    pub fn call(&mut self, call_id: CallId, request: Request<Uuid>) {
        let call = Call {
            left: request.domains().to_vec().into(),
            request,
            completeness: Vec::new(),
            paid: 0,
            has_worker: false,
            told: false,
            connected: true,
            since: self.now,
            blocked: None,
        };
        assert!(
            self.calls.insert(call_id, call).is_none(),
            "a call_id is used twice"
        );
        self.moved = true;
    }

    /// How many calls of ours, of these, have been hanging for longer than any healthy one takes.
    pub fn hanging(&self, of: impl Fn(CallId, &Request<Uuid>) -> bool) -> usize {
        let long = |call: &Call| {
            // A call that waits in the queue without a connection burdens no worker.
            let there = call.has_worker || call.connected;
            there && call.blocked.is_some_and(|since| self.now >= since + 150)
        };
        let hanging = self
            .calls
            .iter()
            .filter(|(call_id, call)| long(call) && of(**call_id, &call.request));
        hanging.count()
    }

    /// Whether anything would change by itself in the next millisecond.
    pub fn moves(&self) -> bool {
        self.moved || self.vms.values().any(|vm| vm.busy.is_some()) && !self.calls.is_empty()
    }

    /// Until when nothing changes by itself.
    pub fn next_change(&self) -> Option<Ms> {
        let keepalive = self.stopped.map(|at| at + KEEPALIVE);
        let away = self.is_away().then_some(self.away_until);
        keepalive
            .filter(|at| *at > self.now)
            .into_iter()
            .chain(away)
            .min()
    }

    /// What our calls brought since the last time.
    pub fn told(&mut self) -> Vec<(CallId, Event)> {
        std::mem::take(&mut self.told)
    }

    /// The VM is destroyed: calls that wait for its QEMU fail.
    pub fn go(&mut self, n: usize) {
        let vm = self.vm(n);
        *vm = Vm {
            locked: vm.locked,
            locked_by: vm.locked_by,
            ..Vm::default()
        };
    }

    /// Another client's call hangs in this VM's monitor, or no more.
    pub fn others_hold(&mut self, n: usize, held: bool) {
        let now = self.now;
        self.vm(n).job = held.then_some(Job::Others(now));
        self.others = if held {
            self.others + 1
        } else {
            self.others.saturating_sub(1)
        };
    }

    /// The mount of these VMs' images is dead, or is back.
    pub fn mount(&mut self, n: usize, dead: Option<Dead>) {
        let vm = self.vm(n);
        if dead.is_none() && vm.dead.is_some() {
            (vm.frozen, vm.locked_by) = (false, None);
        }
        vm.dead = dead;
    }
}

/// The n-th VM.
pub fn uuid(n: usize) -> Uuid {
    Uuid::from_u128(n as u128)
}
