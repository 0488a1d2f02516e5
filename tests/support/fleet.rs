//! Many small VMs at once, and the lines that a complete gather has for them.

use super::lab::Lab;
use super::lines::{Line, is_last, is_latency, is_of_host, is_size, one};
use super::plugin::Plugin;
use super::vm::{Nic, Vm, VmSpec, disks};
use super::{succeed, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Mutex;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

/// Whether the tests run in full (`tests/run --long`): full sizes, and the promised times without the extra
/// time for a shared processor.
pub fn long() -> bool {
    std::env::var_os("TELEGRAF_KVM_LONG").is_some()
}

/// The promised delay; in the ordinary run, where the machine may be busy, with a second more.
pub fn at_most(promised: Duration) -> Duration {
    if long() {
        promised
    } else {
        promised + Duration::from_secs(1)
    }
}

/// A VM with three disks and two taps, paused: the largest VM that uses no processor time.
pub fn big(name: String) -> VmSpec {
    VmSpec {
        name,
        disks: disks(&["vda", "vdb", "vdc"]),
        nics: vec![Nic::Tap, Nic::Tap],
        paused: true,
        ..VmSpec::default()
    }
}

/// A VM with one disk and one tap, paused.
pub fn small(name: String) -> VmSpec {
    VmSpec {
        name,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    }
}

/// Every line of one VM in one gather: measurement and tags, and the names of its fields. Latencies come and go,
/// sizes come only where the disks are not read one by one, and some fields only where the host's processes are in sight:
/// these are left out.
pub type Shape = BTreeMap<(String, BTreeMap<String, String>), BTreeSet<String>>;

/// The shapes in one gather, by the VM's name, without last lines, and without the field that depends on whether events
/// come. Panics at a duplicate line, or if the lines of one gather have
/// different times.
pub fn shapes(gather: &[Line]) -> BTreeMap<String, Shape> {
    let mut shapes: BTreeMap<String, Shape> = BTreeMap::new();
    let of_vms = gather
        .iter()
        .filter(|line| line.tags.contains_key("name") && !is_last(line));
    for line in of_vms {
        assert_eq!(line.timestamp, gather[0].timestamp, "two times in a gather");
        let shape = shapes.entry(line.tag("name").to_owned()).or_default();
        let key = (line.measurement.clone(), line.tags.clone());
        let lasting = |field: &&String| {
            !is_latency(field)
                && !is_size(field)
                && !is_of_host(field)
                && *field != "io_error_events"
        };
        let fields = line.fields.keys().filter(lasting).cloned().collect();
        let twice = shape.insert(key, fields);
        assert_eq!(twice, None, "a line is there twice: {line:?}");
    }
    shapes
}

/// Running VMs, and the lines that each has in the healthy state.
pub struct Fleet<'lab> {
    lab: &'lab Lab,
    /// The VMs in the order of their numbers.
    pub vms: Vec<Vm<'lab>>,
    pids: Vec<u32>,
    healthy: BTreeMap<String, Shape>,
}

impl<'lab> Fleet<'lab> {
    /// Starts `size` VMs, several at a time; `spec` gets the number of each.
    pub fn start(lab: &'lab Lab, size: usize, spec: impl Fn(usize) -> VmSpec + Sync) -> Self {
        let next = AtomicUsize::new(0);
        let vms = Mutex::new(Vec::new());
        std::thread::scope(|scope| {
            for _ in 0..4 {
                scope.spawn(|| {
                    loop {
                        let number = next.fetch_add(1, Ordering::Relaxed);
                        if number >= size {
                            return;
                        }
                        let vm = lab.create(&spec(number));
                        let pid = vm.qemu_pid();
                        vms.lock().unwrap().push((number, vm, pid));
                    }
                });
            }
        });
        let mut vms = vms.into_inner().unwrap();
        vms.sort_by_key(|(number, ..)| *number);
        let pids = vms.iter().map(|(_, _, pid)| *pid).collect();
        let vms = vms.into_iter().map(|(_, vm, _)| vm).collect();
        Fleet {
            lab,
            vms,
            pids,
            healthy: BTreeMap::new(),
        }
    }

