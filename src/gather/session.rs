//! What a worker asks on its connection, and what it has learnt of the driver behind it.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::engine::{Came, Control, Scope};
use super::worker::{Answer, Brief, Found, Job, Measured, Target};
use crate::description::Description;
use crate::inventory::{Described, DeviceNames, Known};
use crate::libvirt::bulk::{self, Groups};
use crate::libvirt::{Connection, Domain, Error, Records, per_call};
use crate::sample::{Run, Sample};

/// virDomainState: running. Only such a domain shows what the driver's bulk reply can hold.
const RUNNING: i32 = 1;
/// Paused, by an incoming migration or by the start that precedes it: in part is all there is.
const INCOMING: [(i32, i32); 2] = [(3, 2), (3, 11)];

/// One open connection with the handles that belong to it.
pub(super) struct Session {
    handles: HashMap<Uuid, Domain>,
    bulk: Bulk,
    /// The driver is QEMU's: a reply without the resident size was given without the monitor.
    qemu: bool,
    cpu: per_call::CpuSource,
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
            qemu: connection.driver().as_deref() == Some("QEMU"),
            cpu: per_call::CpuSource::default(),
            connection,
        }
    }

    /// Does a job; what comes one by one is told as it comes.
    pub(super) fn perform(
        &mut self,
        brief: &Brief,
        job: &Job,
        tell: &dyn Fn(Answer),
    ) -> Result<Answer, Error> {
        match job {
            Job::List => self.list(),
            Job::Describe(founds) => self.describe(founds),
            Job::Canary(found) => {
                if let Some(domain) = self.handle(found.run.uuid)? {
                    unless_gone(domain.info())?;
                }
                Ok(Answer::Done)
            }
            Job::Ask {
                targets,
                scope,
                active,
            } => self.ask(brief, targets, *scope, *active),
            Job::Disks(target) => self.disks(brief, target),
            Job::Probe(founds) => self.probe(founds, tell),
            Job::Urgent(targets) => self.urgent(brief, targets, tell),
        }
    }

    fn list(&mut self) -> Result<Answer, Error> {
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

    /// The domain's handle on this connection; `None` when it is gone.
    fn handle(&mut self, uuid: Uuid) -> Result<Option<&Domain>, Error> {
        match self.handles.entry(uuid) {
            Entry::Occupied(held) => Ok(Some(held.into_mut())),
            Entry::Vacant(slot) => {
                let domain = unless_gone(self.connection.lookup(uuid))?;
                Ok(domain.map(|domain| &*slot.insert(domain)))
            }
        }
    }

    fn describe(&mut self, founds: &[Found]) -> Result<Answer, Error> {
        let mut read = Vec::with_capacity(founds.len());
        let mut troubles = Vec::new();
        for found in founds {
            let Some(domain) = self.handle(found.run.uuid)? else {
                continue;
            };
            match describe(domain, None) {
                Ok((described, trouble)) => {
                    read.push((found.run, Arc::new(described)));
                    troubles.extend(trouble.map(|trouble| (found.clone(), trouble)));
                }
                Err(error) if error.is_transport() => return Err(error),
                Err(error) if error.is_vanished() => {}
                Err(error) => troubles.push((found.clone(), error.to_string())),
            }
        }
        Ok(Answer::Described(read, troubles))
    }

    fn disks(&mut self, brief: &Brief, target: &Target) -> Result<Answer, Error> {
        let run = target.found.run;
        let Some(description) = target.known.description().cloned() else {
            return Ok(Answer::Done);
        };
        let Some(domain) = self.handle(run.uuid)? else {
            return Ok(Answer::Done);
        };
        let disks = unless_gone(per_call::disks(domain, &description, &brief.wanted))?;
        Ok(disks.map_or(Answer::Done, |disks| Answer::Disks(run, disks)))
    }

    fn probe(&mut self, founds: &[Found], tell: &dyn Fn(Answer)) -> Result<Answer, Error> {
        self.connection.ping()?;
        tell(Answer::Alive);
        for found in founds {
            let uuid = found.run.uuid;
            let occupied = match self.handle(uuid)? {
                Some(domain) => match domain.occupied() {
                    Err(error) if error.is_transport() => return Err(error),
                    // Gone, or a driver that cannot tell.
                    other => other.ok().flatten(),
                },
                None => None,
            };
            tell(Answer::Control(
                uuid,
                occupied.map_or(Control::Free, Control::Occupied),
            ));
        }
        Ok(Answer::Done)
    }

    fn urgent(
        &mut self,
        brief: &Brief,
        targets: &[Target],
        tell: &dyn Fn(Answer),
    ) -> Result<Answer, Error> {
        for target in targets {
            let found = &target.found;
            let Some(domain) = self.handle(found.run.uuid)? else {
                continue;
            };
            let mut sample = Sample::new(found.run, found.name.clone(), Instant::now());
            let description = target.known.description();
            let groups = Groups::STATE | Groups::NET;
            let mut cpu = per_call::CpuSource::default();
            let filled = per_call::fill(
                &mut sample,
                domain,
                groups,
                description,
                &brief.wanted,
                &mut cpu,
            );
            if unless_gone(filled)?.is_some() {
                sample.describe(description, &brief.wanted);
                tell(Answer::Urgent(Box::new(sample)));
            }
        }
        Ok(Answer::Done)
    }

    fn ask(
        &mut self,
        brief: &Brief,
        targets: &[Target],
        scope: Scope,
        active: usize,
    ) -> Result<Answer, Error> {
        let groups = match scope {
            Scope::Full => brief.groups,
            Scope::NoBlock => brief.groups.without(Groups::BLOCK),
            Scope::Quiet => brief.groups.without(Groups::MONITOR),
        };
        let mut present: Vec<&Target> = Vec::with_capacity(targets.len());
        for target in targets {
            if self.handle(target.found.run.uuid)?.is_some() {
                present.push(target);
            }
        }
        let mut samples = Vec::with_capacity(present.len());
        let mut troubles = Vec::new();
        self.bulk_samples(groups, &present, &mut samples, &mut troubles)?;
        let mut measured = Vec::with_capacity(samples.len());
        for sample in samples {
            let uuid = sample.run.uuid;
            if let Some(target) = present.iter().find(|t| t.found.run.uuid == uuid) {
                match self.complete(sample, target, groups, scope, brief) {
                    Ok(one) => measured.extend(one),
                    Err(error) if error.is_transport() => return Err(error),
                    Err(error) if error.is_vanished() => {}
                    Err(error) => troubles.push((target.found.clone(), error.to_string())),
                }
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
                // A call for fewer groups shows nothing of the others.
                unknown
                    if groups.has(Groups::BALLOON) && sample.state.is_none_or(|s| s == RUNNING) =>
                {
                    *unknown = Some(lacking);
                }
                _ => {}
            }
            samples.push(sample);
        }
        Ok(())
    }

    /// Adds to a bulk sample what needs calls of its own, and the description.
    fn complete(
        &mut self,
        mut sample: Sample,
        target: &Target,
        groups: Groups,
        scope: Scope,
        brief: &Brief,
    ) -> Result<Option<Measured>, Error> {
        let Some(domain) = self.handles.get(&sample.run.uuid) else {
            return Ok(None);
        };
        // Started anew since the list: what is known is of another run.
        let known = match sample.run == target.found.run {
            true => &target.known,
            false => &Known::New,
        };
        let (described, trouble) = freshen(domain, &sample, known, brief)?;
        let description = match &described {
            Some(read) => read.description.as_ref(),
            None => known.description(),
        };
        let came = self.came(&sample, groups);
        let mut lacking = if self.bulk.works {
            groups.and(self.bulk.lacking.unwrap_or(Groups::NONE))
        } else {
            groups
        };
        if scope == Scope::Quiet || (came == Came::Part && sample.cpu.user.is_none()) {
            // These need no monitor.
            lacking = lacking | brief.groups.and(Groups::CPU);
        }
        per_call::fill(
            &mut sample,
            domain,
            lacking,
            description,
            &brief.wanted,
            &mut self.cpu,
        )?;
        if brief.info {
            per_call::info(&mut sample, domain, self.cpu)?;
        }
        if scope == Scope::Quiet && self.qemu {
            // The balloon's size is one counter there, whoever is asked for it.
            sample.memory.actual = sample.memory.current;
        }
        sample.describe(description, &brief.wanted);
        Ok(Some(Measured {
            sample,
            came,
            described,
            trouble,
        }))
    }

    /// Whether libvirt passed the domain's monitor by.
    fn came(&self, sample: &Sample, groups: Groups) -> Came {
        let incoming = sample.state.zip(sample.reason);
        let incoming = incoming.is_some_and(|state| INCOMING.contains(&state));
        let without_memory = groups.has(Groups::BALLOON) && sample.memory.rss.is_none();
        let without_disks = groups.has(Groups::BLOCK)
            && sample.disks.as_ref().is_some_and(|disks| {
                let silent = |c: &[Option<u64>; 5]| c.iter().all(Option::is_none);
                !disks.list.is_empty() && disks.list.iter().all(|d| silent(&d.counters))
            });
        if self.qemu && !incoming && (without_memory || without_disks) {
            Came::Part
        } else {
            Came::Whole
        }
    }
}

