use super::*;
use crate::libvirt::testing::{Node, connect};

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
    // This is lxc's error for a container that runs on a host without that control group.
    let invalid = error(sys::VIR_ERR_OPERATION_INVALID, sys::VIR_FROM_LXC);
    assert_eq!(tolerate::<()>(&running, Err(invalid.clone())), Ok(None));
    let unsupported = error(sys::VIR_ERR_NO_SUPPORT, sys::VIR_FROM_LXC);
    assert_eq!(tolerate::<()>(&running, Err(unsupported)), Ok(None));
    assert_eq!(tolerate(&running, Ok(1)), Ok(Some(1)));
    // The same error for a container that has stopped.
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

#[test]
fn a_domain_with_a_job_does_not_show_that_control_groups_are_lacking() {
    use CpuSource::{Info, Totals};
    for (source, new, has_job, expected) in [
        (Totals(0), Info, false, Info),
        (Totals(0), Info, true, Totals(0)),
        (Totals(3), Info, true, Totals(3)),
        (Totals(0), Totals(3), true, Totals(3)),
        (Info, Info, true, Info),
    ] {
        let after = source.after(new, has_job);
        assert_eq!(after, expected, "{source:?}, {new:?}, {has_job}");
    }
}

#[test]
fn cpu_time_that_has_come_is_not_replaced_by_another_counter() {
    let node = Node::of(&["running"], &[]);
    let connection = connect(&node.uri());
    let domain = connection.lookup(Node::uuid("running")).unwrap();
    let mut sample = crate::sample::testing::empty(Instant::now());
    info(&mut sample, &domain, CpuSource::Totals(3)).unwrap();
    assert_eq!(sample.cpu.time, None);
    sample.cpu.time = Some(7);
    let at = sample.cpu.at;
    info(&mut sample, &domain, CpuSource::Info).unwrap();
    assert_eq!((sample.cpu.time, sample.cpu.at), (Some(7), at));
    sample.cpu.time = None;
    info(&mut sample, &domain, CpuSource::Info).unwrap();
    assert!(sample.cpu.time.is_some());
}

/// The test driver has no virDomainBlockStatsFlags, and neither has it behind a daemon.
#[test]
fn a_driver_without_the_call_that_reports_times_is_asked_for_it_once() {
    let connection = connect("test:///default");
    let domain = connection.active_domains().unwrap().remove(0);
    let description = Description::parse(&domain.xml().unwrap()).unwrap();
    let wanted = crate::config::Settings::default().device_filter();
    let mut call = DiskCall::default();
    for _ in 0..2 {
        let disks = disks(&domain, &description, &wanted, &mut call).unwrap();
        assert_eq!(call, DiskCall::Plain);
        let (counted, lacking) = disks.list[0].counters.split_at(5);
        assert!(counted.iter().all(Option::is_some), "{counted:?}");
        assert!(lacking.iter().all(Option::is_none), "{lacking:?}");
    }
}
