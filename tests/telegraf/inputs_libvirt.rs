//! Everything that Telegraf's own inputs.libvirt writes is in `vm_stats`, with the same value: both run under one Telegraf
//! on the same VMs. And docs/migration.md names it.

use crate::agent::{self, Config, LIMIT, Telegraf, by_time};
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value};
use crate::support::vm::{Nic, VmSpec, disk_xml, disks};
use crate::support::wait_for;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

/// A value of inputs.libvirt has to lie among those that ours have from so many s before it until so many s after it:
/// its timestamps are rounded, ours are of the begin of a gather, and either may be late.
const AROUND: i64 = 3;

/// A measurement of inputs.libvirt; its tags with a number, each with our tag or the place of the number in our field; our
/// group; the beginning of our field.
type Row = (
    &'static str,
    &'static [(&'static str, &'static str)],
    &'static str,
    &'static str,
);

const MEASUREMENTS: [Row; 20] = [
    ("libvirt_state", &[], "state", ""),
    ("libvirt_cpu", &[], "cpu", ""),
    (
        "libvirt_cpu_cache_monitor_total",
        &[],
        "cpu",
        "cache_monitor_",
    ),
    (
        "libvirt_cpu_cache_monitor",
        &[("cache_monitor_id", "index")],
        "cpu",
        "cache_monitor_",
    ),
    (
        "libvirt_cpu_cache_monitor_bank",
        &[("cache_monitor_id", "index"), ("bank_index", "")],
        "cpu",
        "cache_monitor_bank_",
    ),
    ("libvirt_balloon", &[], "balloon", ""),
    ("libvirt_vcpu_total", &[], "vcpu", ""),
    ("libvirt_vcpu", &[("vcpu_id", "vcpu")], "vcpu", ""),
    ("libvirt_net_total", &[], "net", ""),
    ("libvirt_net", &[("interface_id", "index")], "net", ""),
    ("libvirt_perf", &[], "perf", ""),
    ("libvirt_block_total", &[], "block", ""),
    ("libvirt_block", &[("block_id", "index")], "block", ""),
    ("libvirt_iothread_total", &[], "iothread", ""),
    (
        "libvirt_iothread",
        &[("iothread_id", "iothread")],
        "iothread",
        "",
    ),
    (
        "libvirt_memory_bandwidth_monitor_total",
        &[],
        "memory",
        "bandwidth_monitor_",
    ),
    (
        "libvirt_memory_bandwidth_monitor",
        &[("memory_bandwidth_monitor_id", "index")],
        "memory",
        "bandwidth_monitor_",
    ),
    (
        "libvirt_memory_bandwidth_monitor_node",
        &[
            ("memory_bandwidth_monitor_id", "index"),
            ("controller_index", ""),
        ],
        "memory",
        "bandwidth_monitor_node_",
    ),
    ("libvirt_dirtyrate", &[], "dirtyrate", ""),
    (
        "libvirt_dirtyrate_vcpu",
        &[("vcpu_id", "vcpu")],
        "dirtyrate",
        "vcpu_",
    ),
];

