//! The values in `/proc/net/dev` for a VM's taps, and in its control group for its CPU time, equal libvirt's,
//! so libvirt is not queried for them. Where they differ, libvirt is queried.

use super::nics::{add_link_pair, ip, written};
use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec};
use crate::support::{succeed, wait_for};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;
use telegraf_kvm::host::net_dev::{NetDev, NicCounters, Perspective};
use telegraf_kvm::sample::NIC_FIELDS;

const KEYS: [&str; 8] = [
    "rx.bytes", "rx.pkts", "rx.errs", "rx.drop", "tx.bytes", "tx.pkts", "tx.errs", "tx.drop",
];
/// VIR_DOMAIN_STATS_CPU_TOTAL
const CPU: u32 = 1 << 1;
/// VIR_DOMAIN_STATS_INTERFACE
const NET: u32 = 1 << 4;

/// A VM with two taps on which packets were sent in both directions, in different numbers.
fn talker(lab: &Lab) -> Vm<'_> {
    let vm = lab.create(&VmSpec {
        name: "talks".into(),
        memory_mib: 96,
        max_vcpus: 2,
        nics: vec![Nic::Named("tap0".into())],
        devices:
            "<interface type='ethernet'><target dev='eth0x'/><model type='virtio'/></interface>"
                .into(),
        guest: true,
        ..VmSpec::default()
    });
    vm.guest("ip address add 192.168.77.10/24 dev eth1; ip link set eth1 up; ping -c 3 -i 0.2 192.168.77.1");
    // No program in the guest reads the packets of the second interface: drops, in one direction only.
    ip(lab, "link set eth0x txqueuelen 2 up");
    ip(lab, "address add 192.168.88.1/24 dev eth0x");
    ip(
        lab,
        "neigh add 192.168.88.2 lladdr 52:54:00:00:00:02 dev eth0x",
    );
    send(lab);
    vm
}

/// Sends eight datagrams to each of these.
fn send(lab: &Lab) {
    let send = "for n in 1 2 3 4 5 6 7 8; do echo x >/dev/udp/192.168.88.2/9; echo x >/dev/udp/192.168.77.10/9 || :; done";
    succeed(lab.command("bash").args(["-c", send]));
}

fn counters(stats: &BTreeMap<String, String>, number: usize) -> NicCounters {
    KEYS.map(|key| stats[&format!("net.{number}.{key}")].parse().unwrap())
}

#[test]
fn our_figures_of_a_tap_are_libvirts() {
    let (lab, other) = (Lab::start(), Lab::start());
    let vm = talker(&lab);
    let read = |lab: &Lab| NetDev::read(Path::new(&format!("/proc/{}", lab.init()))).unwrap();
    let before = read(&lab);
    let stats = lab.domstats(vm.name());
    let after = read(&lab);
    for (number, name) in [(0, "eth0x"), (1, "tap0")] {
        assert_eq!(stats[&format!("net.{number}.name")], name);
        let libvirt = counters(&stats, number);
        println!("{name}: {libvirt:?}");
        let view = before.perspective(&after, name, &libvirt);
        // libvirt 7.0 has received and sent exchanged for <interface type='ethernet'>.
        let exchanged = name == "eth0x" && lab.libvirt_version() == (7, 0);
        let expected = if exchanged {
            Perspective::Host
        } else {
            Perspective::Guest
        };
        assert_eq!(view, Some(expected), "{before:?}\n{libvirt:?}\n{after:?}");
        let elsewhere = read(&other);
        assert_eq!(elsewhere.perspective(&elsewhere, name, &libvirt), None);
    }
}

/// The plugin, and libvirt's own log of its calls.
pub struct LoggedPlugin {
    pub plugin: Plugin,
    file: PathBuf,
    read: usize,
}

impl LoggedPlugin {
    pub fn start(lab: &Lab, mut command: Command, name: &str) -> Self {
        let file = lab.dir().join(name);
        std::fs::write(&file, "").unwrap();
        // The plugin may run as any user.
        std::fs::set_permissions(&file, Permissions::from_mode(0o666)).unwrap();
        command
            .env("LIBVIRT_DEBUG", "1")
            .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", file.display()));
        Self {
            plugin: Plugin::spawn(command),
            file,
            read: 0,
        }
    }

    /// Gathers; returns the lines and the groups of each bulk call.
    pub fn gather(&mut self) -> (Vec<Line>, Vec<u32>) {
        let lines = self.plugin.gather();
        (lines, self.asked())
    }

