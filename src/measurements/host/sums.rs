//! Sums over the VMs of a gather, for `vm_host`.
//!
//! A sum that falls and rises again is a false peak in every derivative of it. So a field is summed only if every VM that has
//! reported it in its run reports it in this gather.

use uuid::Uuid;

use crate::derive::Derived;
use crate::maps::{HashMap, HashSet};
use crate::measurements::totals;
use crate::sample::{RunId, Sample};

/// How many states there are (virDomainState).
pub(super) const STATES: usize = 8;

/// What the host has given to its VMs: vCPUs online, memory now and at the most, as vm_metrics has them of each VM.
const GIVEN: [&str; 3] = ["vcpus_given", "memory_given_kb", "memory_max_kb"];

/// Fields of vm_totals that are no amounts.
const NO_AMOUNTS: [&str; 3] = ["state", "state_reason", "memstats_age_sec"];

/// The sums of the gather under way, and what each VM has reported in its run.
#[derive(Debug, Default)]
pub struct HostSums {
    /// How many VMs are in each state.
    states: [u64; STATES],
    /// Whether the state of a VM is not known.
    is_state_missing: bool,
    sums: Vec<Sum>,
    /// Which fields each run has reported: a bit for each one.
    reported: HashMap<Uuid, (RunId, u64)>,
}

#[derive(Debug, Clone, Copy)]
struct Sum {
    field: &'static str,
    value: Option<u64>,
    /// A VM did not report the field, and has before.
    is_missing: bool,
}

impl HostSums {
    /// Another gather begins.
    pub fn begin(&mut self) {
        self.states = [0; STATES];
        self.is_state_missing = false;
        self.sums.clear();
    }

    /// Adds a VM.
    pub fn add(&mut self, sample: &Sample, derived: &Derived) {
        let state = sample.state.and_then(|state| usize::try_from(state).ok());
        match state.and_then(|state| self.states.get_mut(state)) {
            Some(count) => *count += 1,
            None => self.is_state_missing = true,
        }
        let run = sample.run;
        let reported = self.reported.entry(run.uuid).or_insert((run, 0));
        if reported.0 != run {
            *reported = (run, 0);
        }
        let memory = &sample.memory;
        let given = GIVEN
            .into_iter()
            .zip([sample.vcpus, memory.current, memory.maximum]);
        let (sums, mut at) = (&mut self.sums, 0);
        let mut put = |field, value: Option<u64>| {
            let bit = 1_u64.checked_shl(at as u32).unwrap_or_default();
            if sums.len() == at {
                sums.push(Sum {
                    field,
                    value: None,
                    is_missing: false,
                });
            }
            if let Some(sum) = sums.get_mut(at) {
                match value {
                    Some(value) => {
                        sum.value = Some(sum.value.unwrap_or_default().saturating_add(value));
                        reported.1 |= bit;
                    }
                    None => sum.is_missing |= reported.1 & bit != 0,
                }
            }
            at += 1;
        };
        given.for_each(|(field, value)| put(field, value));
        totals::fields(sample, derived, |field, value| {
            if !NO_AMOUNTS.contains(&field) {
                put(field, value);
            }
        });
    }

    /// Drops the runs that are not active any more.
    pub fn retain(&mut self, active: &HashSet<RunId>) {
        self.reported.retain(|_, (run, _)| active.contains(run));
    }

    /// How many VMs are in each state; `None` if that of one is not known.
    pub fn states(&self) -> Option<[u64; STATES]> {
        (!self.is_state_missing).then_some(self.states)
    }

    /// The sums. Without a VM, nothing is given to any.
    pub fn sums(&self) -> impl Iterator<Item = (&'static str, Option<u64>)> {
        let nothing = GIVEN.into_iter().filter(|_| self.sums.is_empty());
        let sums = self.sums.iter();
        let sums = sums.map(|sum| (sum.field, sum.value.filter(|_| !sum.is_missing)));
        nothing.map(|field| (field, Some(0))).chain(sums)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::derive::History;
    use crate::sample::testing::{empty, full};

    fn add(host: &mut HostSums, sample: &Sample) {
        let mut history = History::default();
        let (_, derived) = history.update(sample);
        host.add(sample, &derived);
    }

    fn of(host: &HostSums, field: &str) -> Option<u64> {
        host.sums().find(|(known, _)| *known == field)?.1
    }

    /// Another VM, with the same figures.
    fn other(sample: &Sample) -> Sample {
        let mut other = sample.clone();
        other.run.uuid = Uuid::from_u128(1);
        other
    }

    #[test]
    fn vms_are_added_up() {
        let mut host = HostSums::default();
        let sample = full(Instant::now());
        let mut second = other(&sample);
        second.state = Some(3);
        add(&mut host, &sample);
        add(&mut host, &second);
        assert_eq!(host.states(), Some([0, 1, 0, 1, 0, 0, 0, 0]));
        for (field, value) in [
            ("vcpus_given", 4),
            ("memory_given_kb", 2 * 2002),
            ("memory_max_kb", 2 * 2001),
            ("net_rxbytes", 62),
            ("disk_physical_bytes", 104),
            ("cputime", 2002),
        ] {
            assert_eq!(of(&host, field), Some(value), "{field}");
        }
        assert!(host.sums().all(|(field, _)| !NO_AMOUNTS.contains(&field)));
        assert!(host.sums().count() < 64, "a bit for each");
        second.state = None;
        add(&mut host, &second);
        assert_eq!(host.states(), None);
    }

    #[test]
    fn a_field_that_one_vm_reported_before_in_its_run_and_does_not_now_has_no_sum() {
        let mut host = HostSums::default();
        let sample = full(Instant::now());
        let mut second = other(&sample);
        // Never reported: the sum is that of the others.
        second.memory.usable = None;
        add(&mut host, &sample);
        add(&mut host, &second);
        assert_eq!(of(&host, "memusable"), Some(2006));
        host.begin();
        second.memory.rss = None;
        add(&mut host, &sample);
        add(&mut host, &second);
        assert_eq!(of(&host, "memrss"), None);
        assert_eq!(of(&host, "memusable"), Some(2006));
        // Another run of it has not reported the field yet.
        host.begin();
        second.run.id += 1;
        add(&mut host, &second);
        add(&mut host, &sample);
        assert_eq!(of(&host, "memrss"), Some(2004));
    }

    #[test]
    fn without_vms_nothing_is_given_and_there_is_no_counter() {
        let mut host = HostSums::default();
        let nothing: Vec<_> = GIVEN.into_iter().map(|field| (field, Some(0))).collect();
        assert_eq!(host.sums().collect::<Vec<_>>(), nothing);
        add(&mut host, &empty(Instant::now()));
        assert_eq!(of(&host, "vcpus_given"), None, "not reported");
    }
}
