//! Samples -> lines, one file a measurement.

pub(crate) mod collector;
mod devices;
mod features;
pub(crate) mod host;
pub(crate) mod inactive;
pub(crate) mod info;
pub(crate) mod jobs;
mod last_line;
pub(crate) mod line_cap;
mod metrics;
pub(crate) mod pools;
mod pressure;
pub(crate) mod state;
pub(crate) mod stats;
pub(crate) mod totals;
mod vcpus;

#[cfg(test)]
mod tests;

pub(crate) use last_line::write as write_last_line;

use crate::config::Measurements;
use crate::derive::{Derived, VmHistory};
use crate::sample::Sample;

/// Appends the lines of one VM to `buffer`; `vm` and `derived` are what
/// [`History::update`](crate::derive::History::update) made of the sample.
pub fn write(
    buffer: &mut String,
    wanted: &Measurements,
    sample: &Sample,
    vm: &VmHistory,
    derived: &Derived,
    timestamp: i64,
) {
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
        totals::write(buffer, sample, derived, vm, timestamp);
    }
    if wanted.vcpus {
        vcpus::write(buffer, sample, vm, timestamp);
    }
    if wanted.pressure {
        pressure::write(buffer, sample, vm, timestamp);
    }
    stats::write(buffer, &sample.stats, &vm.tags, timestamp);
}
