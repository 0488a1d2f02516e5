//! VMs whose figures keep coming in part: said once when it begins, and once when it is over.

use smol_str::SmolStr;
use uuid::Uuid;

use super::{hanging, names};
use crate::gather::Gathered;
use crate::maps::{HashMap, HashSet};

/// What has been said of whom.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// In part at the last gather: a monitor that is busy for a moment is not worth a line.
    last: HashSet<Uuid>,
    /// Said, by which name, and not over yet.
    said: HashMap<Uuid, SmolStr>,
}

impl Partial {
    pub(super) fn report(&mut self, gathered: &Gathered) {
        let now: HashSet<Uuid> = gathered.partial.iter().map(|f| f.run.uuid).collect();
        let lasting = |uuid: &Uuid| self.last.contains(uuid) && !self.said.contains_key(uuid);
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
        self.last = now;
    }

    /// The VM is gone.
    pub(super) fn forget(&mut self, uuid: Uuid) {
        self.last.remove(&uuid);
        self.said.remove(&uuid);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::gather::job::Found;
    use crate::sample::examples::full;

    fn gathered(in_part: bool) -> Gathered {
        let sample = full(Instant::now());
        let found = Found {
            run: sample.run,
            name: sample.name.clone(),
        };
        let mut gathered = Gathered {
            reached: true,
            ..Gathered::default()
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
        for in_part in [true, false, true] {
            partial.report(&gathered(in_part));
            assert!(!said(&partial), "for a moment only");
        }
        partial.report(&gathered(true));
        assert!(said(&partial));
        partial.report(&Gathered::default());
        assert!(said(&partial), "a gather without it tells nothing");
        partial.report(&gathered(false));
        assert!(!said(&partial));
        partial.report(&gathered(true));
        partial.report(&gathered(true));
        assert!(said(&partial));
        partial.forget(uuid);
        assert!(!said(&partial));
    }
}
