//! The keys `vcpu.N.*` of bulk statistics.

use std::time::Instant;

use super::{Value, choice, count, split};
use crate::sample::{VcpuTime, VcpuTimes};

/// The vCPUs of a record while its keys are being read. libvirt reports those that are online. Their
/// numbers may have gaps.
#[derive(Default)]
pub(super) struct Vcpus(Vec<VcpuTime>);

impl Vcpus {
    pub fn set(&mut self, key: &[u8], value: Value<'_>) {
        // `vcpu.current` and `vcpu.maximum` have no number.
        let Some((number, key)) = split(key) else {
            return;
        };
        let number = str::from_utf8(number).ok().and_then(|n| n.parse().ok());
        let Some(number) = number else { return };
        // The keys of a vCPU stand together.
        let known = self.0.iter().rposition(|vcpu| vcpu.number == number);
        let position = known.unwrap_or_else(|| {
            self.0.push(VcpuTime {
                number,
                thread: 0,
                time: None,
                delay: None,
                state: None,
                wait: None,
            });
            self.0.len() - 1
        });
        let vcpu = &mut self.0[position];
        match key {
            b"time" => vcpu.time = count(value),
            b"delay" => vcpu.delay = count(value),
            b"state" => vcpu.state = choice(value),
            b"wait" => vcpu.wait = count(value),
            _ => {}
        }
    }

    pub fn into_times(mut self, at: Instant) -> Option<VcpuTimes> {
        self.0.sort_unstable_by_key(|vcpu| vcpu.number);
        let list = (!self.0.is_empty()).then(|| self.0.into())?;
        Some(VcpuTimes { at, list })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn vcpus_are_told_by_their_numbers() {
        let at = Instant::now();
        let mut vcpus = Vcpus::default();
        for (key, value) in [
            ("current", 2),
            ("maximum", 8),
            ("7.state", 1),
            ("7.time", 70),
            ("7.wait", 71),
            ("7.delay", 72),
            ("0.time", 10),
            ("0.delay", -1),
            ("0.halted.polls", 5),
            ("x.time", 9),
            ("7", 9),
        ] {
            vcpus.set(key.as_bytes(), Value::Integer(value));
        }
        let vcpu = |number, time, delay, state, wait| VcpuTime {
            number,
            thread: 0,
            time,
            delay,
            state,
            wait,
        };
        let expected = [
            vcpu(0, Some(10), None, None, None),
            vcpu(7, Some(70), Some(72), Some(1), Some(71)),
        ];
        assert_eq!(*vcpus.into_times(at).unwrap().list, expected);
        let mut without = Vcpus::default();
        without.set(b"current", Value::Integer(2));
        assert_eq!(without.into_times(at), None, "the vCPUs share a thread");
    }
}