/// Measurement and field of inputs.libvirt, and the same in our other measurements. (The time in vm_vcpus is the kernel's
/// in ns, and that of libvirt is in steps of 10 ms.)
const ELSEWHERE: [(&str, &str, &str, &str); 42] = [
    ("libvirt_state", "state", "vm_totals", "state"),
    ("libvirt_state", "reason", "vm_totals", "state_reason"),
    ("libvirt_cpu", "time", "vm_totals", "cputime"),
    ("libvirt_cpu", "time", "vm_metrics", "cputime_ns"),
    ("libvirt_cpu", "user", "vm_totals", "timeusr"),
    ("libvirt_cpu", "system", "vm_totals", "timesys"),
    ("libvirt_balloon", "current", "vm_totals", "memactual"),
    ("libvirt_balloon", "current", "vm_metrics", "memory_used_kb"),
    ("libvirt_balloon", "maximum", "vm_metrics", "memory_max_kb"),
    ("libvirt_balloon", "rss", "vm_totals", "memrss"),
    ("libvirt_balloon", "available", "vm_totals", "memavailable"),
    ("libvirt_balloon", "usable", "vm_totals", "memusable"),
    ("libvirt_balloon", "swap_in", "vm_totals", "memswap_in"),
    ("libvirt_balloon", "swap_out", "vm_totals", "memswap_out"),
    (
        "libvirt_balloon",
        "major_fault",
        "vm_totals",
        "memmajor_fault",
    ),
    (
        "libvirt_balloon",
        "minor_fault",
        "vm_totals",
        "memminor_fault",
    ),
    (
        "libvirt_balloon",
        "disk_caches",
        "vm_totals",
        "memdisk_cache",
    ),
    ("libvirt_balloon", "unused", "vm_totals", "memunused"),
    ("libvirt_vcpu_total", "current", "vm_totals", "cpus"),
    ("libvirt_vcpu_total", "current", "vm_metrics", "cpu_count"),
    ("libvirt_vcpu", "delay", "vm_vcpus", "delay_ns"),
    ("libvirt_net", "rx_bytes", "vm_devices", "rxbytes"),
    ("libvirt_net", "rx_pkts", "vm_devices", "rxpackets"),
    ("libvirt_net", "rx_errs", "vm_devices", "rxerrors"),
    ("libvirt_net", "rx_drop", "vm_devices", "rxdrops"),
    ("libvirt_net", "tx_bytes", "vm_devices", "txbytes"),
    ("libvirt_net", "tx_pkts", "vm_devices", "txpackets"),
    ("libvirt_net", "tx_errs", "vm_devices", "txerrors"),
    ("libvirt_net", "tx_drop", "vm_devices", "txdrops"),
    ("libvirt_block", "rd_reqs", "vm_devices", "rd_req"),
    ("libvirt_block", "rd_bytes", "vm_devices", "rd_bytes"),
    ("libvirt_block", "rd_times", "vm_devices", "rd_time_ns"),
    ("libvirt_block", "wr_reqs", "vm_devices", "wr_reqs"),
    ("libvirt_block", "wr_bytes", "vm_devices", "wr_bytes"),
    ("libvirt_block", "wr_times", "vm_devices", "wr_time_ns"),
    ("libvirt_block", "fl_reqs", "vm_devices", "fl_reqs"),
    ("libvirt_block", "fl_times", "vm_devices", "fl_time_ns"),
    ("libvirt_block", "errors", "vm_devices", "errors"),
    ("libvirt_block", "capacity", "vm_devices", "capacity_bytes"),
    (
        "libvirt_block",
        "allocation",
        "vm_devices",
        "allocation_bytes",
    ),
    ("libvirt_block", "physical", "vm_devices", "physical_bytes"),
    ("libvirt_block", "path", "vm_info", "source"),
];

/// Measurement, tags without those that tell runs and hosts apart, and field.
type Place = (String, BTreeMap<String, String>, String);

/// Where a value of inputs.libvirt stands in our lines: in vm_stats, and elsewhere.
fn places(line: &Line, field: &str) -> Vec<Place> {
    let row = MEASUREMENTS.iter().find(|row| row.0 == line.measurement);
    let (_, numbers, group, begin) = row.unwrap_or_else(|| panic!("unknown: {line:?}"));
    let vm = ("name".to_owned(), line.tag("domain_name").to_owned());
    let mut tags = BTreeMap::from([vm.clone()]);
    let mut name = (*begin).to_owned();
    for (theirs, ours) in *numbers {
        let number = line.tag(theirs);
        match (*ours, line.text("name")) {
            ("", _) => name += &format!("{number}_"),
            ("index", Some(device)) if ["net", "block"].contains(group) => {
                tags.insert("device".into(), device.into());
            }
            _ => {
                tags.insert((*ours).into(), number.into());
            }
        }
    }
    name += match field {
        "time" => "time_ns",
        other => other,
    };
    let mut stats = tags.clone();
    stats.insert("group".into(), (*group).into());
    let mut places = vec![("vm_stats".to_owned(), stats, name)];
    for (measurement, known, ours, our_field) in ELSEWHERE {
        if (measurement, known) != (line.measurement.as_str(), field) {
            continue;
        }
        let mut tags = tags.clone();
        if ["vm_devices", "vm_info"].contains(&ours) {
            let devtype = if *group == "net" { "nic" } else { "disk" };
            tags.insert("devtype".into(), devtype.into());
        }
        places.push((ours.into(), tags, our_field.into()));
    }
    places
}

