//! `vm_collector`: how this program itself fares. One line per gather, also while libvirt does not
//! answer.

use std::time::Duration;

use crate::config::Measurements;
use crate::hypervisor::calls::{CallCounts, CallKind};
use crate::line_protocol::{Line, Tags};

/// The fields that count calls, in the order in which they are written.
const CALLS: [(&str, CallKind); 14] = [
    ("calls_open", CallKind::Open),
    ("calls_list", CallKind::List),
    ("calls_lookup", CallKind::Lookup),
    ("calls_bulk", CallKind::Bulk),
    ("calls_info", CallKind::Info),
    ("calls_state", CallKind::State),
    ("calls_cpu", CallKind::Cpu),
    ("calls_memory", CallKind::Memory),
    ("calls_interface", CallKind::Interface),
    ("calls_block", CallKind::Block),
    ("calls_control", CallKind::Control),
    ("calls_autostart", CallKind::Autostart),
    ("calls_persistent", CallKind::Persistent),
    ("xml_reads", CallKind::Xml),
];

/// The same of calls that only a measurement makes which is off by default: absent without it.
const CALLS_ON_REQUEST: [(&str, CallKind, IsWanted); 3] = [
    ("calls_job", CallKind::Job, |wanted| wanted.jobs),
    ("calls_pool", CallKind::Pool, |wanted| wanted.pools),
    ("calls_node", CallKind::Node, |wanted| wanted.host),
];

type IsWanted = fn(&Measurements) -> bool;

/// The figures of one gather, and counters since the program started.
#[derive(Debug, Clone, Default)]
pub struct Collector {
    /// Whether libvirt answered in this gather.
    pub up: bool,
    /// Time since the program started.
    pub uptime: Duration,
    /// How long the gather took.
    pub duration: Duration,
    /// Active domains that pass the name filter: the sum of the next three.
    pub seen: usize,
    /// Domains whose figures came in full.
    pub complete: usize,
    /// Domains whose figures came in part.
    pub partial: usize,
    /// Domains without figures: locked, refused, or no answer in time.
    pub withheld: usize,
    /// Lines written, without this one.
    pub lines: usize,
    /// Lines that `max_lines` left out; `None` without that key.
    pub lines_dropped: Option<usize>,
    /// Calls made to libvirt since the start.
    pub calls: CallCounts,
    /// Connections lost since the start.
    pub reconnects: u64,
    /// Calls that have not returned.
    pub hanging: usize,
    /// Replies since the start that came too late for their gather and were dropped.
    pub late: u64,
    /// Mounts that do not answer.
    pub dead_mounts: usize,
}

/// Appends the line. One of its tags is the URI, for one Telegraf may gather several of them.
pub fn write(
    buffer: &mut String,
    collector: &Collector,
    wanted: &Measurements,
    tags: &Tags,
    timestamp: i64,
) {
    let count = |n: usize| u64::try_from(n).ok();
    let nanos = |d: Duration| u64::try_from(d.as_nanos()).ok();
    let mut line = Line::begin(buffer, "vm_collector", tags);
    line.int("up", Some(collector.up.into()));
    line.string("version", Some(env!("CARGO_PKG_VERSION")));
    line.int("uptime_sec", Some(collector.uptime.as_secs()));
    line.int("gather_ns", nanos(collector.duration));
    line.int("vms_seen", count(collector.seen));
    line.int("vms_complete", count(collector.complete));
    line.int("vms_partial", count(collector.partial));
    line.int("vms_withheld", count(collector.withheld));
    line.int("lines", count(collector.lines));
    line.int("lines_dropped", collector.lines_dropped.and_then(count));
    for (key, call) in CALLS {
        line.int(key, Some(collector.calls.of(call)));
    }
    for (key, call, is_wanted) in CALLS_ON_REQUEST {
        let made = collector.calls.of(call);
        line.int(key, is_wanted(wanted).then_some(made));
    }
    line.int("reconnects", Some(collector.reconnects));
    line.int("calls_hanging", count(collector.hanging));
    line.int("late_answers", Some(collector.late));
    line.int("dead_mounts", count(collector.dead_mounts));
    line.end(timestamp);
}
