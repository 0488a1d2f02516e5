//! A stopped daemon (SIGSTOP): the plugin ends when it is told to, keeps its deadline, warns once, and is
//! complete again after the daemon was continued. And an end leaves a daemon unharmed.

use crate::support;
use crate::support::lab::Lab;
use crate::support::lines::{self, one};
use crate::support::plugin::Plugin;
use crate::support::proxy::{Passed, Proxy};
use crate::support::vm::{Nic, VmSpec, disks};
use rustix::process::Signal;
use std::time::{Duration, Instant};

/// The promise is 2 s after SIGTERM and 4 s after the end of stdin; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(2300);
const END: Duration = Duration::from_millis(4300);
const LONG: Duration = Duration::from_secs(20);

/// A lab with one VM that uses no processor time.
fn lab() -> (Lab, String) {
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    });
    let name = vm.name().to_owned();
    (lab, name)
}

/// A plugin inside the lab, with this configuration.
fn plugin(lab: &Lab, settings: &str, more: &[&str]) -> Plugin {
    let file = lab.dir().join("config.toml");
    std::fs::write(&file, settings).unwrap();
    let config = ["--config", file.to_str().unwrap()];
    let mut command = lab.plugin(&[&config[..], more].concat());
    command.env("RUST_LOG", "debug");
    Plugin::spawn(command)
}

/// The number of gathers that have ended, from the log: a gather without lines leaves no other trace.
fn ended(plugin: &Plugin) -> usize {
    plugin.stderr().matches(" hanging calls: ").count()
}

/// The lines of this level in the plugin's log.
fn said(plugin: &Plugin, level: &str) -> Vec<String> {
    let text = plugin.stderr();
    let lines = text.lines().filter(|line| line.starts_with(level));
    lines.map(str::to_owned).collect()
}

/// What the plugin does when the daemon is frozen.
#[derive(Debug, Clone, Copy, PartialEq)]
enum Moment {
    /// The plugin is connected and idle.
    Idle,
    /// The plugin is in its first gather, and the connection cannot be opened.
    Opening,
    /// The plugin is connected, in a later gather.
    Gathering,
}

/// Starts a plugin and brings it to that moment; the daemon is frozen from then on.
fn at(lab: &Lab, moment: Moment) -> Plugin {
    let mut plugin = plugin(lab, "", &[]);
    if moment == Moment::Opening {
        plugin.wait_until_it_catches(Signal::TERM);
    } else {
        plugin.gather();
    }
    lab.signal_libvirtd("STOP");
    if moment != Moment::Idle {
        plugin.newline();
        std::thread::sleep(Duration::from_millis(500));
    }
    plugin
}

#[test]
fn it_ends_in_time_whatever_the_daemon_does() {
    let (lab, _) = lab();
    for moment in [Moment::Idle, Moment::Opening, Moment::Gathering] {
        for signal in [Some(Signal::TERM), Some(Signal::INT), None] {
            let mut plugin = at(&lab, moment);
            let before = lines::lines(&plugin.stdout());
            let start = Instant::now();
            match signal {
                Some(signal) => plugin.signal(signal),
                None => plugin.close(),
            }
            let status = plugin.wait(LONG);
            let took = start.elapsed();
            let limit = if signal.is_some() { STOP } else { END };
            assert!(took < limit, "{moment:?}, {signal:?}: {took:?}");
            assert_eq!(status.code(), Some(0), "{moment:?}, {signal:?}");
            assert_eq!(lines::lines(&plugin.stdout()), before);
            assert_eq!(said(&plugin, "E!"), [] as [&str; 0]);
            lab.signal_libvirtd("CONT");
            lab.virsh(&["list"]);
        }
    }
}

#[test]
fn the_deadline_holds_while_the_daemon_is_frozen() {
    let (lab, name) = lab();
    let mut plugin = plugin(&lab, "deadline = '3s'", &[]);
    let whole = plugin.gather();
    lab.signal_libvirtd("STOP");
    for gather in 2..=4 {
        let start = Instant::now();
        plugin.newline();
        support::wait_for("the gather's end", LONG, || {
            (ended(&plugin) == gather).then_some(())
        });
        let took = start.elapsed();
        assert!(
            took < Duration::from_millis(3900),
            "gather {gather}: {took:?}"
        );
        assert_eq!(plugin.next_gather(), [], "vm_collector alone");
    }
    assert_eq!(said(&plugin, "W!").len(), 1, "{}", plugin.stderr());

    lab.signal_libvirtd("CONT");
    lab.virsh(&["list"]);
    let next = plugin.gather();
    // The gather has all lines again, and the rates over the gap.
    assert_eq!(next.len(), whole.len() + 1);
    one(&next, "vm_features", &name);
    assert_eq!(said(&plugin, "W!").len(), 1, "{}", plugin.stderr());
    assert_eq!(said(&plugin, "I!").len(), 1, "{}", plugin.stderr());
    assert_eq!(plugin.gathers(), 2);
}

