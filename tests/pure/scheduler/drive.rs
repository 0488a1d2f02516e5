//! Runs gathers of the scheduler against the simulated daemon, as the main loop does against a real one, and
//! checks what must be true of every gather.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::time::{Duration, Instant};

use telegraf_kvm::gather::protocol::{AskedMonitor, CallId, Completeness, Request, Scope};
use telegraf_kvm::gather::scheduler::{
    Action, Event, HostVerdict, Limits, MOST_EXTRA, Outcome, Scheduler,
};
use uuid::Uuid;

use super::daemon::{Daemon, Ms, uuid};
use super::gather_result::GatherResult;

pub const LIMITS: Limits = Limits {
    workers: 4,
    chunk: 8,
    stall: Duration::from_millis(250),
    host_check: Duration::from_millis(1200),
    cap: 8,
    asks_extra: false,
    calls_may_hang: true,
};
pub const DEADLINE: Ms = 8000;

fn is_extra(request: &Request<Uuid>) -> bool {
    matches!(request, Request::Extra(_))
}

/// An event that happens to the daemon at a given time.
pub type ScheduledEvent = Box<dyn Fn(&mut Sim)>;

/// What the host report shows.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum HostVisibility {
    /// The report shows everything, after this delay.
    Visible(Ms),
    /// The report shows nothing: a remote hypervisor, no /proc.
    Hidden,
    /// The report never comes.
    Never,
}

pub struct Sim {
    limits: Limits,
    pub daemon: Daemon,
    pub scheduler: Scheduler,
    pub host_visibility: HostVisibility,
    /// With this libvirt a call for a single disk makes QEMU access all files, too.
    pub disks_left_out: bool,
    start: Instant,
    requests: HashMap<CallId, Request<Uuid>>,
    scheduled: BTreeMap<(Ms, usize), ScheduledEvent>,
    host_check_at: Option<Ms>,
    /// What the host report showed in this gather, or what was assumed without it.
    seen: HostVerdict,
    /// VMs that an earlier host report showed on storage of the host itself.
    local: BTreeSet<Uuid>,
    gather: GatherResult,
    /// The highest number of our calls that hung in the daemon at the same time.
    pub most_hanging: usize,
    /// Calls whose connection broke: the daemon still works on them.
    cut: HashSet<CallId>,
    /// The number of kills of the daemon at the time of the last list: a list of another process comes on a
    /// new connection.
    kills: u32,
}

impl Sim {
    pub fn new(vms: usize) -> Self {
        Self::with(vms, LIMITS)
    }

    pub fn with(vms: usize, limits: Limits) -> Self {
        Self {
            limits,
            daemon: Daemon::new(vms),
            scheduler: Scheduler::new(limits),
            host_visibility: HostVisibility::Visible(2),
            disks_left_out: false,
            start: Instant::now(),
            requests: HashMap::new(),
            scheduled: BTreeMap::new(),
            host_check_at: None,
            seen: HostVerdict::default(),
            local: BTreeSet::new(),
            gather: GatherResult::default(),
            most_hanging: 0,
            cut: HashSet::new(),
            kills: 0,
        }
    }

    /// A host with earlier gathers, so that all its VMs are described and known.
    pub fn warm(vms: usize) -> Self {
        Self::new(vms).warmed()
    }

    pub fn warmed(self) -> Self {
        let mut sim = self;
        for _ in 0..2 {
            sim.gather();
            sim.pause(2000);
        }
        sim
    }

    pub fn at(&mut self, after: Ms, what: impl Fn(&mut Sim) + 'static) {
        let key = (self.daemon.now + after, self.scheduled.len());
        self.scheduled.insert(key, Box::new(what));
    }

    fn instant(&self) -> Instant {
        self.start + Duration::from_millis(self.daemon.now)
    }

