//! How much of the time the vCPUs of a VM had to wait for a CPU of the host.

use std::time::Instant;

use super::features::seconds;
use crate::sample::{VcpuTime, VcpuTimes};

/// The last vCPU times of one run.
#[derive(Debug, Clone, Default)]
pub(super) struct PreviousVcpus(Option<VcpuTimes>);

impl PreviousVcpus {
    /// The time of waiting since the last sample that had it, divided by the measured time and the number
    /// of vCPUs, percent. `None` where other vCPUs are online than before, or where a counter fell.
    pub fn steal(&mut self, now: Option<&VcpuTimes>) -> Option<f64> {
        let now = now.filter(|now| now.list.iter().all(|vcpu| vcpu.delay.is_some()))?;
        let before = self.0.replace(now.clone())?;
        if before.list.len() != now.list.len() {
            return None;
        }
        let mut waited = 0;
        for (before, now) in before.list.iter().zip(&*now.list) {
            waited += waited_between(before, now)?;
        }
        percent(waited, before.at, now.at, now.list.len())
    }
}

/// How long the vCPU waited, ns. `None` if this is another one, or another thread of it.
fn waited_between(before: &VcpuTime, now: &VcpuTime) -> Option<u64> {
    let same = (before.number, before.thread) == (now.number, now.thread);
    let fell = before.time.zip(now.time).is_some_and(|(b, n)| n < b);
    if !same || fell {
        return None;
    }
    now.delay?.checked_sub(before.delay?)
}

fn percent(nanoseconds: u64, from: Instant, to: Instant, vcpus: usize) -> Option<f64> {
    let available = seconds(from, to)? * vcpus as f64;
    Some(100.0 * (nanoseconds as f64 / 1e9) / available)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::sample::testing::vcpu_times;

    /// The percentages of these samples, which are two seconds apart.
    fn steals(samples: &[&[(u32, u64, u64)]]) -> Vec<Option<f64>> {
        let base = Instant::now();
        let mut previous = PreviousVcpus::default();
        let at = |gather: usize| base + Duration::from_secs(2) * u32::try_from(gather).unwrap();
        let samples = samples.iter().enumerate();
        samples
            .map(|(gather, list)| {
                let times = vcpu_times(at(gather), list.iter().copied());
                previous.steal((!list.is_empty()).then_some(&times))
            })
            .collect()
    }

    #[test]
    fn a_hundred_is_every_vcpu_waiting_all_the_time() {
        let second = 1_000_000_000;
        let first = [(0, 0, 5), (3, 0, 7)];
        let all = [(0, 9, 5 + 2 * second), (3, 9, 7 + 2 * second)];
        let one = [(0, 9, 5 + 4 * second), (3, 9, 7 + 2 * second)];
        let found = steals(&[&first, &all, &one, &one]);
        assert_eq!(found, [None, Some(100.0), Some(50.0), Some(0.0)]);
    }

    #[test]
    fn a_sample_without_the_figures_is_passed_over() {
        let found = steals(&[&[(0, 0, 0)], &[], &[(0, 0, 1_000_000_000)]]);
        assert_eq!(found, [None, None, Some(25.0)]);
        let mut previous = PreviousVcpus::default();
        let mut times = vcpu_times(Instant::now(), [(0, 1, 1)]);
        let mut vcpu = times.list[0];
        vcpu.delay = None;
        times.list = [vcpu].into();
        assert_eq!(previous.steal(Some(&times)), None);
        assert!(previous.0.is_none());
    }

    #[test]
    fn other_vcpus_or_a_counter_that_fell_give_none() {
        for (before, after) in [
            (&[(0, 1, 1)][..], &[(0, 1, 1), (1, 1, 1)][..]),
            (&[(0, 1, 1), (1, 1, 1)], &[(0, 1, 1)]),
            (&[(0, 1, 1), (1, 1, 1)], &[(0, 1, 1), (2, 1, 1)]),
            (&[(0, 1, 5), (1, 1, 1)], &[(0, 1, 4), (1, 1, 9)]),
            (&[(0, 5, 1), (1, 1, 1)], &[(0, 4, 9), (1, 1, 9)]),
        ] {
            assert_eq!(steals(&[before, after, after]), [None, None, Some(0.0)]);
        }
    }

    #[test]
    fn a_vcpu_that_was_removed_and_added_again_is_another_one() {
        let at = Instant::now();
        let mut previous = PreviousVcpus::default();
        let mut times = vcpu_times(at, [(0, 1, 1)]);
        previous.steal(Some(&times));
        times.at += Duration::from_secs(1);
        let mut vcpu = times.list[0];
        (vcpu.thread, vcpu.delay) = (7, Some(9));
        times.list = [vcpu].into();
        assert_eq!(previous.steal(Some(&times)), None);
    }
}
