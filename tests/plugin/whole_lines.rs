//! The process ends while its reader does not read: however it ends, no line is cut.

use crate::support::lines::lines;
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::{Plugin, kill};
use crate::support::{wait_for, without_start};
use rustix::process::Signal;
use std::io::{BufRead, BufReader, PipeReader, PipeWriter, Read, Write};
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, ChildStdin, ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(60);
/// The capacity of an ordinary pipe (pipe(7)).
const PIPE: usize = 65_536;

/// Domains of 3 devices each: the lines of 200 fill a pipe, those of 1,000 a socket.
fn many(count: u32) -> NamedTempFile {
    domains(count, |number| format!("vm{number}"))
}

/// 20 domains whose lines have about that length.
fn long(bytes: usize) -> NamedTempFile {
    domains(20, |number| "x".repeat(bytes - 200) + &number.to_string())
}

fn domains(count: u32, name: impl Fn(u32) -> String) -> NamedTempFile {
    let domain = |number| Domain {
        devices: disk("disk", "vda") + &disk("disk", "vdb") + &nic(Some("tap0")),
        ..Domain::new(number, &name(number))
    };
    node::write(&(1..=count).map(domain).collect::<Vec<_>>())
}

/// The ways to end the program.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Stop {
    Signal(Signal),
    EndOfInput,
}

const STOPS: [Stop; 3] = [
    Stop::Signal(Signal::TERM),
    Stop::Signal(Signal::KILL),
    Stop::EndOfInput,
];

/// A running program whose reader does not read.
struct Stalled<R> {
    child: Child,
    stdin: Option<ChildStdin>,
    reader: R,
}

impl<R: AsFd + Read> Stalled<R> {
    /// Starts a program and requests a gather. `stdout` is the other end of `reader`, from which no process
    /// reads.
    fn start(uri: &str, reader: R, stdout: impl Into<OwnedFd>) -> Self {
        let mut command = Plugin::outside(&["--uri", uri]);
        let mut child = command
            .env("RUST_LOG", "debug")
            .stdin(Stdio::piped())
            .stdout(stdout.into())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        // The command holds the far end of the pipe.
        drop(command);
        let mut stdin = child.stdin.take();
        stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        Stalled {
            child,
            stdin,
            reader,
        }
    }

    /// Waits until the program waits for its reader.
    fn settle(&mut self) {
        // This is the last line that it logs before it writes.
        let mut said = BufReader::new(self.child.stderr.take().unwrap()).lines();
        assert!(said.any(|line| line.unwrap().contains(" hanging calls: ")));
        let (mut unread, mut since) = (0, Instant::now());
        wait_for("its output to stop growing", LONG, || {
            let now = rustix::io::ioctl_fionread(&self.reader).unwrap();
            if now != unread {
                (unread, since) = (now, Instant::now());
            }
            (since.elapsed() > Duration::from_millis(200)).then_some(())
        });
    }

    fn stop(&mut self, how: Stop) {
        match how {
            Stop::Signal(signal) => kill(self.child.id(), signal),
            Stop::EndOfInput => self.stdin = None,
        }
    }

    /// Waits for the program's end, and returns everything that its reader then finds.
    fn end(mut self) -> (ExitStatus, String) {
        let status = wait_for("its end", LONG, || self.child.try_wait().unwrap());
        let mut found = String::new();
        self.reader.read_to_string(&mut found).unwrap();
        (status, found)
    }
}

/// A pipe which already contains this many bytes.
fn filled(fill: usize) -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(&vec![b'#'; fill]).unwrap();
    (reader, writer)
}

/// Ends the program in each way, with each fill. What was found after the fill is passed to `expect`.
fn stop_all(file: &NamedTempFile, fills: &[usize], expect: impl Fn(&str, usize)) {
    let uri = node::uri(file);
    for stop in STOPS {
        let start = |fill: &usize| {
            let (reader, writer) = filled(*fill);
            Stalled::start(&uri, reader, writer)
        };
        // All at the same time, as each may take its 4 s.
        let mut stalled: Vec<_> = fills.iter().map(start).collect();
        stalled.iter_mut().for_each(Stalled::settle);
        stalled.iter_mut().for_each(|one| one.stop(stop));
        for (one, fill) in stalled.into_iter().zip(fills) {
            let (status, found) = one.end();
            let killed = stop == Stop::Signal(Signal::KILL);
            assert_eq!(status.code(), (!killed).then_some(0), "{stop:?}");
            let (_, found) = found.split_at(*fill);
            assert!(
                found.is_empty() || found.ends_with('\n'),
                "{stop:?}, {fill} bytes before it: {:?}",
                &found[found.rfind('\n').unwrap_or(0)..]
            );
            expect(found, *fill);
        }
    }
}

