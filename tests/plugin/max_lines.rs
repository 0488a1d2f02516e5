//! The key `max_lines`: whole kinds of lines are left out, counted, and named once in the log.

use crate::support::lines::{Line, all_lines};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{config, run, told, without_start};
use serde_json::{Value, json};
use std::process::Stdio;
use tempfile::NamedTempFile;

/// The lines of a gather: one of each VM in vm_metrics, vm_totals and, from the second gather on, vm_features.
const VMS: usize = 40;
const DEVICES: usize = 3 * VMS;
/// A VM and its devices.
const INFO: usize = VMS + DEVICES;
const MEASUREMENTS: &str = "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_info', 'vm_vcpus', \
     'vm_collector']";

fn host() -> NamedTempFile {
    let vm = |number| Domain {
        devices: disk("disk", "vda") + &disk("disk", "vdb") + &nic(Some(&format!("tap{number}"))),
        ..Domain::new(number, &format!("vm{number}"))
    };
    node::write(&(1..=VMS as u32).map(vm).collect::<Vec<_>>())
}

fn settings(max: usize) -> String {
    format!("max_lines = {max}\n{MEASUREMENTS}")
}

/// How many lines of vm_info and vm_devices there are.
fn count(lines: &[Line]) -> [usize; 2] {
    ["vm_info", "vm_devices"].map(|kind| lines.iter().filter(|l| l.measurement == kind).count())
}

/// The warnings of so many gathers. After `max`: lines of vm_info and vm_devices of each of them.
fn warnings(max: usize, gathers: &[[usize; 2]]) -> Vec<String> {
    let file = host();
    let (mut plugin, _config) = Plugin::configured(&node::uri(&file), &settings(max));
    for (n, expected) in gathers.iter().enumerate() {
        let lines = plugin.gather();
        assert_eq!(count(&lines), *expected, "max_lines = {max}, gather {n}");
        let [info, devices] = *expected;
        let others = if n == 0 { 2 * VMS } else { 3 * VMS };
        assert_eq!(lines.len(), others + info + devices);
        assert_eq!(plugin.collected("lines"), lines.len() as i64);
        let is_due = gathers[..n].iter().all(|[info, _]| *info == 0);
        let due = if is_due { INFO } else { 0 } + DEVICES;
        let dropped = plugin.collected("lines_dropped");
        assert_eq!(dropped, (due - info - devices) as i64);
    }
    plugin.warnings()
}

#[test]
fn the_first_gather_has_whole_kinds_too_and_the_log_says_so_once() {
    let first = 2 * VMS + DEVICES + INFO + 1;
    let said = warnings(250, &[[0, DEVICES]; 5]);
    let expected = format!(
        "W! {first} lines a gather, and max_lines is 250; left out: vm_info; raise max_lines, take kinds out of \
         measurements, or exclude VMs (domain_exclude) or devices (device_exclude)"
    );
    assert_eq!(said, [expected]);
}

#[test]
fn what_is_too_much_from_the_second_gather_on_is_left_out_from_then_on() {
    let fits = 2 * VMS + DEVICES + 1;
    let said = warnings(fits, &[[0, DEVICES], [0, 0], [0, 0]]);
    assert_eq!(said.len(), 2, "{said:?}");
    let words = [
        "left out: vm_info;",
        "left out: vm_info, vm_vcpus, vm_devices;",
    ];
    for (said, words) in said.iter().zip(words) {
        assert!(said.contains(words), "{said}");
    }
}

#[test]
fn the_other_kinds_are_written_even_if_they_are_more() {
    let said = warnings(1, &[[0, 0]; 3]);
    assert_eq!(said.len(), 1, "{said:?}");
    let words = format!("; the other {} are written all the same;", 2 * VMS + 1);
    assert!(said[0].contains(&words), "{said:?}");
}

#[test]
fn nothing_is_left_out_where_all_fits_and_without_the_key() {
    let all = 3 * VMS + DEVICES + INFO + 1;
    let said = warnings(all, &[[INFO, DEVICES], [0, DEVICES], [0, DEVICES]]);
    assert_eq!(said, [""; 0]);
    let file = host();
    let (mut plugin, _config) = Plugin::configured(&node::uri(&file), MEASUREMENTS);
    assert_eq!(count(&plugin.gather()), [INFO, DEVICES]);
    assert!(!plugin.stdout().contains("lines_dropped"));
}

/// The program with these flags: exit code, standard output, standard error.
fn once(settings: &str, flags: &[&str]) -> (Option<i32>, String, String) {
    let (file, config) = (host(), config(settings));
    let (uri, config) = (node::uri(&file), config.path().to_str().unwrap());
    let args = [&["--uri", &uri, "--config", config], flags].concat();
    told(&run(Plugin::outside(&args).stdin(Stdio::null())))
}

#[test]
fn once_obeys_it() {
    let (code, out, err) = once(&settings(250), &["--once"]);
    assert_eq!((code, count(&all_lines(&out))), (Some(0), [0, DEVICES]));
    let said = without_start(&err);
    assert!(
        said.contains("; left out: vm_info; raise max_lines"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let (code, out, err) = once("max_lines = 1\nmeasurements = ['vm_devices']", &["--once"]);
    assert_eq!((code, out.as_str()), (Some(1), ""));
    let said: Vec<&str> = err.lines().collect();
    assert!(
        said[0].starts_with("W! 120 lines a gather, and max_lines is 1; left out: vm_devices;"),
        "{err}"
    );
    let end = "E! nothing to write: max_lines left all lines of VMs out, as a message above says";
    assert_eq!(said[1..], [end]);
}

#[test]
fn the_check_says_what_would_be_left_out() {
    // The first gather has vm_info and no vm_features, the others have vm_features and no vm_info: in 5 minutes both are due.
    let all = 3 * VMS + DEVICES + INFO + 1;
    let (code, out, err) = once(&settings(all - 1), &["--check"]);
    assert_eq!((code, err.as_str()), (Some(0), ""));
    let flat = out.split_whitespace().collect::<Vec<_>>().join(" ");
    let words = format!(
        "warning max_lines {all} lines a gather, and max_lines is {}; left out: vm_info -> raise",
        all - 1
    );
    assert!(flat.contains(&words), "{out}");

    let limit = |max| {
        let (_, out, _) = once(&settings(max), &["--check", "--json"]);
        let document: Value = serde_json::from_str(&out).unwrap();
        let findings = document["findings"].as_array().unwrap();
        let finding = findings
            .iter()
            .find(|it| it["subject"] == "max_lines")
            .unwrap();
        (
            document["output"]["limit"].clone(),
            finding["level"].clone(),
        )
    };
    let (left_out, level) = limit(100);
    assert_eq!(level, "warning");
    let expected = json!({
        "max_lines": 100,
        "lines": all,
        "lines_dropped": INFO + DEVICES,
        "kinds_left_out": ["vm_info", "vm_vcpus", "vm_devices"],
    });
    assert_eq!(left_out, expected);
    let (left_out, level) = limit(all);
    assert_eq!(
        (level, &left_out["lines_dropped"]),
        (json!("ok"), &json!(0))
    );
}
