//! The events that end the process, and its exit codes. With a frozen daemon: `lab/stopping.rs`.

use crate::support;
use crate::support::lines::{all_lines, lines};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::{Plugin, read_first_byte};
use crate::support::{wait_for, without_start};
use rustix::process::{Pid, Signal, kill_process};
use std::io::Write;
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};
use tempfile::NamedTempFile;

const URI: [&str; 2] = ["--uri", "test:///default"];
/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);
/// The promise is 2 s after SIGTERM and 4 s after the end of stdin; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(2300);
const END: Duration = Duration::from_millis(4300);

fn plugin() -> Plugin {
    Plugin::spawn(Plugin::outside(&URI))
}

fn spawn(uri: &str) -> Child {
    let mut command = Plugin::outside(&["--uri", uri]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    command.stderr(Stdio::piped()).spawn().unwrap()
}

/// Runs the program to its end, with this on stdin.
fn run(args: &[&str], stdin: &str) -> Output {
    let mut child = Plugin::outside(args)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut pipe = child.stdin.take().unwrap();
    pipe.write_all(stdin.as_bytes()).unwrap();
    drop(pipe);
    child.wait_with_output().unwrap()
}

/// 700 domains of 3 devices: far more than a pipe holds.
fn many() -> (NamedTempFile, usize) {
    let domains: Vec<Domain> = (1..=700)
        .map(|number| Domain {
            devices: disk("disk", "vda") + &disk("disk", "vdb") + &nic(Some("tap0")),
            ..Domain::new(number, &format!("vm{number}"))
        })
        .collect();
    (node::write(&domains), 700 * 5)
}

#[test]
fn what_is_pending_at_the_end_of_stdin_is_answered() {
    let (file, expected) = many();
    for _ in 0..5 {
        let output = run(&["--uri", &node::uri(&file)], "\n");
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(without_start(&String::from_utf8_lossy(&output.stderr)), "");
        let text = String::from_utf8(output.stdout).unwrap();
        assert_eq!(lines(&text).len(), expected);
    }
    let output = run(&URI, "");
    assert_eq!((output.status.code(), output.stdout.len()), (Some(0), 0));
}

#[test]
fn with_an_interval_stdin_closed_later_is_the_end() {
    let args = [&URI[..], &["--interval", "100ms"]].concat();
    let mut plugin = Plugin::spawn(Plugin::outside(&args));
    wait_for("three gathers", LONG, || {
        (plugin.gathers() >= 3).then_some(())
    });
    // A newline requests one more gather in between.
    plugin.newline();
    plugin.close();
    assert_eq!(plugin.wait(END + STOP).code(), Some(0));
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn sigterm_and_sigint_end_it_quietly() {
    for signal in [Signal::TERM, Signal::INT] {
        for gathers in [0, 1] {
            let mut plugin = plugin();
            for _ in 0..gathers {
                plugin.gather();
            }
            if gathers == 0 {
                // Its signal handlers are installed when it reads.
                plugin.wait_until_it_catches(signal);
            }
            plugin.signal(signal);
            assert_eq!(plugin.wait(STOP).code(), Some(0), "{signal:?}");
            assert_eq!(plugin.stderr(), "");
        }
    }
}

#[test]
fn a_reader_that_went_away_is_a_quiet_end() {
    for signal in [None, Some(Signal::USR1)] {
        let mut child = spawn(URI[1]);
        let mut stdin = child.stdin.take().unwrap();
        stdin.write_all(b"\n").unwrap();
        read_first_byte(&mut child);
        drop(child.stdout.take());
        match signal {
            None => stdin.write_all(b"\n").unwrap(),
            Some(signal) => {
                kill_process(Pid::from_child(&child), signal).unwrap();
            }
        }
        // stdin stays open: the pipe is the only reason to end.
        wait_for("its end", LONG, || child.try_wait().unwrap());
        let output = child.wait_with_output().unwrap();
        assert_eq!(output.status.code(), Some(0));
        assert_eq!(without_start(&String::from_utf8_lossy(&output.stderr)), "");
    }
}

#[test]
fn an_unread_stdout_does_not_keep_it_from_ending() {
    let (file, _) = many();
    let uri = node::uri(&file);
    for (signal, limit) in [
        (Some(Signal::TERM), STOP),
        (Some(Signal::INT), STOP),
        (None, END),
    ] {
        let mut child = spawn(&uri);
        let mut stdin = child.stdin.take();
        stdin.as_mut().unwrap().write_all(b"\n").unwrap();
        // The program waits in a write when the pipe is as full as it can be: 16 pages of whole lines.
        let stdout = child.stdout.as_ref().unwrap();
        wait_for("the pipe to fill", LONG, || {
            let unread = rustix::io::ioctl_fionread(stdout).unwrap();
            (unread >= 16 * 3700).then_some(())
        });
        let start = Instant::now();
        match signal {
            Some(signal) => {
                kill_process(Pid::from_child(&child), signal).unwrap();
            }
            None => drop(stdin.take()),
        }
        let status = wait_for("its end", LONG, || child.try_wait().unwrap());
        assert!(start.elapsed() < limit, "{signal:?}: {:?}", start.elapsed());
        assert_eq!(status.code(), Some(0), "{signal:?}");
    }
}

/// The measurements of the lines that were written.
fn kinds(output: &Output) -> Vec<String> {
    let lines = all_lines(std::str::from_utf8(&output.stdout).unwrap());
    lines.into_iter().map(|line| line.measurement).collect()
}

/// A lone line of vm_collector.
fn collector() -> Vec<String> {
    vec!["vm_collector".to_owned()]
}

#[test]
fn once_is_0_with_lines_of_vms_and_1_without() {
    let output = run(&[&URI[..], &["--once"]].concat(), "");
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(without_start(&String::from_utf8_lossy(&output.stderr)), "");
    assert_eq!(lines(std::str::from_utf8(&output.stdout).unwrap()).len(), 4);

    let config = support::config("domain_include = ['nobody']");
    let path = config.path().to_str().unwrap();
    let output = run(&[&URI[..], &["--once", "--config", path]].concat(), "");
    assert_eq!(
        (output.status.code(), kinds(&output)),
        (Some(1), collector())
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(
        said.starts_with("E! nothing gathered") && said.lines().count() == 1,
        "{said}"
    );

    for (measurements, written) in [
        ("['vm_features']", vec![]),
        ("['vm_features', 'vm_collector']", collector()),
    ] {
        let config = support::config(&format!("measurements = {measurements}"));
        let path = config.path().to_str().unwrap();
        let output = run(&[&URI[..], &["--once", "--config", path]].concat(), "");
        assert_eq!((output.status.code(), kinds(&output)), (Some(1), written));
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(
            said.starts_with("E! nothing to write") && said.lines().count() == 1,
            "{said}"
        );
    }
    let config = support::config("measurements = ['vm_collector']");
    let path = config.path().to_str().unwrap();
    let output = run(&[&URI[..], &["--once", "--config", path]].concat(), "");
    assert_eq!(
        (output.status.code(), kinds(&output)),
        (Some(0), collector())
    );

    let config = support::config("measurements = ['vm_metrics', 'vm_collector']");
    let path = config.path().to_str().unwrap();
    let uri = "qemu+unix:///system?socket=/no/such/socket";
    let output = run(&["--uri", uri, "--once", "--config", path], "");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1), "{said}");
    let output = run(&["--uri", uri, "--once"], "");
    assert_eq!(
        (output.status.code(), kinds(&output)),
        (Some(1), collector())
    );
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.starts_with("W! cannot reach"), "{said}");
}

