//! How I/O errors are counted.

use super::*;
use crate::description::{Description, Disk, DiskKind};
use crate::libvirt::IoError;
use crate::sample::DISK_COUNTERS;
use crate::sample::testing::{device, devices};

fn error(alias: &str, id: u32) -> IoError {
    IoError {
        uuid: run(id).uuid,
        id,
        alias: alias.to_owned(),
        reason: "enospc".to_owned(),
        count: 1,
    }
}

/// A VM with two disks, whose XML has been read; events come.
fn watched(at: Instant) -> Vms {
    let mut vms = Vms::new(TTL);
    vms.set_io_errors(true);
    vms.begin();
    list(&mut vms, [run(1)]);
    describe(&mut vms, run(1), at);
    vms
}

fn describe(vms: &mut Vms, run: RunId, at: Instant) {
    let disk = |target: &str, alias: &str| Disk {
        target: target.into(),
        alias: Some(alias.into()),
        kind: DiskKind::Disk,
        sources: Vec::new(),
        counted: true,
    };
    let description = Description {
        disks: vec![disk("vda", "virtio-disk0"), disk("vdb", "ua-mine")],
        ..Description::default()
    };
    let described = CachedDescription::new(Some(description), None, at);
    vms.on_description(run, Arc::new(described));
}

/// What the disks vda, vdb and one that is not described have in a sample of this run.
fn counts(vms: &Vms, run: RunId) -> Vec<Option<u64>> {
    let disks = ["vda", "vdb", "vdc"].map(|name| device(name, "", [Some(1); DISK_COUNTERS]));
    let mut disks = devices(Instant::now(), disks.into());
    vms.add_io_errors(run, &mut disks);
    disks.list.iter().map(|disk| disk.io_errors).collect()
}

#[test]
fn they_are_counted_for_the_disk_of_the_alias() {
    let at = Instant::now();
    let mut vms = watched(at);
    assert_eq!(counts(&vms, run(1)), [Some(0), Some(0), None]);
    vms.io_error(error("ua-mine", 1), at);
    vms.io_error(error("ua-mine", 1), at);
    assert_eq!(counts(&vms, run(1)), [Some(0), Some(2), None]);
    // Without events, some may be missing.
    vms.set_io_errors(false);
    assert_eq!(counts(&vms, run(1)), [None; 3]);
    vms.set_io_errors(true);
    assert_eq!(counts(&vms, run(1)), [Some(0), Some(2), None]);
    // Another disk may get the alias.
    vms.device_removed(run(1).uuid, "ua-mine", at);
    assert_eq!(counts(&vms, run(1)), [Some(0), Some(0), None]);
}

#[test]
fn a_disk_without_a_counter_has_no_count_either() {
    let vms = watched(Instant::now());
    let silent = device("vda", "", [None; DISK_COUNTERS]);
    let mut disks = devices(Instant::now(), vec![silent]);
    vms.add_io_errors(run(1), &mut disks);
    assert_eq!(disks.list[0].io_errors, None, "it would be its whole line");
}

#[test]
fn they_are_those_of_a_run_also_of_one_that_is_not_listed_yet() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.io_error(error("ua-mine", 1), at);
    vms.begin();
    vms.list_requested(after(at, 1));
    // The VM is started again, and has an error before the list.
    vms.io_error(error("virtio-disk0", 2), after(at, 2));
    assert_eq!(counts(&vms, run(2)), [None; 3], "no record yet");
    list(&mut vms, [run(1)]);
    vms.begin();
    vms.list_requested(after(at, 3));
    list(&mut vms, [run(2)]);
    describe(&mut vms, run(2), at);
    assert_eq!(counts(&vms, run(2)), [Some(1), Some(0), None]);
    assert_eq!(vms.io_errors.len(), 1, "the first run's are gone");
    vms.begin();
    vms.list_requested(after(at, 4));
    list(&mut vms, []);
    assert_eq!(vms.io_errors.len(), 0);
}

#[test]
fn the_first_error_of_each_disk_is_reported_when_the_vm_is_known() {
    let at = Instant::now();
    let mut vms = watched(at);
    let taken = |vms: &mut Vms| -> Vec<String> {
        let first = vms.take_first_io_errors(|disk| disk.target == "vda");
        let text = |error: &FirstIoError| {
            assert_eq!(error.is_written, error.disk == "vda", "{error:?}");
            format!("{} {}", error.disk, error.reason)
        };
        first.iter().map(text).collect()
    };
    for _ in 0..2 {
        vms.io_error(error("ua-mine", 1), at);
    }
    vms.io_error(error("virtio-disk9", 1), at);
    vms.io_error(error("virtio-disk0", 2), at);
    assert_eq!(taken(&mut vms), ["vdb enospc", "virtio-disk9 enospc"]);
    vms.io_error(error("ua-mine", 1), at);
    assert_eq!(taken(&mut vms), [""; 0]);
    // Now the second run is known.
    list(&mut vms, [run(2)]);
    describe(&mut vms, run(2), at);
    assert_eq!(taken(&mut vms), ["vda enospc"]);
}
