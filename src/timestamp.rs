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
mod tests;
