//! VMs whose figures keep coming in part: said once when it begins, and once when it is over.

use std::time::{Duration, Instant};

use smol_str::SmolStr;
use uuid::Uuid;

use super::{hanging, names};
use crate::gather::GatherReport;
use crate::maps::HashMap;

/// A monitor that is busy for less is not worth a line: the VM is being started or saved, or libvirt
/// waits 5 s for a guest to give a device up (qemuDomainWaitForDeviceRemoval), which a paused one never
/// does.
const MOMENT: Duration = Duration::from_secs(7);

/// What has been said of which VM.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// In part at the last gather, and since when.
    since: HashMap<Uuid, Instant>,
    /// Said, by which name, and not over yet.
    said: HashMap<Uuid, SmolStr>,
}

impl Partial {
    pub(super) fn report(&mut self, gathered: &GatherReport, now: Instant) {
        let uuids = gathered.partial.iter().map(|found| found.run.uuid);
        let since = |uuid: Uuid| self.since.get(&uuid).copied().unwrap_or(now);
        let since: HashMap<Uuid, Instant> = uuids.map(|uuid| (uuid, since(uuid))).collect();
        let lasts = |uuid: &Uuid| since.get(uuid).is_some_and(|at| now >= *at + MOMENT);
        let lasting = |uuid: &Uuid| lasts(uuid) && !self.said.contains_key(uuid);
        let new = gathered.partial.iter().filter(|f| lasting(&f.run.uuid));
        let new: Vec<_> = new.cloned().collect();
        if !new.is_empty() {
            let hanging = match gathered.hanging {
                0 => String::new(),
                calls => format!("; {}", hanging(calls)),
            };
            log::warn!(
                "QEMU does not answer, so only what libvirt knows without it is gathered: {}{hanging}",
                names(new.iter().map(|found| found.name.as_str()))
            );
            let new = new.into_iter().map(|found| (found.run.uuid, found.name));
            self.said.extend(new);
        }
        let said = self.said.iter();
        let over = said.filter(|(uuid, _)| gathered.whole.contains(uuid));
        let over: Vec<&str> = over.map(|(_, name)| name.as_str()).collect();
        if !over.is_empty() {
            log::info!("complete again: {}", names(over));
        }
        self.said.retain(|uuid, _| !gathered.whole.contains(uuid));
        self.since = since;
    }

    /// The VM is gone.
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.since.remove(&uuid);
        self.said.remove(&uuid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::gather::protocol::DomainRef;
    use crate::sample::testing::full;

    fn gathered(in_part: bool) -> GatherReport {
        let sample = full(Instant::now());
        let found = DomainRef {
            run: sample.run,
            name: sample.name.clone(),
        };
        let mut gathered = GatherReport {
            reached: true,
            ..GatherReport::default()
        };
        if in_part {
            gathered.partial.push(found);
        } else {
            gathered.whole.insert(sample.run.uuid);
        }
        gathered
    }

    #[test]
    fn what_lasts_is_said_and_what_is_over_forgotten() {
        let uuid = gathered(true).partial[0].run.uuid;
        let mut partial = Partial::default();
        let said = |partial: &Partial| partial.said.contains_key(&uuid);
        let start = Instant::now();
        let at = |seconds| start + Duration::from_secs(seconds);
        for (in_part, second) in [(true, 0), (true, 6), (false, 7), (true, 8), (true, 14)] {
            partial.report(&gathered(in_part), at(second));
            assert!(!said(&partial), "for a moment only, at {second} s");
        }
        partial.report(&gathered(true), at(15));
        assert!(said(&partial));
        partial.report(&GatherReport::default(), at(16));
        assert!(said(&partial), "a gather without it tells nothing");
        partial.report(&gathered(false), at(17));
        assert!(!said(&partial));
        partial.report(&gathered(true), at(20));
        partial.report(&gathered(true), at(30));
        assert!(said(&partial));
        partial.forget(uuid);
        assert!(!said(&partial));
    }
}
