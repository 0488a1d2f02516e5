//! The stanzas for Kafka against a broker: Apache Kafka, one node, which keeps its own metadata (KRaft). Its jars and a
//! Java are there with `tests/run --long` alone.

use super::stanzas::{Server, arrives, stored};
use super::{spec, stanza, telegraf};
use crate::agent::{self, Config};
use crate::support::influxd::{Influxd, influx};
use crate::support::lab::Lab;
use crate::support::{cached, succeed, turn};
use rustix::process::Signal;
use std::path::Path;

/// A broker on port 9092, which makes topics of three partitions when they are first written to.
fn broker(lab: &Lab) -> Server {
    let dir = lab.dir().join("kafka");
    std::fs::create_dir(&dir).unwrap();
    let properties = dir.join("server.properties");
    let text = format!(
        "process.roles=broker,controller\nnode.id=1\nnum.partitions=3\n\
         listeners=PLAINTEXT://127.0.0.1:9092,CONTROLLER://127.0.0.1:9093\n\
         controller.quorum.bootstrap.servers=127.0.0.1:9093\ncontroller.listener.names=CONTROLLER\n\
         offsets.topic.replication.factor=1\nlog.dirs={}/log\n",
        dir.display()
    );
    std::fs::write(&properties, text).unwrap();
    let jars = format!("{}/*", cached("kafka").display());
    let java = |class: &'static str| ["-Xmx512m", "-XX:TieredStopAtLevel=1", "-cp", &jars, class];
    let properties = properties.to_str().unwrap();
    let mut format = lab.command("java");
    format.args(java("kafka.tools.StorageTool")).args([
        "format",
        "--standalone",
        "--cluster-id",
        "5L6g3nShT-eMCtK--X86sw",
        "--config",
        properties,
    ]);
    succeed(&mut format);
    let args = [&java("kafka.Kafka") as &[&str], &[properties]].concat();
    Server::start(lab, "java", &args, 9092)
}

#[test]
#[ignore = "wants Kafka's jars and a Java: tests/run --long"]
fn the_stanzas_bring_every_line_through_kafka() {
    let _turn = turn::share();
    let lab = Lab::start();
    lab.create(&spec());
    let _influxd = Influxd::start(&lab);
    for database in ["telegraf", "through_kafka"] {
        influx(&lab, &format!("CREATE DATABASE {database}"));
    }
    let _broker = broker(&lab);
    let influxdb = stanza("[[outputs.influxdb]]");
    let influxdb = &influxdb[influxdb.find("[[outputs").unwrap()..];
    // Several hosts, whose lines go to several partitions.
    let host = |name: &str| {
        let mut config = Config::new(&[]);
        config.execd = format!("[inputs.execd.tags]\nhost = {name:?}\n");
        config.extra = format!("{}\n{influxdb}", stanza("[[outputs.kafka]]"));
        telegraf(&lab, name, |dir: &Path| config.toml(dir))
    };
    let mut producers = ["kvm01", "kvm02", "kvm03"].map(host);
    for producer in &producers {
        producer.gathers(3);
    }
    // The consumer starts late: it gets the earlier lines from the broker.
    let consume = format!(
        "{}\n{}",
        stanza("[[inputs.kafka_consumer]]"),
        influxdb.replace("\"telegraf\"", "\"through_kafka\"")
    );
    let consumer = telegraf(&lab, "consumer", |dir| {
        agent::general(dir, "1s", false) + &consume
    });
    let mut lines = 0;
    for producer in &mut producers {
        producer.gathers(8);
        let plugin = producer.plugin_pid();
        producer.signal(Signal::TERM);
        producer.ends(plugin);
        assert!(!producer.log().contains("E!"), "{}", producer.log());
        lines += producer.out().len();
    }
    assert_eq!(stored(&lab, "telegraf"), lines);
    arrives(&lab, "through_kafka", lines, &consumer);
}
