//! `vm_vcpus`: one line for each vCPU, with its number as the tag `vcpu`.

use crate::derive::VmHistory;
use crate::line_protocol::{Line, Tags};
use crate::sample::Sample;

pub(super) fn write(buffer: &mut String, sample: &Sample, vm: &VmHistory, timestamp: i64) {
    let vcpus = sample.vcpu_times.iter().flat_map(|times| times.list.iter());
    for vcpu in vcpus {
        let number = itoa::Buffer::new().format(vcpu.number).to_owned();
        let tags = Tags::new().with("vcpu", &number);
        let mut line = Line::begin_with(buffer, "vm_vcpus", &vm.tags, &tags);
        line.int("time_ns", vcpu.time);
        line.int("delay_ns", vcpu.delay);
        line.signed("state", vcpu.state.map(i64::from));
        line.int("wait_ns", vcpu.wait);
        line.end(timestamp);
    }
}
