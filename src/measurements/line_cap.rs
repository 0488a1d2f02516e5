//! The key `max_lines`: where a gather has more lines, whole kinds of them are left out.
//!
//! The lines of a gather stand in one buffer until its end. So all of them are known when this is decided: the first
//! gather obeys the cap, too, and no gather has half a kind.

use serde::Serialize;

use crate::config::Measurements;
use crate::wording::count;

/// A kind of lines: a measurement.
struct Kind {
    name: &'static str,
    is_configured: fn(&Measurements) -> bool,
}

/// The kinds that can be left out. The first one is left out first: the kinds that have most lines for what they tell. A
/// kind with one line a VM (vm_metrics, vm_features, vm_totals) is not among them, because charts and alerts of a VM are
/// made from these, and vm_collector has one line.
const KINDS: &[Kind] = &[
    Kind {
        name: "vm_info",
        is_configured: |wanted| wanted.info,
    },
    Kind {
        name: "vm_stats",
        is_configured: |wanted| wanted.stats,
    },
    Kind {
        name: "vm_vcpus",
        is_configured: |wanted| wanted.vcpus,
    },
    Kind {
        name: "vm_pressure",
        is_configured: |wanted| wanted.pressure,
    },
    Kind {
        name: "vm_devices",
        is_configured: |wanted| wanted.devices,
    },
];

/// A kind comes back when it has fitted in so many gathers, one after the other: 5 minutes at an interval of 10 s. A
/// number of lines that goes up and down by a few VMs shall not make gaps in the charts all the time.
const RETURNS_AFTER: u32 = 30;

/// What to do about too many lines.
pub(crate) const REMEDY: &str = "raise max_lines, take kinds out of measurements, or exclude VMs (domain_exclude) or \
     devices (device_exclude)";

/// How many lines a gather has, before any is left out.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct LineCounts {
    /// Those of each of [`KINDS`].
    kinds: [usize; KINDS.len()],
    /// All others.
    others: usize,
}

impl LineCounts {
    /// Counts what is in this buffer of whole lines.
    fn of(buffer: &str) -> Self {
        let mut counts = Self::default();
        for line in buffer.lines() {
            match kind_of(line).and_then(|kind| counts.kinds.get_mut(kind)) {
                Some(count) => *count += 1,
                None => counts.others += 1,
            }
        }
        counts
    }

    /// All lines.
    fn all(&self) -> usize {
        self.kinds.iter().sum::<usize>() + self.others
    }

    /// How many of [`KINDS`] have to be left out so that no more than `max` lines remain; one more than there are if
    /// that does not suffice.
    fn step(&self, max: usize) -> usize {
        let mut left = self.all();
        for (step, lines) in self.kinds.iter().enumerate() {
            if left <= max {
                return step;
            }
            left -= lines;
        }
        KINDS.len() + usize::from(left > max)
    }

    /// What a gather with these lines leaves out where nothing was left out before.
    fn capped(&self, max: usize, wanted: &Measurements) -> Capped {
        Capped::of(self, max, self.step(max), wanted)
    }
}

/// The place of a line's measurement in [`KINDS`].
fn kind_of(line: &str) -> Option<usize> {
    let end = line.find([',', ' ']).unwrap_or(line.len());
    let measurement = line.get(..end);
    KINDS.iter().position(|kind| Some(kind.name) == measurement)
}

/// What a gather leaves out because of `max_lines`. Its keys are part of the document of `--check --json`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Capped {
    /// The key `max_lines`.
    pub max_lines: usize,
    /// The lines that the gather would have without this key, those of vm_collector included.
    pub lines: usize,
    /// How many of them are left out.
    pub lines_dropped: usize,
    /// The measurements that are left out.
    pub kinds_left_out: Vec<&'static str>,
    /// As in [`LineCap`].
    #[serde(skip)]
    step: usize,
}

impl Capped {
    /// What a gather leaves out that has so many lines in `all`, and so many of each measurement, where nothing was left
    /// out before.
    pub(crate) fn of_lines(
        all: usize,
        of: impl Fn(&str) -> usize,
        max: usize,
        wanted: &Measurements,
    ) -> Self {
        let mut kinds = [0; KINDS.len()];
        for (lines, kind) in kinds.iter_mut().zip(KINDS) {
            *lines = of(kind.name);
        }
        let others = all.saturating_sub(kinds.iter().sum());
        LineCounts { kinds, others }.capped(max, wanted)
    }

    fn of(counts: &LineCounts, max: usize, step: usize, wanted: &Measurements) -> Self {
        let left_out = KINDS.iter().take(step);
        let configured = left_out.filter(|kind| (kind.is_configured)(wanted));
        Self {
            max_lines: max,
            lines: counts.all(),
            lines_dropped: counts.kinds.iter().take(step).sum(),
            kinds_left_out: configured.map(|kind| kind.name).collect(),
            step,
        }
    }

    /// Grows with what is left out; 0 if nothing is.
    pub(crate) fn step(&self) -> usize {
        self.step
    }

    /// How many lines there are, and what is left out because of that.
    pub(crate) fn message(&self) -> String {
        let (lines, max) = (count(self.lines as u64, "line"), self.max_lines);
        let what = match &self.kinds_left_out[..] {
            [] => "none of the configured measurements can be left out".to_owned(),
            kinds => format!("left out: {}", kinds.join(", ")),
        };
        let left = self.lines - self.lines_dropped;
        let still = match left > max {
            true => format!("; the other {left} are written all the same"),
            false => String::new(),
        };
        format!("{lines} a gather, and max_lines is {max}; {what}{still}")
    }
}

/// What was left out of the last gather.
#[derive(Debug)]
pub(crate) struct LineCap {
    max: usize,
    /// How many of [`KINDS`] are left out; one more than there are while even the others are more than `max`.
    step: usize,
    /// For how many gathers a smaller step has sufficed.
    fitted: u32,
    /// The largest step that one of these gathers needed.
    needed: usize,
}

impl LineCap {
    /// Nothing is left out yet.
    pub fn new(max: usize) -> Self {
        Self {
            max,
            step: 0,
            fitted: 0,
            needed: 0,
        }
    }

    /// Leaves out of `buffer`, which has all lines of a gather but that of vm_collector, what is too much. `reached`: whether
    /// libvirt answered; a gather without its lines does not count as one in which all kinds fit.
    pub fn apply(&mut self, buffer: &mut String, wanted: &Measurements, reached: bool) -> Capped {
        let mut counts = LineCounts::of(buffer);
        counts.others += usize::from(wanted.collector);
        self.decide(counts.step(self.max), reached);
        let capped = Capped::of(&counts, self.max, self.step, wanted);
        if capped.lines_dropped > 0 {
            let mut kept = String::with_capacity(buffer.len());
            for line in buffer.split_inclusive('\n') {
                if kind_of(line).is_none_or(|kind| kind >= self.step) {
                    kept.push_str(line);
                }
            }
            *buffer = kept;
        }
        capped
    }

    fn decide(&mut self, step: usize, reached: bool) {
        if step >= self.step {
            self.step = step;
            (self.fitted, self.needed) = (0, 0);
        } else if reached {
            self.fitted += 1;
            self.needed = self.needed.max(step);
            if self.fitted >= RETURNS_AFTER {
                self.step = self.needed;
                (self.fitted, self.needed) = (0, 0);
            }
        }
    }
}

#[cfg(test)]
mod tests;
