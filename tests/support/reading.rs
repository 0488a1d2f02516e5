//! What virsh says of a domain, under the contract's names: the independent reading that our lines are
//! compared with.

use super::lines::{Line, Value, is_last};
use super::plugin::Plugin;
use super::{program, succeed};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::process::Command;

/// virsh with this URI, outside of any lab.
pub fn virsh(uri: &str, args: &[&str]) -> String {
    let mut command = Command::new(program("virsh"));
    succeed(command.args(["-q", "-c", uri]).args(args))
}

/// Every field by its position: `vm_totals memrss`, `vm_devices nic tap0 rxbytes`.
pub type Fields = BTreeMap<String, Value>;

/// The fields of one VM's lines.
pub fn fields_of(lines: &[Line], uuid: &str) -> Fields {
    let mut fields = Fields::new();
    for line in lines.iter().filter(|line| line.tag("uuid") == uuid) {
        let mut place = line.measurement.clone();
        for key in ["devtype", "device"] {
            if let Some(tag) = line.tags.get(key) {
                let _ = write!(place, " {tag}");
            }
        }
        for (key, value) in &line.fields {
            let place = format!("{place} {key}");
            let twice = fields.insert(place, value.clone());
            assert_eq!(twice, None, "twice: {line:?}");
        }
    }
    fields
}

/// What virsh says of one VM, under the contract's names: all of vm_metrics, vm_devices and vm_totals.
/// `drives` adds CD-ROM and floppy drives. `virsh` runs one command.
pub fn read(virsh: &dyn Fn(&[&str]) -> String, uuid: &str, drives: bool) -> Fields {
    let mut fields = Fields::new();
    let mut put = |place: &str, value: Value| {
        assert_eq!(fields.insert(place.to_owned(), value), None, "{place}");
    };
    // One process runs all commands that need no quoting.
    let commands = [
        "domstate --reason",
        "domstats --raw --state",
        "dominfo",
        "vcpucount --live --active",
        "cpu-stats --total",
        "dommemstat",
        "domiflist",
        "domblklist --details",
    ];
    let all = commands.map(|command| format!("{command} {uuid}"));
    let all = virsh(&[&all.join("; echo ====; ")]);
    let said: Vec<&str> = all.split("====").collect();
    let [state, stats, info, vcpus, cpu, memory, nics, disks] = said[..] else {
        panic!("{} parts: {all}", said.len());
    };
    let (state, reason) = state
        .trim()
        .split_once(" (")
        .expect("a state and its reason");
    let reason = reason.strip_suffix(')').expect("a reason in brackets");
    put("vm_metrics state", Value::Text(our_word(state).to_owned()));
    put("vm_metrics state_reason", Value::Text(reason.to_owned()));
    let numbers = super::lab::virsh_domstats(stats);
    for (theirs, ours, known) in [
        ("state.state", "state", number_in(&STATES, state)),
        ("state.reason", "state_reason", reason_number(state, reason)),
    ] {
        // With libvirt 7.0 the test driver has no bulk statistics.
        let number = numbers.get(theirs).map_or(known, |number| int(number));
        put(&format!("vm_totals {ours}"), number);
    }
    let info = |key: &str| {
        let line = info.lines().find_map(|line| line.strip_prefix(key));
        int(line.unwrap_or_else(|| panic!("no {key} in {info}")))
    };
    put("vm_metrics memory_max_kb", info("Max memory:"));
    put("vm_metrics memory_used_kb", info("Used memory:"));
    let vcpus = int(vcpus);
    assert_eq!(vcpus, info("CPU(s):"), "virsh contradicts itself");
    put("vm_metrics cpu_count", vcpus.clone());
    put("vm_totals cpus", vcpus);

    let times = [
        ("cpu_time", "vm_metrics cputime_ns"),
        ("cpu_time", "vm_totals cputime"),
        ("user_time", "vm_totals timeusr"),
        ("system_time", "vm_totals timesys"),
    ];
    for (theirs, place) in times {
        let seconds = cpu.lines().find_map(|l| l.trim().strip_prefix(theirs));
        let seconds = seconds.unwrap_or_else(|| panic!("no {theirs} in {cpu}"));
        // "48.772617035 seconds" has always nine decimal places: without the point it is in ns.
        put(place, int(&seconds.replace('.', "")));
    }
    for line in memory.lines().filter(|line| !line.is_empty()) {
        let (key, value) = line.split_once(' ').expect("a key and a value");
        let ours = match key {
            "swap_in" | "swap_out" | "major_fault" | "minor_fault" => format!("mem{key}"),
            "actual" | "rss" | "available" | "usable" | "unused" => format!("mem{key}"),
            "disk_caches" => "memdisk_cache".to_owned(),
            _ => continue,
        };
        put(&format!("vm_totals {ours}"), int(value));
    }

    let nics = nic_names(nics);
    let disks = disk_names(disks, drives);
    let mut totals: BTreeMap<String, i64> = BTreeMap::new();
    for (devices, devtype, prefix, keys) in [
        (nics, "nic", "net", &NIC_KEYS[..]),
        (disks, "disk", "disk", &DISK_KEYS[..]),
    ] {
        for (_, field) in keys {
            totals.insert(format!("vm_totals {prefix}_{field}"), 0);
        }
        if devtype == "disk" && devices.is_empty() {
            // The test driver does not report these of a disk. Without disks their sum is 0.
            for field in NOT_REPORTED {
                totals.insert(format!("vm_totals disk_{field}"), 0);
            }
        }
        for device in devices {
            let command = if devtype == "nic" {
                "domifstat"
            } else {
                "domblkstat"
            };
            let said = virsh(&[command, uuid, &device]);
            for (theirs, field) in keys {
                let lead = format!("{device} {theirs} ");
                let value = said.lines().find_map(|line| line.strip_prefix(&lead));
                let Some(value) = value else {
                    panic!("no {theirs} of {device} in {said}");
                };
                let value: i64 = value.trim().parse().unwrap();
                put(
                    &format!("vm_devices {devtype} {device} {field}"),
                    Value::Int(value),
                );
                *totals
                    .get_mut(&format!("vm_totals {prefix}_{field}"))
                    .unwrap() += value;
            }
        }
    }
    for (place, sum) in totals {
        put(&place, Value::Int(sum));
    }
    fields
}

