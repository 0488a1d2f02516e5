//! What a worker asks on its connection, and what it has learnt of the driver behind it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::worker::{Answer, Brief, Found, Measured, Target};
use crate::description::Description;
use crate::inventory::{Described, DeviceNames, Known};
use crate::libvirt::bulk::{self, Groups};
use crate::libvirt::{Connection, Domain, Error, Records, per_call};
use crate::sample::{Run, Sample};

/// virDomainState: running. Only such a domain shows what the driver's bulk reply can hold.
const RUNNING: i32 = 1;

/// One open connection with the handles that belong to it.
pub(super) struct Session {
    handles: HashMap<Uuid, Domain>,
    bulk: Bulk,
    pub(super) connection: Connection,
}

/// What the driver's bulk call can do; learnt by asking, once per connection.
#[derive(Debug, Clone, Copy)]
struct Bulk {
    /// lxc, libxl and ch have no bulk call.
    works: bool,
    /// vz and older test drivers refuse the flag.
    nowait: bool,
    /// Groups that the reply never holds, once a running domain has shown it.
    lacking: Option<Groups>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        Self {
            handles: HashMap::new(),
            bulk: Bulk {
                works: true,
                nowait: true,
                lacking: None,
            },
            connection,
        }
    }

    pub(super) fn list(&mut self) -> Result<Answer, Error> {
        let mut handles = HashMap::new();
        let mut found = Vec::new();
        for domain in self.connection.active_domains()? {
            // Between the list and its export a domain may have stopped: no id, not active.
            let Some(id) = domain.id() else { continue };
            let uuid = domain.uuid();
            found.push(Found {
                run: Run { uuid, id },
                name: domain.name(),
            });
            handles.insert(uuid, domain);
        }
        self.handles = handles;
        Ok(Answer::Domains(found))
    }

    pub(super) fn ask(
        &mut self,
        brief: &Brief,
        targets: &[Target],
        active: usize,
    ) -> Result<Answer, Error> {
        let mut present: Vec<&Target> = Vec::with_capacity(targets.len());
        for target in targets {
            let uuid = target.found.run.uuid;
            if let Entry::Vacant(slot) = self.handles.entry(uuid) {
                match self.connection.lookup(uuid) {
                    Ok(domain) => slot.insert(domain),
                    Err(error) if error.is_vanished() => continue,
                    Err(error) => return Err(error),
                };
            }
            present.push(target);
        }
        let mut samples = Vec::with_capacity(present.len());
        let mut troubles = Vec::new();
        self.bulk_samples(brief.groups, &present, &mut samples, &mut troubles)?;
        let lacking = self.lacking(brief.groups);
        let mut measured = Vec::with_capacity(samples.len());
        for sample in samples {
            let run = sample.run;
            let (Some(domain), Some(target)) = (
                self.handles.get(&run.uuid),
                present.iter().find(|t| t.found.run.uuid == run.uuid),
            ) else {
                continue;
            };
            match complete(sample, domain, target, lacking, brief) {
                Ok(one) => measured.push(one),
                Err(error) if error.is_transport() => return Err(error),
                Err(error) if error.is_vanished() => {}
                Err(error) => troubles.push((target.found.clone(), error.to_string())),
            }
        }
        // Each worker comes to hold a handle of every domain; those of domains that are gone go
        // when they are many.
        if self.handles.len() > 2 * active + 64 {
            let kept: HashSet<Uuid> = targets.iter().map(|t| t.found.run.uuid).collect();
            self.handles.retain(|uuid, _| kept.contains(uuid));
        }
        Ok(Answer::Samples(measured, troubles))
    }

    /// Groups that must come by per-call APIs here.
    fn lacking(&self, groups: Groups) -> Groups {
        if self.bulk.works {
            self.bulk.lacking.unwrap_or(Groups::NONE)
        } else {
            groups
        }
    }

    /// The bulk call for `targets`; where it fails as a whole, each domain in a call of its own,
    /// so that one that cannot be read costs nobody else.
    fn bulk_samples(
        &mut self,
        groups: Groups,
        targets: &[&Target],
        samples: &mut Vec<Sample>,
        troubles: &mut Vec<(Found, String)>,
    ) -> Result<(), Error> {
        if !self.bulk.works {
            let at = Instant::now();
            let found = targets.iter().map(|t| &t.found);
            samples.extend(found.map(|f| Sample::new(f.run, f.name.clone(), at)));
            return Ok(());
        }
        match self.bulk_call(groups, targets, samples) {
            Ok(()) => Ok(()),
            Err(error) if error.is_transport() => Err(error),
            Err(error) if self.bulk.nowait && error.is_refused_flag() => {
                self.bulk.nowait = false;
                self.bulk_samples(groups, targets, samples, troubles)
            }
            Err(error) if error.is_unsupported() => {
                self.bulk.works = false;
                self.bulk_samples(groups, targets, samples, troubles)
            }
            Err(error) => match targets {
                [] => Ok(()),
                [one] => {
                    if !error.is_vanished() {
                        troubles.push((one.found.clone(), error.to_string()));
                    }
                    Ok(())
                }
                many => {
                    for one in many {
                        self.bulk_samples(groups, &[*one], samples, troubles)?;
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
            .filter_map(|t| self.handles.get(&t.found.run.uuid))
            .collect();
        let flags = if self.bulk.nowait { bulk::NOWAIT } else { 0 };
        let start = Instant::now();
        let records = Records::get(&domains, groups.bits(), flags)?;
        let at = start + start.elapsed() / 2;
        for record in records.iter() {
            let (uuid, Some(id), name) = record.identity() else {
                continue;
            };
            let mut sample = Sample::new(Run { uuid, id }, name, at);
            let seen = bulk::fill(&mut sample, record.params(), at);
            let lacking = groups.without(seen);
            match &mut self.bulk.lacking {
                Some(known) => *known = known.without(seen),
                unknown if sample.state.is_none_or(|s| s == RUNNING) => *unknown = Some(lacking),
                _ => {}
            }
            samples.push(sample);
        }
        Ok(())
    }
}

/// Adds to a bulk sample what needs calls of its own, and the description.
fn complete(
    mut sample: Sample,
    domain: &Domain,
    target: &Target,
    lacking: Groups,
    brief: &Brief,
) -> Result<Measured, Error> {
    let mut trouble = None;
    let mut read = None;
    if brief.groups.has(Groups::NET) {
        let names = DeviceNames::of(&sample);
        let holds = matches!(&target.known, Known::Fresh(known) if !known.names.differ(&names));
        if !holds {
            match describe(domain, names) {
                Ok((described, unreadable)) => {
                    read = Some(Arc::new(described));
                    trouble = unreadable;
                }
                Err(error) if error.is_transport() || error.is_vanished() => return Err(error),
                Err(error) => trouble = Some(format!("its description cannot be had: {error}")),
            }
        }
    }
    let known = match &target.known {
        Known::Fresh(known) | Known::Stale(known) => Some(known),
        Known::New => None,
    };
    let description = read.as_ref().or(known).and_then(|d| d.description.as_ref());
    per_call::fill(&mut sample, domain, lacking, description, &brief.wanted)?;
    per_call::info(&mut sample, domain, lacking)?;
    sample.describe(description, &brief.wanted);
    Ok(Measured {
        sample,
        described: read,
        trouble,
    })
}

/// Reads the XML; beside it the trouble where it could not be understood.
fn describe(domain: &Domain, names: DeviceNames) -> Result<(Described, Option<String>), Error> {
    let read_at = Instant::now();
    let xml = domain.xml()?;
    let (description, trouble) = match Description::parse(&xml) {
        Ok(description) => (Some(description), None),
        Err(error) => (
            None,
            Some(format!("its description is unreadable: {error}")),
        ),
    };
    let described = Described {
        description,
        names,
        read_at,
    };
    Ok((described, trouble))
}

#[cfg(test)]
mod tests;
