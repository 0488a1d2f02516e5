//! `--check`: what it finds, in words and as JSON; and what the log says of the start and of what is left out.
//! With real VMs: `lab/doctor.rs`.

use crate::support::lines::lines;
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{config, run, told};
use serde_json::Value;
use std::collections::BTreeSet;
use std::process::Stdio;
use tempfile::NamedTempFile;

const MARKS: [&str; 3] = ["ok       ", "note     ", "warning  "];

/// Every key of the document, with `[]` for the members of a list; they are part of the interface.
const KEYS: [&str; 69] = [
    "configuration",
    "connected",
    "error",
    "findings",
    "findings[]",
    "findings[].level",
    "findings[].message",
    "findings[].remedy",
    "findings[].subject",
    "gather",
    "gather.deadline_ms",
    "gather.first_ms",
    "gather.hanging_calls",
    "gather.not_started",
    "gather.saturated",
    "gather.last_ms",
    "host",
    "inventory",
    "inventory.inactive",
    "inventory.inactive_wanted",
    "inventory.pools",
    "inventory.pools_not_answering",
    "inventory.pools_wanted",
    "inventory.problems",
    "libvirt",
    "libvirt.client_version",
    "libvirt.connections_limited_to",
    "libvirt.daemon_version",
    "libvirt.driver",
    "libvirt.events",
    "libvirt.hypervisor_version",
    "libvirt.in_process",
    "libvirt.read_only",
    "libvirt.socket",
    "output",
    "output.fields",
    "output.limit",
    "output.lines",
    "output.metric_batch_size",
    "output.metric_buffer_limit",
    "output.series",
    "output.size_bytes",
    "output.statistics",
    "program_version",
    "storage",
    "uri",
    "uri_origin",
    "vms",
    "vms.active",
    "vms.complete",
    "vms.devices_left_out",
    "vms.devices_left_out[]",
    "vms.devices_left_out[].device",
    "vms.devices_left_out[].reason",
    "vms.devices_left_out[].vm",
    "vms.filtered",
    "vms.guest_memory_wanted",
    "vms.locked",
    "vms.missing",
    "vms.not_answering",
    "vms.partial",
    "vms.problems",
    "vms.running",
    "vms.state_and_network_only",
    "vms.wanted",
    "vms.withheld",
    "vms.without_disks",
    "vms.without_guest_memory",
    "vms.without_guest_memory[]",
];

#[test]
fn where_no_guest_runs_none_is_said_to_report_its_memory() {
    let paused = Domain {
        state: 3,
        ..Domain::new(1, "paused")
    };
    let file = node::write(&[paused]);
    let (_, out, _) = check(&node::uri(&file), "", false);
    assert!(
        out.contains("ok       guest memory    no guest runs\n"),
        "{out}"
    );
}

fn check(uri: &str, settings: &str, json: bool) -> (Option<i32>, String, String) {
    let config = config(settings);
    let config = config.path().to_str().unwrap();
    let json: &[&str] = if json { &["--json"] } else { &[] };
    let args = [&["--uri", uri, "--config", config, "--check"], json].concat();
    told(&run(Plugin::outside(&args).stdin(Stdio::null())))
}

/// The document; panics if there is anything else on stdout.
fn document(uri: &str, settings: &str) -> Value {
    let (code, out, err) = check(uri, settings, true);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    serde_json::from_str(&out).unwrap_or_else(|error| panic!("{error}: {out}"))
}

fn keys(value: &Value, path: &str, all: &mut BTreeSet<String>) {
    match value {
        Value::Object(members) => {
            for (key, member) in members {
                let dot = if path.is_empty() { "" } else { "." };
                let path = format!("{path}{dot}{key}");
                all.insert(path.clone());
                keys(member, &path, all);
            }
        }
        Value::Array(members) => {
            for member in members {
                let path = format!("{path}[]");
                all.insert(path.clone());
                keys(member, &path, all);
            }
        }
        _ => {}
    }
}

fn levels(document: &Value, subject: &str) -> Vec<String> {
    let findings = document["findings"].as_array().unwrap().iter();
    let findings = findings.filter(|finding| finding["subject"] == subject);
    findings
        .map(|finding| finding["level"].as_str().unwrap().to_owned())
        .collect()
}

/// Three VMs, one with a CD-ROM drive.
fn domains() -> Vec<Domain> {
    let with = |number, name: &str, devices: String| Domain {
        devices,
        ..Domain::new(number, name)
    };
    vec![
        with(
            1,
            "web",
            disk("disk", "vda") + &disk("disk", "vdb") + &nic(Some("tapa")),
        ),
        with(2, "db", disk("disk", "vda") + &disk("cdrom", "hdc")),
        with(3, "old", nic(Some("tapb"))),
    ]
}