const NIC_KEYS: [(&str, &str); 8] = [
    ("rx_bytes", "rxbytes"),
    ("rx_packets", "rxpackets"),
    ("rx_errs", "rxerrors"),
    ("rx_drop", "rxdrops"),
    ("tx_bytes", "txbytes"),
    ("tx_packets", "txpackets"),
    ("tx_errs", "txerrors"),
    ("tx_drop", "txdrops"),
];

const DISK_KEYS: [(&str, &str); 5] = [
    ("rd_req", "rd_req"),
    ("rd_bytes", "rd_bytes"),
    ("wr_req", "wr_reqs"),
    ("wr_bytes", "wr_bytes"),
    ("errs", "errors"),
];

/// Fields of a disk that the test driver does not report.
const NOT_REPORTED: [&str; 7] = [
    "rd_time_ns",
    "wr_time_ns",
    "fl_time_ns",
    "fl_reqs",
    "capacity_bytes",
    "allocation_bytes",
    "physical_bytes",
];

/// Columns are separated by three blanks; a name may contain single ones.
fn nic_names(said: &str) -> Vec<String> {
    let rows = said.lines().filter(|line| !line.is_empty());
    rows.map(|row| row.trim().split("   ").next().unwrap().trim().to_owned())
        .collect()
}

fn disk_names(said: &str, drives: bool) -> Vec<String> {
    let rows = said
        .lines()
        .map(|row| row.split_whitespace().collect::<Vec<_>>());
    rows.filter(|row| row.len() > 2)
        .filter(|row| drives || !["cdrom", "floppy"].contains(&row[1]))
        .map(|row| row[2].to_owned())
        .collect()
}

/// virsh's word for a state -> the contract's.
/// virsh's words for virDomainState, in the order of its numbers.
const STATES: [&str; 8] = [
    "no state",
    "running",
    "idle",
    "paused",
    "in shutdown",
    "shut off",
    "crashed",
    "pmsuspended",
];

/// The number of a reason, for the reasons that a domain of the test driver can have.
fn reason_number(state: &str, reason: &str) -> Value {
    match state {
        "running" => number_in(
            &[
                "unknown",
                "booted",
                "migrated",
                "restored",
                "from snapshot",
                "unpaused",
            ],
            reason,
        ),
        "paused" => number_in(&["unknown", "user"], reason),
        _ => Value::Int(0),
    }
}

