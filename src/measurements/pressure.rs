//! `vm_pressure`: one line for each resource and type of pressure, with these as the tags `resource` and `type`.

use crate::derive::VmHistory;
use crate::line_protocol::{Line, Tags};
use crate::sample::Sample;

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    for pressure in &sample.pressure {
        let tags = Tags::new()
            .with("resource", pressure.resource)
            .with("type", pressure.kind);
        let mut line = Line::begin_with(buffer, "vm_pressure", &vm.tags, &tags);
        line.float("avg10", Some(pressure.avg10));
        line.float("avg60", Some(pressure.avg60));
        line.float("avg300", Some(pressure.avg300));
        line.int("total_us", Some(pressure.total));
        line.end(timestamp);
    }
}
