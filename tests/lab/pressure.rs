//! `vm_pressure` equals the pressure files of the VM's control group, wherever that is.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec};
use crate::support::{succeed, wait_for};
use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{Duration, Instant};

use super::host_counters::LoggedPlugin;
use super::vcpus::BusyLoop;

/// Resource and type -> the averages as they are written, and the total.
type Pressure = BTreeMap<(String, String), ([f64; 3], i64)>;

/// What the files of a group say.
fn read(group: &Path) -> Pressure {
    let mut all = Pressure::new();
    for resource in ["cpu", "memory", "io"] {
        let text = fs::read_to_string(group.join(format!("{resource}.pressure")));
        // A file without pressure stall information cannot be read.
        for line in text.unwrap_or_default().lines() {
            let (kind, values) = line.split_once(' ').unwrap();
            let value = |key: &str| {
                let mut values = values.split(' ').map(|pair| pair.split_once('=').unwrap());
                values.find(|(known, _)| *known == key).unwrap().1
            };
            let averages = ["avg10", "avg60", "avg300"].map(|key| value(key).parse().unwrap());
            let total = value("total").parse().unwrap();
            all.insert((resource.to_owned(), kind.to_owned()), (averages, total));
        }
    }
    all
}

fn written(lines: &[Line], vm: &Vm) -> Pressure {
    let lines = lines::of(lines, "vm_pressure", vm.name()).into_iter();
    let figures = lines.map(|line| {
        let averages = ["avg10", "avg60", "avg300"].map(|field| line.float(field).unwrap());
        let tags = ["resource", "type"].map(|tag| line.tag(tag).to_owned());
        (tags.into(), (averages, line.int("total_us").unwrap()))
    });
    figures.collect()
}

/// Gathers between two readings of the files of this group until there are lines (the check of the host may be late).
/// All figures have to lie between. The kernel computes the averages every 2 seconds.
fn agrees(mut gather: impl FnMut() -> Vec<Line>, vm: &Vm, group: &Path) -> Pressure {
    wait_for("the lines of pressure", Duration::from_secs(30), || {
        let start = Instant::now();
        let before = read(group);
        let lines = gather();
        let after = read(group);
        let is_short = start.elapsed() < Duration::from_secs(2);
        let found = written(&lines, vm);
        if found.is_empty() {
            return None;
        }
        assert!(found.keys().eq(before.keys()), "{before:?} {found:?}");
        for (key, (averages, total)) in &found {
            let ((old, from), (new, to)) = (before[key], after[key]);
            assert!((from..=to).contains(total), "{key:?}: {from} {total} {to}");
            for ((old, average), new) in old.iter().zip(averages).zip(new) {
                let is_one = average == old || *average == new;
                assert!(is_one || !is_short, "{key:?}: {old} {average} {new}");
            }
        }
        Some(found)
    })
}

/// The folder of v2 with all groups, and the group of the QEMU in it.
fn group_of(lab: &Lab, vm: &Vm) -> Option<(PathBuf, PathBuf)> {
    let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
    let is_v2 = |root: &PathBuf| root.join("cgroup.controllers").exists();
    let root = roots.into_iter().find(is_v2)?;
    let file = lab.inside(&format!("/proc/{}/cgroup", vm.qemu_pid()));
    let text = fs::read_to_string(file).unwrap();
    let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
    let group = root.join(path);
    Some((root, group))
}

/// The files of pressure that a plugin has open.
fn open_files(plugin: &Plugin) -> usize {
    let files = fs::read_dir(format!("/proc/{}/fd", plugin.pid())).unwrap();
    let paths = files.filter_map(|entry| fs::read_link(entry.unwrap().path()).ok());
    paths
        .filter(|path| path.to_string_lossy().ends_with(".pressure"))
        .count()
}

/// Groups as systemd makes them, with the QEMU of a VM in one of them. When this is dropped, the QEMU is moved back.
struct Scope<'l> {
    lab: &'l Lab,
    pid: u32,
    back: PathBuf,
    slice: PathBuf,
    scope: PathBuf,
}

impl<'l> Scope<'l> {
    fn new(lab: &'l Lab, vm: &Vm, root: &Path, back: &Path) -> Self {
        let slice = root.join(format!("{}.slice", lab.prefix()));
        let scope = slice.join(format!(r"machine-qemu\x2d1\x2d{}.scope", lab.prefix()));
        fs::create_dir_all(scope.join("libvirt/emulator")).unwrap();
        let (pid, back) = (vm.qemu_pid(), back.to_owned());
        Self {
            lab,
            pid,
            back,
            slice,
            scope,
        }
    }

