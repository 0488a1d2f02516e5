//! What the operator is told of a gather: the same trouble once, then counted; its end, too.

use std::collections::{HashMap, HashSet};

use log::Level;
use uuid::Uuid;

use crate::config::Uri;
use crate::gather::job::Found;
use crate::gather::{Gathered, Trouble};
use crate::logging::Troubles;
use crate::sample::Run;

/// How many VMs a message names.
const NAMED: usize = 10;

/// Remembers what has been said.
#[derive(Debug)]
pub struct Reporter {
    uri: Uri,
    troubles: Troubles,
    /// VMs whose statistics could not be had.
    domains: HashSet<Uuid>,
    /// Mounts that do not answer, and the runs of VMs with a disk there.
    dead: HashMap<String, HashSet<Run>>,
}

impl Reporter {
    /// Nothing said yet.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            troubles: Troubles::default(),
            domains: HashSet::new(),
            dead: HashMap::new(),
        }
    }

    /// A VM is gone, and with it what was said of it.
    pub fn forget(&mut self, uuid: Uuid) {
        self.domains.remove(&uuid);
        self.troubles.clear(&uuid.to_string());
        self.troubles.clear(&description_key(uuid));
    }

    /// Says what there is to say.
    pub fn report(&mut self, gathered: &Gathered) {
        self.connection(gathered);
        if !gathered.reached {
            return;
        }
        self.refusals(gathered);
        self.single_domains(gathered);
        self.while_it_lasts(
            "late",
            (!gathered.missing.is_empty()).then(|| {
                let (names, hanging) = (names(&gathered.missing), gathered.hanging);
                format!("no answer in time from {names}; {hanging} calls hang")
            }),
            "all VMs answer in time again",
        );
        self.while_it_lasts(
            "locked",
            (!gathered.locked.is_empty()).then(|| {
                let names = names(&gathered.locked);
                format!("locked inside libvirtd, and left alone until they are not: {names}")
            }),
            "no VM is locked inside libvirtd any more",
        );
        let runs = |founds: &[Found]| founds.iter().map(|found| found.run).collect();
        let dead = gathered.dead.iter();
        let dead: HashMap<String, HashSet<Run>> = dead
            .map(|(mount, founds)| (mount.display().to_string(), runs(founds)))
            .collect();
        let sampled: HashSet<Run> = gathered.samples.iter().map(|sample| sample.run).collect();
        for (mount, before) in &self.dead {
            if dead.contains_key(mount) {
                continue;
            }
            // Nobody asks a mount that the last VM has left: whether it answers is not known.
            let left = before.is_disjoint(&sampled);
            if let Some(times) = self.troubles.clear(mount) {
                if left {
                    log::info!("no VM has a disk on {mount} any more, after {times} gathers");
                } else {
                    log::info!("{mount} answers again, after {times} gathers");
                }
            }
        }
        for (mount, founds) in &gathered.dead {
            let mount = mount.display().to_string();
            self.troubles.report(mount.clone(), Level::Warn, || {
                let names = names(founds);
                format!("{mount} does not answer, so the disks of these VMs are read one by one: {names}")
            });
        }
        self.dead = dead;
        self.while_it_lasts(
            "spent",
            gathered.spent.as_ref().map(|occupied| {
                let by = occupied
                    .as_ref()
                    .map(|found| format!("; longest occupied is the monitor of VM {}", found.name));
                format!(
                    "libvirtd has no worker to spare, so only state and network are gathered{}",
                    by.unwrap_or_default()
                )
            }),
            "libvirtd has workers to spare again",
        );
    }

    fn connection(&mut self, gathered: &Gathered) {
        let uri = &self.uri;
        let unreachable = gathered.troubles.iter().find_map(|trouble| match trouble {
            Trouble::Unreachable(error) => Some(error),
            _ => None,
        });
        if !gathered.reached {
            self.troubles.report("libvirt", Level::Warn, || match unreachable {
                Some(error) => {
                    let remedy = error.remedy(&uri.value);
                    format!("cannot reach libvirt at {uri}: {error}; {remedy}; trying again at every gather")
                }
                None => format!("libvirt at {uri} does not answer; trying again at every gather"),
            });
            return;
        }
        if let Some(times) = self.troubles.clear("libvirt") {
            log::info!("libvirt answers again after {times} gathers without");
        }
        let message = unreachable
            .map(|error| format!("some connections to libvirt at {uri} cannot be opened: {error}"));
        self.while_it_lasts(
            "connections",
            message,
            "all connections can be opened again",
        );
    }

    fn refusals(&mut self, gathered: &Gathered) {
        let refused = gathered.troubles.iter().find_map(|trouble| match trouble {
            Trouble::Refused(error) => Some(format!("libvirt refused: {error}")),
            _ => None,
        });
        self.while_it_lasts("refused", refused, "libvirt refuses no more");
    }

    fn single_domains(&mut self, gathered: &Gathered) {
        let mut now = HashSet::new();
        for trouble in &gathered.troubles {
            let (found, text, key) = match trouble {
                Trouble::Domain(found, text) => {
                    now.insert(found.run.uuid);
                    (found, text, found.run.uuid.to_string())
                }
                // An unreadable description is remembered, so it is met once only.
                Trouble::Description(found, text) => (found, text, description_key(found.run.uuid)),
                Trouble::Unreachable(_) | Trouble::Refused(_) => continue,
            };
            self.troubles.report(key, Level::Warn, || {
                format!("VM {} ({}): {text}", found.name, found.run.uuid)
            });
        }
        let before = std::mem::replace(&mut self.domains, now);
        for uuid in before.difference(&self.domains) {
            let gone = gathered.active.as_ref();
            let gone = gone.is_some_and(|active| !active.iter().any(|run| run.uuid == *uuid));
            if let Some(times) = self.troubles.clear(&uuid.to_string())
                && !gone
            {
                log::info!("VM {uuid}: its statistics come again, after {times} gathers without");
            }
        }
    }

    fn while_it_lasts(&mut self, key: &'static str, message: Option<String>, end: &str) {
        match message {
            Some(message) => self.troubles.report(key, Level::Warn, || message),
            None => {
                if let Some(times) = self.troubles.clear(key) {
                    log::info!("{end}, after {times} gathers");
                }
            }
        }
    }
}

fn description_key(uuid: Uuid) -> String {
    format!("description of {uuid}")
}

/// The first of them by name.
fn names(founds: &[Found]) -> String {
    let mut named: Vec<&str> = founds.iter().map(|found| found.name.as_str()).collect();
    named.sort_unstable();
    let more = named.len().saturating_sub(NAMED);
    named.truncate(NAMED);
    let named = named.join(", ");
    match more {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

#[cfg(test)]
mod tests;
