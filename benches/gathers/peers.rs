//! Other programs that gather from libvirt, where they are installed.

use std::fs;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::support::lab::Lab;
use crate::support::{child_of, wait_for};
use crate::table::Subject;

/// A peer, or the name of one that is not installed.
pub type Peer = Result<Subject<'static>, &'static str>;

/// The peers that also gather from libvirt's paused VMs. A gather of `vms` VMs must end within seconds.
pub fn start(lab: &Lab, vms: usize) -> Vec<Peer> {
    vec![telegraf(lab, vms), exporter(lab)]
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

    /// The process id of the program, which is the child of nsenter.
    fn program(&self, name: &str) -> u32 {
        let limit = Duration::from_secs(10);
        wait_for(name, limit, || child_of(self.0.id()))
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Telegraf with inputs.libvirt and its default groups. Telegraf reports by itself how long it gathered
/// (inputs.internal). It gathers by its own timer, at the multiples of its interval, so it is stopped between its
/// turns. A turn begins in the first half of an interval whose beginning Telegraf has missed: it gathers then at
/// once, and no second gather begins before the turn's end.
fn telegraf(lab: &Lab, vms: usize) -> Peer {
    const NAME: &str = "Telegraf's inputs.libvirt";
    if !installed("telegraf") {
        return Err(NAME);
    }
    let out = lab.dir().join("telegraf.out");
    let interval = Duration::from_secs(5 * vms.div_ceil(100) as u64);
    let config = lab.config(&format!(
        "[agent]\ninterval = \"200ms\"\nflush_interval = \"200ms\"\nomit_hostname = true\n\
         [[inputs.libvirt]]\nlibvirt_uri = \"qemu:///system\"\ninterval = \"{}s\"\n\
         [[inputs.internal]]\ncollect_memstats = false\nnamepass = [\"internal_gather\"]\n\
         [[outputs.file]]\nfiles = [\"{}\"]\nnamepass = [\"internal_gather\"]\n",
        interval.as_secs(),
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
    let pid = running.program("telegraf");
    let limit = Duration::from_secs(60);
    // The number of metrics grows while Telegraf gathers; the time is written at the end.
    let gathered = move |before: u64| {
        let [.., earlier, (metrics, took)] = gathers()[..] else {
            return None;
        };
        let new = metrics > before && earlier.0 == metrics;
        new.then_some((metrics, Duration::from_nanos(took)))
    };
    let (mut before, _) = wait_for("its first gather", limit, || gathered(0));
    signal(pid, "STOP");
    let (mut last, mut usual) = (period(interval).0, None);
    let gather = move || {
        let _alive = &running;
        wait_for("the next interval", interval * 2, || {
            let (number, since) = period(interval);
            (number > last && since < interval / 2).then_some(())
        });
        signal(pid, "CONT");
        let (metrics, took) = wait_for("a gather of Telegraf", limit, || gathered(before));
        signal(pid, "STOP");
        last = period(interval).0;
        let new = metrics - before;
        before = metrics;
        if *usual.get_or_insert(new) != new {
            eprintln!("a turn of Telegraf brought {new} metrics, the first one {usual:?}");
        }
        took
    };
    Ok(Subject {
        name: NAME.into(),
        gather: Box::new(gather),
        pid: Some(pid),
        gathers: 1,
    })
}

/// How many intervals the clock has completed, and the time since the last one's end.
fn period(interval: Duration) -> (u128, Duration) {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let number = now.as_nanos() / interval.as_nanos();
    let since = now.as_nanos() % interval.as_nanos();
    (number, Duration::from_nanos(since as u64))
}

fn field(line: &str, key: &str) -> Option<u64> {
    let (_, rest) = line.split_once(key)?;
    rest.split(['i', ',', ' ']).next()?.parse().ok()
}

/// Debian's prometheus-libvirt-exporter: one scrape, by curl.
fn exporter(lab: &Lab) -> Peer {
    const NAME: &str = "prometheus-libvirt-exporter, a scrape";
    if !installed("prometheus-libvirt-exporter") || !installed("curl") {
        return Err(NAME);
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
    let pid = running.program("prometheus-libvirt-exporter");
    let gather = move || {
        let _alive = &running;
        takes(&mut curl)
    };
    Ok(Subject {
        name: NAME.into(),
        gather: Box::new(gather),
        pid: Some(pid),
        gathers: 1,
    })
}

/// The time of a command that gathers once.
pub fn takes(command: &mut Command) -> Duration {
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    start.elapsed()
}

/// collectd's virt plugin, with its default figures. With an interval of a millisecond it reads without a
/// pause, and it logs how long each read took; it is stopped between its turns, just after the end of a read.
/// The time of the first read of a turn includes the stop, so a turn has two.
pub fn collectd(lab: &Lab) -> Peer {
    const NAME: &str = "collectd's virt plugin";
    if !installed("collectd") {
        return Err(NAME);
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
    let pid = running.program("collectd");
    // The first read includes the descriptions.
    wait_for("its first reads", limit, || {
        (reads().len() >= 2).then_some(())
    });
    signal(pid, "STOP");
    let gather = move || {
        let _alive = &running;
        let before = reads().len();
        signal(pid, "CONT");
        let start = Instant::now();
        let took = loop {
            if let Some(took) = reads().get(before + 1) {
                break *took;
            }
            assert!(start.elapsed() < limit, "no read of collectd ends");
            std::thread::sleep(Duration::from_millis(2));
        };
        signal(pid, "STOP");
        Duration::from_secs_f64(took)
    };
    Ok(Subject {
        name: NAME.into(),
        gather: Box::new(gather),
        pid: Some(pid),
        gathers: 2,
    })
}

fn signal(pid: u32, name: &str) {
    let mut kill = Command::new("kill");
    let status = kill.args(["-s", name, &pid.to_string()]).status();
    assert!(status.unwrap().success(), "{name} to {pid}");
}
