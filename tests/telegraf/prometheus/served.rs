//! What a real Prometheus gets of the shipped stanza: names, types and labels, the end of a VM, and the first alert.

use super::server::Prometheus;
use super::{blocks, in_seconds, read, rules, stanza, telegraf};
use crate::agent::LIMIT;
use crate::support::lab::Lab;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{succeed, turn, wait_for};
use std::collections::BTreeMap;
use std::time::Instant;

const FETCH: &str = "import urllib.request as u
print(u.urlopen('http://127.0.0.1:9273/metrics').read().decode())";

/// What Telegraf serves.
fn served(lab: &Lab) -> String {
    succeed(lab.command("python3").args(["-c", FETCH]))
}

/// Name of each series' family -> its type.
fn types(served: &str) -> BTreeMap<String, String> {
    let lines = served
        .lines()
        .filter_map(|line| line.strip_prefix("# TYPE "));
    let pair = |line: &str| {
        let (name, kind) = line.split_once(' ').unwrap();
        (name.to_owned(), kind.to_owned())
    };
    let mut types = BTreeMap::new();
    for (name, kind) in lines.map(pair) {
        let old = types.insert(name.clone(), kind);
        assert_eq!(old, None, "{name} has two types");
    }
    types
}

/// The numeric fields that docs/metrics.md has in its tables: measurement and field.
fn documented() -> Vec<(String, String)> {
    let page = read("docs/metrics.md");
    let mut fields = Vec::new();
    for section in page
        .split("\n## ")
        .filter(|section| section.starts_with("vm_"))
    {
        let (measurement, text) = section.split_once('\n').unwrap();
        for row in text.lines().filter(|line| line.starts_with("| ")) {
            let cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            let Some(place) = cells
                .iter()
                .take(3)
                .position(|cell| ["i", "f"].contains(cell))
            else {
                continue;
            };
            for field in cells[place - 1].split(", ") {
                fields.push((measurement.to_owned(), field.to_owned()));
            }
        }
    }
    fields
}

/// The fields that the page's table calls counters.
fn counters() -> Vec<(String, String)> {
    let page = read("docs/prometheus.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| `vm_"));
    let mut counters = Vec::new();
    for row in rows {
        let (measurement, fields) = row.split_once("` | ").unwrap();
        for field in fields
            .trim_end_matches(" |")
            .split(", ")
            .filter(|field| *field != "none")
        {
            counters.push((format!("vm_{measurement}"), field.to_owned()));
        }
    }
    counters
}

/// An input that has all of these fields each time.
fn input(lab: &Lab, fields: &[(String, String)]) -> String {
    let mut by_measurement: BTreeMap<&str, Vec<String>> = BTreeMap::new();
    for (measurement, field) in fields {
        let of_it = by_measurement.entry(measurement).or_default();
        of_it.push(format!("{field}=0i"));
    }
    let line = |(measurement, fields): (&str, Vec<String>)| {
        format!(
            "{measurement},host=other,name=all {},text=\"a\"\n",
            fields.join(",")
        )
    };
    let text: String = by_measurement.into_iter().map(line).collect();
    let file = lab.dir().join("all-fields");
    std::fs::write(&file, text).unwrap();
    let command = format!("while read -r _; do cat {}; done", file.display());
    format!(
        "[[inputs.execd]]\ncommand = [\"sh\", \"-c\", {command:?}]\nsignal = \"STDIN\"\ndata_format = \"influx\"\n"
    )
}

/// The page's configuration of Prometheus, which asks the lab's Telegraf each second.
pub(super) fn configuration(lab: &Lab, rules: &str) -> String {
    let file = lab.dir().join("rules.yml");
    std::fs::write(&file, rules).unwrap();
    let text = blocks("yaml").remove(0);
    let mut lines = Vec::new();
    for line in text.lines() {
        let (indent, line) = line.split_at(line.len() - line.trim_start().len());
        lines.push(match line.split_once(' ') {
            Some((key @ ("scrape_interval:" | "evaluation_interval:"), "15s")) => {
                format!("{indent}{key} 1s")
            }
            Some(("-", path)) if path.ends_with(".yml") => format!("{indent}- {}", file.display()),
            Some(("-", targets)) if targets.starts_with("targets:") => {
                format!("{indent}- targets: [\"127.0.0.1:9273\"]")
            }
            _ => format!("{indent}{line}"),
        });
    }
    let text = lines.join("\n");
    let replaced = [" 1s", file.to_str().unwrap(), "127.0.0.1:9273"];
    assert!(replaced.iter().all(|part| text.contains(part)), "{text}");
    text
}

/// A VM with a disk and an interface, which uses no processor time.
fn still<'lab>(lab: &'lab Lab, name: &str) -> Vm<'lab> {
    lab.create(&VmSpec {
        name: name.into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    })
}

