//! The samples of one gather. A poorer one never replaces a fuller one.

use std::collections::VecDeque;

use uuid::Uuid;

use super::protocol::Completeness;
use crate::maps::HashMap;
use crate::sample::{DISK_COUNTERS, Devices, RunId, Sample};

/// The samples of one gather, one per domain.
#[derive(Debug, Default)]
pub(super) struct Samples {
    by_vm: HashMap<Uuid, Stored>,
    /// Samples to which nothing can be added any more.
    ready: VecDeque<Sample>,
}

#[derive(Debug)]
struct Stored {
    run: RunId,
    completeness: Completeness,
    has_disks: bool,
    /// `None` when it is ready, or was taken.
    sample: Option<Box<Sample>>,
}

impl Samples {
    /// Stores a sample, unless a fuller one of the same domain is there.
    pub(super) fn store(&mut self, completeness: Completeness, mut sample: Sample) {
        let run = sample.run;
        let uuid = run.uuid;
        if let Some(before) = self.by_vm.get_mut(&uuid) {
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
            // Its QEMU may have been asked in vain before, and not any more.
            sample.answers = sample.answers.or(have.answers);
        }
        let has_disks = sample.disks.is_some();
        let sample = if completeness == Completeness::Full && has_disks {
            self.ready.push_back(sample);
            None
        } else {
            Some(Box::new(sample))
        };
        self.by_vm.insert(
            uuid,
            Stored {
                run,
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
        if let Some(stored) = self.by_vm.get_mut(&run.uuid)
            && let Some(sample) = stored.sample.as_mut()
            && sample.run == run
        {
            sample.disks = Some(disks);
            stored.has_disks = true;
        }
    }

    /// Whether there is a sample of this domain.
    pub(super) fn has(&self, uuid: Uuid) -> bool {
        self.by_vm.contains_key(&uuid)
    }

    /// Whether there is a sample of this run.
    pub(super) fn has_run(&self, run: RunId) -> bool {
        self.by_vm
            .get(&run.uuid)
            .is_some_and(|stored| stored.run == run)
    }

    /// The number of samples, including those that were taken.
    pub(super) fn len(&self) -> usize {
        self.by_vm.len()
    }

    /// The number of full samples. With `disks`, their disks must have come, too.
    pub(super) fn complete(&self, disks: bool) -> usize {
        let full = |stored: &&Stored| {
            stored.completeness == Completeness::Full && (!disks || stored.has_disks)
        };
        self.by_vm.values().filter(full).count()
    }

    /// The domains whose samples are full, but whose disks have not come.
    pub(super) fn without_disks(&self) -> impl Iterator<Item = Uuid> {
        let full = self
            .by_vm
            .iter()
            .filter(|(_, stored)| stored.completeness == Completeness::Full && !stored.has_disks);
        full.map(|(uuid, _)| *uuid)
    }

    /// The domains whose samples are as complete as this.
    pub(super) fn of(&self, completeness: Completeness) -> impl Iterator<Item = Uuid> {
        let some = self
            .by_vm
            .iter()
            .filter(move |(_, k)| k.completeness == completeness);
        some.map(|(uuid, _)| *uuid)
    }

    /// The samples that were not taken, by id: the order in which the VMs were started.
    pub(super) fn in_order(self) -> Vec<Sample> {
        let stored = self.by_vm.into_values();
        let mut samples: Vec<Sample> = self.ready.into();
        samples.extend(
            stored
                .filter_map(|stored| stored.sample)
                .map(|sample| *sample),
        );
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
                samples.store(first, empty(at));
                samples.store(second, full(at));
                let kept = samples.in_order();
                assert_eq!(kept.len(), 1);
                let expected = if second >= first { full(at) } else { empty(at) };
                assert_eq!(kept[0], expected, "{first:?}, then {second:?}");
            }
        }
    }

    #[test]
    fn a_qemu_that_was_asked_in_vain_did_not_answer_however_it_comes_later() {
        let answers = |first, second| {
            let mut samples = Samples::default();
            for (answers, completeness) in [(first, Completeness::Partial), second] {
                let mut sample = empty(Instant::now());
                sample.answers = answers;
                samples.store(completeness, sample);
            }
            samples.in_order()[0].answers
        };
        let (part, full) = (Completeness::Partial, Completeness::Full);
        assert_eq!(answers(Some(false), (None, part)), Some(false));
        assert_eq!(answers(Some(false), (Some(true), full)), Some(true));
        assert_eq!(answers(None, (None, part)), None);
    }

    #[test]
    fn disks_join_the_sample_of_their_own_run_only() {
        let at = Instant::now();
        let disks = || devices(at, vec![device("vda", "disk", [Some(1); DISK_COUNTERS])]);
        let mut samples = Samples::default();
        samples.add_disks(run(1), disks());
        samples.store(Completeness::Full, empty(at));
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
        samples.store(Completeness::Partial, full(at));
        assert_eq!(samples.take_ready(), None, "more may come");
        let mut without_disks = full(at);
        without_disks.disks = None;
        samples.store(Completeness::Full, full(at));
        samples.store(Completeness::Full, full(at));
        assert_eq!(samples.take_ready(), Some(full(at)));
        assert_eq!(samples.take_ready(), None);
        samples.store(Completeness::Full, without_disks);
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
            samples.store(completeness, full(Instant::now()));
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
            samples.store(Completeness::Full, sample);
        }
        let ids: Vec<u32> = samples.in_order().iter().map(|s| s.run.id).collect();
        assert_eq!(ids, [1, 3, 7, 10]);
    }
}