/// A domain that is gone is no error.
fn unless_gone<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_vanished() => Ok(None),
        Err(error) => Err(error),
    }
}

/// Reads the XML where the cached description does not hold any more.
fn freshen(
    domain: &Domain,
    sample: &Sample,
    known: &Known,
    brief: &Brief,
) -> Result<(Option<Arc<Described>>, Option<String>), Error> {
    if !brief.groups.has(Groups::NET) {
        return Ok((None, None));
    }
    let names = DeviceNames::of(sample);
    if let Known::Fresh(known) = known {
        match &known.names {
            Some(before) if !before.differ(&names) => return Ok((None, None)),
            Some(_) => {}
            None => {
                // Described a moment ago, before any statistics: these are the names.
                let described = Described {
                    names: Some(names),
                    ..Described::clone(known)
                };
                return Ok((Some(Arc::new(described)), None));
            }
        }
    }
    match describe(domain, Some(names)) {
        Ok((described, trouble)) => Ok((Some(Arc::new(described)), trouble)),
        Err(error) if error.is_transport() || error.is_vanished() => Err(error),
        Err(error) => Ok((
            None,
            Some(format!("its description cannot be had: {error}")),
        )),
    }
}

/// Reads the XML; beside it the trouble where it could not be understood.
fn describe(
    domain: &Domain,
    names: Option<DeviceNames>,
) -> Result<(Described, Option<String>), Error> {
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
