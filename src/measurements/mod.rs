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
use crate::history::History;
use crate::sample::Sample;

/// Appends the lines of one VM to `buffer`.
pub fn write(
    buffer: &mut String,
    wanted: &Measurements,
    sample: &Sample,
    history: &mut History,
    timestamp: i64,
) {
    let vm = history.of(sample);
    let derived = vm.derive(sample);
    if wanted.metrics {
        metrics::write(buffer, sample, vm, timestamp);
    }
    if wanted.features {
        features::write(buffer, &derived.features, vm, timestamp);
    }
    if wanted.devices {
        devices::write(buffer, sample, vm, timestamp);
    }
    if wanted.totals {
        totals::write(buffer, sample, &derived, vm, timestamp);
    }
}