#[test]
fn it_reads_as_aligned_lines_with_a_mark_each() {
    let (code, out, err) = check("test:///default", "", false);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let (head, findings) = out.split_once("\n\n").unwrap();
    let head: Vec<&str> = head.lines().collect();
    assert!(head[0].starts_with("configuration: "), "{out}");
    assert_eq!(head[1], "URI: test:///default (from --uri)");
    assert_eq!(head[2..], ["connected: 1 active VM"]);
    for line in findings.lines() {
        assert!(line.chars().count() <= 100, "{line}");
        let begins = MARKS.iter().any(|mark| line.starts_with(mark));
        assert!(begins || line.starts_with(&" ".repeat(25)), "{line}");
    }
    for words in [
        "ok       libvirt         in this process, version ",
        "driver TEST",
        "no daemon: the driver runs in this process, read-only",
        "ok       VMs             1 VM, all with full figures",
        " bytes a gather\n",
        "metric_batch_size = 1000, metric_buffer_limit = 10000",
        "the deadline is 8 s",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

#[test]
fn the_document_has_these_keys() {
    let file = node::write(&domains());
    let document = document(&node::uri(&file), "");
    let mut found = BTreeSet::new();
    keys(&document, "", &mut found);
    let expected = KEYS.iter();
    let expected: BTreeSet<String> = expected.map(|key| (*key).to_owned()).collect();
    assert_eq!(found, expected);
    assert_eq!(document["program_version"], env!("CARGO_PKG_VERSION"));
    assert_eq!(document["connected"], true);
    assert_eq!(document["libvirt"]["driver"], "TEST");
    assert_eq!(document["libvirt"]["read_only"], true);
    assert_eq!(document["vms"]["complete"], 3);
    assert!(document["gather"]["last_ms"].is_number());
    assert_eq!(levels(&document, "VMs"), ["ok"]);
}

/// What is counted is what a running program writes in its second gather.
#[test]
fn what_it_counts_is_what_is_written() {
    let file = node::write(&domains());
    let uri = node::uri(&file);
    let settings =
        "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals']\ncdrom = true";
    let document = document(&uri, settings);
    let (mut plugin, _config) = Plugin::configured(&uri, settings);
    plugin.gather();
    let before = plugin.stdout().len();
    plugin.gather();
    let text = plugin.stdout()[before..].to_owned();
    let written = lines(&text);
    let series = written.iter().map(|line| (&line.measurement, &line.tags));
    let fields = written.iter().map(|line| line.fields.len());
    let output = &document["output"];
    assert_eq!(output["lines"], written.len());
    assert_eq!(output["fields"], fields.sum::<usize>());
    assert_eq!(output["series"], series.collect::<BTreeSet<_>>().len());
    // The numbers that are written differ in length.
    let bytes = output["size_bytes"].as_u64().unwrap() as usize;
    assert!(bytes.abs_diff(text.len()) < text.len() / 5, "{bytes}");
}

#[test]
fn what_is_left_out_is_named_with_what_would_change_it() {
    let file = node::write(&domains());
    let uri = node::uri(&file);
    let settings = "domain_exclude = ['w*']\ndevice_exclude = ['tapb']";
    let (_, out, _) = check(&uri, settings, false);
    for words in [
        "connected: 3 active VMs, 2 of them pass the name filter\n",
        "left out by name: tapb of old",
        "-> check device_include and device_exclude",
        "CD-ROM drives are left out: hdc of db",
        "-> cdrom = true writes them",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
    let document = document(&uri, settings);
    let left_out = document["vms"]["devices_left_out"].as_array().unwrap();
    let reasons: Vec<&str> = left_out
        .iter()
        .map(|d| d["reason"].as_str().unwrap())
        .collect();
    assert_eq!(reasons, ["cdrom", "filtered"]);
    assert_eq!(left_out[0]["vm"], "db");
    assert_eq!(document["vms"]["active"], 3);
    assert_eq!(document["vms"]["wanted"], 2);
    assert_eq!(document["vms"]["filtered"][0], "web");

    let (code, out, _) = check(&uri, "domain_include = ['nothing']", false);
    assert_eq!(code, Some(0));
    for words in [
        "no active VM passes the name filter",
        "-> check domain_include",
    ] {
        assert!(out.contains(words), "{words}: {out}");
    }
}

/// 300 VMs with a disk and a network interface each.
fn many_vms() -> NamedTempFile {
    let vm = |number| Domain {
        devices: disk("disk", "vda") + &nic(Some("tap0")),
        ..Domain::new(number, &format!("vm{number}"))
    };
    node::write(&(1..=300).map(vm).collect::<Vec<_>>())
}

#[test]
fn many_vms_need_larger_batches() {
    let file = many_vms();
    let uri = node::uri(&file);
    let settings = "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals']";
    let output = &document(&uri, settings)["output"];
    assert_eq!(output["lines"], 1500);
    assert_eq!(output["metric_batch_size"], 1500);
    assert_eq!(output["metric_buffer_limit"], 90_000);
    let (_, out, _) = check(&uri, settings, false);
    assert!(out.contains("note     Telegraf "), "{out}");
    assert!(
        out.contains("-> set both in Telegraf's [agent] table"),
        "{out}"
    );
}

/// The lines of vm_info are due in the first gather, those of vm_features from the second on, and at times all of them.
#[test]
fn a_batch_holds_a_gather_in_which_all_measurements_are_due() {
    let file = many_vms();
    let uri = node::uri(&file);
    let all = "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_info']";
    let output = &document(&uri, all)["output"];
    assert_eq!(output["lines"], 2400);
    assert_eq!(output["series"], 2400);
    assert_eq!(output["metric_batch_size"], 2400);
    assert_eq!(output["metric_buffer_limit"], 144_000);
    // Each line has a name of some 10 bytes, a UUID of 36 and a timestamp of 19.
    assert!(
        output["size_bytes"].as_u64().unwrap() > 2400 * 70,
        "{output}"
    );
    // What a limit takes out is not among them.
    let capped = &document(&uri, &format!("{all}\nmax_lines = 2000"))["output"];
    assert_eq!(
        (&capped["lines"], &capped["limit"]["lines_dropped"]),
        (&1500.into(), &900.into())
    );
    assert_eq!(capped["metric_batch_size"], 1500);
    let share = |document: &Value, key: &str| document[key].as_u64().unwrap();
    assert!(share(capped, "fields") < share(output, "fields"));
    assert!(share(capped, "size_bytes") + 900 * 70 < share(output, "size_bytes"));
}

#[test]
fn what_cannot_connect_is_a_document_too_and_exit_code_1() {
    let uri = "qemu+unix:///system?socket=/no/such/socket&name=esx%3A%2F%2Fu%3Asecret%40h";
    let (code, out, err) = check(uri, "", true);
    assert_eq!(code, Some(1));
    assert!(err.starts_with("E! cannot reach libvirt"), "{err}");
    assert_eq!(err.lines().count(), 1, "{err}");
    let document: Value = serde_json::from_str(&out).unwrap();
    assert_eq!(document["connected"], false);
    let error = document["error"].as_str().unwrap();
    assert!(error.contains("/no/such/socket"), "{error}");
    assert!(error.contains("systemctl start"), "the remedy: {error}");
    assert!(
        document["vms"].is_null() && !out.contains("secret"),
        "{out}"
    );
}

#[test]
fn names_end_no_line_and_turn_none() {
    let domain = Domain {
        devices: nic(Some("tapa")),
        ..Domain::new(1, "a\u{202e}b")
    };
    let file = node::write(&[domain]);
    let (code, out, _) = check(&node::uri(&file), "", false);
    assert_eq!(code, Some(0));
    assert!(out.contains("not reported by 1 VM: a b\n"), "{out}");
}

#[test]
fn json_alone_is_a_mistake() {
    let (code, _, err) = told(&run(&mut Plugin::outside(&["--json"])));
    assert_eq!(code, Some(2));
    assert!(err.contains("give --check as well"), "{err}");
}

#[test]
fn the_start_is_one_line_of_the_log() {
    let start = |log: &str| -> Vec<String> {
        let lines = log.lines().filter(|line| line.starts_with("I! libvirt "));
        lines.map(str::to_owned).collect()
    };
    let file = node::write(&domains());
    let uri = node::uri(&file);
    let (mut plugin, _config) = Plugin::configured(&uri, "domain_exclude = ['old']");
    plugin.gather();
    plugin.gather();
    let said = start(&plugin.whole_log());
    assert_eq!(said.len(), 1, "{said:?}");
    let version = said[0].strip_prefix("I! libvirt ").unwrap();
    assert!(
        version.starts_with(|c: char| c.is_ascii_digit()),
        "{said:?}"
    );
    assert!(
        said[0].contains(&format!(" at {uri} (from --uri): ")),
        "{said:?}"
    );
    assert!(
        said[0].ends_with("3 active VMs, 2 of them pass the name filter"),
        "{said:?}"
    );
    assert_eq!(plugin.stderr(), "");
    let once = run(Plugin::outside(&["--uri", &uri, "--once"]).stdin(Stdio::null()));
    assert_eq!(told(&once).2, "", "a single gather has no start");
}

#[test]
fn what_is_left_out_is_logged_at_debug_when_it_changes() {
    let file = node::write(&domains());
    let uri = node::uri(&file);
    let settings = "log_level = 'debug'\ndomain_exclude = ['w*']\ndevice_exclude = ['tapb']";
    let (mut plugin, _config) = Plugin::configured(&uri, settings);
    for _ in 0..3 {
        plugin.gather();
    }
    let log = plugin.whole_log();
    for line in [
        "D! VMs left out by domain_include and domain_exclude: web\n",
        "D! devices left out by device_include and device_exclude: tapb of old\n",
        "D! CD-ROM drives left out, which cdrom = true writes: hdc of db\n",
        "D! VMs whose guest reports no memory (virsh dommemstat VM --period 5 --live turns it on): db, old\n",
    ] {
        assert_eq!(log.matches(line).count(), 1, "{line}: {log}");
    }
}
