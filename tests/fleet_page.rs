//! The README's section "Fleets": its stanzas against the servers that they name, its retention and
//! downsampling on a real InfluxDB 1.x, and its figures of the load.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

#[path = "telegraf/agent.rs"]
#[allow(dead_code)]
mod agent;

use agent::{Config, LIMIT, Telegraf, by_time};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::path::Path;
use std::process::{Child, Stdio};
use std::time::Duration;
use support::influxd::{Influxd, influx};
use support::lab::Lab;
use support::lines::{Line, Value};
use support::plugin::Plugin;
use support::vm::{Nic, VmSpec, disks};
use support::{succeed, wait_for};

fn section() -> String {
    let readme = Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md");
    let readme = std::fs::read_to_string(readme).unwrap();
    let start = readme.find("\n## Fleets\n").expect("a section Fleets");
    let rest = &readme[start + 1..];
    rest[..rest.find("\n## ").unwrap()].to_owned()
}

/// The section's blocks of that language.
fn blocks(language: &str) -> Vec<String> {
    let (section, fence) = (section(), format!("```{language}\n"));
    let texts = section.split(&fence).skip(1);
    texts
        .map(|text| text.split("```").next().unwrap().to_owned())
        .collect()
}

/// The block of TOML with that table, all servers being in the lab.
fn stanza(table: &str) -> String {
    let text = blocks("toml").into_iter().find(|text| text.contains(table));
    let text = text.unwrap_or_else(|| panic!("no {table} in the section"));
    ["nats", "influxdb", "prometheus"]
        .iter()
        .fold(text, |text, name| {
            text.replace(&format!("{name}.example.org"), "127.0.0.1")
        })
}

/// A server of the lab; it ends with its handle.
struct Server(Child);

