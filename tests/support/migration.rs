//! Live migrations from one lab to another.

use super::daemon::Client;
use super::lab::Lab;

/// XML for [`VmSpec::extra`](super::vm::VmSpec::extra) that puts so many MiB which are not zero into the memory of a VM, from
/// 16 MiB on, so that a migration has something to transfer.
pub fn full_memory(lab: &Lab, mib: usize) -> String {
    let memory = lab.dir().join("memory");
    let mut noise: u64 = 4711;
    let bytes = (0..mib << 20).map(|_| {
        noise = noise
            .wrapping_mul(6_364_136_223_846_793_005)
            .wrapping_add(1);
        (noise >> 56) as u8
    });
    std::fs::write(&memory, bytes.collect::<Vec<u8>>()).unwrap();
    format!(
        "<commandline xmlns='http://libvirt.org/schemas/domain/qemu/1.0'>\
         <arg value='-device'/>\
         <arg value='loader,file={},addr=0x1000000,force-raw=on'/></commandline>",
        memory.display()
    )
}

/// Begins to migrate a VM to the other lab, with so many MiB a second. Both labs are reachable.
pub fn migrate(source: &Lab, target: &Lab, name: &str, bandwidth: u32) -> Client {
    let socket = target.dir().join("migration.sock");
    source.client(&[
        "migrate",
        "--live",
        "--p2p",
        "--unsafe",
        "--bandwidth",
        &bandwidth.to_string(),
        "--migrateuri",
        &format!("unix://{}", socket.display()),
        name,
        &target.uri_for_others(),
    ])
}