#[test]
fn a_stop_cuts_no_line() {
    // The fills end at different offsets in a page.
    let fills: Vec<usize> = (0..12).map(|n| n * 5347).collect();
    stop_all(&many(200), &fills, |found, fill| {
        // All that fits into the pipe, except for the ends of its 16 pages.
        let pages = (PIPE - fill) / 4096;
        assert!(found.len() > pages * 3700, "{} of {pages}", found.len());
        lines(found);
    });
}

#[test]
fn a_line_longer_than_a_page_is_left_out_or_whole() {
    let file = long(6000);
    stop_all(&file, &[1, 4000, 60_000], |found, _| assert_eq!(found, ""));
    stop_all(&file, &[0], |found, _| {
        // As many as fit into the pipe.
        assert_eq!(lines(found).len(), PIPE / 6000);
    });
}

#[test]
fn a_line_longer_than_the_pipe_makes_it_larger() {
    let file = long(100_000);
    stop_all(&file, &[1], |found, _| assert_eq!(found, ""));
    stop_all(&file, &[0], |found, _| assert_eq!(lines(found).len(), 1));
}

#[test]
fn long_lines_come_whole_to_a_reader_that_reads() {
    for bytes in [4000, 4096, 6000, 100_000] {
        let file = long(bytes);
        let mut child = Plugin::outside(&["--once", "--uri", &node::uri(&file)])
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdout = child.stdout.take().unwrap();
        let mut found = String::new();
        stdout.read_to_string(&mut found).unwrap();
        assert_eq!(lines(&found).len(), 20 * 5);
        assert_eq!(child.wait().unwrap().code(), Some(0));
    }
}

/// stdout is a socket under systemd, or under a program that uses sockets for its children's output.
#[test]
fn a_stop_cuts_no_line_on_a_socket() {
    for file in [many(1000), long(6000)] {
        let uri = node::uri(&file);
        for stop in STOPS {
            let (reader, writer) = UnixStream::pair().unwrap();
            let mut stalled = Stalled::start(&uri, reader, OwnedFd::from(writer));
            stalled.settle();
            stalled.stop(stop);
            let (_, found) = stalled.end();
            assert!(!lines(&found).is_empty(), "{stop:?}");
        }
    }
}

/// The error of the system call differs from that of a pipe.
#[test]
fn a_reader_that_leaves_a_socket_with_lines_unread_is_a_quiet_end() {
    let file = many(1000);
    let (reader, writer) = UnixStream::pair().unwrap();
    let args = ["--interval", "100ms", "--uri", &node::uri(&file)];
    let mut command = Plugin::outside(&args);
    command.stdin(Stdio::piped()).stderr(Stdio::piped());
    let child = command.stdout(OwnedFd::from(writer)).spawn().unwrap();
    drop(command);
    let mut first = [0];
    (&reader).read_exact(&mut first).unwrap();
    drop(reader);
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(without_start(&String::from_utf8_lossy(&output.stderr)), "");
}

/// Another process with the same pipe may set this flag.
#[test]
fn nothing_is_lost_where_stdout_is_non_blocking() {
    for (file, count) in [(many(200), 200 * 5), (long(6000), 20 * 5)] {
        let (mut reader, writer) = filled(0);
        let flags = rustix::fs::fcntl_getfl(&writer).unwrap();
        rustix::fs::fcntl_setfl(&writer, flags | rustix::fs::OFlags::NONBLOCK).unwrap();
        let args = ["--once", "--uri", &node::uri(&file)];
        let mut child = Plugin::outside(&args).stdout(writer).spawn().unwrap();
        let mut found = Vec::new();
        let mut bytes = [0; 3000];
        loop {
            let read = reader.read(&mut bytes).unwrap();
            if read == 0 {
                break;
            }
            found.extend_from_slice(&bytes[..read]);
            std::thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(child.wait().unwrap().code(), Some(0));
        assert_eq!(lines(std::str::from_utf8(&found).unwrap()).len(), count);
    }
}
