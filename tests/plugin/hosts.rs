//! Several hypervisors from one process: tables `[[host]]`. With real ones: `lab/hosts.rs`.

use crate::support::lines::{Line, all_lines};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{config, run, told, wait_for};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::io::{Read, Write};
use std::os::unix::net::UnixListener;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};
use tempfile::{NamedTempFile, TempDir};

const LONG: Duration = Duration::from_secs(30);
/// The promise is 2 s after SIGTERM and 4 s after the end of stdin; the rest is for a busy machine.
const STOP: Duration = Duration::from_millis(2300);
const END: Duration = Duration::from_millis(4300);

/// There is no daemon.
const DEAD: &str = "qemu+unix:///system?socket=/no/such/socket";

/// A node with one VM of two devices.
fn other_node() -> NamedTempFile {
    node::write(&[Domain {
        devices: disk("disk", "vda") + &nic(Some("tap0")),
        ..Domain::new(1, "other")
    }])
}

/// A configuration with these names and URIs, after these keys.
fn tables(keys: &str, hosts: &[(&str, &str)]) -> NamedTempFile {
    let table = |(name, uri): &(&str, &str)| format!("[[host]]\nname = {name:?}\nuri = {uri:?}\n");
    let tables: String = hosts.iter().map(table).collect();
    config(&format!("{keys}\n{tables}"))
}

fn command(config: &NamedTempFile, more: &[&str]) -> Command {
    let path = config.path().to_str().unwrap();
    Plugin::outside(&[&["--config", path][..], more].concat())
}

/// The lines of each hypervisor.
fn by_host(text: &str) -> BTreeMap<String, Vec<Line>> {
    let mut all: BTreeMap<String, Vec<Line>> = BTreeMap::new();
    for line in all_lines(text) {
        all.entry(line.tag("host").to_owned())
            .or_default()
            .push(line);
    }
    all
}

fn of<'l>(lines: &'l [Line], measurement: &str) -> Vec<&'l Line> {
    let of = lines.iter();
    of.filter(|line| line.measurement == measurement).collect()
}

/// Requests gather number `number`, and waits until each hypervisor has written the line that ends it.
fn gather(plugin: &mut Plugin, number: usize, hosts: &[&str]) {
    plugin.newline();
    let is_there = |text: &str| {
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        let all = by_host(whole);
        let ended = |host: &str| {
            let lines = all.get(host);
            lines.is_some_and(|lines| of(lines, "vm_collector").len() >= number)
        };
        hosts.iter().all(|host| ended(host))
    };
    wait_for("the gather of each", LONG, || {
        is_there(&plugin.stdout()).then_some(())
    });
}

#[test]
fn each_has_its_lines_in_each_gather_with_its_tag() {
    let node = other_node();
    let uri = node::uri(&node);
    let config = tables(
        "measurements = ['vm_metrics', 'vm_devices', 'vm_totals', 'vm_info', 'vm_collector']",
        &[("a", "test:///default"), ("kvm 2", &uri)],
    );
    let mut plugin = Plugin::spawn(command(&config, &[]));
    for number in 1..=3 {
        gather(&mut plugin, number, &["a", "kvm 2"]);
    }
    plugin.close();
    assert_eq!(plugin.wait(END).code(), Some(0));
    let all = by_host(&plugin.stdout());
    for (host, name, uri) in [("a", "test", "test:///default"), ("kvm 2", "other", &uri)] {
        let lines = &all[host];
        let names: BTreeSet<&String> = lines
            .iter()
            .flat_map(|line| line.tags.get("name"))
            .collect();
        assert_eq!(names, BTreeSet::from([&name.to_owned()]));
        assert_eq!(of(lines, "vm_metrics").len(), 3);
        assert_eq!(of(lines, "vm_devices").len(), 6);
        assert_eq!(
            of(lines, "vm_info").len(),
            3,
            "of the VM and two devices, once"
        );
        let collector = of(lines, "vm_collector");
        assert_eq!(collector.len(), 3);
        // Counts are of this hypervisor alone.
        for (number, line) in (1..).zip(&collector) {
            assert_eq!(line.tag("uri"), uri);
            let calls = ["calls_open", "calls_list", "xml_reads"].map(|key| line.int(key));
            assert_eq!(calls, [Some(1), Some(number), Some(1)], "{line:?}");
        }
        // The lines of one gather are one block, with one timestamp.
        let stamps: BTreeSet<i64> = lines.iter().map(|line| line.timestamp).collect();
        assert_eq!(stamps.len(), 3);
    }
    let order = all_lines(&plugin.stdout());
    let blocks = order.chunk_by(|one, next| {
        one.tag("host") == next.tag("host") && one.measurement != "vm_collector"
    });
    assert_eq!(blocks.count(), 6, "no block is cut by another");
    assert_eq!(plugin.warnings(), Vec::<String>::new());
    // The line of the start is that of each.
    let log = plugin.whole_log();
    for start in ["I! a: libvirt ", "I! kvm 2: libvirt "] {
        assert_eq!(log.matches(start).count(), 1, "{log}");
    }
}

