//! `vm_pools`: one line for each storage pool, with its name and its type as tags.

use smol_str::format_smolstr;

use crate::inventory::Pool;
use crate::line_protocol::{self, Line, Tags};

/// The words for virStoragePoolState, as virsh has them.
const STATES: [&str; 5] = [
    "inactive",
    "building",
    "running",
    "degraded",
    "inaccessible",
];

/// The states in which libvirt knows sizes: else it gives 0. virsh shows them in the same.
const WITH_SIZES: [&str; 2] = ["running", "degraded"];

/// Appends the pool's line; `of_all`: the tags that all lines have.
pub(crate) fn write(buffer: &mut String, pool: &Pool, of_all: &Tags, timestamp: i64) {
    // Names that line protocol cannot carry as they are could become the same.
    let name = match line_protocol::is_carried(&pool.name) {
        true => pool.name.clone(),
        false => format_smolstr!("{} ({})", pool.name, pool.uuid),
    };
    let tags = of_all.clone().with("pool", &name).with("type", &pool.kind);
    let info = &pool.info;
    let state = usize::try_from(info.state).ok();
    let state = state.and_then(|state| STATES.get(state).copied());
    let has_sizes = state.is_some_and(|state| WITH_SIZES.contains(&state));
    let size = |bytes: u64| has_sizes.then_some(bytes);
    let mut line = Line::begin(buffer, "vm_pools", &tags);
    line.string("state", state);
    line.int("capacity_bytes", size(info.capacity));
    line.int("allocation_bytes", size(info.allocation));
    line.int("available_bytes", size(info.available));
    line.end(timestamp);
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::libvirt::PoolInfo;

    fn line(name: &str, kind: &str, state: u32) -> String {
        let mut buffer = String::new();
        let pool = Pool {
            uuid: Uuid::nil(),
            name: name.into(),
            kind: kind.into(),
            info: PoolInfo {
                state,
                capacity: 30,
                allocation: 10,
                available: 20,
            },
        };
        write(&mut buffer, &pool, &Tags::new().with("host", "kvm01"), 17);
        buffer
    }

    #[test]
    fn sizes_are_written_of_pools_that_have_some() {
        let sizes = "capacity_bytes=30i,allocation_bytes=10i,available_bytes=20i";
        for (state, fields) in [
            (0, "state=\"inactive\"".to_owned()),
            (1, "state=\"building\"".to_owned()),
            (2, format!("state=\"running\",{sizes}")),
            (3, format!("state=\"degraded\",{sizes}")),
            (4, "state=\"inaccessible\"".to_owned()),
        ] {
            let expected = format!("vm_pools,host=kvm01,pool=a\\ b,type=dir {fields} 17\n");
            assert_eq!(line("a b", "dir", state), expected);
        }
        assert_eq!(line("a", "dir", 5), "", "a state that is not known");
    }

    #[test]
    fn a_name_that_cannot_be_written_as_it_is_stays_one_of_its_own() {
        let tags = format!("vm_pools,host=kvm01,pool=a\\ b\\ ({}),type=- ", Uuid::nil());
        assert!(line("a\tb", "", 2).starts_with(&tags));
    }
}