impl Server {
    fn start(lab: &Lab, name: &str, args: &[&str], port: u16) -> Server {
        let log = std::fs::File::create(lab.dir().join(format!("{name}.log"))).unwrap();
        let mut command = lab.command(name);
        command
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = Server(command.spawn().unwrap());
        wait_for(name, LIMIT, || {
            let mut ask = lab.command("bash");
            ask.args(["-c", &format!("exec 3<>/dev/tcp/127.0.0.1/{port}")])
                .stderr(Stdio::null());
            ask.status().unwrap().success().then_some(())
        });
        server
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A VM as the section's figures have it: two interfaces, three disks, and a guest that reports.
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

/// Starts a Telegraf of that configuration with its files in a folder of its own.
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

/// How many lines of the four measurements InfluxDB has.
fn stored(lab: &Lab, database: &str) -> usize {
    let counts = ["vm_metrics", "vm_features", "vm_devices", "vm_totals"].map(|table| {
        let query = format!("SELECT * FROM {database}..{table}");
        influx(lab, &query).len()
    });
    counts.iter().sum()
}

/// The answer of the lab's Prometheus: labels and value of each series.
fn prometheus(lab: &Lab, query: &str) -> Vec<(String, f64)> {
    let script = "import json,sys,urllib.parse,urllib.request as u\n\
        q='http://127.0.0.1:9090/api/v1/query?'+urllib.parse.urlencode({'query': sys.argv[1]})\n\
        for one in json.load(u.urlopen(q))['data']['result']:\n\
        \x20 print(json.dumps(one['metric'], sort_keys=True), one['value'][1], sep='\\t')";
    let text = succeed(lab.command("python3").args(["-c", script, query]));
    let row = |line: &str| {
        let (labels, value) = line.split_once('\t').unwrap();
        (labels.to_owned(), value.parse().unwrap())
    };
    text.lines().map(row).collect()
}

#[test]
fn the_stanzas_bring_every_line_to_nats_influxdb_and_prometheus() {
    let lab = Lab::start();
    let vm = lab.create(&spec());
    let _influxd = Influxd::start(&lab);
    for database in ["telegraf", "through_nats"] {
        influx(&lab, &format!("CREATE DATABASE {database}"));
    }
    let store = lab.dir().join("nats");
    let _nats = Server::start(
        &lab,
        "nats-server",
        &["-a", "127.0.0.1", "-js", "-sd", store.to_str().unwrap()],
        4222,
    );
    let data = lab.dir().join("prometheus");
    let empty = lab.config("");
    let prometheus_args = [
        &format!("--config.file={empty}"),
        &format!("--storage.tsdb.path={}", data.display()),
        "--web.listen-address=127.0.0.1:9090",
        "--web.enable-remote-write-receiver",
    ];
    let _prometheus = Server::start(&lab, "prometheus", &prometheus_args, 9090);
    wait_for("the guest's memory", LIMIT, || {
        lab.domstats(vm.name())
            .contains_key("balloon.usable")
            .then_some(())
    });

    let influxdb = stanza("[[outputs.influxdb]]");
    let influxdb = &influxdb[influxdb.find("[[outputs").unwrap()..];
    let mut config = Config::new(&[]);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    config.extra = [
        stanza("[[outputs.nats]]"),
        stanza("[[outputs.http]]"),
        influxdb.to_owned(),
    ]
    .join("\n");
    let mut producer = telegraf(&lab, "producer", |dir| config.toml(dir));
    producer.gathers(12);
    // The consumer comes late: the stream has what it missed.
    let consume = format!(
        "{}\n{}",
        stanza("[[inputs.nats_consumer]]"),
        influxdb.replace("\"telegraf\"", "\"through_nats\"")
    );
    let consumer = telegraf(&lab, "consumer", |dir| {
        agent::general(dir, "1s", false) + &consume
    });
    producer.gathers(20);
    let plugin = producer.plugin_pid();
    producer.signal(Signal::TERM);
    producer.ends(plugin);
    assert!(
        !producer.log().contains("E!") && !producer.log().contains("some series were dropped"),
        "{}",
        producer.log()
    );

    let out = producer.out();
    assert_eq!(stored(&lab, "telegraf"), out.len());
    let start = std::time::Instant::now();
    while stored(&lab, "through_nats") < out.len() {
        let log = consumer.log();
        assert!(
            start.elapsed() < LIMIT,
            "{} of {}:\n{log}",
            stored(&lab, "through_nats"),
            out.len()
        );
        std::thread::sleep(Duration::from_millis(200));
    }
    assert_eq!(stored(&lab, "through_nats"), out.len());
    assert!(!consumer.log().contains("E!"), "{}", consumer.log());

    let gathers = by_time(out);
    let last = gathers.last_key_value().unwrap().1;
    let total = last
        .iter()
        .find(|line| line.measurement == "vm_totals")
        .unwrap();
    let cputime = prometheus(&lab, "vm_totals_cputime");
    assert_eq!(cputime.len(), 1, "{cputime:?}");
    assert!(
        cputime[0]
            .0
            .contains(&format!("\"uuid\": \"{}\"", vm.uuid())),
        "{cputime:?}"
    );
    assert_eq!(cputime[0].1, total.int("cputime").unwrap() as f64);
    let queries = blocks("promql").concat();
    let answers: Vec<_> = queries
        .lines()
        .map(|query| prometheus(&lab, query))
        .collect();
    assert_eq!(
        answers.iter().map(Vec::len).collect::<Vec<_>>(),
        [1, 2],
        "{answers:?}"
    );
    assert!((0.0..4.0).contains(&answers[0][0].1), "{answers:?}");

    // The section's figures are those of this VM.
    figures(
        &lab,
        last,
        prometheus(&lab, "count({__name__=~\"vm_.*\"})")[0].1,
    );
}

/// Compares the section's sentence of the load with one gather.
fn figures(lab: &Lab, gather: &[Line], prometheus_series: f64) {
    let values: usize = gather.iter().map(|line| line.fields.len()).sum();
    let numeric = |value: &&Value| !matches!(value, Value::Text(_));
    let numbers: usize = gather
        .iter()
        .map(|line| line.fields.values().filter(numeric).count())
        .sum();
    assert_eq!(numbers as f64, prometheus_series);
    let series: BTreeSet<_> = gather
        .iter()
        .map(|line| (&line.measurement, &line.tags))
        .collect();
    let out = std::fs::read_to_string(lab.dir().join("producer/out")).unwrap();
    let time = gather[0].timestamp.to_string();
    let bytes: usize = out
        .lines()
        .filter(|line| line.ends_with(&time))
        .map(|line| line.len() + 1)
        .sum();
    let said = format!(
        "{} lines and {:.1} kB of line protocol a VM and gather (with a `host` tag), {values} field values, {} series in InfluxDB, {numbers} series in Prometheus",
        gather.len(),
        bytes as f64 / 1000.0,
        series.len(),
    );
    let section = section().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(section.contains(&said), "the section should say: {said}");
}

#[test]
fn retention_and_downsampling_do_what_they_say() {
    let lab = Lab::start();
    let _influxd = Influxd::start(&lab);
    let setup = blocks("influxql-setup");
    let (setup, query) = (&setup[0], &setup[1]);
    // The same in small: minutes are seconds here.
    assert!(setup.contains("time(5m)") && setup.contains("FOR 15m"));
    let setup = setup
        .replace("time(5m)", "time(5s)")
        .replace("FOR 15m", "FOR 15s");
    for statement in setup
        .replace("time(5m)", "time(5s)")
        .split(";\n")
        .filter(|text| !text.trim().is_empty())
    {
        let mut command = lab.command("influx");
        let said = succeed(command.args(["-execute", &statement.replace('\n', " ")]));
        assert_eq!(said.trim(), "", "{statement}");
    }
    let policies = influx(&lab, "SHOW RETENTION POLICIES ON telegraf");
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, row)| {
            [
                name,
                &row["duration"],
                &row["shardGroupDuration"],
                &row["default"],
            ]
        })
        .collect();
    assert_eq!(
        policies,
        [
            ["recent", "168h0m0s", "24h0m0s", "true"],
            ["long", "17472h0m0s", "672h0m0s", "false"]
        ]
    );

