//! Tells the operator about a gather: a problem once when it begins, then only counted, and its end.

mod connection;
mod endings;
mod inventory;
mod io_errors;
mod lasting;
mod left_out;
mod line_cap;
mod partial;
mod storage;

use std::time::{Duration, Instant};

use log::Level;
use uuid::Uuid;

use crate::config::Uri;
use crate::gather::protocol::DomainRef;
use crate::gather::{DeviceLeftOut, GatherReport, Problem};
use crate::logging::Problems;
use crate::maps::HashSet;
use crate::sample::RunId;
use crate::wording::{count, first_names};
use lasting::Lasting;
use left_out::LeftOut;
use partial::Partial;

/// What to do about a VM that is known to be stuck. To end its QEMU is the last step of the document, with what that
/// costs, and stands in no message.
pub(crate) const UNANSWERING: &str = "\"virsh domcontrol VM\" says since when its monitor is in use; let its QEMU go on \
     (kill -CONT, or thaw its control group): docs/troubleshooting.md has the steps";

/// What to do about VMs without an answer. They may be healthy: while libvirtd is frozen or busy, those that it was not
/// asked for are among them.
pub(crate) const UNHEARD: &str =
    "see first whether libvirtd answers (\"virsh list\"): docs/troubleshooting.md has the steps";

/// Remembers what has been reported.
#[derive(Debug)]
pub struct Reporter {
    uri: Uri,
    problems: Problems,
    /// VMs whose statistics could not be read in the last gather.
    domains: HashSet<Uuid>,
    /// VMs whose figures come in part.
    partial: Partial,
    /// VMs that are locked inside libvirtd.
    locked: Lasting,
    /// Whether disks were left out in the last gather because their mounts are unknown.
    unknown_storage: bool,
    /// VMs whose disks were left out in the last gather because a mount was slow.
    slow_storage: HashSet<Uuid>,
    /// Mounts that did not answer in the last gather.
    dead: HashSet<String>,
    /// Runs that go on, or stay as crashed, after their guest panicked.
    panicked: HashSet<RunId>,
    /// What was left out of the last gather.
    left_out: LeftOut,
    /// How much `max_lines` left out of the last gather ([`Capped::step`]).
    ///
    /// [`Capped::step`]: crate::measurements::line_cap::Capped::step
    line_cap_step: usize,
    /// VMs without the figures that need calls of their own, in the last gather. `None`: there is one gather only.
    without_extra: Option<HashSet<Uuid>>,
    /// How long what is asked beside the gather must be silent before that is reported.
    silence: Duration,
    /// Whether libvirt's first answer has been reported.
    started: bool,
}

impl Reporter {
    /// A reporter for libvirt at `uri` that has reported nothing yet.
    pub fn new(uri: Uri) -> Self {
        Self {
            uri,
            problems: Problems::default(),
            domains: HashSet::default(),
            partial: Partial::default(),
            locked: Lasting::default(),
            unknown_storage: false,
            slow_storage: HashSet::default(),
            dead: HashSet::default(),
            panicked: HashSet::default(),
            left_out: LeftOut::default(),
            line_cap_step: 0,
            without_extra: Some(HashSet::default()),
            silence: lasting::MOMENT,
            started: false,
        }
    }

    /// A reporter for a program that gathers once: the line of the start is left out, and what a single gather shows
    /// is told at once.
    pub fn of_one_gather(uri: Uri) -> Self {
        Self {
            partial: Partial::without_delay(),
            locked: Lasting::without_delay(),
            without_extra: None,
            silence: Duration::ZERO,
            started: true,
            ..Self::new(uri)
        }
    }

    /// Forgets what was reported of a VM that is gone.
    pub fn forget(&mut self, uuid: Uuid) {
        self.domains.remove(&uuid);
        self.partial.forget(uuid);
        self.locked.forget(uuid);
        self.problems.clear(&uuid.to_string());
        self.problems.clear(&description_key(uuid));
        self.panicked.retain(|run| run.uuid != uuid);
    }

    /// Logs what began and what ended with this gather.
    pub fn report(&mut self, report: &GatherReport) {
        self.while_it_lasts(
            "threads",
            report.not_started.clone(),
            "all threads can be started again",
        );
        self.connection(report);
        self.endings(report);
        io_errors::report(&report.io_errors);
        if !report.reached {
            return;
        }
        self.start(report);
        self.refusals(report);
        self.while_it_lasts(
            "clients",
            report.limited_to.map(too_few_clients),
            "all connections to libvirtd are tried again",
        );
        self.single_domains(report);
        self.partial.report(report, Instant::now());
        self.late_and_locked(report);
        self.dead_mounts(report);
        self.unknown_storage(&report.unknown_storage);
        self.slow_storage(&report.slow_storage);
        let without_extra_again = self.without_extra_again(&report.without_extra);
        self.while_it_lasts(
            "extra",
            without_extra(&without_extra_again),
            "the figures that need calls of their own come of all VMs again",
        );
        self.while_it_lasts(
            "saturated",
            report.saturated.as_ref().map(|by| saturated(by.as_ref())),
            "libvirtd has free workers again",
        );
        self.while_it_lasts(
            "calls used up",
            report.calls_used_up.then(|| {
                format!(
                    "{}, as many as max_calls allows, so only state and network of the VMs are gathered; see \
                     which QEMU does not answer and why, or raise max_calls",
                    hanging(report.hanging)
                )
            }),
            "there is room for calls again",
        );
    }

