//! VMs whose figures keep coming in part: reported once when that begins, and once when it is over.

use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use super::lasting::Lasting;
use super::{UNANSWERING, hanging, names};
use crate::gather::GatherReport;
use crate::maps::HashMap;

/// What has been reported of which VM.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// Since when each VM has come in part.
    lasting: Lasting,
    /// The VMs that were reported and have not come complete since, with the names they were reported by.
    reported: HashMap<Uuid, SmolStr>,
}

impl Partial {
    /// Each VM in part is reported at once: there will be no other gather.
    pub(super) fn without_delay() -> Self {
        Self {
            lasting: Lasting::without_delay(),
            ..Self::default()
        }
    }

    pub(super) fn report(&mut self, report: &GatherReport, now: Instant) {
        let mut new = self.lasting.of(&report.partial, now);
        new.retain(|domain| !self.reported.contains_key(&domain.run.uuid));
        if !new.is_empty() {
            let hanging = match report.hanging {
                0 => String::new(),
                calls => format!("; {}", hanging(calls)),
            };
            log::warn!(
                "QEMU does not answer, so only what libvirt knows without it is gathered: {}{hanging}; {UNANSWERING}",
                names(new.iter().map(|domain| domain.name.as_str()))
            );
            let new = new.into_iter().map(|domain| (domain.run.uuid, domain.name));
            self.reported.extend(new);
        }
        let over: Vec<&str> = self
            .reported
            .iter()
            .filter(|(uuid, _)| report.whole.contains(uuid))
            .map(|(_, name)| name.as_str())
            .collect();
        if !over.is_empty() {
            log::info!("complete again: {}", names(over));
        }
        self.reported.retain(|uuid, _| !report.whole.contains(uuid));
    }

    /// Forgets a VM that is gone.
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.lasting.forget(uuid);
        self.reported.remove(&uuid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::gather::protocol::DomainRef;
    use crate::sample::testing::full;

    fn report(in_part: bool) -> GatherReport {
        let sample = full(Instant::now());
        let found = DomainRef {
            run: sample.run,
            name: sample.name.clone(),
        };
        let mut report = GatherReport {
            reached: true,
            ..GatherReport::default()
        };
        if in_part {
            report.partial.push(found);
        } else {
            report.whole.insert(sample.run.uuid);
        }
        report
    }

    #[test]
    fn what_lasts_is_reported_and_what_is_over_forgotten() {
        let uuid = report(true).partial[0].run.uuid;
        let mut partial = Partial::default();
        let reported = |partial: &Partial| partial.reported.contains_key(&uuid);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (in_part, second) in [(true, 0), (true, 6), (false, 7), (true, 8), (true, 14)] {
            partial.report(&report(in_part), at(second));
            assert!(!reported(&partial), "for a moment only, at {second} s");
        }
        partial.report(&report(true), at(15));
        assert!(reported(&partial));
        partial.report(&GatherReport::default(), at(16));
        assert!(reported(&partial), "a gather without it tells nothing");
        partial.report(&report(false), at(17));
        assert!(!reported(&partial));
        partial.report(&report(true), at(20));
        partial.report(&report(true), at(30));
        assert!(reported(&partial));
        partial.forget(uuid);
        assert!(!reported(&partial));
    }
}
