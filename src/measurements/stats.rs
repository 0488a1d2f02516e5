//! `vm_stats`: one line for each object of a VM and each group of libvirt's statistics, under libvirt's own names.

use crate::line_protocol::{Line, Tags};
use crate::sample::{StatValue, Stats};

/// Appends the lines of a VM with these tags.
pub(crate) fn write(buffer: &mut String, stats: &[Stats], vm: &Tags, timestamp: i64) {
    for stats in stats {
        let mut tags = Tags::new().with("group", &stats.group);
        if let Some((tag, value)) = &stats.object {
            tags = tags.with(tag, value);
        }
        let mut line = Line::begin_with(buffer, "vm_stats", vm, &tags);
        for (key, value) in &stats.fields {
            match value {
                StatValue::Integer(number) => line.signed(key, Some(*number)),
                StatValue::Float(number) => line.float(key, Some(*number)),
                StatValue::Text(text) => line.string(key, Some(text)),
            }
        }
        line.end(timestamp);
    }
}