    /// Logs at debug level what is left out of the figures, when that has changed. `devices` are those without a line,
    /// `without_memory` the VMs of which no memory figure of the guest came.
    pub fn left_out(
        &mut self,
        report: &GatherReport,
        devices: &[DeviceLeftOut],
        without_memory: &[DomainRef],
    ) {
        self.left_out.report(report, devices, without_memory);
    }

    /// The VMs that lack these figures for the second gather in succession: one call that is late is not worth a message.
    fn without_extra_again(&mut self, now: &[DomainRef]) -> Vec<DomainRef> {
        let Some(last) = &mut self.without_extra else {
            return now.to_vec();
        };
        let uuids = now.iter().map(|domain| domain.run.uuid).collect();
        let before = std::mem::replace(last, uuids);
        let again = now
            .iter()
            .filter(|domain| before.contains(&domain.run.uuid));
        again.cloned().collect()
    }

    fn single_domains(&mut self, report: &GatherReport) {
        let mut now = HashSet::default();
        for problem in &report.problems {
            let (domain, text, key) = match problem {
                Problem::Domain(domain, text) => {
                    now.insert(domain.run.uuid);
                    (domain, text, domain.run.uuid.to_string())
                }
                // An unreadable description is cached as such, so this comes in one gather only.
                Problem::Description(domain, text) => {
                    (domain, text, description_key(domain.run.uuid))
                }
                Problem::Unreachable(_) | Problem::Refused(_) => continue,
            };
            self.problems.report(key, Level::Warn, || {
                format!("VM {} ({}): {text}", domain.name, domain.run.uuid)
            });
        }
        let before = std::mem::replace(&mut self.domains, now);
        for uuid in before.difference(&self.domains) {
            let is_gone = report
                .active
                .as_ref()
                .is_some_and(|active| !active.iter().any(|run| run.uuid == *uuid));
            if let Some(times) = self.problems.clear(&uuid.to_string())
                && !is_gone
            {
                let gathers = count(times, "gather");
                log::info!("VM {uuid}: its statistics come again, after {gathers} without");
            }
        }
    }

    fn late_and_locked(&mut self, report: &GatherReport) {
        self.while_it_lasts("late", late(report), "all VMs answer in time again");
        let locked = locked(&self.locked.of(&report.locked, Instant::now()));
        self.while_it_lasts("locked", locked, "no VM is locked inside libvirtd any more");
    }

    /// Reports `message` once and counts it while there is one; logs `end` when there is none any more.
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

/// The VMs without an answer, if there are any.
fn late(report: &GatherReport) -> Option<String> {
    if report.missing.is_empty() {
        return None;
    }
    let names = names_of(&report.missing);
    Some(match report.cut {
        Some(why) => format!("{why} before these VMs had answered: {names}"),
        None => format!(
            "no answer in time from these VMs: {names}; {}; {UNHEARD}",
            hanging(report.hanging)
        ),
    })
}

/// The VMs that are locked inside libvirtd, if there are any.
fn locked(domains: &[DomainRef]) -> Option<String> {
    if domains.is_empty() {
        return None;
    }
    Some(format!(
        "locked inside libvirtd, so that each call for them hangs; no call is made for these VMs until they are \
         unlocked: {}; {UNANSWERING}",
        names_of(domains)
    ))
}

/// The VMs that were not asked for what needs calls of their own, or did not answer in time, if there are any.
fn without_extra(domains: &[DomainRef]) -> Option<String> {
    if domains.is_empty() {
        return None;
    }
    Some(format!(
        "the figures that need calls of their own (statistics, vm_jobs) did not come in time from these VMs, and all else did: {}; see \
         which command a monitor is busy with (\"virsh domcontrol VM\")",
        names_of(domains)
    ))
}

fn too_few_clients(most: usize) -> String {
    format!(
        "libvirtd accepts fewer connections than this program wants; at most {most} are used now, so that \
         other clients get in, and more are tried in an hour; raise max_clients and max_anonymous_clients in \
         libvirtd's configuration, or lower workers in the configuration of telegraf-kvm"
    )
}

fn saturated(busiest: Option<&DomainRef>) -> String {
    let busiest = busiest
        .map(|domain| {
            format!(
                "; the VM whose monitor has been busy longest: {}",
                domain.name
            )
        })
        .unwrap_or_default();
    format!("libvirtd has no free worker, so only state and network are gathered{busiest}")
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
    names(domains.iter().map(|domain| domain.name.as_str()))
}

/// The first names in alphabetical order, and how many more there are.
fn names<'n>(all: impl IntoIterator<Item = &'n str>) -> String {
    let mut named: Vec<&str> = all.into_iter().collect();
    named.sort_unstable();
    first_names(&named)
}

#[cfg(test)]
mod tests;
