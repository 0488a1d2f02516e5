//! stdin: non-blocking, flooded with requests, and closed before libvirt answers.

use crate::support::lines::lines;
use crate::support::node::{self, Domain};
use crate::support::plugin::{Plugin, kill, on_terminal, read_some};
use crate::support::{full_pipe, program, succeed, wait_for};
use rustix::process::Signal;
use std::io::{PipeReader, Read, Write};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const URI: [&str; 2] = ["--uri", "test:///default"];
/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);
/// The promise is 4 s after the end of stdin; the rest is for a busy machine.
const END: Duration = Duration::from_millis(4300);

/// Reads until the lines of one more gather have come; panics if the program ends before.
fn gather(stdout: &mut impl Read, text: &mut String) {
    let before = text.matches("vm_totals,").count();
    while text.matches("vm_totals,").count() == before || !text.ends_with('\n') {
        read_some(stdout, text);
    }
}

fn spawn(args: &[&str], stdin: OwnedFd) -> Child {
    let mut command = Plugin::outside(&[&URI[..], args].concat());
    command.stdin(stdin).stdout(Stdio::piped());
    command.spawn().unwrap()
}

/// A write end, and a non-blocking end for stdin: of a pipe, and of a socket.
fn non_blocking() -> [(Box<dyn Write>, OwnedFd); 2] {
    let (reader, writer) = std::io::pipe().unwrap();
    let (near, far) = UnixStream::pair().unwrap();
    let ends: [(Box<dyn Write>, OwnedFd); 2] = [
        (Box::new(writer), reader.into()),
        (Box::new(near), far.into()),
    ];
    for (_, end) in &ends {
        rustix::io::ioctl_fionbio(end, true).unwrap();
    }
    ends
}

