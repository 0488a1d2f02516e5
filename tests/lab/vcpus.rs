//! CPU time and waiting time of vCPUs, which are read in /proc of the host, and what CPU quotas cost them.

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
pub struct BusyLoop(Child);

impl BusyLoop {
    pub fn start() -> Self {
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

/// Gathers until these vCPUs have lines, where no control group is in sight. When the check of the host was in time
/// twice (it brings the uptime), they do: libvirt's number in the first of these gathers tells that one was added.
fn show_without_groups(plugin: &mut Plugin, vm: &Vm, vcpus: &[u32]) {
    let mut checked = 0;
    wait_for("the lines of vCPUs", Duration::from_secs(30), || {
        let lines = plugin.gather();
        let metrics = lines::of(&lines, "vm_metrics", vm.name());
        checked += usize::from(metrics.first()?.int("uptime_sec").is_some());
        let found = lines::of(&lines, "vm_vcpus", vm.name()).into_iter();
        let numbers: Vec<u32> = found
            .map(|vcpu| vcpu.tag("vcpu").parse().unwrap())
            .collect();
        let shown = numbers == vcpus;
        assert!(shown || checked < 2, "{numbers:?} {vcpus:?}");
        shown.then_some(())
    });
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
    let config = lab.config("measurements = [\"vm_metrics\", \"vm_vcpus\"]\n");
    let contained = lab.plugin_without_control_groups(&["--config", &config]);
    let mut contained = Plugin::spawn(contained);
    show_without_groups(&mut contained, &vm, &[0]);

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

    if lab.libvirt_version() < (7, 1) {
        // QEMU 5.2, which comes with it, does not answer any more when it is given a vCPU beside a busy one.
        return;
    }
    let change = |vcpu: &str, how: &str| lab.virsh(&["setvcpu", name, vcpu, how, "--live"]);
    let mut now_online = |plugin: &mut LoggedPlugin, vcpus: &[u32]| {
        let (lines, _) = agrees(plugin, &lab, &vm, vcpus);
        assert_eq!(steal(&lines, &vm), None, "another set of vCPUs");
        show_without_groups(&mut contained, &vm, vcpus);
        let (lines, _) = agrees(plugin, &lab, &vm, vcpus);
        assert!(steal(&lines, &vm).is_some());
    };
    change("2", "--enable");
    now_online(&mut plugin, &[0, 2]);
    change("1", "--enable");
    now_online(&mut plugin, &[0, 1, 2]);
    // libvirt waits 5 s for the guest, which may take longer. 9.0 then goes on to count the vCPU, and a restart
    // tells it: the control group of the vCPU is left behind.
    vm.guest("kill $(cat /busy)");
    run(lab
        .virsh_command()
        .args(["setvcpu", name, "2", "--disable", "--live"]));
    wait_for("the vCPU to go", Duration::from_secs(60), || {
        (!vcpu_threads(&lab, vm.qemu_pid()).contains_key(&2)).then_some(())
    });
    // Until then the figures are those of the threads.
    wait_for(
        "figures beside a wrong count",
        Duration::from_secs(30),
        || {
            let (lines, _) = plugin.gather();
            let totals = lines::one(&lines, "vm_totals", name);
            totals.int("vcpu_delay_ns")?;
            println!("libvirt counts {:?} vCPUs", totals.int("cpus"));
            steal(&lines, &vm)
        },
    );
    lab.stop_libvirtd();
    lab.start_libvirtd();
    wait_for("libvirt to know", Duration::from_secs(60), || {
        let mut stats = lab.virsh_command();
        stats.args(["domstats", "--raw", "--vcpu", name]);
        let text = String::from_utf8(run(&mut stats).stdout).unwrap();
        (text.contains("vcpu.1.state") && !text.contains("vcpu.2.state")).then_some(())
    });
    let (lines, _) = agrees(&mut plugin, &lab, &vm, &[0, 1]);
    assert!(steal(&lines, &vm).is_some(), "the same threads");
    show_without_groups(&mut contained, &vm, &[0, 1]);

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

    // libvirt is asked for what is not in sight, and for nothing else.
    let config = lab.config(
        "vcpu_delay = \"libvirt\"\nmeasurements = [\"vm_metrics\", \"vm_totals\", \"vm_vcpus\"]\n",
    );
    let vcpus = |lines: &[Line], name: &str| -> Vec<Line> {
        let lines = lines::of(lines, "vm_vcpus", name).into_iter();
        lines.cloned().collect()
    };
    let mut sees = LoggedPlugin::start(
        &lab,
        lab.plugin_unprivileged(&["--config", &config]),
        "sees.log",
    );
    wait_for("the line of one vCPU", Duration::from_secs(30), || {
        let (lines, asked) = sees.gather();
        assert!(asked.iter().all(|groups| groups & VCPU == 0), "{asked:x?}");
        assert!(vcpus(&lines, &several).is_empty());
        let [vcpu] = &vcpus(&lines, &single)[..] else {
            return None;
        };
        assert_eq!(vcpu.tag("vcpu"), "0");
        assert_eq!((vcpu.int("state"), vcpu.int("wait_ns")), (None, None));
        let totals = lines::one(&lines, "vm_totals", &single);
        for (sum, figure) in [("vcpu_time_ns", "time_ns"), ("vcpu_delay_ns", "delay_ns")] {
            assert!(vcpu.int(figure).is_some());
            assert_eq!(totals.int(sum), vcpu.int(figure));
        }
        Some(())
    });
    let mut blind = Plugin::spawn(lab.plugin_blind(&["--config", &config]));
    let stats = lab.domstats(&single);
    for _ in 0..2 {
        let lines = blind.gather();
        assert_eq!(figures(&lines, &single).1, None);
        assert!(vcpus(&lines, &several).is_empty());
        let [vcpu] = &vcpus(&lines, &single)[..] else {
            panic!("{lines:#?}");
        };
        let after = lab.domstats(&single);
        for (field, key) in [
            ("time_ns", "time"),
            ("delay_ns", "delay"),
            ("wait_ns", "wait"),
            ("state", "state"),
        ] {
            let [from, to] = [&stats, &after].map(|stats| {
                let value = stats.get(&format!("vcpu.0.{key}"))?;
                value.parse::<i64>().ok()
            });
            let found = vcpu.int(field);
            assert!(
                from <= found && found <= to,
                "{field}: {from:?} {found:?} {to:?}"
            );
        }
    }
}

/// `cpu.stat` of the group of this name in the VM's, from the cpu controller of v1 or from v2: periods, throttled
/// periods, throttled time in ns.
fn cpu_stat(lab: &Lab, vm: &Vm, group: &str) -> [i64; 3] {
    let read = |path: &str| std::fs::read_to_string(lab.inside(path));
    let cgroup = read(&format!("/proc/{}/cgroup", vm.qemu_pid())).unwrap();
    let has_cpu = |line: &&str| {
        line.split(':')
            .nth(1)
            .unwrap()
            .split(',')
            .any(|c| c == "cpu")
    };
    let is_v2 = |line: &&str| line.starts_with("0::");
    let (root, line) = match cgroup.lines().find(has_cpu) {
        Some(line) => ("/sys/fs/cgroup/cpu", line),
        None => ("/sys/fs/cgroup", cgroup.lines().find(is_v2).unwrap()),
    };
    let folder = line.splitn(3, ':').nth(2).unwrap();
    let folder = folder.strip_suffix("/emulator").unwrap();
    let text = read(&format!("{root}{folder}/{group}/cpu.stat")).unwrap();
    let figure = |key: &str| {
        let mut lines = text.lines().filter_map(|line| line.split_once(' '));
        lines
            .find(|(known, _)| *known == key)
            .map(|(_, number)| number.parse::<i64>().unwrap())
    };
    let throttled = figure("throttled_usec")
        .map(|time| 1000 * time)
        .or(figure("throttled_time"));
    [
        figure("nr_periods").unwrap(),
        figure("nr_throttled").unwrap(),
        throttled.unwrap(),
    ]
}

/// The firmware of these VMs uses all CPU time that it gets.
#[test]
fn quotas_show_what_their_control_groups_count() {
    let lab = Lab::start();
    let limited = |name: &str, vcpus: u32, cputune: &str| {
        lab.create(&VmSpec {
            name: name.into(),
            vcpus,
            max_vcpus: vcpus,
            extra: format!("<cputune>{cputune}</cputune>"),
            ..VmSpec::default()
        })
    };
    // So little that a program is stopped before its turn is over, whatever else wants the CPU. The firmware does not work
    // for long.
    let quota = limited("quota", 2, "<period>10000</period><quota>1000</quota>");
    let global = limited(
        "global",
        1,
        "<global_period>10000</global_period><global_quota>1000</global_quota>",
    );
    let none = limited("none", 1, "<shares>100</shares><quota>-1</quota>");
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    let mut figures = |vm: &Vm| {
        let lines = plugin.gather();
        let totals = lines::one(&lines, "vm_totals", vm.name());
        // It is missing in a gather whose check of the host was late.
        let is_whole = totals.int("vcpu_delay_ns").is_some();
        let all =
            ["cpu_periods", "cpu_throttled_periods", "cpu_throttled_ns"].map(|f| totals.int(f));
        (is_whole, all)
    };
    let mut compare = |vm: &Vm, groups: &[&str]| {
        let sum = || {
            let all = groups.iter().map(|group| cpu_stat(&lab, vm, group));
            all.fold([0; 3], |sum, one| [0, 1, 2].map(|n| sum[n] + one[n]))
        };
        wait_for("throttling", Duration::from_secs(60), || {
            let (before, (_, found), after) = (sum(), figures(vm), sum());
            let found = [found[0]?, found[1]?, found[2]?];
            let between = |n: usize| (before[n]..=after[n]).contains(&found[n]);
            assert!((0..3).all(between), "{before:?} {found:?} {after:?}");
            found.iter().all(|figure| *figure > 0).then_some(())
        });
    };
    compare(&quota, &["vcpu0", "vcpu1"]);
    compare(&global, &["."]);
    let absent = |found: (bool, [Option<i64>; 3])| {
        let (is_whole, figures) = found;
        assert_eq!(figures, [None; 3]);
        is_whole.then_some(())
    };
    wait_for("a gather", Duration::from_secs(30), || {
        absent(figures(&none))
    });

    // libvirt reports a change on another connection than virsh's.
    let quota = |value: &str| {
        lab.virsh(&["schedinfo", none.name(), "--live", value]);
    };
    quota("vcpu_quota=5000");
    let has = |found: (bool, [Option<i64>; 3])| found.1[0].filter(|periods| *periods > 0);
    wait_for("a new quota", Duration::from_secs(30), || {
        has(figures(&none))
    });
    quota("vcpu_quota=-1");
    wait_for("no quota", Duration::from_secs(30), || {
        let (is_whole, found) = figures(&none);
        (is_whole && found == [None; 3]).then_some(())
    });
    assert_eq!(plugin.stderr(), "");
}
