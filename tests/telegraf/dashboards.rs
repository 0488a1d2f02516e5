//! The Grafana dashboards: every query of every panel, variable and annotation runs on a real InfluxDB and a real
//! Prometheus, filled by real Telegrafs that run the plugin on real VMs of two hypervisors; the SQL queries run on
//! DataFusion, over the same rows. `tests/dashboards/run_queries.py` expands Grafana's macros and variables, and compares.
//!
//! [`rows_for_the_picture`] makes the rows from which docs/dashboards.png was drawn.

use crate::agent::{Config, LIMIT, Telegraf};
use crate::support::influxd::{Influxd, SERVER};
use crate::support::lab::Lab;
use crate::support::vm::{Nic, Vm, VmSpec, disks, escape};
use crate::support::{cached, program, succeed, turn, wait_for};
use rustix::process::Signal;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// The guest's activity as long as it runs: some of everything each second, and more in every other ten
/// seconds. Where there is a third disk, its image is larger than its store: the writes fail.
const LOAD: &str = "(n=0; while :; do n=$((n+1)); k=$((1 + n / 10 % 2 * 7)); ping -c $k -i 0.05 -s 1000 192.168.77.1; \
    [ ! -b /dev/vdc ] || dd if=/dev/zero of=/dev/vdc bs=128k count=1 seek=50 oflag=direct; \
    dd if=/dev/zero bs=5000 count=$k | nc 192.168.77.1 9; \
    dd if=/dev/vda of=/dev/null bs=64k count=$k iflag=direct; dd if=/dev/zero of=/dev/vdb bs=16k count=$((2 * k)) oflag=direct conv=fsync; \
    i=0; while [ $i -lt $((k * 200)) ]; do i=$((i+1)); done; sleep 0.5; done) </dev/null >/dev/null 2>&1 &";

/// Packets to every VM on the bridge. A frozen one takes none from its queue, which is made short: the rest is dropped.
const BROADCASTS: &str = "
import socket, time
sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sender.setsockopt(socket.SOL_SOCKET, socket.SO_BROADCAST, 1)
while True:
    sender.sendto(b'x', ('192.168.77.255', 9))
    time.sleep(0.2)
";

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

/// A Linux guest with two disks and a NIC, which reports its memory. `extra` and `devices` are further XML.
fn guest<'lab>(lab: &'lab Lab, name: &str, extra: &str, devices: &str) -> Vm<'lab> {
    lab.create(&VmSpec {
        extra: extra.into(),
        devices: devices.into(),
        name: name.into(),
        memory_mib: 96,
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    })
}

/// A Prometheus in the lab that takes remote writes, which ends when its handle is dropped.
struct Prometheus(Child);

/// Prometheus' default port; nothing else in the lab uses it.
const PROMETHEUS: &str = "127.0.0.1:9090";

