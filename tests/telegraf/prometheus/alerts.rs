//! Every alert fires once in a real Prometheus, filled by real Telegrafs from real VMs: `tests/run --long`.

use super::proxy::Proxy;
use super::rules::alerts;
use super::served::configuration;
use super::server::Prometheus;
use super::{in_seconds, rules, stanza, telegraf};
use crate::agent::{LIMIT, PLUGIN, Telegraf};
use crate::support::fleet::long;
use crate::support::lab::Lab;
use crate::support::outage::Mount;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{succeed, wait_for};
use rustix::process::{Pid, Signal, kill_process};
use std::cell::RefCell;
use std::collections::BTreeSet;
use std::process::Child;
use std::time::Duration;

/// The alerts that have fired.
struct Fired<'t> {
    prometheus: &'t Prometheus<'t>,
    seen: RefCell<BTreeSet<String>>,
}

impl Fired<'_> {
    /// Waits until that alert fires on the host, for the VM of that name if there is one, and checks its texts.
    fn expect(&self, alert: &str, host: &str, name: Option<&str>) {
        let is_it = |one: &super::server::Annotation| {
            let of_vm = name.is_none_or(|name| one.name == name);
            one.alert == alert && one.host == host && of_vm && one.state == "firing"
        };
        let found = wait_for(&format!("{alert} of {host}, {name:?}"), 2 * LIMIT, || {
            let mut alerts = self.prometheus.alerts();
            alerts.retain(is_it);
            (!alerts.is_empty()).then_some(alerts)
        });
        for one in &found {
            println!("{alert} {}: {}", one.key, one.text);
            let is_whole = !one.text.contains("no value") && !one.text.contains("rror expanding");
            assert!(is_whole && !one.text.contains("{{"), "{one:?}");
        }
        self.seen.borrow_mut().insert(alert.to_owned());
    }
}

/// A program that uses all CPU time that it gets; it is killed when the handle is dropped.
struct BusyLoop(Child);

impl BusyLoop {
    fn start(lab: &Lab) -> BusyLoop {
        let mut command = lab.command("sh");
        BusyLoop(command.args(["-c", "while :; do :; done"]).spawn().unwrap())
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sets the VM's share of the CPUs.
fn set_shares(lab: &Lab, vm: &Vm, shares: u32) {
    let set = format!("cpu_shares={shares}");
    let mut command = lab.virsh_command();
    command.args(["schedinfo", vm.name(), "--live", "--set", &set]);
    succeed(&mut command);
}

/// A folder of the lab with a file system of that size, in KiB.
fn small_store(lab: &Lab, name: &str, kib: u32) -> String {
    let store = lab.dir().join(name);
    std::fs::create_dir(&store).unwrap();
    let store = store.to_str().unwrap().to_owned();
    let size = format!("size={kib}k");
    succeed(
        lab.command("mount")
            .args(["-t", "tmpfs", "-o", &size, name, &store]),
    );
    store
}

fn small<'lab>(lab: &'lab Lab, name: &str, devices: String) -> Vm<'lab> {
    lab.create(&VmSpec {
        name: name.into(),
        nics: vec![Nic::Tap],
        paused: true,
        persistent: true,
        devices,
        ..VmSpec::default()
    })
}

fn guest<'lab>(lab: &'lab Lab, name: &str, devices: String) -> Vm<'lab> {
    lab.create(&VmSpec {
        name: name.into(),
        memory_mib: 96,
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        devices,
        ..VmSpec::default()
    })
}

fn disk(target: &str, image: &str, policy: &str) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' error_policy='{policy}'/>\
         <source file='{image}'/><target dev='{target}' bus='virtio'/></disk>"
    )
}

