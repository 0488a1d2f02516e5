//! Signals before the first gather, and what the program does not wait for then: a configuration, a full
//! pipe, a server without an answer, a signal mask inherited from its parent.

use crate::support::outage::Mount;
use crate::support::plugin::{Plugin, kill, read_first_byte};
use crate::support::{config, full_pipe, program, succeed, wait_until_in};
use rustix::process::Signal;
use std::io::{PipeReader, Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

const URI: [&str; 2] = ["--uri", "test:///default"];
/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);
/// The promise is 2 s after SIGTERM; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(2300);

/// Which output is the full pipe.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Full {
    Stdout,
    Stderr,
}

/// Starts the program with that pipe, and waits until it writes to it.
fn blocked(full: Full, mut command: Command) -> (Child, PipeReader) {
    let (reader, writer) = full_pipe();
    command.stdin(Stdio::piped());
    match full {
        Full::Stdout => command.stdout(writer).stderr(Stdio::null()),
        Full::Stderr => command.stdout(Stdio::piped()).stderr(writer),
    };
    let child = command.spawn().unwrap();
    wait_until_in(child.id(), &["pipe_write", "poll"]);
    (child, reader)
}

/// Sends the signal. Returns the exit status, and panics if the end takes too long.
fn code_after(child: &mut Child, signal: Signal) -> Option<i32> {
    kill(child.id(), signal);
    let start = Instant::now();
    while start.elapsed() < STOP {
        if let Some(status) = child.try_wait().unwrap() {
            return status.code();
        }
        std::thread::sleep(Duration::from_millis(10));
    }
    child.kill().unwrap();
    child.wait().unwrap();
    panic!("still there {STOP:?} after {signal:?}");
}

#[test]
fn a_full_pipe_does_not_keep_it_from_ending() {
    let wrong = config("unknown = 1");
    let wrong = ["--config", wrong.path().to_str().unwrap()];
    let check = [&URI[..], &["--check"]].concat();
    for signal in [Signal::TERM, Signal::INT] {
        for (full, args, code) in [
            (Full::Stdout, &["--help"][..], 1),
            (Full::Stdout, &["--version"], 1),
            (Full::Stdout, &["--sample-config"], 1),
            (Full::Stdout, &check, 1),
            (Full::Stderr, &["--wrong"], 1),
            (Full::Stderr, &wrong, 0),
        ] {
            let (mut child, _reader) = blocked(full, Plugin::outside(args));
            assert_eq!(
                code_after(&mut child, signal),
                Some(code),
                "{full:?}, {args:?}"
            );
        }
        for (args, code) in [(&URI[..], 0), (&check, 1)] {
            let mut command = Plugin::outside(args);
            command.env("RUST_LOG", "debug");
            let (mut child, _reader) = blocked(Full::Stderr, command);
            assert_eq!(
                code_after(&mut child, signal),
                Some(code),
                "debug, {args:?}"
            );
        }
    }
}

#[test]
fn the_handlers_are_there_before_the_log_begins() {
    for signal in [Signal::HUP, Signal::USR1, Signal::USR2] {
        let mut command = Plugin::outside(&URI);
        command.env("RUST_LOG", "debug");
        // The program is about to log which configuration it has read.
        let (mut child, mut stderr) = blocked(Full::Stderr, command);
        kill(child.id(), signal);
        let log = std::thread::spawn(move || {
            let mut text = String::new();
            stderr.read_to_string(&mut text).unwrap();
            text
        });
        read_first_byte(&mut child);
        drop(child.stdin.take());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        let text = log.join().unwrap();
        assert_eq!(
            text.matches(" hanging calls: ").count(),
            1,
            "{signal:?}: {}",
            text.trim()
        );
    }
}

#[test]
fn a_server_without_an_answer_does_not_keep_check_from_ending() {
    let config = config("deadline = '1h'");
    for signal in [Signal::TERM, Signal::INT] {
        // A socket for each signal: the program opens several connections, and one of the program before
        // could still wait to be accepted.
        let folder = tempfile::tempdir().unwrap();
        let socket = folder.path().join("socket");
        let listener = UnixListener::bind(&socket).unwrap();
        let uri = format!("qemu+unix:///system?socket={}", socket.display());
        let args = [
            "--check",
            "--uri",
            &uri,
            "--config",
            config.path().to_str().unwrap(),
        ];
        let mut command = Plugin::outside(&args);
        command.stdin(Stdio::null()).stdout(Stdio::null());
        let mut child = command.spawn().unwrap();
        let (_connection, _) = listener.accept().unwrap();
        assert_eq!(code_after(&mut child, signal), Some(1), "{signal:?}");
    }
}

