//! What only some configurations want of a domain.

use super::Session;
use crate::gather::protocol::{AskedMonitor, DomainRef, Extra, Monitor, Response, WorkerConfig};
use crate::libvirt::bulk::{Groups, NOWAIT};
use crate::libvirt::{Domain, Error, Records};
use crate::sample::JobStats;

/// Groups of which a domain has keys whenever libvirt asks its monitor, or never (qemuDomainGetStatsIOThread,
/// qemuDomainGetStatsDirtyRate in libvirt's source).
const STEADY: Groups = Groups::IOTHREAD.or(Groups::DIRTYRATE);

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
            let done = self.in_bulk(&present, of, &mut problems, &mut |session, domains| {
                session.named_statistics(config, domains, &mut extra)
            });
            self.bulk = learnt;
            done?;
        }
        // Last, for these calls may wait the longest. Only QEMU's driver tells of a domain whether its monitor is in use.
        if config.jobs && self.qemu {
            self.jobs(&present, &mut extra)?;
        }
        Ok(Response::Extra(extra, problems))
    }

    fn named_statistics(
        &self,
        config: &WorkerConfig,
        domains: &[&DomainRef],
        extra: &mut Vec<Extra>,
    ) -> Result<(), Error> {
        let handles: Vec<&Domain> = domains
            .iter()
            .filter_map(|domain| self.handles.get(&domain.run.uuid))
            .collect();
        let flags = if self.bulk.nowait { NOWAIT } else { 0 };
        let records = Records::get(&handles, config.extra_groups.bits(), flags)?;
        let expects_steady = self.qemu && config.extra_groups.and(STEADY) != Groups::NONE;
        for record in records.iter() {
            let id = record.id();
            // A domain that was restarted since the list is left to the next gather.
            let domain = domains.iter().find(|domain| Some(domain.run.id) == id);
            if let Some(domain) = domain {
                let stats = config.statistics.choose(record.params());
                let mut groups = record.params().map(|(key, _)| Groups::of_key(key));
                let monitor = match expects_steady {
                    false => AskedMonitor::Unknown,
                    true if groups.any(|group| group.and(STEADY) != Groups::NONE) => {
                        AskedMonitor::Yes
                    }
                    true => AskedMonitor::PerhapsNot,
                };
                extra.push(Extra {
                    stats,
                    monitor,
                    ..Extra::of(domain.run)
                });
            }
        }
        Ok(())
    }

    fn jobs(&self, domains: &[&DomainRef], extra: &mut Vec<Extra>) -> Result<(), Error> {
        for domain in domains {
            let handle = self.handles.get(&domain.run.uuid);
            let Some(job) = handle.map(running_job).transpose()?.flatten() else {
                continue;
            };
            match extra.iter_mut().find(|extra| extra.run == domain.run) {
                Some(extra) => extra.job = Some(job),
                None => extra.push(Extra {
                    job: Some(job),
                    ..Extra::of(domain.run)
                }),
            }
        }
        Ok(())
    }
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
