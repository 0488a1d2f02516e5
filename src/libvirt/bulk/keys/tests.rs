use proptest::prelude::*;

use super::*;
use crate::sample::StatValue::{Float, Integer, Text};

fn filter(patterns: &[&str]) -> KeyFilter {
    let mut filter = KeyFilter::default();
    for pattern in patterns {
        filter.add(pattern).unwrap();
    }
    filter
}

fn chosen(patterns: &[&str], params: &[(&str, Value<'_>)]) -> Vec<Stats> {
    let params = params.iter().map(|(key, value)| (key.as_bytes(), *value));
    filter(patterns).choose(params)
}

fn stats(group: &str, object: Option<(&'static str, &str)>, fields: &[(&str, StatValue)]) -> Stats {
    let fields = fields
        .iter()
        .map(|(key, value)| ((*key).into(), value.clone()));
    Stats {
        group: group.into(),
        object: object.map(|(tag, value)| (tag, value.into())),
        fields: fields.collect(),
    }
}

#[test]
fn only_groups_that_a_pattern_can_match_are_asked_for() {
    for (pattern, groups) in [
        ("perf.*", Groups::PERF),
        ("block.*.timed_group.*", Groups::BLOCK),
        ("vcpu.*.halt*", Groups::VCPU),
        ("vm.*", Groups::VM),
        ("v*", Groups::VCPU | Groups::VM | Groups::LATER),
        ("cp?.time", Groups::CPU | Groups::LATER),
        ("[bn]*", Groups::of_pattern("*")),
        ("later.*", Groups::LATER),
    ] {
        assert_eq!(filter(&[pattern]).groups(), groups, "{pattern}");
    }
    assert_eq!(Groups::of_pattern("*").bits(), u32::MAX);
    let both = filter(&["perf.*", "state.state"]).groups();
    assert_eq!(both, Groups::PERF | Groups::STATE);
}

#[test]
fn a_pattern_that_matches_no_key_is_refused() {
    let error = KeyFilter::default().add("perf").unwrap_err();
    assert_eq!(
        error,
        "\"perf\" matches no key: a key has the name of its group before a dot; write \"perf.*\" for all keys of this group"
    );
    assert!(KeyFilter::default().add("").is_err());
    assert!(KeyFilter::default().is_empty() && !filter(&["*"]).is_empty());
}

/// Keys as libvirt 9.0 and 12.8 have them.
#[test]
fn the_first_number_of_a_key_is_its_object() {
    let number = Value::Integer(7);
    let found = chosen(
        &["*"],
        &[
            ("state.state", number),
            ("cpu.time", number),
            ("cpu.cache.monitor.1.bank.0.bytes", number),
            ("vcpu.current", number),
            ("vcpu.0.time", number),
            ("vcpu.0.halt_poll_success_ns.sum", number),
            ("vcpu.2.halted", Value::Integer(1)),
            ("net.count", number),
            ("net.1.name", Value::Text("vnet0")),
            ("net.1.rx.bytes", number),
            ("block.0.name", Value::Text("vda")),
            ("block.0.path", Value::Text("/a b.img")),
            ("block.0.latency_histogram.read.bin.0.start", number),
            ("iothread.4.poll-max-ns", number),
            ("dirtyrate.vcpu.3.megabytes_per_second", number),
            ("perf.cmt", Value::Float(0.5)),
        ],
    );
    let of = |key: &'static str| [(key, Integer(7))];
    let expected = [
        stats("state", None, &of("state")),
        stats("cpu", None, &of("time_ns")),
        stats(
            "cpu",
            Some(("index", "1")),
            &of("cache_monitor_bank_0_bytes"),
        ),
        stats("vcpu", None, &of("current")),
        stats(
            "vcpu",
            Some(("vcpu", "0")),
            &[
                ("time_ns", Integer(7)),
                ("halt_poll_success_ns_sum", Integer(7)),
            ],
        ),
        stats("vcpu", Some(("vcpu", "2")), &[("halted", Integer(1))]),
        stats("net", None, &of("count")),
        stats("net", Some(("device", "vnet0")), &of("rx_bytes")),
        stats(
            "block",
            Some(("device", "vda")),
            &[
                ("path", Text("/a b.img".into())),
                ("latency_histogram_read_bin_0_start", Integer(7)),
            ],
        ),
        stats("iothread", Some(("iothread", "4")), &of("poll_max_ns")),
        stats(
            "dirtyrate",
            Some(("vcpu", "3")),
            &of("vcpu_megabytes_per_second"),
        ),
        stats("perf", None, &[("cmt", Float(0.5))]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn only_keys_that_match_are_chosen_and_a_name_is_a_tag_all_the_same() {
    let params = [
        ("block.0.name", Value::Text("vda")),
        ("block.0.rd.reqs", Value::Integer(1)),
        ("block.0.wr.reqs", Value::Integer(i128::from(u64::MAX))),
        ("net.0.rx.bytes", Value::Integer(3)),
    ];
    let found = chosen(&["block.*.wr.*", "net.0.rx.*", "block.*.name"], &params);
    let expected = [
        stats(
            "block",
            Some(("device", "vda")),
            &[("wr_reqs", Integer(i64::MAX))],
        ),
        // A device without a name keeps its number.
        stats("net", Some(("index", "0")), &[("rx_bytes", Integer(3))]),
    ];
    assert_eq!(found, expected);
}

#[test]
fn each_pattern_that_no_key_has_matched_is_known() {
    let filter = filter(&["*", "cpu.*", "perf.*", "cpu.tim?"]);
    assert!(filter.unmatched().eq(filter.patterns()));
    let key = |key: &'static str| filter.choose([(key.as_bytes(), Value::Integer(1))].into_iter());
    assert_eq!(key("cpu.user").len(), 1);
    assert!(filter.unmatched().eq(["perf.*", "cpu.tim?"]));
    assert_eq!(key("cpu.time").len(), 1);
    assert_eq!(key("perf.cmt").len(), 1);
    assert_eq!(filter.unmatched().count(), 0);
    // Another hypervisor's begins anew.
    assert_eq!(filter.clone().unmatched().count(), 4);
}

proptest! {
    /// Whatever keys a later version has, a field can be written as it is.
    #[test]
    fn fields_need_no_escape(key in "\\PC{0,20}", dotted in "[a-z0-9.= ,_-]{0,20}") {
        for key in [key, dotted] {
            let found = chosen(&["*"], &[(&key, Value::Integer(1))]);
            for (field, _) in found.iter().flat_map(|stats| &stats.fields) {
                let plain = field.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_');
                prop_assert!(plain && !field.is_empty(), "{field}");
            }
        }
    }
}
