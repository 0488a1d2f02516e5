//! `vm_stats`: each key of libvirt's statistics that the configuration names is a field with libvirt's value, no group is
//! asked for that has none of these keys, and a frozen VM costs the others nothing.

use super::host_counters::LoggedPlugin;
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value, of, one};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disk_xml};
use crate::support::{alone, run, told, wait_for};
use std::collections::BTreeMap;
use std::io::Write;
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

/// VIR_DOMAIN_STATS_STATE
const STATE: u32 = 1 << 0;
/// VIR_DOMAIN_STATS_IOTHREAD
const IOTHREAD: u32 = 1 << 7;

/// What goes up and down while a VM runs: a value between two readings need not lie between theirs.
fn is_restless(key: &str) -> bool {
    key == "balloon.rss" || key.contains(".timed_group.")
}

/// What QEMU counts of a disk's latency besides. Older versions of libvirt pass it by.
const DISK_STATISTICS: &str = "<statistics><statistic interval='1'/><latency-histogram type='read'><bin start='0'/>\
                               <bin start='100000'/></latency-histogram></statistics>";
/// The version of libvirt that has both. It has the limits of disks since 11.10.
const HAS_DISK_STATISTICS: (u32, u32) = (12, 1);

/// The tags of a line beside those of its VM, and a field.
type Place = (BTreeMap<String, String>, String);

/// Where the value of a key stands in vm_stats; `None` for the name of a device. From the description in docs/metrics.md.
fn place(key: &str, stats: &BTreeMap<String, String>) -> Option<Place> {
    let mut parts: Vec<&str> = key.split('.').collect();
    let group = parts.remove(0);
    let mut tags = BTreeMap::from([("group".to_owned(), group.to_owned())]);
    let is_number = |part: &&str| part.bytes().all(|byte| byte.is_ascii_digit());
    if let Some(at) = parts.iter().position(is_number) {
        let number = parts.remove(at);
        let name = stats.get(&format!("{group}.{number}.name"));
        let before = if at == 0 { group } else { parts[at - 1] };
        let (tag, value) = match (name, before) {
            (Some(name), _) if at == 0 => ("device", name.as_str()),
            (_, "vcpu" | "iothread") => (before, number),
            _ => ("index", number),
        };
        tags.insert(tag.to_owned(), value.to_owned());
    }
    match &*parts.join("_").replace('-', "_") {
        "name" => None,
        "time" => Some((tags, "time_ns".to_owned())),
        field => Some((tags, field.to_owned())),
    }
}

fn fields(lines: &[Line], vm: &Vm) -> BTreeMap<Place, Value> {
    let mut fields = BTreeMap::new();
    for line in of(lines, "vm_stats", vm.name()) {
        let mut tags = line.tags.clone();
        assert_eq!(tags.remove("uuid").as_deref(), Some(vm.uuid()));
        tags.retain(|tag, _| !["VMID", "name"].contains(&tag.as_str()));
        for (field, value) in &line.fields {
            let twice = fields.insert((tags.clone(), field.clone()), value.clone());
            assert_eq!(twice, None, "{field} twice: {line:?}");
        }
    }
    fields
}

/// Whether our value of this key lies between two of virsh's.
fn is_between(before: &str, ours: &Value, after: &str) -> bool {
    let number = |text: &str| match text {
        "yes" => Some(1),
        "no" => Some(0),
        text => text.parse().ok(),
    };
    match (ours, number(before).zip(number(after))) {
        (Value::Int(ours), Some((before, after))) => {
            let range: (i64, i64) = (before.min(after), before.max(after));
            (range.0..=range.1).contains(ours)
        }
        (Value::Text(ours), None) => [before, after].contains(&ours.as_str()),
        (Value::Float(ours), _) => {
            let [before, after]: [f64; 2] = [before, after].map(|text| text.parse().unwrap());
            // virsh rounds to six digits.
            let (least, most) = (before.min(after), before.max(after));
            (least - 1e-6..=most + 1e-6).contains(ours)
        }
        _ => false,
    }
}

/// Gathers between two readings of virsh. All of its keys have to be there, and nothing else.
fn agrees(lab: &Lab, vm: &Vm, mut gather: impl FnMut() -> Vec<Line>) {
    wait_for("values between virsh's", Duration::from_secs(30), || {
        let before = lab.domstats(vm.name());
        let lines = gather();
        let after = lab.domstats(vm.name());
        let mut found = fields(&lines, vm);
        let mut is_between_all = true;
        for (key, before) in &before {
            let Some(place) = place(key, &after) else {
                continue;
            };
            let ours = found.remove(&place);
            let ours = ours.unwrap_or_else(|| panic!("no {key} at {place:?}: {lines:#?}"));
            if !is_between(before, &ours, &after[key]) {
                let what = format!("{key}: {before}, ours {ours:?}, {}", after[key]);
                assert!(is_restless(key), "{what}");
                is_between_all = false;
            }
        }
        assert!(found.is_empty(), "virsh has no {found:?}");
        is_between_all.then_some(())
    });
}

