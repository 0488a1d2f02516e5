//! A libvirtd on simulated time: how it handles our calls while QEMUs freeze, locks are held and connections
//! break. The figures and the behaviour were measured on a real one (libvirt 9.0, two cores): NOWAIT skips a
//! VM whose job is taken, the first call that meets a frozen QEMU hangs and keeps the job, and a list hangs
//! while any VM is locked.

use std::collections::{BTreeMap, HashSet, VecDeque};

use telegraf_kvm::gather::protocol::{CallId, Completeness, Request};
use telegraf_kvm::gather::scheduler::Event;
use uuid::Uuid;

/// Simulated time: milliseconds since the start.
pub type Ms = u64;

/// When a stopped daemon has been silent for this long, keepalive closes our connections.
pub const KEEPALIVE: Ms = 30_000;

/// The owner of a VM's job, and the time since when it has it.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum JobOwner {
    Ours(CallId, Ms),
    Others(Ms),
}

/// What a call for the block group does to a VM whose image lies on a dead mount.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Dead {
    /// QEMU's main thread hangs.
    Written,
    /// libvirtd's worker hangs with the VM's lock held.
    Sparse,
}

#[derive(Debug, Clone, Default)]
pub struct SimVm {
    pub exists: bool,
    /// How often the VM was destroyed.
    pub destroyed: u32,
    /// The VM's QEMU is stopped.
    pub frozen: bool,
    /// The VM has an async job (a backup): libvirtd reports its monitor as in use by a "job", without a time.
    pub async_job: bool,
    /// Another client's call hangs while it holds the VM's lock.
    pub locked: bool,
    pub dead: Option<Dead>,
    /// Other clients hold the VM's job for the first number of milliseconds in each period of the second
    /// number.
    pub busy: Option<(Ms, Ms)>,
    /// A call of ours hangs while it holds the VM's lock.
    pub locked_by: Option<CallId>,
    /// The VM has none of what extra calls ask for.
    pub bare: bool,
    pub job: Option<JobOwner>,
}

#[derive(Debug)]
pub struct SimCall {
    pub request: Request<Uuid>,
    pub left: VecDeque<Uuid>,
    pub completeness: Vec<(Uuid, Completeness)>,
    /// Microseconds of work done on the VM at the front of the call's queue.
    pub work_done: u64,
    pub has_worker: bool,
    /// The call has already reported that the daemon is alive.
    pub reported: bool,
    /// Our end still waits for the reply.
    pub connected: bool,
    pub since: Ms,
    /// Since when the call has been waiting for something other than its own work.
    pub blocked: Option<Ms>,
}

#[derive(Debug, Default)]
pub struct Daemon {
    pub now: Ms,
    pub vms: BTreeMap<Uuid, SimVm>,
    /// Ordinary workers that are occupied by hanging calls of other clients.
    pub others: usize,
    pub described: HashSet<Uuid>,
    /// libvirt 11.0 and newer: reading XML waits for a VM's job.
    pub xml_takes_job: bool,
    /// How many times slower the daemon is than the one that was measured.
    pub slowness: u64,
    /// How many times the daemon was killed.
    pub kills: u32,
    pub stopped: Option<Ms>,
    away_until: Ms,
    pub calls: BTreeMap<CallId, SimCall>,
    pub events: Vec<(CallId, Event)>,
    pub moved: bool,
}

impl Daemon {
    pub fn new(vms: usize) -> Self {
        let vm = || SimVm {
            exists: true,
            ..SimVm::default()
        };
        Self {
            vms: (0..vms).map(|n| (uuid(n), vm())).collect(),
            slowness: 1,
            ..Self::default()
        }
    }

    pub fn vm(&mut self, n: usize) -> &mut SimVm {
        self.vms.get_mut(&uuid(n)).unwrap()
    }

    pub fn is_locked(&self, uuid: Uuid) -> bool {
        let vm = &self.vms[&uuid];
        vm.exists && (vm.locked || vm.locked_by.is_some())
    }

    pub fn is_away(&self) -> bool {
        self.now < self.away_until
    }

    pub fn stop(&mut self) {
        self.stopped.get_or_insert(self.now);
    }

    pub fn go_on(&mut self) {
        self.stopped = None;
        // A request that waits on a closed connection is never read.
        self.calls
            .retain(|_, call| call.connected || call.has_worker);
    }

    /// Kills the daemon; it is started again after `away`. All calls that hung in it are gone.
    pub fn restart(&mut self, away: Ms) {
        self.cut(|_| true);
        self.calls.clear();
        self.others = 0;
        self.kills += 1;
        self.stopped = None;
        self.away_until = self.now + away;
        for vm in self.vms.values_mut() {
            (vm.locked, vm.locked_by, vm.job) = (false, None, None);
        }
    }

    /// Breaks the connections of these calls; the calls themselves go on in the daemon.
    pub fn cut(&mut self, which: impl Fn(CallId) -> bool) {
        for (call_id, call) in &mut self.calls {
            if call.connected && which(*call_id) {
                call.connected = false;
                self.events.push((*call_id, Event::Lost));
                self.moved = true;
            }
        }
    }

    pub fn call_ids(&self) -> Vec<CallId> {
        let connected = self.calls.iter().filter(|(_, call)| call.connected);
        connected.map(|(call_id, _)| *call_id).collect()
    }

    /// A call of ours arrives at the daemon.
    pub fn call(&mut self, call_id: CallId, request: Request<Uuid>) {
        let call = SimCall {
            left: request.domains().to_vec().into(),
            request,
            completeness: Vec::new(),
            work_done: 0,
            has_worker: false,
            reported: false,
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

    /// Counts those of these calls of ours that have been hanging for longer than any healthy call takes.
    pub fn hanging(&self, of: impl Fn(CallId, &Request<Uuid>) -> bool) -> usize {
        let long = |call: &SimCall| {
            // A call that waits in the queue without a connection occupies no worker.
            let there = call.has_worker || call.connected;
            there && call.blocked.is_some_and(|since| self.now >= since + 150)
        };
        let hanging = self
            .calls
            .iter()
            .filter(|(call_id, call)| long(call) && of(**call_id, &call.request));
        hanging.count()
    }

    /// Whether the state would change by itself in the next millisecond.
    pub fn moves(&self) -> bool {
        self.moved || self.vms.values().any(|vm| vm.busy.is_some()) && !self.calls.is_empty()
    }

    /// The time until which the state does not change by itself.
    pub fn next_change(&self) -> Option<Ms> {
        let keepalive = self.stopped.map(|at| at + KEEPALIVE);
        let away = self.is_away().then_some(self.away_until);
        keepalive
            .filter(|at| *at > self.now)
            .into_iter()
            .chain(away)
            .min()
    }

    /// The replies to our calls since the last time.
    pub fn take_events(&mut self) -> Vec<(CallId, Event)> {
        std::mem::take(&mut self.events)
    }

    /// Destroys the VM: calls that wait for its QEMU fail.
    pub fn destroy(&mut self, n: usize) {
        let vm = self.vm(n);
        *vm = SimVm {
            destroyed: vm.destroyed + 1,
            locked: vm.locked,
            locked_by: vm.locked_by,
            ..SimVm::default()
        };
    }

    /// Starts or ends a hanging call of another client in this VM's monitor.
    pub fn others_hold(&mut self, n: usize, held: bool) {
        let now = self.now;
        self.vm(n).job = held.then_some(JobOwner::Others(now));
        self.others = if held {
            self.others + 1
        } else {
            self.others.saturating_sub(1)
        };
    }

    /// Makes the mount of these VMs' images dead, or brings it back.
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
