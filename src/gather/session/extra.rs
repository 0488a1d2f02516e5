//! What only some configurations want of a domain.

use std::thread;
use std::time::Duration;

use super::Session;
use crate::gather::protocol::{DomainRef, Extra, Monitor, Response, WorkerConfig};
use crate::libvirt::bulk::{Groups, NOWAIT};
use crate::libvirt::{Domain, Error, Records};
use crate::sample::{JobStats, RunId};

/// Groups of which a domain has keys in each reply for which libvirt asked its monitor, or in none
/// (qemuDomainGetStatsIOThread, qemuDomainGetStatsDirtyRate in libvirt's source).
const STEADY: Groups = Groups::IOTHREAD.or(Groups::DIRTYRATE);
/// The time before domains are asked again that libvirt may have passed by, because another call had their monitors at that
/// moment. On a busy host that may be one of ours which was given up as slow.
const AGAIN: [Duration; 3] = [
    Duration::from_millis(20),
    Duration::from_millis(40),
    Duration::from_millis(80),
];

impl Session {
    pub(super) fn extra(
        &mut self,
        config: &WorkerConfig,
        domains: &[DomainRef],
    ) -> Result<Response, Error> {
        let mut present = Vec::with_capacity(domains.len());
        for domain in domains {
            if self.handle(domain.run.uuid)?.is_some() {
                present.push(domain);
            }
        }
        let mut extra = Vec::new();
        let mut problems = Vec::new();
        if config.extra_groups != Groups::NONE {
            let of = |domain: &&DomainRef| (*domain).clone();
            // What libvirt refuses of these groups says nothing of the others.
            let learnt = self.bulk;
            let mut left = present.clone();
            let mut pauses = AGAIN.iter();
            loop {
                let mut passed_by = Vec::new();
                let done = self.in_bulk(&left, of, &mut problems, &mut |session, domains| {
                    passed_by.extend(session.named_statistics(config, domains, &mut extra)?);
                    Ok(())
                });
                self.bulk = learnt;
                done?;
                left = passed_by;
                match pauses.next().filter(|_| !left.is_empty()) {
                    Some(pause) => thread::sleep(*pause),
                    None => break,
                }
            }
            self.without_steady
                .extend(left.iter().map(|domain| domain.run));
        }
        // Last, for these calls may wait the longest. Only QEMU's driver tells of a domain whether its monitor is in use.
        if config.jobs && self.qemu {
            self.jobs(&present, &mut extra)?;
        }
        Ok(Response::Extra(extra, problems))
    }

    /// Returns the domains that libvirt may have passed by.
    fn named_statistics<'d>(
        &mut self,
        config: &WorkerConfig,
        domains: &[&'d DomainRef],
        extra: &mut Vec<Extra>,
    ) -> Result<Vec<&'d DomainRef>, Error> {
        let handles: Vec<&Domain> = domains
            .iter()
            .filter_map(|domain| self.handles.get(&domain.run.uuid))
            .collect();
        let flags = if self.bulk.nowait { NOWAIT } else { 0 };
        let records = Records::get(&handles, config.extra_groups.bits(), flags)?;
        let expects_steady = self.qemu && config.extra_groups.and(STEADY) != Groups::NONE;
        let mut passed_by = Vec::new();
        for record in records.iter() {
            let id = record.id();
            // A domain that was restarted since the list is left to the next gather.
            let domain = domains.iter().find(|domain| Some(domain.run.id) == id);
            if let Some(domain) = domain {
                of_run(extra, domain.run).stats = config.statistics.choose(record.params());
                let mut keys = record.params().map(|(key, _)| Groups::of_key(key));
                if keys.any(|group| group.and(STEADY) != Groups::NONE) {
                    self.without_steady.remove(&domain.run);
                } else if expects_steady && !self.without_steady.contains(&domain.run) {
                    passed_by.push(*domain);
                }
            }
        }
        Ok(passed_by)
    }

    fn jobs(&self, domains: &[&DomainRef], extra: &mut Vec<Extra>) -> Result<(), Error> {
        for domain in domains {
            let handle = self.handles.get(&domain.run.uuid);
            if let Some(job) = handle.map(running_job).transpose()?.flatten() {
                of_run(extra, domain.run).job = Some(job);
            }
        }
        Ok(())
    }
}

/// What has come of this run, or an entry for it.
fn of_run(extra: &mut Vec<Extra>, run: RunId) -> &mut Extra {
    let known = extra.iter().position(|extra| extra.run == run);
    let place = known.unwrap_or_else(|| {
        extra.push(Extra::of(run));
        extra.len() - 1
    });
    &mut extra[place]
}

/// The job of a domain. `virDomainGetJobStats` waits while another client's call has the domain's monitor, so that is looked
/// at first. Where the monitor is occupied outside of a job, the domain has none (qemuDomainGetControlInfo in libvirt's
/// src/qemu/qemu_driver.c). The opposite is not true: between two commands of a job the monitor is free. Without a job the
/// call does not ask QEMU (qemuDomainGetJobStatsInternal).
fn running_job(domain: &Domain) -> Result<Option<JobStats>, Error> {
    let job = match domain.monitor() {
        Ok(Monitor::Free | Monitor::Job) => domain.job_stats(),
        Ok(Monitor::Occupied(_)) => return Ok(None),
        Err(error) => Err(error),
    };
    match job {
        Err(error) if error.is_transport() => Err(error),
        // The domain is gone, or it is being migrated in: its figures are on the source.
        Err(error) => {
            log::debug!("{}: no figures of its job: {error}", domain.name());
            Ok(None)
        }
        Ok(job) => Ok(job),
    }
}
