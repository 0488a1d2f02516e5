//! CPU time and waiting time of vCPUs, which are read in /proc of the host.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec, vcpu_threads};
use crate::support::{run, wait_for};
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use super::host_counters::LoggedPlugin;

/// VIR_DOMAIN_STATS_VCPU
const VCPU: u32 = 1 << 3;

/// A program that uses a whole CPU until it is dropped.
struct BusyLoop(Child);

impl BusyLoop {
    fn start() -> Self {
        let mut command = Command::new("setpriv");
        command.args(["--pdeathsig", "KILL", "sh", "-c", "while :; do :; done"]);
        Self(command.spawn().unwrap())
    }
}

impl Drop for BusyLoop {
    fn drop(&mut self) {
        self.0.kill().unwrap();
        self.0.wait().unwrap();
    }
}

/// A VM of one vCPU, to which three can be added.
fn growing(lab: &Lab) -> Vm<'_> {
    let vcpu = |id: u32| match id {
        0 => "<vcpu id='0' enabled='yes' hotpluggable='no'/>".to_owned(),
        id => format!("<vcpu id='{id}' enabled='no' hotpluggable='yes'/>"),
    };
    let vcpus: String = (0..4).map(vcpu).collect();
    lab.create(&VmSpec {
        name: "growing".into(),
        memory_mib: 96,
        max_vcpus: 4,
        extra: format!("<vcpus>{vcpus}</vcpus>"),
        guest: true,
        ..VmSpec::default()
    })
}

/// Waiting time of each vCPU, as libvirt reports it (from 7.1 on), else as the kernel does.
fn delays(lab: &Lab, vm: &Vm) -> Vec<(u32, i64)> {
    let stats = lab.domstats(vm.name());
    let threads = vcpu_threads(lab, vm.qemu_pid());
    let delay = |(number, times): (u32, [i64; 2])| {
        let libvirts = stats.get(&format!("vcpu.{number}.delay"));
        assert!(libvirts.is_some() || lab.libvirt_version() < (7, 1));
        let delay = libvirts.map_or(times[1], |delay| delay.parse().unwrap());
        (number, delay)
    };
    threads.into_iter().map(delay).collect()
}

/// Gathers between two readings of libvirt's until the lines have the figures of vCPUs (the check of the host
/// may be late). They have to be the sums over these vCPUs.
fn agrees(plugin: &mut LoggedPlugin, lab: &Lab, vm: &Vm, vcpus: &[u32]) -> (Vec<Line>, i64) {
    wait_for("the figures of vCPUs", Duration::from_secs(30), || {
        let before = (delays(lab, vm), vcpu_threads(lab, vm.qemu_pid()));
        let (lines, asked) = plugin.gather();
        assert!(asked.iter().all(|groups| groups & VCPU == 0), "{asked:x?}");
        let after = (delays(lab, vm), vcpu_threads(lab, vm.qemu_pid()));
        let totals = *lines::of(&lines, "vm_totals", vm.name()).first()?;
        let delay = totals.int("vcpu_delay_ns")?;
        assert_eq!(totals.int("cpus"), i64::try_from(vcpus.len()).ok());
        let numbers: Vec<u32> = before.0.iter().map(|(number, _)| *number).collect();
        assert_eq!(
            numbers, vcpus,
            "libvirt's numbers are those in the names of threads"
        );
        let sum = |delays: &[(u32, i64)]| delays.iter().map(|(_, delay)| delay).sum::<i64>();
        let (from, to) = (sum(&before.0), sum(&after.0));
        assert!(from <= delay && delay <= to, "{from} {delay} {to}");
        let [from, to] = [&before.1, &after.1].map(|threads| threads.values().map(|t| t[0]).sum());
        let time = totals.int("vcpu_time_ns").unwrap();
        assert!((from..=to).contains(&time), "{from} {time} {to}");
        Some((lines, delay))
    })
}

fn steal(lines: &[Line], vm: &Vm) -> Option<f64> {
    lines::one(lines, "vm_features", vm.name()).float("cpu_steal_percent")
}

