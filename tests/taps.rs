//! What `/proc/net/dev` says of a VM's taps is what libvirt says, and it is known when it is not.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::HashSet;
use std::path::PathBuf;
use support::lab::Lab;
use support::succeed;
use support::vm::{Nic, VmSpec};
use telegraf_kvm::host::taps::{Counters, Taps, sockets_of};

const KEYS: [&str; 8] = [
    "rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs", "tx.drop",
];

fn ip(lab: &Lab, args: &str) {
    succeed(lab.command("ip").args(args.split(' ')));
}

fn proc(lab: &Lab) -> PathBuf {
    format!("/proc/{}", lab.init()).into()
}

#[test]
fn our_figures_of_a_tap_are_libvirts() {
    let (lab, other) = (Lab::start(), Lab::start());
    let vm = lab.create(&VmSpec {
        name: "talks".into(),
        memory_mib: 96,
        nics: vec![Nic::Named("tap0".into())],
        devices:
            "<interface type='ethernet'><target dev='eth0x'/><model type='virtio'/></interface>"
                .into(),
        guest: true,
        ..VmSpec::default()
    });
    vm.guest("ip address add 192.168.77.10/24 dev eth1; ip link set eth1 up; ping -c 3 -i 0.2 192.168.77.1");
    // Nobody in the guest takes what comes by the second: drops, on one side only.
    ip(&lab, "link set eth0x txqueuelen 2 up");
    ip(&lab, "address add 192.168.88.1/24 dev eth0x");
    ip(
        &lab,
        "neigh add 192.168.88.2 lladdr 52:54:00:00:00:02 dev eth0x",
    );
    let send = "for n in 1 2 3 4 5 6 7 8; do echo x >/dev/udp/192.168.88.2/9; echo x >/dev/udp/192.168.77.10/9 || :; done";
    succeed(lab.command("bash").args(["-c", send]));

    let before = Taps::read(&proc(&lab)).unwrap();
    let stats = lab.domstats(vm.name());
    let after = Taps::read(&proc(&lab)).unwrap();
    for (number, name, kind) in [(0, "eth0x", "ethernet"), (1, "tap0", "bridge")] {
        assert_eq!(stats[&format!("net.{number}.name")], name);
        let libvirt: Counters =
            KEYS.map(|key| stats[&format!("net.{number}.{key}")].parse().unwrap());
        println!("{name}: {libvirt:?}");
        assert_ne!(
            libvirt[..4],
            libvirt[4..],
            "{name}: else swapping does not show"
        );
        assert!(
            before.agree(&after, name, kind, &libvirt),
            "{before:?}\n{libvirt:?}\n{after:?}"
        );
        let elsewhere = Taps::read(&proc(&other)).unwrap();
        assert!(!elsewhere.agree(&elsewhere, name, kind, &libvirt));
    }
    let id: u32 = lab.virsh(&["domid", vm.name()]).trim().parse().unwrap();
    assert_eq!(sockets_of(&proc(&lab)).unwrap(), HashSet::from([id]));
    assert_eq!(sockets_of(&proc(&other)).unwrap(), HashSet::new());
}