    /// Runs one gather, which ends by its deadline as in the main loop.
    pub fn gather(&mut self) -> GatherResult {
        let begun = self.daemon.now;
        self.gather = GatherResult::default();
        self.host_check_at = None;
        self.seen = HostVerdict::default();
        let runs = self.runs();
        self.scheduler.begin(self.instant());
        self.carry_out();
        let limit = begun + DEADLINE;
        while !self.scheduler.is_done() && self.daemon.now < limit {
            let wake = self.scheduler.wake();
            if wake.is_some_and(|wake| wake <= self.instant()) {
                self.gather.ticks += 1;
                self.scheduler.tick(self.instant());
                self.carry_out();
                let again = self.scheduler.wake();
                assert!(
                    again.is_none_or(|again| again > self.instant()) || self.scheduler.is_done(),
                    "a busy loop at {}: {:#?}",
                    self.daemon.now - begun,
                    self.scheduler
                );
                continue;
            }
            let wake = wake.map_or(limit, |wake| {
                let wake = wake.duration_since(self.start);
                Ms::try_from(wake.as_micros().div_ceil(1000)).unwrap()
            });
            self.go_on(wake.min(limit));
        }
        let outcome = self.scheduler.end();
        self.gather.saturated = outcome.saturated;
        self.check_counts(&outcome, &runs);
        assert_eq!(self.scheduler.actions().len(), 0, "actions after the end");
        let mut gather = std::mem::take(&mut self.gather);
        gather.took = self.daemon.now - begun;
        assert!(gather.took <= DEADLINE, "a gather took {} ms", gather.took);
        assert!(gather.ticks < 1000, "{} ticks in a gather", gather.ticks);
        assert!(
            gather.actions < 300,
            "{} actions in a gather",
            gather.actions
        );
        gather
    }

    /// How often each VM that exists was destroyed.
    fn runs(&self) -> BTreeMap<Uuid, u32> {
        let exist = self.daemon.vms.iter().filter(|(_, vm)| vm.exists);
        exist.map(|(uuid, vm)| (*uuid, vm.destroyed)).collect()
    }

    /// Each VM of the list either has answered, or is counted once among those that have not; unless it was
    /// destroyed since the gather began, in which it had these `runs`.
    fn check_counts(&self, outcome: &Outcome, runs: &BTreeMap<Uuid, u32>) {
        let silent = [&outcome.unanswered, &outcome.refused, &outcome.locked];
        let silent: Vec<Uuid> = silent.into_iter().flatten().copied().collect();
        let distinct: BTreeSet<Uuid> = silent.iter().copied().collect();
        assert_eq!(silent.len(), distinct.len(), "counted twice: {outcome:?}");
        let now = self.runs();
        for uuid in &self.gather.listed {
            if runs.contains_key(uuid) && runs.get(uuid) == now.get(uuid) {
                let answered = self.gather.completeness.contains_key(uuid);
                let counted = answered || distinct.contains(uuid);
                assert!(counted, "{uuid} is counted nowhere: {outcome:?}");
            }
        }
    }

    /// Lets time pass between gathers.
    pub fn pause(&mut self, time: Ms) {
        let until = self.daemon.now + time;
        while self.daemon.now < until {
            self.go_on(until);
        }
    }

