//! VMs that start and end, are saved and restored, and whose devices are plugged and unplugged, while one
//! gather follows the other.

use crate::support::fleet::{long, shapes, small};
use crate::support::lab::Lab;
use crate::support::lines::{Line, of, one};
use crate::support::plugin::Plugin;
use crate::support::vm::VmSpec;
use crate::support::{succeed, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// The known state of one VM, written by the thread that changes it.
#[derive(Debug, Clone, PartialEq)]
struct VmState {
    /// The number of changes; it is odd during a change.
    change: u64,
    /// The VM's disks, its NICs except the first, and whether it is active.
    disks: BTreeSet<String>,
    nics: BTreeSet<String>,
    active: bool,
    saved: bool,
}

/// The VMs by name.
type Table = Mutex<BTreeMap<String, VmState>>;

/// Changes VMs at random, one at a time.
struct Churner<'t> {
    lab: &'t Lab,
    table: &'t Table,
    random: u64,
    done: BTreeMap<&'static str, u64>,
    /// Steps in which libvirt held a VM's job for 5 s: it waits that long for a guest to release a device,
    /// which a paused guest may never do. The plugin may log that such a VM does not answer, and that it is
    /// complete again.
    slow: u64,
}

impl Churner<'_> {
    fn dice(&mut self, sides: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        usize::try_from(self.random % sides as u64).unwrap()
    }

    /// Makes one change of one VM.
    fn step(&mut self) {
        let (name, known) = {
            let mut table = self.table.lock().unwrap();
            let names: Vec<String> = table.keys().cloned().collect();
            let name = names[self.dice(names.len())].clone();
            let known = table.get_mut(&name).unwrap();
            known.change += 1;
            (name, known.clone())
        };
        let file = |suffix: &str| -> PathBuf { self.lab.dir().join(format!("{name}{suffix}")) };
        let virsh = |words: &[&str]| {
            let mut command = self.lab.virsh_command();
            succeed(command.args(words));
        };
        let begun = Instant::now();
        let (saved, disk) = (file(".save"), file("-sdb.xml"));
        let mut after = known.clone();
        let choice = self.dice(6);
        let what = match (known.active, known.saved, choice) {
            (false, true, _) => {
                virsh(&["restore", saved.to_str().unwrap()]);
                (after.active, after.saved) = (true, false);
                "restored"
            }
            (false, false, _) => {
                virsh(&["start", &name, "--paused"]);
                after.active = true;
                "started"
            }
            (true, _, 0) => {
                virsh(&["destroy", &name]);
                after.active = false;
                after.disks = BTreeSet::from(["vda".to_owned()]);
                after.nics.clear();
                "destroyed"
            }
            (true, _, 1) => {
                virsh(&["save", &name, saved.to_str().unwrap()]);
                (after.active, after.saved) = (false, true);
                "saved"
            }
            (true, _, 2 | 3) => {
                // Each VM has a tap name of its own: all taps are in one network namespace.
                let (_, short) = name.rsplit_once('-').unwrap();
                let nic = format!("{short}-more");
                let alias = format!("ua-{nic}");
                if after.nics.remove(&nic) {
                    virsh(&["detach-device-alias", &name, &alias, "--live"]);
                    // There is no guest to release the device: a reset then completes the removal.
                    virsh(&["reset", &name]);
                    self.wait_until_gone(&name, "domiflist", &nic);
                    "nic unplugged"
                } else {
                    let xml = file("-nic.xml");
                    std::fs::write(&xml, bridged(&nic, &alias)).unwrap();
                    virsh(&["attach-device", &name, xml.to_str().unwrap(), "--live"]);
                    after.nics.insert(nic);
                    "nic plugged"
                }
            }
            (true, ..) if known.disks.contains("sdb") => {
                virsh(&["detach-device", &name, disk.to_str().unwrap(), "--live"]);
                self.wait_until_gone(&name, "domblklist", "sdb");
                after.disks.remove("sdb");
                "disk unplugged"
            }
            (true, ..) => {
                let image = file("-sdb.img");
                std::fs::File::create(&image)
                    .unwrap()
                    .set_len(1 << 20)
                    .unwrap();
                std::fs::write(&disk, scsi_disk(&image)).unwrap();
                virsh(&["attach-device", &name, disk.to_str().unwrap(), "--live"]);
                after.disks.insert("sdb".to_owned());
                "disk plugged"
            }
        };
        self.slow += u64::from(begun.elapsed() >= Duration::from_secs(5));
        after.change += 1;
        self.table.lock().unwrap().insert(name, after);
        *self.done.entry(what).or_default() += 1;
    }

    /// Waits until the output of virsh's `list` for that VM has no such device.
    fn wait_until_gone(&self, name: &str, list: &str, device: &str) {
        wait_for("the device to go", Duration::from_secs(10), || {
            let list = self.lab.virsh(&[list, name]);
            let mut words = list.split_whitespace();
            words.all(|word| word != device).then_some(())
        });
    }
}

fn bridged(target: &str, alias: &str) -> String {
    format!(
        "<interface type='bridge'><source bridge='br0'/><target dev='{target}'/>\
         <model type='virtio'/><alias name='{alias}'/></interface>"
    )
}

fn scsi_disk(image: &Path) -> String {
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw'/>\
         <source file='{}'/><target dev='sdb' bus='scsi'/></disk>",
        image.display()
    )
}