    fn moves_to(&self, group: &Path) -> Command {
        let mut command = self.lab.command("sh");
        command.args(["-c", "echo $0 >$1/cgroup.procs", &self.pid.to_string()]);
        command.arg(group);
        command
    }
}

impl Drop for Scope<'_> {
    fn drop(&mut self) {
        let _ = self.moves_to(&self.back).status();
        for group in ["libvirt/emulator", "libvirt", ""] {
            let _ = fs::remove_dir(self.scope.join(group));
        }
        let _ = fs::remove_dir(&self.slice);
    }
}

/// The firmware uses all CPU time that it gets.
#[test]
fn pressure_is_what_the_files_of_the_vms_group_say() {
    let lab = Lab::start();
    // As many programs as the host has CPUs, so that the VM has to wait for one.
    let cpus = std::thread::available_parallelism().unwrap().get();
    let busy: Vec<BusyLoop> = (0..cpus).map(|_| BusyLoop::start()).collect();
    let vm = lab.create(&VmSpec {
        name: "waits".into(),
        ..VmSpec::default()
    });
    let config = lab.config("measurements = [\"vm_metrics\", \"vm_pressure\"]\n");
    let spawn = || Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    let Some((root, emulator)) = group_of(&lab, &vm) else {
        assert!(written(&spawn().gather(), &vm).is_empty(), "no cgroup v2");
        return;
    };
    let group = match emulator.ends_with("emulator") {
        true => emulator.parent().unwrap(),
        false => &emulator,
    };
    if read(group).is_empty() || group == emulator {
        assert!(written(&spawn().gather(), &vm).is_empty(), "no such files");
        return;
    }

    let command = lab.plugin_unprivileged(&["--config", &config]);
    let mut plugin = LoggedPlugin::start(&lab, command, "pressure.log");
    let check = || {
        let mut command = lab.plugin_unprivileged(&["--check", "--config", &config]);
        succeed(&mut command)
    };
    let mut plain = Plugin::spawn(lab.plugin_unprivileged(&[]));
    wait_for("pressure", Duration::from_secs(60), || {
        let gather = || {
            let (lines, asked) = plugin.gather();
            // State, CPU time and balloon: no group of statistics more than vm_metrics needs.
            assert!(
                asked.iter().all(|groups| groups & !0b111 == 0),
                "{asked:x?}"
            );
            lines
        };
        let found = agrees(gather, &vm, group);
        assert!(written(&plain.gather(), &vm).is_empty());
        let (averages, total) = found[&("cpu".to_owned(), "some".to_owned())];
        println!("{averages:?} % {total} us");
        (total > 0).then_some(())
    });
    drop(busy);
    assert_eq!((open_files(&plugin.plugin), open_files(&plain)), (3, 0));

    wait_for("a check in time", Duration::from_secs(30), || {
        let found = check();
        let all = "pressure files of 1 of 1 VMs in sight";
        found.contains(all).then_some(())
    });
    vm.freeze();
    agrees(|| plugin.plugin.gather(), &vm, group);
    vm.thaw();

    // Linux 6.1 can stop to account a group.
    let switch = group.join("cgroup.pressure");
    if switch.exists() {
        fs::write(&switch, "0").unwrap();
        let lines = plugin.plugin.gather();
        assert!(lines::of(&lines, "vm_metrics", vm.name()).len() == 1);
        assert!(written(&lines, &vm).is_empty(), "{lines:?}");
        let found = check();
        assert!(
            found.contains("pressure files of 0 of 1 VMs in sight"),
            "{found}"
        );
        fs::write(&switch, "1").unwrap();
        agrees(|| plugin.plugin.gather(), &vm, group);
    }

    // As with systemd, and as where systemd has v2 without controllers, so that libvirt uses v1.
    let scope = Scope::new(&lab, &vm, &root, &emulator);
    for inside in ["libvirt/emulator", "."] {
        succeed(&mut scope.moves_to(&scope.scope.join(inside)));
        let mut plugin = spawn();
        let found = agrees(|| plugin.gather(), &vm, &scope.scope);
        println!("in the scope: {found:?}");
    }
    drop(scope);
    assert_eq!(plugin.plugin.stderr(), "");
}
