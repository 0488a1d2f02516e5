//! The test driver behind a real libvirtd and its RPC: changes by other clients show in the next gather. And
//! the calls that a gather makes, counted in the log of libvirt's client library.
//!
//! The daemon's default node exists as long as a client is connected: here, the plugin.

use crate::support;
use crate::support::lab::Lab;
use crate::support::lines::{is_last, one};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{reading, succeed, wait_for};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

const URI: &str = "test+unix:///default";
const TEST: &str = "6695eb01-f6a4-8304-79aa-97f2502e193f";

fn virsh(lab: &Lab, uri: &str, args: &[&str]) -> String {
    succeed(lab.command("virsh").args(["-q", "-c", uri]).args(args))
}

#[test]
fn what_others_change_shows_in_the_next_gather() {
    let lab = Lab::start();
    let mut plugin = Plugin::spawn(lab.plugin(&["--uri", URI]));
    let virsh = |args: &[&str]| virsh(&lab, URI, args);
    let gather = |plugin: &mut Plugin| {
        let from = Instant::now();
        let lines = reading::gather_between(plugin, &virsh, &[TEST.to_owned()], false);
        (from, lines, Instant::now())
    };
    let (first_from, lines, first_to) = gather(&mut plugin);
    let used = |lines| {
        one(lines, "vm_metrics", "test")
            .int("memory_used_kb")
            .unwrap()
    };
    let before = used(&lines);

    virsh(&["setmem", TEST, "1000000", "--live"]);
    let (from, lines, to) = gather(&mut plugin);
    assert_eq!(used(&lines), 1_000_000);
    let features = one(&lines, "vm_features", "test");
    let rate = features.float("memory_rate_kb_per_sec").unwrap();
    let moved = (1_000_000 - before) as f64;
    let (shortest, longest) = (from - first_to, to - first_from);
    let time = moved / rate;
    assert!(
        (shortest.as_secs_f64()..=longest.as_secs_f64()).contains(&time),
        "{moved} KiB at {rate} KiB/s is no time from {shortest:?} to {longest:?}"
    );
    let angle = features.float("memory_angle_deg").unwrap();
    assert!(
        (angle.to_radians().tan() / rate - 1.0).abs() < 1e-3,
        "{rate} {angle}"
    );
    assert!((-90.0..-89.9).contains(&angle), "{angle}");
    assert_eq!(features.float("cpu_usage_percent"), Some(0.0));

    virsh(&["setvcpus", TEST, "1", "--live"]);
    let (_, lines, _) = gather(&mut plugin);
    assert_eq!(one(&lines, "vm_metrics", "test").int("cpu_count"), Some(1));
    // After the number of vCPUs changed, neither CPU percentage is written.
    let features = one(&lines, "vm_features", "test");
    assert_eq!(features.float("cpu_usage_percent"), None);
    let (_, lines, _) = gather(&mut plugin);
    let features = one(&lines, "vm_features", "test");
    assert_eq!(features.float("cpu_usage_percent"), Some(0.0));

    for (command, state, reason, numbers) in [
        ("suspend", "paused", "user", (3, 1)),
        ("resume", "running", "unpaused", (1, 5)),
    ] {
        virsh(&[command, TEST]);
        let (_, lines, _) = gather(&mut plugin);
        let metrics = one(&lines, "vm_metrics", "test");
        assert_eq!(metrics.text("state"), Some(state));
        assert_eq!(metrics.text("state_reason"), Some(reason));
        let totals = one(&lines, "vm_totals", "test");
        let (word, why) = (totals.int("state"), totals.int("state_reason"));
        assert_eq!((word, why), (Some(numbers.0), Some(numbers.1)));
    }

    // After a restart of the VM, the VMID differs, and no rate is computed across the two runs.
    virsh(&["destroy", TEST]);
    // The event may come after the list.
    let last = wait_for("the last lines", Duration::from_secs(30), || {
        plugin.newline();
        let found = plugin.lines_within(Duration::from_secs(1));
        (!found.is_empty()).then_some(found)
    });
    assert!(last.len() == 2 && last.iter().all(is_last), "{last:?}");
    let metrics = one(&last, "vm_metrics", "test");
    assert_eq!((metrics.tag("VMID"), metrics.tag("uuid")), ("1", TEST));
    assert_eq!(metrics.text("state_reason"), Some("destroyed"));
    let totals = one(&last, "vm_totals", "test");
    assert_eq!(totals.int("state_reason"), Some(2));
    plugin.newline();
    assert_eq!(plugin.lines_within(Duration::from_secs(2)), [], "once only");
    virsh(&["start", TEST]);
    let (_, lines, _) = gather(&mut plugin);
    let totals = one(&lines, "vm_totals", "test");
    assert_eq!(totals.tag("VMID"), virsh(&["domid", TEST]).trim());
    assert_ne!(totals.tag("VMID"), "1");
    assert!(!lines.iter().any(|line| line.measurement == "vm_features"));
    let (_, lines, _) = gather(&mut plugin);
    one(&lines, "vm_features", "test");
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn a_domain_that_comes_and_goes_does_so_in_the_next_gather() {
    let lab = Lab::start();
    let mut plugin = Plugin::spawn(lab.plugin(&["--uri", URI]));
    let virsh = |args: &[&str]| virsh(&lab, URI, args);
    let mut uuids = vec![TEST.to_owned()];
    reading::gather_between(&mut plugin, &virsh, &uuids, false);
    let file = lab.dir().join("new.xml");
    let xml = format!(
        "<domain type='test'><name>new, one</name><uuid>{}</uuid><memory>4096</memory>\
         <vcpu>2</vcpu><os><type>hvm</type></os><devices>{}{}</devices></domain>",
        node::uuid(7),
        disk("disk", "vda"),
        nic(Some("tapnew"))
    );
    std::fs::write(&file, xml).unwrap();
    virsh(&["create", file.to_str().unwrap()]);
    uuids.push(node::uuid(7));
    let lines = reading::gather_between(&mut plugin, &virsh, &uuids, false);
    assert_eq!(
        support::lines::of(&lines, "vm_features", "new, one").len(),
        0
    );
    let lines = reading::gather_between(&mut plugin, &virsh, &uuids, false);
    one(&lines, "vm_features", "new, one");
    virsh(&["destroy", &node::uuid(7)]);
    uuids.pop();
    reading::gather_between(&mut plugin, &virsh, &uuids, false);
    assert_eq!(plugin.stderr(), "");
}

/// The number of calls of the client library, by the name of the function.
fn calls(log: &std::path::Path) -> BTreeMap<String, usize> {
    let log = std::fs::read_to_string(log).unwrap();
    let mut calls = BTreeMap::new();
    for line in log.lines() {
        // "TIME: THREAD: debug : virDomainGetXMLDesc:2581 : dom=..."
        let Some((_, rest)) = line.split_once(": debug : ") else {
            continue;
        };
        if let Some((call, _)) = rest.split_once(':') {
            *calls.entry(call.to_owned()).or_default() += 1;
        }
    }
    calls
}

/// Runs eleven gathers of a plugin of its own. Returns the number of calls of each function up to each of
/// them. `watched`: the first gather starts only after the plugin has subscribed to the daemon's events.
fn count_calls(lab: &Lab, uri: &str, vms: usize, watched: bool) -> Vec<BTreeMap<String, usize>> {
    let log = lab.dir().join("calls.log");
    let output = format!("1:file:{}", log.to_str().unwrap());
    let mut command = lab.plugin(&["--uri", uri]);
    command
        .env("LIBVIRT_DEBUG", "1")
        .env("LIBVIRT_LOG_OUTPUTS", output);
    let mut plugin = Plugin::spawn(command);
    if watched {
        wait_for(
            "the subscription to events",
            Duration::from_secs(30),
            || {
                let calls = log.exists().then(|| calls(&log))?;
                calls.get("virConnectDomainEventRegisterAny").map(|_| ())
            },
        );
        // The log shows only that the call has begun.
        std::thread::sleep(Duration::from_secs(2));
    }
    let mut counts = Vec::new();
    for _ in 0..11 {
        let lines = plugin.gather();
        let seen = lines.iter().filter(|line| line.measurement == "vm_totals");
        assert_eq!(seen.count(), vms);
        counts.push(calls(&log));
    }
    // libvirt logs some lines to stderr before it opens its log file; none of them may be the plugin's.
    let said = plugin.stderr();
    let ours = said.lines().find(|line| line.get(1..3) == Some("! "));
    assert_eq!(ours, None);
    drop(plugin);
    std::fs::remove_file(&log).unwrap();
    counts
}

#[test]
fn a_steady_host_costs_one_list_and_no_xml() {
    let lab = Lab::start();
    let domains: Vec<Domain> = (1..=20)
        .map(|number| Domain {
            devices: disk("disk", "vda") + &nic(Some("tap0")),
            ..Domain::new(number, &format!("vm{number}"))
        })
        .collect();
    let file = lab.dir().join("node.xml");
    std::fs::copy(node::write(&domains).path(), &file).unwrap();
    let uri = format!("test+unix://{}", file.to_str().unwrap());
    for (uri, vms) in [(URI, 1), (&uri, 20)] {
        let counts = count_calls(&lab, uri, vms, true);
        let count = |gather: usize, call: &str| counts[gather].get(call).copied().unwrap_or(0);
        // This shows that the log counts: in the first gather each description is read once.
        assert_eq!(count(0, "virDomainGetXMLDesc"), vms, "{:?}", counts[0]);
        for gather in 1..counts.len() {
            let new = |call: &str| count(gather, call) - count(gather - 1, call);
            assert_eq!(new("virDomainGetXMLDesc"), 0, "gather {gather}");
            assert_eq!(new("virConnectListAllDomains"), 1, "gather {gather}");
            // One call more shows whether libvirtd has a free worker.
            assert_eq!(new("virDomainGetInfo"), vms + 1, "gather {gather}");
        }

        // A description that was read before events came is read once more, as it may have changed meanwhile.
        let counts = count_calls(&lab, uri, vms, false);
        let xml: Vec<usize> = counts
            .iter()
            .map(|calls| calls["virDomainGetXMLDesc"])
            .collect();
        assert!(
            xml[10] <= 2 * vms && xml[5] == xml[10],
            "{vms} VMs: {xml:?}"
        );
    }
}
