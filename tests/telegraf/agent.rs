//! A running Telegraf: its configuration, its log, and the output of its outputs.file.

use crate::support::lab::Lab;
use crate::support::lines::{Line, all_lines, lines};
use crate::support::turn::{self, Turn};
use crate::support::{child_of, is_start, program, wait_for};
use rustix::process::{Pid, Signal};
use std::collections::BTreeMap;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// No wait here takes so long; a test that waits longer fails.
pub const LIMIT: Duration = Duration::from_secs(60);

/// The built program.
pub const PLUGIN: &str = env!("CARGO_BIN_EXE_telegraf-kvm");

/// A Telegraf configuration with one execd input and one outputs.file.
pub struct Config {
    /// The program and its arguments.
    pub command: Vec<String>,
    /// Telegraf's `signal`.
    pub signal: &'static str,
    /// Telegraf's `interval`.
    pub interval: &'static str,
    /// Whether Telegraf logs debug messages.
    pub debug: bool,
    /// Further lines of the execd stanza.
    pub execd: String,
    /// Further stanzas.
    pub extra: String,
}

impl Config {
    /// The plugin with these arguments; Telegraf requests a gather each second by a newline.
    pub fn new(args: &[&str]) -> Config {
        let words = [PLUGIN].into_iter().chain(args.iter().copied());
        Config {
            command: words.map(str::to_owned).collect(),
            signal: "STDIN",
            interval: "1s",
            debug: false,
            execd: String::new(),
            extra: String::new(),
        }
    }

    /// The same command, with a copy of its output in `copy`, byte by byte. Its process is still the one that
    /// Telegraf started.
    pub fn copied_to(mut self, copy: &Path) -> Config {
        let script = r#"copy=$0; "$@" | tee "$copy"; exec >/dev/null 2>&1; sleep 0.5"#;
        let head = ["bash", "-c", script, copy.to_str().unwrap()].map(str::to_owned);
        self.command.splice(0..0, head);
        self
    }

    /// The configuration as TOML; log and output are in `dir`.
    pub fn toml(&self, dir: &Path) -> String {
        format!(
            "{}[[inputs.execd]]\ncommand = {:?}\nsignal = {:?}\nrestart_delay = \"1s\"\n\
             data_format = \"influx\"\n{}\n{}",
            general(dir, self.interval, self.debug),
            self.command,
            self.signal,
            self.execd,
            self.extra
        )
    }
}

/// Everything except the inputs: short flush intervals, no host tag, `log` and `out` in `dir`.
pub fn general(dir: &Path, interval: &str, debug: bool) -> String {
    format!(
        "[agent]\ninterval = {interval:?}\nflush_interval = \"200ms\"\nflush_jitter = \"0s\"\n\
         omit_hostname = true\nmetric_buffer_limit = 100000\ndebug = {debug}\nlogfile = {:?}\n\
         [[outputs.file]]\nfiles = [{:?}]\ndata_format = \"influx\"\n",
        dir.join("log"),
        dir.join("out")
    )
}

/// `telegraf` with that configuration, in a process group of its own, as on a terminal; no environment
/// variable of this process affects the plugin.
pub fn command(dir: &Path, toml: &str) -> Command {
    configured(Command::new(program("telegraf")), dir, toml)
}

/// The same inside a lab, with its files in the lab's folder.
pub fn command_in(lab: &Lab, toml: &str) -> Command {
    configured(lab.command("telegraf"), lab.dir(), toml)
}

fn configured(mut command: Command, dir: &Path, toml: &str) -> Command {
    let file = dir.join("telegraf.conf");
    std::fs::write(&file, toml).unwrap();
    command
        .arg("--config")
        .arg(file)
        .env_remove("LIBVIRT_DEFAULT_URI")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null())
        .process_group(0);
    command
}

/// A running Telegraf. When it is dropped, it is killed; its plugin then gets the end of stdin.
pub struct Telegraf {
    /// Telegraf, or the nsenter that waits for it.
    child: Child,
    pid: u32,
    dir: PathBuf,
    _turn: Turn,
}

impl Telegraf {
    /// Starts Telegraf; log and output are written to `dir`.
    pub fn start(dir: &Path, config: &Config) -> Telegraf {
        Telegraf::spawn(dir, command(dir, &config.toml(dir)))
    }

