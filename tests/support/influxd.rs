//! A real InfluxDB 1.x inside a lab. The lab has a network of its own, so no port of this machine is used.

use super::lab::Lab;
use super::{succeed, wait_for};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::Duration;

/// InfluxDB's default port; nothing else in the lab uses it.
pub const SERVER: &str = "127.0.0.1:8086";

/// A running influxd, which ends with its lab at the latest.
pub struct Influxd(Child);

impl Influxd {
    /// Starts influxd and waits until it answers; its files are in the lab's folder.
    pub fn start(lab: &Lab) -> Influxd {
        let dir = lab.dir().join("influxdb");
        std::fs::create_dir(&dir).unwrap();
        let file = dir.join("influxdb.conf");
        let folder = dir.display();
        let conf = format!(
            "reporting-disabled = true\nbind-address = \"127.0.0.1:8088\"\n\
             [meta]\ndir = \"{folder}/meta\"\n[data]\ndir = \"{folder}/data\"\nwal-dir = \"{folder}/wal\"\n\
             [http]\nbind-address = \"{SERVER}\"\n"
        );
        std::fs::write(&file, conf).unwrap();
        let log = std::fs::File::create(dir.join("log")).unwrap();
        let mut command = lab.command("influxd");
        command.arg("-config").arg(&file);
        let influxd = command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log);
        let influxd = Influxd(influxd.spawn().unwrap());
        wait_for("influxd", Duration::from_secs(60), || {
            let mut ask = lab.command("influx");
            let answer = ask.args(["-execute", "SHOW DATABASES"]).output().unwrap();
            answer.status.success().then_some(())
        });
        influxd
    }
}

impl Drop for Influxd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// The rows of an InfluxQL query: series by series, each as name and columns.
pub fn influx(lab: &Lab, query: &str) -> Vec<(String, BTreeMap<String, String>)> {
    let mut command = lab.command("influx");
    command.args(["-database", "telegraf", "-format", "csv", "-execute", query]);
    let mut header = Vec::new();
    let mut rows = Vec::new();
    for line in succeed(&mut command)
        .lines()
        .filter(|line| !line.is_empty())
    {
        let values: Vec<String> = line.split(',').map(str::to_owned).collect();
        if values[0] == "name" {
            header = values;
        } else {
            let row = header.iter().cloned().zip(values.iter().cloned()).skip(1);
            rows.push((values[0].clone(), row.collect()));
        }
    }
    rows
}
