//! Sums over a VM's devices, and when a sum may be written.
//!
//! A sum that falls and rises again is a false peak in every derivative of it. So a sum is written
//! only if every device that can report the counter reported it in this gather.

use smol_str::SmolStr;

use crate::sample::{Device, Devices};

/// Which counters each device has reported in this run of the VM: its name, and a bit for each
/// counter. In the order of the devices, which is the same in nearly every gather.
#[derive(Debug, Clone, Default)]
pub struct SupportedCounters(Vec<(SmolStr, u16)>);

impl SupportedCounters {
    /// Takes over the names of the devices, and adds the counters that they report.
    pub fn update<const N: usize>(&mut self, devices: &Devices<N>) {
        let named = devices
            .list
            .iter()
            .filter_map(|device| Some((device.name.as_ref()?, device)));
        let names = named.clone().map(|(name, _)| name);
        if !self.0.iter().map(|(name, _)| name).eq(names.clone()) {
            let before = std::mem::take(&mut self.0);
            let reported = |name: &SmolStr| {
                let known = before.iter().find(|(known, _)| known == name);
                known.map_or(0, |(_, mask)| *mask)
            };
            self.0 = names.map(|name| (name.clone(), reported(name))).collect();
        }
        for ((_, reported), (_, device)) in self.0.iter_mut().zip(named) {
            *reported |= mask(device);
        }
    }
}

/// Sums `devices` counter by counter; `supported` has been updated with them.
///
/// A sum over no devices is 0: the VM really moved nothing. There is no sum of a counter that no
/// device can report, nor of one that a device can report and did not.
pub fn sum<const N: usize>(
    devices: &Devices<N>,
    supported: &SupportedCounters,
) -> [Option<u64>; N] {
    if !devices.complete {
        return [None; N];
    }
    if devices.list.is_empty() {
        return [Some(0); N];
    }
    let named = devices.list.iter().filter(|device| device.name.is_some());
    // A device can report what any device of its kind has reported.
    let mut by_kind: Vec<(&str, u16)> = Vec::new();
    for (device, (_, reported)) in named.clone().zip(&supported.0) {
        match by_kind.iter_mut().find(|(kind, _)| *kind == device.kind) {
            Some((_, mask)) => *mask |= reported,
            None => by_kind.push((&device.kind, *reported)),
        }
    }
    let mut sums = [None; N];
    let mut vetoed = 0;
    for device in named {
        let kind = by_kind.iter().find(|(kind, _)| *kind == device.kind);
        let supported = kind.map_or(0, |(_, mask)| *mask);
        for (counter, (sum, value)) in sums.iter_mut().zip(&device.counters).enumerate() {
            let bit = 1 << counter;
            match value {
                _ if supported & bit == 0 => {}
                Some(value) => {
                    *sum = Some(sum.map_or(*value, |sum: u64| sum.saturating_add(*value)))
                }
                None => vetoed |= bit,
            }
        }
    }
    std::array::from_fn(|counter| sums[counter].filter(|_| vetoed & (1 << counter) == 0))
}

fn mask<const N: usize>(device: &Device<N>) -> u16 {
    let counters = device.counters.iter().enumerate();
    counters.fold(0, |mask, (i, counter)| {
        mask | (u16::from(counter.is_some()) << i)
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Instant;

    fn device(name: &str, kind: &str, counters: [Option<u64>; 2]) -> Device<2> {
        Device {
            name: (!name.is_empty()).then(|| name.into()),
            kind: kind.into(),
            counters,
            io_errors: None,
        }
    }

    fn devices(list: Vec<Device<2>>) -> Devices<2> {
        Devices {
            at: Instant::now(),
            list,
            complete: true,
        }
    }

    fn sum_after(devices: &Devices<2>, supported: &mut SupportedCounters) -> [Option<u64>; 2] {
        supported.update(devices);
        sum(devices, supported)
    }

    /// The sums of a run's first gather.
    fn first_sum(devices: &Devices<2>) -> [Option<u64>; 2] {
        sum_after(devices, &mut SupportedCounters::default())
    }

    #[test]
    fn no_devices_sum_to_zero() {
        let sums = first_sum(&devices(vec![]));
        assert_eq!(sums, [Some(0), Some(0)]);
    }

    #[test]
    fn an_incomplete_list_has_no_sum() {
        let mut list = devices(vec![device("vda", "disk", [Some(1), Some(2)])]);
        list.complete = false;
        assert_eq!(first_sum(&list), [None, None]);
    }

    #[test]
    fn a_counter_that_no_device_can_report_is_left_out() {
        let list = devices(vec![
            device("vda", "disk", [Some(1), None]),
            device("vdb", "disk", [Some(2), None]),
        ]);
        assert_eq!(first_sum(&list), [Some(3), None]);
    }

    #[test]
    fn only_nameless_devices_have_no_sum() {
        let list = devices(vec![device("", "user", [None, None])]);
        assert_eq!(first_sum(&list), [None, None]);
    }

    #[test]
    fn a_nameless_device_is_no_veto() {
        let list = devices(vec![
            device("", "network", [None, None]),
            device("tap0", "network", [Some(7), None]),
        ]);
        assert_eq!(first_sum(&list), [Some(7), None]);
    }

    #[test]
    fn a_device_that_reported_before_and_does_not_now_is_a_veto() {
        let mut supported = SupportedCounters::default();
        let both = vec![
            device("a", "bridge", [Some(1), None]),
            device("b", "vhostuser", [Some(2), None]),
        ];
        assert_eq!(sum_after(&devices(both), &mut supported), [Some(3), None]);
        let one = vec![
            device("a", "bridge", [Some(1), None]),
            device("b", "vhostuser", [None, None]),
        ];
        assert_eq!(sum_after(&devices(one), &mut supported), [None, None]);
    }

    #[test]
    fn a_new_device_whose_kind_reports_is_a_veto_until_it_does() {
        let mut supported = SupportedCounters::default();
        let list = vec![
            device("a", "bridge", [Some(1), None]),
            device("b", "bridge", [None, None]),
        ];
        assert_eq!(sum_after(&devices(list), &mut supported), [None, None]);
    }

    #[test]
    fn a_device_of_another_kind_that_never_reported_is_no_veto() {
        let list = vec![
            device("sda", "disk", [Some(4), None]),
            device("sdb", "cdrom", [None, None]),
        ];
        assert_eq!(first_sum(&devices(list)), [Some(4), None]);
    }
}
