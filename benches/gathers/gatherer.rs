//! Processes that gather at each newline and write the result to stdout: telegraf-kvm, and the floor.

use std::cell::RefCell;
use std::io::{Read, Write};
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::time::{Duration, Instant};

use crate::support::lab::Lab;
use crate::support::{self, child_of};

/// A running one of these processes.
pub struct Gatherer {
    child: Child,
    inside: bool,
    stdin: Option<ChildStdin>,
    stdout: ChildStdout,
    last_line: &'static str,
    buffer: Vec<u8>,
    /// The size of the last answer in bytes.
    pub bytes: usize,
    /// The number of lines of the last answer.
    pub lines: usize,
    /// The last line of the last answer.
    pub last: String,
}

impl Gatherer {
    /// Starts the command; each of its answers ends with a line that begins with `last_line`.
    pub fn spawn(mut command: Command, last_line: &'static str) -> Self {
        let inside = command.get_program().to_string_lossy().ends_with("nsenter");
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().unwrap();
        Self {
            stdin: child.stdin.take(),
            stdout: child.stdout.take().unwrap(),
            child,
            inside,
            last_line,
            buffer: vec![0; 1 << 20],
            bytes: 0,
            lines: 0,
            last: String::new(),
        }
    }

    /// telegraf-kvm on a lab's VMs, run as the service user, with these `settings`. The line vm_collector ends
    /// a gather and counts the calls.
    pub fn plugin(lab: &Lab, settings: &str) -> Self {
        let config = lab.config(settings);
        let command = lab.plugin_unprivileged(&["--config", &config]);
        Self::spawn(command, "vm_collector")
    }

    /// Another build of telegraf-kvm, likewise.
    pub fn other(lab: &Lab, program: &str, settings: &str) -> Self {
        let copy = lab.dir().join("other");
        support::copy_program(program, &copy);
        let config = lab.config(settings);
        let mut command = lab.command("setpriv");
        command.args(["--pdeathsig", "KILL", "--reuid=65534", "--regid=65534"]);
        command.args(["--clear-groups".as_ref(), copy.as_os_str()]);
        command.args(["--config", &config]);
        Self::spawn(command, "vm_collector")
    }

    /// telegraf-kvm in a lab, with another URI.
    pub fn plugin_of(lab: &Lab, uri: &str, settings: &str) -> Self {
        let config = lab.config(settings);
        let command = lab.plugin(&["--config", &config, "--uri", uri]);
        Self::spawn(command, "vm_collector")
    }

    /// The floor (`benches/floor.c`), in a lab.
    pub fn floor(lab: &Lab, args: &[&str]) -> Self {
        let mut command = lab.command(support::cached("floor").to_str().unwrap());
        command.args(args);
        Self::spawn(command, "done")
    }

    /// Runs one gather: from the newline to the last byte.
    pub fn gather(&mut self) -> Duration {
        let start = Instant::now();
        self.stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        (self.bytes, self.lines) = (0, 0);
        // The incomplete last line, which is at the start of the buffer.
        let mut begun = 0;
        loop {
            let read = self.stdout.read(&mut self.buffer[begun..]).unwrap();
            assert_ne!(read, 0, "it ended: {:?}", self.child.try_wait());
            self.bytes += read;
            let come = &self.buffer[..begun + read];
            let ends = memchr::memchr_iter(b'\n', come);
            self.lines += ends.count();
            let Some(end) = memchr::memrchr(b'\n', come) else {
                begun += read;
                continue;
            };
            let last = memchr::memrchr(b'\n', &come[..end]).map_or(0, |at| at + 1);
            if come[last..].starts_with(self.last_line.as_bytes()) {
                let took = start.elapsed();
                self.last = String::from_utf8_lossy(&come[last..=end]).into_owned();
                return took;
            }
            let rest = end + 1..begun + read;
            begun = rest.len();
            self.buffer.copy_within(rest, 0);
        }
    }

    /// Closes the program's stdin and waits until it has ended.
    pub fn finish(mut self) {
        drop(self.stdin.take());
        let status = self.child.wait().unwrap();
        assert!(status.success(), "{status}");
    }

    /// The process id of the program.
    pub fn pid(&self) -> u32 {
        // The command is nsenter, which forks, and setpriv, which does not.
        let mut pid = self.child.id();
        if self.inside {
            pid = child_of(pid).unwrap();
        }
        pid
    }

    /// A shared handle, for the table's rows and for code that reads the figures beside them.
    pub fn share(self) -> RefCell<Self> {
        RefCell::new(self)
    }
}

impl Drop for Gatherer {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// The calls to libvirt by kind between two lines `vm_collector`, without those of count 0.
pub fn calls(before: &str, after: &str) -> String {
    let figures = |line: &str| -> Vec<(String, u64)> {
        let fields = line.split(' ').nth(1).unwrap_or_default().split(',');
        let pairs = fields.filter_map(|field| field.split_once('='));
        let wanted = pairs.filter(|(key, _)| key.starts_with("calls_") || *key == "xml_reads");
        wanted
            .filter(|(key, _)| *key != "calls_hanging")
            .map(|(key, value)| {
                let value = value.trim_end_matches('i').parse().unwrap();
                (key.trim_start_matches("calls_").replace('_', " "), value)
            })
            .collect()
    };
    let (before, after) = (figures(before), figures(after));
    let new = before.iter().zip(&after).filter(|(b, a)| a.1 > b.1);
    let new: Vec<String> = new.map(|(b, a)| format!("{} {}", a.1 - b.1, a.0)).collect();
    new.join(", ")
}
