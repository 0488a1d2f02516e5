//! Which VMs' CPU time we read ourselves.
//!
//! As with [`Nics`](super::nics::Nics), libvirt is asked until what it says has been seen to lie
//! between two of our readings.

use crate::maps::{HashMap, HashSet};

use uuid::Uuid;

use crate::host::cgroups::Usage;
use crate::sample::{Cpu, Run, Sample};

/// CPU time and vCPUs of a VM, read on this host.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Processor {
    /// The time.
    pub cpu: Cpu,
    /// Virtual CPUs online.
    pub vcpus: u64,
}

/// The readings, and what they have shown.
#[derive(Debug, Default)]
pub struct Cpus {
    /// This gather's reading,
    usages: HashMap<Uuid, Usage>,
    /// the last one's,
    before: HashMap<Uuid, Usage>,
    /// and what libvirt said in between: user, system and all, and the vCPUs.
    said: HashMap<Run, ([u64; 3], u64)>,
    /// The runs whose control group is libvirt's: its parts, and the vCPUs that are among them.
    ours: HashMap<Run, (u64, u64)>,
}

impl Cpus {
    /// A new gather begins.
    pub fn begin(&mut self) {
        self.before = std::mem::take(&mut self.usages);
    }

    /// What the control groups say in this gather.
    pub fn read(&mut self, usages: HashMap<Uuid, Usage>) {
        for (run, (said, vcpus)) in std::mem::take(&mut self.said) {
            let readings = self.before.get(&run.uuid).zip(usages.get(&run.uuid));
            if let Some((from, to)) = readings.filter(|(from, to)| from.parts == to.parts) {
                let (low, high) = (figures(from), figures(to));
                let within = |at: usize| low[at] <= said[at] && said[at] <= high[at];
                if (0..3).all(within) {
                    self.ours.insert(run, (to.parts, vcpus));
                }
            }
        }
        self.usages = usages;
    }

    /// What libvirt said of a VM in this gather.
    pub fn said(&mut self, sample: &Sample) {
        let cpu = &sample.cpu;
        if let (Some(time), Some(user), Some(system), Some(vcpus)) =
            (cpu.time, cpu.user, cpu.system, sample.vcpus)
            && self.of(sample.run).is_none()
            && self.usages.contains_key(&sample.run.uuid)
        {
            self.said.insert(sample.run, ([time, user, system], vcpus));
        }
    }

    /// A VM's CPU time and vCPUs; `None` where libvirt has to be asked.
    pub fn of(&self, run: Run) -> Option<Processor> {
        let usage = self.usages.get(&run.uuid)?;
        // With other parts a vCPU may have come or gone.
        let (_, vcpus) = self
            .ours
            .get(&run)
            .filter(|(parts, _)| *parts == usage.parts)?;
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

    /// Forgets the VMs that are gone.
    pub fn keep(&mut self, active: &HashSet<Run>) {
        self.ours.retain(|run, _| active.contains(run));
        self.said.retain(|run, _| active.contains(run));
    }
}

fn figures(usage: &Usage) -> [u64; 3] {
    [usage.time, usage.user, usage.system]
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::examples::{empty, run};

    fn usage(time: u64, parts: u64) -> HashMap<Uuid, Usage> {
        let usage = Usage {
            at: Instant::now(),
            time,
            user: time / 2,
            system: time / 4,
            parts,
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

    fn gather(cpus: &mut Cpus, reading: HashMap<Uuid, Usage>) -> Option<(Option<u64>, u64)> {
        cpus.begin();
        assert_eq!(cpus.of(run(1)), None, "not read yet");
        cpus.read(reading);
        let found = cpus.of(run(1))?;
        Some((found.cpu.time, found.vcpus))
    }

    #[test]
    fn from_the_gather_after_the_proof_on_libvirt_is_not_asked() {
        let mut cpus = Cpus::default();
        assert_eq!(gather(&mut cpus, usage(100, 5)), None);
        cpus.said(&said(120, 2));
        assert_eq!(gather(&mut cpus, usage(140, 5)), Some((Some(140), 2)));
        assert_eq!(gather(&mut cpus, usage(180, 5)), Some((Some(180), 2)));
        assert_eq!(cpus.of(run(2)), None, "another run");
    }

    #[test]
    fn other_figures_are_another_groups() {
        for libvirt in [90, 150] {
            let mut cpus = Cpus::default();
            gather(&mut cpus, usage(100, 5));
            cpus.said(&said(libvirt, 2));
            assert_eq!(gather(&mut cpus, usage(140, 5)), None, "{libvirt}");
        }
    }

    #[test]
    fn a_vcpu_more_has_libvirt_asked_again() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 5));
        cpus.said(&said(120, 2));
        gather(&mut cpus, usage(140, 5));
        assert_eq!(gather(&mut cpus, usage(150, 6)), None);
        cpus.said(&said(160, 3));
        // It came while libvirt was asked: which of the two it saw is not known.
        assert_eq!(gather(&mut cpus, usage(170, 7)), None);
        cpus.said(&said(180, 4));
        assert_eq!(gather(&mut cpus, usage(190, 7)), Some((Some(190), 4)));
    }

    #[test]
    fn without_a_reading_libvirt_is_asked() {
        let mut cpus = Cpus::default();
        gather(&mut cpus, usage(100, 5));
        cpus.said(&said(120, 2));
        gather(&mut cpus, usage(140, 5));
        assert_eq!(gather(&mut cpus, HashMap::default()), None);
        assert!(gather(&mut cpus, usage(150, 5)).is_some());
        cpus.keep(&HashSet::from_iter([run(1)]));
        assert!(gather(&mut cpus, usage(160, 5)).is_some());
        cpus.keep(&HashSet::default());
        assert_eq!(gather(&mut cpus, usage(170, 5)), None);
    }
}
