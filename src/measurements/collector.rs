//! `vm_collector`: how the collector itself fares. One line a gather, where it is asked for, also
//! while libvirt is away.

use std::time::Duration;

use crate::libvirt::calls;
use crate::line_protocol::{Line, Tags};

/// What there is to say of a gather.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    /// Whether libvirt answered.
    pub up: bool,
    /// Since the program started.
    pub uptime: Duration,
    /// How long the gather took.
    pub duration: Duration,
    /// Active domains that are wanted.
    pub seen: usize,
    /// Domains whose figures came in full,
    pub complete: usize,
    /// in part,
    pub partial: usize,
    /// and not at all: locked, or no answer in time.
    pub withheld: usize,
    /// Lines written, this one aside.
    pub lines: usize,
    /// Connections that were lost, since the start.
    pub reconnects: u64,
    /// Calls that have not returned.
    pub hanging: usize,
    /// Answers that came too late and were dropped, since the start.
    pub late: u64,
    /// Mounts that do not answer.
    pub dead_mounts: usize,
}

/// Appends the line. Its tag is the URI: one Telegraf may run several collectors.
pub fn write(buffer: &mut String, collector: &Collector, uri: &Tags, timestamp: i64) {
    let count = |n: usize| u64::try_from(n).ok();
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).ok();
    let mut line = Line::begin(buffer, "vm_collector", uri);
    line.int("up", Some(collector.up.into()));
    line.string("version", Some(env!("CARGO_PKG_VERSION")));
    line.int("uptime_sec", Some(collector.uptime.as_secs()));
    line.int("gather_ns", nanos(collector.duration));
    line.int("vms_seen", count(collector.seen));
    line.int("vms_complete", count(collector.complete));
    line.int("vms_partial", count(collector.partial));
    line.int("vms_withheld", count(collector.withheld));
    line.int("lines", count(collector.lines));
    for (key, calls) in calls::FIELDS.into_iter().zip(calls::counts()) {
        line.int(key, Some(calls));
    }
    line.int("reconnects", Some(collector.reconnects));
    line.int("calls_hanging", count(collector.hanging));
    line.int("late_answers", Some(collector.late));
    line.int("dead_mounts", count(collector.dead_mounts));
    line.end(timestamp);
}
