//! The statistics of some domains: the bulk call, and for each domain the calls that complete it.

use std::time::SystemTime;

use uuid::Uuid;

use super::Session;
use super::bulk::{find, is_incoming};
use super::descriptions::freshen;
use crate::gather::protocol::{
    Completeness, DomainRef, Measured, Response, Scope, Target, WorkerConfig,
};
use crate::libvirt::bulk::Groups;
use crate::libvirt::{Error, per_call};
use crate::maps::HashSet;
use crate::sample::Sample;
use crate::vms::Known;

impl Session {
    pub(super) fn statistics(
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
        // Domains for which the same groups are wanted share a call.
        let mut batches: Vec<(Groups, Vec<&Target>)> = Vec::new();
        for target in &present {
            let named = groups.and(config.statistics.groups());
            let unread = target.unread(groups) | named;
            match batches.iter_mut().find(|(groups, _)| *groups == unread) {
                Some((_, batch)) => batch.push(target),
                None => batches.push((unread, vec![target])),
            }
        }
        for (groups, batch) in &batches {
            let named = &config.statistics;
            self.bulk_samples(*groups, batch, &mut samples, &mut problems, named)?;
        }
        self.ask_restarted(groups, &present, &mut samples, &mut problems, config)?;
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
        // Each worker comes to have a handle of every domain. Those of domains that are gone are dropped
        // when they are many.
        if self.handles.len() > 2 * active + 64 {
            let kept: HashSet<Uuid> = targets.iter().map(|t| t.domain.run.uuid).collect();
            self.handles.retain(|uuid, _| kept.contains(uuid));
            self.uncounted.retain(|(run, _)| kept.contains(&run.uuid));
        }
        Ok(Response::Samples(measured, problems))
    }

    /// Asks for all figures of the domains that the samples show to have been restarted since the list: what was read of them
    /// on this host is of their last run.
    fn ask_restarted(
        &mut self,
        groups: Groups,
        present: &[&Target],
        samples: &mut Vec<Sample>,
        problems: &mut Vec<(DomainRef, String)>,
        config: &WorkerConfig,
    ) -> Result<(), Error> {
        let mut restarted = Vec::new();
        for (place, sample) in samples.iter().enumerate() {
            let target = find(present, place, |t| t.domain.run.uuid == sample.run.uuid);
            let anew = |target: &&Target| {
                target.domain.run != sample.run && target.unread(groups) != groups
            };
            restarted.extend(target.filter(anew));
        }
        if restarted.is_empty() {
            return Ok(());
        }
        let is_restarted = |sample: &Sample| {
            let mut all = restarted.iter();
            all.any(|target| target.domain.run.uuid == sample.run.uuid)
        };
        samples.retain(|sample| !is_restarted(sample));
        self.bulk_samples(groups, &restarted, samples, problems, &config.statistics)
    }

    /// Adds to a sample of the bulk call what needs calls of its own, and the description.
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
        let is_known_run = sample.run == target.domain.run;
        let (mut asked, mut known) = (groups, &Known::New);
        if is_known_run {
            (asked, known) = (target.unread(groups), &target.known);
            target.add_read(&mut sample);
        }
        let incoming = self.qemu && is_incoming(&sample, is_known_run && target.left_paused);
        let mut completeness = match scope {
            Scope::NoMonitor if incoming => Completeness::Full,
            Scope::NoMonitor => Completeness::Partial,
            Scope::Full | Scope::NoBlock => {
                self.completeness(&sample, asked, known.description(), incoming)
            }
        };
        if let Some(memory) = target.memory
            && groups.has(Groups::BALLOON)
            && !asked.has(Groups::BALLOON)
        {
            if sample.has_figures_of_qemu() {
                sample.memory = memory;
            } else {
                // libvirt would not give the guest's figures of a QEMU that it did not ask.
                sample.memory = memory.without_monitor();
                if self.qemu && !incoming {
                    completeness = Completeness::Partial;
                }
            }
        }
        sample.answers = self.answers(groups, scope, completeness, incoming);
        // The job of a domain that came in part, or is being migrated in, is taken, and from libvirt 11.0
        // on reading the XML waits for the job, up to 30 s: what is known of the domain must do.
        let held = completeness == Completeness::Partial || scope == Scope::NoMonitor || incoming;
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
        let mut lacking = if self.bulk.works {
            asked.and(self.bulk.lacking)
        } else {
            asked
        };
        if (scope == Scope::NoMonitor || completeness == Completeness::Partial)
            && sample.cpu.user.is_none()
        {
            // The CPU times need no monitor.
            lacking = lacking | config.groups.and(Groups::CPU);
        }
        let mut source = self.cpu;
        per_call::fill(
            &mut sample,
            domain,
            lacking,
            description,
            &config.devices,
            &mut source,
            &mut self.disk_call,
        )?;
        if groups.has(Groups::NET)
            && let Some(description) = description
        {
            let uncounted = &mut self.uncounted;
            per_call::nics_by_mac(&mut sample, domain, description, &config.devices, uncounted)?;
        }
        self.cpu = self
            .cpu
            .after(source, self.qemu && completeness == Completeness::Partial);
        // The balloon group has the sizes, too.
        let has_info = sample.vcpus.is_some() && sample.memory.current.is_some();
        if config.domain_info && !has_info {
            per_call::info(&mut sample, domain, self.cpu)?;
        }
        if scope == Scope::NoMonitor && self.qemu {
            // In QEMU's driver both are the size of the balloon.
            sample.memory.actual = sample.memory.current;
        }
        sample
            .memory
            .set_report_age(SystemTime::now(), config.guest_memory_max_age);
        sample.describe(description, &config.devices);
        Ok(Some(Measured {
            sample,
            completeness,
            described,
            outdated,
            problem,
        }))
    }

    /// Whether the domain's QEMU answered a call for these groups; `None` if none of them needs it, and
    /// while the domain is being migrated in.
    pub(super) fn answers(
        &self,
        groups: Groups,
        scope: Scope,
        completeness: Completeness,
        incoming: bool,
    ) -> Option<bool> {
        let needs_qemu = groups.has(Groups::BALLOON) || groups.has(Groups::BLOCK);
        let was_asked = self.qemu && scope != Scope::NoMonitor && needs_qemu;
        (was_asked && !incoming).then_some(completeness == Completeness::Full)
    }
}