    /// Advances to the next moment at which anything happens, but not beyond `until`.
    fn go_on(&mut self, until: Ms) {
        let now = self.daemon.now;
        let next = if self.daemon.moves() {
            now + 1
        } else {
            let next_event = self.scheduled.keys().next().map(|(at, _)| *at);
            let others = [next_event, self.daemon.next_change(), self.host_check_at];
            others
                .into_iter()
                .flatten()
                .fold(until, Ms::min)
                .max(now + 1)
        };
        self.daemon.run(next);
        while let Some(entry) = self.scheduled.first_entry()
            && entry.key().0 <= next
        {
            entry.remove()(self);
            // The event may have started something.
            self.daemon.run(next);
        }
        for (call_id, event) in self.daemon.take_events() {
            self.tell(call_id, event);
        }
        if self.host_check_at.is_some_and(|at| at <= next) {
            self.host_check_at = None;
            self.seen = self.check_host();
            let no_block = &self.seen.no_block;
            let local = self
                .daemon
                .vms
                .keys()
                .filter(|uuid| !no_block.contains(uuid));
            self.local = local.copied().collect();
            self.scheduler
                .on_host_checked(self.seen.clone(), self.instant());
            self.carry_out();
        }
        let hanging = self.daemon.hanging(|_, _| true);
        self.most_hanging = self.most_hanging.max(hanging);
        let live = self
            .daemon
            .hanging(|call_id, _| !self.cut.contains(&call_id));
        let cap = self.limits.cap;
        // One more call may be out for libvirtd's priority workers.
        let ordinary = |call_id, request: &Request<Uuid>| {
            let is_counted = !request.kind().is_priority() && !is_extra(request);
            !self.cut.contains(&call_id) && is_counted
        };
        let ordinary = self.daemon.hanging(ordinary);
        assert!(ordinary <= cap, "{ordinary} calls of ours hang at {next}");
        assert!(
            live <= cap + 1 + MOST_EXTRA,
            "{live} calls of ours hang at {next}"
        );
        let extra =
            |call_id, request: &Request<Uuid>| !self.cut.contains(&call_id) && is_extra(request);
        let extra = self.daemon.hanging(extra);
        assert!(extra <= MOST_EXTRA, "{extra} extra calls hang at {next}");
        // Whether a cut call still hangs shows only by replies; until then it may be out in addition.
        assert!(
            hanging <= 2 * (cap + MOST_EXTRA),
            "{hanging} calls of ours hang at {next}"
        );
    }

    fn check_host(&self) -> HostVerdict {
        let mut verdict = HostVerdict::default();
        if let HostVisibility::Visible(_) = self.host_visibility {
            for (uuid, vm) in &self.daemon.vms {
                // A QEMU that waits for a dead mount shows as sleeping, like any other.
                if vm.frozen && vm.dead.is_none() {
                    verdict.stuck.insert(*uuid);
                }
                if vm.dead.is_some() {
                    verdict.no_block.insert(*uuid);
                    if self.disks_left_out {
                        verdict.no_disks.insert(*uuid);
                    }
                }
            }
        }
        verdict
    }

    fn tell(&mut self, call_id: CallId, event: Event) {
        let ends = event.ends_call();
        let request = if ends {
            self.requests.remove(&call_id)
        } else {
            self.requests.get(&call_id).cloned()
        };
        let Some(request) = request else { return };
        let wanted = self.scheduler.is_wanted(call_id);
        if event == Event::Lost {
            self.cut.insert(call_id);
        }
        if matches!(event, Event::Listed(_)) && self.kills != self.daemon.kills {
            self.kills = self.daemon.kills;
            self.scheduler.reconnected();
        }
        match (&event, &request) {
            (Event::Listed(domains), _) if wanted => {
                self.gather.listed = domains.iter().map(|listed| listed.uuid).collect();
            }
            (Event::Samples(completeness), Request::Statistics { scope, .. }) if wanted => {
                for (uuid, completeness) in completeness {
                    let completeness = match (completeness, scope) {
                        (Completeness::Partial, _) | (_, Scope::NoMonitor) => Completeness::Partial,
                        _ => Completeness::Full,
                    };
                    self.keep(*uuid, completeness);
                }
            }
            (Event::Served(uuid), _) if wanted => self.keep(*uuid, Completeness::PriorityOnly),
            (Event::Extra(came), Request::Extra(_)) if wanted => {
                let whole = came.iter().filter(|(_, asked)| *asked == AskedMonitor::Yes);
                self.gather.extra.extend(whole.map(|(uuid, _)| *uuid));
            }
            (Event::Done, Request::Disks(uuid)) if wanted => {
                self.gather.disks.insert(*uuid);
            }
            _ => {}
        }
        let event = match event {
            Event::Samples(_) | Event::Listed(_) if !wanted => Event::Done,
            event => event,
        };
        self.scheduler.on(call_id, event, self.instant());
        self.carry_out();
    }

