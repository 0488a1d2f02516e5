//! stdout carries only the program's own lines; and the behaviour when they cannot be written.

use crate::support::lines::lines;
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{program, run, wait_for, without_start};
use std::io::{Read, Write};
use std::process::{Command, Output, Stdio};
use std::time::{Duration, Instant};

const URI: [&str; 2] = ["--uri", "test:///default"];
/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

/// The program with these arguments, started by this line of shell, in which it is "$@".
fn from_shell(line: &str, args: &[&str]) -> Command {
    let mut command = Command::new(program("sh"));
    command
        .args(["-c", line, "sh", env!("CARGO_BIN_EXE_telegraf-kvm")])
        .args(args)
        .env_remove("LIBVIRT_DEFAULT_URI")
        .env_remove("RUST_LOG")
        .stdin(Stdio::null());
    command
}

fn said(output: &Output) -> String {
    without_start(&String::from_utf8_lossy(&output.stderr))
}

/// GLib, which libvirt uses, prints to descriptor 1 when it cannot convert its messages.
#[test]
fn what_a_library_prints_is_no_line() {
    let away = "qemu+unix:///system?socket=/no/such/socket";
    let mut command = Plugin::outside(&["--uri", away, "--once"]);
    let output = run(command.env("CHARSET", "x").stdin(Stdio::null()));
    assert_eq!(output.status.code(), Some(1));
    let written = lines(std::str::from_utf8(&output.stdout).unwrap());
    assert_eq!(written, []);
    // GLib's message is in the log: it shows that GLib still prints it, else this test proves nothing.
    assert!(said(&output).contains("Conversion from"), "{output:?}");

    let mut command = Plugin::outside(&[&URI[..], &["--once"]].concat());
    let output = run(command.env("CHARSET", "x").stdin(Stdio::null()));
    assert_eq!(lines(std::str::from_utf8(&output.stdout).unwrap()).len(), 4);
}

const CLOSED: &str = "E! standard output: it was closed when the program started\n";

#[test]
fn a_closed_stdout_is_an_error_to_all_that_print() {
    let once = [&URI[..], &["--once"]].concat();
    let check = [&URI[..], &["--check"]].concat();
    for args in [
        &["--help"][..],
        &["--version"],
        &["--sample-config"],
        &check,
        &once,
    ] {
        let output = run(&mut from_shell(r#"exec "$@" >&-"#, args));
        assert_eq!(output.status.code(), Some(1), "{args:?}");
        assert_eq!(said(&output), CLOSED, "{args:?}");
    }
    let mut plugin = from_shell(r#"echo | exec "$@" >&-"#, &URI);
    let output = run(&mut plugin);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(said(&output), CLOSED);
    // A wrong argument is reported first, and a command that writes no lines needs no stdout.
    let output = run(&mut from_shell(r#"exec "$@" >&-"#, &["--chekc"]));
    assert_eq!(output.status.code(), Some(2));
    let output = run(&mut from_shell(r#"exec "$@" >&-"#, &URI));
    assert_eq!((output.status.code(), &*said(&output)), (Some(0), ""));
}

#[test]
fn any_other_stdout_that_takes_lines_is_good() {
    let once = [&URI[..], &["--once"]].concat();
    // A service manager may start the program without stdout; also with the others closed.
    for line in [
        r#"exec "$@" >/dev/null"#,
        r#"exec "$@" 1<>/dev/null"#,
        r#"exec "$@" >/dev/null 2>&-"#,
        r#"exec "$@" >/dev/null <&- 2>&-"#,
    ] {
        let output = run(&mut from_shell(line, &once));
        assert_eq!(output.status.code(), Some(0), "{line}");
        assert_eq!(said(&output), "", "{line}");
    }
    let output = run(&mut from_shell(r#"exec "$@" 2>&-"#, &once));
    assert_eq!(lines(std::str::from_utf8(&output.stdout).unwrap()).len(), 4);
    let output = run(&mut from_shell(r#"exec "$@" 1</dev/null"#, &once));
    assert_eq!(output.status.code(), Some(1));
    assert!(said(&output).starts_with("E! standard output: Bad file"));
}

#[test]
fn a_limit_of_the_size_of_files_is_an_error() {
    let domain = |number| Domain {
        devices: disk("disk", "vda") + &nic(Some("tap0")),
        ..Domain::new(number, &format!("vm{number}"))
    };
    let file = node::write(&(1..=50).map(domain).collect::<Vec<_>>());
    let out = tempfile::NamedTempFile::new().unwrap();
    let uri = node::uri(&file);
    for line in [
        r#"ulimit -f 1; exec "$@" --once >"$OUT""#,
        r#"ulimit -f 1; echo | exec "$@" >"$OUT""#,
    ] {
        let mut command = from_shell(line, &["--uri", &uri]);
        let output = run(command.env("OUT", out.path()));
        assert_eq!(output.status.code(), Some(1), "{:?}", output.status);
        let too_large = "E! standard output: File too large (os error 27)\n";
        assert_eq!(said(&output), too_large);
    }
}

/// The pipe contains lines that will never be read.
#[test]
fn without_a_reader_it_ends_at_once() {
    let took = (0..5).map(|_| {
        let mut child = Plugin::outside(&URI)
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap();
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"\n").unwrap();
        let mut stdout = child.stdout.take().unwrap();
        stdout.read_exact(&mut [0]).unwrap();
        drop(stdout);
        let start = Instant::now();
        drop(stdin);
        let status = wait_for("its end", LONG, || child.try_wait().unwrap());
        assert_eq!(status.code(), Some(0));
        start.elapsed()
    });
    // Earlier versions waited for a second each time; the fastest run counts, as the machine may be busy.
    let quickest = took.min().unwrap();
    assert!(quickest < Duration::from_millis(900), "{quickest:?}");
}
