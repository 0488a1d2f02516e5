//! VMs whose figures keep coming in part: said once when it begins, and once when it is over.

use std::collections::HashSet;

use uuid::Uuid;

use super::names;
use crate::gather::Gathered;

/// What has been said of whom.
#[derive(Debug, Default)]
pub(super) struct Partial {
    /// In part at the last gather: a monitor that is busy for a moment is not worth a line.
    last: HashSet<Uuid>,
    /// Said, and not over yet.
    said: HashSet<Uuid>,
}

impl Partial {
    pub(super) fn report(&mut self, gathered: &Gathered) {
        let now: HashSet<Uuid> = gathered.partial.iter().map(|f| f.run.uuid).collect();
        let lasting = |uuid: &Uuid| self.last.contains(uuid) && !self.said.contains(uuid);
        let new = gathered.partial.iter().filter(|f| lasting(&f.run.uuid));
        let new: Vec<_> = new.cloned().collect();
        if !new.is_empty() {
            let hanging = match gathered.hanging {
                0 => String::new(),
                calls => format!("; {calls} calls hang"),
            };
            log::warn!(
                "QEMU does not answer, so only what libvirt knows without it is gathered: {}{hanging}",
                names(new.iter().map(|found| found.name.as_str()))
            );
            self.said.extend(new.iter().map(|found| found.run.uuid));
        }
        let whole = gathered.samples.iter();
        let whole = whole.filter(|sample| !now.contains(&sample.run.uuid));
        let over = whole.filter(|sample| self.said.contains(&sample.run.uuid));
        let over: Vec<&str> = over.map(|sample| sample.name.as_str()).collect();
        if !over.is_empty() {
            log::info!("complete again: {}", names(over));
        }
        for sample in &gathered.samples {
            if !now.contains(&sample.run.uuid) {
                self.said.remove(&sample.run.uuid);
            }
        }
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
        Gathered {
            reached: true,
            samples: vec![sample],
            partial: if in_part { vec![found] } else { Vec::new() },
            ..Gathered::default()
        }
    }

    #[test]
    fn what_lasts_is_said_and_what_is_over_forgotten() {
        let uuid = gathered(true).samples[0].run.uuid;
        let mut partial = Partial::default();
        let said = |partial: &Partial| partial.said.contains(&uuid);
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
