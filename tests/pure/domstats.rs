//! Statistics text in, lines out, without a hypervisor: the output of `virsh domstats --raw` for a VM, with
//! its XML, and the lines that this program writes for that VM.
//!
//! A fixture is three files. `NAME.txt` holds one reply per gather; `at SECONDS` before a reply is the time
//! at which it was taken, and `#` begins a comment. `NAME.xml` is the VM's XML. `NAME.expected` holds the
//! lines, checked by hand against the contract (the tables of docs/metrics.md), with the time of the gather
//! in whole seconds. The clock stands at [`CLOCK`] when a fixture begins.

use std::path::Path;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::lines;
use telegraf_kvm::config::Settings;
use telegraf_kvm::derive::History;
use telegraf_kvm::description::Description;
use telegraf_kvm::libvirt::{Value, bulk};
use telegraf_kvm::measurements;
use telegraf_kvm::sample::{RunId, Sample};

/// The time at which each fixture begins, in s since 1970: `balloon.last-update` is compared with it.
const CLOCK: u64 = 1_795_385_180;

/// One reply.
struct Reply {
    at: f64,
    name: String,
    params: Vec<(String, String)>,
}

fn replies(text: &str) -> Vec<Reply> {
    let mut replies: Vec<Reply> = Vec::new();
    let mut at = 0.0;
    for line in text.lines().filter(|line| !line.starts_with('#')) {
        if let Some(seconds) = line.strip_prefix("at ") {
            at = seconds.parse().unwrap();
        } else if let Some(name) = line.strip_prefix("Domain: '") {
            replies.push(Reply {
                at,
                name: name.strip_suffix('\'').unwrap().to_owned(),
                params: Vec::new(),
            });
        } else {
            let param = line.strip_prefix("  ").expect(line);
            let (key, value) = param.split_once('=').unwrap_or((param, ""));
            let reply = replies.last_mut().unwrap();
            reply.params.push((key.to_owned(), value.to_owned()));
        }
    }
    replies
}

/// virsh prints every type alike: a name or a path is text even when it looks like a number.
fn value<'a>(key: &str, text: &'a str) -> Value<'a> {
    if key.ends_with(".name") || key.ends_with(".path") {
        return Value::Text(text);
    }
    match (text.parse::<i128>(), text.parse::<f64>()) {
        (Ok(number), _) => Value::Integer(number),
        (_, Ok(number)) => Value::Float(number),
        _ => Value::Text(text),
    }
}

/// The text between the first `before` and the next `after`.
fn between<'a>(text: &'a str, before: &str, after: &str) -> &'a str {
    let (_, rest) = text.split_once(before).expect(before);
    rest.split_once(after).expect(after).0
}

/// The lines of each gather of this fixture.
fn written(fixture: &str, settings: &Settings) -> String {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/domstats");
    let read = |extension: &str| {
        let path = folder.join(fixture).with_extension(extension);
        std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path:?}: {error}"))
    };
    let (text, xml) = (read("txt"), read("xml"));
    let run = RunId {
        uuid: between(&xml, "<uuid>", "</uuid>").parse().unwrap(),
        id: between(&xml, " id='", "'").parse().unwrap(),
    };
    let description = Description::parse(&xml).unwrap();
    let wanted = settings.device_filter();
    let base = Instant::now();
    let mut history = History::default();
    let mut lines = String::new();
    for reply in replies(&text) {
        let at = base + Duration::from_secs_f64(reply.at);
        let mut sample = Sample::new(run, reply.name.into(), at);
        let params = reply.params.iter();
        bulk::fill(
            &mut sample,
            params.map(|(key, text)| (key.as_str(), value(key, text))),
            at,
        );
        // virDomainGetInfo also works for a VM whose QEMU does not answer; virsh has the same number here.
        let vcpus = reply.params.iter().find(|(key, _)| key == "vcpu.current");
        sample.vcpus = vcpus.map(|(_, count)| count.parse().unwrap());
        let now = UNIX_EPOCH + Duration::from_secs(CLOCK) + Duration::from_secs_f64(reply.at);
        let max_age = settings.guest_memory_max_age;
        sample.memory.set_report_age(now, max_age);
        sample.describe(Some(&description), &wanted);
        let timestamp = reply.at as i64 * 1_000_000_000;
        let (vm, derived) = history.update(&sample);
        let wanted = &settings.measurements;
        measurements::write(&mut lines, wanted, &sample, vm, &derived, timestamp);
    }
    lines
}