/// The states that did not change from before the gather until after it.
fn steady(before: &BTreeMap<String, VmState>, table: &Table) -> BTreeMap<String, VmState> {
    let after = table.lock().unwrap();
    let held = |(name, known): &(&String, &VmState)| {
        known.change % 2 == 0 && after[*name].change == known.change
    };
    let kept = before.iter().filter(held);
    kept.map(|(name, known)| (name.clone(), known.clone()))
        .collect()
}

/// Panics if a rate is below 0, or is one that idle VMs cannot have.
fn expect_calm(gather: &[Line]) {
    for line in gather
        .iter()
        .filter(|line| line.measurement == "vm_features")
    {
        for field in line.fields.keys() {
            let rate = line.float(field).unwrap();
            let most = if field == "cpu_usage_percent" {
                400.0
            } else {
                1e6
            };
            assert!((0.0..most).contains(&rate), "{field}: {line:?}");
        }
    }
}

fn resident_kib(pid: u32) -> usize {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:"));
    line.unwrap()
        .split_whitespace()
        .next()
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn churn() {
    let lab = Lab::start();
    let vms: Vec<_> = (0..6)
        .map(|number| {
            lab.create(&VmSpec {
                persistent: true,
                devices: "<controller type='scsi' model='virtio-scsi'/>".to_owned(),
                ..small(format!("vm{number}"))
            })
        })
        .collect();
    let known = VmState {
        change: 0,
        disks: BTreeSet::from(["vda".to_owned()]),
        nics: BTreeSet::new(),
        active: true,
        saved: false,
    };
    let names = vms.iter().map(|vm| (vm.name().to_owned(), known.clone()));
    let table: Table = Mutex::new(names.collect());
    // libvirtd's first call is slow; another test covers that.
    lab.virsh(&["domstats"]);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    // As many gathers at least, as many changes at least, and the gather after which memory has settled.
    let (gathers, changes, warm) = if long() {
        (3000, 2000, 500)
    } else {
        (80, 55, 30)
    };
    let over = AtomicBool::new(false);
    let changed = AtomicU64::new(0);
    let start = Instant::now();
    let (mut round, mut checked, mut gone, mut settled) = (0, 0, 0, 0);

    let (done, slow) = std::thread::scope(|scope| {
        let churner = scope.spawn(|| {
            let mut churner = Churner {
                lab: &lab,
                table: &table,
                random: 4711,
                done: BTreeMap::new(),
                slow: 0,
            };
            while !over.load(Ordering::Relaxed) {
                churner.step();
                changed.fetch_add(1, Ordering::Relaxed);
                // The pause sometimes leaves time for a gather between two changes.
                let pause = churner.dice(200) as u64;
                std::thread::sleep(Duration::from_millis(pause));
            }
            (churner.done, churner.slow)
        });
        // The churner also ends when this thread panics.
        let _end = EndsWith(&over);
        let changes_go_on = || changed.load(Ordering::Relaxed) < changes && !churner.is_finished();
        while round < gathers || changes_go_on() {
            let before = table.lock().unwrap().clone();
            plugin.newline();
            let gather =
                plugin.lines_within(Duration::from_secs(if before.values().any(|k| k.active) {
                    10
                } else {
                    1
                }));
            let steady = steady(&before, &table);
            let shapes = shapes(&gather);
            for (name, known) in &steady {
                if !known.active {
                    assert!(!shapes.contains_key(name), "gather {round}: {name} is gone");
                    gone += 1;
                    continue;
                }
                checked += 1;
                one(&gather, "vm_metrics", name);
                one(&gather, "vm_totals", name);
                let devices = of(&gather, "vm_devices", name);
                let named = |kind: &str| -> BTreeSet<String> {
                    let lines = devices.iter().filter(|line| line.tag("devtype") == kind);
                    lines.map(|line| line.tag("device").to_owned()).collect()
                };
                assert_eq!(named("disk"), known.disks, "gather {round}: {name}");
                // The first NIC's name comes from libvirt, and differs after every start.
                let (first, plugged): (BTreeSet<_>, BTreeSet<_>) = named("nic")
                    .into_iter()
                    .partition(|nic| nic.starts_with("vnet"));
                assert_eq!(first.len(), 1, "gather {round}: {name}");
                assert_eq!(plugged, known.nics, "gather {round}: {name}");
            }
            expect_calm(&gather);
            if round == warm {
                settled = resident_kib(plugin.pid());
            }
            round += 1;
        }
        over.store(true, Ordering::Relaxed);
        churner.join().unwrap()
    });
    println!("{done:?}; {checked} active and {gone} gone VMs seen in {round} gathers");
    for what in [
        "started",
        "destroyed",
        "saved",
        "restored",
        "nic plugged",
        "nic unplugged",
        "disk plugged",
        "disk unplugged",
    ] {
        assert!(done.contains_key(what), "never {what}: {done:?}");
    }
    assert!(checked > round && gone > round / 4, "{checked} {gone}");
    let minutes = start.elapsed().as_secs() / 60 + 1;
    let said = plugin.stderr().lines().count() as u64;
    assert!(
        said <= minutes + 2 * slow,
        "{said} log lines in {minutes} minutes with {slow} slow steps:\n{}",
        plugin.stderr()
    );
    let now = resident_kib(plugin.pid());
    println!("{settled} KiB after {warm} gathers, {now} KiB after {round}");
    assert!(now <= settled + 2048, "{settled} KiB, then {now}");
}

/// Stops the churn when it is dropped.
struct EndsWith<'t>(&'t AtomicBool);

impl Drop for EndsWith<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
