//! One timestamp per gather.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Precision;

/// The earliest and the latest time, in ns since 1970, that InfluxDB takes: in the years 1677 and
/// 2262 (MinNanoTime and MaxNanoTime in its models/time.go). Linux lets nobody set its clock before
/// 1970 or after 2232 (timespec64_valid_settod in include/linux/time64.h).
const FIRST: i64 = i64::MIN + 2;
const LAST: i64 = i64::MAX - 1;

/// The precisions and what they truncate to, in ns: all even, see [`Timestamps`].
const STEPS: [(Precision, i64); 4] = [
    (Precision::Second, 1_000_000_000),
    (Precision::Millisecond, 1_000_000),
    (Precision::Microsecond, 1_000),
    (Precision::Nanosecond, 2),
];

/// The last class that is tried at the time itself: its stamps lie 1 ms apart.
const LAST_CLASS: u32 = 19;

/// The most spans that are kept of a class.
const SPANS: usize = 8;

/// A longer step forward, in ns, begins a new span: the clock may have been set.
const DAY: i64 = 86_400 * 1_000_000_000;

/// Makes timestamps, no two alike, wherever the clock is set.
///
/// The stamps are divided into classes by the number of one bits at their end: the even ones are
/// class 0, every fourth ns is in class 1, every eighth in class 2, and so on. For each class the
/// spans in which stamps of it were made are kept; a stamp is new if it lies outside of the spans of
/// its class. What is truncated is even: class 0. A clock that was set back shows times within a span
/// of class 0, where it cannot be known any more which stamps were made; there class 1 serves, after
/// a second such step back class 2, and so on. So a stamp differs from its time by no more than the
/// precision or, after n steps back, 2^n ns.
#[derive(Debug)]
pub struct Timestamps {
    precision: Precision,
    spans: Vec<Span>,
}

/// From the first to the last of stamps of one class.
#[derive(Debug)]
struct Span {
    first: i64,
    last: i64,
}

impl Timestamps {
    /// Truncated to `precision` where that leaves them new.
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            spans: Vec::new(),
        }
    }

    /// The stamp of a gather that begins now, in ns since 1970; negative before that.
    pub fn take(&mut self) -> i64 {
        self.at(nanoseconds(SystemTime::now()))
    }

    fn at(&mut self, now: i64) -> i64 {
        let steps = STEPS.into_iter().filter(|step| step.0 >= self.precision);
        let truncated = steps.map(|(_, step)| now.saturating_sub(now.rem_euclid(step)));
        let of_class = (1..=LAST_CLASS).map(|class| {
            let ones = (1_i64 << class) - 1;
            now & !(2 * ones + 1) | ones
        });
        let stamp = truncated.chain(of_class).find(|&stamp| self.is_new(stamp));
        // All classes were used: the clock stands still, or was set back again and again.
        let beside = || {
            let sides = self.spans.iter().flat_map(Span::beside);
            let new = sides.filter(|&stamp| self.is_new(stamp));
            new.min_by_key(|stamp| stamp.abs_diff(now))
        };
        let stamp = stamp.or_else(beside).unwrap_or(now);
        self.remember(stamp);
        stamp
    }

    fn is_new(&self, stamp: i64) -> bool {
        let of_class = |span: &&Span| span.class() == class(stamp);
        let mut spans = self.spans.iter().filter(of_class);
        (FIRST..=LAST).contains(&stamp) && spans.all(|span| stamp < span.first || stamp > span.last)
    }

    fn remember(&mut self, stamp: i64) {
        let of_class = |span: &&mut Span| span.class() == class(stamp);
        let spans = self.spans.iter_mut().filter(of_class);
        let mut spans: Vec<&mut Span> = spans.collect();
        spans.sort_by_key(|span| span.distance(stamp));
        let goes_on = |span: &Span| span.last < stamp && span.distance(stamp) < DAY as u64;
        let full = spans.len() == SPANS;
        match spans.into_iter().find(|span| full || goes_on(span)) {
            Some(span) => {
                span.first = span.first.min(stamp);
                span.last = span.last.max(stamp);
            }
            None => self.spans.push(Span {
                first: stamp,
                last: stamp,
            }),
        }
    }
}

impl Span {
    fn class(&self) -> u32 {
        class(self.first)
    }

    /// How far a stamp outside of it is away, in ns.
    fn distance(&self, stamp: i64) -> u64 {
        let nearest = stamp.clamp(self.first, self.last);
        nearest.abs_diff(stamp)
    }

    /// The stamps of its class next to it.
    fn beside(&self) -> [i64; 2] {
        let step = 2 << self.class();
        [
            self.first.saturating_sub(step),
            self.last.saturating_add(step),
        ]
    }
}

fn class(stamp: i64) -> u32 {
    stamp.trailing_ones()
}

