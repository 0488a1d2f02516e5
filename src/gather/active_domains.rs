//! The domains that are wanted: those of the last list, and what became of them since.

use std::time::Instant;

use uuid::Uuid;

use super::protocol::DomainRef;
use crate::maps::HashMap;

/// What an event told of a domain, and when it came. Both are absolute, so the last one holds.
#[derive(Debug)]
struct Change {
    at: Instant,
    /// The run that began; `None`: it stopped.
    run: Option<DomainRef>,
}

/// Who is active. A list is the truth as of when it was asked for; events carry on from there.
#[derive(Debug, Default)]
pub(super) struct ActiveDomains {
    found: HashMap<Uuid, DomainRef>,
    /// What has come by events and is not in `found` yet.
    changes: HashMap<Uuid, Change>,
    /// When the list that is out was asked for.
    asked: Option<Instant>,
}

impl ActiveDomains {
    /// A gather begins. What events told until now holds in it, unless a list comes, which is
    /// asked for later and knows better.
    pub(super) fn begin(&mut self) {
        for (uuid, change) in self.changes.drain() {
            match change.run {
                Some(found) => self.found.insert(uuid, found),
                None => self.found.remove(&uuid),
            };
        }
        self.asked = None;
    }

    /// A list is being asked for.
    pub(super) fn ask(&mut self, now: Instant) {
        self.asked = Some(now);
    }

    /// The list came. What events told before it was asked for is in it; what came later may not be.
    pub(super) fn listed(&mut self, found: Vec<DomainRef>) {
        let asked = self.asked.take();
        self.changes
            .retain(|_, change| asked.is_none_or(|asked| change.at >= asked));
        self.found = found.into_iter().map(|f| (f.run.uuid, f)).collect();
    }

    /// A domain was started.
    pub(super) fn started(&mut self, found: DomainRef, at: Instant) {
        let run = Some(found);
        if let Some(DomainRef { run: of, .. }) = &run {
            self.changes.insert(of.uuid, Change { at, run });
        }
    }

    /// A domain has stopped.
    pub(super) fn stopped(&mut self, uuid: Uuid, at: Instant) {
        self.changes.insert(uuid, Change { at, run: None });
    }

    pub(super) fn get(&self, uuid: Uuid) -> Option<&DomainRef> {
        self.found.get(&uuid)
    }

    pub(super) fn all(&self) -> impl Iterator<Item = &DomainRef> {
        self.found.values()
    }

    pub(super) fn len(&self) -> usize {
        self.found.len()
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sample::RunId;

    fn found(number: u128, id: u32) -> DomainRef {
        DomainRef {
            run: RunId {
                uuid: Uuid::from_u128(number),
                id,
            },
            name: format!("vm{number}").into(),
        }
    }

    fn runs(active_domains: &ActiveDomains) -> Vec<(u128, u32)> {
        let mut runs: Vec<_> = active_domains
            .all()
            .map(|f| (f.run.uuid.as_u128(), f.run.id))
            .collect();
        runs.sort_unstable();
        runs
    }

    #[test]
    fn without_a_list_events_carry_on_from_the_last_one() {
        let at = Instant::now();
        let mut active_domains = ActiveDomains::default();
        active_domains.begin();
        active_domains.ask(at);
        active_domains.listed(vec![found(1, 1), found(2, 2)]);
        active_domains.started(found(3, 3), at);
        active_domains.stopped(Uuid::from_u128(1), at);
        // Restarted: another run.
        active_domains.stopped(Uuid::from_u128(2), at);
        active_domains.started(found(2, 4), at);
        // Come and gone.
        active_domains.started(found(5, 5), at);
        active_domains.stopped(Uuid::from_u128(5), at);
        assert_eq!(
            runs(&active_domains),
            [(1, 1), (2, 2)],
            "not in the middle of a gather"
        );
        for _ in 0..2 {
            active_domains.begin();
            assert_eq!(runs(&active_domains), [(2, 4), (3, 3)]);
        }
    }

    #[test]
    fn a_list_undoes_what_came_before_it_was_asked_for_and_nothing_after() {
        let at = Instant::now();
        let later = at + Duration::from_millis(1);
        let mut active_domains = ActiveDomains::default();
        active_domains.begin();
        active_domains.stopped(Uuid::from_u128(1), at);
        active_domains.started(found(2, 2), at);
        active_domains.ask(later);
        // The list was made before 3 stopped and after 4 was started.
        active_domains.stopped(Uuid::from_u128(3), later);
        active_domains.started(found(4, 4), later);
        active_domains.listed(vec![found(1, 9), found(3, 3), found(4, 4)]);
        assert_eq!(runs(&active_domains), [(1, 9), (3, 3), (4, 4)]);
        active_domains.begin();
        assert_eq!(runs(&active_domains), [(1, 9), (4, 4)]);
    }
}
