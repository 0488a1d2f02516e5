//! One timestamp per gather.

use std::time::{SystemTime, UNIX_EPOCH};

use crate::config::Precision;

/// Makes timestamps, no two alike.
#[derive(Debug)]
pub struct Stamps {
    precision: Precision,
    last: Option<i64>,
}

impl Stamps {
    /// Truncated to `precision` where that leaves them later than the last one.
    pub fn new(precision: Precision) -> Self {
        Self {
            precision,
            last: None,
        }
    }

    /// The stamp of a gather that begins now, in ns since 1970.
    pub fn take(&mut self) -> i64 {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.map_or(0, |now| i64::try_from(now.as_nanos()).unwrap_or(i64::MAX));
        self.at(now)
    }

    fn at(&mut self, now: i64) -> i64 {
        let steps = [
            (Precision::Second, 1_000_000_000),
            (Precision::Millisecond, 1_000_000),
            (Precision::Microsecond, 1_000),
            (Precision::Nanosecond, 1),
        ];
        let later = |stamp: &i64| self.last.is_none_or(|last| *stamp > last);
        let stamp = steps
            .into_iter()
            .filter(|(precision, _)| *precision >= self.precision)
            .map(|(_, step)| now - now.rem_euclid(step))
            .find(later)
            // The clock was set back: its time is true now, and older stamps are not repeated.
            .unwrap_or(if self.last == Some(now) { now + 1 } else { now });
        self.last = Some(stamp);
        stamp
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn truncated_as_far_as_it_stays_later() {
        let mut stamps = Stamps::new(Precision::Second);
        assert_eq!(stamps.at(5_100_200_300), 5_000_000_000);
        assert_eq!(stamps.at(5_100_200_300), 5_100_000_000);
        assert_eq!(stamps.at(5_100_200_300), 5_100_200_000);
        assert_eq!(stamps.at(5_100_200_300), 5_100_200_300);
        assert_eq!(stamps.at(5_100_200_300), 5_100_200_301);
        assert_eq!(stamps.at(6_900_000_000), 6_000_000_000);
    }

    #[test]
    fn precision_is_the_coarsest_step() {
        let mut stamps = Stamps::new(Precision::Millisecond);
        assert_eq!(stamps.at(5_100_200_300), 5_100_000_000);
        let mut stamps = Stamps::new(Precision::Nanosecond);
        assert_eq!(stamps.at(5_100_200_300), 5_100_200_300);
    }

    #[test]
    fn a_clock_set_back_is_believed() {
        let mut stamps = Stamps::new(Precision::Second);
        stamps.at(9_000_000_000);
        assert_eq!(stamps.at(5_100_200_300), 5_100_200_300);
        assert_eq!(stamps.at(6_100_200_300), 6_000_000_000);
    }
}
