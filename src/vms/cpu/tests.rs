use std::time::Instant;

use super::*;
use crate::sample::testing::{empty, run};

/// One VM and the readings of this host.
#[derive(Default)]
struct Cpus {
    readings: CpuReadings,
    vm: VmCpu,
}

impl Cpus {
    fn usage(&self) -> Option<&CpuUsage> {
        self.readings.now.get(&run(1).uuid)
    }

    fn report(&mut self, sample: &Sample) {
        let usage = self.readings.now.get(&run(1).uuid);
        self.vm.report(usage, sample);
    }

    fn gather(&mut self, reading: HashMap<Uuid, CpuUsage>) -> Option<(Option<u64>, u64)> {
        self.readings.begin();
        assert_eq!(self.vm.processor(self.usage()), None, "not read yet");
        let uuid = run(1).uuid;
        self.vm.compare(uuid, &self.readings.before, &reading);
        self.readings.now = reading;
        let found = self.vm.processor(self.usage())?;
        Some((found.cpu.time, found.vcpus))
    }
}

fn usage(time: u64, vcpus: u64) -> HashMap<Uuid, CpuUsage> {
    let usage = CpuUsage {
        at: Instant::now(),
        time,
        user: time / 2,
        system: time / 4,
        vcpus,
        resolution: [1; 3],
    };
    [(run(1).uuid, usage)].into_iter().collect()
}

fn reported(time: u64, vcpus: u64) -> Sample {
    let mut sample = empty(Instant::now());
    let cpu = &mut sample.cpu;
    (cpu.time, cpu.user, cpu.system) = (Some(time), Some(time / 2), Some(time / 4));
    sample.vcpus = Some(vcpus);
    sample
}

#[test]
fn from_the_gather_after_the_proof_on_libvirt_is_not_queried() {
    let mut cpus = Cpus::default();
    assert_eq!(cpus.gather(usage(100, 2)), None);
    cpus.report(&reported(120, 2));
    assert_eq!(cpus.gather(usage(140, 2)), Some((Some(140), 2)));
    assert_eq!(cpus.gather(usage(180, 2)), Some((Some(180), 2)));
}

#[test]
fn other_figures_are_of_another_group() {
    for libvirt in [90, 150] {
        let mut cpus = Cpus::default();
        cpus.gather(usage(100, 2));
        cpus.report(&reported(libvirt, 2));
        assert_eq!(cpus.gather(usage(140, 2)), None, "{libvirt}");
    }
}

/// cgroup v1 counts in ns, v2 in us: the one may lie between two readings of the other.
#[test]
fn a_counter_in_other_steps_is_another() {
    let in_steps = |time| {
        let mut usage = usage(time, 2);
        usage
            .values_mut()
            .for_each(|usage| usage.resolution = [100; 3]);
        usage
    };
    for (libvirt, same) in [(1201, false), (1200, true)] {
        let mut cpus = Cpus::default();
        cpus.gather(in_steps(800));
        let mut reported = reported(libvirt, 2);
        (reported.cpu.user, reported.cpu.system) = (Some(600), Some(300));
        cpus.report(&reported);
        assert_eq!(cpus.gather(in_steps(1600)).is_some(), same, "{libvirt}");
    }
}

#[test]
fn after_a_new_vcpu_libvirt_is_queried_again() {
    let mut cpus = Cpus::default();
    cpus.gather(usage(100, 2));
    cpus.report(&reported(120, 2));
    cpus.gather(usage(140, 2));
    assert_eq!(cpus.gather(usage(150, 3)), None);
    cpus.report(&reported(160, 3));
    // Another vCPU was added while libvirt was queried.
    assert_eq!(cpus.gather(usage(170, 4)), None);
    cpus.report(&reported(180, 4));
    assert_eq!(cpus.gather(usage(190, 4)), Some((Some(190), 4)));
}

#[test]
fn vcpus_without_groups_of_their_own_are_counted_by_libvirt() {
    for (groups, libvirt) in [(0, 2), (2, 3), (3, 2)] {
        let mut cpus = Cpus::default();
        cpus.gather(usage(100, groups));
        cpus.report(&reported(120, libvirt));
        assert_eq!(cpus.gather(usage(140, groups)), None, "{groups}");
    }
}

#[test]
fn a_run_that_is_described_anew_is_proven_anew() {
    let mut cpus = Cpus::default();
    cpus.gather(usage(100, 2));
    cpus.report(&reported(120, 2));
    cpus.gather(usage(140, 2));
    cpus.vm.on_description();
    let mut own = reported(140, 2);
    own.cpu.at = cpus.usage().unwrap().at;
    cpus.report(&own);
    assert_eq!(cpus.gather(usage(150, 2)), None);
    cpus.report(&reported(160, 2));
    assert!(cpus.gather(usage(170, 2)).is_some());
}

#[test]
fn what_was_reported_before_a_restart_proves_nothing() {
    let mut cpus = Cpus::default();
    cpus.gather(usage(100, 2));
    cpus.report(&reported(120, 2));
    cpus.vm.on_restart();
    assert_eq!(cpus.gather(usage(140, 2)), None);
    cpus.report(&reported(150, 2));
    assert!(cpus.gather(usage(160, 2)).is_some());
}

#[test]
fn the_cpu_time_of_a_process_does_not_follow_that_of_its_control_group() {
    let mut vm = VmCpu::default();
    let mut stays = |time: u64, full: bool| {
        let mut sample = reported(time, 2);
        vm.correct(full, &mut sample);
        sample.cpu.time == Some(time) && sample.cpu.user.is_some()
    };
    // As long as there was none of a control group, that of the process is what there is.
    assert!(stays(5 * TICK, true));
    assert!(stays(6 * TICK, false));
    assert!(stays(7 * TICK + 1, true));
    assert!(!stays(8 * TICK, false));
    assert!(stays(8 * TICK + 1, false));
    // Once in a while a control group's time is a whole number of ticks.
    assert!(stays(9 * TICK, true));
}

#[test]
fn without_a_reading_libvirt_is_queried() {
    let mut cpus = Cpus::default();
    cpus.gather(usage(100, 2));
    cpus.report(&reported(120, 2));
    cpus.gather(usage(140, 2));
    assert_eq!(cpus.gather(HashMap::default()), None);
    assert!(cpus.gather(usage(150, 2)).is_some());
}
