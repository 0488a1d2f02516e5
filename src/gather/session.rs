//! What a worker asks on its connection, and what it has learnt of the driver behind it.

mod bulk;
mod descriptions;

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use uuid::Uuid;

use super::protocol::{
    Completeness, Control, DomainRef, Measured, Request, Response, Scope, Target, WorkerConfig,
    WorkerRequest,
};
use crate::description_cache::Known;
use crate::libvirt::bulk::Groups;
use crate::libvirt::{Connection, Domain, Error, Monitor, per_call};
use crate::maps::{HashMap, HashSet};
use crate::sample::{RunId, Sample};
use crate::times::MONITOR_HELD;
use bulk::{Bulk, find, is_incoming};
use descriptions::{describe, freshen};

/// One open connection with the handles that belong to it.
pub(super) struct Session {
    handles: HashMap<Uuid, Domain>,
    /// The last list, by id,
    listed: HashMap<u32, DomainRef>,
    /// and whether an id means the same run for as long as the connection stands: QEMU's driver and
    /// the test driver count them up, others take a process's number or the hypervisor's.
    lasting_ids: bool,
    bulk: Bulk,
    /// The driver is QEMU's: a reply without the resident size was given without the monitor.
    qemu: bool,
    cpu: per_call::CpuSource,
    pub(super) connection: Connection,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        let driver = connection.driver();
        let driver = driver.as_deref();
        Self {
            handles: HashMap::default(),
            listed: HashMap::default(),
            lasting_ids: matches!(driver, Some("QEMU" | "TEST")),
            bulk: Bulk::default(),
            qemu: driver == Some("QEMU"),
            cpu: per_call::CpuSource::default(),
            connection,
        }
    }

    /// Does a job; what comes one by one is told as it comes.
    pub(super) fn perform(
        &mut self,
        config: &WorkerConfig,
        request: &WorkerRequest,
        tell: &dyn Fn(Response),
    ) -> Result<Response, Error> {
        match request {
            Request::List => self.list(),
            Request::Describe(domains) => self.describe(domains, tell),
            Request::Canary(found) => {
                if let Some(domain) = self.handle(found.run.uuid)? {
                    unless_gone(domain.info())?;
                }
                Ok(Response::Done)
            }
            Request::Statistics { of, scope, active } => {
                self.statistics(config, of, *scope, *active)
            }
            Request::Disks(target) => self.disks(config, target),
            Request::Probe(domains) => self.probe(domains, tell),
            Request::Priority(targets) => self.priority(config, targets, tell),
        }
    }

    fn list(&mut self) -> Result<Response, Error> {
        let domains = self.connection.active_domains()?;
        let room = HashMap::with_capacity_and_hasher(domains.len(), Default::default());
        let mut before = std::mem::replace(&mut self.listed, room);
        if !self.lasting_ids {
            before.clear();
            self.handles.clear();
        }
        let mut new = Vec::new();
        for domain in domains {
            // Between the list and its export a domain may have stopped: no id, not active.
            let Some(id) = domain.id() else { continue };
            let found = before.remove(&id).unwrap_or_else(|| {
                let uuid = domain.uuid();
                let (run, name) = (RunId { uuid, id }, domain.name().into());
                new.push((uuid, domain));
                DomainRef { run, name }
            });
            self.listed.insert(id, found);
        }
        for gone in before.values() {
            self.handles.remove(&gone.run.uuid);
        }
        self.handles.extend(new);
        Ok(Response::Domains(self.listed.values().cloned().collect()))
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

    fn describe(
        &mut self,
        domains: &[DomainRef],
        tell: &dyn Fn(Response),
    ) -> Result<Response, Error> {
        for found in domains {
            let Some(domain) = self.handle(found.run.uuid)? else {
                continue;
            };
            match domain.monitor() {
                Ok(Monitor::Occupied(time)) if time >= MONITOR_HELD => {
                    tell(Response::MonitorHeld(found.run.uuid));
                    continue;
                }
                Err(error) if error.is_transport() => return Err(error),
                // Other drivers than QEMU's cannot tell.
                Ok(_) | Err(_) => {}
            }
            match describe(domain, None) {
                Ok((described, problem)) => {
                    tell(Response::Described(found.run, Arc::new(described), problem));
                }
                Err(error) if error.is_transport() => return Err(error),
                Err(error) if error.is_vanished() => {}
                Err(error) => tell(Response::Undescribed(found.clone(), error.to_string())),
            }
        }
        Ok(Response::Done)
    }

    fn disks(&mut self, config: &WorkerConfig, target: &Target) -> Result<Response, Error> {
        let run = target.domain.run;
        let Some(description) = target.known.description().cloned() else {
            return Ok(Response::Done);
        };
        let Some(domain) = self.handle(run.uuid)? else {
            return Ok(Response::Done);
        };
        let disks = unless_gone(per_call::disks(domain, &description, &config.wanted))?;
        Ok(disks.map_or(Response::Done, |disks| Response::Disks(run, disks)))
    }

    fn probe(&mut self, domains: &[DomainRef], tell: &dyn Fn(Response)) -> Result<Response, Error> {
        self.connection.lib_version()?;
        tell(Response::Alive);
        for found in domains {
            let uuid = found.run.uuid;
            let monitor = match self.handle(uuid)? {
                Some(domain) => match domain.monitor() {
                    Err(error) if error.is_transport() => return Err(error),
                    // Gone, or a driver that cannot tell.
                    other => other.unwrap_or(Monitor::Free),
                },
                None => Monitor::Free,
            };
            let control = match monitor {
                Monitor::Free => Control::Free,
                Monitor::Occupied(time) => Control::Occupied(time),
                Monitor::Job => Control::Job,
            };
            tell(Response::Control(uuid, control));
        }
        Ok(Response::Done)
    }

    fn priority(
        &mut self,
        config: &WorkerConfig,
        targets: &[Target],
        tell: &dyn Fn(Response),
    ) -> Result<Response, Error> {
        for target in targets {
            let found = &target.domain;
            let Some(domain) = self.handle(found.run.uuid)? else {
                continue;
            };
            let mut sample = Sample::new(found.run, found.name.clone(), Instant::now());
            target.add_read(&mut sample);
            let description = target.known.description();
            let groups = target.unread(Groups::STATE | Groups::NET);
            let mut cpu = per_call::CpuSource::default();
            let filled = per_call::fill(
                &mut sample,
                domain,
                groups,
                description,
                &config.wanted,
                &mut cpu,
            );
            // Stopped since the list: a domain that is off has a state, too.
            let is_off = sample.state == Some(per_call::SHUTOFF);
            if unless_gone(filled)?.is_some() && !is_off {
                sample.describe(description, &config.wanted);
                tell(Response::Priority(Box::new(sample)));
            }
        }
        Ok(Response::Done)
    }

    fn statistics(
        &mut self,
        config: &WorkerConfig,
        targets: &[Target],
        scope: Scope,
        active: usize,
    ) -> Result<Response, Error> {
        let groups = match scope {
            Scope::Full => config.groups,
            Scope::NoBlock => config.groups.without(Groups::BLOCK),
            Scope::NoMonitor => config.groups.without(Groups::MONITOR),
        };
        let mut present: Vec<&Target> = Vec::with_capacity(targets.len());
        for target in targets {
            if self.handle(target.domain.run.uuid)?.is_some() {
                present.push(target);
            }
        }
        let mut samples = Vec::with_capacity(present.len());
        let mut problems = Vec::new();
        // Whom the same is to be asked of goes together.
        let mut batches: Vec<(Groups, Vec<&Target>)> = Vec::new();
        for target in &present {
            let unread = target.unread(groups);
            match batches.iter_mut().find(|(groups, _)| *groups == unread) {
                Some((_, batch)) => batch.push(target),
                None => batches.push((unread, vec![target])),
            }
        }
        for (groups, batch) in &batches {
            self.bulk_samples(*groups, batch, &mut samples, &mut problems)?;
        }
        let mut measured = Vec::with_capacity(samples.len());
        for (place, sample) in samples.into_iter().enumerate() {
            let uuid = sample.run.uuid;
            if let Some(target) = find(&present, place, |t| t.domain.run.uuid == uuid) {
                match self.complete(sample, target, groups, scope, config) {
                    Ok(one) => measured.extend(one),
                    Err(error) if error.is_transport() => return Err(error),
                    Err(error) if error.is_vanished() => {}
                    Err(error) => problems.push((target.domain.clone(), error.to_string())),
                }
            }
        }
        // Each worker comes to hold a handle of every domain; those of domains that are gone go
        // when they are many.
        if self.handles.len() > 2 * active + 64 {
            let kept: HashSet<Uuid> = targets.iter().map(|t| t.domain.run.uuid).collect();
            self.handles.retain(|uuid, _| kept.contains(uuid));
        }
        Ok(Response::Samples(measured, problems))
    }

    /// Adds to a bulk sample what needs calls of its own, and the description.
    fn complete(
        &mut self,
        mut sample: Sample,
        target: &Target,
        groups: Groups,
        scope: Scope,
        config: &WorkerConfig,
    ) -> Result<Option<Measured>, Error> {
        let Some(domain) = self.handles.get(&sample.run.uuid) else {
            return Ok(None);
        };
        let asked = target.unread(groups);
        let mut unasked = Groups::NONE;
        let mut known = &target.known;
        if sample.run == target.domain.run {
            target.add_read(&mut sample);
        } else {
            // Started anew since the list: what is known is of another run.
            known = &Known::New;
            unasked = groups.without(asked);
        }
        let completeness = match scope {
            Scope::NoMonitor if self.qemu && is_incoming(&sample) => Completeness::Full,
            Scope::NoMonitor => Completeness::Partial,
            Scope::Full | Scope::NoBlock => self.completeness(&sample, groups, known.description()),
        };
        // Somebody has the job of a domain that came in part, or is migrated in, and from libvirt 11.0
        // on reading its XML waits for that, up to 30 s: what is known of it must do.
        let held = completeness == Completeness::Partial
            || scope == Scope::NoMonitor
            || self.qemu && is_incoming(&sample);
        let (described, problem) = if held {
            (None, None)
        } else {
            freshen(domain, &sample, known, config)?
        };
        let outdated = described.is_none() && known.is_outdated(&sample);
        let description = match &described {
            Some(read) => read.description.as_ref(),
            None => known.description(),
        };
        let lacking = if self.bulk.works {
            asked.and(self.bulk.lacking)
        } else {
            asked
        };
        let mut lacking = lacking | unasked;
        if (scope == Scope::NoMonitor || completeness == Completeness::Partial)
            && sample.cpu.user.is_none()
        {
            // These need no monitor.
            lacking = lacking | config.groups.and(Groups::CPU);
        }
        let mut source = self.cpu;
        per_call::fill(
            &mut sample,
            domain,
            lacking,
            description,
            &config.wanted,
            &mut source,
        )?;
        self.cpu = self
            .cpu
            .after(source, self.qemu && completeness == Completeness::Partial);
        // Its sizes are in the balloon's group, too.
        let has_info = sample.vcpus.is_some() && sample.memory.current.is_some();
        if config.info && !has_info {
            per_call::info(&mut sample, domain, self.cpu)?;
        }
        if scope == Scope::NoMonitor && self.qemu {
            // The balloon's size is one counter there, whoever is asked for it.
            sample.memory.actual = sample.memory.current;
        }
        sample.describe(description, &config.wanted);
        Ok(Some(Measured {
            sample,
            completeness,
            described,
            outdated,
            problem,
        }))
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

#[cfg(test)]
mod tests;
