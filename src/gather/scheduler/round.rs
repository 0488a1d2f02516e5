//! One gather under way.

use std::collections::{BTreeMap, BTreeSet, VecDeque};
use std::time::{Duration, Instant};

use uuid::Uuid;

use super::interface::HostVerdict;
use crate::gather::protocol::{CallId, Completeness, Scope};
use crate::maps::{HashMap, HashSet};

/// How far it has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) enum Phase {
    /// The list is waited for.
    #[default]
    Listing,
    /// Who is new is being described.
    Describing,
    /// The host's look is waited for.
    Looking,
    /// The canary is waited for.
    Canary,
    /// Statistics are being asked for.
    Asking,
    /// The daemon has no worker to spare: only what its priority workers serve is asked.
    Saturated,
    /// Nothing more is sent.
    Over,
}

/// A domain in this gather.
#[derive(Debug, Clone, Copy)]
pub(super) struct Vm {
    pub(super) scope: Scope,
    pub(super) tries: u32,
    pub(super) completeness: Option<Completeness>,
}

#[derive(Debug, Default)]
pub(super) struct Round {
    pub(super) phase: Phase,
    /// New domains that are still to be described in this gather.
    pub(super) undescribed: Option<Vec<Uuid>>,
    /// Domains of which no description is known: where their disks lie is not either.
    pub(super) unknown: HashSet<Uuid>,
    /// Those of them whose job somebody holds, so that reading the XML would wait for it.
    pub(super) held: HashSet<Uuid>,
    /// Until when the host's look is waited for.
    pub(super) look_by: Option<Instant>,
    /// What it showed; until it comes, what is to be taken for granted.
    pub(super) look: HostVerdict,
    pub(super) vms: BTreeMap<Uuid, Vm>,
    /// Whose statistics were refused.
    pub(super) refused: HashSet<Uuid>,
    /// What is to be asked next.
    pub(super) queue: VecDeque<(Scope, Vec<Uuid>)>,
    /// Who is asked again, and when.
    pub(super) again: Vec<(Instant, Uuid)>,
    /// Whose disks are asked one by one.
    pub(super) disks: VecDeque<Uuid>,
    /// Who is asked by priority calls.
    pub(super) priority: Vec<Uuid>,
    /// The probe that is out.
    pub(super) probe: Option<CallId>,
    /// That probe found the daemon alive: a domain from which it does not come back is locked.
    pub(super) alive: bool,
    /// The stalled calls that it is for.
    pub(super) examined: Vec<CallId>,
    /// Which stalled calls have been looked into, and when.
    pub(super) probed: HashMap<CallId, Instant>,
    /// Domains that the probe which is out found in the hands of somebody within an async job.
    pub(super) jobs: Vec<Uuid>,
    /// The domain whose monitor has been occupied the longest, by the probes of this gather.
    pub(super) occupied: Option<(Uuid, Duration)>,
    /// Locked domains for which a call that tells of their unlocking was sent in this gather.
    pub(super) watched: HashSet<Uuid>,
    /// The daemon was frozen when it began: nothing is sent until something comes back.
    pub(super) waiting: bool,
    /// When it began.
    pub(super) began: Option<Instant>,
    /// The list came on a new connection: the daemon may just have been started, and be busy with
    /// every domain for a moment.
    pub(super) fresh: bool,
    /// Domains that were found locked in this gather and had not answered in it.
    pub(super) withheld: HashSet<Uuid>,
    /// Calls that were abandoned in this gather: slow ones may come back yet.
    pub(super) slow: BTreeSet<CallId>,
    /// How long these two are waited for.
    pub(super) grace_until: Option<Instant>,
    /// How many calls lost their connection.
    pub(super) losses: u32,
    /// When anything last came back from anybody.
    pub(super) last_reply_at: Option<Instant>,
    /// Until when a canary may still show that the daemon has workers after all.
    pub(super) recheck_until: Option<Instant>,
    /// The daemon had no worker to spare, and then had.
    pub(super) was_saturated: bool,
}

impl Round {
    /// Nothing more is sent; what is in hand may still come.
    pub(super) fn stop(&mut self) {
        self.phase = Phase::Over;
        self.queue.clear();
        self.again.clear();
        self.disks.clear();
        self.priority.clear();
    }

    /// Nothing that is still to be sent asks this domain.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        for (_, batch) in &mut self.queue {
            batch.retain(|u| *u != uuid);
        }
        self.queue.retain(|(_, batch)| !batch.is_empty());
        self.again.retain(|(_, u)| *u != uuid);
        self.disks.retain(|u| *u != uuid);
        self.priority.retain(|u| *u != uuid);
        if let Some(undescribed) = &mut self.undescribed {
            undescribed.retain(|u| *u != uuid);
        }
    }

    /// Whether nothing is left to send.
    pub(super) fn is_empty(&self) -> bool {
        self.queue.is_empty() && self.again.is_empty() && self.disks.is_empty()
    }
}
