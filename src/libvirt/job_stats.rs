//! Figures of jobs: from libvirt's keys to [`JobStats`].

use super::Value;
use super::bulk::{choice, count};
use crate::sample::JobStats;

/// Reads the parameters of `virDomainGetJobStats` or of the event that a job has ended.
///
/// libvirt gives the sums over memory and disks (`data_total` and so on) of migrations, saves and dumps. For a backup it has
/// those of the disks alone, for a dump of the memory alone (`virsh dump --memory-only`) those of the memory.
pub fn read<'a, K: AsRef<[u8]>>(params: impl Iterator<Item = (K, Value<'a>)>) -> JobStats {
    let mut stats = JobStats::default();
    let (mut memory, mut disk) = ([None; 3], [None; 3]);
    for (key, value) in params {
        match key.as_ref() {
            b"operation" => stats.operation = choice(value).unwrap_or_default(),
            b"time_elapsed" => stats.elapsed = count(value),
            b"data_total" => stats.data_total = count(value),
            b"data_processed" => stats.data_processed = count(value),
            b"data_remaining" => stats.data_remaining = count(value),
            b"memory_total" => memory[0] = count(value),
            b"memory_processed" => memory[1] = count(value),
            b"memory_remaining" => memory[2] = count(value),
            b"disk_total" => disk[0] = count(value),
            b"disk_processed" => disk[1] = count(value),
            b"disk_remaining" => disk[2] = count(value),
            b"memory_dirty_rate" => stats.memory_dirty_rate = count(value),
            b"memory_bps" => stats.memory_bps = count(value),
            b"memory_iteration" => stats.memory_iteration = count(value),
            b"downtime" => stats.downtime = count(value),
            b"success" => stats.success = count(value).map(|success| success != 0),
            _ => {}
        }
    }
    let sums = [
        &mut stats.data_total,
        &mut stats.data_processed,
        &mut stats.data_remaining,
    ];
    for (sum, parts) in sums.into_iter().zip(memory.into_iter().zip(disk)) {
        *sum = sum.or(match parts {
            (Some(memory), Some(disk)) => memory.checked_add(disk),
            (memory, disk) => memory.or(disk),
        });
    }
    // There is something to copy in every job. Until QEMU has begun, libvirt does not know how much.
    if stats.data_total == Some(0) {
        (stats.data_total, stats.data_processed, stats.data_remaining) = (None, None, None);
    }
    stats
}

#[cfg(test)]
mod tests;
