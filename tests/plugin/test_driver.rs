//! Against libvirt's test driver: every field of every measurement equals virsh's value for the same domain.
//! Each process has a driver of its own, whose device counters follow the clock, so they lie between a
//! reading before and one after; everything else equals both.

use crate::support::lines::{Line, of, one};
use crate::support::node::{self, Domain, disk, nic, uuid};
use crate::support::plugin::Plugin;
use crate::support::reading;
use std::time::{Duration, Instant};

const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";
const ALL: [&str; 4] = ["vm_metrics", "vm_features", "vm_devices", "vm_totals"];

#[test]
fn the_default_node_is_what_virsh_says() {
    let uri = "test:///default";
    let (mut plugin, _config) = Plugin::configured(uri, "");
    let virsh = |args: &[&str]| reading::virsh(uri, args);
    for _ in 0..3 {
        let lines = reading::gather_between(&mut plugin, &virsh, &[TEST.to_owned()], false);
        assert_eq!(of(&lines, "vm_devices", "test").len(), 2);
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn domains_of_every_kind_are_what_virsh_says() {
    let domains = node::wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut plugin, _config) = Plugin::configured(&uri, "");
    let virsh = |args: &[&str]| reading::virsh(&uri, args);
    for _ in 0..2 {
        let lines = reading::gather_between(&mut plugin, &virsh, &node::active(&domains), false);
        let wide = one(&lines, "vm_metrics", "wide");
        assert_eq!(wide.int("cpu_count"), Some(3));
        assert_eq!(of(&lines, "vm_devices", "wide").len(), 6);
        assert_eq!(one(&lines, "vm_totals", "wide").int("memswap_in"), Some(0));
        // Without a balloon device there are no memory figures: a missing value is not zero.
        let bare = one(&lines, "vm_totals", "no devices");
        assert_eq!(bare.int("memactual"), None);
        assert_eq!(bare.int("disk_rd_req"), Some(0));
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn every_line_has_the_tags_of_its_vm() {
    let domains = node::wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let (mut plugin, _config) = Plugin::configured(&uri, "");
    let lines = plugin.gather();
    for domain in domains.iter().filter(|domain| domain.state != 5) {
        let id = reading::virsh(&uri, &["domid", &uuid(domain.number)]);
        // Line protocol cannot carry the tab, nor backslashes at the end.
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
fn devices_whose_names_become_the_same_are_two_all_the_same() {
    let devices = [
        nic(Some(r"tap\")),
        nic(Some("tap")),
        nic(Some("tap-2")),
        nic(Some(r"tap\\")),
        disk("disk", "vda"),
        disk("disk", "vdb"),
    ];
    let domain = Domain {
        devices: devices.concat(),
        ..Domain::new(1, "alike")
    };
    let file = node::write(&[domain]);
    let (mut plugin, _config) = Plugin::configured(&node::uri(&file), "");
    for _ in 0..2 {
        let lines = plugin.gather();
        let of_it = of(&lines, "vm_devices", "alike").into_iter();
        let found: Vec<(&str, &str)> = of_it
            .map(|line| (line.tag("devtype"), line.tag("device")))
            .collect();
        let expected = [
            ("nic", "tap-3"),
            ("nic", "tap"),
            ("nic", "tap-2"),
            ("nic", "tap-4"),
            ("disk", "vda"),
            ("disk", "vdb"),
        ];
        assert_eq!(found, expected);
        reading::totals_are_sums(&lines);
    }
    assert_eq!(plugin.stderr(), "");
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
    let (mut plugin, _config) = Plugin::configured(&node::uri(&file), "deadline = '10s'");
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
        reading::totals_are_sums(&lines);
    }
    assert_eq!(plugin.stderr(), "");
}