    let vm = lab.create(&spec());
    vm.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    vm.guest(
        "(while :; do ping -c 1 192.168.77.1; dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct; \
         sleep 0.3; done) </dev/null >/dev/null 2>&1 &",
    );
    let mut config = Config::new(&[]);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    let influxdb = stanza("[[outputs.influxdb]]");
    config.extra = influxdb[influxdb.find("[[outputs").unwrap()..].to_owned();
    let mut telegraf = telegraf(&lab, "telegraf", |dir| config.toml(dir));
    telegraf.gathers(13);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    // The last bin's query runs when the bin is over.
    std::thread::sleep(Duration::from_secs(7));

    // Each bin's last line is there, field by field, without VMID.
    let mut checked = 0;
    for (table, of) in [
        ("vm_devices", "rxbytes"),
        ("vm_devices", "wr_bytes"),
        ("vm_totals", "cputime"),
        ("vm_totals", "state"),
    ] {
        let long = influx(
            &lab,
            &format!("SELECT {of}, uuid, device FROM telegraf.long.{table} WHERE {of} >= 0"),
        );
        let device = |line: &Line| line.tags.get("device").cloned().unwrap_or_default();
        let mut expected = std::collections::BTreeMap::new();
        for line in telegraf
            .out()
            .iter()
            .filter(|line| line.measurement == table)
        {
            if let Some(value) = line.int(of) {
                let bin = line.timestamp / 5_000_000_000 * 5_000_000_000;
                expected.insert((bin.to_string(), device(line)), value.to_string());
            }
        }
        assert!(expected.len() >= 2, "{expected:?}");
        let found: std::collections::BTreeMap<_, _> = long
            .into_iter()
            .map(|(_, row)| {
                assert_eq!(row["uuid"], vm.uuid());
                (
                    (row["time"].clone(), row["device"].clone()),
                    row[of].clone(),
                )
            })
            .collect();
        assert_eq!(found, expected, "{table}.{of}");
        checked += found.len();
    }
    assert!(checked > 12, "{checked}");
    let keys =
        succeed(
            lab.command("influx")
                .args(["-database", "telegraf", "-execute", "SHOW SERIES"]),
        );
    assert!(keys.contains("VMID="), "the full series have it");
    // By the section's query, in small as well; the tags are one column of many commas.
    let query = query
        .trim()
        .trim_end_matches(';')
        .replace("time(1h)", "time(5s)");
    let mut command = lab.command("influx");
    let said = succeed(command.args([
        "-database",
        "telegraf",
        "-format",
        "csv",
        "-execute",
        &query,
    ]));
    let rates: Vec<f64> = said
        .lines()
        .filter_map(|line| line.rsplit(',').next()?.parse().ok())
        .collect();
    assert!(
        rates.len() >= 4 && rates.iter().all(|rate| *rate >= 0.0),
        "{said}"
    );
    assert!(rates.iter().any(|rate| *rate > 10.0), "{said}");

