//! The lines that the plugin should write for a VM, made from virsh's output: an independent reading, by the
//! contract's tables and without the program's own code.

use super::lab::Lab;
use super::lines::{Line, Value, adds_up, is_last, is_latency, is_of_host};
use super::plugin::Plugin;
use super::vm::{qemu_pid, vcpu_threads};
use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;
use std::time::UNIX_EPOCH;

/// vm_devices of a nic: field, key below `net.N.`
pub const NIC: [(&str, &str); 8] = [
    ("rxbytes", "rx.bytes"),
    ("rxpackets", "rx.pkts"),
    ("rxerrors", "rx.errs"),
    ("rxdrops", "rx.drop"),
    ("txbytes", "tx.bytes"),
    ("txpackets", "tx.pkts"),
    ("txerrors", "tx.errs"),
    ("txdrops", "tx.drop"),
];

/// vm_devices of a disk: field, key below `block.N.`
pub const DISK: [(&str, &str); 12] = [
    ("rd_req", "rd.reqs"),
    ("rd_bytes", "rd.bytes"),
    ("wr_reqs", "wr.reqs"),
    ("wr_bytes", "wr.bytes"),
    ("errors", "errors"),
    ("rd_time_ns", "rd.times"),
    ("wr_time_ns", "wr.times"),
    ("fl_time_ns", "fl.times"),
    ("fl_reqs", "fl.reqs"),
    ("capacity_bytes", "capacity"),
    ("allocation_bytes", "allocation"),
    ("physical_bytes", "physical"),
];

/// vm_totals: field, key.
const TOTALS: [(&str, &str); 15] = [
    ("memactual", "balloon.current"),
    ("memrss", "balloon.rss"),
    ("memavailable", "balloon.available"),
    ("memusable", "balloon.usable"),
    ("memswap_in", "balloon.swap_in"),
    ("memswap_out", "balloon.swap_out"),
    ("memmajor_fault", "balloon.major_fault"),
    ("memminor_fault", "balloon.minor_fault"),
    ("memdisk_cache", "balloon.disk_caches"),
    ("memunused", "balloon.unused"),
    ("timeusr", "cpu.user"),
    ("timesys", "cpu.system"),
    ("cputime", "cpu.time"),
    ("state", "state.state"),
    ("state_reason", "state.reason"),
];

/// Gauges that change up and down by themselves while a VM (or its QEMU) runs. A value between two readings
/// need not lie between their values, so if only such a gauge differs, the readings are repeated.
const RESTLESS: [&str; 4] = ["memrss", "memusable", "memunused", "memdisk_cache"];

/// virsh's output for one VM at one moment.
#[derive(Debug, Clone)]
pub struct Reading {
    /// The tag `name` that the VM should have.
    pub name: String,
    tags: BTreeMap<String, String>,
    /// Before virsh ran and after it, in s since 1970.
    taken: (i64, i64),
    /// State and reason, in libvirt's own words. `virsh domstate --reason` prints other words for some, so
    /// they are read from the file in which libvirtd keeps them for its own restart.
    words: (String, String),
    info: BTreeMap<String, String>,
    stats: BTreeMap<String, String>,
    /// Targets of CD-ROM and floppy drives.
    drives: BTreeSet<String>,
    /// What the kernel says of the VM's QEMU.
    host: BTreeMap<&'static str, i64>,
}

/// The expected value of a field.
#[derive(Debug, Clone, PartialEq)]
enum Expected {
    Text(String),
    Between(i64, i64),
}

type ExpectedFields = BTreeMap<String, Expected>;
/// Measurement and tags.
type Series = (String, BTreeMap<String, String>);

impl Reading {
    /// Runs virsh for the VM with this UUID, whose tag `name` should be `tag` (else its name).
    pub fn take(lab: &Lab, uuid: &str, tag: Option<&str>) -> Reading {
        let begun = seconds_since_1970();
        let info: BTreeMap<String, String> = lab
            .virsh(&["dominfo", "--domain", uuid])
            .lines()
            .filter_map(|line| line.split_once(':'))
            .map(|(key, value)| (key.to_owned(), value.trim_start().to_owned()))
            .collect();
        let name = info["Name"].clone();
        let details = lab.virsh(&["domblklist", "--details", "--domain", uuid]);
        let drives = details.lines().filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let drive = matches!(words.get(1), Some(&"cdrom" | &"floppy"));
            drive.then(|| words[2].to_owned())
        });
        let tag = tag.unwrap_or(&name).to_owned();
        let tags = [
            ("VMID", info["Id"].clone()),
            ("name", tag.clone()),
            ("uuid", uuid.to_owned()),
        ];
        Reading {
            tags: tags.map(|(key, value)| (key.to_owned(), value)).into(),
            words: words(lab, &name),
            drives: drives.collect(),
            host: host(lab, uuid),
            stats: lab.domstats(uuid),
            taken: (begun, seconds_since_1970()),
            info,
            name: tag,
        }
    }

    /// A statistic, if virsh has it.
    pub fn get(&self, key: &str) -> Option<i64> {
        let text = self.stats.get(key)?;
        Some(text.parse().unwrap_or_else(|_| panic!("{key}={text}")))
    }

    fn info(&self, key: &str) -> i64 {
        let number = self.info[key].split(' ').next().unwrap();
        number.parse().unwrap()
    }

    /// The number and name of each device of the group (`net`, `block`) that has a name.
    fn devices(&self, group: &str) -> Vec<(usize, String)> {
        let count = self.get(&format!("{group}.count")).unwrap();
        (0..usize::try_from(count).unwrap())
            .filter_map(|n| Some((n, self.stats.get(&format!("{group}.{n}.name"))?.clone())))
            .collect()
    }
}