#[test]
fn what_is_no_regular_file_is_refused_unread() {
    let folder = tempfile::tempdir().unwrap();
    let place = |name: &str| folder.path().join(name);
    succeed(Command::new(program("mkfifo")).arg(place("fifo")));
    let _listener = UnixListener::bind(place("socket")).unwrap();
    std::os::unix::fs::symlink("fifo", place("link")).unwrap();
    for (path, what) in [
        (place("fifo"), "is a FIFO"),
        (place("link"), "is a FIFO"),
        (place("socket"), "is a socket"),
        ("/dev/zero".into(), "is a device"),
        ("/dev/tty".into(), "is a device"),
        (folder.path().into(), "is a directory"),
        ("/proc/kmsg".into(), "is a file of the kernel (procfs)"),
    ] {
        for mode in [&[][..], &["--once"], &["--check"]] {
            let args = [&URI[..], mode, &["--config", path.to_str().unwrap()]].concat();
            let mut plugin = Plugin::spawn(Plugin::outside(&args));
            assert_eq!(plugin.wait(LONG).code(), Some(2), "{path:?}");
            let said = plugin.stderr();
            let begin = format!("E! {}: {what}", path.display());
            assert!(said.starts_with(&begin), "{said}");
            assert_eq!(said.lines().count(), 1, "{said}");
        }
    }
}

/// As on a hard NFS mount: a process that reads there ends only when it is killed.
#[test]
fn a_configuration_on_dead_storage_does_not_keep_it_from_ending() {
    let folder = tempfile::tempdir().unwrap();
    let mount = Mount::new(folder.path(), "storage", &[]);
    mount.stop(Duration::ZERO);
    let path = mount.point().join("config.toml");
    let path = path.to_str().unwrap();
    for (mode, code) in [(&[][..], 0), (&["--once"], 0), (&["--check"], 1)] {
        let args = [&URI[..], mode, &["--config", path]].concat();
        let mut plugin = Plugin::spawn(Plugin::outside(&args));
        wait_until_in(plugin.pid(), &["fuse", "request_wait_answer"]);
        plugin.wait_until_it_catches(Signal::TERM);
        if mode.is_empty() {
            plugin.wait_for_log("config.toml: not read after 5s; its storage");
        }
        plugin.signal(Signal::TERM);
        assert_eq!(plugin.wait(STOP).code(), Some(code), "{mode:?}");
    }
}

#[test]
fn a_configuration_may_come_by_stdin() {
    for name in ["/dev/stdin", "/dev/fd/0", "/proc/self/fd/0"] {
        let args = [&URI[..], &["--once", "--config", name]].concat();
        let mut plugin = Plugin::spawn(Plugin::outside(&args));
        let stdin = plugin.stdin.as_mut().unwrap();
        stdin.write_all(b"measurements =").unwrap();
        std::thread::sleep(Duration::from_millis(200));
        stdin.write_all(b" ['vm_totals']\n").unwrap();
        plugin.close();
        assert_eq!(plugin.wait(LONG).code(), Some(0), "{}", plugin.stderr());
        let text = plugin.stdout();
        assert!(
            text.starts_with("vm_totals,") && text.lines().count() == 1,
            "{text}"
        );
    }
    // Where the program does not end by itself, a signal ends its wait.
    for (mode, code) in [(&[][..], 0), (&["--once"], 0), (&["--check"], 1)] {
        let args = [&URI[..], mode, &["--config", "/dev/stdin"]].concat();
        let mut plugin = Plugin::spawn(Plugin::outside(&args));
        wait_until_in(plugin.pid(), &["pipe_read"]);
        plugin.signal(Signal::TERM);
        assert_eq!(plugin.wait(STOP).code(), Some(code), "{mode:?}");
        assert_eq!(plugin.stderr(), "");
    }
}

#[test]
fn signals_that_its_parent_had_blocked_reach_it() {
    let blocked = |args: &[&str]| {
        let mut command = Command::new(program("env"));
        command.arg("--block-signal=HUP,USR1,USR2,TERM,INT");
        command.arg(env!("CARGO_BIN_EXE_telegraf-kvm")).args(args);
        command
            .env_remove("LIBVIRT_DEFAULT_URI")
            .env_remove("RUST_LOG");
        command
    };
    for end in [Signal::TERM, Signal::INT] {
        let mut plugin = Plugin::spawn(blocked(&URI));
        plugin.wait_until_it_catches(Signal::TERM);
        for (number, signal) in [Signal::HUP, Signal::USR1, Signal::USR2]
            .into_iter()
            .enumerate()
        {
            plugin.signal(signal);
            plugin.next_gather();
            assert_eq!(plugin.gathers(), number + 1, "{signal:?}");
        }
        plugin.signal(end);
        assert_eq!(plugin.wait(STOP).code(), Some(0), "{end:?}");
    }
}