#[test]
fn one_that_is_dead_takes_nothing_from_the_others_and_is_told_once() {
    let config = tables("", &[("a", "test:///default"), ("b", DEAD)]);
    let mut plugin = Plugin::spawn(command(&config, &[]));
    for number in 1..=3 {
        gather(&mut plugin, number, &["a", "b"]);
    }
    plugin.close();
    assert_eq!(plugin.wait(END).code(), Some(0));
    let all = by_host(&plugin.stdout());
    assert_eq!(of(&all["a"], "vm_metrics").len(), 3);
    let up = |host: &str| -> Vec<Option<i64>> {
        let lines = of(&all[host], "vm_collector");
        lines.iter().map(|line| line.int("up")).collect()
    };
    assert_eq!(up("a"), [Some(1); 3]);
    assert_eq!(up("b"), [Some(0); 3]);
    let warnings = plugin.warnings();
    let [warning] = &warnings[..] else {
        panic!("{warnings:?}");
    };
    let begin = format!("W! b: cannot reach libvirt at {DEAD} (from ");
    assert!(warning.starts_with(&begin), "{warning}");
}

#[test]
fn a_single_table_has_the_tag_and_messages_as_without() {
    let config = tables("", &[("a", DEAD)]);
    let (code, out, err) = told(&run(&mut command(&config, &["--once"])));
    assert_eq!(code, Some(1));
    assert_eq!(all_lines(&out)[0].tag("host"), "a");
    assert!(err.starts_with("W! cannot reach libvirt at "), "{err}");
    // By hand.
    let uri = ["--once", "--uri", "test:///default"];
    let (code, out, _) = told(&run(&mut command(&config, &uri)));
    assert_eq!((code, out.contains("host=")), (Some(0), false), "{out}");
    assert_eq!(all_lines(&out).len(), 5);
}

#[test]
fn once_is_0_with_lines_of_any_and_names_those_without() {
    let config = tables(
        "",
        &[
            ("a", "test:///default"),
            ("b", DEAD),
            ("c", "test:///no.xml"),
        ],
    );
    let (code, out, err) = told(&run(&mut command(&config, &["--once"])));
    assert_eq!(code, Some(0), "{err}");
    assert_eq!(by_host(&out)["a"].len(), 5);
    let last: Vec<&str> = err.lines().rev().take(2).collect();
    for (line, begin) in last
        .iter()
        .zip(["W! c: nothing gathered at ", "W! b: nothing gathered at "])
    {
        assert!(line.starts_with(begin), "{err}");
    }
    assert!(!err.contains("E! "), "{err}");

    let config = tables("", &[("b", DEAD), ("c", "test:///no.xml")]);
    let (code, out, err) = told(&run(&mut command(&config, &["--once"])));
    assert_eq!(code, Some(1));
    assert_eq!(by_host(&out).len(), 2);
    for begin in ["E! b: nothing gathered at ", "E! c: nothing gathered at "] {
        assert!(err.lines().any(|line| line.starts_with(begin)), "{err}");
    }
}

#[test]
fn what_is_pending_at_the_end_of_stdin_is_answered_by_each() {
    let node = other_node();
    let config = tables("", &[("a", "test:///default"), ("b", &node::uri(&node))]);
    for _ in 0..5 {
        let mut plugin = Plugin::spawn(command(&config, &[]));
        plugin.newline();
        plugin.close();
        assert_eq!(plugin.wait(END).code(), Some(0));
        let all = by_host(&plugin.stdout());
        for host in ["a", "b"] {
            assert_eq!(of(&all[host], "vm_metrics").len(), 1, "{host}");
        }
    }
}