fn seconds_since_1970() -> i64 {
    let now = UNIX_EPOCH.elapsed().unwrap();
    now.as_secs().try_into().unwrap()
}

/// The fields that come from /proc. The name of a QEMU's process has no space.
fn host(lab: &Lab, uuid: &str) -> BTreeMap<&'static str, i64> {
    let pid = qemu_pid(lab, uuid);
    let threads = vcpu_threads(lab, pid);
    let sum = |figure: usize| threads.values().map(|times| times[figure]).sum();
    let read = |path: &str| std::fs::read_to_string(lab.inside(path)).unwrap();
    let (stat, uptime) = (read(&format!("/proc/{pid}/stat")), read("/proc/uptime"));
    let ticks: f64 = stat.split(' ').nth(21).unwrap().parse().unwrap();
    let now: f64 = uptime.split(' ').next().unwrap().parse().unwrap();
    let per_second = rustix::param::clock_ticks_per_second() as f64;
    BTreeMap::from([
        ("uptime_sec", (now - ticks / per_second) as i64),
        ("vcpu_time_ns", sum(0)),
        ("vcpu_delay_ns", sum(1)),
    ])
}

fn words(lab: &Lab, name: &str) -> (String, String) {
    let file = lab.inside(&format!("/run/libvirt/qemu/{name}.xml"));
    let status = std::fs::read_to_string(file).unwrap();
    let (_, status) = status.split_once("<domstatus ").unwrap();
    let word = |key: &str| {
        let (_, rest) = status.split_once(&format!("{key}='")).unwrap();
        rest.split('\'').next().unwrap().to_owned()
    };
    let state = match word("state").as_str() {
        "pmsuspended" => "suspended".to_owned(),
        other => other.to_owned(),
    };
    (state, word("reason"))
}

/// Adds the fields of `keys` that virsh has in both readings to the existing ones.
fn add(
    fields: &mut ExpectedFields,
    keys: &[(&str, &str)],
    (before, after): (&Reading, &Reading),
    prefix: (&str, &str),
) {
    for (field, key) in keys {
        let key = format!("{}{key}", prefix.1);
        let (Some(low), Some(high)) = (before.get(&key), after.get(&key)) else {
            continue;
        };
        let (low, high) = (low.min(high), low.max(high));
        let sum = fields
            .entry(format!("{}{field}", prefix.0))
            .or_insert(Expected::Between(0, 0));
        let Expected::Between(sum_low, sum_high) = sum else {
            unreachable!()
        };
        (*sum_low, *sum_high) = (*sum_low + low, *sum_high + high);
    }
}

/// Every line of the VM except vm_features.
fn expected(before: &Reading, after: &Reading, drives: bool) -> BTreeMap<Series, ExpectedFields> {
    assert_eq!(before.tags, after.tags, "another run of it");
    assert_eq!(before.words, after.words, "its state changed");
    let both = (before, after);
    let vcpus = before.info("CPU(s)");
    assert_eq!(before.get("vcpu.current"), Some(vcpus));
    let mut all = BTreeMap::new();

    let mut metrics = ExpectedFields::new();
    let number = |key: &str| {
        let (one, other) = (before.info(key), after.info(key));
        Expected::Between(one.min(other), one.max(other))
    };
    metrics.insert("state".into(), Expected::Text(before.words.0.clone()));
    metrics.insert(
        "state_reason".into(),
        Expected::Text(before.words.1.clone()),
    );
    metrics.insert("cpu_count".into(), number("CPU(s)"));
    metrics.insert("memory_max_kb".into(), number("Max memory"));
    metrics.insert("memory_used_kb".into(), number("Used memory"));
    add(&mut metrics, &[("cputime_ns", "cpu.time")], both, ("", ""));
    // virsh's readings came back whole, so the VM's QEMU answers.
    metrics.insert("answers".into(), Expected::Between(1, 1));
    let host = |field: &str| Expected::Between(before.host[field], after.host[field]);
    metrics.insert("uptime_sec".into(), host("uptime_sec"));
    all.insert(("vm_metrics".to_owned(), before.tags.clone()), metrics);

    let mut totals = ExpectedFields::new();
    add(&mut totals, &TOTALS, both, ("", ""));
    totals.insert("cpus".into(), number("CPU(s)"));
    let reported = |reading: &Reading| reading.get("balloon.last-update").filter(|at| *at > 0);
    if let (Some(first), Some(last)) = (reported(before), reported(after)) {
        let (least, most) = (before.taken.0 - last, after.taken.1 - first);
        let age = Expected::Between(least.max(0), most);
        totals.insert("memstats_age_sec".into(), age);
    }
    for field in ["vcpu_time_ns", "vcpu_delay_ns"] {
        totals.insert(field.into(), host(field));
    }
    let groups: [(&str, &str, &str, &[_]); 2] = [
        ("net", "nic", "net_", &NIC),
        ("block", "disk", "disk_", &DISK),
    ];
    for (group, devtype, total, keys) in groups {
        if before.get(&format!("{group}.count")) == Some(0) {
            for (field, _) in keys {
                totals.insert(format!("{total}{field}"), Expected::Between(0, 0));
            }
        }
        for (n, device) in before.devices(group) {
            if group == "block" && !drives && before.drives.contains(&device) {
                continue;
            }
            let key = format!("{group}.{n}.");
            let mut tags = before.tags.clone();
            tags.insert("devtype".into(), devtype.into());
            tags.insert("device".into(), device);
            let mut fields = ExpectedFields::new();
            add(&mut fields, keys, both, ("", &key));
            all.insert(("vm_devices".to_owned(), tags), fields);
            add(&mut totals, keys, both, (total, &key));
        }
    }
    all.insert(("vm_totals".to_owned(), before.tags.clone()), totals);
    all
}

