use std::fs;
use std::time::Instant;
use tempfile::TempDir;

use super::*;
use crate::description::{Description, Disk, DiskKind};

const A: Uuid = Uuid::from_u128(1);
const B: Uuid = Uuid::from_u128(2);

#[test]
fn one_query_at_a_time() {
    let (ask, queries) = channel();
    let mut host_watcher = HostWatcher::new(Some(ask), BlockStatistics::Auto, Wanted::default());
    assert!(host_watcher.ask(vec![(A, None)], HashMap::default()));
    assert!(
        !host_watcher.ask(vec![(B, None)], HashMap::default()),
        "it still works on the first"
    );
    let first = queries.try_recv().unwrap();
    assert_eq!(first.vms, [(A, None)]);
    assert!(queries.try_recv().is_err());
    let report = HostReport {
        number: first.number,
        verdict: HostVerdict {
            stuck: [A].into_iter().collect(),
            no_block: HashSet::default(),
            ..HostVerdict::default()
        },
        ..HostReport::default()
    };
    assert!(host_watcher.accept(report.clone()));
    assert_eq!(host_watcher.verdict(&[A, B]), report.verdict);
    assert!(host_watcher.ask(vec![], HashMap::default()));
    assert!(
        !host_watcher.accept(report),
        "a report for the query before"
    );
}

#[test]
fn without_a_thread_no_report_is_waited_for() {
    let mut host_watcher = HostWatcher::new(None, BlockStatistics::Auto, Wanted::default());
    assert!(!host_watcher.ask(vec![(A, None)], HashMap::default()));
    let (ask, _) = channel();
    let mut host_watcher = HostWatcher::new(Some(ask), BlockStatistics::Auto, Wanted::default());
    for _ in 0..2 {
        assert!(
            !host_watcher.ask(vec![(A, None)], HashMap::default()),
            "the thread has ended"
        );
    }
    assert_eq!(host_watcher.verdict(&[A]), HostVerdict::default());
}

#[test]
fn the_configuration_decides_how_disks_are_read_but_not_which_vms_are_stuck() {
    for (setting, no_block) in [
        (BlockStatistics::Auto, HashSet::from_iter([A])),
        (BlockStatistics::Bulk, HashSet::default()),
        (BlockStatistics::PerDisk, HashSet::from_iter([A, B])),
    ] {
        let mut host_watcher = HostWatcher::new(None, setting, Wanted::default());
        host_watcher.accept(HostReport {
            verdict: HostVerdict {
                stuck: [B].into_iter().collect(),
                no_block: [A].into_iter().collect(),
                ..HostVerdict::default()
            },
            ..HostReport::default()
        });
        let expected = HostVerdict {
            stuck: [B].into_iter().collect(),
            no_block,
            ..HostVerdict::default()
        };
        assert_eq!(host_watcher.verdict(&[A, B]), expected, "{setting:?}");
    }
}

/// From 11.4 on a call for one disk makes QEMU access all files.
#[test]
fn where_per_disk_calls_access_files_disks_on_unanswering_mounts_are_omitted() {
    let (ask, _questions) = channel();
    for (block_statistics, version, omitted) in [
        (BlockStatistics::Auto, 11_003_000, false),
        (BlockStatistics::Auto, 12_008_000, true),
        (BlockStatistics::PerDisk, 12_008_000, true),
        (BlockStatistics::Bulk, 12_008_000, false),
    ] {
        let mut host_watcher =
            HostWatcher::new(Some(ask.clone()), block_statistics, Wanted::default());
        host_watcher.set_libvirt_version(version);
        host_watcher.accept(HostReport {
            on_unanswering_mount: HashSet::from_iter([A]),
            ..HostReport::default()
        });
        let expected = HashSet::from_iter(omitted.then_some(A));
        assert_eq!(host_watcher.verdict(&[A, B]).no_disks, expected);
        // Without a report also those of which nothing is known.
        let late = omitted.then_some([A, B]).into_iter().flatten();
        assert_eq!(
            host_watcher.verdict_without_report(&[A, B]).no_disks,
            late.collect()
        );
    }
}

