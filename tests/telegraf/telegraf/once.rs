//! `telegraf --test`: the first command that an operator tries.

use super::node;
use crate::agent::{self, Config};
use crate::support::{run, turn};
use std::collections::BTreeSet;
use std::path::Path;

/// Runs `telegraf --test` once: each of the lines is there exactly once, and no error is logged.
fn test_once(dir: &Path, config: &Config, lines: usize) {
    std::fs::create_dir_all(dir).unwrap();
    let output = run(agent::command(dir, &config.toml(dir)).arg("--test"));
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default()
        + &String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}:\n{log}", output.status);
    assert!(!log.contains("E!"), "{log}");
    assert!(log.contains("Starting process"), "the log is seen:\n{log}");
    let out = String::from_utf8(output.stdout).unwrap();
    let metrics: Vec<&str> = out
        .lines()
        .filter_map(|line| line.strip_prefix("> "))
        .collect();
    assert_eq!(metrics.len(), lines, "{out}\n{log}");
    let series: BTreeSet<&str> = metrics
        .iter()
        .map(|m| m.split(' ').next().unwrap())
        .collect();
    assert_eq!(series.len(), lines, "a series twice:\n{out}");
}

/// Twenty runs, `at_once` of them in parallel.
fn twenty_times(signal: &'static str, args: &[&str], at_once: usize) {
    let _turn = turn::take();
    let dir = tempfile::tempdir().unwrap();
    let vms = node::plain(100, 3, 2);
    let lines = node::first_lines(&vms) + 1;
    assert_eq!(lines, 701, "those of the VMs, and vm_collector");
    let uri = node::write(&dir.path().join("node.xml"), &vms);
    let args = [&["--uri", &uri], args].concat();
    let mut config = Config::new(&args);
    config.signal = signal;
    std::thread::scope(|scope| {
        for thread in 0..at_once {
            let (dir, config) = (dir.path().join(thread.to_string()), &config);
            scope.spawn(move || {
                for _ in 0..20 / at_once {
                    test_once(&dir, config, lines);
                }
            });
        }
    });
}

#[test]
fn telegraf_test_shows_all_lines_twenty_times() {
    twenty_times("STDIN", &[], 1);
}

/// Telegraf closes stdin at once here, which with --interval does not end the plugin: Telegraf waits its 5 s,
/// then ends the plugin by SIGTERM. So the runs are in parallel.
#[test]
fn telegraf_test_shows_all_lines_of_a_self_timed_plugin_twenty_times() {
    twenty_times("none", &["--interval", "10s"], 5);
}
