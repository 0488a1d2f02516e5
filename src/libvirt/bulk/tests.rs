use proptest::prelude::*;

use super::*;
use crate::sample::testing::empty;

/// A sample of these keys, and the groups that were seen.
fn filled(params: &[(&str, Value<'_>)]) -> (Sample, Groups) {
    let at = Instant::now();
    let mut sample = empty(at);
    let groups = fill(&mut sample, params.iter().copied(), at);
    (sample, groups)
}

fn number(value: i128) -> Value<'static> {
    Value::Integer(value)
}

fn names<const N: usize>(devices: Option<&Devices<N>>) -> Vec<Option<&str>> {
    let list = devices.into_iter().flat_map(|devices| &devices.list);
    list.map(|device| device.name.as_deref()).collect()
}

#[test]
fn groups_are_sets() {
    let both = Groups::CPU | Groups::NET;
    assert!(both.has(Groups::CPU) && both.has(both) && both.has(Groups::NONE));
    assert!(!both.has(Groups::CPU | Groups::BLOCK));
    assert_eq!(both.without(Groups::CPU), Groups::NET);
    assert_eq!(both.without(Groups::BLOCK), both);
}

#[test]
fn the_groups_seen_are_those_with_a_figure_that_is_wanted() {
    assert_eq!(filled(&[]).1, Groups::NONE);
    // A host without cpuacct still has these in the cpu group.
    let (sample, seen) = filled(&[
        ("cpu.haltpoll.success.time", number(5)),
        ("cpu.haltpoll.fail.time", number(6)),
        ("balloon.last-update", number(7)),
    ]);
    assert_eq!((seen, sample.cpu.time), (Groups::NONE, None));
    let (_, seen) = filled(&[("cpu.time", number(5)), ("balloon.maximum", number(6))]);
    assert_eq!(seen, Groups::CPU | Groups::BALLOON);
    // The test driver's reply.
    let (sample, seen) = filled(&[("state.state", number(1)), ("state.reason", number(1))]);
    assert_eq!(seen, Groups::STATE);
    assert_eq!((sample.nics, sample.disks), (None, None));
    // A VM without devices has the counts at least.
    let (sample, seen) = filled(&[("net.count", number(0)), ("block.count", number(0))]);
    assert_eq!(seen, Groups::NET | Groups::BLOCK);
    assert_eq!(sample.nics.unwrap().list.len(), 0);
    assert_eq!(sample.disks.unwrap().list.len(), 0);
    assert_eq!(
        filled(&[("vcpu.current", number(1)), ("state", number(1))]).1,
        Groups::NONE
    );
}

#[test]
fn devices_are_bound_by_name_through_gaps_and_any_order() {
    let (sample, _) = filled(&[
        ("net.7.rx.bytes", number(70)),
        ("net.2.name", Value::Text("b")),
        ("net.7.name", Value::Text("a")),
        ("net.2.rx.bytes", number(20)),
        ("net.count", number(3)),
    ]);
    let nics = sample.nics.unwrap();
    assert_eq!(names(Some(&nics)), [Some("a"), Some("b"), None]);
    assert_eq!(nics.list[0].counters[0], Some(70));
    assert_eq!(nics.list[1].counters[0], Some(20));
    assert_eq!(nics.list[2].counters, [None; NIC_COUNTERS]);
    assert!(nics.complete);
}

#[test]
fn a_name_is_text_that_looks_like_anything() {
    for name in ["0", "7", "net.0", "a=b", "é"] {
        let (sample, _) = filled(&[("block.0.name", Value::Text(name))]);
        assert_eq!(names(sample.disks.as_ref()), [Some(name)]);
    }
}

#[test]
fn a_device_without_a_name_is_none() {
    let (sample, _) = filled(&[("block.0.rd.bytes", number(1)), ("block.1.name", number(5))]);
    assert_eq!(names(sample.disks.as_ref()), Vec::<Option<&str>>::new());
}

#[test]
fn negative_numbers_and_what_is_no_number_are_not_reported() {
    let values = [
        number(-1),
        number(i128::from(i64::MIN)),
        Value::Text("5"),
        Value::Float(5.0),
    ];
    for value in values {
        let (sample, _) = filled(&[
            ("state.state", value),
            ("state.reason", value),
            ("cpu.time", value),
            ("balloon.current", value),
            ("balloon.rss", value),
            ("net.0.name", Value::Text("vnet0")),
            ("net.0.rx.bytes", value),
            ("block.0.name", Value::Text("vda")),
            ("block.0.errors", value),
            ("block.0.rd.times", value),
            ("block.0.fl.reqs", value),
            ("block.0.physical", value),
        ]);
        assert_eq!((sample.state, sample.reason), (None, None), "{value:?}");
        assert_eq!(sample.cpu.time, None);
        assert_eq!((sample.memory.current, sample.memory.actual), (None, None));
        assert_eq!(sample.memory.rss, None);
        assert_eq!(sample.nics.unwrap().list[0].counters, [None; NIC_COUNTERS]);
        assert_eq!(
            sample.disks.unwrap().list[0].counters,
            [None; DISK_COUNTERS]
        );
    }
}

#[test]
fn the_largest_number_is_kept_and_a_larger_state_is_none() {
    let (sample, _) = filled(&[
        ("cpu.time", number(i128::from(u64::MAX))),
        ("state.state", number(1 << 40)),
    ]);
    assert_eq!(sample.cpu.time, Some(u64::MAX));
    assert_eq!(sample.state, None);
}

proptest! {
    /// Keys of any shape: no panic, and no device that nobody named.
    #[test]
    fn any_key_can_be_read(
        keys in prop::collection::vec(
            ("(net|block|cpu|state|balloon|vcpu|)\\.?([0-9]{0,22}|x|-1)\\.?(name|rx\\.bytes|rd\\.reqs|time|\\.|[a-z.]{0,8})", 0..3_u8, any::<i64>()),
            0..40,
        )
    ) {
        let params: Vec<(&str, Value<'_>)> = keys.iter()
            .filter(|(key, ..)| !key.ends_with("count"))
            .map(|(key, kind, value)| (key.as_str(), match kind {
                0 => Value::Integer((*value).into()),
                1 => Value::Float(*value as f64),
                _ => Value::Text("name"),
            }))
            .collect();
        let (sample, _) = filled(&params);
        for name in names(sample.nics.as_ref()).into_iter().chain(names(sample.disks.as_ref())) {
            prop_assert_eq!(name, Some("name"));
        }
    }
}

#[test]
fn the_paths_of_images_are_one_text() {
    let text = Value::Text;
    let (sample, _) = filled(&[
        ("block.count", number(3)),
        ("block.0.name", text("vda")),
        ("block.0.path", text("/a b.img")),
        ("block.1.name", text("hdc")),
        ("block.2.name", text("vdb")),
        ("block.2.path", text("/dev/vg0/lv1")),
        ("net.0.path", text("/no")),
    ]);
    assert_eq!(sample.paths, "/a b.img\0/dev/vg0/lv1\0");
}

#[test]
fn every_counter_and_size_of_a_disk_has_its_place() {
    let keys = [
        "rd.reqs",
        "rd.bytes",
        "wr.reqs",
        "wr.bytes",
        "errors",
        "rd.times",
        "wr.times",
        "fl.times",
        "fl.reqs",
        "capacity",
        "allocation",
        "physical",
    ];
    let mut params = vec![("block.0.name".to_owned(), Value::Text("vda"))];
    for (place, key) in (0..).zip(keys) {
        params.push((format!("block.0.{key}"), number(100 + place)));
    }
    let params: Vec<_> = params.iter().map(|(key, v)| (key.as_str(), *v)).collect();
    let (sample, _) = filled(&params);
    let counters = sample.disks.unwrap().list[0].counters;
    let expected: [_; DISK_COUNTERS] = std::array::from_fn(|place| Some(100 + place as u64));
    assert_eq!(counters, expected);
}
