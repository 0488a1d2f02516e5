//! What only some configurations want of a domain.

use super::Session;
use crate::gather::protocol::{DomainRef, Extra, Response, WorkerConfig};
use crate::libvirt::bulk::{Groups, NOWAIT};
use crate::libvirt::{Domain, Error, Records};

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
        if config.extra_groups != Groups::NONE && self.bulk.works && !present.is_empty() {
            self.named_statistics(config, &present, &mut extra)?;
        }
        Ok(Response::Extra(extra))
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
        for record in records.iter() {
            let id = record.id();
            // A domain that was restarted since the list is left to the next gather.
            let domain = domains.iter().find(|domain| Some(domain.run.id) == id);
            if let Some(domain) = domain {
                let stats = config.statistics.choose(record.params());
                extra.push(Extra {
                    run: domain.run,
                    stats,
                });
            }
        }
        Ok(())
    }
}