#[test]
fn check_is_0_where_it_connects_and_1_where_not() {
    let output = run(&[&URI[..], &["--check"]].concat(), "");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert!(said.contains("connected: 1 active VM\n"), "{said}");

    for (uri, named) in [
        (
            "qemu+unix:///system?socket=/no/such/socket",
            "/no/such/socket",
        ),
        ("test:///no/such/node.xml", "/no/such/node.xml"),
    ] {
        let output = run(&["--uri", uri, "--check"], "");
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert_eq!(output.status.code(), Some(1), "{said}");
        assert!(
            said.starts_with("E! cannot reach") && said.lines().count() == 1,
            "{said}"
        );
        assert!(said.contains(named), "{said}");
    }
}

/// The program with this limit of open files.
fn limited(files: u64, args: &[&str]) -> Output {
    let program = Plugin::outside(args);
    Command::new("prlimit")
        .arg(format!("--nofile={files}"))
        .arg(program.get_program())
        .args(program.get_args())
        .env_remove("LIBVIRT_DEFAULT_URI")
        .stdin(Stdio::null())
        .output()
        .unwrap()
}

#[test]
fn too_few_open_files_are_1_and_say_the_remedy() {
    let away = "qemu+unix:///system?socket=/no/such/socket";
    let text = |output: &[u8]| String::from_utf8_lossy(output).into_owned();
    // 4 workers, 8 calls that may hang.
    for (uri, files, needed) in [(away, 22, 88), (away, 87, 88), (URI[1], 22, 36)] {
        for mode in [&[][..], &["--check"], &["--once"]] {
            let output = limited(files, &[&["--uri", uri], mode].concat());
            let said = text(&output.stderr);
            assert_eq!(output.status.code(), Some(1), "{said}");
            let limit = format!(
                "E! the limit of open files is {files}, and this configuration needs {needed}; "
            );
            assert!(
                said.starts_with(&limit) && said.lines().count() == 1,
                "{said}"
            );
            assert!(
                said.contains("LimitNOFILE=") && said.contains("ulimit -n"),
                "{said}"
            );
        }
        let output = limited(files, &["--uri", uri, "--check", "--json"]);
        assert_eq!(output.status.code(), Some(1));
        let document: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(document["connected"], false);
        let error = document["error"].as_str().unwrap();
        assert!(error.starts_with("the limit of open files is"), "{error}");
    }
    let said = text(&limited(88, &["--uri", away, "--once"]).stderr);
    assert!(said.starts_with("W! cannot reach"), "{said}");
    let output = limited(36, &[&URI[..], &["--once"]].concat());
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    let config = support::config("workers = 2\nmax_calls = 3");
    let path = config.path().to_str().unwrap();
    let said = text(&limited(22, &["--uri", away, "--config", path]).stderr);
    assert!(said.contains(" needs 60; "), "{said}");
}
