//! docs/fleets.md, and Prometheus in docs/outputs.md: the stanzas against the servers that they name,
//! retention and downsampling on a real InfluxDB 1.x, and the figures of the load.

mod far;
mod kafka;
mod retention;
mod stanzas;

use crate::agent::Telegraf;
use crate::support::lab::Lab;
use crate::support::vm::{Nic, VmSpec, disks};
use std::path::Path;
use std::process::Stdio;

/// The two pages; the first is that of the fleets.
fn pages() -> String {
    let docs = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs");
    let page = |name| std::fs::read_to_string(docs.join(name)).unwrap();
    ["fleets.md", "outputs.md"].map(page).concat()
}

/// The blocks of that language on the pages.
fn blocks(language: &str) -> Vec<String> {
    let (pages, fence) = (pages(), format!("```{language}\n"));
    let texts = pages.split(&fence).skip(1);
    texts
        .map(|text| text.split("```").next().unwrap().to_owned())
        .collect()
}

/// The first TOML block with that table, with all servers in the lab.
fn stanza(table: &str) -> String {
    let text = blocks("toml").into_iter().find(|text| text.contains(table));
    let text = text.unwrap_or_else(|| panic!("no {table} in the pages"));
    ["nats", "kafka", "influxdb", "prometheus"]
        .iter()
        .fold(text, |text, name| {
            text.replace(&format!("{name}.example.org"), "127.0.0.1")
        })
}

/// A VM like that in the figures of docs/fleets.md: two interfaces, three disks, and a guest that reports its
/// memory.
fn spec() -> VmSpec {
    VmSpec {
        name: "vm".into(),
        memory_mib: 96,
        disks: disks(&["vda", "vdb", "vdc"]),
        nics: vec![Nic::Tap, Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    }
}

/// Starts a Telegraf with that configuration, whose files are in a folder of its own.
fn telegraf(lab: &Lab, name: &str, toml: impl FnOnce(&Path) -> String) -> Telegraf {
    let dir = lab.dir().join(name);
    std::fs::create_dir(&dir).unwrap();
    std::fs::write(dir.join("telegraf.conf"), toml(&dir)).unwrap();
    let mut command = lab.command("telegraf");
    command
        .arg("--config")
        .arg(dir.join("telegraf.conf"))
        .stdin(Stdio::null());
    Telegraf::spawn(&dir, command)
}
