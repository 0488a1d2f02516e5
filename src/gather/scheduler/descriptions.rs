//! Which domains are to be described in a gather, and which cannot be.

use uuid::Uuid;

use crate::gather::protocol::Scope;
use crate::maps::HashSet;

/// The descriptions that a gather needs.
#[derive(Debug, Default)]
pub(super) struct Descriptions {
    /// New domains that are still to be described; `None` until that is known.
    left: Option<Vec<Uuid>>,
    /// Domains without a description: where their disks lie is not known.
    unknown: HashSet<Uuid>,
    /// Domains whose job or monitor is in use, so that reading their XML would wait.
    held: HashSet<Uuid>,
}

impl Descriptions {
    /// Whether the new domains are known.
    pub(super) fn has_begun(&self) -> bool {
        self.left.is_some()
    }

    /// Of these domains nothing is known, those that are `held` cannot be described, and those that
    /// are `left` are to be described.
    pub(super) fn begin(&mut self, new: &[Uuid], held: HashSet<Uuid>, left: Vec<Uuid>) {
        self.unknown = new.iter().copied().collect();
        self.held = held;
        self.left = Some(left);
    }

    /// No more domains are described.
    pub(super) fn give_up(&mut self) {
        self.left = Some(Vec::new());
    }

    /// Takes the domains of the next call, at most so many.
    pub(super) fn next_chunk(&mut self, size: usize) -> Option<Vec<Uuid>> {
        let left = self.left.as_mut().filter(|left| !left.is_empty())?;
        Some(left.drain(..left.len().min(size)).collect())
    }

    pub(super) fn is_any_left(&self) -> bool {
        self.left.as_ref().is_some_and(|left| !left.is_empty())
    }

    /// A call that should describe these did not: they are to be described by another.
    pub(super) fn again(&mut self, domains: impl Iterator<Item = Uuid>) {
        self.left.get_or_insert_default().extend(domains);
    }

    /// The domain has been described.
    pub(super) fn on_described(&mut self, uuid: Uuid) {
        self.unknown.remove(&uuid);
    }

    /// The job or the monitor of the domain is in use.
    pub(super) fn on_held(&mut self, uuid: Uuid) {
        self.held.insert(uuid);
    }

    /// Whether the job or the monitor of the domain was seen to be in use.
    pub(super) fn is_held(&self, uuid: Uuid) -> bool {
        self.held.contains(&uuid)
    }

    /// The domain is not to be described in this gather.
    pub(super) fn leave_out(&mut self, uuid: Uuid) {
        if let Some(left) = &mut self.left {
            left.retain(|other| *other != uuid);
        }
    }

    /// How much may be asked of the domain, as far as its description decides that.
    pub(super) fn scope(&self, uuid: Uuid) -> Scope {
        if self.held.contains(&uuid) {
            Scope::NoMonitor
        } else if self.unknown.contains(&uuid) {
            Scope::NoBlock
        } else {
            Scope::Full
        }
    }
}
