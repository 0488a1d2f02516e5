use std::time::{Duration, UNIX_EPOCH};

use super::testing::{device, devices, empty, full};
use super::*;
use crate::config::Settings;
use crate::description::{Disk, DiskKind, Nic};

fn description() -> Description {
    let disk = |target: &str, kind| Disk {
        target: target.into(),
        alias: None,
        kind,
        sources: Vec::new(),
        counted: true,
    };
    Description {
        nics: vec![
            Nic {
                target: None,
                mac: None,
                kind: "user".into(),
            },
            Nic {
                target: Some("vnet0".into()),
                mac: None,
                kind: "bridge".into(),
            },
        ],
        disks: vec![
            disk("vda", DiskKind::Disk),
            disk("sda", DiskKind::Lun),
            disk("hdc", DiskKind::Cdrom),
            disk("fda", DiskKind::Floppy),
        ],
        ..Description::default()
    }
}

/// The sample of that VM; every counter is 1.
fn sample() -> Sample {
    let at = Instant::now();
    let mut sample = empty(at);
    let nics = [("vnet0", Some(1)), ("", None)];
    sample.nics = Some(devices(
        at,
        nics.map(|(n, c)| device(n, "", [c; NIC_COUNTERS])).into(),
    ));
    let disks = ["vda", "sda", "hdc", "fda"];
    sample.disks = Some(devices(
        at,
        disks
            .map(|n| device(n, "", [Some(1); DISK_COUNTERS]))
            .into(),
    ));
    sample
}

fn wanted(change: impl FnOnce(&mut Settings)) -> DeviceFilter {
    let mut settings = Settings::default();
    change(&mut settings);
    settings.device_filter()
}

fn disks(sample: &Sample) -> Vec<(&str, &str)> {
    let disks = sample.disks.as_ref().unwrap().list.iter();
    disks
        .map(|d| (d.name.as_deref().unwrap(), d.kind.as_str()))
        .collect()
}

#[test]
fn kinds_come_from_the_description() {
    let mut sample = sample();
    sample.describe(Some(&description()), &wanted(|_| {}));
    assert_eq!(disks(&sample), [("vda", "disk"), ("sda", "lun")]);
    assert!(sample.disks.as_ref().unwrap().complete);
    let nics = sample.nics.unwrap();
    let kinds: Vec<_> = nics.list.iter().map(|nic| nic.kind.as_str()).collect();
    // A nameless NIC cannot be told apart from another nameless one.
    assert_eq!(kinds, ["bridge", ""]);
}

#[test]
fn cdrom_and_floppy_are_wanted_each_by_its_own_key() {
    let mut one = sample();
    one.describe(Some(&description()), &wanted(|s| s.cdrom = true));
    assert_eq!(
        disks(&one),
        [("vda", "disk"), ("sda", "lun"), ("hdc", "cdrom")]
    );
    let mut one = sample();
    one.describe(Some(&description()), &wanted(|s| s.floppy = true));
    assert_eq!(
        disks(&one),
        [("vda", "disk"), ("sda", "lun"), ("fda", "floppy")]
    );
}

#[test]
fn a_disk_that_the_description_lacks_is_left_out_and_spoils_the_sum() {
    let mut sample = sample();
    let mut description = description();
    description.disks.retain(|disk| disk.target != "sda");
    sample.describe(Some(&description), &wanted(|_| {}));
    assert_eq!(disks(&sample), [("vda", "disk")]);
    assert!(!sample.disks.unwrap().complete);
}

#[test]
fn without_a_description_there_are_nics_but_no_disks() {
    let mut sample = sample();
    sample.describe(None, &wanted(|_| {}));
    assert_eq!(sample.disks, None);
    assert_eq!(sample.nics.unwrap().list.len(), 2);
}

#[test]
fn what_was_not_reported_stays_unreported() {
    let mut sample = empty(Instant::now());
    sample.describe(Some(&description()), &wanted(|_| {}));
    assert_eq!((sample.nics, sample.disks), (None, None));
}

