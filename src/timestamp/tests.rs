use std::time::Duration;

use super::*;
use crate::maps::HashSet;
use proptest::prelude::*;

const SECOND: i64 = 1_000_000_000;

#[test]
fn truncated_as_far_as_it_stays_new() {
    let mut timestamps = Timestamps::new(Precision::Second);
    assert_eq!(timestamps.at(5_100_200_301), 5_000_000_000);
    assert_eq!(timestamps.at(5_100_200_301), 5_100_000_000);
    assert_eq!(timestamps.at(5_100_200_301), 5_100_200_000);
    assert_eq!(timestamps.at(5_100_200_301), 5_100_200_300);
    assert_eq!(timestamps.at(5_100_200_301), 5_100_200_301);
    assert_eq!(timestamps.at(6_900_000_000), 6_000_000_000);
}

#[test]
fn precision_is_the_coarsest_step() {
    for (precision, expected) in [
        (Precision::Second, 5_000_000_000),
        (Precision::Millisecond, 5_100_000_000),
        (Precision::Microsecond, 5_100_200_000),
        (Precision::Nanosecond, 5_100_200_302),
    ] {
        assert_eq!(Timestamps::new(precision).at(5_100_200_303), expected);
    }
}

/// Where no timestamp lies yet, timestamps are as coarse as ever; where some do, they are finer.
#[test]
fn a_clock_set_back_is_believed_and_repeats_nothing() {
    let mut timestamps = Timestamps::new(Precision::Second);
    let mut at = |ms: i64| timestamps.at(ms * 1_000_000);
    assert_eq!(at(9_300), 9_000_000_000);
    assert_eq!(at(10_300), 10_000_000_000);
    assert_eq!(at(8_001), 8_000_000_000);
    assert_eq!(at(8_003), 8_003_000_000);
    let mut seen = HashSet::default();
    for _ in 0..10 {
        for second in [9, 10] {
            let timestamp = at(second * 1000 + 300);
            assert!(seen.insert(timestamp), "{timestamp}");
            assert!(timestamp % 1_000_000_000 != 0, "{timestamp}");
            assert!(
                timestamp.abs_diff((second * 1000 + 300) * 1_000_000) < 2048,
                "{timestamp}"
            );
        }
    }
    assert_eq!(at(11_300), 11_000_000_000);
}

#[test]
fn a_moment_in_the_far_future_costs_no_precision_afterwards() {
    let mut timestamps = Timestamps::new(Precision::Second);
    timestamps.at(9_300_000_000);
    timestamps.at(4_000_000_000 * SECOND);
    assert_eq!(timestamps.at(10_300_000_000), 10_000_000_000);
    assert_eq!(timestamps.at(11_300_000_000), 11_000_000_000);
}

#[test]
fn the_ends_of_time_are_those_of_influxdb() {
    let (second, far) = (Duration::from_secs(1), Duration::from_secs(1 << 40));
    for (time, expected) in [
        (UNIX_EPOCH + second, SECOND),
        (UNIX_EPOCH - second, -SECOND),
        (UNIX_EPOCH + far, 9_223_372_036_854_775_806),
        (UNIX_EPOCH - far, -9_223_372_036_854_775_806),
    ] {
        assert_eq!(nanoseconds(time), expected);
    }
    for end in [FIRST, LAST] {
        let mut timestamps = Timestamps::new(Precision::Second);
        let mut seen = HashSet::default();
        for _ in 0..3000 {
            let timestamp = timestamps.at(end);
            assert!((FIRST..=LAST).contains(&timestamp), "{timestamp}");
            assert!(timestamp.abs_diff(end) <= SECOND as u64, "{timestamp}");
            assert!(seen.insert(timestamp), "{timestamp}");
        }
    }
}

#[test]
fn a_clock_that_runs_backwards_costs_little_memory() {
    let mut timestamps = Timestamps::new(Precision::Second);
    let mut seen = HashSet::default();
    for second in (0..5000).rev() {
        assert!(seen.insert(timestamps.at(second * 100_000 * SECOND)));
    }
    assert!(
        timestamps.spans.len() <= SPANS,
        "{}",
        timestamps.spans.len()
    );
}

/// What a clock may do from one gather to the next; ns.
#[derive(Debug, Clone)]
enum Tick {
    Later(i64),
    Earlier(i64),
    To(i64),
}

fn tick() -> impl Strategy<Value = Tick> {
    let span = || prop_oneof![0..10_i64, 0..2 * SECOND, 0..1_000_000 * SECOND];
    prop_oneof![
        4 => span().prop_map(Tick::Later),
        2 => span().prop_map(Tick::Earlier),
        1 => any::<i64>().prop_map(Tick::To),
    ]
}

fn precision() -> impl Strategy<Value = (Precision, i64)> {
    prop::sample::select(STEPS.to_vec())
}

proptest! {
    #[test]
    fn no_timestamp_comes_twice(
        precision in precision(),
        ticks in prop::collection::vec(tick(), 1..500),
    ) {
        let mut timestamps = Timestamps::new(precision.0);
        let mut now = 0_i64;
        let mut seen = HashSet::default();
        for tick in ticks {
            now = match tick {
                Tick::Later(by) => now.saturating_add(by),
                Tick::Earlier(by) => now.saturating_sub(by),
                Tick::To(time) => time,
            }
            .clamp(FIRST, LAST);
            let timestamp = timestamps.at(now);
            prop_assert!((FIRST..=LAST).contains(&timestamp));
            prop_assert!(seen.insert(timestamp), "{}", timestamp);
        }
    }

    /// With every gather at least a microsecond after the last one, but for some steps back.
    #[test]
    fn timestamps_are_true(
        precision in precision(),
        runs in prop::collection::vec(
            (0..1000 * SECOND, prop::collection::vec(1000..10 * SECOND, 1..50)),
            1..10,
        ),
    ) {
        let mut timestamps = Timestamps::new(precision.0);
        let mut now = 10_000 * SECOND;
        let mut seen = HashSet::default();
        for (back, steps) in runs {
            now -= back;
            for step in steps {
                now += step;
                let timestamp = timestamps.at(now);
                prop_assert!(seen.insert(timestamp), "{}", timestamp);
                let before = i64::max(precision.1, 1024);
                prop_assert!((now - before..now + 1024).contains(&timestamp), "{timestamp} at {now}");
            }
        }
    }
}
