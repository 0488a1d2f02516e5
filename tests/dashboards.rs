//! The Grafana dashboards: every query of every panel and variable on a real InfluxDB, filled by real
//! Telegrafs that run the plugin on real VMs of two hypervisors; in SQL on DataFusion, over the same
//! rows. `tests/dashboards/run_queries.py` puts Grafana's macros and variables in, and compares.
//!
//! `TELEGRAF_KVM_ROWS=FILE` keeps the rows, and `TELEGRAF_KVM_ROWS_SECONDS=N` gathers for that long:
//! so the rows of the README's picture were made.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "telegraf/agent.rs"]
#[allow(dead_code)]
mod agent;

use agent::{Config, LIMIT, Telegraf};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;
use support::influxd::{Influxd, SERVER};
use support::lab::Lab;
use support::vm::{Nic, Vm, VmSpec, disks};
use support::{cached, succeed, wait_for};

/// All measurements, the collector's own among them.
const MEASUREMENTS: &str = "measurements = [\"vm_metrics\", \"vm_features\", \"vm_devices\", \"vm_totals\", \"vm_collector\"]\n";

/// What the guest does for as long as it runs: each second some of everything, more in every other
/// ten seconds.
const LOAD: &str = "(n=0; while :; do n=$((n+1)); k=$((1 + n / 10 % 2 * 7)); ping -c $k -i 0.05 -s 1000 192.168.77.1; \
    dd if=/dev/vda of=/dev/null bs=64k count=$k iflag=direct; dd if=/dev/zero of=/dev/vdb bs=16k count=$((2 * k)) oflag=direct; \
    i=0; while [ $i -lt $((k * 200)) ]; do i=$((i+1)); done; sleep 0.5; done) </dev/null >/dev/null 2>&1 &";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// A Linux guest with two disks and a NIC that reports its memory.
fn guest<'lab>(lab: &'lab Lab, name: &str) -> Vm<'lab> {
    lab.create(&VmSpec {
        name: name.into(),
        memory_mib: 96,
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    })
}

/// The configuration of the Telegraf of one host, with its outputs in `lab`'s InfluxDB.
fn config(lab: &Lab, host: &str, more: &[&str]) -> Config {
    let file = lab.config(MEASUREMENTS);
    let mut config = Config::new(&[&["--config", file.as_str()], more].concat());
    let tags = |input: &str| format!("[inputs.{input}.tags]\nhost = \"{host}\"\n");
    config.execd = tags("execd");
    config.extra = format!(
        "[[inputs.cpu]]\n{}[[inputs.mem]]\n{}[[outputs.influxdb]]\nurls = [\"http://{SERVER}\"]\ndatabase = \"telegraf\"\n",
        tags("cpu"),
        tags("mem"),
    );
    config
}

/// Starts a Telegraf in `lab`, with its files in a folder of its own there.
fn telegraf(lab: &Lab, host: &str, config: &Config) -> (Telegraf, PathBuf) {
    let dir = lab.dir().join(host);
    std::fs::create_dir(&dir).unwrap();
    let file = dir.join("telegraf.conf");
    std::fs::write(&file, config.toml(&dir)).unwrap();
    let mut command = lab.command("telegraf");
    command.arg("--config").arg(file).stdin(Stdio::null());
    (Telegraf::spawn(&dir, command), dir)
}

fn end(mut telegraf: Telegraf) {
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    assert!(!telegraf.log().contains("E!"), "{}", telegraf.log());
}

#[test]
fn the_files_are_what_the_generator_writes() {
    let generate = here("telegraf/grafana/generate.py");
    succeed(
        Command::new(cached("python/bin/python"))
            .arg(generate)
            .arg("--check"),
    );
}

#[test]
fn every_query_gives_rows_that_are_true() {
    let (lab, other) = (Lab::start(), Lab::start_reachable());
    let web = guest(&lab, "web server, 1");
    let asleep = guest(&lab, "asleep");
    let paused = lab.create(&VmSpec {
        name: "stuck".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    });
    other.create(&VmSpec {
        name: "web server, 1".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        ..VmSpec::default()
    });
    let _influxd = Influxd::start(&lab);
    web.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    web.guest(LOAD);
    wait_for("the guest's memory", LIMIT, || {
        let stats = lab.domstats(web.name());
        stats.contains_key("balloon.usable").then_some(())
    });

    let socket = other.dir().join("sockets/libvirt-sock");
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let first = telegraf(&lab, "kvm01", &config(&lab, "kvm01", &[]));
    let mut second = config(&lab, "kvm02", &["--uri", &uri]);
    second.extra = second.extra[second.extra.find("[[outputs").unwrap()..].to_owned();
    let second = telegraf(&lab, "kvm02", &second);
    asleep.begin("echo mem > /sys/power/state");
    wait_for("both hosts' lines", LIMIT, || {
        let log = first.0.log() + &second.0.log();
        assert!(!log.contains("E!"), "{log}");
        let enough = first.0.out().len() > 200 && second.0.out().len() > 100;
        enough.then_some(())
    });
    end(second.0);
    // Long enough for kvm02 to count as silent, and for some whole bins of ten seconds.
    let seconds =
        std::env::var("TELEGRAF_KVM_ROWS_SECONDS").map_or(48, |text| text.parse().unwrap());
    std::thread::sleep(Duration::from_secs(seconds));
    end(first.0);

    let rows = lab.dir().join("rows");
    let read = |dir: &Path| std::fs::read_to_string(dir.join("out")).unwrap();
    std::fs::write(&rows, read(&first.1) + &read(&second.1)).unwrap();
    if let Some(keep) = std::env::var_os("TELEGRAF_KVM_ROWS") {
        std::fs::copy(&rows, keep).unwrap();
    }
    let mut check = lab.command(cached("python/bin/python").to_str().unwrap());
    check.arg("-B").arg(here("tests/dashboards/run_queries.py"));
    check.args(["--server", SERVER, "--rows"]).arg(&rows);
    check.args([
        "--busy",
        web.uuid(),
        "--paused",
        paused.uuid(),
        "--asleep",
        asleep.uuid(),
    ]);
    succeed(&mut check);
}
