//! What a worker does on its connection, and what it has learnt of the driver behind it.

mod bulk;
mod descriptions;
mod extra;
mod statistics;

use std::collections::hash_map::Entry;
use std::sync::Arc;
use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use super::protocol::{DomainRef, Monitor, Request, Response, Target, WorkerConfig, WorkerRequest};
use crate::libvirt::bulk::Groups;
use crate::libvirt::{Connection, Domain, Error, per_call};
use crate::maps::{HashMap, HashSet};
use crate::sample::{RunId, Sample};
use crate::times::MONITOR_HELD;
use bulk::Bulk;
pub(super) use bulk::is_incoming;
use descriptions::describe;

/// One open connection with the handles that belong to it.
pub(super) struct Session {
    handles: HashMap<Uuid, Domain>,
    /// The last list, by libvirt's domain id.
    listed: HashMap<u32, DomainRef>,
    /// Whether an id means the same run for as long as the connection lasts: QEMU's driver and the
    /// test driver count ids up, other drivers use the id of a process or of the hypervisor.
    lasting_ids: bool,
    bulk: Bulk,
    /// The driver is QEMU's: its reply lacks the resident size where the monitor was skipped.
    qemu: bool,
    cpu: per_call::CpuSource,
    disk_call: per_call::DiskCall,
    /// NICs of which libvirt has no counters by MAC address.
    uncounted: HashSet<(RunId, SmolStr)>,
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
            disk_call: per_call::DiskCall::default(),
            uncounted: HashSet::default(),
            connection,
        }
    }

    /// Makes the call; what comes one by one is passed to `tell` as it comes.
    pub(super) fn perform(
        &mut self,
        config: &WorkerConfig,
        request: &WorkerRequest,
        tell: &dyn Fn(Response),
    ) -> Result<Response, Error> {
        match request {
            Request::List => self.list(),
            Request::Describe(domains) => self.describe(config, domains, tell),
            Request::Canary(domain) => {
                if let Some(handle) = self.handle(domain.run.uuid)? {
                    unless_gone(handle.info())?;
                }
                Ok(Response::Done)
            }
            Request::Statistics { of, scope, active } => {
                self.statistics(config, of, *scope, *active)
            }
            Request::Disks(target) => self.disks(config, target),
            Request::Extra(domains) => self.extra(config, domains),
            Request::Probe(domains) => self.probe(domains, tell),
            Request::Priority(targets) => self.priority(config, targets, tell),
        }
    }

    fn list(&mut self) -> Result<Response, Error> {
        let handles = self.connection.active_domains()?;
        let room = HashMap::with_capacity_and_hasher(handles.len(), Default::default());
        let mut before = std::mem::replace(&mut self.listed, room);
        if !self.lasting_ids {
            before.clear();
            self.handles.clear();
        }
        let mut new = Vec::new();
        for handle in handles {
            // A domain that has stopped since libvirt made the list has no id.
            let Some(id) = handle.id() else { continue };
            let domain = before.remove(&id).unwrap_or_else(|| {
                let uuid = handle.uuid();
                let (run, name) = (RunId { uuid, id }, handle.name().into());
                new.push((uuid, handle));
                DomainRef { run, name }
            });
            self.listed.insert(id, domain);
        }
        for gone in before.values() {
            self.handles.remove(&gone.run.uuid);
            self.uncounted.retain(|(run, _)| *run != gone.run);
        }
        self.handles.extend(new);
        Ok(Response::Domains(self.listed.values().cloned().collect()))
    }

    /// The domain's handle on this connection; `None` when the domain is gone.
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
        config: &WorkerConfig,
        domains: &[DomainRef],
        tell: &dyn Fn(Response),
    ) -> Result<Response, Error> {
        for domain in domains {
            let Some(handle) = self.handle(domain.run.uuid)? else {
                continue;
            };
            match handle.monitor() {
                Ok(Monitor::Occupied(time)) if time >= MONITOR_HELD => {
                    tell(Response::MonitorHeld(domain.run.uuid));
                    continue;
                }
                Err(error) if error.is_transport() => return Err(error),
                // Drivers other than QEMU's do not know.
                Ok(_) | Err(_) => {}
            }
            match describe(handle, None, config) {
                Ok((described, problem)) => {
                    tell(Response::Described(
                        domain.run,
                        Arc::new(described),
                        problem,
                    ));
                }
                Err(error) if error.is_transport() => return Err(error),
                Err(error) if error.is_vanished() => {}
                Err(error) => tell(Response::Undescribed(domain.clone(), error.to_string())),
            }
        }
        Ok(Response::Done)
    }

    fn disks(&mut self, config: &WorkerConfig, target: &Target) -> Result<Response, Error> {
        let run = target.domain.run;
        let Some(description) = target.known.description().cloned() else {
            return Ok(Response::Done);
        };
        let mut call = self.disk_call;
        let Some(handle) = self.handle(run.uuid)? else {
            return Ok(Response::Done);
        };
        let disks = per_call::disks(handle, &description, &config.devices, &mut call);
        self.disk_call = call;
        let disks = unless_gone(disks)?;
        Ok(disks.map_or(Response::Done, |disks| Response::Disks(run, disks)))
    }

    fn probe(&mut self, domains: &[DomainRef], tell: &dyn Fn(Response)) -> Result<Response, Error> {
        self.connection.lib_version()?;
        tell(Response::Alive);
        for domain in domains {
            let uuid = domain.run.uuid;
            let monitor = match self.handle(uuid)? {
                Some(handle) => match handle.monitor() {
                    Err(error) if error.is_transport() => return Err(error),
                    // The domain is gone, or the driver does not know.
                    other => other.unwrap_or(Monitor::Free),
                },
                None => Monitor::Free,
            };
            tell(Response::Control(uuid, monitor));
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
            let domain = &target.domain;
            let Some(handle) = self.handle(domain.run.uuid)? else {
                continue;
            };
            let mut sample = Sample::new(domain.run, domain.name.clone(), Instant::now());
            target.add_read(&mut sample);
            let description = target.known.description();
            let groups = target.unread(Groups::STATE | Groups::NET);
            let mut cpu = per_call::CpuSource::default();
            let filled = per_call::fill(
                &mut sample,
                handle,
                groups,
                description,
                &config.devices,
                &mut cpu,
                &mut per_call::DiskCall::default(),
            );
            // A domain that has stopped since the list has a state, too.
            let is_off = sample.state == Some(per_call::SHUTOFF);
            if unless_gone(filled)?.is_some() && !is_off {
                sample.describe(description, &config.devices);
                tell(Response::Priority(Box::new(sample)));
            }
        }
        Ok(Response::Done)
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