    /// The groups of each bulk call since the last call of this function.
    pub fn asked(&mut self) -> Vec<u32> {
        let bytes = std::fs::read(&self.file).unwrap();
        let text = String::from_utf8_lossy(&bytes[self.read..]).into_owned();
        self.read = bytes.len();
        let groups = |line: &str| {
            let (_, rest) = line.split_once("virDomainListGetStats:")?;
            let (_, rest) = rest.split_once("stats=0x")?;
            u32::from_str_radix(rest.split(',').next()?, 16).ok()
        };
        text.lines().filter_map(groups).collect()
    }
}

type Stats = BTreeMap<String, String>;

/// Gathers until these groups are requested for no VM (where the host report is late, they are requested).
/// Returns that gather, and libvirt's figures of the VM before and after it.
fn without(
    groups: u32,
    logged: &mut LoggedPlugin,
    lab: &Lab,
    vm: &Vm,
) -> (Stats, Vec<Line>, Stats) {
    wait_for("a gather without a group", Duration::from_secs(20), || {
        let before = lab.domstats(vm.name());
        let (lines, asked) = logged.gather();
        let unqueried = asked.iter().all(|asked| asked & groups == 0);
        unqueried.then(|| (before, lines, lab.domstats(vm.name())))
    })
}

#[test]
fn libvirt_is_asked_for_cpu_time_until_it_is_seen_to_be_ours() {
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        name: "works".into(),
        memory_mib: 96,
        max_vcpus: 2,
        guest: true,
        ..VmSpec::default()
    });
    let mut here = LoggedPlugin::start(&lab, lab.plugin_unprivileged(&[]), "here.log");
    let (_, first) = here.gather();
    assert!(first.iter().all(|groups| groups & CPU != 0), "{first:x?}");
    without(CPU, &mut here, &lab, &vm);
    for gather in 0..8 {
        if gather == 4 {
            // The change shows at once; then the CPU time is read on the host alone again.
            lab.virsh(&["setvcpus", vm.name(), "2", "--live"]);
            let (lines, asked) = here.gather();
            let totals = lines::one(&lines, "vm_totals", vm.name());
            assert_eq!(totals.int("cpus"), Some(2));
            assert!(asked.iter().any(|groups| groups & CPU != 0), "{asked:x?}");
        }
        vm.guest("n=0; while [ $n -lt 20000 ]; do n=$((n + 1)); done");
        let (before, lines, after) = without(CPU, &mut here, &lab, &vm);
        let totals = lines::one(&lines, "vm_totals", vm.name());
        assert_eq!(totals.int("cpus"), Some(if gather < 4 { 1 } else { 2 }));
        for (field, key) in [
            ("cputime", "cpu.time"),
            ("timeusr", "cpu.user"),
            ("timesys", "cpu.system"),
        ] {
            let [from, to] = [&before, &after].map(|stats| stats[key].parse::<i64>().unwrap());
            let found = totals.int(field).unwrap();
            assert!(from <= found && found <= to, "{field}: {from} {found} {to}");
            assert!(from > 0);
        }
    }
}