#[test]
fn steal_is_what_libvirt_says_whatever_vcpus_come_and_go() {
    let lab = Lab::start();
    let vm = growing(&lab);
    let name = vm.name();
    vm.guest("(while :; do :; done) </dev/null >/dev/null 2>&1 & echo $! >/busy");
    let mut plugin = LoggedPlugin::start(&lab, lab.plugin_unprivileged(&[]), "vcpus.log");
    agrees(&mut plugin, &lab, &vm, &[0]);

    // As many programs as the host has CPUs, so that the guest has to wait for one.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<BusyLoop> = (0..cpus).map(|_| BusyLoop::start()).collect();
    let found = wait_for("steal", Duration::from_secs(60), || {
        let outer = Instant::now();
        let (_, before) = agrees(&mut plugin, &lab, &vm, &[0]);
        let inner = Instant::now();
        std::thread::sleep(Duration::from_secs(1));
        let shortest = inner.elapsed();
        let (lines, after) = agrees(&mut plugin, &lab, &vm, &[0]);
        let waited = (after - before) as f64 / 1e9;
        let found = steal(&lines, &vm)?;
        let percent = |time: Duration| 100.0 * waited / time.as_secs_f64();
        let (low, high) = (percent(outer.elapsed()), percent(shortest));
        assert!((low..=high).contains(&found), "{low} {found} {high}");
        (found > 5.0).then_some(found)
    });
    println!("steal beside {cpus} busy programs: {found} %");
    assert!(found <= 100.0, "a vCPU that waits all the time: {found}");
    drop(busy);

    let change = |vcpu: &str, how: &str| lab.virsh(&["setvcpu", name, vcpu, how, "--live"]);
    let mut now_online = |vcpus: &[u32]| {
        let (lines, _) = agrees(&mut plugin, &lab, &vm, vcpus);
        assert_eq!(steal(&lines, &vm), None, "another set of vCPUs");
        let (lines, _) = agrees(&mut plugin, &lab, &vm, vcpus);
        assert!(steal(&lines, &vm).is_some());
    };
    change("2", "--enable");
    now_online(&[0, 2]);
    change("1", "--enable");
    now_online(&[0, 1, 2]);
    // libvirt waits 5 s for the guest, which may take longer. 9.0 then goes on to count the vCPU, and a restart
    // tells it: the control group of the vCPU is left behind.
    vm.guest("kill $(cat /busy)");
    run(lab
        .virsh_command()
        .args(["setvcpu", name, "2", "--disable", "--live"]));
    wait_for("the vCPU to go", Duration::from_secs(60), || {
        (!vcpu_threads(&lab, vm.qemu_pid()).contains_key(&2)).then_some(())
    });
    lab.stop_libvirtd();
    lab.start_libvirtd();
    wait_for("libvirt to know", Duration::from_secs(60), || {
        let mut stats = lab.virsh_command();
        stats.args(["domstats", "--raw", "--vcpu", name]);
        let text = String::from_utf8(run(&mut stats).stdout).unwrap();
        (text.contains("vcpu.1.state") && !text.contains("vcpu.2.state")).then_some(())
    });
    now_online(&[0, 1]);

    vm.freeze();
    let frozen = vcpu_threads(&lab, vm.qemu_pid());
    let sum = |figure: usize| frozen.values().map(|times| times[figure]).sum::<i64>();
    let mut before = None;
    wait_for("two gathers with figures", Duration::from_secs(30), || {
        let lines = plugin.plugin.gather();
        let totals = lines::one(&lines, "vm_totals", name);
        let delay = totals.int("vcpu_delay_ns")?;
        let time = totals.int("vcpu_time_ns").unwrap();
        // A thread may wait for a CPU once more before it stops.
        let again = vcpu_threads(&lab, vm.qemu_pid());
        let last = |figure: usize| again.values().map(|times| times[figure]).sum::<i64>();
        assert!(
            (sum(0)..=last(0)).contains(&time),
            "{time} {frozen:?} {again:?}"
        );
        assert!(
            (sum(1)..=last(1)).contains(&delay),
            "{delay} {frozen:?} {again:?}"
        );
        let metrics = lines::one(&lines, "vm_metrics", name);
        let uptime = metrics.int("uptime_sec").unwrap();
        let before = before.replace(uptime);
        before.map(|before| assert!(before <= uptime, "{before} {uptime}"))
    });
    vm.thaw();
}

/// With instruction counting QEMU emulates all vCPUs in one thread.
#[test]
fn vcpus_that_share_a_thread_or_are_not_in_sight_have_no_figures() {
    let lab = Lab::start();
    let one_thread = |name: &str, vcpus: u32| {
        let full_name = format!("{}-{name}", lab.prefix());
        lab.create_xml(&format!(
            "<domain type='qemu' xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
             <name>{full_name}</name><memory unit='MiB'>16</memory><vcpu>{vcpus}</vcpu>\
             <os><type arch='x86_64' machine='pc'>hvm</type></os>\
             <devices><controller type='usb' model='none'/></devices>\
             <qemu:commandline><qemu:arg value='-icount'/><qemu:arg value='shift=7'/></qemu:commandline>\
             </domain>"
        ));
        // The firmware would use a CPU without end.
        lab.virsh(&["suspend", &full_name]);
        full_name
    };
    let (single, several) = (one_thread("single", 1), one_thread("several", 2));
    let figures = |lines: &[Line], name: &str| {
        let totals = lines::one(lines, "vm_totals", name);
        let metrics = lines::one(lines, "vm_metrics", name);
        (totals.int("vcpu_delay_ns"), metrics.int("uptime_sec"))
    };
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    wait_for("the figures of one vCPU", Duration::from_secs(30), || {
        let lines = plugin.gather();
        let (delay, uptime) = figures(&lines, &several);
        assert_eq!(delay, None);
        let (single, _) = figures(&lines, &single);
        single.zip(uptime).map(|_| ())
    });
    let mut blind = Plugin::spawn(lab.plugin_blind(&[]));
    for _ in 0..2 {
        let lines = blind.gather();
        assert_eq!(figures(&lines, &single), (None, None));
    }
}
