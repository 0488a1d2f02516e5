//! A Prometheus in the lab, and what it says.

use crate::agent::LIMIT;
use crate::support::lab::Lab;
use crate::support::{succeed, wait_for};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};

/// A running Prometheus, which ends with its handle.
pub struct Prometheus<'lab> {
    lab: &'lab Lab,
    child: Child,
}

/// A series' labels.
pub type Labels = BTreeMap<String, String>;

/// Prints for each series of a query, or each alert, its labels, and what is asked for, as JSON.
const ASK: &str = "import json,sys,urllib.parse,urllib.request as u
q = 'http://127.0.0.1:9090/api/v1/query?' + urllib.parse.urlencode({'query': sys.argv[1]})
for one in json.load(u.urlopen(q))['data']['result']:
    print(*(k + '=' + v for k, v in sorted(one['metric'].items())), one['value'][1], sep='\\t')";

const ALERTS: &str = "import json,urllib.request as u
for one in json.load(u.urlopen('http://127.0.0.1:9090/api/v1/alerts'))['data']['alerts']:
    for key, text in one['annotations'].items():
        print(one['labels']['alertname'], one['state'], one['labels'].get('host'), one['labels'].get('name'), key, text, sep='\\t')";

/// An alert of which one annotation is here.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Annotation {
    pub alert: String,
    pub state: String,
    pub host: String,
    pub name: String,
    pub key: String,
    pub text: String,
}

impl<'lab> Prometheus<'lab> {
    /// Starts it with this configuration and these further arguments.
    pub fn start(lab: &'lab Lab, yaml: &str, args: &[&str]) -> Prometheus<'lab> {
        let file = lab.dir().join("prometheus.yml");
        std::fs::write(&file, yaml).unwrap();
        let log = std::fs::File::create(lab.dir().join("prometheus.log")).unwrap();
        let mut command = lab.command("prometheus");
        command
            .arg(format!("--config.file={}", file.display()))
            .arg(format!(
                "--storage.tsdb.path={}",
                lab.dir().join("prometheus").display()
            ))
            .arg("--web.listen-address=127.0.0.1:9090")
            .args(args)
            .stdin(Stdio::null())
            .stdout(log.try_clone().unwrap())
            .stderr(log);
        let server = Prometheus {
            lab,
            child: command.spawn().unwrap(),
        };
        wait_for("Prometheus", LIMIT, || {
            let mut ask = lab.command("bash");
            ask.args(["-c", "exec 3<>/dev/tcp/127.0.0.1/9090"])
                .stderr(Stdio::null());
            ask.status().unwrap().success().then_some(())
        });
        server
    }

    /// The answer of a query: labels and value of each series.
    pub fn query(&self, query: &str) -> Vec<(Labels, f64)> {
        let text = succeed(self.lab.command("python3").args(["-c", ASK, query]));
        let row = |line: &str| {
            let mut cells: Vec<_> = line.split('\t').collect();
            let value = cells.pop().unwrap().parse().unwrap();
            let pair = |cell: &str| {
                let (key, value) = cell.split_once('=').unwrap();
                (key.to_owned(), value.to_owned())
            };
            (cells.into_iter().map(pair).collect(), value)
        };
        text.lines().map(row).collect()
    }

    /// The alerts that are pending or fire, annotation by annotation.
    pub fn alerts(&self) -> Vec<Annotation> {
        let text = succeed(self.lab.command("python3").args(["-c", ALERTS]));
        let one = |line: &str| {
            let cells: Vec<_> = line.splitn(6, '\t').map(str::to_owned).collect();
            let [alert, state, host, name, key, text] = cells.try_into().unwrap();
            Annotation {
                alert,
                state,
                host,
                name,
                key,
                text,
            }
        };
        text.lines().map(one).collect()
    }
}

impl Drop for Prometheus<'_> {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
