//! `vm_metrics`: one line per active VM.

use super::state;
use crate::derive::VmHistory;
use crate::line_protocol::Line;
use crate::sample::Sample;

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    let mut line = Line::begin(buffer, "vm_metrics", &vm.tags);
    line.string("state", sample.state.and_then(state::word));
    let reason = sample.state.zip(sample.reason);
    line.string("state_reason", reason.map(|(s, r)| state::reason(s, r)));
    line.int("cpu_count", sample.vcpus);
    line.int("memory_max_kb", sample.memory.maximum);
    line.int("memory_used_kb", sample.memory.current);
    line.int("cputime_ns", sample.cpu.time);
    line.int("answers", sample.answers.map(u64::from));
    line.int("uptime_sec", sample.uptime);
    line.end(timestamp);
}
