//! A running telegraf-kvm, driven as by Telegraf: newlines in, lines out.

use super::capture::Capture;
use super::lines::{Line, lines};
use super::{child_of, config, program, wait_for};
use rustix::process::{Pid, Signal};
use std::cell::OnceCell;
use std::io::{Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// The longest time that a gather may take; a test that waits longer fails.
const LIMIT: Duration = Duration::from_secs(30);
/// A gather is written without a pause, so a pause in the output is its end.
const PAUSE: Duration = Duration::from_millis(300);
/// The same where the program is seen to write no more ([`Plugin::waits_for_messages`]).
const SHORT_PAUSE: Duration = Duration::from_millis(50);

/// A command that runs `line` in a shell on a terminal of its own; our pipes are its keyboard and its screen.
pub fn on_terminal(line: &str) -> Child {
    Command::new(program("script"))
        .args(["-qec", line, "/dev/null"])
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap()
}

/// Waits for the first byte on the program's stdout, and reads only that one.
pub fn read_first_byte(child: &mut Child) {
    let stdout = child.stdout.as_mut().unwrap();
    stdout.read_exact(&mut [0]).unwrap();
}

/// Waits for output, reads what is there and appends it to `text`; panics if the output has ended.
pub fn read_some(from: &mut impl Read, text: &mut String) {
    let mut bytes = [0; 4096];
    let count = from.read(&mut bytes).unwrap();
    assert!(count > 0, "it ended after {text:?}");
    *text += std::str::from_utf8(&bytes[..count]).unwrap();
}

/// A running plugin, which is killed when the handle is dropped.
pub struct Plugin {
    child: Child,
    /// `None` after stdin was closed.
    pub stdin: Option<ChildStdin>,
    /// The pipe on the plugin's stdout, as /proc names it.
    pub stdout_pipe: PathBuf,
    stdout: Capture,
    stderr: Capture,
    inside: bool,
    pid: OnceCell<u32>,
    taken: usize,
}

impl Plugin {
    /// Starts the command that `Lab::plugin` (or another function) made, with pipes at stdin, stdout and
    /// stderr.
    pub fn spawn(mut command: Command) -> Plugin {
        let inside = command.get_program().to_string_lossy().ends_with("nsenter");
        let mut child = command
            // If the group contained a stopped process (a mount's), the kernel could send SIGHUP to the whole
            // group, which the plugin takes as a request to gather.
            .process_group(0)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let stdout = child.stdout.take().unwrap();
        let pipe = format!("/proc/self/fd/{}", stdout.as_raw_fd());
        Plugin {
            stdin: child.stdin.take(),
            stdout_pipe: std::fs::read_link(pipe).unwrap(),
            stdout: Capture::start(stdout),
            stderr: Capture::start(child.stderr.take().unwrap()),
            child,
            inside,
            pid: OnceCell::new(),
            taken: 0,
        }
    }

    /// The built binary outside of any lab, for `test:///default` and node files.
    pub fn outside(args: &[&str]) -> Command {
        let mut command = Command::new(env!("CARGO_BIN_EXE_telegraf-kvm"));
        command
            .args(args)
            .env_remove("LIBVIRT_DEFAULT_URI")
            .env_remove("RUST_LOG");
        command
    }

    /// A plugin outside of any lab with this configuration, whose file exists as long as the second handle.
    pub fn configured(uri: &str, settings: &str) -> (Plugin, NamedTempFile) {
        let file = config(settings);
        let path = file.path().to_str().unwrap();
        let plugin = Plugin::spawn(Plugin::outside(&["--uri", uri, "--config", path]));
        (plugin, file)
    }

    /// Sends a newline and returns the lines of that gather; panics if none come in 30 s.
    pub fn gather(&mut self) -> Vec<Line> {
        self.newline();
        self.next_gather()
    }

    /// The same, and how long it took from the newline to the last byte.
    pub fn timed_gather(&mut self) -> (Vec<Line>, Duration) {
        let start = Instant::now();
        let found = self.gather();
        let last = self.stdout.so_far().last.unwrap();
        (found, last.saturating_duration_since(start))
    }

    /// The warnings and errors that the plugin has logged so far.
    pub fn warnings(&self) -> Vec<String> {
        let said = self.stderr();
        let bad = |line: &&str| line.starts_with("W! ") || line.starts_with("E! ");
        said.lines().filter(bad).map(str::to_owned).collect()
    }

    /// Requests a gather without waiting for it.
    pub fn newline(&mut self) {
        let stdin = self.stdin.as_mut().expect("stdin is open");
        if let Err(error) = stdin.write_all(b"\n") {
            panic!("the plugin reads no more ({error}):\n{}", self.stderr());
        }
    }

    /// The next lines until a pause: for gathers that a signal or the interval requests.
    pub fn next_gather(&mut self) -> Vec<Line> {
        let found = self.lines_within(LIMIT);
        assert!(
            !found.is_empty(),
            "no line in {LIMIT:?}; stderr:\n{}",
            self.stderr()
        );
        found
    }

    /// The lines that begin within `limit`, until a pause; empty if there are none.
    pub fn lines_within(&mut self, limit: Duration) -> Vec<Line> {
        let start = Instant::now();
        loop {
            // In this order: what the program wrote before it was seen to wait is there.
            let waits = self.waits_for_messages();
            let captured = self.stdout.so_far();
            let new = &captured.bytes[self.taken..];
            let pause = if waits { SHORT_PAUSE } else { PAUSE };
            let quiet = captured.closed || captured.last.is_some_and(|last| last.elapsed() > pause);
            if quiet && new.ends_with(b"\n") {
                let text = String::from_utf8(new.to_vec()).expect("stdout is UTF-8");
                self.taken = captured.bytes.len();
                return lines(&text);
            }
            if start.elapsed() > limit && new.is_empty() || captured.closed {
                assert!(new.is_empty(), "half a line: {new:?}");
                return Vec::new();
            }
            drop(captured);
            assert!(
                start.elapsed() < limit + LIMIT,
                "its output has no end; stderr:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Whether the program's main thread waits in a futex: for messages, so no write of its is under way. It
    /// writes a gather as a whole, and between two pieces it waits for nothing but the reader.
    fn waits_for_messages(&self) -> bool {
        self.started().is_some_and(|pid| {
            let at = std::fs::read_to_string(format!("/proc/{pid}/wchan"));
            at.is_ok_and(|at| at.contains("futex"))
        })
    }

    /// All output of one or several gathers, until there has been none for a second.
    pub fn gather_all(&mut self) -> Vec<Line> {
        let mut all = self.next_gather();
        loop {
            let more = self.lines_within(Duration::from_secs(1));
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    }

    /// The number of gathers in the output so far: each has a timestamp of its own.
    pub fn gathers(&self) -> usize {
        let text = self.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let mut timestamps: Vec<i64> = lines(whole).iter().map(|line| line.timestamp).collect();
        timestamps.dedup();
        timestamps.len()
    }

    /// Waits until the plugin has a handler for this signal: before that, the signal would kill it.
    pub fn wait_until_it_catches(&self, signal: rustix::process::Signal) {
        let bit = 1_u64 << (signal.as_raw() - 1);
        wait_for("its signal handlers", LIMIT, || {
            let status = std::fs::read_to_string(format!("/proc/{}/status", self.pid())).ok()?;
            let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"))?;
            let caught = u64::from_str_radix(caught.trim(), 16).ok()?;
            (caught & bit != 0).then_some(())
        });
    }

    /// All output on stdout so far, unchanged.
    pub fn stdout(&self) -> String {
        String::from_utf8(self.stdout.so_far().bytes.clone()).expect("stdout is UTF-8")
    }

    /// All that the plugin has logged so far.
    pub fn stderr(&self) -> String {
        String::from_utf8_lossy(&self.stderr.so_far().bytes).into_owned()
    }

    /// Waits until stderr contains `text`.
    pub fn wait_for_log(&self, text: &str) {
        wait_for(&format!("{text:?} in the log"), LIMIT, || {
            self.stderr().contains(text).then_some(())
        });
    }

    /// The plugin's process id as this process numbers it (not nsenter's).
    pub fn pid(&self) -> u32 {
        wait_for("the plugin's process", LIMIT, || self.started())
    }

    /// The same; `None` if the program has not been started yet, or has ended.
    fn started(&self) -> Option<u32> {
        if let Some(pid) = self.pid.get() {
            return Some(*pid);
        }
        let mut pid = self.child.id();
        // nsenter's child is setpriv at first (and a second setpriv for an ordinary user), and unshare
        // remains the parent of a plugin that must not see the lab's processes.
        if self.inside {
            pid = child_of(pid)?;
            loop {
                let exe = std::fs::read_link(format!("/proc/{pid}/exe")).ok()?;
                match exe.file_name()?.to_str()? {
                    "setpriv" | "nsenter" => return None,
                    "unshare" => pid = child_of(pid)?,
                    _ => break,
                }
            }
        }
        Some(*self.pid.get_or_init(|| pid))
    }

    /// Sends the plugin a signal.
    pub fn signal(&self, signal: Signal) {
        kill(self.pid(), signal);
        // nsenter stops while its child is stopped, and needs a SIGCONT of its own.
        if self.inside && signal == Signal::CONT {
            kill(self.child.id(), signal);
        }
    }

    /// Closes the plugin's stdin.
    pub fn close(&mut self) {
        self.stdin = None;
    }

    /// Waits for the plugin's end (stdin stays as it is); panics after `limit`.
    pub fn wait(&mut self, limit: Duration) -> ExitStatus {
        let start = Instant::now();
        loop {
            if let Some(status) = self.child.try_wait().unwrap() {
                // The plugin's last output may still be on its way through our threads.
                for captured in [&self.stdout, &self.stderr] {
                    wait_for("its pipes to close", LIMIT, || {
                        captured.so_far().closed.then_some(())
                    });
                }
                return status;
            }
            assert!(
                start.elapsed() < limit,
                "still there after {limit:?}; stderr:\n{}",
                self.stderr()
            );
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Plugin {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Sends a signal to a process, as this process numbers it.
pub fn kill(pid: u32, signal: Signal) {
    let pid = Pid::from_raw(pid.cast_signed()).unwrap();
    rustix::process::kill_process(pid, signal).unwrap();
}