fn assert_expected(fixture: &str) {
    let found = written(fixture, &Settings::default());
    lines::lines(&found);
    let expected = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/fixtures/domstats")
        .join(fixture)
        .with_extension("expected");
    let expected = std::fs::read_to_string(expected).unwrap_or_default();
    for (i, (found, expected)) in found.lines().zip(expected.lines()).enumerate() {
        assert_eq!(found, expected, "{fixture}, line {}", i + 1);
    }
    assert_eq!(found, expected, "{fixture}: all lines:\n{found}");
}

#[test]
fn a_healthy_vm_of_three_disks_and_two_nics() {
    assert_expected("healthy");
}

#[test]
fn a_frozen_vm_gives_what_needs_no_monitor_and_no_false_sum() {
    assert_expected("frozen");
}

#[test]
fn a_nic_in_user_mode_has_no_line_and_spoils_no_sum() {
    assert_expected("user-mode-nic");
}

#[test]
fn cdrom_and_floppy_are_left_out() {
    assert_expected("empty-cdrom");
}

#[test]
fn cdrom_and_floppy_come_where_they_are_asked_for() {
    let settings = Settings {
        cdrom: true,
        floppy: true,
        ..Settings::default()
    };
    let text = written("empty-cdrom", &settings);
    let lines = lines::lines(&text);
    let mut devices: Vec<&str> = lines::of(&lines, "vm_devices", "cdrom")
        .iter()
        .map(|line| line.tag("device"))
        .collect();
    devices.sort_unstable();
    assert_eq!(devices, ["fda", "hdc", "vda"]);
    let cdrom = lines::device(&lines, "cdrom", "disk", "hdc");
    assert_eq!(cdrom.int("rd_bytes"), Some(0));
    assert_eq!(cdrom.int("errors"), None);
}

#[test]
fn odd_names_are_carried() {
    assert_expected("odd-names");
    // The lines are also read back by an independent parser.
    let text = written("odd-names", &Settings::default());
    let lines = lines::lines(&text);
    let name = r#"odd, name=x "q" \b é"#;
    lines::one(&lines, "vm_metrics", name);
    lines::device(&lines, name, "nic", "tap,odd=1");
    lines::device(&lines, name, "nic", r#"t<&"'"#);
}

#[test]
fn a_vm_without_devices_moved_nothing() {
    assert_expected("no-devices");
}

#[test]
fn a_vm_that_is_being_migrated_in_is_written_as_far_as_it_goes() {
    assert_expected("incoming");
}

#[test]
fn a_newer_libvirt_is_read_by_key_not_by_place_or_type() {
    assert_expected("newer-libvirt");
}

#[test]
fn a_vhost_user_disk_is_no_part_of_the_sums() {
    assert_expected("vhost-user");
}

#[test]
fn every_fixture_has_its_test() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/domstats");
    let mut fixtures: Vec<String> = std::fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "txt"))
        .map(|path| path.file_stem().unwrap().to_str().unwrap().to_owned())
        .collect();
    fixtures.sort_unstable();
    let source = include_str!("domstats.rs");
    for fixture in &fixtures {
        assert!(
            source.contains(&format!("assert_expected(\"{fixture}\")")),
            "{fixture}"
        );
    }
    assert!(!fixtures.is_empty());
}
