//! Reads our lines with an independent parser and with a real Telegraf.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use influxdb_line_protocol::{FieldValue, parse_lines};
use proptest::prelude::*;
use proptest::strategy::ValueTree;
use proptest::test_runner::TestRunner;
use telegraf_kvm::line_protocol::{Line, Tags};

/// The documented replacement, the slow and simple way: control characters become spaces; a backslash goes if it is
/// the last character or stands before `,`, `=`, space or, in a value that has one of these, a quote.
fn carried(value: &str, fallback: &str) -> String {
    let mut value = without_controls(value);
    let mut readers_escapes = vec!["\\,", "\\=", "\\ "];
    if value.contains([',', '=', ' ']) {
        readers_escapes.push("\\\"");
    }
    loop {
        let shorter = readers_escapes.iter().fold(value.clone(), |value, escape| {
            value.replace(escape, &escape[1..])
        });
        let shorter = shorter.strip_suffix('\\').unwrap_or(&shorter).to_owned();
        if shorter == value {
            return if value.is_empty() {
                fallback.to_owned()
            } else {
                value
            };
        }
        value = shorter;
    }
}

fn without_controls(value: &str) -> String {
    value
        .chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .collect()
}

#[rustfmt::skip]
const HURTS: &[&str] = &[
    "\\", "\\\\", ",", "=", " ", "\"", "'", "\t", "\n", "\r", "\u{b}", "\u{c}", "\\n", "\\\n", "\\,", "\\ ", "\\=",
    "\\\"", "#", "{", "\u{1}", "\u{7f}", "\u{85}", "\u{a0}", "\u{2028}", "\u{2029}", "\u{feff}", "\u{202e}", "é",
    "漢", "🦀", "e\u{301}", "👩\u{200d}🚀",
];

/// Any text, with the characters that need escaping more often than others.
fn awkward() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        8 => any::<char>().prop_map(String::from),
        8 => r"[a-zA-Z0-9._-]{1,4}",
        12 => prop::sample::select(HURTS).prop_map(str::to_owned),
    ];
    prop::collection::vec(piece, 0..12).prop_map(|pieces| pieces.concat())
}

#[test]
fn a_backslash_before_an_escape_loses_the_line_in_influxdb_3() {
    // Telegraf reads the value `a\,b` here and would write it again: this is why such a backslash is dropped.
    assert!(parse_lines(r"m,t=a\\,b v=1i 1").any(|line| line.is_err()));
}

/// How InfluxDB's own Rust parser (InfluxDB 3) reads a tag value that Telegraf reads as `value`: it takes `\\` for one
/// backslash. Telegraf's grammar, and InfluxDB 1 and 2, have no such escape: there a backslash stands for itself, so a
/// writer that doubled it would change the name. Telegraf reads our lines, so we go by Telegraf.
fn as_influxdb3_reads(value: &str) -> String {
    value.replace(r"\\", r"\")
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2_000))]

    #[test]
    fn an_independent_parser_reads_one_line(
        name in awkward(), device in awkward(), text in awkward(),
        unsigned in any::<u64>(), signed in any::<i64>(), float in any::<f64>(), time in any::<i64>(),
    ) {
        let vm = Tags::new().with("VMID", "1").with_or("name", &name, "uuid");
        let mut buffer = String::new();
        let device_tags = Tags::new().with("device", &device);
        let mut line = Line::begin_with(&mut buffer, "vm_devices", &vm, &device_tags);
        line.int("unsigned", Some(unsigned));
        line.signed("signed", Some(signed));
        line.float("float", Some(float));
        line.string("text", Some(&text));
        line.end(time);
        prop_assert!(buffer.ends_with('\n') && buffer.matches('\n').count() == 1, "{buffer:?}");

        let lines: Vec<_> = parse_lines(&buffer).collect::<Result<_, _>>().unwrap();
        let [line] = &lines[..] else { panic!("{} lines in {buffer:?}", lines.len()) };
        prop_assert_eq!(line.series.measurement.as_str(), "vm_devices");
        let tags: Vec<_> = line.series.tag_set.iter().flatten().collect();
        let tags: Vec<_> = tags.iter().map(|(key, value)| (key.as_str(), value.to_string())).collect();
        prop_assert_eq!(tags, vec![
            ("VMID", "1".to_owned()),
            ("name", as_influxdb3_reads(&carried(&name, "uuid"))),
            ("device", as_influxdb3_reads(&carried(&device, "-"))),
        ]);
        let fields: Vec<_> = line.field_set.iter().map(|(key, value)| (key.as_str(), value.clone())).collect();
        let mut expected = vec![
            ("unsigned", FieldValue::I64(i64::try_from(unsigned).unwrap_or(i64::MAX))),
            ("signed", FieldValue::I64(signed)),
        ];
        if float.is_finite() {
            expected.push(("float", FieldValue::F64(float)));
        }
        let text = without_controls(&text);
        expected.push(("text", FieldValue::String(text.as_str().into())));
        prop_assert_eq!(fields, expected);
        prop_assert_eq!(line.timestamp, Some(time));
    }
}

