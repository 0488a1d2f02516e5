//! `vm_features`: one line per VM, from the second gather on.

use crate::derive::VmHistory;
use crate::derive::{DISK_RATES, Features, NET_RATES};
use crate::line_protocol::Line;

/// Of reads, writes and flushes.
const DISK_LATENCIES: [&str; 3] = [
    "disk_rd_latency_ms",
    "disk_wr_latency_ms",
    "disk_fl_latency_ms",
];

pub(super) fn write(buffer: &mut String, features: &Features, vm: &VmHistory, timestamp: i64) {
    let mut line = Line::begin(buffer, "vm_features", &vm.tags);
    line.float("memory_rate_kb_per_sec", features.memory_rate);
    line.float("memory_angle_deg", features.memory_angle);
    line.float("cpu_usage_percent", features.cpu_usage);
    line.float("cpu_steal_percent", features.cpu_steal);
    line.float("memory_guest_used_percent", features.memory_guest_used);
    for ((_, key), rate) in NET_RATES.into_iter().zip(features.net) {
        line.float(key, rate);
    }
    for ((_, key), rate) in DISK_RATES.into_iter().zip(features.disk) {
        line.float(key, rate);
    }
    for (key, ms) in DISK_LATENCIES.into_iter().zip(features.disk_latency) {
        line.float(key, ms);
    }
    line.end(timestamp);
}
