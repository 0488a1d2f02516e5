//! The Grafana dashboards: every query of every panel and variable runs on a real InfluxDB, filled by real
//! Telegrafs that run the plugin on real VMs of two hypervisors; the SQL queries run on DataFusion, over the
//! same rows. `tests/dashboards/run_queries.py` expands Grafana's macros and variables, and compares.
//!
//! [`rows_for_the_picture`] makes the rows from which docs/dashboards.png was drawn.

use crate::agent::{Config, LIMIT, Telegraf};
use crate::support::influxd::{Influxd, SERVER};
use crate::support::lab::Lab;
use crate::support::vm::{Nic, Vm, VmSpec, disks, escape};
use crate::support::{cached, succeed, turn, wait_for};
use rustix::process::Signal;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

/// The guest's activity as long as it runs: some of everything each second, and more in every other ten
/// seconds.
const LOAD: &str = "(n=0; while :; do n=$((n+1)); k=$((1 + n / 10 % 2 * 7)); ping -c $k -i 0.05 -s 1000 192.168.77.1; \
    dd if=/dev/zero bs=5000 count=$k | nc 192.168.77.1 9; \
    dd if=/dev/vda of=/dev/null bs=64k count=$k iflag=direct; dd if=/dev/zero of=/dev/vdb bs=16k count=$((2 * k)) oflag=direct conv=fsync; \
    i=0; while [ $i -lt $((k * 200)) ]; do i=$((i+1)); done; sleep 0.5; done) </dev/null >/dev/null 2>&1 &";

/// Receives packets on port 9 and sends nothing back, so that the guests' two directions differ.
const SINK: &str = "
import socket
server = socket.create_server(('0.0.0.0', 9))
while True:
    client, _ = server.accept()
    with client:
        while client.recv(65536):
            pass
";

fn here(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// The title of the busy VM, which is its tag `project`.
const OWNER: &str = "blue team's, 1";

/// A Linux guest with two disks and a NIC, which reports its memory. `extra` is further XML.
fn guest<'lab>(lab: &'lab Lab, name: &str, extra: &str) -> Vm<'lab> {
    lab.create(&VmSpec {
        extra: extra.into(),
        name: name.into(),
        memory_mib: 96,
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    })
}

/// The configuration of one host's Telegraf, which writes to the InfluxDB at [`SERVER`].
fn config(host: &str, more: &[&str]) -> Config {
    let mut config = Config::new(more);
    let tags = |input: &str| format!("[inputs.{input}.tags]\nhost = \"{host}\"\n");
    config.execd = tags("execd");
    config.extra = format!(
        "[[inputs.cpu]]\n{}[[inputs.mem]]\n{}[[outputs.influxdb]]\nurls = [\"http://{SERVER}\"]\ndatabase = \"telegraf\"\n",
        tags("cpu"),
        tags("mem"),
    );
    config
}

/// Starts a Telegraf in `lab`, whose files are in a folder of its own there.
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
    let _turn = turn::share();
    let (lab, other) = (Lab::start(), Lab::start_reachable());
    let quota = "<cputune><period>100000</period><quota>95000</quota></cputune>";
    let web = guest(
        &lab,
        "web server, 1",
        &format!("<title>{}</title>{quota}", escape(OWNER)),
    );
    let (second, asleep) = (guest(&lab, "second", ""), guest(&lab, "asleep", ""));
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
    let mut sink = lab.command("python3").args(["-c", SINK]).spawn().unwrap();
    for (number, guest) in [&web, &second].into_iter().enumerate() {
        guest.guest(&format!(
            "ip address add 192.168.77.1{number}/24 dev eth0; ip link set eth0 up"
        ));
        let sleep = format!("sleep {}", 0.5 + number as f64);
        guest.guest(&LOAD.replace("sleep 0.5", &sleep));
    }
    wait_for("the guest's memory", 2 * LIMIT, || {
        let stats = lab.domstats(web.name());
        stats.contains_key("balloon.usable").then_some(())
    });

    paused.freeze();
    let tags = lab.dir().join("tags.toml");
    std::fs::write(&tags, "[tags]\nproject = \"title\"\n").unwrap();
    let uri = other.uri_for_others();
    let with_tags = ["--config", tags.to_str().unwrap()];
    let first = telegraf(&lab, "kvm01", &config("kvm01", &with_tags));
    let mut second = config("kvm02", &["--uri", &uri]);
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
    // The pause is long enough for kvm02 to count as silent, and for some full bins of ten seconds.
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
    let mut check = lab.command_in_network(&cached("python/bin/python"));
    check.arg("-B").arg(here("tests/dashboards/run_queries.py"));
    check.args(["--server", SERVER, "--rows"]).arg(&rows);
    check.args([
        "--busy",
        web.uuid(),
        "--paused",
        paused.uuid(),
        "--asleep",
        asleep.uuid(),
        "--owner",
        OWNER,
    ]);
    succeed(&mut check);
    sink.kill().unwrap();
    sink.wait().unwrap();
}