/// A Telegraf on the PATH, or where `go install` puts it.
fn telegraf() -> PathBuf {
    let go = Command::new("go").args(["env", "GOPATH"]).output();
    let go = go.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned());
    let home = std::env::var("HOME").unwrap_or_default();
    let mut folders: Vec<PathBuf> =
        std::env::split_paths(&std::env::var_os("PATH").unwrap()).collect();
    folders.extend([
        go.map(|path| Path::new(&path).join("bin"))
            .unwrap_or_default(),
        Path::new(&home).join("go/bin"),
    ]);
    folders
        .into_iter()
        .map(|folder| folder.join("telegraf"))
        .find(|path| path.is_file())
        .expect("no telegraf on the PATH or in Go's bin folder: the command tests/run installs one")
}

/// The child process is killed when the test ends, however it ends; the program that it started ends with its
/// stdin.
struct TelegrafProcess(Child);

impl Drop for TelegrafProcess {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// Sends line protocol through a real Telegraf: its metrics in line protocol, and its log.
fn through_telegraf(input: &str) -> (Vec<String>, String) {
    let folder = tempfile::tempdir().unwrap();
    let path = |name: &str| folder.path().join(name);
    // When the last line has arrived, all lines before it have been processed.
    let last = "the_end v=1i 1\n";
    fs::write(path("in"), format!("{input}{last}")).unwrap();
    let program = r#"cat "$0"; exec cat >/dev/null"#;
    let configuration = format!(
        r#"
        [agent]
        interval = "1s"
        flush_interval = "100ms"
        flush_jitter = "0s"
        metric_buffer_limit = 100000
        omit_hostname = true
        [[inputs.execd]]
        command = ["sh", "-c", {program:?}, {input:?}]
        signal = "none"
        data_format = "influx"
        [[outputs.file]]
        files = [{output:?}]
        data_format = "influx"
        "#,
        input = path("in"),
        output = path("out"),
    );
    fs::write(path("telegraf.conf"), configuration).unwrap();
    let log = fs::File::create(path("log")).unwrap();
    let child = Command::new(telegraf())
        .arg("--config")
        .arg(path("telegraf.conf"))
        .stdin(Stdio::null())
        .stdout(log.try_clone().unwrap())
        .stderr(log)
        .spawn()
        .unwrap();
    let telegraf = TelegrafProcess(child);
    let start = Instant::now();
    loop {
        let output = fs::read_to_string(path("out")).unwrap_or_default();
        let log = fs::read_to_string(path("log")).unwrap();
        if let Some(metrics) = output.strip_suffix(last) {
            drop(telegraf);
            return (
                metrics.split_terminator('\n').map(str::to_owned).collect(),
                log,
            );
        }
        assert!(
            start.elapsed() < Duration::from_secs(60),
            "not through Telegraf in a minute: {log}"
        );
        std::thread::sleep(Duration::from_millis(50));
    }
}

/// A tag value as Telegraf writes it (plugins/serializers/influx/escape.go). Two different values are never
/// written alike.
fn telegraf_writes(value: &str) -> String {
    value
        .replace(',', "\\,")
        .replace('=', "\\=")
        .replace(' ', "\\ ")
}

#[rustfmt::skip]
const NASTY: &[&str] = &[
    r#"odd, name=x "q" \b é\"#, "tap,odd=1", "", " ", "  ", " leading", "trailing ", "\\", r"\\", r"\\\", r"a\",
    r"a\\", r"a\\\", r"\a", r"\\a", r"\ ", r"\ \", r" \", r"\,", r"\\,", r"\=", r"a\,b", r"a\\,b", r"a\\\,b",
    r"a\=b", r"a\ b", r"a\\b", r"a\\\b c", r#"\""#, r#"\"x y"#, r#"\\"x,y"#, r#"x=\\\""#, r#"""#, r#"a"b"#,
    r#""a b""#, "'", "#", "# a", "a#b", ",", "=", ",=", "a=b,c=d", "a b=1 2", "\t", "\n", "a\nb", "a\r\nb", "\r",
    "\u{b}", "\u{c}", "a\\\tb", "a\\\nb", "a\n\\", "\u{1}", "\u{1b}[31m", "\u{7f}", "\u{85}", "\u{9f}", "\u{a0}",
    "\u{2028}", "\u{2029}", "\u{200b}", "\u{feff}", "\u{fffd}", "\u{10ffff}", "\u{e000}", "é", "e\u{301}", "漢字",
    "🦀", "👩\u{200d}🚀", "שלום", "\u{202e}abc", "-", ".", "0", "1i", "t", "true", "NaN", "{}", "$(id)", "`id`", "%s",
    "a;b", "<&>", "[[inputs]]", "vm_totals,a=b c=1i 1",
];

#[test]
fn awkward_names_through_a_real_telegraf() {
    let mut runner = TestRunner::deterministic();
    let random = (0..2_000).map(|_| awkward().new_tree(&mut runner).unwrap().current());
    let names: Vec<String> = NASTY
        .iter()
        .map(|name| (*name).to_owned())
        .chain(random)
        .collect();
    let (mut input, mut expected) = (String::new(), Vec::new());
    for (i, name) in names.iter().enumerate() {
        let device = &names[(i * 7 + 3) % names.len()];
        let id = i.to_string();
        let vm = Tags::new().with("id", &id).with("name", name);
        // A value of the configuration's tags: without one that can be written, there is no tag.
        let vm = vm.with_any("owner", name);
        let owner = match carried(name, "") {
            owner if owner.is_empty() => owner,
            owner => format!(",owner={}", telegraf_writes(&owner)),
        };
        let device_tags = Tags::new().with("device", device);
        let mut line = Line::begin_with(&mut input, "names", &vm, &device_tags);
        line.int("n", Some(i as u64));
        line.string("text", Some(name));
        line.end(i as i64);
        // Telegraf writes tags in the order of their keys.
        expected.push(format!(
            "names,device={},id={i},name={}{owner} n={i}i,text=\"{}\" {i}",
            telegraf_writes(&carried(device, "-")),
            telegraf_writes(&carried(name, "-")),
            without_controls(name)
                .replace('\\', r"\\")
                .replace('"', r#"\""#),
        ));
    }
    let (metrics, log) = through_telegraf(&input);
    assert!(!log.contains("E!"), "{log}");
    assert_eq!(metrics.len(), input.matches('\n').count());
    for (metric, expected) in metrics.iter().zip(&expected) {
        assert_eq!(metric, expected);
    }
}

#[test]
fn every_number_through_a_real_telegraf() {
    let floats = [
        0.0,
        -0.0,
        1.0,
        0.1,
        -1.5,
        1e15,
        1e16,
        1e21,
        1e-7,
        1.0 / 3.0,
        f64::MAX,
        f64::MIN,
        f64::EPSILON,
        f64::MIN_POSITIVE,
        f64::from_bits(1),
        -f64::from_bits(1),
        i64::MAX as f64,
    ];
    let integers = [0, 1, -1, i64::MAX, i64::MIN];
    let mut input = String::new();
    let tags = Tags::new();
    for x in floats {
        let mut line = Line::begin(&mut input, "float", &tags);
        line.float("v", Some(x));
        line.end(i64::MAX);
    }
    for n in integers {
        let mut line = Line::begin(&mut input, "integer", &tags);
        line.signed("v", Some(n));
        line.int("max", Some(u64::MAX));
        line.end(i64::MIN + 1);
    }
    let (metrics, log) = through_telegraf(&input);
    assert!(!log.contains("E!"), "{log}");
    assert_eq!(metrics.len(), floats.len() + integers.len(), "{metrics:?}");
    let (float_lines, integer_lines) = metrics.split_at(floats.len());
    for (x, metric) in floats.iter().zip(float_lines) {
        let digits = metric
            .strip_prefix("float v=")
            .unwrap()
            .strip_suffix(" 9223372036854775807")
            .unwrap();
        assert_eq!(
            digits.parse::<f64>().unwrap().to_bits(),
            x.to_bits(),
            "{metric}"
        );
    }
    for (n, metric) in integers.iter().zip(integer_lines) {
        assert_eq!(
            metric,
            &format!("integer v={n}i,max=9223372036854775807i -9223372036854775807")
        );
    }
}

/// Checks against a real Telegraf what src/line_protocol.rs says of its grammar.
#[test]
fn telegraf_reads_backslashes_and_blanks_as_we_say() {
    for (written, read) in [
        // A backslash before a backslash stands for itself, even before an escape.
        (r"a\\b", Some(r"a\\b")),
        (r"a\\\,b", Some(r"a\\,b")),
        // A backslash before a quote is an escape only in a value that has another character which needs one.
        (r#"a\"b"#, Some(r#"a\"b"#)),
        (r#"a\"b\ c"#, Some(r#"a"b c"#)),
        ("a\u{2028}b\u{85}c\u{1}d", Some("a\u{2028}b\u{85}c\u{1}d")),
        // Telegraf drops these lines: an empty value, a trailing backslash, blanks other than the space.
        ("", None),
        ("a\\", None),
        ("a\tb", None),
        ("a\\\tb", None),
        ("a\u{b}b", None),
        ("a\u{c}b", None),
        ("a\rb", None),
    ] {
        let (metrics, log) = through_telegraf(&format!("m,t={written} v=1i 1\n"));
        let expected: Vec<_> = read
            .iter()
            .map(|read| format!("m,t={} v=1i 1", telegraf_writes(read)))
            .collect();
        assert_eq!(metrics, expected, "{written:?}");
        assert_eq!(log.contains("E!"), read.is_none(), "{written:?}: {log}");
    }
}
