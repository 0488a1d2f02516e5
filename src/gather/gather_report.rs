//! What came of a gather: the figures, and what went wrong.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;

use uuid::Uuid;

use super::protocol::{Completeness, DomainRef};
use crate::libvirt::Error;
use crate::maps::{HashMap, HashSet};
use crate::sample::{DISK_COUNTERS, Devices, RunId, Sample};

/// Something to tell the operator about, once.
#[derive(Debug, Clone)]
pub enum Problem {
    /// No connection.
    Unreachable(Error),
    /// The list or a whole chunk was refused.
    Refused(Error),
    /// One domain's figures cannot be had.
    Domain(DomainRef, String),
    /// One domain's description cannot be had.
    Description(DomainRef, String),
}

/// What a gather brought.
#[derive(Debug, Default)]
pub struct GatherReport {
    /// One sample per domain that answered in time, but for those that were taken before.
    pub samples: Vec<Sample>,
    /// How many answered in time.
    pub answered: usize,
    /// Those of them that came whole.
    pub whole: HashSet<Uuid>,
    /// What went wrong.
    pub problems: Vec<Problem>,
    /// Whether libvirt answered at all.
    pub reached: bool,
    /// Active domains, by the list of this gather; `None`: no list came.
    pub active: Option<HashSet<RunId>>,
    /// Domains that were to be asked and did not answer in time.
    pub missing: Vec<DomainRef>,
    /// Domains whose statistics the driver or the daemon refused.
    pub refused: Vec<DomainRef>,
    /// Domains of which nothing is asked: a call of ours hangs on their lock inside libvirtd.
    pub locked: Vec<DomainRef>,
    /// libvirtd had no worker to spare; beside it whose monitor has been occupied the longest.
    pub saturated: Option<Option<DomainRef>>,
    /// Mounts that do not answer, and the VMs with a disk there.
    pub dead: BTreeMap<PathBuf, Vec<DomainRef>>,
    /// The disks there are not read one by one either: this libvirt's calls for one disk would hang.
    pub disks_left_out: bool,
    /// VMs whose disks are left out for the same reason: it is not known where all their files lie.
    pub unknown_storage: Vec<DomainRef>,
    /// And these: a mount that carries them has not answered in this look, though it answers.
    pub slow_storage: Vec<DomainRef>,
    /// Domains that are wanted, by the last list.
    pub seen: usize,
    /// Domains whose figures came in full.
    pub complete: usize,
    /// Domains whose figures came without what only QEMU itself knows.
    pub partial: Vec<DomainRef>,
    /// Why the gather ended before all had answered and before the deadline.
    pub cut: Option<&'static str>,
    /// A thread that could not be started, and the remedy.
    pub not_started: Option<String>,
    /// There was no worker at all for a call, for no thread could be started.
    pub unasked: bool,
    /// Calls that have not returned.
    pub hanging: usize,
    /// How many workers there may be, where libvirtd lets in fewer than were wanted.
    pub limited_to: Option<usize>,
}

/// The samples of one gather, one per domain.
#[derive(Debug, Default)]
pub(super) struct Samples {
    kept: HashMap<Uuid, Kept>,
    /// To which nothing can be added any more.
    ready: VecDeque<Sample>,
}

#[derive(Debug)]
struct Kept {
    completeness: Completeness,
    has_disks: bool,
    /// `None`: it is ready, or taken.
    sample: Option<Box<Sample>>,
}

impl Samples {
    /// Keeps a sample, unless a fuller one of the same domain is there.
    pub(super) fn keep(&mut self, completeness: Completeness, mut sample: Sample) {
        let uuid = sample.run.uuid;
        if let Some(before) = self.kept.get_mut(&uuid) {
            let Some(have) = before
                .sample
                .as_mut()
                .filter(|_| completeness >= before.completeness)
            else {
                return;
            };
            // The disks may have come by calls of their own.
            if sample.disks.is_none() && have.run == sample.run {
                sample.disks = have.disks.take();
            }
        }
        let has_disks = sample.disks.is_some();
        let sample = if completeness == Completeness::Full && has_disks {
            self.ready.push_back(sample);
            None
        } else {
            Some(Box::new(sample))
        };
        self.kept.insert(
            uuid,
            Kept {
                completeness,
                has_disks,
                sample,
            },
        );
    }

    /// Takes a sample to which nothing can be added any more.
    pub(super) fn take_ready(&mut self) -> Option<Sample> {
        self.ready.pop_front()
    }