#[test]
fn prometheus_gets_every_figure_with_its_type_and_says_that_a_vm_is_frozen() {
    let _turn = turn::share();
    let lab = Lab::start();
    let (web, db) = (still(&lab, "web"), still(&lab, "db"));
    let documented = documented();
    assert!(documented.len() > 150, "{}", documented.len());
    let extra = stanza(4) + &input(&lab, &documented);
    let telegraf = telegraf(&lab, "kvm01", &[], &extra);
    telegraf.wait_for_log("Listening on");
    let yaml = configuration(&lab, &in_seconds(&rules()));
    let prometheus = Prometheus::start(&lab, &yaml, &[]);
    // Prometheus has scraped both hosts.
    wait_for("all figures", LIMIT, || {
        let hosts = prometheus.query("count by (host) (vm_features_cpu_usage_percent)");
        (hosts.len() == 2).then_some(())
    });

    let text = served(&lab);
    let types = types(&text);
    let counters = counters();
    for (measurement, field) in &documented {
        let kind = types.get(&format!("{measurement}_{field}"));
        // Its lines are dropped.
        if measurement == "vm_info" {
            assert_eq!(kind, None, "{measurement}_{field}");
            continue;
        }
        let is_counter = counters.contains(&(measurement.clone(), field.clone()));
        let expected = if is_counter { "counter" } else { "gauge" };
        assert_eq!(
            kind.map(String::as_str),
            Some(expected),
            "{measurement}_{field}"
        );
    }
    for counter in &counters {
        assert!(
            documented.contains(counter),
            "{counter:?} is no documented field"
        );
    }
    // No text became a label or a value.
    let state = format!(
        ",host=\"kvm01\",name=\"{}\",uuid=\"{}\"}} 3",
        web.name(),
        web.uuid()
    );
    let mut states = text
        .lines()
        .filter(|line| line.starts_with("vm_totals_state{VMID="));
    assert!(
        states.any(|line| line.ends_with(&state)),
        "no {state} in:\n{text}"
    );
    assert!(!text.contains("text=") && !text.contains("_text"), "{text}");

    // A frozen VM. What else may be pending on a busy host (a slow gather, steal, the call
    // that finds the frozen VM) is no matter of this test. The other host has a 0 in every field, also where that is trouble.
    let alerts = || {
        let mut alerts = prometheus.alerts();
        alerts.retain(|alert| alert.host == "kvm01" && alert.alert == "KvmVmFrozen");
        alerts
    };
    assert_eq!(alerts(), []);
    web.freeze();
    let frozen = wait_for("the alert", LIMIT, || {
        let alerts = alerts();
        let fires = alerts.iter().any(|alert| alert.state == "firing");
        fires.then_some(alerts)
    });
    assert!(frozen.iter().all(|alert| alert.name == web.name()));
    let summary = frozen.iter().find(|alert| alert.key == "summary").unwrap();
    assert_eq!(
        summary.text,
        format!("{} on kvm01 does not answer", web.name())
    );
    web.thaw();

    // The end of a VM: its last line, then nothing.
    let of_db = format!("{{uuid=\"{}\"}}", db.uuid());
    db.destroy();
    let start = Instant::now();
    let state = |query: &str| prometheus.query(query).first().map(|(_, value)| *value);
    wait_for("the last line", LIMIT, || {
        (state(&format!("vm_totals_state{of_db}")) == Some(5.0)).then_some(())
    });
    println!("the last line: {:?}", start.elapsed());
    // Everything else of the VM lingers beside it.
    assert!(state(&format!("vm_metrics_cpu_count{of_db}")).is_some());
    let pages = blocks("promql").concat();
    for query in pages.lines().filter(|line| !line.is_empty()) {
        let rows = prometheus.query(query);
        assert!(!rows.is_empty(), "no row for {query}");
        // 16 MiB of the VM that is still there; the other one lingers.
        if query.starts_with("sum by (host)") {
            let of_host = rows.iter().find(|(labels, _)| labels["host"] == "kvm01");
            assert_eq!(of_host.unwrap().1, f64::from(16 << 20), "{rows:?}");
        }
    }
    wait_for("the series to end", LIMIT, || {
        state(&format!(
            "count({{__name__=~\"vm_.*\",uuid=\"{}\"}})",
            db.uuid()
        ))
        .is_none()
        .then_some(())
    });
    println!("nothing more: {:?}", start.elapsed());
    assert_eq!(
        state(&format!(
            "last_over_time(vm_totals_state_reason{of_db}[1h])"
        )),
        Some(2.0)
    );
    wait_for("the end of the alert", LIMIT, || {
        alerts().is_empty().then_some(())
    });
    assert!(!telegraf.log().contains("E!"), "{}", telegraf.log());
}