/// A VM with an object of each kind that has keys of its own.
fn with_everything(lab: &Lab) -> Vm<'_> {
    let image = lab.dir().join("own.img");
    let file = std::fs::File::create(&image);
    file.and_then(|file| file.set_len(8 << 20)).unwrap();
    let disk = disk_xml("disk", "vda", Some(&image));
    let driver = format!("type='raw' iothread='1'>{DISK_STATISTICS}</driver>");
    let vm = lab.create(&VmSpec {
        name: "all".into(),
        memory_mib: 32,
        vcpus: 2,
        max_vcpus: 3,
        nics: vec![Nic::Tap, Nic::User],
        extra: "<iothreads>2</iothreads>".into(),
        devices: disk.replace("type='raw'/>", &driver),
        ..VmSpec::default()
    });
    // A container may not count events, and libvirt 7.0 cannot measure.
    let tried = |words: &[&str]| {
        let output = lab.virsh_command().args(words).output().unwrap();
        println!("{words:?}: {output:?}");
        output.status.success()
    };
    tried(&["perf", vm.name(), "--enable", "cpu_clock"]);
    if tried(&["domdirtyrate-calc", vm.name(), "--seconds", "1"]) {
        // VIR_DOMAIN_DIRTYRATE_MEASURED
        wait_for("a dirty rate", Duration::from_secs(30), || {
            let stats = lab.domstats(vm.name());
            (stats.get("dirtyrate.calc_status").map(String::as_str) == Some("2")).then_some(())
        });
    }
    vm
}

#[test]
fn every_key_is_a_field_with_the_value_of_virsh() {
    let lab = Lab::start();
    let vm = with_everything(&lab);
    let bare = lab.create(&VmSpec {
        name: "bare".into(),
        paused: true,
        ..VmSpec::default()
    });
    // The collector's line alone needs no group but the state.
    let config = |patterns: &str| {
        lab.config(&format!(
            "measurements = [\"vm_collector\"]\nstatistics = {patterns}\n"
        ))
    };
    let all = config(r#"["*"]"#);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &all]));
    agrees(&lab, &vm, || plugin.gather());
    agrees(&lab, &bare, || plugin.gather());
    assert_eq!(plugin.stderr(), "");

    let stats = lab.domstats(vm.name());
    let groups: Vec<&str> = stats
        .keys()
        .filter_map(|key| key.split('.').next())
        .collect();
    for group in [
        "balloon", "block", "cpu", "iothread", "net", "state", "vcpu",
    ] {
        assert!(groups.contains(&group), "{stats:?}");
    }
    println!("{stats:#?}");
    let has = |part| stats.keys().any(|key| key.contains(part));
    let found = [
        ".timed_group.0.rd_queue_depth_avg",
        ".latency_histogram.read.bin.1.start",
        ".limits.",
    ]
    .map(has);
    let is_there = lab.libvirt_version() >= HAS_DISK_STATISTICS;
    assert_eq!(found, [is_there; 3], "{stats:?}");

    // Only what is named comes, and is asked for.
    let some = config(r#"["iothread.*", "state.reason"]"#);
    let command = lab.plugin_unprivileged(&["--config", &some]);
    let mut logged = LoggedPlugin::start(&lab, command, "stats.log");
    for gather in 0..3 {
        let (lines, mut asked) = logged.gather();
        if gather == 0 {
            // A VM without I/O threads looks as if libvirt had passed it by, and is asked again 5 times.
            assert!(asked.len() <= 2 + 5, "{asked:x?}");
            asked.dedup();
        }
        assert_eq!(asked, [STATE, IOTHREAD], "gather {gather}: {asked:x?}");
        assert!(
            lines.iter().all(|line| line.measurement == "vm_stats"),
            "{lines:?}"
        );
        let found = fields(&lines, &vm);
        let named = |key: &&String| key.starts_with("iothread.") || *key == "state.reason";
        let named = stats.keys().filter(named);
        let mut named: Vec<Place> = named.filter_map(|key| place(key, &stats)).collect();
        named.sort_unstable();
        assert!(found.keys().eq(&named), "{found:?} {named:?}");
        assert_eq!(fields(&lines, &bare).len(), 1, "{lines:?}");
    }
    let odd = config(r#"["iothread.*", "later.*"]"#);
    let mut check = lab.plugin_unprivileged(&["--check", "--json", "--config", &odd]);
    let (code, out, err) = told(&run(&mut check));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let found = &found["output"]["statistics"];
    assert_eq!(found["without_key"].as_array().unwrap(), &["later.*"]);
    assert_eq!(found["lines"], 3, "of the VM and of its two I/O threads");

    // Without the key nothing comes of it.
    let mut plain = Plugin::spawn(lab.plugin_unprivileged(&[]));
    let lines = plain.gather();
    assert!(of(&lines, "vm_stats", vm.name()).is_empty());
    one(&lines, "vm_totals", vm.name());
}

/// The names of the VMs that have a line of this group.
fn with_group<'v>(lines: &[Line], vms: &'v [Vm], group: &str) -> Vec<&'v str> {
    let has = |vm: &&Vm| {
        let lines = of(lines, "vm_stats", vm.name());
        lines.iter().any(|line| line.tag("group") == group)
    };
    vms.iter().filter(has).map(Vm::name).collect()
}

/// Of the frozen VM nothing comes that its QEMU has to say, and of all others everything, in each gather.
fn others_are_whole(vms: &[Vm], config: &str, command: Command) {
    let mut plugin = Plugin::spawn(command);
    let names = |vms: &[Vm]| -> Vec<String> { vms.iter().map(|vm| vm.name().into()).collect() };
    let found = with_group(&plugin.gather(), vms, "iothread");
    assert_eq!(found, names(vms), "{config}: {}", plugin.stderr());
    vms[0].freeze();
    for gather in 1..=4 {
        let (lines, took) = plugin.timed_gather();
        println!("{config}, gather {gather}: {took:?}");
        let found = with_group(&lines, vms, "iothread");
        assert_eq!(
            found,
            names(&vms[1..]),
            "{config}, gather {gather}: {}",
            plugin.stderr()
        );
    }
    vms[0].thaw();
    wait_for("the thawed VM", Duration::from_secs(30), || {
        let found = with_group(&plugin.gather(), vms, "iothread");
        (found == names(vms)).then_some(())
    });
}

/// So many paused VMs with an I/O thread.
fn with_io_threads(lab: &Lab, count: usize) -> Vec<Vm<'_>> {
    let vm = |n: usize| {
        lab.create(&VmSpec {
            name: format!("vm{n}"),
            extra: "<iothreads>1</iothreads>".into(),
            paused: true,
            ..VmSpec::default()
        })
    };
    (0..count).map(vm).collect()
}