    /// Gathers until three gathers in a row have the same lines, each with every VM, and takes these as the
    /// healthy state. Returns the duration of the slowest of the three. Panics after 20 gathers and 10 s.
    pub fn learn(&mut self, plugin: &mut Plugin) -> Duration {
        let mut same: Vec<Duration> = Vec::new();
        let start = Instant::now();
        let mut gathers = 0;
        while gathers < 20 || start.elapsed() < Duration::from_secs(10) {
            gathers += 1;
            let (gather, took) = plugin.timed_gather();
            let shapes = shapes(&gather);
            if shapes != self.healthy || shapes.len() != self.vms.len() {
                same.clear();
                self.healthy = shapes;
            }
            same.push(took);
            if same.len() == 3 {
                self.check_richness();
                return same.into_iter().max().unwrap();
            }
        }
        panic!(
            "no three gathers alike; the last has {} of {} VMs; stderr:\n{}",
            self.healthy.len(),
            self.vms.len(),
            plugin.stderr()
        );
    }

    /// Without this check, a healthy state without these fields would make every gather complete.
    fn check_richness(&self) {
        for (name, shape) in &self.healthy {
            let has = |measurement: &str, field: &str| {
                let mut lines = shape.iter().filter(|((m, _), _)| m == measurement);
                lines.any(|(_, fields)| fields.contains(field))
            };
            for (measurement, field) in [
                ("vm_metrics", "cputime_ns"),
                ("vm_features", "cpu_usage_percent"),
                ("vm_features", "disk_rd_bytes_rate"),
                ("vm_devices", "rd_bytes"),
                ("vm_totals", "disk_rd_bytes"),
                ("vm_totals", "net_rxbytes"),
                ("vm_totals", "memactual"),
                ("vm_totals", "memrss"),
                ("vm_totals", "timeusr"),
            ] {
                assert!(has(measurement, field), "healthy {name} has no {field}");
            }
        }
    }

    /// The VMs that have every line and field of the healthy state in this gather, by number. Panics if the
    /// QEMU of one of them is said not to answer.
    pub fn complete(&self, gather: &[Line]) -> BTreeSet<usize> {
        let shapes = shapes(gather);
        let whole = |vm: &Vm| {
            let healthy = self.healthy.get(vm.name());
            let whole = healthy.is_some() && shapes.get(vm.name()) == healthy;
            if whole {
                let metrics = one(gather, "vm_metrics", vm.name());
                assert_eq!(metrics.int("answers"), Some(1), "complete: {metrics:?}");
            }
            whole
        };
        (0..self.vms.len())
            .filter(|number| whole(&self.vms[*number]))
            .collect()
    }

    /// Panics unless all VMs but `excepted` are complete; the message shows what the first of the others
    /// lacks.
    pub fn expect_complete_but(&self, gather: &[Line], excepted: &[usize], when: &str) {
        let complete = self.complete(gather);
        let expected = self.all_but(excepted);
        let lacking: Vec<usize> = expected.difference(&complete).copied().collect();
        let Some(first) = lacking.first() else { return };
        let name = self.vms[*first].name();
        let shape = shapes(gather).remove(name).unwrap_or_default();
        let missing: Vec<String> = self.healthy[name]
            .iter()
            .filter(|(key, fields)| shape.get(*key) != Some(fields))
            .map(|((measurement, tags), fields)| {
                let key = (measurement.clone(), tags.clone());
                let there = shape.get(&key).cloned().unwrap_or_default();
                let fields: Vec<_> = fields.difference(&there).collect();
                format!(
                    "{measurement} {}: {fields:?}",
                    tags.get("device").map_or("", |d| d)
                )
            })
            .collect();
        panic!(
            "{when}: {} of {} complete; VMs {lacking:?} are not; {name} lacks {missing:#?}",
            expected.len() - lacking.len(),
            expected.len()
        );
    }

    /// Panics unless every VM is complete in a plugin's first gather, without the rates, which need two
    /// gathers.
    pub fn expect_complete_first(&self, gather: &[Line], when: &str) {
        self.expect_complete_first_but(gather, &[], when);
    }

    /// Panics unless these VMs have everything but their disks.
    pub fn expect_without_disks(&self, gather: &[Line], numbers: &[usize], when: &str) {
        let found = shapes(gather);
        for number in numbers {
            let name = self.vms[*number].name();
            let mut healthy = self.healthy[name].clone();
            let is_disk = |tags: &BTreeMap<String, String>| {
                tags.get("devtype").is_some_and(|of| of == "disk")
            };
            healthy.retain(|(_, tags), _| !is_disk(tags));
            for fields in healthy.values_mut() {
                fields.retain(|field| !field.starts_with("disk_"));
            }
            // A first gather has no rates.
            let found = found.get(name).cloned().unwrap_or_default();
            let has_features = found.keys().any(|(of, _)| of == "vm_features");
            healthy.retain(|(of, _), _| has_features || of != "vm_features");
            assert_eq!(found, healthy, "{when}: {name}");
        }
    }

