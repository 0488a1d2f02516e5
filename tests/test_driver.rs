//! Against libvirt's test driver: every field of every measurement is what virsh says of the same
//! domain. The driver lives in each process and its device counters are the clock's, so they lie
//! between a reading before and one after; all else is equal to both.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::collections::BTreeSet;
use std::time::{Duration, Instant};
use support::lines::{Line, of, one};
use support::node::{self, Domain, disk, nic, uuid};
use support::plugin::Plugin;
use tempfile::NamedTempFile;

const ODD: &str = r#"odd, name=x "q" \b é\"#;
const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const ALL: [&str; 4] = ["vm_metrics", "vm_features", "vm_devices", "vm_totals"];

/// Domains as different as the driver allows; the last one is shut off.
fn wide() -> Vec<Domain> {
    let devices = [
        disk("disk", "vda"),
        disk("disk", "sdb"),
        disk("cdrom", "hdc"),
        disk("floppy", "fda"),
        disk("lun", "sdl"),
        nic(Some("tapa")),
        nic(Some(r#"tap,odd=1 "q" é"#)),
        nic(None),
        "<memballoon model='virtio'/>".to_owned(),
    ];
    let mut domains = vec![
        Domain {
            vcpus: (3, 5),
            memory: (3_145_728, 4_194_304),
            devices: devices.concat(),
            ..Domain::new(1, "wide")
        },
        Domain {
            state: 3,
            memory: (2048, 8192),
            devices: disk("cdrom", "hda"),
            ..Domain::new(2, ODD)
        },
        Domain {
            vcpus: (2, 2),
            devices: nic(Some("tapb")),
            ..Domain::new(3, "tabs\tand blanks ")
        },
        Domain {
            devices: disk("disk", "vda"),
            ..Domain::new(4, "日本 = 語,\\")
        },
        Domain::new(8, "no devices"),
    ];
    for (number, state) in [(12, 2), (14, 4), (16, 6), (17, 7), (15, 5)] {
        domains.push(Domain {
            state,
            ..Domain::new(number, &format!("state {state}"))
        });
    }
    domains
}

fn config(text: &str) -> NamedTempFile {
    let file = NamedTempFile::with_suffix(".toml").unwrap();
    std::fs::write(file.path(), text).unwrap();
    file
}

fn plugin(uri: &str, settings: &str) -> (Plugin, NamedTempFile) {
    let file = config(settings);
    let path = file.path().to_str().unwrap();
    let plugin = Plugin::spawn(Plugin::outside(&["--uri", uri, "--config", path]));
    (plugin, file)
}

/// One gather between two readings by virsh.
fn check(plugin: &mut Plugin, uri: &str, uuids: &[String], drives: bool) -> Vec<Line> {
    let virsh = |args: &[&str]| node::virsh(uri, args);
    let read = || -> Vec<node::Fields> {
        let all = uuids.iter().map(|uuid| node::read(&virsh, uuid, drives));
        all.collect()
    };
    let before = read();
    let lines = plugin.gather();
    let after = read();
    for ((uuid, before), after) in uuids.iter().zip(&before).zip(&after) {
        node::compare(before, &node::fields_of(&lines, uuid), after);
    }
    let seen: BTreeSet<&str> = lines.iter().map(|line| line.tag("uuid")).collect();
    let asked: BTreeSet<&str> = uuids.iter().map(String::as_str).collect();
    assert_eq!(seen, asked);
    node::totals_are_sums(&lines);
    lines
}

fn active(domains: &[Domain]) -> Vec<String> {
    let active = domains.iter().filter(|domain| domain.state != 5);
    active.map(|domain| uuid(domain.number)).collect()
}

#[test]
fn the_default_node_is_what_virsh_says() {
    let uri = "test:///default";
    let (mut plugin, _config) = plugin(uri, "");
    for _ in 0..3 {
        let lines = check(&mut plugin, uri, &[TEST.to_owned()], false);
        assert_eq!(of(&lines, "vm_devices", "test").len(), 2);
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn domains_of_every_kind_are_what_virsh_says() {
    let domains = wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut plugin, _config) = plugin(&uri, "");
    for _ in 0..2 {
        let lines = check(&mut plugin, &uri, &active(&domains), false);
        let wide = one(&lines, "vm_metrics", "wide");
        assert_eq!(wide.int("cpu_count"), Some(3));
        assert_eq!(of(&lines, "vm_devices", "wide").len(), 6);
        assert_eq!(one(&lines, "vm_totals", "wide").int("memswap_in"), Some(0));
        // No balloon device, no memory figures: missing is not zero.
        let bare = one(&lines, "vm_totals", "no devices");
        assert_eq!(bare.int("memactual"), None);
        assert_eq!(bare.int("disk_rd_req"), Some(0));
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn every_line_has_the_tags_of_its_vm() {
    let domains = wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut plugin, _config) = plugin(&uri, "");
    let lines = plugin.gather();
    for domain in domains.iter().filter(|domain| domain.state != 5) {
        let id = node::virsh(&uri, &["domid", &uuid(domain.number)]);
        // What line protocol cannot carry: the tab, and backslashes at the end.
        let name = domain.name.replace('\t', " ");
        let name = name.trim_end_matches('\\');
        let of_it: Vec<&Line> = lines
            .iter()
            .filter(|line| line.tag("uuid") == uuid(domain.number))
            .collect();
        assert!(of_it.len() > 1, "{domain:?}");
        for line in of_it {
            assert_eq!((line.tag("name"), line.tag("VMID")), (name, id.trim()));
            let tags = if line.measurement == "vm_devices" {
                5
            } else {
                3
            };
            assert_eq!(line.tags.len(), tags, "{line:?}");
        }
    }
}

#[test]
fn cdrom_and_floppy_come_when_asked_for() {
    let domains = wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut both, _config) = plugin(&uri, "cdrom = true\nfloppy = true\n");
    check(&mut both, &uri, &active(&domains), true);
    for (settings, drive) in [("cdrom = true", "hdc"), ("floppy = true", "fda")] {
        let (mut plugin, _config) = plugin(&uri, settings);
        let lines = plugin.gather();
        let disks: BTreeSet<&str> = of(&lines, "vm_devices", "wide")
            .into_iter()
            .filter(|line| line.tag("devtype") == "disk")
            .map(|line| line.tag("device"))
            .collect();
        assert_eq!(disks, BTreeSet::from(["vda", "sdb", "sdl", drive]));
        node::totals_are_sums(&lines);
    }
}

#[test]
fn device_filters_hold_for_lines_and_totals_alike() {
    let file = node::write(&wide());
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
        let (mut plugin, _config) = plugin(&uri, settings);
        let lines = plugin.gather();
        let devices: BTreeSet<&str> = of(&lines, "vm_devices", "wide")
            .into_iter()
            .map(|line| line.tag("device"))
            .collect();
        assert_eq!(devices, expected.iter().copied().collect(), "{settings}");
        node::totals_are_sums(&lines);
    }
}

#[test]
fn domain_filters_leave_nothing_of_the_others() {
    let domains = wide();
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
        let (mut plugin, _config) = plugin(&uri, settings);
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
        let (mut plugin, _config) = plugin(
            uri,
            &format!("measurements = {wanted:?}")
                .replace('{', "[")
                .replace('}', "]"),
        );
        plugin.newline();
        // Features alone have nothing to say in the first gather.
        let limit = Duration::from_secs(if wanted.len() == 1 { 1 } else { 30 });
        let mut lines = plugin.lines_within(limit);
        assert!(!lines.iter().any(|line| line.measurement == "vm_features"));
        lines.extend(plugin.gather());
        let seen: BTreeSet<&str> = lines.iter().map(|l| l.measurement.as_str()).collect();
        assert_eq!(seen, wanted);
        // And they hold what they hold otherwise.
        let count = |name| {
            lines
                .iter()
                .filter(|line| line.measurement == name)
                .map(|line| line.fields.len())
                .max()
        };
        for (name, fields) in [
            ("vm_metrics", 6),
            ("vm_features", 11),
            ("vm_devices", 8),
            ("vm_totals", 28),
        ] {
            assert_eq!(
                count(name),
                wanted.contains(name).then_some(fields),
                "{name} of {wanted:?}"
            );
        }
    }
}

#[test]
fn two_thousand_domains_come_whole_and_in_time() {
    let name = |number: u32| format!("vm{number:04}");
    let domains: Vec<Domain> = (1..=2000)
        .map(|number| Domain {
            devices: disk("disk", "vda")
                + &disk("disk", "vdb")
                + &nic(Some(&format!("tap{number}"))),
            ..Domain::new(number, &name(number))
        })
        .collect();
    let file = node::write(&domains);
    let (mut plugin, _config) = plugin(&node::uri(&file), "deadline = '10s'");
    for round in 0..2 {
        let start = Instant::now();
        let lines = plugin.gather();
        assert!(
            start.elapsed() < Duration::from_secs(12),
            "{:?}",
            start.elapsed()
        );
        for (measurement, each) in ALL.into_iter().zip([1, round, 3, 1]) {
            let all = lines.iter().filter(|line| line.measurement == measurement);
            let mut names: Vec<&str> = all.map(|line| line.tag("name")).collect();
            names.sort_unstable();
            let expected: Vec<String> = domains
                .iter()
                .flat_map(|domain| std::iter::repeat_n(domain.name.clone(), each))
                .collect();
            assert!(names == expected, "{measurement}: {} lines", names.len());
        }
        node::totals_are_sums(&lines);
    }
    assert_eq!(plugin.stderr(), "");
}
