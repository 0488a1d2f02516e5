//! Samples -> lines, one file a measurement.

pub mod collector;
mod devices;
mod features;
mod metrics;
mod state;
mod totals;

#[cfg(test)]
mod tests;

use crate::config::Measurements;
use crate::runs::Runs;
use crate::sample::Sample;

/// Appends the lines of one VM to `buffer`.
pub fn write(
    buffer: &mut String,
    wanted: &Measurements,
    sample: &Sample,
    runs: &mut Runs,
    stamp: i64,
) {
    let memory = runs.of(sample);
    let derived = memory.derive(sample);
    if wanted.metrics {
        metrics::write(buffer, sample, memory, stamp);
    }
    if wanted.features {
        features::write(buffer, &derived.features, memory, stamp);
    }
    if wanted.devices {
        devices::write(buffer, sample, memory, stamp);
    }
    if wanted.totals {
        totals::write(buffer, sample, &derived, memory, stamp);
    }
}
