//! Latencies: the time that a disk's requests took, divided by how many ended, between two samples.

use std::time::Instant;

use smol_str::SmolStr;

use super::features::seconds;
use crate::sample::{DISK_COUNTERS, Devices};

/// The counters of which a latency is made: (index of the time, index of the requests), for reads, writes and flushes.
pub const DISK_LATENCIES: [(usize, usize); 3] = [(5, 0), (6, 2), (7, 8)];

/// The latencies of each disk of one run, in the order of the last sample that has disks.
#[derive(Debug, Clone, Default)]
pub struct DiskLatencies(Vec<DiskLatency>);

#[derive(Debug, Clone)]
struct DiskLatency {
    name: SmolStr,
    /// The last values of the counters of each latency.
    previous: [Option<Reading>; 3],
    /// ms, of the last sample.
    now: [Option<f64>; 3],
}

#[derive(Debug, Clone, Copy)]
struct Reading {
    at: Instant,
    time: u64,
    requests: u64,
}

impl DiskLatencies {
    /// Calculates the latencies of this sample, and remembers its counters for the next one. A disk that lacks a counter
    /// keeps the older value. A disk that is not there any more is forgotten, for another one may take its name.
    /// `removed` is when a disk was last removed.
    pub fn update(&mut self, disks: &Devices<DISK_COUNTERS>, removed: Option<Instant>) {
        let named = disks
            .list
            .iter()
            .filter_map(|disk| Some((disk.name.as_ref()?, &disk.counters)));
        let names = named.clone().map(|(name, _)| name);
        if !self.0.iter().map(|disk| &disk.name).eq(names.clone()) {
            let before = std::mem::take(&mut self.0);
            let known = |name: &SmolStr| {
                let known = before.iter().find(|known| known.name == *name);
                known.map_or([None; 3], |known| known.previous)
            };
            let disk = |name: &SmolStr| DiskLatency {
                name: name.clone(),
                previous: known(name),
                now: [None; 3],
            };
            self.0 = names.map(disk).collect();
        }
        for (disk, (_, counters)) in self.0.iter_mut().zip(named) {
            for (i, (time, requests)) in DISK_LATENCIES.into_iter().enumerate() {
                let now = counters[time].zip(counters[requests]);
                let now = now.map(|(time, requests)| Reading {
                    at: disks.at,
                    time,
                    requests,
                });
                disk.now[i] =
                    now.and_then(|now| now.since(disk.previous[i].replace(now)?, removed));
            }
        }
    }

    /// Milliseconds per read, write and flush of each disk that has a name.
    pub fn iter(&self) -> impl Iterator<Item = [Option<f64>; 3]> {
        self.0.iter().map(|disk| disk.now)
    }
}

impl Reading {
    fn since(self, before: Self, removed: Option<Instant>) -> Option<f64> {
        // Another disk may have got the name of a disk that was removed since.
        if removed.is_some_and(|removed| removed >= before.at) {
            return None;
        }
        seconds(before.at, self.at)?;
        let time = self.time.checked_sub(before.time)?;
        let requests = self.requests.checked_sub(before.requests)?;
        per_request(time as f64, requests as f64)
    }
}

/// Milliseconds per request; `None` where no request ended.
pub(super) fn per_request(ns: f64, requests: f64) -> Option<f64> {
    (requests > 0.0).then(|| ns / 1e6 / requests)
}

#[cfg(test)]
mod tests;
