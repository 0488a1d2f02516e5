//! The bulk call: the statistics of a whole chunk at once, as far as the driver supports it.

use std::time::Instant;

use smol_str::SmolStr;

use super::Session;
use crate::description::Description;
use crate::gather::protocol::{Completeness, DomainRef, Target};
use crate::libvirt::bulk::keys::KeyFilter;
use crate::libvirt::bulk::{self, Groups};
use crate::libvirt::{Domain, Error, Record, Records};
use crate::sample::{DISK_COUNTERS, Device, RunId, Sample};
use crate::vms::PAUSED_BY_MIGRATION;

/// virDomainState: running. Only the reply of a running domain shows what the driver supports.
const RUNNING: i32 = 1;
/// States and reasons of a domain that is being migrated in: paused by the migration or by the start
/// that precedes it; running or paused in a post-copy migration, under way or failed. Such a domain
/// has no more figures than those that came.
const INCOMING: [(i32, i32); 6] = [
    PAUSED_BY_MIGRATION,
    (3, 11),
    (1, 10),
    (1, 11),
    (3, 12),
    (3, 13),
];

/// What the driver's bulk call supports, as its replies on this connection have shown.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// There is a bulk call: lxc, libxl and ch have none.
    pub(super) works: bool,
    /// It takes the NOWAIT flag: vz and older test drivers refuse it.
    pub(super) nowait: bool,
    /// A call with that flag has succeeded, so that an error means something else.
    takes_nowait: bool,
    /// Groups for which a running domain has been asked.
    pub(super) judged: Groups,
    /// Groups that were asked for and have never come.
    pub(super) lacking: Groups,
}

impl Default for Bulk {
    /// Everything is supported, as long as the driver has not been asked.
    fn default() -> Self {
        Self {
            works: true,
            nowait: true,
            takes_nowait: false,
            judged: Groups::NONE,
            lacking: Groups::NONE,
        }
    }
}

impl Session {
    /// Makes the bulk call for `targets`. Where the driver has none, each sample comes empty.
    pub(super) fn bulk_samples(
        &mut self,
        groups: Groups,
        targets: &[&Target],
        samples: &mut Vec<Sample>,
        problems: &mut Vec<(DomainRef, String)>,
        named: &KeyFilter,
    ) -> Result<(), Error> {
        let of = |target: &&Target| target.domain.clone();
        let without = self.in_bulk(targets, of, problems, &mut |session, targets| {
            session.bulk_call(groups, targets, samples, named)
        })?;
        let at = Instant::now();
        let domains = without.iter().map(|target| &target.domain);
        samples.extend(domains.map(|domain| Sample::new(domain.run, domain.name.clone(), at)));
        Ok(())
    }

    /// Makes a bulk call for these domains. Where it fails as a whole, each gets a call of its own, so that one which
    /// cannot be read does not cost the figures of the others. Returns those for which the driver has no such call.
    pub(super) fn in_bulk<D: Copy, C>(
        &mut self,
        domains: &[D],
        of: fn(&D) -> DomainRef,
        problems: &mut Vec<(DomainRef, String)>,
        call: &mut C,
    ) -> Result<Vec<D>, Error>
    where
        C: FnMut(&mut Self, &[D]) -> Result<(), Error>,
    {
        if !self.bulk.works {
            return Ok(domains.to_vec());
        }
        let error = match call(self, domains) {
            Ok(()) => {
                self.bulk.takes_nowait |= self.bulk.nowait && !domains.is_empty();
                return Ok(Vec::new());
            }
            Err(error) if error.is_transport() => return Err(error),
            Err(error) => error,
        };
        if self.bulk.nowait && !self.bulk.takes_nowait && error.is_refused_flag() {
            self.bulk.nowait = false;
            return self.in_bulk(domains, of, problems, call);
        }
        if error.is_unsupported() {
            self.bulk.works = false;
            return Ok(domains.to_vec());
        }
        let mut without = Vec::new();
        match domains {
            [] => {}
            [one] => {
                if !error.is_vanished() {
                    problems.push((of(one), error.to_string()));
                }
            }
            many => {
                for one in many {
                    without.extend(self.in_bulk(&[*one], of, problems, call)?);
                }
            }
        }
        Ok(without)
    }

