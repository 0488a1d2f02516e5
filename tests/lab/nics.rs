//! The counters of a network interface are those of the right interface from the guest's view, also where
//! libvirt's counters belong to another interface or have the directions exchanged; and no rate is computed
//! from two devices.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line, lacking};
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec, disk_xml, disks};
use crate::support::{succeed, turn, wait_for};
use std::path::Path;
use std::time::Duration;
use telegraf_kvm::host::net_dev::{NetDev, NicCounters, Perspective};
use telegraf_kvm::sample::NIC_FIELDS;

/// Two connected links: a macvtap goes on `below`, and `beside` has 192.168.66.1.
pub fn add_link_pair(lab: &Lab) {
    ip(lab, "link add beside type veth peer name below");
    ip(lab, "link set below up");
    ip(lab, "link set beside up");
    ip(lab, "address add 192.168.66.1/24 dev beside");
}

/// Runs `ip` with these arguments in the lab.
pub fn ip(lab: &Lab, args: &str) {
    succeed(lab.command("ip").args(args.split(' ')));
}

/// Sends this many datagrams to an address.
fn send(lab: &Lab, count: usize, to: &str) {
    let send = format!("for n in $(seq {count}); do echo x >/dev/udp/{to}/9; done");
    succeed(lab.command("bash").args(["-c", &send]));
}

/// The kernel's counters for the interface of exactly this name, from the guest's view.
fn counted(lab: &Lab, name: &str, view: Perspective) -> NicCounters {
    let proc = format!("/proc/{}", lab.init());
    let taps = NetDev::read(Path::new(&proc)).unwrap();
    taps.counters(name, view).unwrap()
}

/// The counters of a VM's interface in the gather.
pub fn written(gather: &[Line], vm: &Vm, device: &str) -> NicCounters {
    let line = lines::device(gather, vm.name(), "nic", device);
    NIC_FIELDS.map(|field| line.int(field).unwrap().try_into().unwrap())
}

