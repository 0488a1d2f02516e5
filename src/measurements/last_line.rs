//! The last lines of a VM that has stopped: its state and the reason, in `vm_metrics` and `vm_totals`.

use super::state;
use crate::config::Measurements;
use crate::libvirt::per_call::SHUTOFF;
use crate::line_protocol::{Line, Tags};

/// Appends the last lines of a run to `buffer`. `reason`: why it ended (virDomainShutoffReason).
pub(crate) fn write(
    buffer: &mut String,
    wanted: &Measurements,
    tags: &Tags,
    reason: i32,
    timestamp: i64,
) {
    if wanted.metrics {
        let mut line = Line::begin(buffer, "vm_metrics", tags);
        line.string("state", state::word(SHUTOFF));
        line.string("state_reason", Some(state::reason(SHUTOFF, reason)));
        line.end(timestamp);
    }
    if wanted.totals {
        let mut line = Line::begin(buffer, "vm_totals", tags);
        line.signed("state", Some(SHUTOFF.into()));
        line.signed("state_reason", Some(reason.into()));
        line.end(timestamp);
    }
}