    /// The same for all VMs but `excepted`.
    pub fn expect_complete_first_but(&self, gather: &[Line], excepted: &[usize], when: &str) {
        let found = shapes(gather);
        let excepted = excepted.iter().map(|number| self.vms[*number].name());
        let excepted: Vec<&str> = excepted.collect();
        let healthy = self.healthy.iter();
        for (name, healthy) in healthy.filter(|(name, _)| !excepted.contains(&name.as_str())) {
            let mut healthy = healthy.clone();
            healthy.retain(|(measurement, _), _| measurement != "vm_features");
            assert_eq!(found.get(name), Some(&healthy), "{when}, first gather");
        }
    }

    /// The lines of the VM with this name in the healthy state.
    pub fn healthy_of(&self, name: &str) -> Option<&Shape> {
        self.healthy.get(name)
    }

    /// All numbers but these.
    pub fn all_but(&self, excepted: &[usize]) -> BTreeSet<usize> {
        (0..self.vms.len())
            .filter(|number| !excepted.contains(number))
            .collect()
    }

    /// Panics unless the VM has exactly the figures that libvirt knows without QEMU's monitor: state, CPU
    /// count, network, CPU time with its parts, memory given; and no counters of its disks. `before` is a
    /// healthy gather: a value that does not change in a paused VM must be the same as there, and above all
    /// must not be 0.
    pub fn expect_monitor_free(&self, gather: &[Line], number: usize, before: &[Line]) {
        let name = self.vms[number].name();
        let (now, then) = (
            one(gather, "vm_metrics", name),
            one(before, "vm_metrics", name),
        );
        for field in ["cpu_count", "memory_max_kb", "memory_used_kb"] {
            assert_eq!(now.int(field), then.int(field), "{field}: {now:?}");
            assert!(now.int(field).is_some_and(|value| value > 0), "{now:?}");
        }
        assert_eq!(now.text("state"), then.text("state"));
        assert_eq!(now.int("answers"), Some(0), "{now:?}");
        assert!(now.int("cputime_ns") >= then.int("cputime_ns"), "{now:?}");
        let (now, then) = (
            one(gather, "vm_totals", name),
            one(before, "vm_totals", name),
        );
        for field in ["cputime", "timeusr", "timesys"] {
            let (now, then) = (now.int(field), then.int(field));
            assert!(now.is_some() && now >= then, "{field}: {now:?} {then:?}");
        }
        for field in then.fields.keys().filter(|key| key.starts_with("net_")) {
            let moved = now.int(field).unwrap_or(-1) - then.int(field).unwrap_or(0);
            assert!((0..10_000).contains(&moved), "{field}: {now:?} {then:?}");
        }
        assert_eq!(now.int("memactual"), then.int("memactual"));
        let is_its = |line: &&Line| line.tags.get("name").is_some_and(|n| n == name);
        for line in gather.iter().filter(is_its) {
            for gone in ["disk_rd_bytes", "rd_bytes", "disk_wr_bytes", "wr_bytes"] {
                assert!(!line.fields.contains_key(gone), "{gone}: {line:?}");
            }
        }
    }

    /// Freezes the QEMUs of these VMs, all at once; returns when the kernel shows them as stopped.
    pub fn freeze(&self, numbers: &[usize]) {
        self.signal("STOP", numbers);
        for number in numbers {
            wait_for("QEMU to be stopped", Duration::from_secs(10), || {
                (self.qemu_state(*number) == 'T').then_some(())
            });
        }
    }

    /// Thaws the QEMUs of these VMs.
    pub fn thaw(&self, numbers: &[usize]) {
        self.signal("CONT", numbers);
    }

    fn signal(&self, signal: &str, numbers: &[usize]) {
        let pids = numbers.iter().map(|number| self.pids[*number].to_string());
        succeed(self.lab.command("kill").args(["-s", signal]).args(pids));
    }

    /// The kernel's state letter for the main thread of a VM's QEMU.
    pub fn qemu_state(&self, number: usize) -> char {
        let stat = self
            .lab
            .inside(&format!("/proc/{}/stat", self.pids[number]));
        let stat = std::fs::read_to_string(stat).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    }

    /// Gathers until the VMs are all complete; panics after `most` gathers.
    pub fn expect_recovery(&self, plugin: &mut Plugin, most: usize, when: &str) {
        for _ in 1..most {
            if self.complete(&plugin.gather()).len() == self.vms.len() {
                return;
            }
        }
        self.expect_complete_but(&plugin.gather(), &[], when);
    }
}
