//! What the operator is told of a gather: the same problem once, then counted; its end, too.

mod partial;

use std::time::Instant;

use log::Level;
use uuid::Uuid;

use crate::config::Uri;
use crate::gather::protocol::DomainRef;
use crate::gather::{GatherReport, Problem};
use crate::logging::Problems;
use crate::maps::HashSet;
use crate::times::MOUNT_ANSWERS;
use crate::wording::count;
use partial::Partial;

/// How many VMs a message names.
const NAMED: usize = 10;

/// Remembers what has been said.
#[derive(Debug)]
pub struct Reporter {
    uri: Uri,
    problems: Problems,
    /// VMs whose statistics could not be had.
    domains: HashSet<Uuid>,
    /// VMs whose figures come in part.
    partial: Partial,
    /// At the last gather disks were left out, for it was not known where all files lay.
    unknown_storage: bool,
    /// VMs whose disks were left out at the last gather, for a mount was slow.
    slow_storage: HashSet<Uuid>,
    /// Mounts that do not answer.
    dead: HashSet<String>,
}

impl Reporter {
    /// Nothing said yet.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            problems: Problems::default(),
            domains: HashSet::default(),
            partial: Partial::default(),
            unknown_storage: false,
            slow_storage: HashSet::default(),
            dead: HashSet::default(),
        }
    }

    /// A VM is gone, and with it what was said of it.
    pub fn forget(&mut self, uuid: Uuid) {
        self.domains.remove(&uuid);
        self.partial.forget(uuid);
        self.problems.clear(&uuid.to_string());
        self.problems.clear(&description_key(uuid));
    }

    /// Says what there is to say.
    pub fn report(&mut self, gathered: &GatherReport) {
        self.while_it_lasts(
            "threads",
            gathered.not_started.clone(),
            "all threads can be started again",
        );
        self.connection(gathered);
        if !gathered.reached {
            return;
        }
        self.refusals(gathered);
        self.while_it_lasts(
            "clients",
            gathered.limited_to.map(|most| {
                format!(
                    "libvirtd lets in fewer connections than this program wants; it uses at most {most} now, \
                     so that others get in, and tries more again in an hour: raise max_clients and \
                     max_anonymous_clients in libvirtd's configuration, or lower workers in this program's"
                )
            }),
            "libvirtd may let all connections in now",
        );
        self.single_domains(gathered);
        self.partial.report(gathered, Instant::now());
        self.while_it_lasts(
            "late",
            (!gathered.missing.is_empty()).then(|| {
                let (names, hanging) = (names_of(&gathered.missing), hanging(gathered.hanging));
                match gathered.cut {
                    Some(why) => format!("{why} before these VMs had answered: {names}"),
                    None => format!("no answer in time from {names}; {hanging}"),
                }
            }),
            "all VMs answer in time again",
        );
        self.while_it_lasts(
            "locked",
            (!gathered.locked.is_empty()).then(|| {
                let names = names_of(&gathered.locked);
                format!("locked inside libvirtd, and left alone until they are not: {names}")
            }),
            "no VM is locked inside libvirtd any more",
        );
        let dead: HashSet<String> = gathered
            .dead
            .keys()
            .map(|m| m.display().to_string())
            .collect();
        for mount in self.dead.difference(&dead) {
            if let Some(times) = self.problems.clear(mount) {
                log::info!("{mount} answers again, after {}", count(times, "gather"));
            }
        }
        for (mount, domains) in &gathered.dead {
            let mount = mount.display().to_string();
            self.problems.report(mount.clone(), Level::Warn, || {
                let names = names_of(domains);
                if gathered.disks_left_out {
                    format!(
                        "{mount} does not answer, and asking this version of libvirt for disks would \
                         stop the guests, so those of these VMs are left out: {names}"
                    )
                } else {
                    format!("{mount} does not answer, so the disks of these VMs are read one by one: {names}")
                }
            });
        }
        self.dead = dead;
        let unknown = &gathered.unknown_storage;
        // The first look may take longer on a busy machine.
        let lasts = std::mem::replace(&mut self.unknown_storage, !unknown.is_empty());
        self.while_it_lasts(
            "unknown storage",
            (!unknown.is_empty() && lasts).then(|| {
                format!(
                    "it is not known where all files of these VMs lie, and asking this version of \
                     libvirt for disks would stop the guests if that does not answer, so their disks \
                     are left out; block_statistics = \"bulk\" asks all the same: {}",
                    names_of(unknown)
                )
            }),
            "it is known where all files of all VMs lie",
        );
        self.slow_storage(&gathered.slow_storage);
        self.while_it_lasts(
            "saturated",
            gathered.saturated.as_ref().map(|occupied| {
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

    /// Once is no news: a mount that dies is called so from the second gather on, and a busy host is late.
    fn slow_storage(&mut self, slow: &[DomainRef]) {
        let now = slow.iter().map(|found| found.run.uuid).collect();
        let before = std::mem::replace(&mut self.slow_storage, now);
        let again = slow.iter().filter(|it| before.contains(&it.run.uuid));
        let again: Vec<&str> = again.map(|found| found.name.as_str()).collect();
        self.while_it_lasts(
            "slow storage",
            (!again.is_empty()).then(|| {
                format!(
                    "mounts of these VMs take longer than {} s to answer, too long to ask this version \
                     of libvirt for disks, which would stop the guests if they did not answer at all, so \
                     their disks are left out; block_statistics = \"bulk\" asks all the same: {}",
                    MOUNT_ANSWERS.as_secs_f64(),
                    names(again)
                )
            }),
            "no VM's disks are left out for a slow mount any more",
        );
    }

    fn connection(&mut self, gathered: &GatherReport) {
        let uri = &self.uri;
        let unreachable = gathered.problems.iter().find_map(|problem| match problem {
            Problem::Unreachable(error) => Some(error),
            _ => None,
        });
        if !gathered.reached {
            if unreachable.is_none() && gathered.unasked {
                return;
            }
            self.problems.report("libvirt", Level::Warn, || match unreachable {
                Some(error) => {
                    let remedy = error.remedy(&uri.value);
                    format!("cannot reach libvirt at {uri}: {error}; {remedy}; trying again at every gather")
                }
                None => match gathered.cut {
                    Some(why) => format!("{why} before libvirt at {uri} had answered"),
                    None => format!("libvirt at {uri} does not answer; trying again at every gather"),
                },
            });
            return;
        }
        if let Some(times) = self.problems.clear("libvirt") {
            let gathers = count(times, "gather");
            log::info!("libvirt answers again after {gathers} without");
        }
        let message = unreachable.map(|error| {
            format!("libvirt at {uri} opened no more connections in this gather: {error}")
        });
        self.while_it_lasts(
            "connections",
            message,
            "all connections can be opened again",
        );
    }

    fn refusals(&mut self, gathered: &GatherReport) {
        let refused = gathered.problems.iter().find_map(|problem| match problem {
            Problem::Refused(error) => Some(format!("libvirt refused: {error}")),
            _ => None,
        });
        self.while_it_lasts("refused", refused, "libvirt refuses no more");
    }

    fn single_domains(&mut self, gathered: &GatherReport) {
        let mut now = HashSet::default();
        for problem in &gathered.problems {
            let (found, text, key) = match problem {
                Problem::Domain(found, text) => {
                    now.insert(found.run.uuid);
                    (found, text, found.run.uuid.to_string())
                }
                // An unreadable description is remembered, so it is met once only.
                Problem::Description(found, text) => (found, text, description_key(found.run.uuid)),
                Problem::Unreachable(_) | Problem::Refused(_) => continue,
            };
            self.problems.report(key, Level::Warn, || {
                format!("VM {} ({}): {text}", found.name, found.run.uuid)
            });
        }
        let before = std::mem::replace(&mut self.domains, now);
        for uuid in before.difference(&self.domains) {
            let gone = gathered.active.as_ref();
            let gone = gone.is_some_and(|active| !active.iter().any(|run| run.uuid == *uuid));
            if let Some(times) = self.problems.clear(&uuid.to_string())
                && !gone
            {
                let gathers = count(times, "gather");
                log::info!("VM {uuid}: its statistics come again, after {gathers} without");
            }
        }
    }

    fn while_it_lasts(&mut self, key: &'static str, message: Option<String>, end: &str) {
        match message {
            Some(message) => self.problems.report(key, Level::Warn, || message),
            None => {
                if let Some(times) = self.problems.clear(key) {
                    log::info!("{end}, after {}", count(times, "gather"));
                }
            }
        }
    }
}

fn description_key(uuid: Uuid) -> String {
    format!("description of {uuid}")
}

/// `1 call hangs`, `2 calls hang`.
fn hanging(calls: usize) -> String {
    let verb = if calls == 1 { "hangs" } else { "hang" };
    format!("{} {verb}", count(calls as u64, "call"))
}

fn names_of(domains: &[DomainRef]) -> String {
    names(domains.iter().map(|found| found.name.as_str()))
}

/// The first of them.
fn names<'n>(all: impl IntoIterator<Item = &'n str>) -> String {
    let mut named: Vec<&str> = all.into_iter().collect();
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