/// All values that our lines of these gathers have at each place.
fn ours<'l>(gathers: impl Iterator<Item = &'l Vec<Line>>) -> BTreeMap<Place, Vec<Value>> {
    let mut values = BTreeMap::<Place, Vec<Value>>::new();
    for line in gathers.flatten() {
        let mut tags = line.tags.clone();
        tags.retain(|tag, _| !["VMID", "uuid"].contains(&tag.as_str()));
        for (field, value) in &line.fields {
            let place = (line.measurement.clone(), tags.clone(), field.clone());
            values.entry(place).or_default().push(value.clone());
        }
    }
    values
}

fn is_among(value: &Value, ours: &[Value]) -> bool {
    let numbers = ours.iter().map(|value| match value {
        Value::Int(number) => Some(*number),
        Value::Float(_) | Value::Text(_) => None,
    });
    match (value, numbers.collect::<Option<Vec<i64>>>()) {
        (Value::Int(number), Some(ours)) if !ours.is_empty() => {
            let (least, most) = (ours.iter().min().unwrap(), ours.iter().max().unwrap());
            (least..=most).contains(&number)
        }
        _ => ours.contains(value),
    }
}

/// The name of a device is the tag `device` of ours. inputs.libvirt takes `halted` for a text, so that `halted_i` is always 0.
fn is_compared(line: &Line, field: &str) -> bool {
    let is_device = ["libvirt_net", "libvirt_block"].contains(&line.measurement.as_str());
    field != "halted_i" && !(field == "name" && is_device)
}

/// The first column of the rows of docs/migration.md that begin with each measurement.
fn documented() -> Vec<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/migration.md");
    let page = std::fs::read_to_string(page).unwrap();
    let rows = page.lines().filter(|line| line.starts_with("| `libvirt_"));
    rows.map(|row| row.split('|').nth(1).unwrap().to_owned())
        .collect()
}

