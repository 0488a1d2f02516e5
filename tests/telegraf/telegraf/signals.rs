//! Each of Telegraf's ways to request a gather, in a run of several gathers.

use super::node;
use crate::agent::{Config, Telegraf, sorted};
use crate::support::lines::{FEATURES, Line, Value, lines};
use crate::support::plugin::Plugin;
use crate::support::succeed;
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The identity of a line and the types of its fields, which must be the same in every gather.
type LineShape = (String, BTreeMap<String, String>, BTreeMap<String, char>);

fn shape(line: &Line) -> LineShape {
    let kind = |value: &Value| match value {
        Value::Int(_) => 'i',
        Value::Float(_) => 'f',
        Value::Text(_) => 's',
    };
    let fields = line
        .fields
        .iter()
        .map(|(key, value)| (key.clone(), kind(value)));
    (
        line.measurement.clone(),
        line.tags.clone(),
        fields.collect(),
    )
}

/// Checks the line's tags and the types of its fields against the contract.
fn is_as_contracted((measurement, tags, fields): &LineShape) -> bool {
    let keys: Vec<&str> = tags.keys().map(String::as_str).collect();
    let text = |key: &str| matches!(key, "state" | "state_reason");
    match measurement.as_str() {
        "vm_metrics" => {
            keys == ["VMID", "name", "uuid"]
                && fields
                    .iter()
                    .all(|(key, kind)| *kind == if text(key) { 's' } else { 'i' })
        }
        "vm_totals" => keys == ["VMID", "name", "uuid"] && fields.values().all(|kind| *kind == 'i'),
        "vm_devices" => {
            keys == ["VMID", "device", "devtype", "name", "uuid"]
                && fields.values().all(|kind| *kind == 'i')
        }
        _ => false,
    }
}

/// The vm_features line that the contract requires for this line's VM, which has no balloon.
fn features(line: &Line) -> LineShape {
    let fields = FEATURES.map(|key| (key.to_owned(), 'f'));
    ("vm_features".to_owned(), line.tags.clone(), fields.into())
}

fn nanoseconds() -> i64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    i64::try_from(now.as_nanos()).unwrap()
}

fn start(dir: &Path, uri: &str, signal: &'static str, args: &[&str]) -> Telegraf {
    std::fs::create_dir(dir).unwrap();
    let mut config = Config::new(&[&["--uri", uri], args].concat());
    config.signal = signal;
    // A tick in the milliseconds before the program's first statement ends it in a signal mode, which the
    // program cannot prevent (Telegraf starts it again). So the first tick comes later.
    config.execd = "collection_offset = \"800ms\"".into();
    Telegraf::start(dir, &config)
}

#[test]
fn every_signal_mode_brings_every_line_of_every_gather() {
    let dir = tempfile::tempdir().unwrap();
    let vms = node::plain(3, 2, 2);
    let uri = node::write(&dir.path().join("node.xml"), &vms);
    let once = lines(&succeed(&mut Plugin::outside(&["--once", "--uri", &uri])));
    assert_eq!(once.len(), node::first_lines(&vms));
    let first: BTreeSet<LineShape> = once.iter().map(shape).collect();
    let strangers: Vec<&LineShape> = first
        .iter()
        .filter(|shape| !is_as_contracted(shape))
        .collect();
    assert!(strangers.is_empty(), "{strangers:#?}");
    let metrics = once.iter().filter(|line| line.measurement == "vm_metrics");
    let mut further: BTreeSet<LineShape> = metrics.map(features).collect();
    assert_eq!(further.len(), vms.len());
    further.extend(first.iter().cloned());

    let began = nanoseconds();
    let modes = [
        ("STDIN", &[][..]),
        ("SIGHUP", &[]),
        ("SIGUSR1", &[]),
        ("SIGUSR2", &[]),
        ("none", &["--interval", "1s"]),
    ];
    let agents =
        modes.map(|(signal, args)| (signal, start(&dir.path().join(signal), &uri, signal, args)));
    for (signal, telegraf) in &agents {
        let gathers = telegraf.gathers(4);
        let ended = nanoseconds();
        for (i, gather) in gathers.iter().enumerate() {
            let expected = if i == 0 { &first } else { &further };
            let shapes: BTreeSet<LineShape> = gather.iter().map(shape).collect();
            assert_eq!(&shapes, expected, "{signal}, gather {i}");
            assert_eq!(
                gather.len(),
                expected.len(),
                "{signal}: a line twice in gather {i}"
            );
            // Timestamps are truncated to the second, which may be before the start.
            let timestamp = gather[0].timestamp;
            assert!(
                timestamp > began - 1_000_000_000 && timestamp < ended,
                "{signal}: {timestamp}"
            );
        }
        // Gathers are a second apart, except for the truncation; two requests in a tick would show here.
        let whole = gathers[3][0].timestamp - gathers[0][0].timestamp;
        assert!(
            (2_000_000_000..=4_500_000_000).contains(&whole),
            "{signal}: {whole} ns"
        );
        assert_eq!(telegraf.plugin_log(), [], "{signal}");
    }
}

#[test]
fn telegraf_passes_on_what_was_written_and_nothing_else() {
    let dir = tempfile::tempdir().unwrap();
    let uri = node::write(&dir.path().join("node.xml"), &node::plain(20, 2, 2));
    let copy = dir.path().join("copy");
    let mut config = Config::new(&["--uri", &uri]).copied_to(&copy);
    config.interval = "200ms";
    let mut telegraf = Telegraf::start(dir.path(), &config);
    telegraf.gathers(10);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(rustix::process::Signal::TERM);
    telegraf.ends(plugin);
    let written = lines(&std::fs::read_to_string(&copy).unwrap());
    assert!(written.len() >= 20 * 6 + 10 * 20 * 7, "{}", written.len());
    // Values, types and timestamps, up to the last gather before the end.
    assert_eq!(sorted(telegraf.out()), sorted(written));
    assert_eq!(telegraf.plugin_log(), []);
}