/// All differences, and whether there is one that a repetition would not explain.
#[derive(Debug, Default)]
struct Wrong {
    text: String,
    serious: bool,
}

fn compare(lines: &[Line], before: &Reading, after: &Reading, drives: bool) -> Wrong {
    let mut wrong = Wrong::default();
    // A guest that reports for the first time, or is reset, does so between two readings.
    if !before.stats.keys().eq(after.stats.keys()) {
        wrong.text = "a figure came or went".to_owned();
        return wrong;
    }
    let mut expected = expected(before, after, drives);
    for line in lines {
        if line.tags.get("uuid") != before.tags.get("uuid") || line.measurement == "vm_features" {
            continue;
        }
        let series = (line.measurement.clone(), line.tags.clone());
        let Some(mut wants) = expected.remove(&series) else {
            wrong.serious = true;
            let _ = writeln!(wrong.text, "not expected (or twice): {line:?}");
            continue;
        };
        // A latency has no counterpart in virsh.
        let fields = line.fields.iter().filter(|(field, _)| !is_latency(field));
        for (field, value) in fields {
            // virsh does not count the events, of which a test may make some.
            if field == "io_error_events" {
                assert!(matches!(value, Value::Int(0..)), "{value:?}: {series:?}");
                continue;
            }
            let want = wants.remove(field);
            let right = match (&want, value) {
                (Some(Expected::Text(want)), Value::Text(text)) => want == text,
                (Some(Expected::Between(low, high)), Value::Int(n)) => (low..=high).contains(&n),
                _ => false,
            };
            if !right {
                wrong.serious |= want.is_none() || !RESTLESS.contains(&field.as_str());
                let _ = writeln!(wrong.text, "{field} is {value:?}, not {want:?}: {series:?}");
            }
        }
        if !wants.is_empty() {
            // The check of the host was late: the readings are repeated.
            wrong.serious |= wants.keys().any(|field| !is_of_host(field));
            let _ = writeln!(wrong.text, "missing: {wants:?}: {series:?}");
        }
    }
    if !expected.is_empty() {
        wrong.serious = true;
        let _ = writeln!(wrong.text, "missing: {expected:#?}");
    }
    wrong
}

/// Gathers with `plugin` between two readings of these VMs (UUID, and the tag `name` if it is not the name),
/// and compares every field of every line. Returns the lines of the first gather (there may be more, see
/// [`RESTLESS`]), without the last lines of runs that have ended.
///
/// `drives`: whether the plugin is configured to show CD-ROM and floppy drives.
pub fn agrees(
    lab: &Lab,
    plugin: &mut Plugin,
    vms: &[(&str, Option<&str>)],
    drives: bool,
) -> Vec<Line> {
    let mut first = None;
    let mut restless = String::new();
    for _ in 0..20 {
        let readings = || -> Vec<Reading> {
            vms.iter()
                .map(|(uuid, tag)| Reading::take(lab, uuid, *tag))
                .collect()
        };
        let before = readings();
        let mut lines = plugin.gather();
        let after = readings();
        lines.retain(|line| !is_last(line));
        let mut again = String::new();
        for (before, after) in before.iter().zip(&after) {
            let wrong = compare(&lines, before, after, drives);
            assert!(
                !wrong.serious,
                "{}\nbefore: {before:#?}\nafter: {after:#?}",
                wrong.text
            );
            again += &wrong.text;
            adds_up(&lines, &before.name);
        }
        let first = first.get_or_insert(lines);
        if again.is_empty() {
            return std::mem::take(first);
        }
        restless = again;
    }
    panic!("never between two readings: {restless}");
}