/// Far more than a pipe holds at a time.
#[test]
fn a_large_block_is_not_cut_by_that_of_another() {
    let many = || {
        let vm = |number| Domain {
            devices: disk("disk", "vda") + &nic(Some("tap0")),
            ..Domain::new(number, &format!("vm{number}"))
        };
        node::write(&(1..=300).map(vm).collect::<Vec<_>>())
    };
    let nodes = [many(), many()];
    let [one, two] = nodes.each_ref().map(node::uri);
    let config = tables("", &[("a", &one), ("b", &two)]);
    let mut child = command(&config, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    stdin.write_all(b"\n").unwrap();
    let mut stdout = child.stdout.take().unwrap();
    wait_for("the pipe to fill", LONG, || {
        let unread = rustix::io::ioctl_fionread(&stdout).unwrap();
        (unread >= 16 * 3700).then_some(())
    });
    // The other one has its lines, too, and would write as soon as there is room.
    std::thread::sleep(Duration::from_millis(500));
    drop(stdin);
    let mut text = String::new();
    stdout.read_to_string(&mut text).unwrap();
    assert_eq!(child.wait().unwrap().code(), Some(0));
    let lines = all_lines(&text);
    assert_eq!(lines.len(), 2 * (300 * 4 + 1));
    let blocks = lines.chunk_by(|one, next| one.tag("host") == next.tag("host"));
    assert_eq!(blocks.count(), 2);
}

/// Daemons that take connections and never answer.
struct Frozen {
    folder: TempDir,
    _listeners: Vec<UnixListener>,
}

impl Frozen {
    fn new(count: usize) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let bind = |number| UnixListener::bind(folder.path().join(format!("{number}"))).unwrap();
        let _listeners = (0..count).map(bind).collect();
        Self { folder, _listeners }
    }

    /// A configuration with `test:///default` as `a`, and each of these.
    fn config(&self, keys: &str) -> NamedTempFile {
        let hosts: Vec<(String, String)> = (0..self._listeners.len())
            .map(|number| {
                let socket = self.folder.path().join(format!("{number}"));
                let uri = format!("qemu+unix:///system?socket={}", socket.display());
                (format!("frozen{number}"), uri)
            })
            .collect();
        let mut all = vec![("a", "test:///default")];
        all.extend(hosts.iter().map(|(name, uri)| (&**name, &**uri)));
        tables(keys, &all)
    }
}

#[test]
fn twenty_that_hang_neither_delay_another_nor_the_end() {
    let frozen = Frozen::new(20);
    let config = frozen.config("");
    for (end, limit) in [
        (Some(Signal::TERM), STOP),
        (Some(Signal::INT), STOP),
        (None, END),
    ] {
        let mut plugin = Plugin::spawn(command(&config, &[]));
        let start = Instant::now();
        for number in 1..=3 {
            gather(&mut plugin, number, &["a"]);
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(4), "half a deadline: {took:?}");
        let ending = Instant::now();
        match end {
            Some(signal) => plugin.signal(signal),
            None => plugin.close(),
        }
        assert_eq!(plugin.wait(LONG).code(), Some(0));
        assert!(ending.elapsed() < limit, "{end:?}: {:?}", ending.elapsed());
        // Each says that it had no answer, also when it ends.
        let all = by_host(&plugin.stdout());
        assert_eq!(all.len(), 21, "{:?}", all.keys());
    }
}