/// The index of `word`; -1, which no field has, if it is not in the list.
fn number_in(words: &[&str], word: &str) -> Value {
    let place = words.iter().position(|known| *known == word);
    Value::Int(place.map_or(-1, |place| i64::try_from(place).unwrap()))
}

fn our_word(state: &str) -> &str {
    match state {
        "idle" => "blocked",
        "in shutdown" => "shutdown",
        "shut off" => "shutoff",
        "pmsuspended" => "suspended",
        other => other,
    }
}

fn int(text: &str) -> Value {
    let number = text.trim().split(' ').next().unwrap();
    Value::Int(
        number
            .parse()
            .unwrap_or_else(|_| panic!("no number: {text:?}")),
    )
}

/// Runs one gather between two readings of these VMs. Panics unless it has all of these VMs, no other, and no
/// value that virsh does not say. The last lines of VMs that have stopped are left out.
pub fn gather_between(
    plugin: &mut Plugin,
    virsh: &dyn Fn(&[&str]) -> String,
    uuids: &[String],
    drives: bool,
) -> Vec<Line> {
    let read = || -> Vec<Fields> {
        let all = uuids.iter().map(|uuid| read(virsh, uuid, drives));
        all.collect()
    };
    let before = read();
    let mut lines = plugin.gather();
    let after = read();
    lines.retain(|line| !is_last(line));
    for ((uuid, before), after) in uuids.iter().zip(&before).zip(&after) {
        compare(before, &fields_of(&lines, uuid), after);
    }
    let seen: BTreeSet<&str> = lines.iter().map(|line| line.tag("uuid")).collect();
    let asked: BTreeSet<&str> = uuids.iter().map(String::as_str).collect();
    assert_eq!(seen, asked);
    totals_are_sums(&lines);
    lines
}

/// Panics unless `ours` has exactly the fields of virsh's readings before and after, each equal to both or
/// between them. vm_features is not compared.
pub fn compare(before: &Fields, ours: &Fields, after: &Fields) {
    let keys = |fields: &Fields| {
        let all = fields.keys().filter(|key| !key.starts_with("vm_features"));
        all.cloned().collect::<Vec<_>>()
    };
    assert_eq!(keys(ours), keys(before), "ours (left) and virsh's fields");
    assert_eq!(keys(before), keys(after), "virsh before and after");
    for (place, value) in ours.iter().filter(|(key, _)| before.contains_key(*key)) {
        match (&before[place], value, &after[place]) {
            (Value::Int(before), Value::Int(ours), Value::Int(after)) => {
                assert!(
                    before <= ours && ours <= after,
                    "{place}: {ours} does not lie between virsh's {before} and {after}"
                );
            }
            (before, ours, after) => {
                assert_eq!((ours, ours), (before, after), "{place}: ours, virsh's");
            }
        }
    }
}

/// Panics unless the totals of each VM equal the sums of its own vm_devices lines, field by field.
pub fn totals_are_sums(lines: &[Line]) {
    let mut sums: BTreeMap<(&str, String), i64> = BTreeMap::new();
    for line in lines.iter().filter(|l| l.measurement == "vm_devices") {
        let prefix = if line.tag("devtype") == "nic" {
            "net"
        } else {
            "disk"
        };
        for field in line.fields.keys() {
            let sum = sums
                .entry((line.tag("uuid"), format!("{prefix}_{field}")))
                .or_default();
            *sum += line.int(field).unwrap();
        }
    }
    let totals = lines.iter().filter(|l| l.measurement == "vm_totals");
    let mut seen = 0;
    for total in totals {
        seen += 1;
        for (prefix, keys) in [("net", &NIC_KEYS[..]), ("disk", &DISK_KEYS[..])] {
            for (_, field) in keys {
                let field = format!("{prefix}_{field}");
                let sum = sums
                    .remove(&(total.tag("uuid"), field.clone()))
                    .unwrap_or(0);
                assert_eq!(total.int(&field), Some(sum), "{field}: {total:?}");
            }
        }
    }
    assert!(seen > 0, "no vm_totals");
    assert!(sums.is_empty(), "devices of no vm_totals: {sums:?}");
}
