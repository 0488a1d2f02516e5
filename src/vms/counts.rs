//! How many VMs have which figures read on this host.

use uuid::Uuid;

use super::{VmRecord, Vms};
use crate::description::Description;
use crate::host::net_dev::Perspective;

/// What was read on this host in the last gather, and what of it has been seen to be libvirt's figure, so that libvirt
/// is not asked for it.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct HostCounts {
    /// VMs whose control group was read.
    pub control_groups: usize,
    /// VMs whose CPU time comes from it.
    pub cpu_from_host: usize,
    /// VMs whose vCPU threads were read.
    pub vms_with_vcpu_threads: usize,
    /// Those threads.
    pub vcpu_threads: usize,
    /// VMs whose pressure files were read.
    pub vms_with_pressure: usize,
    /// Network interfaces with a name, of VMs that are described.
    pub taps: usize,
    /// Those of them that are in the network namespace of this program.
    pub taps_in_sight: usize,
    /// VMs with such an interface.
    pub vms_with_taps: usize,
    /// VMs with such an interface whose network counters come from this host.
    pub net_from_host: usize,
}

impl VmRecord {
    /// Its devices, if its XML was read and understood.
    pub fn described(&self) -> Option<&Description> {
        self.description.as_ref()?.description.as_ref()
    }
}

impl Vms {
    /// Counts what the last gather has read on this host.
    pub fn host_counts(&self) -> HostCounts {
        let mut counts = HostCounts::default();
        for vm in self.records.values() {
            let uuid = vm.domain.run.uuid;
            let usage = self.cpu.now.get(&uuid);
            counts.control_groups += usize::from(usage.is_some());
            counts.cpu_from_host += usize::from(vm.cpu.processor(usage).is_some());
            let threads = vm.figures.as_ref().and_then(|host| host.vcpus.as_ref());
            counts.vms_with_vcpu_threads += usize::from(threads.is_some());
            counts.vcpu_threads += threads.map_or(0, |threads| threads.times.list.len());
            let has_pressure = vm
                .figures
                .as_ref()
                .is_some_and(|host| !host.pressure.is_empty());
            counts.vms_with_pressure += usize::from(has_pressure);
            let nics = vm.described().map_or(&[][..], |known| &known.nics);
            let named = nics.iter().filter_map(|nic| nic.target.as_deref()).count();
            let in_sight = nics.iter().filter_map(|nic| nic.target.as_deref());
            counts.taps += named;
            counts.taps_in_sight += in_sight.filter(|name| self.is_in_sight(uuid, name)).count();
            counts.vms_with_taps += usize::from(named > 0);
            let from_host = self
                .all_nics(vm)
                .and_then(|nics| vm.nics.counters(&self.net, uuid, nics, |_| true));
            counts.net_from_host += usize::from(named > 0 && from_host.is_some());
        }
        counts
    }

    fn is_in_sight(&self, uuid: Uuid, name: &str) -> bool {
        let net_dev = self.net.now.as_ref();
        let counters = net_dev.and_then(|now| now.counters(name, Perspective::Guest));
        counters.is_some() && self.net.in_our_netns.contains(&uuid)
    }
}
