//! Node files of libvirt's test driver: hosts with as many VMs and devices as a test needs.

use crate::support::vm::escape;
use std::fmt::Write as _;
use std::path::Path;

/// One VM of a node.
pub struct NodeVm {
    /// Any name that XML can carry.
    pub name: String,
    /// Targets of its disks.
    pub disks: Vec<String>,
    /// Targets of its interfaces: not `vnet...`, which libvirt drops.
    pub nics: Vec<String>,
}

/// `count` VMs `vm0`, `vm1`, ..., each with that many devices.
pub fn plain(count: usize, disks: usize, nics: usize) -> Vec<NodeVm> {
    let vm = |i| NodeVm {
        name: format!("vm{i}"),
        disks: (b'a'..)
            .take(disks)
            .map(|c| format!("vd{}", char::from(c)))
            .collect(),
        nics: (0..nics).map(|n| format!("tap{i}x{n}")).collect(),
    };
    (0..count).map(vm).collect()
}

/// The number of lines of the first gather of these VMs: one each of vm_metrics and vm_totals, and one per
/// device. Every further gather has one more per VM, vm_features.
pub fn first_lines(vms: &[NodeVm]) -> usize {
    vms.iter()
        .map(|vm| 2 + vm.disks.len() + vm.nics.len())
        .sum()
}

/// Writes the node file and returns its URI. The file appears complete, in one step.
pub fn write(file: &Path, vms: &[NodeVm]) -> String {
    let mut xml = "<node>".to_owned();
    for (i, vm) in vms.iter().enumerate() {
        let _ = write!(
            xml,
            "<domain type='test'><name>{}</name><uuid>6695eb01-0000-4000-8000-{i:012}</uuid>\
             <memory>1048576</memory><vcpu>2</vcpu><os><type>hvm</type></os><devices>",
            escape(&vm.name)
        );
        for disk in &vm.disks {
            let _ = write!(
                xml,
                "<disk type='file' device='disk'><source file='/guest/{i}-{0}'/>\
                 <target dev='{0}' bus='virtio'/></disk>",
                escape(disk)
            );
        }
        for nic in &vm.nics {
            let _ = write!(
                xml,
                "<interface type='network'><source network='default'/><target dev='{}'/></interface>",
                escape(nic)
            );
        }
        xml += "</devices></domain>";
    }
    xml += "<network><name>default</name><bridge name='virbr0'/>\
            <ip address='192.168.122.1' netmask='255.255.255.0'/></network></node>";
    let whole = file.with_extension("part");
    std::fs::write(&whole, xml).unwrap();
    std::fs::rename(&whole, file).unwrap();
    format!("test://{}", file.display())
}
