//! The stanzas against NATS, InfluxDB and Prometheus, and the figures of the load.

use super::{blocks, pages, spec, stanza, telegraf};
use crate::agent::{self, Config, LIMIT, Telegraf, by_time};
use crate::support::influxd::{Influxd, influx};
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value, is_latency};
use crate::support::{succeed, turn, wait_for};
use rustix::process::Signal;
use std::collections::BTreeSet;
use std::process::{Child, Stdio};
use std::time::Duration;

/// A server in the lab, which ends when its handle is dropped.
pub(super) struct Server(Child);

impl Server {
    pub(super) fn start(lab: &Lab, name: &str, args: &[&str], port: u16) -> Server {
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

/// The number of lines of the four measurements in InfluxDB.
pub(super) fn stored(lab: &Lab, database: &str) -> usize {
    let counts = ["vm_metrics", "vm_features", "vm_devices", "vm_totals"].map(|table| {
        let query = format!("SELECT * FROM {database}..{table}");
        influx(lab, &query).len()
    });
    counts.iter().sum()
}

/// Waits until the database has so many lines, which the consumer has taken from a queue; it gets no more.
pub(super) fn arrives(lab: &Lab, database: &str, lines: usize, consumer: &Telegraf) {
    let start = std::time::Instant::now();
    loop {
        let (stored, log) = (stored(lab, database), consumer.log());
        assert!(!log.contains("E!"), "{log}");
        if stored >= lines {
            assert_eq!(stored, lines);
            return;
        }
        assert!(start.elapsed() < LIMIT, "{stored} of {lines}:\n{log}");
        std::thread::sleep(Duration::from_millis(200));
    }
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
    let _turn = turn::share();
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
    wait_for("the guest's memory", 2 * LIMIT, || {
        lab.domstats(vm.name())
            .contains_key("balloon.usable")
            .then_some(())
    });

    let influxdb = stanza("[[outputs.influxdb]]");
    let influxdb = &influxdb[influxdb.find("[[outputs").unwrap()..];
    let mut config = Config::new(&[]);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    config.extra = [
        // A server takes no stream that is larger than three quarters of the free disk.
        stanza("[[outputs.nats]]").replace("max_bytes = 10000000000", "max_bytes = 100000000"),
        stanza("[[outputs.http]]"),
        influxdb.to_owned(),
    ]
    .join("\n");
    let mut producer = telegraf(&lab, "producer", |dir| config.toml(dir));
    producer.gathers(12);
    // The consumer starts late: it gets the earlier lines from the stream.
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
    arrives(&lab, "through_nats", out.len(), &consumer);

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

    // The figures of docs/fleets.md are those of this VM.
    figures(
        &lab,
        last,
        prometheus(
            &lab,
            "count({__name__=~\"vm_.*\", __name__!~\"vm_collector_.*|.*_latency_ms\"})",
        )[0]
        .1,
    );
}

/// Compares the sentence on the load in docs/fleets.md with one gather.
fn figures(lab: &Lab, gather: &[Line], prometheus_series: f64) {
    // Latencies are there only if a request ended since the last gather.
    let lasting = |line: &Line| -> Vec<Value> {
        let fields = line.fields.iter().filter(|(field, _)| !is_latency(field));
        fields.map(|(_, value)| value.clone()).collect()
    };
    let values: Vec<Value> = gather.iter().flat_map(lasting).collect();
    let numeric = |value: &&Value| !matches!(value, Value::Text(_));
    let numbers = values.iter().filter(numeric).count();
    let values = values.len();
    assert_eq!(numbers as f64, prometheus_series);
    let series: BTreeSet<_> = gather
        .iter()
        .map(|line| (&line.measurement, &line.tags))
        .collect();
    let out = std::fs::read_to_string(lab.dir().join("producer/out")).unwrap();
    let time = gather[0].timestamp.to_string();
    let bytes: usize = out
        .lines()
        .filter(|line| line.ends_with(&time) && !line.starts_with("vm_collector,"))
        .map(|line| line.len() + 1)
        .sum();
    let said = format!(
        "{} lines and {:.1} kB of line protocol a VM and gather (with a `host` tag), {values} field values, {} series in InfluxDB, {numbers} series in Prometheus",
        gather.len(),
        bytes as f64 / 1000.0,
        series.len(),
    );
    let pages = pages().split_whitespace().collect::<Vec<_>>().join(" ");
    assert!(pages.contains(&said), "docs/fleets.md should say: {said}");
}
