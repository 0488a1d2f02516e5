//! One timestamp per gather.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Precision;

/// The earliest time that InfluxDB takes, in ns since 1970: in the year 1677 (MinNanoTime in its
/// models/time.go). Linux does not let its clock be set before 1970 or after 2232
/// (timespec64_valid_settod in include/linux/time64.h).
const FIRST: i64 = i64::MIN + 2;
/// The latest time that InfluxDB takes: in the year 2262 (MaxNanoTime).
const LAST: i64 = i64::MAX - 1;

/// The precisions and what they truncate to, in ns. All are even, see [`Timestamps`].
const STEPS: [(Precision, i64); 4] = [
    (Precision::Second, 1_000_000_000),
    (Precision::Millisecond, 1_000_000),
    (Precision::Microsecond, 1_000),
    (Precision::Nanosecond, 2),
];

/// The last class that is tried at the time itself: its timestamps lie 1 ms apart.
const LAST_CLASS: u32 = 19;

/// How many spans are kept of each class.
const SPANS: usize = 8;

/// A step forward that is longer than this, in ns, begins a new span: the clock may have been set.
const DAY: i64 = 86_400 * 1_000_000_000;

/// Makes timestamps, no two of them equal, whatever the clock is set to.
///
/// Timestamps are divided into classes by the number of one bits at their end: even ones are class 0, every
/// fourth ns is in class 1, every eighth in class 2, and so on. For each class, the spans of time are kept
/// in which timestamps of that class were made. A timestamp is new if it lies outside the spans of its
/// class. Truncated timestamps are even, so they are of class 0. A clock that was set back gives times
/// within a span of class 0, of which it is not known which timestamps were made. Class 1 is used there,
/// class 2 after another such step back, and so on. So a timestamp differs from its time by no more than
/// the precision or, after n steps back, 2^n ns.
#[derive(Debug)]
pub struct Timestamps {
    precision: Precision,
    spans: Vec<Span>,
}

/// From the first to the last timestamp of one class.
#[derive(Debug)]
struct Span {
    first: i64,
    last: i64,
}

impl Timestamps {
    /// Timestamps that are truncated to `precision` where that leaves them new.
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            spans: Vec::new(),
        }
    }

    /// The timestamp of a gather that begins now, in ns since 1970; negative before that.
    pub fn take(&mut self) -> i64 {
        self.at(nanoseconds(SystemTime::now()))
    }

    fn at(&mut self, now: i64) -> i64 {
        let truncated = STEPS
            .into_iter()
            .filter(|(precision, _)| *precision >= self.precision)
            .map(|(_, step)| now.saturating_sub(now.rem_euclid(step)));
        let of_class = (1..=LAST_CLASS).map(|class| {
            let ones = (1_i64 << class) - 1;
            now & !(2 * ones + 1) | ones
        });
        // Where all classes are in use, the clock stands still, or was set back many times.
        let beside_a_span = || {
            self.spans
                .iter()
                .flat_map(Span::beside)
                .filter(|&timestamp| self.is_new(timestamp))
                .min_by_key(|timestamp| timestamp.abs_diff(now))
        };
        let timestamp = truncated
            .chain(of_class)
            .find(|&timestamp| self.is_new(timestamp))
            .or_else(beside_a_span)
            .unwrap_or(now);
        self.remember(timestamp);
        timestamp
    }

    fn is_new(&self, timestamp: i64) -> bool {
        (FIRST..=LAST).contains(&timestamp)
            && self
                .spans
                .iter()
                .filter(|span| span.class() == class(timestamp))
                .all(|span| timestamp < span.first || timestamp > span.last)
    }

    fn remember(&mut self, timestamp: i64) {
        let mut spans: Vec<&mut Span> = self
            .spans
            .iter_mut()
            .filter(|span| span.class() == class(timestamp))
            .collect();
        spans.sort_by_key(|span| span.distance(timestamp));
        let goes_on = |span: &Span| span.last < timestamp && span.distance(timestamp) < DAY as u64;
        let full = spans.len() == SPANS;
        match spans.into_iter().find(|span| full || goes_on(span)) {
            Some(span) => {
                span.first = span.first.min(timestamp);
                span.last = span.last.max(timestamp);
            }
            None => self.spans.push(Span {
                first: timestamp,
                last: timestamp,
            }),
        }
    }
}

impl Span {
    fn class(&self) -> u32 {
        class(self.first)
    }

    /// How far away from this span a timestamp outside of it is, in ns.
    fn distance(&self, timestamp: i64) -> u64 {
        let nearest = timestamp.clamp(self.first, self.last);
        nearest.abs_diff(timestamp)
    }

    /// The timestamps of its class right before and after it.
    fn beside(&self) -> [i64; 2] {
        let step = 2 << self.class();
        [
            self.first.saturating_sub(step),
            self.last.saturating_add(step),
        ]
    }
}

fn class(timestamp: i64) -> u32 {
    timestamp.trailing_ones()
}

/// A time in ns since 1970. A time that InfluxDB does not take becomes the nearest one that it takes.
fn nanoseconds(time: SystemTime) -> i64 {
    let nanoseconds = match time.duration_since(UNIX_EPOCH) {
        Ok(after) => i64::try_from(after.as_nanos()).unwrap_or(LAST),
        Err(error) => i64::try_from(error.duration().as_nanos()).map_or(FIRST, |before| -before),
    };
    nanoseconds.clamp(FIRST, LAST)
}

#[cfg(test)]
mod tests;