#[test]
fn a_reader_that_went_away_is_the_end_of_all() {
    // The frozen one writes nothing.
    let frozen = Frozen::new(1);
    let config = frozen.config("measurements = ['vm_metrics']");
    let mut child = command(&config, &[])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let stdin = child.stdin.as_mut().unwrap();
    stdin.write_all(b"\n").unwrap();
    // stdin stays open: the pipe is the only reason to end.
    let start = Instant::now();
    let status = wait_for("its end", LONG, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert!(
        start.elapsed() < Duration::from_secs(4),
        "before the deadline: {:?}",
        start.elapsed()
    );
}

#[test]
fn the_interval_and_signals_are_for_all() {
    let node = other_node();
    let config = tables("", &[("a", "test:///default"), ("b", &node::uri(&node))]);
    let count = |plugin: &Plugin, host: &str| {
        let text = plugin.stdout();
        let whole = text.rfind('\n').map_or("", |end| &text[..=end]);
        by_host(whole)
            .get(host)
            .map_or(0, |lines| of(lines, "vm_collector").len())
    };
    let at_least = |plugin: &Plugin, gathers: usize| {
        wait_for("gathers", LONG, || {
            let all = ["a", "b"].iter().all(|host| count(plugin, host) >= gathers);
            all.then_some(())
        });
    };
    let mut plugin = Plugin::spawn(command(&config, &["--interval", "100ms"]));
    at_least(&plugin, 3);
    plugin.close();
    assert_eq!(plugin.wait(END).code(), Some(0));

    let plugin = Plugin::spawn(command(&config, &[]));
    plugin.wait_until_it_catches(Signal::USR1);
    for number in 1..=3 {
        plugin.signal(Signal::USR1);
        at_least(&plugin, number);
    }
}

#[test]
fn the_check_tells_of_each() {
    let node = other_node();
    let frozen = Frozen::new(1);
    let socket = frozen.folder.path().join("0");
    let uri = format!("qemu+unix:///system?socket={}", socket.display());
    let node_uri = node::uri(&node);
    let hosts = [
        ("a", "test:///default"),
        ("b", &*node_uri),
        ("c", DEAD),
        ("d", &*uri),
    ];
    let config = tables("deadline = '1s'", &hosts);
    let start = Instant::now();
    let (code, out, err) = told(&run(&mut command(&config, &["--check"])));
    assert!(start.elapsed() < Duration::from_secs(6), "all at once");
    assert_eq!(code, Some(1), "not all can be reached");
    let parts: Vec<&str> = out.split("\nhost: ").collect();
    assert_eq!(parts.len(), 5, "{out}");
    for ((name, uri), part) in hosts.iter().zip(&parts[1..]) {
        assert!(
            part.starts_with(&format!("{name}\nURI: {uri} (from ")),
            "{out}"
        );
    }
    assert!(
        parts[1].contains("connected: 1 active VM") && parts[2].contains("connected: 1 active VM")
    );
    let begins = [
        format!("E! c: cannot reach libvirt at {DEAD} "),
        format!("E! d: cannot reach libvirt at {uri} "),
    ];
    let lines: Vec<&str> = err.lines().collect();
    assert_eq!(lines.len(), 2, "{err}");
    for (line, begin) in lines.iter().zip(&begins) {
        assert!(line.starts_with(begin), "{err}");
    }

    let (code, out, _) = told(&run(&mut command(&config, &["--check", "--json"])));
    assert_eq!(code, Some(1));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    let documents: Vec<_> = document.as_array().unwrap().iter().collect();
    let connected = |(name, one): (&(&str, &str), &&serde_json::Value)| {
        assert_eq!(one["name"], name.0);
        assert!(one["findings"].is_array());
        one["connected"].as_bool().unwrap()
    };
    let connected: Vec<bool> = hosts.iter().zip(&documents).map(connected).collect();
    assert_eq!(connected, [true, true, false, false]);

    // One table is a list as well; without a table the document is an object.
    let config = tables("", &hosts[..1]);
    let (code, out, _) = told(&run(&mut command(&config, &["--check", "--json"])));
    let document: serde_json::Value = serde_json::from_str(&out).unwrap();
    assert_eq!((code, &document[0]["name"]), (Some(0), &"a".into()));
}

#[test]
fn open_files_are_counted_for_all() {
    let config = tables(
        "",
        &[
            ("a", "test:///default"),
            ("b", DEAD),
            ("c", "qemu+tls://192.0.2.1/system"),
        ],
    );
    let program = command(&config, &["--once"]);
    let mut limited = Command::new("prlimit");
    limited
        .arg("--nofile=147")
        .arg(program.get_program())
        .args(program.get_args());
    let (code, _, err) = told(&run(limited.stdin(Stdio::null())));
    assert_eq!(code, Some(1));
    // 32, and for each connection 4: one of the test driver, 14 of each of the others.
    let begin = "E! the limit of open files is 147, and this configuration needs 148; ";
    assert!(err.starts_with(begin) && err.lines().count() == 1, "{err}");
}

#[test]
fn no_password_of_any_is_shown() {
    let one = "test:///none.xml?password=first-secret";
    let two = "qemu+unix:///system?socket=/none&name=esx%3A%2F%2Fuser%3Asecond-secret%40kvm01";
    let config = tables("", &[("a", one), ("b", two)]);
    for flags in [&["--once"][..], &["--check"], &["--check", "--json"]] {
        let mut command = command(&config, flags);
        command.env("RUST_LOG", "trace").env("LIBVIRT_DEBUG", "1");
        let (code, out, err) = told(&run(command.stdin(Stdio::null())));
        assert_eq!(code, Some(1));
        let both = out + &err;
        assert!(
            both.contains("***") && !both.contains("-secret"),
            "{flags:?}: {both}"
        );
    }
}

/// What libraries print is of no hypervisor that is known.
#[test]
fn output_of_libraries_has_no_name_of_a_hypervisor() {
    let broken = NamedTempFile::with_suffix(".xml").unwrap();
    let xml = "<node><domain file='/none/of these.xml'/></node>";
    std::fs::write(broken.path(), xml).unwrap();
    let config = tables("", &[("a", "test:///default"), ("b", &node::uri(&broken))]);
    let (_, _, err) = told(&run(&mut command(&config, &["--once"])));
    assert!(err.contains("W! a library says: "), "{err}");
    assert!(!err.contains(": a library says: "), "{err}");
}