/// Gathers four times, with traffic between the gathers but not during them: the counters of each interface
/// are the kernel's.
fn are_right(lab: &Lab, vm: &Vm, nics: &[(&str, Perspective)], traffic: impl Fn()) {
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    for gather in 1..=4 {
        let found = plugin.gather();
        for (name, view) in nics {
            let right = counted(lab, name, *view);
            println!("{name}: {right:?}");
            assert_eq!(written(&found, vm, name), right, "{name}, gather {gather}");
        }
        lines::adds_up(&found, vm.name());
        if gather > 1 {
            assert_eq!(lacking(&found, vm.name()), [""; 0]);
        }
        traffic();
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn a_tap_whose_name_is_the_end_of_anothers_has_its_own_counters() {
    let _turn = turn::share();
    let lab = Lab::start();
    let nic = |name: &str| {
        format!(
            "<interface type='ethernet'><target dev='{name}'/><model type='virtio'/></interface>"
        )
    };
    let vm = lab.create(&VmSpec {
        name: "ends".into(),
        memory_mib: 96,
        // libvirt takes the first interface that matches; the last one counts nothing.
        devices: ["dmz-web-0", "web-0", "idle0"].map(nic).concat(),
        guest: true,
        ..VmSpec::default()
    });
    for (number, name) in ["dmz-web-0", "web-0"].into_iter().enumerate() {
        vm.guest(&format!("ip link set eth{number} up"));
        ip(&lab, &format!("link set {name} up"));
        ip(
            &lab,
            &format!("address add 192.168.8{number}.1/24 dev {name}"),
        );
        let neighbour = format!("192.168.8{number}.2 lladdr 52:54:00:00:00:0{number}");
        ip(&lab, &format!("neigh add {neighbour} dev {name}"));
    }
    ip(&lab, "link set idle0 down");
    let idle = counted(&lab, "idle0", Perspective::Guest);
    let traffic = || {
        let before = ["dmz-web-0", "web-0"].map(|name| counted(&lab, name, Perspective::Guest));
        send(&lab, 2, "192.168.80.2");
        send(&lab, 5, "192.168.81.2");
        wait_for("the packets", Duration::from_secs(20), || {
            let now = ["dmz-web-0", "web-0"].map(|name| counted(&lab, name, Perspective::Guest));
            (now[0][1] == before[0][1] + 2 && now[1][1] == before[1][1] + 5).then_some(())
        });
    };
    traffic();
    println!("libvirt: {:?}", lab.domstats(vm.name()));
    assert_eq!(idle, counted(&lab, "idle0", Perspective::Guest));
    let all = ["dmz-web-0", "web-0", "idle0"].map(|name| (name, Perspective::Guest));
    are_right(&lab, &vm, &all, traffic);
}

#[test]
fn a_macvtap_made_by_hand_has_received_what_the_guest_received() {
    let _turn = turn::share();
    let lab = Lab::start();
    let [by_hand, direct] = ["52:54:00:66:00:02", "52:54:00:66:00:03"];
    add_link_pair(&lab);
    ip(
        &lab,
        &format!("link add link below name hand0 address {by_hand} type macvtap mode bridge"),
    );
    for (address, mac) in [("192.168.66.2", by_hand), ("192.168.66.3", direct)] {
        ip(
            &lab,
            &format!("neigh add {address} lladdr {mac} dev beside"),
        );
    }
    let vm = lab.create(&VmSpec {
        name: "by hand".into(),
        memory_mib: 96,
        devices: format!(
            "<interface type='ethernet'><mac address='{by_hand}'/>\
             <target dev='hand0' managed='no'/><model type='virtio'/></interface>\
             <interface type='direct'><source dev='below' mode='bridge'/>\
             <mac address='{direct}'/><target dev='direct0'/><model type='virtio'/></interface>"
        ),
        guest: true,
        ..VmSpec::default()
    });
    ip(&lab, "link set hand0 up");
    vm.guest("ip link set eth0 up; ip link set eth1 up; ip address add 192.168.66.2/24 dev eth0");
    // Without an address it does not answer any more.
    vm.guest("ping -c 2 -i 0.2 192.168.66.1; ip address flush dev eth0");
    let traffic = || {
        let before = ["hand0", "direct0"].map(|name| counted(&lab, name, Perspective::Host));
        send(&lab, 3, "192.168.66.2");
        send(&lab, 4, "192.168.66.3");
        wait_for("the packets", Duration::from_secs(20), || {
            let now = ["hand0", "direct0"].map(|name| counted(&lab, name, Perspective::Host));
            (now[0][1] == before[0][1] + 3 && now[1][1] == before[1][1] + 4).then_some(())
        });
    };
    traffic();
    println!("libvirt: {:?}", lab.domstats(vm.name()));
    for name in ["hand0", "direct0"] {
        let counted = counted(&lab, name, Perspective::Host);
        println!("{name}: {counted:?}");
        assert_ne!(
            counted[0], counted[4],
            "both directions have the same counters"
        );
    }
    let both = [("hand0", Perspective::Host), ("direct0", Perspective::Host)];
    are_right(&lab, &vm, &both, traffic);
}

/// Waits until a device that the guest has to release is gone, and its event has arrived.
fn wait_gone(lab: &Lab, vm: &Vm, list: &str, device: &str) {
    wait_for(&format!("{device} to go"), Duration::from_secs(60), || {
        let listed = lab.virsh(&[list, "--domain", vm.uuid()]);
        (!listed.contains(device)).then_some(())
    });
    // libvirtd still works on the change for a moment and holds the VM's job; this call waits for that.
    lab.domstats(vm.uuid());
}

/// libvirt sends its events at the end of a change, on another connection than virsh's: after this pause they
/// have arrived.
fn events_arrive() {
    std::thread::sleep(Duration::from_millis(500));
}

#[test]
fn a_device_in_the_place_and_with_the_name_of_one_makes_no_rate_with_it() {
    let _turn = turn::share();
    let lab = Lab::start();
    let mac = "52:54:00:77:00:02";
    let nic = format!(
        "<interface type='bridge'><source bridge='br0'/><mac address='{mac}'/>\
         <target dev='same0'/><model type='virtio'/></interface>"
    );
    let image = lab.dir().join("same.img");
    std::fs::File::create(&image)
        .unwrap()
        .set_len(8 << 20)
        .unwrap();
    let disk = disk_xml("disk", "vdb", Some(&image));
    let vm = lab.create(&VmSpec {
        name: "replaced".into(),
        memory_mib: 96,
        disks: disks(&["vda"]),
        devices: format!("{nic}{disk}"),
        guest: true,
        ..VmSpec::default()
    });
    let (name, none) = (vm.name(), [""; 0]);
    let attach = |xml: &str| {
        let file = lab.dir().join("again.xml");
        std::fs::write(&file, xml).unwrap();
        let file = file.to_str().unwrap();
        lab.virsh(&["attach-device", vm.uuid(), file, "--live"]);
    };
    // Sends until the guest has received this many: a new port of the bridge forwards only after a moment,
    // and changes the bridge's address, which clears its neighbour table.
    let receive = |count: u64| {
        let neighbour = format!("neigh replace 192.168.77.10 lladdr {mac} dev br0");
        ip(&lab, &neighbour);
        wait_for("the packets", Duration::from_secs(30), || {
            send(&lab, 1, "192.168.77.10");
            (counted(&lab, "same0", Perspective::Guest)[1] >= count).then_some(())
        });
    };
    let up = "until [ -e /sys/class/net/eth0 ]; do sleep 0.1; done; ip link set eth0 up";
    let read = |kib: usize| {
        vm.guest(&format!(
            "until [ -b /dev/vdb ]; do sleep 0.1; done; \
             dd if=/dev/vdb of=/dev/null bs=64k count={} iflag=direct; \
             dd if=/dev/zero of=/dev/vdb bs=64k count={} oflag=direct",
            kib / 64,
            kib / 64
        ))
    };
    // The counters of both interfaces in the last gather.
    let moved = |gather: &[Line]| -> Vec<Option<i64>> {
        let totals = lines::one(gather, "vm_totals", name);
        [
            "net_rxbytes",
            "net_rxpackets",
            "disk_rd_bytes",
            "disk_rd_req",
            "disk_wr_bytes",
        ]
        .map(|field| totals.int(field))
        .into()
    };
    vm.guest(up);
    receive(2);
    read(64);
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    plugin.gather();
    let before = plugin.gather();
    assert_eq!(lacking(&before, name), none);

    lab.virsh(&[
        "detach-interface",
        vm.uuid(),
        "bridge",
        "--mac",
        mac,
        "--live",
    ]);
    wait_gone(&lab, &vm, "domiflist", "same0");
    attach(&nic);
    vm.guest(up);
    receive(40);
    events_arrive();
    let found = plugin.gather();
    println!("{:?}\n{:?}", moved(&before), moved(&found));
    assert!((0..2).all(|at| moved(&found)[at] > moved(&before)[at]));
    assert_eq!(lacking(&found, name), ["net_"], "a rate of two NICs");
    let before = plugin.gather();
    assert_eq!(lacking(&before, name), none);

    lab.virsh(&["detach-disk", vm.uuid(), "vdb", "--live"]);
    wait_gone(&lab, &vm, "domblklist", "vdb");
    attach(&disk);
    read(1024);
    events_arrive();
    let found = plugin.gather();
    println!("{:?}\n{:?}", moved(&before), moved(&found));
    assert!((2..5).all(|at| moved(&found)[at] > moved(&before)[at]));
    assert_eq!(lacking(&found, name), ["disk_"], "a rate of two disks");
    assert_eq!(lacking(&plugin.gather(), name), none);
    assert_eq!(plugin.stderr(), "");
}