#[test]
fn without_a_report_only_local_disks_are_read_in_bulk() {
    let (ask, _questions) = channel();
    let verdict = |no_block: &[Uuid]| HostVerdict {
        stuck: HashSet::default(),
        no_block: no_block.iter().copied().collect(),
        no_disks: HashSet::default(),
    };
    for (block_statistics, first, later) in [
        (BlockStatistics::Auto, &[A, B][..], &[B][..]),
        (BlockStatistics::Bulk, &[], &[]),
        (BlockStatistics::PerDisk, &[A, B], &[A, B]),
    ] {
        let mut host_watcher =
            HostWatcher::new(Some(ask.clone()), block_statistics, Wanted::default());
        assert_eq!(
            host_watcher.verdict_without_report(&[A, B]),
            verdict(first),
            "{block_statistics:?}"
        );
        host_watcher.accept(HostReport {
            all_disks_local: HashMap::from_iter([(A, described(None))]),
            ..HostReport::default()
        });
        assert_eq!(
            host_watcher.verdict_without_report(&[A, B]),
            verdict(later),
            "{block_statistics:?}"
        );
    }
    // There is never a report of another host.
    for (block_statistics, no_block) in [
        (BlockStatistics::Auto, &[][..]),
        (BlockStatistics::PerDisk, &[A][..]),
    ] {
        let host_watcher = HostWatcher::new(None, block_statistics, Wanted::default());
        assert_eq!(host_watcher.verdict_without_report(&[A]), verdict(no_block));
    }
}

/// A VM without disks, or with one.
fn described(image: Option<&Path>) -> Arc<CachedDescription> {
    let disk = |image: &Path| Disk {
        target: "vda".into(),
        alias: None,
        kind: DiskKind::Disk,
        sources: vec![image.to_str().unwrap().to_owned()],
        counted: true,
    };
    let description = Description {
        disks: image.map(disk).into_iter().collect(),
        ..Description::default()
    };
    let described = CachedDescription::new(Some(description), None, Instant::now());
    Arc::new(described)
}

/// Its disks may have moved to other storage, of which no report has said anything yet.
#[test]
fn without_a_report_only_disks_that_are_the_same_as_in_the_last_one_are_read_in_bulk() {
    let old = described(Some(Path::new("/images/a")));
    let same = described(Some(Path::new("/images/a")));
    let moved = described(Some(Path::new("/mnt/a")));
    for (now, no_block) in [
        (Some(&old), &[][..]),
        (Some(&same), &[]),
        (Some(&moved), &[A]),
        (None, &[A]),
    ] {
        let (ask, _questions) = channel();
        let mut host_watcher =
            HostWatcher::new(Some(ask), BlockStatistics::Auto, Wanted::default());
        let query = |known: Option<&Arc<CachedDescription>>| vec![(A, known.map(Arc::clone))];
        let report = |number| HostReport {
            number,
            all_disks_local: HashMap::from_iter([(A, Arc::clone(&old))]),
            ..HostReport::default()
        };
        let no_block = no_block.iter().copied().collect();
        assert!(host_watcher.ask(query(Some(&old)), HashMap::default()));
        host_watcher.accept(report(1));
        assert!(host_watcher.ask(query(now), HashMap::default()));
        let late = host_watcher.verdict_without_report(&[A]);
        assert_eq!(late.no_block, no_block, "{now:?}");

        // The report for the old description comes only after the next gather has begun.
        host_watcher.accept(report(2));
        assert!(host_watcher.ask(query(Some(&old)), HashMap::default()));
        assert!(!host_watcher.ask(query(now), HashMap::default()));
        host_watcher.accept(report(3));
        assert!(host_watcher.ask(query(now), HashMap::default()));
        let late = host_watcher.verdict_without_report(&[A]);
        assert_eq!(late.no_block, no_block, "{now:?}");
    }
}

