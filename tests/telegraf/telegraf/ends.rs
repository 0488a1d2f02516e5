//! Reload, stop and Ctrl-C; and the stanza as it is installed.

use super::node;
use crate::agent::{self, Config, LIMIT, PLUGIN, Telegraf, alive, by_time, general};
use crate::support::lab::Lab;
use crate::support::lines::{Line, Value};
use crate::support::plugin::kill;
use crate::support::vm::VmSpec;
use crate::support::wait_for;
use rustix::process::Signal;
use std::path::Path;
use std::time::{Duration, Instant};

/// The number of lines of each measurement: metrics, features, devices, totals.
fn counts(gather: &[Line]) -> [usize; 4] {
    ["vm_metrics", "vm_features", "vm_devices", "vm_totals"].map(|name| {
        gather
            .iter()
            .filter(|line| line.measurement == name)
            .count()
    })
}

#[test]
fn the_stanza_as_installed_gathers_and_survives_a_reload() {
    let dir = tempfile::tempdir().unwrap();
    let uri = node::write(&dir.path().join("node.xml"), &node::plain(4, 1, 1));
    let stanza = Path::new(env!("CARGO_MANIFEST_DIR")).join("telegraf/telegraf-kvm.conf");
    let stanza = std::fs::read_to_string(stanza).unwrap();
    let installed = "command = [\"/usr/bin/telegraf-kvm\"]\n";
    assert!(stanza.contains(installed));
    let folder = dir.path().join("telegraf.d");
    std::fs::create_dir(&folder).unwrap();
    let stanza = stanza.replacen(installed, &format!("command = [{PLUGIN:?}]\n"), 1);
    std::fs::write(folder.join("telegraf-kvm.conf"), stanza).unwrap();
    // In seconds, like the timestamps: the timestamps of two processes are independent.
    let mut command = agent::command(dir.path(), &general(dir.path(), "1s", false));
    command
        .arg("--config-directory")
        .arg(&folder)
        .env("LIBVIRT_DEFAULT_URI", &uri);
    let mut telegraf = Telegraf::spawn(dir.path(), command);

    let gathers = telegraf.gathers(3);
    assert_eq!(counts(&gathers[0]), [4, 0, 8, 4]);
    assert_eq!(counts(&gathers[2]), [4, 4, 8, 4]);

    let before = telegraf.plugin_pid();
    let start = Instant::now();
    telegraf.signal(Signal::HUP);
    wait_for("the plugin's end", LIMIT, || (!alive(before)).then_some(()));
    let took = start.elapsed();
    assert!(took < Duration::from_secs(5), "the reload took {took:?}");
    let after = wait_for("a new plugin", LIMIT, || {
        let pid = telegraf.plugin_pid();
        (pid != before).then_some(pid)
    });
    let gathered = by_time(telegraf.out()).len();
    let gathers = telegraf.gathers(gathered + 3);
    // The new process knows no earlier sample: its first gather has no vm_features.
    let features: Vec<usize> = gathers.iter().map(|gather| counts(gather)[1]).collect();
    let starts: Vec<usize> = (0..features.len()).filter(|i| features[*i] == 0).collect();
    assert!(
        matches!(starts[..], [0, second] if second >= 3),
        "{features:?}"
    );
    assert!(
        gathers
            .iter()
            .all(|gather| counts(gather)[0] == 4 && counts(gather)[2] == 8)
    );
    telegraf.signal(Signal::TERM);
    telegraf.ends(after);
    assert_eq!(telegraf.plugin_log(), []);
}