#[test]
fn every_alert_fires_once_it_has_a_reason() {
    if !long() {
        return;
    }
    let lab = Lab::start();
    // Images larger than their store.
    let store = small_store(&lab, "store", 1024);
    let image = |name: &str| {
        let image = format!("{store}/{name}.img");
        succeed(lab.command("truncate").args(["-s", "8M", &image]));
        image
    };
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let far = mount.new_image("far.img", 1024, true);
    let busy = guest(&lab, "busy", String::new());
    let full = guest(
        &lab,
        "full",
        disk("vdc", &image("stops"), "stop") + &disk("vdd", &image("reports"), "report"),
    );
    let frozen = small(&lab, "frozen", String::new());
    let dies = small(&lab, "dies", String::new());
    let _remote = small(&lab, "remote", disk("vda", far.to_str().unwrap(), "report"));

    let config = lab.config(
        "measurements = [\"vm_metrics\", \"vm_features\", \"vm_devices\", \"vm_totals\", \"vm_collector\", \"vm_pools\"]\n\
         pool_interval = \"1s\"\n",
    );
    let first = telegraf(&lab, "kvm01", &[PLUGIN, "--config", &config], &stanza(12));
    // The plugin of this one sees no process of a VM, as in a container.
    let config = lab.config("max_lines = 12\n");
    let hidden = [
        "unshare",
        "--pid",
        "--fork",
        "--kill-child",
        "--mount-proc",
        PLUGIN,
        "--config",
        &config,
    ];
    let second = telegraf(
        &lab,
        "kvm02",
        &hidden,
        &stanza(12).replace(":9273", ":9274"),
    );
    first.wait_for_log("Listening on");
    second.wait_for_log("Listening on");
    // The machine has other work, too, so a guest that never rests may get a small part of a CPU alone.
    let usage = "vm_features_cpu_usage_percent[10s]) > ";
    let rules_here = in_seconds(&rules()).replace(&format!("{usage}95"), &format!("{usage}5"));
    assert!(rules_here.contains(&format!("{usage}5\n")));
    let yaml = configuration(&lab, &rules_here).replace(
        "\"127.0.0.1:9273\"",
        "\"127.0.0.1:9273\", \"127.0.0.1:9274\", \"127.0.0.1:9275\"",
    );
    let prometheus = Prometheus::start(&lab, &yaml, &[]);
    let fired = Fired {
        prometheus: &prometheus,
        seen: RefCell::default(),
    };
    let of = |alert: &str, vm: &Vm| fired.expect(alert, "kvm01", Some(vm.name()));
    let of_host = |alert: &str| fired.expect(alert, "kvm01", None);

    fired.expect("KvmCollectorDropsLines", "kvm02", None);
    disks_fill_up(&lab, &busy, &full, &of);
    let pool = small_store(&lab, "pool", 1024);
    succeed(lab.command("dd").args([
        "if=/dev/zero",
        &format!("of={pool}/file"),
        "bs=1k",
        "count=970",
    ]));
    lab.virsh(&["pool-create-as", "small", "dir", "--target", &pool]);
    of_host("KvmStoragePoolNearlyFull");

    cpu_is_short(&lab, &busy, &of);
    memory_is_short(&lab, &busy, &of);

    dies.signal("KILL");
    of("KvmVmCrashed", &dies);
    lab.virsh(&["start", "--domain", dies.name(), "--paused"]);
    of("KvmVmRestarted", &dies);

    packets_are_lost(&lab, &busy, &of);
    frozen.freeze();
    of("KvmVmFrozen", &frozen);
    fired.expect("KvmCallsHanging", "kvm02", None);
    collector_restarts(&prometheus, &second);
    fired.expect("KvmCollectorRestarts", "kvm02", None);
    frozen.thaw();

    // libvirtd opens the file of a dump by itself, with the VM locked. The VM is one without disks on the mount: where a call
    // for disks is under way when the mount dies, QEMU hangs, and the dump would wait for it.
    mount.stop(Duration::ZERO);
    of_host("KvmDeadMount");
    let core = mount.point().join("core");
    let client = lab.client(&[
        "dump",
        frozen.name(),
        core.to_str().unwrap(),
        "--memory-only",
    ]);
    of_host("KvmCollectorWithholdsVms");
    mount.go_on();
    drop(client);

    let _third = behind_a_slow_proxy(&lab, &fired);
    lab.stop_libvirtd();
    of_host("KvmLibvirtDown");
    let mut first = first;
    let plugin = first.plugin_pid();
    first.signal(Signal::TERM);
    first.ends(plugin);
    of_host("KvmHostSilent");

    let all: BTreeSet<_> = alerts(&rules()).into_iter().map(|(name, _)| name).collect();
    assert_eq!(*fired.seen.borrow(), all);
}

/// Starts a third Telegraf, on kvm03, whose plugin waits for each answer of libvirt.
fn behind_a_slow_proxy(lab: &Lab, fired: &Fired) -> (Telegraf, Proxy) {
    let proxy = Proxy::start(lab);
    let config = lab.config(&format!(
        "uri = \"{}\"\nmeasurements = [\"vm_metrics\", \"vm_collector\"]\n",
        proxy.uri()
    ));
    let words = [PLUGIN, "--config", &config];
    let telegraf = telegraf(lab, "kvm03", &words, &stanza(12).replace(":9273", ":9275"));
    wait_for("a line of kvm03", LIMIT, || {
        let rows = fired
            .prometheus
            .query("vm_collector_up{host=\"kvm03\"} == 1");
        (!rows.is_empty()).then_some(())
    });
    proxy.slow_down();
    fired.expect("KvmCollectorSlow", "kvm03", None);
    (telegraf, proxy)
}

