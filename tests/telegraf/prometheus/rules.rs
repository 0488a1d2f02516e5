//! The rules by promtool, and what docs/prometheus.md says of them.

use super::{here, read, rules};
use crate::support::{program, succeed};
use std::collections::BTreeSet;
use std::process::Command;

/// One alert: its name, and its part of rules.yml.
pub(super) fn alerts(rules: &str) -> Vec<(String, String)> {
    let parts = rules.split("- alert: ").skip(1);
    let one = |part: &str| {
        // A group or a comment that follows belongs to the next one.
        let (name, rest) = part.split_once('\n').unwrap();
        (name.to_owned(), rest.to_owned())
    };
    parts.map(one).collect()
}

/// The value of a key that stands on one line.
fn value<'a>(alert: &'a str, key: &str) -> Option<&'a str> {
    alert.lines().find_map(|line| {
        let value = line.trim_start().strip_prefix(key)?;
        value.strip_prefix(": ")
    })
}

#[test]
fn promtool_accepts_the_rules_and_their_unit_tests_pass() {
    let promtool = || Command::new(program("promtool"));
    let file = |name| here("telegraf/prometheus").join(name);
    succeed(promtool().args(["check", "rules"]).arg(file("rules.yml")));
    succeed(
        promtool()
            .args(["test", "rules"])
            .arg(file("rules_test.yml")),
    );
}

#[test]
fn each_alert_has_a_case_in_which_it_fires_and_one_in_which_it_does_not() {
    let tests = read("telegraf/prometheus/rules_test.yml");
    let (mut fires, mut does_not) = (BTreeSet::new(), BTreeSet::new());
    for part in tests.split("expr: ").skip(1) {
        let Some((_, rest)) = part.split_once("ALERTS{alertname=\"") else {
            continue;
        };
        let (name, rest) = rest.split_once('"').unwrap();
        let samples = rest
            .split_once("exp_samples: ")
            .or(rest.split_once("exp_samples:\n"));
        let samples = samples
            .unwrap_or_else(|| panic!("{name} without exp_samples"))
            .1;
        if samples.starts_with("[]") {
            does_not.insert(name.to_owned());
        } else {
            assert!(
                rest.contains("alertstate=\"firing\"") || fires.contains(name),
                "{name}"
            );
            fires.insert(name.to_owned());
        }
    }
    let all: BTreeSet<_> = alerts(&rules()).into_iter().map(|(name, _)| name).collect();
    assert!(all.len() > 15, "{all:?}");
    assert_eq!((&fires, &does_not), (&all, &all));
}

#[test]
fn each_alert_says_its_severity_and_what_to_do() {
    for (name, alert) in alerts(&rules()) {
        let severity = value(&alert, "labels").unwrap();
        let known = ["critical", "warning", "info"].map(|word| format!("{{severity: {word}}}"));
        assert!(
            known.iter().any(|known| known == severity),
            "{name}: {severity}"
        );
        for key in ["summary", "description", "remedy"] {
            assert!(value(&alert, key).is_some(), "{name} has no {key}");
        }
    }
}

#[test]
fn the_page_has_every_alert_with_its_severity_and_time_and_every_recorded_name() {
    let page = read("docs/prometheus.md");
    let rows = page.lines().filter_map(|line| line.strip_prefix("| Kvm"));
    let rows: Vec<Vec<&str>> = rows
        .map(|row| {
            row.trim_end_matches('|')
                .split(" | ")
                .map(str::trim)
                .collect()
        })
        .collect();
    let rules = rules();
    let alerts = alerts(&rules);
    assert_eq!(rows.len(), alerts.len(), "{rows:?}");
    for (row, (name, alert)) in rows.iter().zip(&alerts) {
        let severity = value(alert, "labels").unwrap();
        let severity = severity
            .trim_start_matches("{severity: ")
            .trim_end_matches('}');
        let time = value(alert, "for").unwrap_or("at once");
        assert_eq!(
            [&format!("Kvm{}", row[0]), row[2], row[3]],
            [name, severity, time]
        );
    }
    for name in rules
        .lines()
        .filter_map(|line| line.trim().strip_prefix("- record: "))
    {
        assert!(page.contains(&format!("`{name}`")), "no {name} on the page");
    }
}

#[test]
fn the_page_shows_the_shipped_stanza() {
    let page = read("docs/prometheus.md");
    let stanza = read("telegraf/prometheus/telegraf-prometheus.conf");
    assert!(
        page.contains(&format!("```toml\n{stanza}```\n")),
        "docs/prometheus.md differs from telegraf/prometheus/telegraf-prometheus.conf"
    );
}