#[test]
fn libvirt_is_asked_for_network_counters_until_they_are_seen_to_be_ours() {
    let lab = Lab::start();
    let vm = talker(&lab);
    let mut here = LoggedPlugin::start(&lab, lab.plugin(&[]), "here.log");
    let mut elsewhere = lab.command("unshare");
    elsewhere.args(["--net", env!("CARGO_BIN_EXE_telegraf-kvm")]);
    let mut elsewhere = LoggedPlugin::start(&lab, elsewhere, "elsewhere.log");

    let (_, first) = here.gather();
    assert!(first.iter().all(|groups| groups & NET != 0), "{first:x?}");
    wait_for(
        "gathers without the net group",
        Duration::from_secs(20),
        || {
            let (_, groups) = here.gather();
            groups.iter().all(|groups| groups & NET == 0).then_some(())
        },
    );
    for _ in 0..5 {
        send(&lab);
        let (before, lines, _) = without(NET, &mut here, &lab, &vm);
        let (others, asked) = elsewhere.gather();
        assert!(asked.iter().all(|groups| groups & NET != 0), "{asked:x?}");
        let after = lab.domstats(vm.name());
        for (number, device) in [(0, "eth0x"), (1, "tap0")] {
            let (from, to) = (counters(&before, number), counters(&after, number));
            // libvirt 7.0 has them exchanged for <interface type='ethernet'>; elsewhere they equal libvirt's.
            let exchanged = device == "eth0x" && lab.libvirt_version() == (7, 0);
            let ours = if exchanged { 4 } else { 0 };
            for (shift, gather) in [(ours, &lines), (0, &others)] {
                let found = written(gather, &vm, device);
                let place = |at: usize| (at + shift) % 8;
                let between =
                    |at: usize| from[place(at)] <= found[at] && found[at] <= to[place(at)];
                assert!((0..8).all(between), "{from:?}\n{found:?}\n{to:?}");
            }
            let line = lines::device(&lines, vm.name(), "nic", device);
            let other = lines::device(&others, vm.name(), "nic", device);
            assert_eq!(line.tags, other.tags);
        }
        lines::adds_up(&lines, vm.name());
    }

    // A NIC without any traffic proves nothing yet, so libvirt is queried for it.
    let still = lab.create(&VmSpec {
        name: "silent".into(),
        devices: "<interface type='ethernet'><target dev='down0'/></interface>".into(),
        paused: true,
        ..VmSpec::default()
    });
    ip(&lab, "link set down0 down");
    let lines = wait_for(
        "libvirt is queried only for the silent one",
        Duration::from_secs(20),
        || {
            let (lines, groups) = here.gather();
            let without = groups.iter().filter(|groups| *groups & NET == 0).count();
            ((without, groups.len()) == (1, 2)).then_some(lines)
        },
    );
    let silent = lines::device(&lines, still.name(), "nic", "down0");
    assert!(silent.int("rxbytes").is_some());
}

#[test]
fn a_vcpu_for_an_io_thread_is_seen() {
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        name: "swaps".into(),
        max_vcpus: 2,
        extra: "<iothreads>1</iothreads>".into(),
        ..VmSpec::default()
    });
    let mut here = LoggedPlugin::start(&lab, lab.plugin(&[]), "here.log");
    without(CPU, &mut here, &lab, &vm);
    // The number of control groups stays the same: one vCPU more, one I/O thread less.
    lab.virsh(&["setvcpus", vm.name(), "2", "--live"]);
    lab.virsh(&["iothreaddel", vm.name(), "1", "--live"]);
    for _ in 0..2 {
        let (lines, _) = here.gather();
        let totals = lines::one(&lines, "vm_totals", vm.name());
        assert_eq!(totals.int("cpus"), Some(2));
        without(CPU, &mut here, &lab, &vm);
    }
}

/// Sends eight datagrams into a tap that holds two and whose VM reads none.
fn send_into_still(lab: &Lab) {
    for _ in 0..8 {
        datagram(lab, "192.168.66.2");
    }
}

fn datagram(lab: &Lab, to: &str) {
    let send = format!("echo x >/dev/udp/{to}/9");
    succeed(lab.command("bash").args(["-c", &send]));
}

/// A paused VM with packets for it in its tap.
fn still(lab: &Lab) -> Vm<'_> {
    let vm = lab.create(&VmSpec {
        name: "still".into(),
        devices:
            "<interface type='ethernet'><target dev='same0'/><model type='virtio'/></interface>"
                .into(),
        paused: true,
        ..VmSpec::default()
    });
    ip(lab, "link set same0 txqueuelen 2 up");
    ip(lab, "address add 192.168.66.1/24 dev same0");
    let neighbour = "neigh add 192.168.66.2 lladdr 52:54:00:00:00:02 dev same0";
    ip(lab, neighbour);
    send_into_still(lab);
    vm
}

