//! Real VMs, a real Telegraf and a real InfluxDB, and the queries of docs/queries.md on these rows. All of it
//! runs in a lab, which has a network of its own, so no port of this machine is used.

use crate::agent::{self, Config, LIMIT, Telegraf, by_time};
use crate::support::influxd::{Influxd, SERVER, influx};
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value, one};
use crate::support::vm::{Nic, VmSpec, disks};
use crate::support::{sql_python, succeed, wait_for};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

/// The number of values of each field of each measurement, and their type in InfluxDB's words.
fn counted(lines: &[Line]) -> BTreeMap<(String, String), (usize, &'static str)> {
    let mut counts = BTreeMap::new();
    for line in lines {
        for (field, value) in &line.fields {
            let kind = match value {
                Value::Int(_) => "integer",
                Value::Float(_) => "float",
                Value::Text(_) => "string",
            };
            let key = (line.measurement.clone(), field.clone());
            let (count, known) = counts.entry(key).or_insert((0, kind));
            *count += 1;
            assert_eq!(*known, kind, "{field} changes its type");
        }
    }
    counts
}

/// The same, from InfluxDB.
fn stored(lab: &Lab) -> BTreeMap<(String, String), (usize, String)> {
    let mut kinds = BTreeMap::new();
    for (measurement, row) in influx(lab, "SHOW FIELD KEYS") {
        kinds.insert(
            (measurement, row["fieldKey"].clone()),
            row["fieldType"].clone(),
        );
    }
    let mut found = BTreeMap::new();
    // The measurements are queried one by one: the field state is a string in one and a number in another.
    let measurements: BTreeSet<String> = kinds.keys().map(|(name, _)| name.clone()).collect();
    let counts = measurements
        .iter()
        .flat_map(|name| influx(lab, &format!("SELECT COUNT(*) FROM {name}")));
    for (measurement, row) in counts {
        for (column, count) in row {
            let (Some(field), Ok(count)) = (column.strip_prefix("count_"), count.parse()) else {
                continue;
            };
            let key = (measurement.clone(), field.to_owned());
            let kind = kinds.remove(&key).unwrap();
            found.insert(key, (count, kind));
        }
    }
    found
}

/// Runs until there are three gathers in each of two full minutes: the rates on that page are per minute.
fn over_two_minutes(telegraf: &Telegraf) {
    let start = Instant::now();
    loop {
        let mut minutes: BTreeMap<i64, usize> = BTreeMap::new();
        for time in by_time(telegraf.out()).keys() {
            *minutes.entry(time / 60_000_000_000).or_default() += 1;
        }
        if minutes.values().filter(|gathers| **gathers >= 3).count() >= 2 {
            return;
        }
        let limit = LIMIT + Duration::from_secs(60);
        assert!(start.elapsed() < limit, "{minutes:?}\n{}", telegraf.log());
        std::thread::sleep(Duration::from_millis(200));
    }
}

#[test]
fn real_vms_by_telegraf_into_influxdb_answer_the_documented_queries() {
    let lab = Lab::start();
    let guest = lab.create(&VmSpec {
        name: "web server".into(),
        memory_mib: 96,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    });
    let odd = lab.create(&VmSpec {
        name: r#"odd, name=x "q" \b é\"#.into(),
        disks: disks(&["vda", "sdb"]),
        nics: vec![
            Nic::Named("tap,odd=1".into()),
            Nic::Named(r#"t"o=2,\b"#.into()),
        ],
        ..VmSpec::default()
    });
    let paused = lab.create(&VmSpec {
        name: "stuck".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    });
    let influxd = Influxd::start(&lab);
    guest.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    guest.guest(
        "(while :; do ping -c 1 192.168.77.1; dd if=/dev/vda of=/dev/null bs=64k count=1 iflag=direct; \
         dd if=/dev/zero of=/dev/vda bs=64k count=2 oflag=direct; sleep 1; done) \
         </dev/null >/dev/null 2>&1 &",
    );
    wait_for("the guest's memory", LIMIT, || {
        lab.domstats(guest.name())
            .contains_key("balloon.usable")
            .then_some(())
    });

    let copy = lab.dir().join("copy");
    // All measurements of figures, so that their columns are compared with those of docs/outputs.md.
    let all = lab.dir().join("all.toml");
    let measurements = "\"vm_metrics\", \"vm_features\", \"vm_devices\", \"vm_totals\", \"vm_vcpus\", \"vm_collector\"";
    std::fs::write(&all, format!("measurements = [{measurements}]\n")).unwrap();
    let mut config = Config::new(&["--config", all.to_str().unwrap()]).copied_to(&copy);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    config.extra =
        format!("[[outputs.influxdb]]\nurls = [\"http://{SERVER}\"]\ndatabase = \"telegraf\"\n");
    let toml = config.toml(lab.dir());
    let mut telegraf = Telegraf::spawn(lab.dir(), agent::command_in(&lab, &toml));
    over_two_minutes(&telegraf);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    assert!(!telegraf.log().contains("E!"), "{}", telegraf.log());

    // There are as many rows as lines, and InfluxDB has as many, field by field.
    let written = std::fs::read_to_string(&copy).unwrap();
    let out = telegraf.all_out();
    assert_eq!(out.len(), written.lines().count());
    let expected: BTreeMap<_, _> = counted(&out)
        .into_iter()
        .map(|(key, (count, kind))| (key, (count, kind.to_owned())))
        .collect();
    assert_eq!(stored(&lab), expected);
    let last = by_time(out.clone()).pop_last().unwrap().1;
    for name in [
        guest.name(),
        paused.name(),
        odd.name().strip_suffix('\\').unwrap(),
    ] {
        for measurement in ["vm_metrics", "vm_features", "vm_totals"] {
            assert_eq!(one(&last, measurement, name).tag("host"), "kvm01");
        }
    }
    let states = one(&last, "vm_metrics", paused.name());
    assert_eq!(states.text("state"), Some("paused"));

    answers(&lab, "influxql", &["--server", SERVER]);
    answers(&lab, "sql", &[]);
    drop(influxd);
}

/// Runs the documented queries in that language, and compares the results with those that plain Python
/// computes from the rows that Telegraf wrote.
fn answers(lab: &Lab, language: &str, options: &[&str]) {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    let rows = lab.dir().join("out");
    let python = |script: &str| {
        let mut command = lab.command_in_network(&sql_python());
        // No __pycache__ in the sources.
        command.arg("-B").arg(scripts.join(script)).arg(language);
        command
    };
    let got = succeed(
        python("doc_queries.py")
            .arg("--rows")
            .arg(&rows)
            .args(options),
    );
    let file = lab.dir().join(format!("{language}.json"));
    std::fs::write(&file, got).unwrap();
    succeed(python("expected_rows.py").args([&rows, &file]));
}

/// Uses rows and answers written by hand: a restart, a VM without guest memory. The script starts an influxd
/// of its own, on free ports.
#[test]
fn the_documented_queries_give_the_expected_rows_on_rows_made_by_hand() {
    let scripts = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/sql");
    for language in ["influxql", "sql"] {
        let mut command = Command::new(sql_python());
        command.arg("-B").arg(scripts.join("doc_queries.py"));
        let expected = scripts.join(format!("expected_{language}.json"));
        succeed(command.args([language, "--expect"]).arg(expected));
    }
}