    /// Adds the disks, which came by calls of their own, to the sample of the same run.
    pub(super) fn add_disks(&mut self, run: RunId, disks: Devices<DISK_COUNTERS>) {
        if let Some(kept) = self.kept.get_mut(&run.uuid)
            && let Some(sample) = kept.sample.as_mut()
            && sample.run == run
        {
            sample.disks = Some(disks);
            kept.has_disks = true;
        }
    }

    /// Whether there is one of this domain.
    pub(super) fn has(&self, uuid: Uuid) -> bool {
        self.kept.contains_key(&uuid)
    }

    /// How many there are, those that were taken among them.
    pub(super) fn len(&self) -> usize {
        self.kept.len()
    }

    /// How many are full; with `disks` the disks, too, must have come.
    pub(super) fn complete(&self, disks: bool) -> usize {
        let full =
            |kept: &&Kept| kept.completeness == Completeness::Full && (!disks || kept.has_disks);
        self.kept.values().filter(full).count()
    }

    /// Of whom there is so much.
    pub(super) fn of(&self, completeness: Completeness) -> impl Iterator<Item = Uuid> {
        let some = self
            .kept
            .iter()
            .filter(move |(_, k)| k.completeness == completeness);
        some.map(|(uuid, _)| *uuid)
    }

    /// Those that were not taken, by id: the order in which they were started.
    pub(super) fn in_order(self) -> Vec<Sample> {
        let kept = self.kept.into_values().filter_map(|kept| kept.sample);
        let mut samples: Vec<Sample> = self.ready.into();
        samples.extend(kept.map(|sample| *sample));
        samples.sort_unstable_by_key(|sample| sample.run.id);
        samples
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::testing::{device, devices, empty, full, run};

    #[test]
    fn a_poorer_sample_replaces_no_fuller_one() {
        let at = Instant::now();
        let all = [
            Completeness::PriorityOnly,
            Completeness::Partial,
            Completeness::Full,
        ];
        for first in all {
            for second in all {
                let mut samples = Samples::default();
                samples.keep(first, empty(at));
                samples.keep(second, full(at));
                let kept = samples.in_order();
                assert_eq!(kept.len(), 1);
                let expected = if second >= first { full(at) } else { empty(at) };
                assert_eq!(kept[0], expected, "{first:?}, then {second:?}");
            }
        }
    }

    #[test]
    fn disks_join_the_sample_of_their_own_run_only() {
        let at = Instant::now();
        let disks = || devices(at, vec![device("vda", "disk", [Some(1); DISK_COUNTERS])]);
        let mut samples = Samples::default();
        samples.add_disks(run(1), disks());
        samples.keep(Completeness::Full, empty(at));
        assert_eq!((samples.complete(false), samples.complete(true)), (1, 0));
        samples.add_disks(run(2), disks());
        assert_eq!(samples.complete(true), 0);
        samples.add_disks(run(1), disks());
        assert_eq!(samples.complete(true), 1);
        assert_eq!(samples.in_order()[0].disks, Some(disks()));
    }

    #[test]
    fn what_was_taken_is_neither_replaced_nor_given_again() {
        let at = Instant::now();
        let mut samples = Samples::default();
        samples.keep(Completeness::Partial, full(at));
        assert_eq!(samples.take_ready(), None, "more may come");
        let mut without_disks = full(at);
        without_disks.disks = None;
        samples.keep(Completeness::Full, full(at));
        samples.keep(Completeness::Full, full(at));
        assert_eq!(samples.take_ready(), Some(full(at)));
        assert_eq!(samples.take_ready(), None);
        samples.keep(Completeness::Full, without_disks);
        samples.add_disks(run(1), devices(at, Vec::new()));
        assert_eq!((samples.len(), samples.complete(true)), (1, 1));
        assert!(samples.has(run(1).uuid));
        assert_eq!(samples.in_order(), []);
    }

    #[test]
    fn only_what_came_whole_is_complete() {
        for (completeness, complete) in [
            (Completeness::PriorityOnly, 0),
            (Completeness::Partial, 0),
            (Completeness::Full, 1),
        ] {
            let mut samples = Samples::default();
            samples.keep(completeness, full(Instant::now()));
            assert_eq!(samples.complete(true), complete, "{completeness:?}");
        }
    }

    #[test]
    fn samples_come_in_the_order_in_which_their_vms_were_started() {
        let mut samples = Samples::default();
        for id in [7, 1, 10, 3] {
            let mut sample = empty(Instant::now());
            sample.run = RunId {
                uuid: Uuid::from_u128(u128::from(100 - id)),
                id,
            };
            samples.keep(Completeness::Full, sample);
        }
        let ids: Vec<u32> = samples.in_order().iter().map(|s| s.run.id).collect();
        assert_eq!(ids, [1, 3, 7, 10]);
    }
}