impl Prometheus {
    fn start(lab: &Lab) -> Prometheus {
        let file = |name: &str| lab.dir().join(name);
        let log = File::create(file("prometheus.log")).unwrap();
        let mut command = lab.command("prometheus");
        command
            .arg(format!("--config.file={}", lab.config("")))
            .arg(format!(
                "--storage.tsdb.path={}",
                file("prometheus").display()
            ))
            .arg(format!("--web.listen-address={PROMETHEUS}"))
            .arg("--web.enable-remote-write-receiver")
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = Prometheus(command.spawn().unwrap());
        wait_for("Prometheus", LIMIT, || {
            let mut ask = lab.command("bash");
            let connect = format!("exec 3<>/dev/tcp/{}", PROMETHEUS.replace(':', "/"));
            ask.args(["-c", &connect]).stderr(Stdio::null());
            ask.status().unwrap().success().then_some(())
        });
        server
    }
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Telegraf's output to that Prometheus.
const REMOTE_WRITE: &str = r#"
[[outputs.http]]
url = "http://127.0.0.1:9090/api/v1/write"
data_format = "prometheusremotewrite"
log_level = "error"
[outputs.http.headers]
Content-Type = "application/x-protobuf"
Content-Encoding = "snappy"
X-Prometheus-Remote-Write-Version = "0.1.0"
"#;

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

/// A disk whose image of 8 MiB lies in a store of 64 KiB; the guest is told of the errors and goes on.
fn disk_that_fails(lab: &Lab) -> String {
    let store = lab.dir().join("store");
    std::fs::create_dir(&store).unwrap();
    let mut mount = lab.command("mount");
    mount.args(["-t", "tmpfs", "-o", "size=64k", "store"]);
    succeed(mount.arg(&store));
    let image = store.join("vdc.img");
    let image = image.to_str().unwrap();
    succeed(lab.command("truncate").args(["-s", "8M", image]));
    format!(
        "<disk type='file' device='disk'><driver name='qemu' type='raw' error_policy='report'/>\
         <source file='{image}'/><target dev='vdc' bus='virtio'/></disk>"
    )
}

/// Gives the VM a CPU quota: so many microseconds in each tenth of a second.
fn limit(lab: &Lab, vm: &Vm, quota: u32) {
    let quota = format!("vcpu_quota={quota}");
    let set = ["--set", "vcpu_period=100000", "--set", &quota];
    let schedule = ["schedinfo", "--live", "--domain", vm.uuid()];
    lab.virsh(&[schedule.as_slice(), &set].concat());
}

/// The plugin's configuration: all that the dashboards show, and the title as the tag `project`.
fn settings(lab: &Lab) -> PathBuf {
    let file = lab.dir().join("settings.toml");
    let text = r#"
measurements = ["vm_metrics", "vm_features", "vm_devices", "vm_totals", "vm_collector", "vm_pressure"]
[tags]
project = "title"
"#;
    std::fs::write(&file, text).unwrap();
    file
}

/// What annotations tell of a VM: it goes on, is suspended, destroyed and started again.
fn events(lab: &Lab, vm: &Vm) {
    // A bin of ten seconds has a last word of the first change.
    for (change, seconds) in [("resume", 11), ("suspend", 4), ("destroy", 2)] {
        lab.virsh(&[change, "--domain", vm.name()]);
        std::thread::sleep(Duration::from_secs(seconds));
    }
    lab.virsh(&["start", "--paused", "--domain", vm.name()]);
}

/// The collector's trouble: libvirtd stands still for longer than a gather may take.
fn outage(lab: &Lab) {
    lab.signal_libvirtd("STOP");
    std::thread::sleep(Duration::from_secs(4));
    lab.signal_libvirtd("CONT");
}

#[test]
fn every_query_gives_rows_that_are_true() {
    let _turn = turn::share();
    let (lab, other) = (Lab::start(), Lab::start_reachable());
    let title = format!("<title>{}</title>", escape(OWNER));
    let web = guest(&lab, "web server, 1", &title, &disk_that_fails(&lab));
    let (second, asleep) = (guest(&lab, "second", "", ""), guest(&lab, "asleep", "", ""));
    let paused = lab.create(&VmSpec {
        name: "stuck".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Named("short".into())],
        paused: true,
        ..VmSpec::default()
    });
    let again = lab.create(&VmSpec {
        name: "again".into(),
        disks: disks(&["vda"]),
        paused: true,
        persistent: true,
        ..VmSpec::default()
    });
    let _influxd = Influxd::start(&lab);
    let _prometheus = Prometheus::start(&lab);
    let mut link = lab.command("ip");
    succeed(link.args(["link", "set", "short", "txqueuelen", "2"]));
    let mut scripts = [SINK, BROADCASTS]
        .map(|script| lab.command("python3").args(["-c", script]).spawn().unwrap());
    // On a busy host the first one, which has a quota, takes seconds for what it does in between.
    for (number, (guest, pause)) in [(&web, 0.5), (&second, 9.5)].into_iter().enumerate() {
        guest.guest(&format!(
            "ip address add 192.168.77.1{number}/24 dev eth0; ip link set eth0 up"
        ));
        let sleep = format!("sleep {pause}");
        guest.guest(&LOAD.replace("sleep 0.5", &sleep));
    }
    wait_for("the guest's memory", 2 * LIMIT, || {
        let stats = lab.domstats(web.name());
        stats.contains_key("balloon.usable").then_some(())
    });
    // Less than the guest wants while it has much to do.
    limit(&lab, &web, 20_000);
    // Its firmware uses all CPU time that it gets, so it comes after the guests.
    other.create(&VmSpec {
        name: "web server, 1".into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        ..VmSpec::default()
    });
    paused.freeze();
    let settings = settings(&lab);
    let uri = other.uri_for_others();
    let first = config("kvm01", &["--config", settings.to_str().unwrap()]);
    let quick = lab.config("deadline = \"2s\"\n");
    let mut second = config("kvm02", &["--config", &quick, "--uri", &uri]);
    second.extra = second.extra[second.extra.find("[[outputs").unwrap()..].to_owned();
    let [first, second] = [("kvm01", first), ("kvm02", second)].map(|(host, mut config)| {
        config.extra += REMOTE_WRITE;
        telegraf(&lab, host, &config)
    });
    asleep.begin("echo mem > /sys/power/state");
    wait_for("both hosts' lines", LIMIT, || {
        let log = first.0.log() + &second.0.log();
        assert!(!log.contains("E!"), "{log}");
        let enough = first.0.out().len() > 200 && second.0.out().len() > 100;
        enough.then_some(())
    });
    outage(&other);
    end(second.0);
    // The pause is long enough for kvm02 to count as silent, and for some full bins of ten seconds.
    let seconds =
        std::env::var("TELEGRAF_KVM_ROWS_SECONDS").map_or(36, |text| text.parse().unwrap());
    let start = Instant::now();
    events(&lab, &again);
    std::thread::sleep(Duration::from_secs(seconds).saturating_sub(start.elapsed()));
    end(first.0);

