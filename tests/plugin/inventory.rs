//! What is asked beside the gather, from libvirt's test driver.

use crate::support::lines::{self, Line};
use crate::support::node::{self, uuid};
use crate::support::plugin::Plugin;
use crate::support::{config, reading, run, told, wait_for};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// Gathers until what is asked beside the VMs is there: on a busy host it may come in the next gather.
fn until(plugin: &mut Plugin, is_there: impl Fn(&[Line]) -> bool) -> Vec<Line> {
    wait_for("the lines", LONG, || {
        let found = plugin.gather();
        is_there(&found).then_some(found)
    })
}

fn host(lines: &[Line]) -> Option<&Line> {
    lines.iter().find(|line| line.measurement == "vm_host")
}

#[test]
fn the_host_is_the_sum_of_its_vms_and_shut_off_ones_have_lines() {
    let domains = node::wide();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    let settings = "inactive = true\n\
        measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector', 'vm_host']\n";
    let (mut plugin, _config) = Plugin::configured(&uri, settings);
    for _ in 0..3 {
        let found = until(&mut plugin, |found| {
            host(found).is_some_and(|line| line.fields.contains_key("vms_shutoff"))
        });
        lines::host_adds_up(&found);
        let host = host(&found).unwrap();
        assert!(host.fields.len() > 30, "{host:?}");
        let states = host.fields.keys().filter(|field| field.starts_with("vms_"));
        let states: i64 = states.map(|field| host.int(field).unwrap()).sum();
        assert_eq!(states, domains.len() as i64);
        assert_eq!(host.tags.keys().collect::<Vec<_>>(), ["uri"]);
        let mut count = 0;
        for domain in domains.iter().filter(|domain| domain.state == 5) {
            count += 1;
            let its = |line: &&Line| line.tags.get("uuid") == Some(&uuid(domain.number));
            let its: Vec<&Line> = found.iter().filter(its).collect();
            let [line] = its[..] else {
                panic!("{its:?}");
            };
            let place = (line.measurement.as_str(), line.tag("VMID"));
            assert_eq!(place, ("vm_metrics", "-"));
            let info = reading::virsh(&uri, &["dominfo", &uuid(domain.number)]);
            let value = |key: &str| {
                let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
                let value = pairs.find(|(known, _)| *known == key).unwrap().1;
                value.trim().trim_end_matches(" KiB").parse().ok()
            };
            assert_eq!(line.int("cpu_count"), value("CPU(s)"));
            assert_eq!(line.int("memory_max_kb"), value("Max memory"));
        }
        assert!(count > 0, "a node with a VM that is off");
        assert_eq!(host.int("vms_shutoff"), Some(count));
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn without_totals_the_host_has_the_same_sums() {
    let settings = "measurements = ['vm_host', 'vm_collector']\n";
    let (mut plugin, _config) = Plugin::configured("test:///default", settings);
    let found = until(&mut plugin, |found| host(found).is_some());
    assert_eq!(found.len(), 1);
    let host = host(&found).unwrap();
    for field in ["net_rxbytes", "disk_rd_bytes", "memrss", "cputime"] {
        let value = host.int(field);
        assert!(value.is_some_and(|value| value > 0), "{field}: {host:?}");
    }
    assert_eq!(host.int("vms_running"), Some(1));
    assert_eq!(host.int("vms_shutoff"), None, "not asked for");
}

#[test]
fn pools_alone_are_something_to_write() {
    let config = config("measurements = ['vm_pools']\n");
    let config = config.path().to_str().unwrap();
    let uri = "test:///default";
    wait_for("the pool's line", LONG, || {
        let arguments = ["--uri", uri, "--once", "--config", config];
        let (code, out, err) = told(&run(&mut Plugin::outside(&arguments)));
        assert_eq!((code, err.as_str()), (Some(0), ""));
        let line = lines::lines(&out).pop()?;
        assert_eq!(line.measurement, "vm_pools");
        let tags = (line.tag("pool"), line.tag("type"));
        assert_eq!(tags, ("default-pool", "dir"));
        assert_eq!(line.text("state"), Some("running"));
        Some(())
    });
}