/// Telegraf and its plugin end in time, without a log line; `stop` is the way to end them.
fn ends_quietly(uri: &str, mode: (&'static str, &[&str]), stop: impl Fn(&Telegraf)) {
    let dir = tempfile::tempdir().unwrap();
    let mut config = Config::new(&[&["--uri", uri], mode.1].concat());
    config.signal = mode.0;
    config.interval = "300ms";
    let mut telegraf = Telegraf::start(dir.path(), &config);
    telegraf.gathers(1);
    let plugin = telegraf.plugin_pid();
    stop(&telegraf);
    telegraf.ends(plugin);
    assert_eq!(telegraf.plugin_log(), []);
    let log = telegraf.log();
    assert!(!log.contains("E!"), "{log}");
}

#[test]
fn telegraf_stops_in_time_and_takes_the_plugin_with_it() {
    let dir = tempfile::tempdir().unwrap();
    let uri = node::write(&dir.path().join("node.xml"), &node::plain(20, 2, 2));
    for signal in [Signal::TERM, Signal::INT] {
        ends_quietly(&uri, ("STDIN", &[]), |telegraf| telegraf.signal(signal));
        let own_time = ("none", &["--interval", "300ms"][..]);
        ends_quietly(&uri, own_time, |telegraf| telegraf.signal(signal));
    }
}

#[test]
fn telegraf_stops_in_time_while_libvirtd_hangs() {
    let lab = Lab::start();
    let vm = VmSpec {
        paused: true,
        ..VmSpec::default()
    };
    lab.create(&vm);
    let mut config = Config::new(&[]);
    config.interval = "200ms";
    let toml = config.toml(lab.dir());
    let mut telegraf = Telegraf::spawn(lab.dir(), agent::command_in(&lab, &toml));
    telegraf.gathers(2);
    lab.signal_libvirtd("STOP");
    // The pause is long enough for a gather to begin, and to hang.
    std::thread::sleep(Duration::from_millis(500));
    let gathered = by_time(telegraf.out()).len();
    std::thread::sleep(Duration::from_millis(500));
    assert_eq!(
        by_time(telegraf.out()).len(),
        gathered,
        "libvirtd is frozen"
    );
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    lab.signal_libvirtd("CONT");
    let errors = |(level, _): &(char, String)| *level == 'E';
    assert!(
        !telegraf.plugin_log().iter().any(errors),
        "{}",
        telegraf.log()
    );
}

#[test]
fn ctrl_c_on_a_terminal_is_quiet() {
    let dir = tempfile::tempdir().unwrap();
    let uri = node::write(&dir.path().join("node.xml"), &node::plain(20, 2, 2));
    for _ in 0..5 {
        ends_quietly(&uri, ("STDIN", &[]), |telegraf| {
            telegraf.signal_group(Signal::INT)
        });
    }
}

/// An incomplete line that a plugin leaves behind may be a valid point with another time or type.
#[test]
fn a_plugin_that_ends_while_telegraf_stands_still_leaves_no_half_point() {
    let dir = tempfile::tempdir().unwrap();
    let vms = node::plain(300, 2, 1);
    let uri = node::write(&dir.path().join("node.xml"), &vms);
    let mut config = Config::new(&["--uri", &uri, "--interval", "1h"]);
    config.signal = "none";
    let mut telegraf = Telegraf::start(dir.path(), &config);
    // The plugin begins with this gather: after its end the plugin waits.
    let begun = |last| {
        wait_for("a gather", LIMIT, || {
            let (time, lines) = by_time(telegraf.out()).pop_last()?;
            (time > last && lines.len() == node::first_lines(&vms)).then_some(time)
        })
    };
    let mut last = begun(0);
    for signal in [Signal::KILL, Signal::TERM, Signal::KILL, Signal::TERM] {
        let plugin = telegraf.plugin_pid();
        telegraf.signal(Signal::STOP);
        kill(plugin, Signal::USR1);
        wait_for("a full pipe", LIMIT, || full_pipe(plugin).then_some(()));
        kill(plugin, signal);
        wait_for("its end", LIMIT, || (!alive(plugin)).then_some(()));
        telegraf.signal(Signal::CONT);
        last = begun(last);
    }
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    let log = telegraf.log();
    assert!(!log.contains("parse error"), "{log}");
    // Each measurement has all its fields, with their types.
    let shape = |line: &Line| -> Vec<(String, bool)> {
        let fields = line.fields.iter();
        let of = |(key, value): (&String, &Value)| (key.clone(), matches!(value, Value::Float(_)));
        fields.map(of).collect()
    };
    let out = telegraf.out();
    let began = out[0].timestamp;
    let mut shapes = std::collections::BTreeMap::new();
    for line in &out {
        let minutes = (line.timestamp - began) / 60_000_000_000;
        assert!((0..10).contains(&minutes), "{line:?}");
        let kind = (&line.measurement, line.tags.get("devtype"));
        let first = shapes.entry(kind).or_insert_with(|| shape(line));
        assert_eq!(*first, shape(line), "{line:?}");
    }
}

/// Whether a process has a pipe that contains nearly as much as an ordinary one can hold.
fn full_pipe(pid: u32) -> bool {
    let files = std::fs::read_dir(format!("/proc/{pid}/fd")).unwrap();
    let unread = |file: std::fs::DirEntry| {
        let link = std::fs::read_link(file.path()).ok()?;
        if !link.to_str()?.starts_with("pipe:") {
            return None;
        }
        let pipe = std::fs::File::open(file.path()).ok()?;
        rustix::io::ioctl_fionread(pipe).ok()
    };
    files.flatten().filter_map(unread).any(|n| n > 58_000)
}
