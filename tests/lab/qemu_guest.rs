//! A Linux guest reads, writes and sends a known amount: the counters grow by as much, in vm_devices, in
//! vm_totals, and in vm_features over the time that really passed.

use crate::support::lab::{BRIDGE, Lab};
use crate::support::lines::{self, Line, adds_up};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{succeed, turn, wait_for};
use std::time::{Duration, Instant};

/// The packet of one `ping -s 1000` on the wire: Ethernet, IP and ICMP headers and the payload.
const PING: i64 = 14 + 20 + 8 + 1000;

/// The difference of a field of one line between two gathers.
fn moved(before: &Line, after: &Line, field: &str) -> i64 {
    after.int(field).unwrap() - before.int(field).unwrap()
}

/// A gather, and the times before and after it.
fn timed(plugin: &mut Plugin) -> (Vec<Line>, Instant, Instant) {
    let start = Instant::now();
    let found = plugin.gather();
    (found, start, Instant::now())
}

/// Gives both ends each other's address permanently, so that nothing but the pings is sent.
fn connect(lab: &Lab, vm: &Vm) {
    let mac = |text: &str| {
        let word = text
            .split_whitespace()
            .find(|word| word.matches(':').count() == 5);
        word.unwrap_or_else(|| panic!("no address in {text:?}"))
            .to_owned()
    };
    let bridge = mac(&succeed(
        lab.command("ip").args(["-br", "link", "show", "br0"]),
    ));
    let guest = mac(&vm.guest("cat /sys/class/net/eth0/address"));
    vm.guest(&format!(
        "ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up; arp -s {BRIDGE} {bridge}"
    ));
    let mut neighbour = lab.command("ip");
    neighbour.args(["neighbour", "replace", "192.168.77.10", "lladdr", &guest]);
    succeed(neighbour.args(["dev", "br0", "nud", "permanent"]));
    vm.guest(&format!("ping -c 1 {BRIDGE}"));
}

/// Checks that the rate of `field` is its growth divided by the time that passed.
fn seconds(features: &Line, field: &str, moved: i64) -> f64 {
    moved as f64 / features.float(field).unwrap()
}

fn equal(one: f64, other: f64) {
    let apart = (one - other).abs();
    assert!(
        apart <= 1e-9 * one.abs().max(other.abs()),
        "{one} is not {other}"
    );
}

#[test]
fn counters_and_rates_move_by_what_the_guest_did() {
    let _turn = turn::share();
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        memory_mib: 112,
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap, Nic::Tap],
        guest: true,
        ..VmSpec::default()
    });
    connect(&lab, &vm);
    let name = vm.name();
    let mut plugin = Plugin::spawn(lab.plugin(&[]));

    let (before, earliest, begun) = timed(&mut plugin);
    vm.guest("dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct");
    vm.guest("dd if=/dev/zero of=/dev/vdb bs=4k count=7 oflag=direct");
    vm.guest("dd if=/dev/vda of=/dev/null bs=32k count=5 iflag=direct");
    vm.guest("dd if=/dev/vdb of=/dev/null bs=8k count=3 iflag=direct");
    let said = vm.guest(&format!("ping -c 5 -i 0.2 -s 1000 {BRIDGE}"));
    assert!(
        said.contains("5 packets transmitted, 5 packets received"),
        "{said}"
    );
    lab.virsh(&["setmem", vm.uuid(), "104MiB", "--live"]);
    wait_for("the balloon", Duration::from_secs(60), || {
        (lab.domstats(vm.uuid())["balloon.current"] == (104 * 1024).to_string()).then_some(())
    });
    // The time between the gathers must be long in comparison with their duration.
    std::thread::sleep(Duration::from_secs(3));
    let (after, ended, latest) = timed(&mut plugin);
    for found in [&before, &after] {
        adds_up(found, name);
    }

    // The disks have no file system and the guest nothing else to do: there is no overhead at all.
    let device = |devtype, device| {
        let before = lines::device(&before, name, devtype, device).clone();
        let after = lines::device(&after, name, devtype, device).clone();
        move |field: &str| moved(&before, &after, field)
    };
    let disk = ["wr_reqs", "wr_bytes", "rd_req", "rd_bytes"];
    assert_eq!(disk.map(device("disk", "vda")), [16, 16 << 16, 5, 5 << 15]);
    assert_eq!(disk.map(device("disk", "vdb")), [7, 7 << 12, 3, 3 << 13]);
    let nic = ["txpackets", "txbytes", "rxpackets", "rxbytes"];
    assert_eq!(nic.map(device("nic", "vnet0")), [5, 5 * PING, 5, 5 * PING]);
    assert_eq!(nic.map(device("nic", "vnet1"))[..2], [0, 0]);
    for field in ["rxerrors", "txerrors", "rxdrops"] {
        assert_eq!(device("nic", "vnet0")(field), 0, "{field}");
    }

    let totals = [&before, &after].map(|lines| lines::one(lines, "vm_totals", name));
    let total = |field: &str| moved(totals[0], totals[1], field);
    let disk = disk.map(|field| total(&format!("disk_{field}")));
    assert_eq!(disk, [23, (16 << 16) + (7 << 12), 8, (5 << 15) + (3 << 13)]);
    assert_eq!(total("net_txpackets"), 5);
    assert_eq!(total("net_txbytes"), 5 * PING);
    // vnet1 receives the packets that the bridge floods, of which a permanent neighbour leaves none.
    assert_eq!(total("net_rxpackets"), 5);
    assert_eq!(total("net_rxbytes"), 5 * PING);
    assert_eq!(total("memactual"), -8 * 1024);

    // All figures of one call or one reading have the same time, and their rates are over the time that
    // passed.
    let features = lines::one(&after, "vm_features", name);
    let passed = |seconds: f64| {
        assert!(seconds >= (ended - begun).as_secs_f64(), "{seconds} s");
        assert!(seconds <= (latest - earliest).as_secs_f64(), "{seconds} s");
    };
    let by_libvirt = [
        ("disk_rd_req_rate", "disk_rd_req"),
        ("disk_rd_bytes_rate", "disk_rd_bytes"),
        ("disk_wr_reqs_rate", "disk_wr_reqs"),
        ("disk_wr_bytes_rate", "disk_wr_bytes"),
        ("memory_rate_kb_per_sec", "memactual"),
    ];
    let on_the_host = [
        ("net_rxbytes_rate", "net_rxbytes"),
        ("net_txbytes_rate", "net_txbytes"),
        ("net_rxpackets_rate", "net_rxpackets"),
        ("net_txpackets_rate", "net_txpackets"),
    ];
    for fields in [&by_libvirt[..], &on_the_host] {
        let time = |(rate, figure): &(&str, &str)| seconds(features, rate, total(figure));
        passed(time(&fields[0]));
        for field in fields {
            equal(time(field), time(&fields[0]));
        }
    }
    let memory_rate = features.float("memory_rate_kb_per_sec").unwrap();
    equal(
        features
            .float("memory_angle_deg")
            .unwrap()
            .to_radians()
            .tan(),
        memory_rate,
    );
    let metrics = [&before, &after].map(|lines| lines::one(lines, "vm_metrics", name));
    let used = moved(metrics[0], metrics[1], "cputime_ns");
    assert!(used > 0);
    passed(used as f64 / 1e7 / features.float("cpu_usage_percent").unwrap());
    assert_eq!(moved(metrics[0], metrics[1], "memory_used_kb"), -8 * 1024);
    assert_eq!(plugin.stderr(), "");
}
