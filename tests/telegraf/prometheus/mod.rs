//! telegraf/prometheus and docs/prometheus.md: the shipped stanza and rules, with a real Telegraf, a real Prometheus
//! and promtool.

mod alerts;
mod proxy;
mod rules;
mod served;
mod server;

use crate::agent::{Config, Telegraf};
use crate::support::lab::Lab;
use std::path::{Path, PathBuf};
use std::process::Stdio;

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(here(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The shipped rules.
fn rules() -> String {
    read("telegraf/prometheus/rules.yml")
}

/// The blocks of that language in docs/prometheus.md.
fn blocks(language: &str) -> Vec<String> {
    let (page, fence) = (read("docs/prometheus.md"), format!("```{language}\n"));
    let texts = page.split(&fence).skip(1);
    texts
        .map(|text| text.split("```").next().unwrap().to_owned())
        .collect()
}

/// The shipped stanza; series are served for `seconds` after their last value.
fn stanza(seconds: u32) -> String {
    let stanza = read("telegraf/prometheus/telegraf-prometheus.conf");
    assert!(stanza.contains("expiration_interval = \"90s\""));
    stanza.replace("\"90s\"", &format!("\"{seconds}s\""))
}

/// A Telegraf in the lab that runs the plugin each second, by these words and on a host of that name.
fn telegraf(lab: &Lab, host: &str, words: &[&str], extra: &str) -> Telegraf {
    let dir = lab.dir().join(host);
    std::fs::create_dir(&dir).unwrap();
    let mut config = Config::new(&[]);
    if !words.is_empty() {
        config.command = words.iter().map(|word| (*word).to_owned()).collect();
    }
    config.execd = format!("[inputs.execd.tags]\nhost = \"{host}\"\n");
    config.extra = extra.to_owned();
    let file = dir.join("telegraf.conf");
    std::fs::write(&file, config.toml(&dir)).unwrap();
    let mut command = lab.command("telegraf");
    command.arg("--config").arg(file).stdin(Stdio::null());
    Telegraf::spawn(&dir, command)
}

/// The rules with each duration replaced by one of some seconds; thresholds stay, but for those that are times, and the
/// number of a guest's reports.
fn in_seconds(rules: &str) -> String {
    let short = [
        ("[5m]", "[10s]"),
        ("[10m]", "[20s]"),
        ("[15m]", "[30s]"),
        ("[1h]", "[300s]"),
        ("[1d:5m]", "[5m:1s]"),
        ("offset 5m", "offset 10s"),
        ("offset 10m", "offset 20s"),
        ("          > 300\n", "          > 8\n"),
        ("< 60 and", "< 2 and"),
        ("> 12)", "> 3)"),
    ];
    let mut text = rules.to_owned();
    for (long, short) in short {
        assert!(text.contains(long), "no {long} in the rules");
        text = text.replace(long, short);
    }
    let lines = text.lines().map(|line| match line.split_once("for: ") {
        Some((indent, _)) => format!("{indent}for: 2s\n"),
        None => format!("{line}\n"),
    });
    lines.collect()
}
