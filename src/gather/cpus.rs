//! Which VMs' CPU time we read ourselves.
//!
//! As with [`Nics`](super::nics::Nics), libvirt is asked until what it says has been seen to lie
//! between two of our readings.

use uuid::Uuid;

use crate::host::qemu::cgroups::CpuUsage;
use crate::maps::{HashMap, HashSet};
use crate::sample::{Cpu, RunId, Sample};

/// CPU time and vCPUs of a VM, read on this host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processor {
    /// The time.
    pub cpu: Cpu,
    /// Virtual CPUs online.
    pub vcpus: u64,
}

/// In which steps the kernel counts a process's CPU time in /proc, ns: of 1/100 s (USER_HZ) wherever
/// libvirt has QEMU. A control group counts all of its time in finer ones.
const TICK: u64 = 10_000_000;

/// The readings, and what they have shown.
#[derive(Debug, Default)]
pub struct Cpus {
    /// This gather's reading,
    usages: HashMap<Uuid, CpuUsage>,
    /// the last one's,
    before: HashMap<Uuid, CpuUsage>,
    /// and what libvirt said in between: user, system and all, and the vCPUs.
    said: HashMap<RunId, ([u64; 3], u64)>,
    /// The runs whose control group is libvirt's, and the vCPUs that both counted.
    ours: HashMap<RunId, u64>,
    /// The runs whose CPU time is a control group's: it came in finer steps than a process's.
    grouped: HashSet<RunId>,
    /// libvirtd may have become another process in this gather: what is said in it proves nothing.
    restarted: bool,
}

impl Cpus {
    /// A new gather begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.usages);
        self.restarted = false;
    }

    /// What the control groups say in this gather.
    pub fn read(&mut self, usages: HashMap<Uuid, CpuUsage>) {
        for (run, (said, vcpus)) in std::mem::take(&mut self.said) {
            let readings = self.before.get(&run.uuid).zip(usages.get(&run.uuid));
            let Some((from, to)) = readings else { continue };
            let (low, high) = (figures(from), figures(to));
            // A counter in other steps than ours is another one: it would go back where we take over.
            let within = |at: usize| {
                let in_steps = said[at].is_multiple_of(to.resolution[at]);
                in_steps && low[at] <= said[at] && said[at] <= high[at]
            };
            if from.vcpus == vcpus && to.vcpus == vcpus && (0..3).all(within) {
                self.ours.insert(run, vcpus);
            }
        }
        self.usages = usages;
    }

    /// What libvirt said of a VM in this gather.
    pub fn said(&mut self, sample: &Sample) {
        let cpu = &sample.cpu;
        if let (Some(time), Some(user), Some(system), Some(vcpus)) =
            (cpu.time, cpu.user, cpu.system, sample.vcpus)
            && !self.restarted
            && self.of(sample.run).is_none()
            && let Some(usage) = self.usages.get(&sample.run.uuid)
            // Our own figures prove nothing.
            && usage.at != cpu.at
        {
            self.said.insert(sample.run, ([time, user, system], vcpus));
        }
    }

    /// Drops the CPU time of a VM that came in part if it is another counter than before: libvirt 9.0
    /// gives the process's (7.0: none) where it does not know the control group, and one that was
    /// started anew does not know it until the VM's QEMU has answered (qemuProcessReconnect). The two
    /// counters differ by any amount: the process's has what QEMU used before it was put in its group.
    pub fn correct(&mut self, whole: bool, sample: &mut Sample) {
        let cpu = &mut sample.cpu;
        let Some(time) = cpu.time else { return };
        if !time.is_multiple_of(TICK) {
            self.grouped.insert(sample.run);
        } else if !whole && self.grouped.contains(&sample.run) {
            (cpu.time, cpu.user, cpu.system) = (None, None, None);
        }
    }

    /// A VM's CPU time and vCPUs; `None` where libvirt has to be asked.
    pub fn of(&self, run: RunId) -> Option<Processor> {
        let usage = self.usages.get(&run.uuid)?;
        // Where a vCPU has come or gone libvirt says whether it counts the same.
        let vcpus = self.ours.get(&run).filter(|vcpus| **vcpus == usage.vcpus)?;
        Some(Processor {
            cpu: Cpu {
                at: usage.at,
                time: Some(usage.time),
                user: Some(usage.user),
                system: Some(usage.system),
            },
            vcpus: *vcpus,
        })
    }

    /// A run was described anew (a device changed, or libvirt was out of sight for a while): what it
    /// has shown is shown again.
    pub fn forget(&mut self, run: RunId) {
        self.ours.remove(&run);
    }

    /// libvirtd may be another process: every VM has to show anew whose figures they are. Replies of
    /// the last process may still be on their way, so what is said in this gather proves nothing.
    pub fn clear(&mut self) {
        self.ours.clear();
        self.said.clear();
        self.restarted = true;
    }

    /// Forgets the VMs that are gone.
    pub fn keep(&mut self, active: &HashSet<RunId>) {
        self.ours.retain(|run, _| active.contains(run));
        self.grouped.retain(|run| active.contains(run));
        self.said.retain(|run, _| active.contains(run));
    }
}

