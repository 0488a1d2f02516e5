//! A Linux guest reads, writes and sends a known amount: the counters grow by as much, in vm_devices, in
//! vm_totals, and in vm_features over the time that really passed. On a disk with a known delay its requests take as
//! long. And what it reports of its memory is written only while it is fresh.

use crate::support::lab::{BRIDGE, Lab};
use crate::support::lines::{self, Line, adds_up};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{succeed, turn, wait_for};
use std::process::Child;
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

/// How long each request to the slow disk takes at least, in ms.
const DELAY_MS: f64 = 20.0;

/// The slow disk: a server on the host that answers each read, write and flush after [`DELAY_MS`].
struct SlowDisk(Child);

impl SlowDisk {
    /// The server, and the XML of the disk `vdc`.
    fn start(lab: &Lab) -> (Self, String) {
        let socket = lab.dir().join("slow.sock");
        let path = socket.to_str().unwrap();
        let delay = (DELAY_MS * 1e6) as u64;
        // Without read-zeroes: of zeros the server answers a read without the delay.
        let node = format!("driver=null-co,node-name=f0,size=8388608,latency-ns={delay}");
        let server = format!("addr.type=unix,addr.path={path}");
        let export = "type=nbd,id=e0,node-name=f0,name=slow,writable=on";
        let mut command = lab.command("qemu-storage-daemon");
        command.args(["--blockdev", &node, "--nbd-server", &server]);
        let server = Self(command.args(["--export", export]).spawn().unwrap());
        wait_for("its socket", Duration::from_secs(20), || {
            socket.exists().then_some(())
        });
        let xml = format!(
            "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
             <source protocol='nbd' name='slow'><host transport='unix' socket='{path}'/></source>\
             <target dev='vdc' bus='virtio'/></disk>"
        );
        (server, xml)
    }
}