fn disks_fill_up(lab: &Lab, busy: &Vm, full: &Vm, of: &dyn Fn(&str, &Vm)) {
    // 7.4 of 8 MiB.
    busy.guest("dd if=/dev/zero of=/dev/vdb bs=64k count=118 oflag=direct");
    of("KvmThinDiskNearlyFull", busy);
    full.guest("dd if=/dev/zero of=/dev/vdd bs=64k count=32 oflag=direct; true");
    of("KvmDiskIoErrors", full);
    full.begin("dd if=/dev/zero of=/dev/vdc bs=64k count=32 oflag=direct");
    of("KvmVmPausedByIoError", full);
    // The wait for a limit is part of the latency.
    lab.virsh(&[
        "blkdeviotune",
        busy.name(),
        "vda",
        "--total-iops-sec",
        "4",
        "--live",
    ]);
    busy.guest("(while :; do dd if=/dev/zero of=/dev/vda bs=4k count=8 oflag=direct; done) </dev/null >/dev/null 2>&1 &");
    of("KvmDiskLatencyHigh", busy);
}

fn memory_is_short(lab: &Lab, busy: &Vm, of: &dyn Fn(&str, &Vm)) {
    // What the kernel keeps for itself is no memory that a program could use.
    busy.guest(
        "mkdir /t; mount -t tmpfs -o size=90m t /t; echo 16384 >/proc/sys/vm/min_free_kbytes; \
         while [ $(awk '/MemAvailable/ { print $2 }' /proc/meminfo) -gt 2500 ]; do dd if=/dev/zero bs=64k count=4 >>/t/fill; done",
    );
    of("KvmVmGuestMemoryLow", busy);
    lab.virsh(&["dommemstat", busy.name(), "--period", "0", "--live"]);
    of("KvmVmGuestMemoryReportOld", busy);
}

fn cpu_is_short(lab: &Lab, busy: &Vm, of: &dyn Fn(&str, &Vm)) {
    busy.guest("(while :; do :; done) </dev/null >/dev/null 2>&1 &");
    of("KvmVmCpuSaturated", busy);
    set_shares(lab, busy, 2);
    let cpus = std::thread::available_parallelism().unwrap().get();
    let loops: Vec<_> = (0..cpus).map(|_| BusyLoop::start(lab)).collect();
    of("KvmVmStealHigh", busy);
    drop(loops);
    set_shares(lab, busy, 1024);
}

/// Sends packets to a VM that takes none, for its guest has not brought the interface up: its queue on the host overflows.
fn packets_are_lost(lab: &Lab, vm: &Vm, of: &dyn Fn(&str, &Vm)) {
    let interfaces = lab.virsh(&["domiflist", vm.name()]);
    let words: Vec<_> = interfaces.split_whitespace().collect();
    let (tap, mac) = (words[0], *words.last().unwrap());
    let ip = |words: &str| succeed(lab.command("ip").args(words.split(' ')));
    ip(&format!("link set {tap} txqueuelen 1"));
    ip(&format!("neigh replace 192.168.77.99 lladdr {mac} dev br0"));
    succeed(
        lab.command("bridge")
            .args(["fdb", "replace", mac, "dev", tap, "master", "static"]),
    );
    let send = "import socket,time
s = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
while True:
    s.sendto(b'x', ('192.168.77.99', 9))
    time.sleep(0.01)";
    let mut sender = lab.command("python3").args(["-c", send]).spawn().unwrap();
    of("KvmNicDrops", vm);
    sender.kill().unwrap();
    sender.wait().unwrap();
}

/// Kills the plugin four times; Telegraf starts it again.
fn collector_restarts(prometheus: &Prometheus, telegraf: &Telegraf) {
    let uptime = || {
        let rows = prometheus.query("vm_collector_uptime_sec{host=\"kvm02\"}");
        rows.first().map(|(_, seconds)| *seconds)
    };
    for _ in 0..4 {
        wait_for("the plugin to have run for 3 s", LIMIT, || {
            uptime().filter(|seconds| *seconds >= 3.0)
        });
        let pid = i32::try_from(telegraf.plugin_pid()).unwrap();
        kill_process(Pid::from_raw(pid).unwrap(), Signal::KILL).unwrap();
        // Its last figure is served until the next process has one.
        wait_for("the next plugin", LIMIT, || {
            uptime().filter(|seconds| *seconds < 3.0)
        });
    }
}