    /// Starts the command that [`command`] made.
    pub fn spawn(dir: &Path, mut command: Command) -> Telegraf {
        let turn = turn::take();
        let console = File::create(dir.join("console")).unwrap();
        let child = command
            .stdout(console.try_clone().unwrap())
            .stderr(console)
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let inside = command.get_program().to_string_lossy().ends_with("nsenter");
        let pid = if inside {
            wait_for("Telegraf", LIMIT, || child_of(child.id()))
        } else {
            child.id()
        };
        Telegraf {
            child,
            pid,
            dir: dir.to_owned(),
            _turn: turn,
        }
    }

    /// All that Telegraf has logged so far.
    pub fn log(&self) -> String {
        let read = |name| std::fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        read("console") + &read("log")
    }

    /// The lines of the log that concern the plugin: level and message, without the plugin's line of its start, and
    /// without Telegraf's messages on starting and stopping it.
    pub fn plugin_log(&self) -> Vec<(char, String)> {
        let log = self.log();
        let ours = |line: &str| {
            let (head, message) = line.split_once(" [inputs.execd] ")?;
            let level = head.strip_suffix('!')?.chars().last()?;
            let telegrafs = ["Starting process: ", "Process "];
            let telegrafs = level == 'I' && telegrafs.iter().any(|word| message.starts_with(word));
            (!telegrafs && !is_start(level, message)).then(|| (level, message.to_owned()))
        };
        log.lines().filter_map(ours).collect()
    }

    /// Waits until the log contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        let start = Instant::now();
        while !self.log().contains(text) {
            let log = self.log();
            assert!(start.elapsed() < LIMIT, "no {text:?} in the log:\n{log}");
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// The complete lines of VMs in the output so far.
    pub fn out(&self) -> Vec<Line> {
        lines(&self.whole_lines())
    }

    /// The same with the lines of vm_collector.
    pub fn all_out(&self) -> Vec<Line> {
        all_lines(&self.whole_lines())
    }

    fn whole_lines(&self) -> String {
        let mut text = std::fs::read_to_string(self.dir.join("out")).unwrap_or_default();
        text.truncate(text.rfind('\n').map_or(0, |end| end + 1));
        text
    }

    /// The first `count` gathers, by time: waits until one more has begun.
    pub fn gathers(&self, count: usize) -> Vec<Vec<Line>> {
        let start = Instant::now();
        loop {
            let gathers = by_time(self.out());
            if gathers.len() > count {
                return gathers.into_values().take(count).collect();
            }
            let log = self.log();
            assert!(start.elapsed() < LIMIT, "{} gathers:\n{log}", gathers.len());
            std::thread::sleep(Duration::from_millis(50));
        }
    }

    /// The process id of the plugin.
    pub fn plugin_pid(&self) -> u32 {
        wait_for("Telegraf's child", LIMIT, || child_of(self.pid))
    }

    /// Sends a signal to Telegraf alone.
    pub fn signal(&self, signal: Signal) {
        rustix::process::kill_process(self.pid(), signal).unwrap();
    }

    /// Sends a signal to Telegraf and all its child processes, as a terminal does.
    pub fn signal_group(&self, signal: Signal) {
        rustix::process::kill_process_group(self.pid(), signal).unwrap();
    }

    fn pid(&self) -> Pid {
        Pid::from_raw(self.pid.cast_signed()).unwrap()
    }

    /// Waits for Telegraf's end, which must be a success within 5 s and leave no plugin.
    pub fn ends(&mut self, plugin: u32) {
        let start = Instant::now();
        let status = loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                break status;
            }
            let log = self.log();
            let limit = Duration::from_secs(5);
            assert!(
                start.elapsed() < limit,
                "still there after {limit:?}:\n{log}"
            );
            std::thread::sleep(Duration::from_millis(10));
        };
        assert!(status.success(), "{status}:\n{}", self.log());
        assert!(!alive(plugin), "the plugin outlives Telegraf");
    }
}

impl Drop for Telegraf {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Whether that process exists and is no zombie.
pub fn alive(pid: u32) -> bool {
    std::fs::read_to_string(format!("/proc/{pid}/stat"))
        .is_ok_and(|stat| !stat[stat.rfind(')').unwrap()..].starts_with(") Z"))
}

/// Groups the lines by time: lines with the same time are one gather.
pub fn by_time(lines: Vec<Line>) -> BTreeMap<i64, Vec<Line>> {
    let mut gathers: BTreeMap<i64, Vec<Line>> = BTreeMap::new();
    for line in lines {
        gathers.entry(line.timestamp).or_default().push(line);
    }
    gathers
}

/// The lines in an order that does not depend on the order of their writing.
pub fn sorted(mut lines: Vec<Line>) -> Vec<Line> {
    lines.sort_by_cached_key(|line| format!("{} {line:?}", line.timestamp));
    lines
}