/// A time in ns since 1970; what InfluxDB does not take is moved to the nearest that it takes.
fn nanoseconds(time: SystemTime) -> i64 {
    let nanoseconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(LAST),
        Err(error) => i64::try_from(error.duration().as_nanos()).map_or(FIRST, |before| -before),
    };
    nanoseconds.clamp(FIRST, LAST)
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::maps::HashSet;
    use proptest::prelude::*;

    const SECOND: i64 = 1_000_000_000;

    #[test]
    fn truncated_as_far_as_it_stays_new() {
        let mut stamps = Timestamps::new(Precision::Second);
        assert_eq!(stamps.at(5_100_200_301), 5_000_000_000);
        assert_eq!(stamps.at(5_100_200_301), 5_100_000_000);
        assert_eq!(stamps.at(5_100_200_301), 5_100_200_000);
        assert_eq!(stamps.at(5_100_200_301), 5_100_200_300);
        assert_eq!(stamps.at(5_100_200_301), 5_100_200_301);
        assert_eq!(stamps.at(6_900_000_000), 6_000_000_000);
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

    /// Where no stamp lies yet, stamps are as coarse as ever; where some do, they are finer.
    #[test]
    fn a_clock_set_back_is_believed_and_repeats_nothing() {
        let mut stamps = Timestamps::new(Precision::Second);
        let mut at = |ms: i64| stamps.at(ms * 1_000_000);
        assert_eq!(at(9_300), 9_000_000_000);
        assert_eq!(at(10_300), 10_000_000_000);
        assert_eq!(at(8_001), 8_000_000_000);
        assert_eq!(at(8_003), 8_003_000_000);
        let mut seen = HashSet::default();
        for _ in 0..10 {
            for second in [9, 10] {
                let stamp = at(second * 1000 + 300);
                assert!(seen.insert(stamp), "{stamp}");
                assert!(stamp % 1_000_000_000 != 0, "{stamp}");
                assert!(
                    stamp.abs_diff((second * 1000 + 300) * 1_000_000) < 2048,
                    "{stamp}"
                );
            }
        }
        assert_eq!(at(11_300), 11_000_000_000);
    }

    #[test]
    fn a_moment_in_the_far_future_costs_no_precision_afterwards() {
        let mut stamps = Timestamps::new(Precision::Second);
        stamps.at(9_300_000_000);
        stamps.at(4_000_000_000 * SECOND);
        assert_eq!(stamps.at(10_300_000_000), 10_000_000_000);
        assert_eq!(stamps.at(11_300_000_000), 11_000_000_000);
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
            let mut stamps = Timestamps::new(Precision::Second);
            let mut seen = HashSet::default();
            for _ in 0..3000 {
                let stamp = stamps.at(end);
                assert!((FIRST..=LAST).contains(&stamp), "{stamp}");
                assert!(stamp.abs_diff(end) <= SECOND as u64, "{stamp}");
                assert!(seen.insert(stamp), "{stamp}");
            }
        }
    }

    #[test]
    fn a_clock_that_runs_backwards_costs_little_memory() {
        let mut stamps = Timestamps::new(Precision::Second);
        let mut seen = HashSet::default();
        for second in (0..5000).rev() {
            assert!(seen.insert(stamps.at(second * 100_000 * SECOND)));
        }
        assert!(stamps.spans.len() <= SPANS, "{}", stamps.spans.len());
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
        fn no_stamp_comes_twice(
            precision in precision(),
            ticks in prop::collection::vec(tick(), 1..500),
        ) {
            let mut stamps = Timestamps::new(precision.0);
            let mut now = 0_i64;
            let mut seen = HashSet::default();
            for tick in ticks {
                now = match tick {
                    Tick::Later(by) => now.saturating_add(by),
                    Tick::Earlier(by) => now.saturating_sub(by),
                    Tick::To(time) => time,
                }
                .clamp(FIRST, LAST);
                let stamp = stamps.at(now);
                prop_assert!((FIRST..=LAST).contains(&stamp));
                prop_assert!(seen.insert(stamp), "{}", stamp);
            }
        }

        /// With every gather at least a microsecond after the last one, but for some steps back.
        #[test]
        fn stamps_are_true(
            precision in precision(),
            runs in prop::collection::vec(
                (0..1000 * SECOND, prop::collection::vec(1000..10 * SECOND, 1..50)),
                1..10,
            ),
        ) {
            let mut stamps = Timestamps::new(precision.0);
            let mut now = 10_000 * SECOND;
            let mut seen = HashSet::default();
            for (back, steps) in runs {
                now -= back;
                for step in steps {
                    now += step;
                    let stamp = stamps.at(now);
                    prop_assert!(seen.insert(stamp), "{}", stamp);
                    let before = i64::max(precision.1, 1024);
                    prop_assert!((now - before..now + 1024).contains(&stamp), "{stamp} at {now}");
                }
            }
        }
    }
}
