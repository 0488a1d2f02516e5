//! Other programs that gather from libvirt, where they are installed.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::takes;
use crate::support::lab::Lab;
use crate::support::{child_of, wait_for};

/// One such program.
pub enum Peer {
    Runs {
        name: &'static str,
        gather: Box<dyn FnMut() -> Duration>,
    },
    Lacks(&'static str),
}

/// The peers that also gather from libvirt's paused VMs.
pub fn start(lab: &Lab) -> Vec<Peer> {
    vec![telegraf(lab), exporter(lab)]
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        || Path::new("/usr/sbin").join(program).is_file()
}

/// A process that is killed when its handle is dropped.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        let command = command.stdin(Stdio::null()).stdout(Stdio::null());
        Self(command.stderr(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Telegraf with inputs.libvirt and its default groups. Telegraf reports by itself how long it gathered
/// (inputs.internal). It gathers by its own timer, so it is stopped between its turns; the interval leaves it
/// idle most of the time, so that a stop seldom falls into a gather.
fn telegraf(lab: &Lab) -> Peer {
    const NAME: &str = "Telegraf's inputs.libvirt";
    if !installed("telegraf") {
        return Peer::Lacks(NAME);
    }
    let out = lab.dir().join("telegraf.out");
    let config = lab.config(&format!(
        "[agent]\ninterval = \"200ms\"\nflush_interval = \"200ms\"\nomit_hostname = true\n\
         [[inputs.libvirt]]\nlibvirt_uri = \"qemu:///system\"\ninterval = \"5s\"\n\
         [[inputs.internal]]\ncollect_memstats = false\nnamepass = [\"internal_gather\"]\n\
         [[outputs.file]]\nfiles = [\"{}\"]\nnamepass = [\"internal_gather\"]\n",
        out.display()
    ));
    let mut command = lab.command("telegraf");
    let running = Running::start(command.args(["--quiet", "--config", &config]));
    let gathers = move || {
        let text = fs::read_to_string(&out).unwrap_or_default();
        let ours = text.lines().filter(|line| line.contains("input=libvirt"));
        let figures: Vec<(u64, u64)> = ours
            .filter_map(|line| {
                Some((
                    field(line, "metrics_gathered=")?,
                    field(line, "gather_time_ns=")?,
                ))
            })
            .collect();
        figures
    };
    let pid = wait_for("telegraf", Duration::from_secs(10), || {
        child_of(running.0.id())
    });
    let limit = Duration::from_secs(60);
    wait_for("its first gather", limit, || {
        gathers()
            .last()
            .filter(|(metrics, _)| *metrics > 0)
            .map(drop)
    });
    signal(pid, "STOP");
    let gather = move || {
        let _alive = &running;
        let mut before = gathers().last().copied().unwrap_or_default().0;
        signal(pid, "CONT");
        let start = Instant::now();
        let took = wait_for("a gather of Telegraf", limit, || {
            // The number of metrics grows while Telegraf gathers; the time is written at the end.
            let [.., earlier, (metrics, took)] = gathers()[..] else {
                return None;
            };
            if metrics <= before || earlier.0 != metrics {
                return None;
            }
            before = metrics;
            // The gather took longer than this turn: it began before the stop, so it does not count.
            let took = Duration::from_nanos(took);
            (took <= start.elapsed()).then_some(took)
        });
        signal(pid, "STOP");
        took
    };
    Peer::Runs {
        name: NAME,
        gather: Box::new(gather),
    }
}

fn field(line: &str, key: &str) -> Option<u64> {
    let (_, rest) = line.split_once(key)?;
    rest.split(['i', ',', ' ']).next()?.parse().ok()
}

/// Debian's prometheus-libvirt-exporter: one scrape, by curl.
fn exporter(lab: &Lab) -> Peer {
    const NAME: &str = "prometheus-libvirt-exporter, a scrape";
    if !installed("prometheus-libvirt-exporter") || !installed("curl") {
        return Peer::Lacks(NAME);
    }
    const ADDRESS: &str = "127.0.0.1:9177";
    let mut command = lab.command("prometheus-libvirt-exporter");
    let running = Running::start(command.arg(format!("--web.listen-address={ADDRESS}")));
    let mut curl = lab.command("curl");
    curl.args(["-sf", "-o"]).arg(lab.dir().join("scrape"));
    curl.arg(format!("http://{ADDRESS}/metrics"));
    let start = Instant::now();
    while !curl.status().unwrap().success() {
        assert!(start.elapsed() < Duration::from_secs(60), "no scrape comes");
        std::thread::sleep(Duration::from_millis(100));
    }
    let curl = RefCell::new(curl);
    let gather = move || {
        let _alive = &running;
        takes(&mut curl.borrow_mut())
    };
    Peer::Runs {
        name: NAME,
        gather: Box::new(gather),
    }
}

/// collectd's virt plugin, with its default figures. With an interval of a millisecond it reads without a
/// pause, and it logs how long each read took; it is stopped between its turns.
pub fn collectd(lab: &Lab) -> Peer {
    const NAME: &str = "collectd's virt plugin (libvirtd's CPU: of two reads or more)";
    if !installed("collectd") {
        return Peer::Lacks(NAME);
    }
    let log = lab.dir().join("collectd.log");
    let config = lab.config(&format!(
        "BaseDir \"{}\"\nFQDNLookup false\nInterval 0.001\n\
         LoadPlugin logfile\n<Plugin logfile>\nLogLevel warning\nFile \"{}\"\n</Plugin>\n\
         LoadPlugin virt\n<Plugin virt>\nConnection \"qemu:///system\"\nRefreshInterval 60\n</Plugin>\n\
         PostCacheChain \"Drop\"\n<Chain \"Drop\">\nTarget \"stop\"\n</Chain>\n",
        lab.dir().display(),
        log.display()
    ));
    let running = Running::start(lab.command("collectd").args(["-f", "-C", &config]));
    let reads = move || -> Vec<f64> {
        let text = fs::read_to_string(&log).unwrap_or_default();
        let seconds = |line: &str| {
            let (_, rest) = line.split_once("plugin took ")?;
            rest.split(' ').next()?.parse().ok()
        };
        text.lines().filter_map(seconds).collect()
    };
    let limit = Duration::from_secs(60);
    let pid = wait_for("collectd", limit, || child_of(running.0.id()));
    // The first read includes the descriptions.
    wait_for("its first reads", limit, || {
        (reads().len() >= 2).then_some(())
    });
    signal(pid, "STOP");
    let gather = move || {
        let _alive = &running;
        let before = reads().len();
        signal(pid, "CONT");
        // The read that was interrupted by the stop does not count.
        let took = wait_for("a read of collectd's", limit, || {
            reads().get(before + 1).copied()
        });
        signal(pid, "STOP");
        Duration::from_secs_f64(took)
    };
    Peer::Runs {
        name: NAME,
        gather: Box::new(gather),
    }
}

fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.args(["-s", name, &pid.to_string()]).status();
    assert!(status.unwrap().success(), "{name} to {pid}");
}