#[test]
fn a_tap_of_that_name_and_those_figures_in_another_network_is_not_libvirts() {
    let (lab, other) = (Lab::start(), Lab::start());
    let (vm, its_like) = (still(&lab), still(&other));
    let name = vm.name();
    let figures = |lab: &Lab, vm: &Vm| counters(&lab.domstats(vm.name()), 0);
    wait_for("the same figures", Duration::from_secs(20), || {
        let (here, there) = (figures(&lab, &vm), figures(&other, &its_like));
        let behind = if here < there { &lab } else { &other };
        if here != there {
            datagram(behind, "192.168.66.2");
        }
        (here == there && here != [0; 8]).then_some(())
    });

    // The lab's libvirtd, processes and files, with the network of the other lab.
    let mut astray = Command::new("nsenter");
    astray
        .arg(format!("--target={}", lab.init()))
        .args(["--mount", "--pid", "--uts"])
        .arg(format!("--net=/proc/{}/ns/net", other.init()))
        .args(["setpriv", "--pdeathsig", "KILL"])
        .arg(env!("CARGO_BIN_EXE_telegraf-kvm"))
        .env_remove("LIBVIRT_DEFAULT_URI")
        .env_remove("RUST_LOG");
    let mut astray = LoggedPlugin::start(&lab, astray, "astray.log");
    let mut at_home = LoggedPlugin::start(&lab, lab.plugin(&[]), "home.log");
    let mut unqueried = 0;
    for _ in 0..6 {
        let (lines, asked) = astray.gather();
        assert!(asked.iter().all(|groups| groups & NET != 0), "{asked:x?}");
        let line = lines::device(&lines, name, "nic", "same0");
        let libvirts = figures(&lab, &vm);
        for (field, libvirts) in NIC_FIELDS.iter().zip(libvirts) {
            assert_eq!(
                line.int(field),
                Some(libvirts.try_into().unwrap()),
                "{field}"
            );
        }
        let (_, asked) = at_home.gather();
        unqueried += usize::from(asked.iter().all(|groups| groups & NET == 0));
        send_into_still(&lab);
    }
    assert!(unqueried > 0, "libvirt was queried in each gather");
}

#[test]
fn a_nic_of_another_kind_in_the_place_and_with_the_name_of_one_is_not_taken_for_it() {
    let lab = Lab::start();
    let mac = "52:54:00:66:00:02";
    let vm = lab.create(&VmSpec {
        name: "changes".into(),
        memory_mib: 96,
        devices: format!("<interface type='bridge'><source bridge='br0'/><mac address='{mac}'/><target dev='same0'/><model type='virtio'/></interface>"),
        guest: true,
        ..VmSpec::default()
    });
    vm.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up; ping -c 3 -i 0.2 192.168.77.1");
    // Pings alone look the same in both directions.
    datagram(&lab, "192.168.77.10");
    let mut here = LoggedPlugin::start(&lab, lab.plugin(&[]), "here.log");
    without(NET, &mut here, &lab, &vm);

    lab.virsh(&[
        "detach-interface",
        vm.name(),
        "bridge",
        "--mac",
        mac,
        "--live",
    ]);
    wait_for("the tap to go", Duration::from_secs(30), || {
        let list = lab.virsh(&["domiflist", vm.name()]);
        (!list.contains("same0")).then_some(())
    });
    // libvirt counts a macvtap's traffic from the host's side.
    add_link_pair(&lab);
    ip(
        &lab,
        &format!("neigh add 192.168.66.2 lladdr {mac} dev beside"),
    );
    let xml = lab.dir().join("direct.xml");
    let direct = format!(
        "<interface type='direct'><source dev='below' mode='bridge'/><mac address='{mac}'/><target dev='same0'/><model type='virtio'/></interface>"
    );
    std::fs::write(&xml, direct).unwrap();
    lab.virsh(&["attach-device", vm.name(), xml.to_str().unwrap(), "--live"]);
    send_into_still(&lab);

    for _ in 0..3 {
        let (before, lines, after) = without(NET, &mut here, &lab, &vm);
        let (from, to) = (counters(&before, 0), counters(&after, 0));
        let found = written(&lines, &vm, "same0");
        let between = |at: usize| from[at] <= found[at] && found[at] <= to[at];
        assert!((0..8).all(between), "{from:?}\n{found:?}\n{to:?}");
        assert!(
            from[0] != from[4],
            "both directions have the same counters: {from:?}"
        );
        send_into_still(&lab);
    }
}

#[test]
fn a_libvirtd_that_was_started_anew_is_asked_anew() {
    let lab = Lab::start();
    let vm = talker(&lab);
    let mut here = LoggedPlugin::start(&lab, lab.plugin(&[]), "here.log");
    for _ in 0..2 {
        without(CPU | NET, &mut here, &lab, &vm);
        lab.stop_libvirtd();
        lab.start_libvirtd();
        let asked = wait_for("a gather", Duration::from_secs(20), || {
            let (lines, asked) = here.gather();
            let is_there = !lines::of(&lines, "vm_totals", vm.name()).is_empty();
            is_there.then_some(asked)
        });
        let both = |groups: &u32| groups & (CPU | NET) == CPU | NET;
        assert!(!asked.is_empty() && asked.iter().all(both), "{asked:x?}");
    }
}
