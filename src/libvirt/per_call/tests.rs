use super::*;
use crate::gather::examples::{Node, connect};

fn error(code: u32, domain: u32) -> Error {
    Error {
        code,
        domain,
        message: "blkio cgroup isn't mounted".to_owned(),
    }
}

#[test]
fn one_call_that_cannot_be_answered_costs_the_vm_nothing_else() {
    let node = Node::of(&["running"], &["off"]);
    let connection = connect(&node.uri());
    let running = connection.lookup(Node::uuid("running")).unwrap();
    // lxc says this of a container that runs on a host without that control group.
    let invalid = error(sys::VIR_ERR_OPERATION_INVALID, sys::VIR_FROM_LXC);
    assert_eq!(tolerate::<()>(&running, Err(invalid.clone())), Ok(None));
    let unsupported = error(sys::VIR_ERR_NO_SUPPORT, sys::VIR_FROM_LXC);
    assert_eq!(tolerate::<()>(&running, Err(unsupported)), Ok(None));
    assert_eq!(tolerate(&running, Ok(1)), Ok(Some(1)));
    // And this is the same error of one that has stopped.
    let off = connection.lookup(Node::uuid("off")).unwrap();
    assert_eq!(tolerate::<()>(&off, Err(invalid.clone())), Err(invalid));
    let gone = error(sys::VIR_ERR_NO_DOMAIN, sys::VIR_FROM_LXC);
    assert_eq!(tolerate::<()>(&running, Err(gone.clone())), Err(gone));
    let lost = error(sys::VIR_ERR_INTERNAL_ERROR, sys::VIR_FROM_RPC);
    assert_eq!(tolerate::<()>(&running, Err(lost.clone())), Err(lost));
}

#[test]
fn minus_one_is_not_counted() {
    assert_eq!(counted(-1), None);
    assert_eq!(counted(i64::MIN), None);
    assert_eq!(counted(0), Some(0));
    assert_eq!(counted(i64::MAX), Some(i64::MAX as u64));
}