#[test]
fn all_that_inputs_libvirt_writes_is_in_vm_stats() {
    let lab = Lab::start();
    let image = lab.dir().join("own.img");
    let file = std::fs::File::create(&image);
    file.and_then(|file| file.set_len(8 << 20)).unwrap();
    let disk = disk_xml("disk", "vdb", Some(&image));
    let guest = lab.create(&VmSpec {
        name: "guest".into(),
        memory_mib: 96,
        vcpus: 2,
        max_vcpus: 3,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap, Nic::User],
        cdrom: true,
        stats_period: Some(1),
        guest: true,
        extra: "<iothreads>2</iothreads>".into(),
        devices: disk.replace("type='raw'", "type='raw' iothread='1'"),
        ..VmSpec::default()
    });
    lab.create(&VmSpec {
        name: "paused".into(),
        disks: disks(&["sda"]),
        nics: vec![Nic::Named("tap0".into())],
        paused: true,
        ..VmSpec::default()
    });
    guest.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    guest.guest(
        "(while :; do ping -c 1 192.168.77.1; dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct; \
         dd if=/dev/zero of=/dev/vdb bs=64k count=2 oflag=direct; sleep 1; done) \
         </dev/null >/dev/null 2>&1 &",
    );
    // A container may not count events, and libvirt 7.0 cannot measure.
    for words in [
        ["perf", guest.name(), "--enable", "cpu_clock"],
        ["domdirtyrate-calc", guest.name(), "--seconds", "1"],
    ] {
        let output = lab.virsh_command().args(words).output().unwrap();
        println!("{words:?}: {output:?}");
    }
    wait_for("the guest's memory", LIMIT, || {
        let stats = lab.domstats(guest.name());
        let measures = stats.get("dirtyrate.calc_status").map(String::as_str) == Some("1");
        (stats.contains_key("balloon.disk_caches") && !measures).then_some(())
    });

    let plugin = lab.config(
        "measurements = [\"vm_metrics\", \"vm_devices\", \"vm_totals\", \"vm_vcpus\", \"vm_info\"]\n\
         vcpu_delay = \"libvirt\"\ncdrom = true\ninfo_interval = \"1s\"\nstatistics = [\"*\"]\n",
    );
    let mut config = Config::new(&["--config", &plugin]);
    let socket = lab.read_only_socket();
    let socket = socket.strip_suffix("-ro").unwrap();
    config.extra =
        format!("[[inputs.libvirt]]\nlibvirt_uri = \"qemu+unix:///system?socket={socket}\"\n");
    let toml = config.toml(lab.dir());
    let telegraf = Telegraf::spawn(lab.dir(), agent::command_in(&lab, &toml));

    let mut checked = BTreeSet::new();
    wait_for("all values among ours", 2 * LIMIT, || {
        let is_theirs = |line: &Line| line.measurement.starts_with("libvirt_");
        let (theirs, mine): (Vec<_>, Vec<_>) = telegraf.out().into_iter().partition(is_theirs);
        let mine = by_time(mine);
        let around = AROUND * 1_000_000_000;
        let ends = (mine.keys().next()?, mine.keys().next_back()?);
        let is_within = |time: i64| time - around >= *ends.0 && time + around <= *ends.1;
        let mut found = BTreeMap::<Place, Option<String>>::new();
        let mut count = 0;
        for (time, lines) in by_time(theirs).into_iter().filter(|it| is_within(it.0)) {
            count += 1;
            let gathers = mine.range(time - around..=time + around);
            let ours = ours(gathers.map(|(_, lines)| lines));
            for line in &lines {
                for (field, value) in line.fields.iter().filter(|it| is_compared(line, it.0)) {
                    checked.insert((line.measurement.clone(), field.clone()));
                    for place in places(line, field) {
                        let values = ours.get(&place).map_or(&[][..], Vec::as_slice);
                        let is_right = is_among(value, values);
                        let wrong = format!("{field} {value:?} of {line:?}: {values:?}");
                        let known = found.entry(place).or_insert(Some(wrong));
                        if is_right {
                            *known = None;
                        }
                    }
                }
            }
        }
        // Once is enough: the memory that QEMU holds goes up and down between two readings.
        found.retain(|_, wrong| wrong.is_some());
        if count >= 3 && !found.is_empty() {
            println!("{found:#?}");
        }
        (count >= 3 && found.is_empty()).then_some(())
    });
    println!("{checked:?}");
    let measurements: BTreeSet<&str> = checked.iter().map(|(name, _)| name.as_str()).collect();
    for least in [
        "state",
        "cpu",
        "balloon",
        "vcpu_total",
        "vcpu",
        "net_total",
        "net",
        "block_total",
        "block",
    ] {
        assert!(
            measurements.contains(&*format!("libvirt_{least}")),
            "{measurements:?}"
        );
    }
    let rows = documented();
    for (measurement, field) in &checked {
        let of_it = |row: &&String| row.starts_with(&format!(" `{measurement}`:"));
        let mut rows = rows.iter().filter(of_it);
        let is_named = rows.any(|row| row.contains(&format!("`{field}`")));
        assert!(is_named, "docs/migration.md: {measurement} {field}");
    }
}
