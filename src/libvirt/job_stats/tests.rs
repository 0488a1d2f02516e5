use super::*;

/// Reads what `virsh event --event job-completed` writes.
fn from_virsh(text: &str) -> JobStats {
    let params = text.split(", ").map(|param| {
        let (key, value) = param.split_once(": ").unwrap();
        let number = value.parse().map(Value::Integer);
        (key, number.unwrap_or(Value::Text(value)))
    });
    read(params)
}

/// libvirt 9.0 with QEMU 7.2.
const MIGRATION: &str = "operation: 5, time_elapsed: 3729, time_elapsed_net: 3720, downtime: 56, downtime_net: 47, setup_time: 1, \
     data_total: 67641344, data_processed: 34076092, data_remaining: 0, memory_total: 67641344, memory_processed: 34076092, \
     memory_remaining: 0, memory_bps: 10642626, memory_constant: 8233, memory_normal: 8285, memory_normal_bytes: 33935360, \
     memory_dirty_rate: 0, memory_iteration: 3, memory_postcopy_requests: 0, memory_page_size: 4096, disk_total: 0, \
     disk_processed: 0, disk_remaining: 0";

#[test]
fn a_migration_has_all_figures() {
    let expected = JobStats {
        operation: 5,
        elapsed: Some(3729),
        data_total: Some(67_641_344),
        data_processed: Some(34_076_092),
        data_remaining: Some(0),
        memory_dirty_rate: Some(0),
        memory_bps: Some(10_642_626),
        memory_iteration: Some(3),
        downtime: Some(56),
        success: None,
    };
    assert_eq!(from_virsh(MIGRATION), expected);
}

#[test]
fn a_save_has_no_figures_of_disks() {
    // libvirt 12.8 with QEMU 11.1.
    let save = from_virsh(
        "operation: 2, time_elapsed: 69, downtime: 58, setup_time: 1, data_total: 67641344, data_processed: 34256247, \
         data_remaining: 0, memory_total: 67641344, memory_processed: 34256247, memory_remaining: 0, memory_bps: 796656906, \
         memory_constant: 8234, memory_normal: 8280, memory_normal_bytes: 33914880, memory_dirty_rate: 0, \
         memory_iteration: 2, memory_postcopy_requests: 0, memory_page_size: 4096",
    );
    assert_eq!((save.operation, save.elapsed), (2, Some(69)));
    assert_eq!(save.data_total, Some(67_641_344), "not twice");
    assert_eq!(save.downtime, Some(58));
}

/// libvirt 9.0, 11.3 and 12.8 alike.
#[test]
fn the_data_of_a_backup_are_those_of_its_disks() {
    let backup = from_virsh(
        "operation: 9, time_elapsed: 127, disk_total: 67108864, disk_processed: 45000000, disk_remaining: 22108864, success: 1",
    );
    let expected = JobStats {
        operation: 9,
        elapsed: Some(127),
        data_total: Some(67_108_864),
        data_processed: Some(45_000_000),
        data_remaining: Some(22_108_864),
        success: Some(true),
        ..JobStats::default()
    };
    assert_eq!(backup, expected);
    // A pull backup copies nothing by itself. It is over when the client ends it.
    let pulled = from_virsh(
        "operation: 9, time_elapsed: 342, disk_temp_used: 0, disk_temp_total: 67108864, success: 1, errmsg: Operation canceled",
    );
    let expected = JobStats {
        operation: 9,
        elapsed: Some(342),
        success: Some(true),
        ..JobStats::default()
    };
    assert_eq!(pulled, expected);
    let failed = from_virsh("operation: 9, time_elapsed: 5, success: 0, errmsg: No space left");
    assert_eq!(failed.success, Some(false));
}

#[test]
fn the_data_of_a_dump_of_the_memory_are_those_of_the_memory() {
    // libvirt 11.3, while it runs.
    let dump = from_virsh(
        "operation: 8, time_elapsed: 135, memory_total: 67371008, memory_processed: 8543797, memory_remaining: 58827211",
    );
    let data = [dump.data_total, dump.data_processed, dump.data_remaining];
    assert_eq!(data, [67_371_008, 8_543_797, 58_827_211].map(Some));
}

#[test]
fn what_has_both_parts_and_no_sum_is_summed() {
    let stats = from_virsh("operation: 5, memory_total: 3, disk_total: 4, disk_remaining: 1");
    assert_eq!((stats.data_total, stats.data_remaining), (Some(7), Some(1)));
    assert_eq!(stats.data_processed, None);
}

/// libvirt 9.0, while the target of the migration is being prepared.
#[test]
fn what_libvirt_does_not_know_yet_is_not_0() {
    let begun = from_virsh(
        "operation: 5, time_elapsed: 1962, data_total: 0, data_processed: 0, data_remaining: 0, memory_total: 0, \
         memory_processed: 0, memory_remaining: 0, memory_dirty_rate: 0, memory_iteration: 0, \
         memory_postcopy_requests: 0, disk_total: 0, disk_processed: 0, disk_remaining: 0",
    );
    let data = [begun.data_total, begun.data_processed, begun.data_remaining];
    assert_eq!((data, begun.elapsed), ([None; 3], Some(1962)));
}

#[test]
fn what_is_not_understood_is_not_there() {
    let stats = from_virsh("operation: backup, time_elapsed: -1, data_total: much, later_key: 5");
    assert_eq!(stats, JobStats::default());
}
