//! Shut-off VMs: what libvirt knows of them without an image or a process to look at.

use smol_str::SmolStr;
use uuid::Uuid;

use super::worker;
use crate::config::NameFilter;
use crate::libvirt::bulk::{self, Groups};
use crate::libvirt::per_call::SHUTOFF;
use crate::libvirt::{Connection, Domain, Error, Records};
use crate::maps::HashMap;

/// How many VMs are asked for by one call: a call that waits for a locked VM shall not hold the locks of many others.
const CHUNK: usize = 32;

/// The states of a domain that does not run (virDomainState): shut off, crashed.
const OFF: [i32; 2] = [SHUTOFF, 6];

/// A shut-off VM.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct InactiveVm {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: SmolStr,
    /// Whether it starts with the host.
    pub autostart: bool,
    /// The state (virDomainState).
    pub state: Option<i32>,
    /// The reason for the state.
    pub reason: Option<i32>,
    /// The memory that it can have, KiB.
    pub memory: Option<u64>,
    /// The vCPUs that it starts with.
    pub vcpus: Option<u64>,
}

/// A connection, and what the driver behind it has.
pub(super) struct Session {
    connection: Connection,
    /// The VMs that are wanted.
    names: NameFilter,
    /// There is a bulk call.
    has_bulk: bool,
    /// The flags of the bulk call: vz and test refuse NOWAIT.
    flags: u32,
}

impl Session {
    pub(super) fn new(connection: Connection, names: NameFilter) -> Self {
        Self {
            connection,
            names,
            has_bulk: true,
            flags: bulk::NOWAIT,
        }
    }

    /// The bulk statistics of these domains, by UUID; those of a domain that runs by now are left out.
    fn bulk(&mut self, domains: &[&Domain]) -> Result<HashMap<Uuid, bulk::Defined>, Error> {
        // None of these groups needs a process or an image of a shut-off VM: libvirt has all in memory.
        let groups = Groups::STATE | Groups::BALLOON | Groups::VCPU;
        match Records::get(domains, groups.bits(), self.flags) {
            Ok(records) => {
                let inactive = records.iter().filter(|record| record.id().is_none());
                let defined = inactive.filter_map(|record| {
                    let uuid = record.domain()?.uuid();
                    Some((uuid, bulk::Defined::of(record.params())))
                });
                Ok(defined.collect())
            }
            Err(error) if self.flags != 0 && error.is_refused_flag() => {
                self.flags = 0;
                self.bulk(domains)
            }
            Err(error) if error.is_unsupported() => {
                self.has_bulk = false;
                Ok(HashMap::default())
            }
            Err(error) if error.is_transport() => Err(error),
            // One of them cannot be read: each gets calls of its own.
            Err(_) => Ok(HashMap::default()),
        }
    }
}

impl worker::Session for Session {
    type Request = ();
    type Answer = Vec<InactiveVm>;

    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn answer(&mut self, (): &()) -> Result<Vec<InactiveVm>, Error> {
        let mut vms = Vec::new();
        for autostart in [true, false] {
            let domains = self.connection.inactive_domains(autostart)?;
            let named = domains.into_iter().map(|domain| (domain.name(), domain));
            let wanted: Vec<_> = named.filter(|(name, _)| self.names.matches(name)).collect();
            for chunk in wanted.chunks(CHUNK) {
                let handles: Vec<&Domain> = chunk.iter().map(|(_, domain)| domain).collect();
                let mut bulk = match self.has_bulk {
                    true => self.bulk(&handles)?,
                    false => HashMap::default(),
                };
                for (name, domain) in chunk {
                    let uuid = domain.uuid();
                    let known = bulk.remove(&uuid).unwrap_or_default();
                    let Some(defined) = completed(domain, known)? else {
                        continue;
                    };
                    vms.push(InactiveVm {
                        uuid,
                        name: name.into(),
                        autostart,
                        state: defined.state,
                        reason: defined.reason,
                        memory: defined.memory,
                        vcpus: defined.vcpus,
                    });
                }
            }
        }
        Ok(vms)
    }
}

/// Adds by single calls what the driver's bulk call lacks; `None` if the domain is gone or runs.
fn completed(domain: &Domain, mut known: bulk::Defined) -> Result<Option<bulk::Defined>, Error> {
    let lost = |error: Error| match error.is_transport() {
        true => Err(error),
        false => Ok(None),
    };
    if known.state.is_none() {
        match domain.state() {
            Ok((state, reason)) => (known.state, known.reason) = (Some(state), Some(reason)),
            Err(error) => return lost(error),
        }
    }
    if !known.state.is_some_and(|state| OFF.contains(&state)) {
        return Ok(None);
    }
    if known.memory.is_none() || known.vcpus.is_none() {
        match domain.info() {
            Ok(info) => {
                known.memory = known.memory.or(Some(info.maxMem));
                known.vcpus = known.vcpus.or(Some(info.nrVirtCpu.into()));
            }
            Err(error) => return lost(error),
        }
    }
    Ok(Some(known))
}