    fn bulk_call(
        &mut self,
        groups: Groups,
        targets: &[&Target],
        samples: &mut Vec<Sample>,
        named: &KeyFilter,
    ) -> Result<(), Error> {
        let domains: Vec<&Domain> = targets
            .iter()
            .filter_map(|t| self.handles.get(&t.domain.run.uuid))
            .collect();
        let flags = if self.bulk.nowait { bulk::NOWAIT } else { 0 };
        let start = Instant::now();
        let records = Records::get(&domains, groups.bits(), flags)?;
        let at = start + start.elapsed() / 2;
        for (place, record) in records.iter().enumerate() {
            let Some((run, name)) = run_of(&record, targets, place) else {
                continue;
            };
            let mut sample = Sample::new(run, name, at);
            let seen = bulk::fill(&mut sample, record.params(), at);
            sample.memory.asked_at = start;
            if !named.is_empty() {
                sample.stats = named.choose(record.params());
            }
            let bulk = &mut self.bulk;
            if sample.state.is_none_or(|state| state == RUNNING) {
                let new = groups.without(bulk.judged);
                bulk.judged = bulk.judged | new;
                bulk.lacking = bulk.lacking | new;
            }
            bulk.lacking = bulk.lacking.without(seen);
            samples.push(sample);
        }
        Ok(())
    }

    /// Whether libvirt skipped the domain's monitor. A disk that cannot have counters shows nothing. `incoming`: see
    /// [`is_incoming`].
    pub(super) fn completeness(
        &self,
        sample: &Sample,
        groups: Groups,
        description: Option<&Description>,
        incoming: bool,
    ) -> Completeness {
        let without_memory = groups.has(Groups::BALLOON) && sample.memory.rss.is_none();
        let without_disks = groups.has(Groups::BLOCK)
            && sample.disks.as_ref().is_some_and(|disks| {
                let uncounted = |disk: &&Device<DISK_COUNTERS>| {
                    let mut known = description.iter().flat_map(|known| &known.disks);
                    known.any(|known| !known.counted && disk.name.as_ref() == Some(&known.target))
                };
                let silent =
                    |disk: &Device<DISK_COUNTERS>| disk.counters.iter().all(Option::is_none);
                // Usually the first disk has counters, and no other is looked at.
                disks.list.iter().all(silent) && !disks.list.iter().all(|disk| uncounted(&disk))
            });
        if self.qemu && !incoming && (without_memory || without_disks) {
            Completeness::Partial
        } else {
            Completeness::Full
        }
    }
}

/// Whether the domain is being migrated in: it has no more figures than those that came.
///
/// A domain that was restored and left paused has the same state, for as long as it stays paused. It has the figures
/// of its QEMU, or had them before (`left_paused`).
pub(in crate::gather) fn is_incoming(sample: &Sample, left_paused: bool) -> bool {
    let state = sample.state.zip(sample.reason);
    state.is_some_and(|state| {
        let is_left = state == PAUSED_BY_MIGRATION && (left_paused || sample.has_figures_of_qemu());
        INCOMING.contains(&state) && !is_left
    })
}

/// Finds a target, most likely at `place`: the reply has the order of the targets, but some may be
/// missing.
pub(super) fn find<'t>(
    targets: &[&'t Target],
    place: usize,
    is_it: impl Fn(&Target) -> bool,
) -> Option<&'t Target> {
    let expected = targets.get(place).filter(|target| is_it(target));
    let found = expected.or_else(|| targets.iter().find(|target| is_it(target)));
    found.copied()
}

/// The run to which a record belongs, and its name; `None` for a domain that is not active any more.
fn run_of(record: &Record, targets: &[&Target], place: usize) -> Option<(RunId, SmolStr)> {
    let id = record.id()?;
    match find(targets, place, |target| target.domain.run.id == id) {
        Some(target) => Some((target.domain.run, target.domain.name.clone())),
        // The domain was restarted since the list.
        None => {
            let domain = record.domain()?;
            let uuid = domain.uuid();
            Some((RunId { uuid, id }, domain.name().into()))
        }
    }
}