#[test]
fn the_files_keep_to_grafanas_schema_and_name_no_data_source() {
    let mut files = Vec::new();
    for language in ["influxql", "sql"] {
        for name in ["fleet", "hypervisor", "vm"] {
            files.push(here(&format!("telegraf/grafana/{language}/{name}.json")));
        }
    }
    let mut schema = Command::new(cached("python/bin/python"));
    succeed(
        schema
            .arg("-B")
            .arg(here("tests/dashboards/schema.py"))
            .args(&files),
    );
    for file in files {
        let text = std::fs::read_to_string(&file).unwrap();
        let (all, by_variable) = (
            text.matches("\"uid\": \"").count(),
            text.matches("\"uid\": \"${datasource}\"").count(),
        );
        // Every uid except the dashboard's own is the variable.
        assert_eq!(all, by_variable + 1, "{}", file.display());
    }
}

/// `TELEGRAF_KVM_ROWS=FILE cargo test --test telegraf rows_for_the_picture -- --ignored`: eight minutes of
/// four guests with different load; the rows are written to FILE.
#[test]
#[ignore = "no test: it makes the rows of docs/dashboards.png"]
fn rows_for_the_picture() {
    let file = std::env::var_os("TELEGRAF_KVM_ROWS").expect("TELEGRAF_KVM_ROWS=FILE says where to");
    let lab = Lab::start();
    let forever = |command: &str| {
        format!("(n=0; while :; do n=$((n+1)); {command}; done) </dev/null >/dev/null 2>&1 &")
    };
    let spin = |count: &str| format!("i=0; while [ $i -lt $(({count})) ]; do i=$((i+1)); done");
    let busy = [
        (
            "web",
            format!(
                "ping -c $((10 + n % 40)) -i 0.02 -s 1400 192.168.77.1; {}; sleep 1",
                spin("2000")
            ),
        ),
        (
            "db",
            format!(
                "k=$((4 + n / 25 % 3 * 12)); dd if=/dev/vda of=/dev/null bs=16k count=$((3 * k)) iflag=direct; \
                 dd if=/dev/zero of=/dev/vdb bs=16k count=$k oflag=direct; {}; sleep 0.7",
                spin("k * 150")
            ),
        ),
        (
            "build",
            format!("{}; sleep $((n % 12 == 0 ? 45 : 1))", spin("60000")),
        ),
        (
            "mail",
            format!(
                "dd if=/dev/zero of=/dev/vda bs=4k count=8 oflag=direct; {}; sleep 2",
                spin("3000")
            ),
        ),
    ];
    let guests: Vec<Vm> = busy.iter().map(|(name, _)| guest(&lab, name, "")).collect();
    for (number, (guest, (_, command))) in guests.iter().zip(&busy).enumerate() {
        guest.guest(&format!(
            "ip address add 192.168.77.1{number}/24 dev eth0; ip link set eth0 up"
        ));
        guest.guest(&forever(command));
    }
    let _influxd = Influxd::start(&lab);
    let (telegraf, dir) = telegraf(&lab, "kvm01", &config("kvm01", &[]));
    std::thread::sleep(Duration::from_secs(200));
    lab.virsh(&["suspend", "--domain", guests[3].uuid()]);
    std::thread::sleep(Duration::from_secs(80));
    lab.virsh(&["resume", "--domain", guests[3].uuid()]);
    std::thread::sleep(Duration::from_secs(200));
    end(telegraf);
    std::fs::copy(dir.join("out"), file).unwrap();
}
