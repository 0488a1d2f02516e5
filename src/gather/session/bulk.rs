//! The bulk call: a whole chunk at once, as far as the driver can.

use std::time::Instant;

use smol_str::SmolStr;

use super::Session;
use crate::description::Description;
use crate::gather::protocol::{Completeness, DomainRef, Target};
use crate::libvirt::bulk::{self, Groups};
use crate::libvirt::{Domain, Error, Record, Records};
use crate::sample::{Device, RunId, Sample};

/// virDomainState: running. Only such a domain shows what the driver's bulk reply can hold.
const RUNNING: i32 = 1;
/// Paused, by an incoming migration or by the start that precedes it, and running or paused in a
/// post-copy migration, under way or failed: in part is all there is.
const INCOMING: [(i32, i32); 6] = [(3, 2), (3, 11), (1, 10), (1, 11), (3, 12), (3, 13)];

/// What the driver's bulk call can do; learnt by asking, once per connection.
#[derive(Debug, Clone, Copy)]
pub(super) struct Bulk {
    /// lxc, libxl and ch have no bulk call.
    pub(super) works: bool,
    /// vz and older test drivers refuse the flag.
    pub(super) nowait: bool,
    /// Groups that a running domain's reply has been asked for,
    pub(super) judged: Groups,
    /// and those of them that it never holds.
    pub(super) lacking: Groups,
}

impl Default for Bulk {
    /// All that it can be: the driver has not been asked yet.
    fn default() -> Self {
        Self {
            works: true,
            nowait: true,
            judged: Groups::NONE,
            lacking: Groups::NONE,
        }
    }
}

impl Session {
    /// The bulk call for `targets`; where it fails as a whole, each domain in a call of its own,
    /// so that one that cannot be read costs nobody else.
    pub(super) fn bulk_samples(
        &mut self,
        groups: Groups,
        targets: &[&Target],
        samples: &mut Vec<Sample>,
        problems: &mut Vec<(DomainRef, String)>,
    ) -> Result<(), Error> {
        if !self.bulk.works {
            let at = Instant::now();
            let found = targets.iter().map(|t| &t.domain);
            samples.extend(found.map(|f| Sample::new(f.run, f.name.clone(), at)));
            return Ok(());
        }
        match self.bulk_call(groups, targets, samples) {
            Ok(()) => Ok(()),
            Err(error) if error.is_transport() => Err(error),
            Err(error) if self.bulk.nowait && error.is_refused_flag() => {
                self.bulk.nowait = false;
                self.bulk_samples(groups, targets, samples, problems)
            }
            Err(error) if error.is_unsupported() => {
                self.bulk.works = false;
                self.bulk_samples(groups, targets, samples, problems)
            }
            Err(error) => match targets {
                [] => Ok(()),
                [one] => {
                    if !error.is_vanished() {
                        problems.push((one.domain.clone(), error.to_string()));
                    }
                    Ok(())
                }
                many => {
                    for one in many {
                        self.bulk_samples(groups, &[*one], samples, problems)?;
                    }
                    Ok(())
                }
            },
        }
    }

    fn bulk_call(
        &mut self,
        groups: Groups,
        targets: &[&Target],
        samples: &mut Vec<Sample>,
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
            let Some((run, name)) = whose(&record, targets, place) else {
                continue;
            };
            let mut sample = Sample::new(run, name, at);
            let seen = bulk::fill(&mut sample, record.params(), at);
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

    /// Whether libvirt passed the domain's monitor by. A disk that cannot have counters tells nothing.
    pub(super) fn completeness(
        &self,
        sample: &Sample,
        groups: Groups,
        description: Option<&Description>,
    ) -> Completeness {
        let without_memory = groups.has(Groups::BALLOON) && sample.memory.rss.is_none();
        let without_disks = groups.has(Groups::BLOCK)
            && sample.disks.as_ref().is_some_and(|disks| {
                let uncounted = |disk: &&Device<5>| {
                    let mut known = description.iter().flat_map(|known| &known.disks);
                    known.any(|known| !known.counted && disk.name.as_ref() == Some(&known.target))
                };
                let silent = |disk: &Device<5>| disk.counters.iter().all(Option::is_none);
                // Usually the first one has counters, and that is all there is to look at.
                disks.list.iter().all(silent) && !disks.list.iter().all(|disk| uncounted(&disk))
            });
        if self.qemu && !is_incoming(sample) && (without_memory || without_disks) {
            Completeness::Partial
        } else {
            Completeness::Full
        }
    }
}

/// Whether the VM is being migrated in: in part is all there is.
pub(super) fn is_incoming(sample: &Sample) -> bool {
    let state = sample.state.zip(sample.reason);
    state.is_some_and(|state| INCOMING.contains(&state))
}

/// The target that is meant, most likely the one at `place`: what comes back has the order of what
/// was asked, but for those that are missing.
pub(super) fn find<'t>(
    targets: &[&'t Target],
    place: usize,
    is_it: impl Fn(&Target) -> bool,
) -> Option<&'t Target> {
    let expected = targets.get(place).filter(|target| is_it(target));
    let found = expected.or_else(|| targets.iter().find(|target| is_it(target)));
    found.copied()
}

/// The run that a record is of, and its name; `None` for a domain that is not active any more.
fn whose(record: &Record, targets: &[&Target], place: usize) -> Option<(RunId, SmolStr)> {
    let id = record.id()?;
    match find(targets, place, |target| target.domain.run.id == id) {
        Some(target) => Some((target.domain.run, target.domain.name.clone())),
        // Started anew since the list.
        None => {
            let domain = record.domain()?;
            let uuid = domain.uuid();
            Some((RunId { uuid, id }, domain.name().into()))
        }
    }
}