    // What is older than a week does not come into the full series, and does into the long ones.
    let insert = |policy: &str| {
        let line = format!(
            "INSERT INTO {policy} vm_devices,host=kvm01,device=old rxbytes=1i {}",
            0
        );
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let old = now.as_nanos() - 8 * 86_400 * 1_000_000_000;
        let line = line.replace(" 0", &format!(" {old}"));
        support::run(
            lab.command("influx")
                .args(["-database", "telegraf", "-execute", &line]),
        )
    };
    let refused = insert("recent");
    let said = String::from_utf8_lossy(&refused.stderr) + String::from_utf8_lossy(&refused.stdout);
    assert!(
        said.contains("points beyond retention policy dropped"),
        "{said}"
    );
    assert!(insert("long").status.success());
    assert_eq!(
        influx(
            &lab,
            "SELECT rxbytes FROM telegraf.long.vm_devices WHERE device = 'old'"
        )
        .len(),
        1
    );
}

/// A certificate authority, and one certificate for both ends, as libvirt's `pkipath` wants them.
const CERTIFICATES: &str = "
cd \"$0\"
openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=lab \\
    -keyout cakey.pem -out cacert.pem
openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=collector \\
    -keyout serverkey.pem -out request.pem
openssl x509 -req -in request.pem -CA cacert.pem -CAkey cakey.pem -days 2 -out servercert.pem \\
    -extfile <(echo subjectAltName=IP:127.0.0.1)
cp serverkey.pem clientkey.pem
cp servercert.pem clientcert.pem
";

#[test]
fn a_collector_elsewhere_gets_the_same_by_tls() {
    let lab = Lab::start();
    let vm = lab.create(&spec());
    wait_for("the guest's memory", LIMIT, || {
        let stats = lab.domstats(vm.name());
        stats.contains_key("balloon.usable").then_some(())
    });
    let pki = lab.dir().join("pki");
    std::fs::create_dir(&pki).unwrap();
    succeed(lab.command("bash").args(["-ec", CERTIFICATES]).arg(&pki));
    lab.stop_libvirtd();
    let conf = lab.inside("/etc/libvirt/libvirtd.conf");
    let text = std::fs::read_to_string(&conf).unwrap();
    let pki = pki.display();
    let tls = format!(
        "listen_tls = 1\nlisten_addr = \"127.0.0.1\"\nkey_file = \"{pki}/serverkey.pem\"\n\
         cert_file = \"{pki}/servercert.pem\"\nca_file = \"{pki}/cacert.pem\"\ncrl_file = \"\"\n"
    );
    std::fs::write(&conf, text + &tls).unwrap();
    succeed(
        lab.command("libvirtd")
            .args(["-d", "-l", "-f", "/etc/libvirt/libvirtd.conf"]),
    );

    let uri = format!("qemu+tls://127.0.0.1/system?pkipath={pki}");
    let far = Plugin::spawn(lab.plugin(&["--uri", &uri]));
    let near = Plugin::spawn(lab.plugin(&[]));
    let [far, near] = [far, near].map(|mut plugin| {
        plugin.gather();
        let lines = plugin.gather();
        assert_eq!(plugin.stderr(), "");
        lines
    });
    let shape = |lines: &[Line]| -> Vec<_> {
        let one = |line: &Line| {
            let fields: Vec<_> = line.fields.keys().cloned().collect();
            (line.measurement.clone(), line.tags.clone(), fields)
        };
        lines.iter().map(one).collect()
    };
    assert_eq!(shape(&far), shape(&near));
    assert_eq!(far.len(), 8);
}
