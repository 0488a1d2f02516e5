//! The events that start a gather, and the log meanwhile. What ends the process: `exit_codes.rs`. With a
//! faulty daemon: `lab/stopping.rs`, `lab/daemon_outages.rs`.

use crate::support;
use crate::support::lines::lines;
use crate::support::plugin::{Plugin, on_terminal, read_some};
use crate::support::{program, succeed, without_start};
use rustix::process::Signal;
use std::io::{Read, Write};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

const URI: [&str; 2] = ["--uri", "test:///default"];
/// A limit for waits that do not test time: the machine may be busy.
const LONG: Duration = Duration::from_secs(30);

fn plugin() -> Plugin {
    Plugin::spawn(Plugin::outside(&URI))
}

#[test]
fn a_newline_is_one_gather() {
    let mut plugin = plugin();
    assert!(plugin.lines_within(Duration::from_secs(1)).is_empty());
    for gather in 1..=5 {
        plugin.gather();
        assert_eq!(plugin.gathers(), gather);
    }
    assert!(plugin.lines_within(Duration::from_secs(1)).is_empty());
}

#[test]
fn newlines_that_came_together_fold() {
    let mut plugin = plugin();
    plugin.gather();
    // While the program is stopped the requests accumulate, as on a busy machine.
    plugin.signal(Signal::STOP);
    for _ in 0..10 {
        plugin.newline();
    }
    plugin.signal(Signal::CONT);
    plugin.gather_all();
    let folded = plugin.gathers() - 1;
    assert!((1..=2).contains(&folded), "ten newlines: {folded} gathers");
    plugin.gather();
    assert_eq!(plugin.gathers(), folded + 2);
}

#[test]
fn text_without_a_newline_asks_for_nothing() {
    let mut plugin = plugin();
    for _ in 0..3 {
        plugin
            .stdin
            .as_mut()
            .unwrap()
            .write_all(b"gather\r ")
            .unwrap();
        assert!(plugin.lines_within(Duration::from_millis(500)).is_empty());
    }
    plugin.gather();
    assert_eq!(plugin.gathers(), 1);
    plugin.stdin.as_mut().unwrap().write_all(b"gather").unwrap();
    plugin.close();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert_eq!(plugin.gathers(), 1);
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn telegrafs_signals_gather() {
    let mut plugin = plugin();
    plugin.gather();
    for (number, signal) in [Signal::HUP, Signal::USR1, Signal::USR2, Signal::HUP]
        .into_iter()
        .enumerate()
    {
        plugin.signal(signal);
        plugin.next_gather();
        assert_eq!(plugin.gathers(), number + 2);
    }
    plugin.close();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
}

#[test]
fn the_interval_gathers_at_once_and_steadily() {
    let config = support::config("timestamp_precision = '1ms'");
    let path = config.path().to_str().unwrap();
    let args = [&URI[..], &["--interval", "200ms", "--config", path]].concat();
    let start = Instant::now();
    let mut long = Plugin::spawn(Plugin::outside(&[&URI[..], &["--interval", "1h"]].concat()));
    long.next_gather();
    assert!(start.elapsed() < LONG);
    assert_eq!(long.gathers(), 1);

    // /dev/null as stdin from the start (systemd, cron) does not end the program.
    let mut child = Plugin::outside(&args)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut text = String::new();
    let mut stdout = child.stdout.take().unwrap();
    while text.matches("vm_totals,").count() < 16 {
        read_some(&mut stdout, &mut text);
    }
    let pid = rustix::process::Pid::from_child(&child);
    rustix::process::kill_process(pid, Signal::TERM).unwrap();
    stdout.read_to_string(&mut text).unwrap();
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0));
    assert_eq!(without_start(&String::from_utf8_lossy(&output.stderr)), "");
    let mut timestamps: Vec<i64> = lines(&text).iter().map(|line| line.timestamp).collect();
    timestamps.dedup();
    // A gather may be late on a busy machine, but most must follow the interval.
    let mut steps: Vec<i64> = timestamps
        .windows(2)
        .map(|pair| pair[1] - pair[0])
        .collect();
    steps.sort_unstable();
    let median = steps[steps.len() / 2] / 1_000_000;
    assert!((190..=210).contains(&median), "{steps:?}");
}

#[test]
fn ten_good_gathers_say_nothing_on_stderr() {
    let mut plugin = plugin();
    for _ in 0..10 {
        plugin.gather();
    }
    plugin.close();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    assert_eq!(plugin.stderr(), "");
    assert_eq!(plugin.gathers(), 10);
}

#[test]
fn a_terminal_is_told_once_what_to_press() {
    let binary = env!("CARGO_BIN_EXE_telegraf-kvm");
    let mut child = on_terminal(&format!("'{binary}' --uri test:///default"));
    let mut stdin = child.stdin.take().unwrap();
    let mut stdout = child.stdout.take().unwrap();
    let mut text = String::new();
    for (said, key) in [
        ("Enter gathers", "\n"),
        ("vm_totals,", "\n"),
        ("vm_features,", "\x04"),
    ] {
        while !text.contains(said) || !text.ends_with('\n') {
            read_some(&mut stdout, &mut text);
        }
        stdin.write_all(key.as_bytes()).unwrap();
    }
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0), "{text}");
    assert_eq!(
        text.matches("I! Enter gathers, Ctrl-D ends").count(),
        1,
        "{text}"
    );
    // The hint is not written for a pipe, nor for a terminal where no key would help.
    let timed = format!("'{binary}' --uri test:///default --once");
    let text = succeed(Command::new(program("script")).args(["-qec", &timed, "/dev/null"]));
    assert!(
        !text.contains("Enter") && text.contains("vm_totals,"),
        "{text}"
    );
}

#[test]
fn no_line_of_the_log_is_over_8_kib() {
    let uri = format!("test:///{}", "long ".repeat(13_000));
    let mut plugin = Plugin::spawn(Plugin::outside(&["--uri", &uri]));
    plugin.newline();
    plugin.wait_for_log("\n");
    plugin.newline();
    plugin.close();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    let said = plugin.stderr();
    assert_eq!(said.lines().count(), 1, "{said}");
    assert!(
        said.starts_with("W! cannot reach libvirt at test:///long"),
        "{said}"
    );
    assert!((8000..=8192).contains(&said.len()), "{}", said.len());
    assert_eq!(lines(&plugin.stdout()), []);
}

/// Before `main` the dynamic loader runs for some milliseconds, and a signal that arrives then cannot be
/// handled. After the handlers are installed no signal kills the program, and none is lost.
#[test]
fn a_signal_as_soon_as_it_has_handlers_is_a_gather() {
    for number in 0..100 {
        let signal = [Signal::HUP, Signal::USR1, Signal::USR2][number % 3];
        let mut plugin = plugin();
        plugin.wait_until_it_catches(signal);
        plugin.signal(signal);
        support::wait_for("the gather", LONG, || {
            plugin.stdout().contains("vm_totals,").then_some(())
        });
        plugin.close();
        assert_eq!(plugin.wait(LONG).code(), Some(0), "{signal:?}");
        assert_eq!(plugin.gathers(), 1);
    }
}