impl Drop for SlowDisk {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn counters_and_rates_move_by_what_the_guest_did() {
    let _turn = turn::share();
    let lab = Lab::start();
    let (_server, slow_disk) = SlowDisk::start(&lab);
    let vm = lab.create(&VmSpec {
        memory_mib: 112,
        disks: disks(&["vda", "vdb"]),
        devices: slow_disk,
        nics: vec![Nic::Tap, Nic::Tap],
        stats_period: Some(1),
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
    requests_take_as_long_as_the_disk_takes(&lab, &vm);
    old_figures_of_a_guest_are_left_out(&lab, &vm);
}

/// In bulk and with a call for each disk.
fn requests_take_as_long_as_the_disk_takes(lab: &Lab, vm: &Vm) {
    let name = vm.name();
    let config = lab.config("block_statistics = 'per-disk'");
    let mut plugins = [vec![], vec!["--config", config.as_str()]]
        .map(|arguments| Plugin::spawn(lab.plugin(&arguments)));
    let before = plugins.each_mut().map(Plugin::gather);
    let block_calls = plugins[1].collected("calls_block");
    let start = Instant::now();
    vm.guest("dd if=/dev/vda of=/dev/null bs=4k count=2 iflag=direct");
    vm.guest("dd if=/dev/vdc of=/dev/null bs=4k count=5 iflag=direct");
    for _ in 0..3 {
        vm.guest("dd if=/dev/zero of=/dev/vdc bs=4k count=1 oflag=direct conv=fsync");
    }
    let after = plugins.each_mut().map(Plugin::gather);
    let passed_ms = start.elapsed().as_secs_f64() * 1e3;
    let kinds = [
        ("rd", "rd_req", 5),
        ("wr", "wr_reqs", 3),
        ("fl", "fl_reqs", 3),
    ];
    for (before, after) in before.iter().zip(&after) {
        let disk = |device| {
            let of = |lines| lines::device(lines, name, "disk", device).clone();
            (of(before), of(after))
        };
        let (slow, fast, idle) = (disk("vdc"), disk("vda"), disk("vdb"));
        let features = lines::one(after, "vm_features", name);
        for (kind, requests, number) in kinds {
            let (latency, time) = (format!("{kind}_latency_ms"), format!("{kind}_time_ns"));
            assert_eq!(slow.0.float(&latency), None, "a first gather");
            assert_eq!(moved(&slow.0, &slow.1, requests), number, "{requests}");
            let ms = slow.1.float(&latency).unwrap();
            let took = moved(&slow.0, &slow.1, &time);
            equal(ms, took as f64 / 1e6 / number as f64);
            assert!(ms >= DELAY_MS, "{latency}: {ms}");
            // The guest waited for each request before it sent the next one.
            assert!(
                ms * number as f64 <= passed_ms,
                "{latency}: {ms} {passed_ms}"
            );

            assert_eq!(idle.1.float(&latency), None, "no request ended");
            assert_eq!(fast.1.float(&latency).is_some(), kind == "rd");
            // Over all disks: 2 requests more, on the fast one.
            let (took, number) = match kind {
                "rd" => (took + moved(&fast.0, &fast.1, &time), number + 2),
                _ => (took, number),
            };
            let all = features.float(&format!("disk_{latency}")).unwrap();
            equal(all, took as f64 / 1e6 / number as f64);
            let totals = [before, after].map(|lines| lines::one(lines, "vm_totals", name));
            let sum = format!("disk_{time}");
            assert_eq!(moved(totals[0], totals[1], &sum), took, "{sum}");
        }
        adds_up(after, name);
    }

    // Both ways read the same counters. The sizes come in bulk alone.
    let [bulk, per_disk] = &after;
    for device in ["vda", "vdb", "vdc"] {
        let [bulk, per_disk] =
            [bulk, per_disk].map(|lines| lines::device(lines, name, "disk", device));
        for (field, value) in &per_disk.fields {
            assert_eq!(bulk.fields.get(field), Some(value), "{device} {field}");
        }
        assert!(!per_disk.fields.keys().any(|field| lines::is_size(field)));
        assert_eq!(bulk.int("capacity_bytes"), Some(8 << 20));
        assert!(bulk.int("allocation_bytes").is_some(), "{bulk:?}");
        // Some versions have none of a disk on the network.
        let physical = bulk.int("physical_bytes");
        assert!(physical.is_some() || device == "vdc", "{bulk:?}");
    }
    let [bulk, one_by_one] = [bulk, per_disk].map(|lines| lines::one(lines, "vm_totals", name));
    assert_eq!(bulk.int("disk_capacity_bytes"), Some(24 << 20));
    assert!(!one_by_one.fields.keys().any(|field| lines::is_size(field)));
    let calls = plugins[1].collected("calls_block") - block_calls;
    assert_eq!(calls, 3, "one call for each disk");
    for plugin in plugins {
        assert_eq!(plugin.stderr(), "");
    }
}

/// The figures that a guest reports by itself.
const REPORTED: [&str; 8] = [
    "memavailable",
    "memusable",
    "memunused",
    "memswap_in",
    "memswap_out",
    "memmajor_fault",
    "memminor_fault",
    "memdisk_cache",
];

/// libvirt goes on giving the figures of a suspended guest: once they are old they are not written.
fn old_figures_of_a_guest_are_left_out(lab: &Lab, vm: &Vm) {
    let file = lab.config("guest_memory_max_age = '3s'");
    let mut plugin = Plugin::spawn(lab.plugin(&["--config", &file]));
    let name = vm.name();
    let is_written = |totals: &Line| REPORTED.map(|field| totals.int(field).is_some());
    let reports = |plugin: &mut Plugin| {
        wait_for("fresh figures", Duration::from_secs(60), || {
            let found = plugin.gather();
            let totals = lines::one(&found, "vm_totals", name);
            let age = totals.int("memstats_age_sec");
            if age.is_none_or(|age| age >= 3) {
                return None;
            }
            assert_eq!(is_written(totals), [true; 8], "{totals:?}");
            let features = lines::of(&found, "vm_features", name);
            let used = features.first()?.float("memory_guest_used_percent")?;
            let memory = |field| totals.int(field).unwrap() as f64;
            let in_use = memory("memavailable") - memory("memusable");
            equal(used, 100.0 * in_use / memory("memavailable"));
            Some(())
        });
    };
    reports(&mut plugin);
    lab.virsh(&["suspend", vm.uuid()]);
    // The report is stamped in whole seconds.
    std::thread::sleep(Duration::from_secs(4));
    let found = plugin.gather();
    let totals = lines::one(&found, "vm_totals", name);
    assert!(totals.int("memstats_age_sec") >= Some(3), "{totals:?}");
    assert_eq!(is_written(totals), [false; 8], "{totals:?}");
    for field in ["memactual", "memrss"] {
        assert!(totals.int(field) > Some(0), "{field}: {totals:?}");
    }
    let features = lines::one(&found, "vm_features", name);
    assert_eq!(features.float("memory_guest_used_percent"), None);
    let theirs = lab.domstats(vm.uuid());
    assert!(theirs.contains_key("balloon.usable"), "{theirs:?}");
    lab.virsh(&["resume", vm.uuid()]);
    reports(&mut plugin);
    assert_eq!(plugin.stderr(), "");
}