fn figures(usage: &CpuUsage) -> [u64; 3] {
    [usage.time, usage.user, usage.system]
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::testing::{empty, run};

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

    fn said(time: u64, vcpus: u64) -> Sample {
        let mut sample = empty(Instant::now());
        let cpu = &mut sample.cpu;
        (cpu.time, cpu.user, cpu.system) = (Some(time), Some(time / 2), Some(time / 4));
        sample.vcpus = Some(vcpus);
        sample
    }

    fn gather(cpus: &mut Cpus, reading: HashMap<Uuid, CpuUsage>) -> Option<(Option<u64>, u64)> {
        cpus.begin();
        assert_eq!(cpus.of(run(1)), None, "not read yet");
        cpus.read(reading);
        let found = cpus.of(run(1))?;
        Some((found.cpu.time, found.vcpus))
    }

    #[test]
    fn from_the_gather_after_the_proof_on_libvirt_is_not_asked() {
        let mut cpus = Cpus::default();
        assert_eq!(gather(&mut cpus, usage(100, 2)), None);
        cpus.said(&said(120, 2));
        assert_eq!(gather(&mut cpus, usage(140, 2)), Some((Some(140), 2)));
        assert_eq!(gather(&mut cpus, usage(180, 2)), Some((Some(180), 2)));
        assert_eq!(cpus.of(run(2)), None, "another run");
    }

    #[test]
    fn other_figures_are_another_groups() {
        for libvirt in [90, 150] {
            let mut cpus = Cpus::default();
            gather(&mut cpus, usage(100, 2));
            cpus.said(&said(libvirt, 2));
            assert_eq!(gather(&mut cpus, usage(140, 2)), None, "{libvirt}");
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
        for (libvirt, ours) in [(1201, false), (1200, true)] {
            let mut cpus = Cpus::default();
            gather(&mut cpus, in_steps(800));
            let mut said = said(libvirt, 2);
            (said.cpu.user, said.cpu.system) = (Some(600), Some(300));
            cpus.said(&said);
            assert_eq!(
                gather(&mut cpus, in_steps(1600)).is_some(),
                ours,
                "{libvirt}"
            );
        }
    }

    #[test]
    fn a_vcpu_more_has_libvirt_asked_again() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 2));
        cpus.said(&said(120, 2));
        gather(&mut cpus, usage(140, 2));
        assert_eq!(gather(&mut cpus, usage(150, 3)), None);
        cpus.said(&said(160, 3));
        // Another came while libvirt was asked.
        assert_eq!(gather(&mut cpus, usage(170, 4)), None);
        cpus.said(&said(180, 4));
        assert_eq!(gather(&mut cpus, usage(190, 4)), Some((Some(190), 4)));
    }

    #[test]
    fn vcpus_without_groups_of_their_own_are_libvirts_to_count() {
        for (groups, libvirt) in [(0, 2), (2, 3), (3, 2)] {
            let mut cpus = Cpus::default();
            gather(&mut cpus, usage(100, groups));
            cpus.said(&said(120, libvirt));
            assert_eq!(gather(&mut cpus, usage(140, groups)), None, "{groups}");
        }
    }

    #[test]
    fn what_is_described_anew_shows_itself_anew() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 2));
        cpus.said(&said(120, 2));
        gather(&mut cpus, usage(140, 2));
        cpus.forget(run(1));
        let mut own = said(140, 2);
        own.cpu.at = cpus.usages[&run(1).uuid].at;
        cpus.said(&own);
        assert_eq!(gather(&mut cpus, usage(150, 2)), None);
        cpus.said(&said(160, 2));
        assert!(gather(&mut cpus, usage(170, 2)).is_some());
    }

    #[test]
    fn what_was_said_around_a_restart_proves_nothing() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 2));
        cpus.said(&said(120, 2));
        cpus.clear();
        // On its way when the daemon went.
        cpus.said(&said(130, 2));
        assert_eq!(gather(&mut cpus, usage(140, 2)), None);
        cpus.said(&said(150, 2));
        assert!(gather(&mut cpus, usage(160, 2)).is_some());
    }

    #[test]
    fn a_processs_cpu_time_does_not_follow_its_control_groups() {
        let mut cpus = Cpus::default();
        let mut kept = |time: u64, whole: bool| {
            let mut sample = said(time, 2);
            cpus.correct(whole, &mut sample);
            sample.cpu.time == Some(time) && sample.cpu.user.is_some()
        };
        // Where it never was a control group's, the process's is what there is.
        assert!(kept(5 * TICK, true));
        assert!(kept(6 * TICK, false));
        assert!(kept(7 * TICK + 1, true));
        assert!(!kept(8 * TICK, false));
        assert!(kept(8 * TICK + 1, false));
        // Once in a while a control group's time is a whole number of ticks.
        assert!(kept(9 * TICK, true));
        cpus.keep(&HashSet::default());
        let mut next = said(10 * TICK, 2);
        cpus.correct(false, &mut next);
        assert_eq!(next.cpu.time, Some(10 * TICK), "another run");
    }

    #[test]
    fn without_a_reading_libvirt_is_asked() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 2));
        cpus.said(&said(120, 2));
        gather(&mut cpus, usage(140, 2));
        assert_eq!(gather(&mut cpus, HashMap::default()), None);
        assert!(gather(&mut cpus, usage(150, 2)).is_some());
        cpus.keep(&HashSet::from_iter([run(1)]));
        assert!(gather(&mut cpus, usage(160, 2)).is_some());
        cpus.keep(&HashSet::default());
        assert_eq!(gather(&mut cpus, usage(170, 2)), None);
    }
}