    let rows = lab.dir().join("rows");
    let read = |dir: &Path| std::fs::read_to_string(dir.join("out")).unwrap();
    std::fs::write(&rows, read(&first.1) + &read(&second.1)).unwrap();
    if let Some(keep) = std::env::var_os("TELEGRAF_KVM_ROWS") {
        std::fs::copy(&rows, keep).unwrap();
    }
    let mut check = lab.command_in_network(&cached("python/bin/python"));
    check.arg("-B").arg(here("tests/dashboards/run_queries.py"));
    check.args(["--influxdb", SERVER, "--prometheus", PROMETHEUS]);
    check.arg("--rows").arg(&rows).args(["--owner", OWNER]);
    let vms = [
        ("--busy", &web),
        ("--paused", &paused),
        ("--asleep", &asleep),
        ("--again", &again),
    ];
    for (role, vm) in vms {
        check.args([role, vm.uuid()]);
    }
    println!("{}", succeed(&mut check));
    for script in &mut scripts {
        script.kill().unwrap();
        script.wait().unwrap();
    }
}

#[test]
fn the_files_keep_to_grafanas_schema_and_name_no_data_source() {
    let mut files = Vec::new();
    for language in ["influxql", "sql", "promql"] {
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
    let mut complete = Command::new(cached("python/bin/python"));
    complete.arg("-B").arg(here("tests/dashboards/complete.py"));
    succeed(complete.arg(here("telegraf/grafana")));
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

#[test]
fn annotations_and_head_rows_are_true_of_series_made_for_them() {
    let mut check = Command::new(cached("python/bin/python"));
    check
        .arg("-B")
        .arg(here("tests/dashboards/made_series.py"))
        .arg(program("promtool"));
    succeed(&mut check);
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
                 dd if=/dev/zero of=/dev/vdb bs=16k count=$k oflag=direct conv=fsync; \
                 [ $((n % 60)) != 0 ] || dd if=/dev/zero of=/dev/vdc bs=128k count=1 seek=50 oflag=direct; {}; sleep 0.7",
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
    let failing = disk_that_fails(&lab);
    let guests: Vec<Vm> = busy
        .iter()
        .map(|(name, _)| {
            let devices = if *name == "db" { &*failing } else { "" };
            guest(&lab, name, "<title>shop</title>", devices)
        })
        .collect();
    for (number, (guest, (_, command))) in guests.iter().zip(&busy).enumerate() {
        guest.guest(&format!(
            "ip address add 192.168.77.1{number}/24 dev eth0; ip link set eth0 up"
        ));
        guest.guest(&forever(command));
    }
    limit(&lab, &guests[2], 50_000);
    let _influxd = Influxd::start(&lab);
    let settings = settings(&lab);
    let (telegraf, dir) = telegraf(
        &lab,
        "kvm01",
        &config("kvm01", &["--config", settings.to_str().unwrap()]),
    );
    std::thread::sleep(Duration::from_secs(200));
    lab.virsh(&["suspend", "--domain", guests[3].uuid()]);
    std::thread::sleep(Duration::from_secs(80));
    lab.virsh(&["resume", "--domain", guests[3].uuid()]);
    std::thread::sleep(Duration::from_secs(200));
    end(telegraf);
    std::fs::copy(dir.join("out"), file).unwrap();
}
