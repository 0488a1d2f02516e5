//! The lines of `vm_metrics` of VMs that are shut off. They have no id.

use super::state;
use crate::inventory::InactiveVm;
use crate::line_protocol::{Line, Tags};
use crate::wording::yes_or_no;

/// Appends the VM's line; `of_all`: the tags that all lines have.
pub(crate) fn write(buffer: &mut String, vm: &InactiveVm, of_all: &Tags, timestamp: i64) {
    let uuid = vm.uuid.to_string();
    let tags = of_all
        .clone()
        .with("VMID", "-")
        .with_or("name", &vm.name, &uuid)
        .with("uuid", &uuid);
    let mut line = Line::begin(buffer, "vm_metrics", &tags);
    line.string("state", vm.state.and_then(state::word));
    let reason = vm.state.zip(vm.reason);
    line.string("state_reason", reason.map(|(s, r)| state::reason(s, r)));
    line.int("cpu_count", vm.vcpus);
    line.int("memory_max_kb", vm.memory);
    // A VM without a configuration that stays is not there when it is off.
    line.string("persistent", Some(yes_or_no(true)));
    line.string("autostart", Some(yes_or_no(vm.autostart)));
    line.end(timestamp);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn a_line() {
        let mut buffer = String::new();
        let mut vm = InactiveVm {
            uuid: Uuid::nil(),
            name: "a b".into(),
            autostart: true,
            state: Some(5),
            reason: Some(1),
            memory: Some(8192),
            vcpus: Some(2),
        };
        let tags = format!(
            "vm_metrics,host=kvm01,VMID=-,name=a\\ b,uuid={}",
            Uuid::nil()
        );
        write(&mut buffer, &vm, &Tags::new().with("host", "kvm01"), 17);
        let expected = format!(
            "{tags} state=\"shutoff\",state_reason=\"shutdown\",cpu_count=2i,memory_max_kb=8192i,persistent=\"yes\",\
             autostart=\"yes\" 17\n"
        );
        assert_eq!(buffer, expected);
        (vm.autostart, vm.vcpus, vm.memory) = (false, None, None);
        buffer.clear();
        write(&mut buffer, &vm, &Tags::new().with("host", "kvm01"), 17);
        let expected = format!(
            "{tags} state=\"shutoff\",state_reason=\"shutdown\",persistent=\"yes\",autostart=\"no\" 17\n"
        );
        assert_eq!(buffer, expected);
    }
}