    fn keep(&mut self, uuid: Uuid, completeness: Completeness) {
        let (times, best) = self
            .gather
            .completeness
            .entry(uuid)
            .or_insert((0, completeness));
        // The priority calls may be on their way to a VM that answers after all.
        let again =
            *best == Completeness::Full && *times > 0 && completeness != Completeness::PriorityOnly;
        assert!(!again, "{uuid} came again after it was complete");
        *times += 1;
        *best = completeness.max(*best);
    }

    fn carry_out(&mut self) {
        for action in self.scheduler.actions() {
            self.gather.actions += 1;
            match action {
                Action::CheckHost(_) => self.ask_host(),
                Action::Send(call_id, request) => {
                    self.check(&request);
                    if let Request::Extra(domains) = &request {
                        for uuid in domains {
                            *self.gather.asked_extra.entry(*uuid).or_insert(0) += 1;
                        }
                    }
                    self.requests.insert(call_id, request.clone());
                    self.daemon.call(call_id, request);
                }
                Action::Withdraw(_) => panic!("the simulation has a worker for each call"),
            }
        }
    }

    fn ask_host(&mut self) {
        if self.host_visibility != HostVisibility::Hidden {
            let vms = self.daemon.vms.keys();
            self.seen = HostVerdict {
                stuck: Default::default(),
                no_block: vms.filter(|u| !self.local.contains(u)).copied().collect(),
                ..HostVerdict::default()
            };
            self.scheduler.assume_of_host(self.seen.clone());
        }
        self.host_check_at = match self.host_visibility {
            HostVisibility::Visible(after) => Some(self.daemon.now + after),
            HostVisibility::Hidden => Some(self.daemon.now),
            HostVisibility::Never => None,
        };
    }

    /// Checks what must be true of every request.
    fn check(&self, request: &Request<Uuid>) {
        let locked: BTreeSet<Uuid> = self.scheduler.locked().collect();
        let domains = request.domains();
        assert!(
            !domains.is_empty() || *request == Request::List,
            "{request:?} queries no VM"
        );
        // A probe that hung on a lock and was cut may be replaced by another one.
        let watch =
            !self.cut.is_empty() && matches!(request, Request::Probe(one) if one.len() == 1);
        for uuid in domains.iter().filter(|_| !watch) {
            assert!(
                !locked.contains(uuid),
                "{request:?} queries {uuid}, which is locked"
            );
        }
        let distinct: BTreeSet<&Uuid> = domains.iter().collect();
        assert_eq!(
            distinct.len(),
            domains.len(),
            "{request:?} queries a VM twice"
        );
        if let Request::Extra(domains) = request {
            for uuid in domains {
                let is_whole = self.gather.is_whole(*uuid);
                assert!(is_whole, "{uuid} has not answered, and is asked for more");
                assert!(!self.gather.extra.contains(uuid), "{uuid} is asked twice");
            }
        }
        let Request::Statistics { scope, .. } = request else {
            return;
        };
        for (_, other) in self
            .requests
            .iter()
            .filter(|(call_id, _)| self.scheduler.is_wanted(**call_id))
        {
            if let Request::Statistics { of: others, .. } = other {
                let both = domains.iter().find(|uuid| others.contains(uuid));
                assert!(both.is_none(), "{both:?} is queried by two calls at a time");
            }
        }
        let full = *scope == Scope::Full;
        let monitor = *scope != Scope::NoMonitor;
        for uuid in domains {
            let stuck = self.seen.stuck.contains(uuid) && monitor;
            assert!(!stuck, "{uuid} is queried, though it is seen to be stuck");
            let dead = self.seen.no_block.contains(uuid) && full;
            assert!(
                !dead,
                "{uuid} is queried for its blocks, though its mount is seen to be dead"
            );
        }
    }

    /// Checks that all VMs except these are complete.
    pub fn assert_whole_but(&self, gather: &GatherResult, not: impl Fn(usize) -> bool) {
        for n in 0..self.daemon.vms.len() {
            if !not(n) {
                let completeness = gather.completeness.get(&uuid(n));
                assert!(
                    gather.is_whole(uuid(n)),
                    "VM {n}: {completeness:?} in {} ms",
                    gather.took
                );
            }
        }
    }
}
