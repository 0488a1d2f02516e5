//! What else gathers from libvirt, where it is installed.

use std::cell::RefCell;
use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::fleet::takes;
use crate::support::lab::Lab;
use crate::support::{child_of, wait_for};

/// One of them.
pub enum Peer {
    Runs {
        name: &'static str,
        gather: Box<dyn FnMut() -> Duration>,
    },
    Lacks(&'static str),
}

/// Those that libvirt's paused VMs show to.
pub fn start(lab: &Lab) -> Vec<Peer> {
    vec![telegraf(lab), exporter(lab)]
}

fn installed(program: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|folder| folder.join(program).is_file())
        || Path::new("/usr/sbin").join(program).is_file()
}

/// A process that ends with its handle.
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

/// Telegraf with inputs.libvirt and the groups that it asks for by default; how long it gathered it
/// says itself (inputs.internal). It times itself, so between its turns it is stopped.
fn telegraf(lab: &Lab) -> Peer {
    const NAME: &str = "Telegraf's inputs.libvirt";
    if !installed("telegraf") {
        return Peer::Lacks(NAME);
    }
    let out = lab.dir().join("telegraf.out");
    let config = lab.config(&format!(
        "[agent]\ninterval = \"200ms\"\nflush_interval = \"200ms\"\nomit_hostname = true\n\
         [[inputs.libvirt]]\nlibvirt_uri = \"qemu:///system\"\ninterval = \"1s\"\n\
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
    let signal = move |name: &str| {
        Command::new("kill")
            .args(["-s", name, &pid.to_string()])
            .status()
            .unwrap();
    };
    wait_for("its first gather", limit, || {
        gathers()
            .last()
            .filter(|(metrics, _)| *metrics > 0)
            .map(drop)
    });
    signal("STOP");
    let gather = move || {
        let _alive = &running;
        let before = gathers().last().copied().unwrap_or_default().0;
        signal("CONT");
        let took = wait_for("a gather of Telegraf's", limit, || {
            let (metrics, took) = gathers().last().copied()?;
            (metrics > before).then_some(took)
        });
        signal("STOP");
        Duration::from_nanos(took)
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

/// Debian's prometheus-libvirt-exporter: a scrape, by curl.
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

/// collectd's virt plugin, which reads once and ends with -T.
pub fn collectd(lab: &Lab) -> Option<impl FnMut() -> Duration + use<>> {
    if !installed("collectd") {
        return None;
    }
    let config = lab.config(&format!(
        "BaseDir \"{}\"\nInterval 10\nLoadPlugin virt\n<Plugin virt>\n\
         Connection \"qemu:///system\"\nRefreshInterval 60\nExtraStats \"cpu_util disk pcpu vcpu memory\"\n</Plugin>\n",
        lab.dir().display()
    ));
    let mut command = lab.command("collectd");
    command
        .args(["-T", "-f", "-C", &config])
        .stderr(Stdio::null());
    Some(move || takes(&mut command))
}