/// While another client's call has a VM's monitor, libvirt passes the VM by in ours, which is made again. Without that 6 to 9
/// of 100 lines were missing.
#[test]
fn another_clients_calls_cost_no_line() {
    let _alone = alone();
    let lab = Lab::start();
    let vms = with_io_threads(&lab, 10);
    let config = "measurements = [\"vm_totals\"]\nstatistics = [\"iothread.*\"]\n";
    let config = lab.config(config);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    let asks = |vm: &Vm| format!("domstats --iothread --block {}\n", vm.name());
    let asks: String = vms.iter().map(asks).collect();
    let mut virsh = lab.virsh_command();
    virsh.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut client = virsh.spawn().unwrap();
    let mut commands = client.stdin.take().unwrap();
    let ends = AtomicBool::new(false);
    let gathers = 30;
    let came = std::thread::scope(|scope| {
        scope.spawn(|| {
            while !ends.load(Ordering::Relaxed) && commands.write_all(asks.as_bytes()).is_ok() {
                std::thread::sleep(Duration::from_millis(120));
            }
        });
        let came = (0..gathers).map(|_| with_group(&plugin.gather(), &vms, "iothread").len());
        let came: usize = came.sum();
        ends.store(true, Ordering::Relaxed);
        came
    });
    drop(commands);
    client.wait().unwrap();
    // The client may come between each time.
    let missing = gathers * vms.len() - came;
    assert!(missing * 50 <= gathers * vms.len(), "{missing} are missing");
}

/// More than one chunk of them. Where nothing else needs the monitor, the call that asks for the named keys is the first
/// that the frozen VM can block.
#[test]
fn a_frozen_vm_costs_the_others_no_line() {
    let _alone = alone();
    let lab = Lab::start();
    let vms = with_io_threads(&lab, 10);
    for measurement in ["vm_totals", "vm_collector"] {
        let config = lab.config(&format!(
            "measurements = [{measurement:?}]\nstatistics = [\"iothread.*\"]\n"
        ));
        let args = ["--config", config.as_str()];
        let seen = lab.plugin_unprivileged(&args);
        others_are_whole(&vms, &format!("{measurement}, seen"), seen);
        let hidden = lab.plugin_blind(&args);
        others_are_whole(&vms, &format!("{measurement}, hidden"), hidden);
    }
}
