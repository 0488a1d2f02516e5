//! What the configuration excludes is excluded everywhere, and nothing else is.

use crate::support::lines::of;
use crate::support::plugin::Plugin;
use crate::support::{node, reading};
use std::collections::BTreeSet;
use std::time::Duration;

const ALL: [&str; 4] = ["vm_metrics", "vm_features", "vm_devices", "vm_totals"];

#[test]
fn cdrom_and_floppy_come_when_asked_for() {
    let domains = node::wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut both, _config) = Plugin::configured(&uri, "cdrom = true\nfloppy = true\n");
    let virsh = |args: &[&str]| reading::virsh(&uri, args);
    reading::gather_between(&mut both, &virsh, &node::active(&domains), true);
    for (settings, drive) in [("cdrom = true", "hdc"), ("floppy = true", "fda")] {
        let (mut plugin, _config) = Plugin::configured(&uri, settings);
        let lines = plugin.gather();
        let disks: BTreeSet<&str> = of(&lines, "vm_devices", "wide")
            .into_iter()
            .filter(|line| line.tag("devtype") == "disk")
            .map(|line| line.tag("device"))
            .collect();
        assert_eq!(disks, BTreeSet::from(["vda", "sdb", "sdl", drive]));
        reading::totals_are_sums(&lines);
    }
}

#[test]
fn device_filters_hold_for_lines_and_totals_alike() {
    let file = node::write(&node::wide());
    let uri = node::uri(&file);
    let cases: [(&str, &[&str]); 4] = [
        (
            "device_include = ['tap*', 'vd?']",
            &["tapa", "tap,odd=1 \"q\" é", "vda"],
        ),
        ("device_exclude = ['tap*', 'sd[bl]']", &["testnet0", "vda"]),
        (
            "device_include = ['tap*']\ndevice_exclude = ['tapa']",
            &["tap,odd=1 \"q\" é"],
        ),
        ("device_include = ['nothing']", &[]),
    ];
    for (settings, expected) in cases {
        let (mut plugin, _config) = Plugin::configured(&uri, settings);
        let lines = plugin.gather();
        let devices: BTreeSet<&str> = of(&lines, "vm_devices", "wide")
            .into_iter()
            .map(|line| line.tag("device"))
            .collect();
        assert_eq!(devices, expected.iter().copied().collect(), "{settings}");
        reading::totals_are_sums(&lines);
    }
}

#[test]
fn domain_filters_leave_nothing_of_the_others() {
    let domains = node::wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let cases: [(&str, &[&str]); 4] = [
        ("domain_include = ['wide', 'no *']", &["wide", "no devices"]),
        (
            "domain_exclude = ['[!s]*']",
            &["state 2", "state 4", "state 6", "state 7"],
        ),
        (
            "domain_include = ['state [24]']\ndomain_exclude = ['*4']",
            &["state 2"],
        ),
        (
            r#"domain_include = ['odd, name=x "q" \b é\']"#,
            &[r#"odd, name=x "q" \b é"#],
        ),
    ];
    for (settings, expected) in cases {
        let (mut plugin, _config) = Plugin::configured(&uri, settings);
        let lines = plugin.gather();
        let names: BTreeSet<&str> = lines.iter().map(|line| line.tag("name")).collect();
        assert_eq!(names, expected.iter().copied().collect(), "{settings}");
    }
}

#[test]
fn only_the_measurements_asked_for_come() {
    let uri = "test:///default";
    for wanted in 1..16_u32 {
        let bit = |(i, name): (usize, &&'static str)| (wanted & (1 << i) != 0).then_some(*name);
        let wanted: BTreeSet<&str> = ALL.iter().enumerate().filter_map(bit).collect();
        let (mut plugin, _config) = Plugin::configured(
            uri,
            &format!("measurements = {wanted:?}")
                .replace('{', "[")
                .replace('}', "]"),
        );
        plugin.newline();
        // With vm_features alone, the first gather has no lines.
        let limit = Duration::from_secs(if wanted.len() == 1 { 1 } else { 30 });
        let mut lines = plugin.lines_within(limit);
        assert!(!lines.iter().any(|line| line.measurement == "vm_features"));
        lines.extend(plugin.gather());
        let seen: BTreeSet<&str> = lines.iter().map(|l| l.measurement.as_str()).collect();
        assert_eq!(seen, wanted);
        // Their lines are the same as with all measurements.
        let count = |name| {
            lines
                .iter()
                .filter(|line| line.measurement == name)
                .map(|line| line.fields.len())
                .max()
        };
        for (name, fields) in [
            ("vm_metrics", 6),
            ("vm_features", 12),
            ("vm_devices", 8),
            ("vm_totals", 29),
        ] {
            assert_eq!(
                count(name),
                wanted.contains(name).then_some(fields),
                "{name} of {wanted:?}"
            );
        }
    }
}