#[test]
fn a_slow_mount_is_one_that_has_not_answered_and_is_not_dead() {
    for (block_statistics, version, slow) in [
        (BlockStatistics::Auto, 11_003_000, &[][..]),
        (BlockStatistics::Auto, 12_008_000, &[A]),
        (BlockStatistics::PerDisk, 12_008_000, &[A]),
        (BlockStatistics::Bulk, 12_008_000, &[]),
    ] {
        let mut host_watcher = HostWatcher::new(None, block_statistics, Wanted::default());
        host_watcher.set_libvirt_version(version);
        host_watcher.accept(HostReport {
            on_unanswering_mount: HashSet::from_iter([A, B]),
            dead_mounts: [(PathBuf::from("/mnt/dead"), [B].into())].into(),
            ..HostReport::default()
        });
        let found: Vec<Uuid> = host_watcher.omitted_for_slow_mounts().collect();
        assert_eq!(found, slow, "{block_statistics:?}, {version}");
    }
}

/// A folder that stands for a host on which `A` runs, and in it: a folder like /proc, a table of mounts
/// with local storage alone, and an image.
fn host_of_a() -> (TempDir, PathBuf, PathBuf, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    let root = folder.path().join("proc");
    let process = root.join("77");
    fs::create_dir_all(process.join("task/77")).unwrap();
    fs::write(process.join("cmdline"), format!("qemu\0-uuid\0{A}\0")).unwrap();
    let stat = format!("77 (qemu) S 1{}\n", " 0".repeat(48));
    fs::write(process.join("stat"), &stat).unwrap();
    fs::write(process.join("schedstat"), "1 1 1\n").unwrap();
    let table = folder.path().join("mountinfo");
    fs::write(&table, "1 0 0:1 / / rw - tmpfs x rw\n").unwrap();
    let image = folder.path().canonicalize().unwrap().join("image");
    fs::write(&image, "").unwrap();
    (folder, root, table, image)
}

#[test]
fn the_storage_of_a_vm_without_a_visible_process_is_not_trusted() {
    let (_folder, root, table, image) = host_of_a();
    let mut processes = Processes::at(&root);
    let mut mounts = Mounts::at(&table, Path::new("/nonexistent"));
    let description = described(Some(&image));
    let query = HostQuery {
        number: 5,
        vms: vec![
            (A, Some(Arc::clone(&description))),
            (B, Some(description)),
            (Uuid::from_u128(3), None),
        ],
        ..HostQuery::default()
    };
    let report = inspect(&mut processes, &mut mounts, &query);
    assert_eq!(report.number, 5);
    assert_eq!(report.verdict.stuck, HashSet::default());
    assert_eq!(
        report.verdict.no_block,
        HashSet::from_iter([B, Uuid::from_u128(3)])
    );
    assert_eq!(report.dead_mounts, BTreeMap::new());
}

#[test]
fn the_file_of_a_volume_is_known_from_qemus_command_line() {
    let (_folder, root, table, image) = host_of_a();
    let image = image.to_str().unwrap();
    let node = format!(r#"{{"filename":"{image}","node-name":"libvirt-7-storage"}}"#);
    let line = format!("qemu\0-uuid\0{A}\0-blockdev\0{node}\0");
    fs::write(root.join("77/cmdline"), line).unwrap();
    let mut processes = Processes::at(&root);
    let mut mounts = Mounts::at(&table, Path::new("/nonexistent"));
    let description = |volumes: &[u32], unresolved| {
        let description = Description {
            volumes: volumes.to_vec(),
            unresolved,
            ..Description::default()
        };
        Some(Arc::new(CachedDescription::new(
            Some(description),
            None,
            Instant::now(),
        )))
    };
    let unreadable = Some(Arc::new(CachedDescription::new(None, None, Instant::now())));
    for (known, in_bulk) in [
        (description(&[], false), true),
        (description(&[7], false), true),
        (description(&[7], true), false),
        (description(&[7, 8], false), false),
        (unreadable, false),
        (None, false),
    ] {
        let query = HostQuery {
            vms: vec![(A, known)],
            ..HostQuery::default()
        };
        let report = inspect(&mut processes, &mut mounts, &query);
        assert_eq!(report.verdict.no_block.is_empty(), in_bulk, "{query:?}");
    }
}