#[test]
fn a_stdin_that_does_not_block_is_not_at_its_end() {
    for (mut near, far) in non_blocking() {
        let mut child = spawn(&[], far);
        let (mut stdout, mut text) = (child.stdout.take().unwrap(), String::new());
        for _ in 0..3 {
            std::thread::sleep(Duration::from_millis(200));
            near.write_all(b"\n").unwrap();
            gather(&mut stdout, &mut text);
        }
        drop(near);
        let status = wait_for("its end", LONG, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_stdin_that_does_not_block_is_not_at_its_end_with_an_interval() {
    for (mut near, far) in non_blocking() {
        let mut child = spawn(&["--interval", "100ms"], far);
        let (mut stdout, mut text) = (child.stdout.take().unwrap(), String::new());
        for number in 0..5 {
            gather(&mut stdout, &mut text);
            if number == 2 {
                near.write_all(b"\n").unwrap();
            }
        }
        drop(near);
        let status = wait_for("its end", LONG, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
    }
}

#[test]
fn a_terminal_that_does_not_block_is_not_at_its_end() {
    let binary = env!("CARGO_BIN_EXE_telegraf-kvm");
    let start = format!(
        "import os; os.set_blocking(0, False); os.execv('{binary}', ['telegraf-kvm', '--uri', '{}'])",
        URI[1]
    );
    let mut child = on_terminal(&format!("python3 -c \"{start}\""));
    let mut stdin = child.stdin.take().unwrap();
    let (mut stdout, mut text) = (child.stdout.take().unwrap(), String::new());
    for _ in 0..2 {
        std::thread::sleep(Duration::from_millis(300));
        stdin.write_all(b"\n").unwrap();
        gather(&mut stdout, &mut text);
    }
    stdin.write_all(b"\x04").unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
}

/// Starts a program that writes its first gather to a pipe which is not read. Returns its memory in KiB.
fn writing(stdin: OwnedFd) -> (Child, PipeReader, u64) {
    let (reader, writer) = full_pipe();
    let mut command = Plugin::outside(&URI);
    command.env("RUST_LOG", "debug").stdin(stdin).stdout(writer);
    let mut child = command.stderr(Stdio::piped()).spawn().unwrap();
    kill_when_caught(&child, Signal::USR1);
    let (mut stderr, mut text) = (child.stderr.take().unwrap(), String::new());
    while !text.contains(" hanging calls: ") {
        read_some(&mut stderr, &mut text);
    }
    let memory = memory(&child);
    (child, reader, memory)
}

/// Requests a gather by signal, as soon as the signal does not kill the program.
fn kill_when_caught(child: &Child, signal: Signal) {
    let bit = 1_u64 << (signal.as_raw() - 1);
    wait_for("its signal handlers", LONG, || {
        let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).ok()?;
        let caught = status.lines().find_map(|l| l.strip_prefix("SigCgt:"))?;
        (u64::from_str_radix(caught.trim(), 16).ok()? & bit != 0).then_some(())
    });
    kill(child.id(), signal);
}

fn memory(child: &Child) -> u64 {
    let status = std::fs::read_to_string(format!("/proc/{}/status", child.id())).unwrap();
    let line = status.lines().find(|line| line.starts_with("VmRSS:"));
    line.unwrap()
        .split_whitespace()
        .nth(1)
        .unwrap()
        .parse()
        .unwrap()
}

#[test]
fn a_flood_of_newlines_takes_no_memory_while_stdout_is_not_read() {
    // Each newline is a separate read, and all but the last few were read while they were sent.
    let (near, far) = UnixDatagram::pair().unwrap();
    let (mut child, _reader, before) = writing(far.into());
    for _ in 0..300_000 {
        near.send(b"\n").unwrap();
    }
    let grown = memory(&child).saturating_sub(before);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(grown < 4096, "{grown} KiB more than {before}");
}

#[test]
fn a_flood_of_signals_takes_no_memory_while_stdout_is_not_read() {
    let (_near, far) = UnixDatagram::pair().unwrap();
    let (mut child, _reader, before) = writing(far.into());
    for number in 0..80_000 {
        // Signals that arrive faster than they are handled are merged by the kernel.
        std::thread::sleep(Duration::from_micros(1));
        kill(
            child.id(),
            [Signal::HUP, Signal::USR1, Signal::USR2][number % 3],
        );
    }
    let grown = memory(&child).saturating_sub(before);
    child.kill().unwrap();
    child.wait().unwrap();
    assert!(grown < 4096, "{grown} KiB more than {before}");
}

/// A plugin with one request, whose stdin was closed while libvirt still opens its node file: a FIFO to which
/// nothing was written yet.
fn opening(folder: &tempfile::TempDir) -> (Plugin, PathBuf, Instant) {
    let fifo = folder.path().join("node.xml");
    succeed(Command::new(program("mkfifo")).arg(&fifo));
    let uri = format!("test://{}", fifo.display());
    let mut plugin = Plugin::spawn(Plugin::outside(&["--uri", &uri]));
    plugin.newline();
    plugin.close();
    (plugin, fifo, Instant::now())
}

#[test]
fn a_request_before_the_end_is_answered_also_where_opening_takes_long() {
    let folder = tempfile::tempdir().unwrap();
    let (mut plugin, fifo, closed) = opening(&folder);
    let node = node::write(&[Domain::new(1, "slow")]);
    let text = std::fs::read(node.path()).unwrap();
    std::thread::sleep(Duration::from_millis(1900));
    // Opening the FIFO waits for a reader, which may have ended.
    std::thread::spawn(move || std::fs::write(fifo, text));
    let code = plugin.wait(LONG).code();
    assert!(closed.elapsed() < END, "{:?}", closed.elapsed());
    assert_eq!(code, Some(0));
    assert_eq!(plugin.gathers(), 1, "{}", plugin.stderr());
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn an_end_before_libvirt_answers_is_called_so() {
    let folder = tempfile::tempdir().unwrap();
    let (mut plugin, fifo, closed) = opening(&folder);
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert!(closed.elapsed() < END, "{:?}", closed.elapsed());
    let expected = format!(
        "W! standard input ended before libvirt at test://{} (from --uri) had answered\n",
        fifo.display()
    );
    assert_eq!(
        (lines(&plugin.stdout()), plugin.stderr()),
        (vec![], expected)
    );
}