#[test]
fn newlines_that_come_during_a_gather_fold() {
    let (lab, _) = lab();
    let mut plugin = plugin(&lab, "deadline = '4s'", &[]);
    plugin.gather();
    lab.signal_libvirtd("STOP");
    for _ in 0..11 {
        plugin.newline();
        std::thread::sleep(Duration::from_millis(100));
    }
    assert_eq!(ended(&plugin), 1, "the gather that they come in is over");
    support::wait_for("the gather's end", LONG, || {
        (ended(&plugin) == 2).then_some(())
    });
    // The gather that the newlines request begins at once; the daemon must answer it.
    lab.signal_libvirtd("CONT");
    plugin.gather_all();
    assert_eq!(ended(&plugin), 3, "{}", plugin.stderr());
}

#[test]
fn once_and_check_keep_the_deadline_too() {
    let (lab, _) = lab();
    lab.signal_libvirtd("STOP");
    for flag in ["--once", "--check"] {
        let start = Instant::now();
        let mut plugin = plugin(&lab, "deadline = '1s'", &[flag]);
        let status = plugin.wait(LONG);
        assert!(start.elapsed() < Duration::from_secs(4), "{flag}");
        assert_eq!(status.code(), Some(1), "{flag}");
        assert_eq!(said(&plugin, "E!").len(), 1, "{flag}: {}", plugin.stderr());
    }
    lab.signal_libvirtd("CONT");
}

/// What the proxy saw of the connection for events, once it exists.
fn with_events(proxy: &Proxy, before: usize) -> Option<Passed> {
    let mut connections = proxy.passed().split_off(before).into_iter();
    connections.find(|connection| !connection.events.is_empty())
}

/// libvirt 9.0 may crash if a connection with registrations for events ends during a call (`libvirt/events/watcher.rs`): it
/// did so in 2 of 240 ends while it was frozen.
#[test]
fn no_call_is_under_way_on_a_connection_with_events_when_the_program_ends() {
    let (lab, _) = lab();
    let proxy = Proxy::start(&lab, 1);
    let uri = format!("uri = \"{}\"", proxy.uri());
    // The delay of replies in milliseconds, whether there was a gather, and how many registrations are removed.
    for (delay, gathers, removed) in [
        (60_000, false, 0..=0),
        (60_000, true, 0..=0),
        (20, true, 0..=8),
        (0, true, 1..=12),
    ] {
        let before = proxy.passed().len();
        let mut plugin = plugin(&lab, &uri, &[]);
        if gathers {
            plugin.gather();
        }
        support::wait_for("events", LONG, || {
            with_events(&proxy, before)?
                .waits_for_events()
                .then_some(())
        });
        proxy.delay(Duration::from_millis(delay));
        let end = end(&mut plugin, &proxy, before);
        assert_eq!(end.under_way_at_end, Some(0), "{delay} ms: {end:?}");
        assert!(removed.contains(&end.removed()), "{delay} ms: {end:?}");
        proxy.delay(Duration::ZERO);
    }

    // The program ends while it registers, which takes longer than an end may wait for.
    let before = proxy.passed().len();
    proxy.delay(Duration::from_millis(150));
    let mut plugin = plugin(&lab, &uri, &[]);
    support::wait_for("a registration", LONG, || with_events(&proxy, before));
    let end = end(&mut plugin, &proxy, before);
    assert_eq!(end.under_way_at_end, Some(0), "{end:?}");
    // It has dealt with all these ends before it answers.
    lab.virsh(&["list"]);
}

/// Sends SIGTERM; returns what the proxy saw of the connection for events when that has ended.
fn end(plugin: &mut Plugin, proxy: &Proxy, before: usize) -> Passed {
    plugin.signal(Signal::TERM);
    assert_eq!(plugin.wait(END).code(), Some(0));
    support::wait_for("the connection's end", LONG, || {
        with_events(proxy, before).filter(|it| it.under_way_at_end.is_some())
    })
}

/// When a client only breaks the connection, libvirtd logs `End of file while reading data`.
#[test]
fn an_end_leaves_nothing_in_the_daemons_log() {
    let (lab, _) = lab();
    let log = lab.dir().join("libvirtd.log");
    lab.reconfigure_libvirtd(&format!("log_outputs = \"3:file:{}\"\n", log.display()));
    let log = || std::fs::read_to_string(&log).unwrap();
    for end in ["SIGTERM", "end of input", "--once"] {
        let once: &[&str] = if end == "--once" { &["--once"] } else { &[] };
        let mut plugin = plugin(&lab, "", once);
        if once.is_empty() {
            plugin.gather();
        }
        match end {
            "SIGTERM" => plugin.signal(Signal::TERM),
            _ => plugin.close(),
        }
        assert!(plugin.wait(END).success(), "{end}");
        // The daemon has written its log about the old connection before it answers the next client.
        lab.virsh(&["list"]);
        std::thread::sleep(Duration::from_millis(300));
        assert!(!log().contains("End of file"), "{end}: {}", log());
    }
}
