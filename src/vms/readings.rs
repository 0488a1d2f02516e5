//! What is read on this host, compared with what libvirt reports, and put in its place.

use std::time::Instant;

use uuid::Uuid;

use super::{DomainRef, VcpuSource, VmRecord, Vms};
use crate::host::NetDev;
use crate::host::qemu::HostFigures;
use crate::host::qemu::cgroups::CpuUsage;
use crate::host::qemu::vcpus::ThreadTimes;
use crate::maps::{HashMap, HashSet};
use crate::sample::Sample;

impl Vms {
    /// What was read in this gather: `/proc/net/dev`, the VMs whose QEMU is in the network namespace
    /// that it is of, the control groups, and what this host says of each VM's QEMU.
    pub fn on_readings(
        &mut self,
        net_dev: Option<(NetDev, HashSet<Uuid>)>,
        usages: HashMap<Uuid, CpuUsage>,
        mut figures: HashMap<Uuid, HostFigures>,
    ) {
        let before = net_dev.as_ref().and_then(|_| self.net.before.take());
        for vm in self.records.values_mut() {
            if let Some((net_dev, _)) = &net_dev {
                vm.nics.compare(before.as_ref(), net_dev);
            }
            vm.on_figures(figures.remove(&vm.domain.run.uuid));
            vm.cpu
                .compare(vm.domain.run.uuid, &self.cpu.before, &usages);
        }
        if let Some((net_dev, in_our_netns)) = net_dev {
            self.net.now = Some(net_dev);
            self.net.in_our_netns = in_our_netns;
        }
        self.cpu.now = usages;
        self.host_was_read = true;
    }

    /// The hypervisor is another host, of which nothing is read in this gather.
    pub fn on_other_host(&mut self) {
        self.host_was_read = true;
    }

    /// libvirtd may be another process. It may see its VMs in another way than the last one did (a
    /// vCPU that was removed while there was none is not online, and keeps its control group), and no
    /// event reports what changed meanwhile. So everything is to be proven again.
    pub fn on_restart(&mut self) {
        for vm in self.records.values_mut() {
            vm.nics.on_restart();
            vm.cpu.on_restart();
            vm.balloon.forget();
        }
        self.restarted = true;
    }

    /// The number of vCPUs online in the last sample of each VM that had it.
    pub fn vcpus_online(&self) -> HashMap<Uuid, u64> {
        let records = self.records.values();
        let online = records.filter_map(|vm| Some((vm.domain.run.uuid, vm.online?)));
        online.collect()
    }

    /// Takes from a sample what libvirt reports in it, and corrects what libvirt may report wrongly.
    /// `full`: the sample did not come in part.
    pub fn on_sample(&mut self, full: bool, sample: &mut Sample) {
        let run = sample.run;
        let mut unlisted;
        let vm = match self.records.get_mut(&run.uuid) {
            // A sample in part may be of an earlier run: a handle keeps the id that the domain had when
            // it was looked up.
            Some(vm) if full || vm.domain.run == run => {
                if vm.domain.run != run {
                    let name = sample.name.clone();
                    vm.update(DomainRef { run, name }, &mut self.endings);
                }
                vm
            }
            // The list no longer has the VM or its run, but the sample is written all the same.
            _ => {
                let name = sample.name.clone();
                unlisted = VmRecord::new(DomainRef { run, name });
                &mut unlisted
            }
        };
        if !self.restarted {
            vm.cpu.report(self.cpu.now.get(&run.uuid), sample);
        }
        if let Some(nics) = &mut sample.nics {
            if !self.restarted {
                vm.nics.report(&self.net, run.uuid, nics);
            }
            vm.nics.correct(&self.net, run.uuid, nics);
        }
        vm.cpu.correct(full, sample);
        vm.online = sample.vcpus.or(vm.online);
        vm.put_figures(sample);
        if full {
            vm.on_memory(sample, self.memory_events);
        }
        vm.arrival.on_sample(sample);
        sample.removed = vm.removed;
        let described = vm.description.as_ref();
        let described = described.and_then(|cached| cached.description.as_ref());
        if let Some(described) = described {
            sample.tags.clone_from(&described.tags);
            sample.info.clone_from(&described.info);
        }
    }
}

impl VmRecord {
    /// What this host says of the VM's QEMU in this gather.
    fn on_figures(&mut self, figures: Option<HostFigures>) {
        let has_vcpus = figures.as_ref().is_some_and(|says| says.vcpus.is_some());
        if has_vcpus && self.vcpu_source.is_none() {
            self.vcpu_source = Some(VcpuSource::Host);
        }
        self.figures = figures;
    }

    /// Puts what this host says of the VM's QEMU into a sample of the same run.
    fn put_figures(&mut self, sample: &mut Sample) {
        if let Some(figures) = &self.figures {
            sample.uptime = figures.uptime;
            sample.throttling = figures.throttling;
            sample.pressure.clone_from(&figures.pressure);
        }
        if sample.vcpu_times.is_some() && self.vcpu_source.is_none() {
            self.vcpu_source = Some(VcpuSource::Libvirt);
        }
        if self.vcpu_source != Some(VcpuSource::Host) {
            return;
        }
        let threads = self.figures.as_ref().and_then(|says| says.vcpus.as_ref());
        let miscount = &mut self.vcpu_miscount;
        let threads = threads.filter(|threads| {
            let Some(online) = sample.vcpus else {
                return !threads.shared;
            };
            if Some(online) == u64::try_from(threads.times.list.len()).ok() {
                *miscount = None;
                return true;
            }
            !threads.shared && VcpuMiscount::lasts(miscount, &sample.name, online, threads)
        });
        sample.vcpu_times = threads.map(|threads| threads.times.clone());
    }
}

/// libvirt counts other vCPUs than there are threads.
///
/// For a moment that is so when a vCPU is added or removed between the two readings. It lasts where libvirt has given up
/// waiting for a guest that then gives the vCPU up (seen with 9.0, after `virsh setvcpus` that timed out). A vCPU without
/// a thread waits for nothing, so the threads are all there is.
#[derive(Debug)]
pub(super) struct VcpuMiscount {
    /// What libvirt counts.
    online: u64,
    /// The numbers of the vCPUs that have threads, and of the threads.
    threads: Vec<(u32, u32)>,
    /// When the threads were first read beside that count.
    since: Instant,
    /// It was seen in more than one gather.
    lasts: bool,
}

impl VcpuMiscount {
    /// Whether `known` is the same difference, of an earlier gather. If it is another one, this one takes its place.
    fn lasts(known: &mut Option<Self>, name: &str, online: u64, now: &ThreadTimes) -> bool {
        let list = &now.times.list;
        let threads = || list.iter().map(|vcpu| (vcpu.number, vcpu.thread));
        match known {
            Some(known)
                if known.online == online && threads().eq(known.threads.iter().copied()) =>
            {
                // Threads are read once in a gather.
                if !known.lasts && now.times.at > known.since {
                    known.lasts = true;
                    log::debug!(
                        "VM {name}: libvirt counts {online} vCPUs online, and {} have threads; their figures are those of \
                         the threads",
                        list.len()
                    );
                }
                known.lasts
            }
            _ => {
                *known = Some(Self {
                    online,
                    threads: threads().collect(),
                    since: now.times.at,
                    lasts: false,
                });
                false
            }
        }
    }
}