/// As a configuration file says.
fn configured(toml: &str) -> DeviceFilter {
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), toml).unwrap();
    let loaded = crate::config::load(Some(file.path()), None, None).unwrap();
    loaded.settings.device_filter()
}

#[test]
fn the_filter_of_device_names_holds_for_nics_and_disks() {
    let mut one = sample();
    let filter = configured("device_exclude = [\"vnet*\", \"s*\"]\n");
    one.describe(Some(&description()), &filter);
    assert_eq!(disks(&one), [("vda", "disk")]);
    assert!(
        one.disks.unwrap().complete,
        "nothing is missing that was wanted"
    );
    // A NIC without a name is meant by no pattern.
    let nics = one.nics.unwrap();
    let names: Vec<_> = nics.list.iter().map(|nic| &nic.name).collect();
    assert_eq!(names, [&None]);

    let mut one = sample();
    one.describe(
        Some(&description()),
        &configured("device_include = [\"vd?\"]\n"),
    );
    assert_eq!(disks(&one), [("vda", "disk")]);
}

#[test]
fn a_disk_that_cannot_have_counters_is_left_out_and_spoils_no_sum() {
    let mut one = sample();
    let mut description = description();
    description.disks[1].counted = false;
    one.describe(Some(&description), &wanted(|_| {}));
    assert_eq!(disks(&one), [("vda", "disk")]);
    assert!(one.disks.unwrap().complete);
}

#[test]
fn from_its_greatest_age_on_a_report_of_the_guest_is_left_out_and_its_age_stays() {
    const REPORTED: u64 = 1_795_385_177;
    let max_age = Duration::from_secs(300);
    let judged = |last_update, now: u64| {
        let mut memory = testing::full(Instant::now()).memory;
        memory.last_update = last_update;
        memory.report_age = None;
        memory.set_report_age(UNIX_EPOCH + Duration::from_millis(now), max_age);
        memory
    };
    let fresh = testing::full(Instant::now()).memory;
    for (now, age) in [
        (REPORTED * 1000, 0),
        (REPORTED * 1000 + 2999, 2),
        (REPORTED * 1000 + 299_999, 299),
        // The clock of another host is ahead.
        (REPORTED * 1000 - 60_000, 0),
    ] {
        let memory = judged(Some(REPORTED), now);
        assert_eq!(memory.report_age, Some(age));
        assert_eq!((memory.usable, memory.unused), (fresh.usable, fresh.unused));
    }
    let old = judged(Some(REPORTED), (REPORTED + 300) * 1000);
    let expected = Memory {
        at: old.at,
        maximum: fresh.maximum,
        current: fresh.current,
        actual: fresh.actual,
        rss: fresh.rss,
        last_update: Some(REPORTED),
        report_age: Some(300),
        ..Memory::new(old.at)
    };
    assert_eq!(old, expected);
    // It never reported, or the driver does not say when: what there is may be the driver's own.
    for last_update in [Some(0), None] {
        let memory = judged(last_update, (REPORTED + 300) * 1000);
        assert_eq!(memory.report_age, None);
        assert_eq!(memory.usable, fresh.usable);
    }
}

#[test]
fn a_running_vm_without_figures_of_its_guest_lacks_them_however_long_its_period() {
    let with = |change: fn(&mut Sample)| {
        let mut sample = full(Instant::now());
        sample.memory.report_age = Some(299);
        change(&mut sample);
        sample.lacks_guest_memory()
    };
    assert!(!with(|_| {}), "a period of 300 s");
    assert!(!with(|sample| sample.memory.usable = None), "an old driver");
    assert!(with(|sample| {
        (sample.memory.available, sample.memory.usable) = (None, None);
    }));
    assert!(!with(|sample| {
        sample.state = Some(3);
        (sample.memory.available, sample.memory.usable) = (None, None);
    }));
}
