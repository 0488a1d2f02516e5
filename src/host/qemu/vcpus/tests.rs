use std::cell::Cell;

use super::*;

/// A proc file system made of plain files, with the process 7.
struct Fake {
    proc: tempfile::TempDir,
    threads: VcpuThreads,
    room: usize,
    exists: Cell<bool>,
}

impl Fake {
    fn new(room: usize) -> Self {
        let proc = tempfile::tempdir().unwrap();
        fs::create_dir_all(proc.path().join("7/task")).unwrap();
        Self {
            proc,
            threads: VcpuThreads::default(),
            room,
            exists: Cell::new(true),
        }
    }

    fn set(&self, id: u32, name: &str, schedstat: &str) {
        let folder = self.proc.path().join(format!("7/task/{id}"));
        fs::create_dir_all(&folder).unwrap();
        fs::write(folder.join("comm"), format!("{name}\n")).unwrap();
        fs::write(folder.join("schedstat"), schedstat).unwrap();
    }

    fn end(&self, id: u32) {
        let folder = self.proc.path().join(format!("7/task/{id}"));
        // A file of proc that is open fails; this one is empty.
        fs::write(folder.join("schedstat"), "").unwrap();
        fs::remove_dir_all(folder).unwrap();
    }

    /// The time has passed after which threads are searched for again.
    fn let_search_again(&mut self) {
        if let Some((_, again)) = &mut self.threads.searched {
            *again = Instant::now();
        }
    }

    /// A name that the next search would find, at a thread which is known.
    fn hide(&self, id: u32) {
        let comm = self.proc.path().join(format!("7/task/{id}/comm"));
        fs::write(comm, "other\n").unwrap();
    }

    fn read(
        &mut self,
        groups: Option<u64>,
        online: Option<u64>,
    ) -> Option<Vec<(u32, u32, u64, u64)>> {
        let expected = Expected { groups, online };
        let exists = || self.exists.get();
        let root = self.proc.path();
        let read = self.threads.read(root, 7, expected, &mut self.room, exists);
        read.map(|read| {
            let list = read.times.list.iter();
            list.map(|v| (v.number, v.thread, v.time.unwrap(), v.delay.unwrap()))
                .collect()
        })
    }
}

#[test]
fn the_threads_of_vcpus_are_found_by_their_names() {
    let mut fake = Fake::new(9);
    for (id, name) in [
        (7, "qemu-system-x86"),
        (8, "IO mon_iothread"),
        (9, "worker"),
        (10, "CPU 3/KVM"),
        (11, "CPU x/KVM"),
        (12, "CPU 1"),
        (13, "SPICE Worker"),
        (14, "CPU 0/TCG"),
    ] {
        fake.set(id, name, &format!("{id} 5 6\n"));
    }
    let found = fake.read(None, None);
    assert_eq!(found, Some(vec![(0, 14, 14, 5), (3, 10, 10, 5)]));
    assert_eq!((fake.threads.files(), fake.room), (2, 7));
    fake.set(14, "CPU 0/TCG", "18446744073709551615 1 2\n");
    let found = fake.read(None, None).unwrap();
    assert_eq!(found[0], (0, 14, u64::MAX, 1));
}

#[test]
fn a_thread_for_all_vcpus_is_told_apart() {
    for (name, shared) in [("ALL CPUs/TCG", true), ("CPU 0/TCG", false)] {
        let mut fake = Fake::new(9);
        fake.set(8, name, "1 2 3\n");
        let expected = Expected::default();
        let read = fake
            .threads
            .read(fake.proc.path(), 7, expected, &mut fake.room, || true);
        let read = read.unwrap();
        assert_eq!((read.shared, read.times.list[0].number), (shared, 0));
    }
}

#[test]
fn threads_are_searched_for_only_when_they_may_have_changed() {
    let mut fake = Fake::new(9);
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    let one = Some(vec![(0, 10, 1, 2)]);
    assert_eq!(fake.read(Some(1), None), one);
    // No search happens: it would not find the thread any more.
    fake.hide(10);
    fake.set(20, "worker", "1 2 3\n");
    assert_eq!(fake.read(Some(1), Some(1)), one);
    assert_eq!(
        fake.read(Some(1), Some(9)),
        one,
        "as many groups as threads"
    );
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    // Added: one group more.
    fake.set(11, "CPU 1/KVM", "4 5 6\n");
    let two = Some(vec![(0, 10, 1, 2), (1, 11, 4, 5)]);
    assert_eq!(fake.read(Some(2), Some(1)), two);
    // Another one in the place of a removed one: as many groups.
    fake.end(11);
    fake.set(12, "CPU 2/KVM", "7 8 9\n");
    let other = Some(vec![(0, 10, 1, 2), (2, 12, 7, 8)]);
    assert_eq!(fake.read(Some(2), Some(2)), other);
    // A group that was left behind does not cause a search in each gather.
    fake.end(12);
    assert_eq!(fake.read(Some(2), Some(2)), one);
    assert_eq!(fake.read(Some(2), Some(1)), one);
    fake.hide(10);
    fake.end(20);
    assert_eq!(fake.read(Some(2), Some(1)), one);
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    // The removed one is back, in the group that was left behind.
    fake.set(13, "CPU 2/KVM", "7 8 9\n");
    let back = Some(vec![(0, 10, 1, 2), (2, 13, 7, 8)]);
    assert_eq!(fake.read(Some(2), Some(2)), back);
    assert_eq!(fake.room, 7);
}

#[test]
fn without_groups_threads_that_are_no_vcpus_cause_no_search() {
    for online in [None, Some(1)] {
        let mut fake = Fake::new(9);
        fake.set(10, "CPU 0/KVM", "1 2 3\n");
        let one = Some(vec![(0, 10, 1, 2)]);
        assert_eq!(fake.read(None, online), one);
        // A search would not find the thread any more.
        fake.hide(10);
        for id in 20..30 {
            fake.set(id, "worker", "1 2 3\n");
            assert_eq!(fake.read(None, online), one);
        }
        fake.end(25);
        assert_eq!(fake.read(None, online), one);
    }
}

#[test]
fn without_groups_the_number_that_libvirt_reports_tells() {
    let mut fake = Fake::new(9);
    assert_eq!(fake.read(None, None), None);
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    assert_eq!(fake.read(None, None), None, "nothing has changed");
    let one = Some(vec![(0, 10, 1, 2)]);
    assert_eq!(fake.read(None, Some(1)), one);
    fake.set(11, "CPU 1/KVM", "4 5 6\n");
    assert_eq!(fake.read(None, Some(1)), one);
    let two = Some(vec![(0, 10, 1, 2), (1, 11, 4, 5)]);
    assert_eq!(fake.read(None, Some(2)), two);
    fake.end(11);
    assert_eq!(fake.read(None, Some(2)), one, "a thread has ended");
    // Groups are there, but libvirt makes none for vCPUs that share a thread.
    assert_eq!(fake.read(Some(0), Some(2)), one);
    fake.hide(10);
    assert_eq!(fake.read(Some(0), Some(2)), one);
}

#[test]
fn as_long_as_the_number_differs_threads_are_searched_for_again_after_a_while() {
    let mut fake = Fake::new(9);
    assert_eq!(fake.read(None, Some(1)), None, "QEMU is just starting");
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    assert_eq!(fake.read(None, Some(1)), None);
    fake.let_search_again();
    let one = Some(vec![(0, 10, 1, 2)]);
    assert_eq!(fake.read(None, Some(1)), one);
    fake.hide(10);
    fake.let_search_again();
    assert_eq!(fake.read(None, Some(1)), one, "as many as expected");
    assert_eq!(fake.read(None, Some(2)), None);
}

#[test]
fn three_numbers_are_read_from_a_line() {
    for (line, expected) in [
        ("1 20 3\n", Some([1, 20, 3])),
        ("1 2 3", Some([1, 2, 3])),
        ("18446744073709551615 0 3 4\n", Some([u64::MAX, 0, 3])),
        ("1 2\n", None),
        ("1  2 3\n", None),
        ("1 -2 3\n", None),
        ("1 2x 3\n", None),
        ("1 2 ", None),
        ("", None),
    ] {
        assert_eq!(numbers(line.as_bytes()), expected, "{line}");
    }
}

#[test]
fn beyond_the_room_the_files_are_opened_for_each_read() {
    let mut fake = Fake::new(1);
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    fake.set(11, "CPU 1/KVM", "4 5 6\n");
    let two = Some(vec![(0, 10, 1, 2), (1, 11, 4, 5)]);
    for _ in 0..2 {
        assert_eq!(fake.read(Some(2), None), two);
        assert_eq!((fake.threads.files(), fake.room), (1, 0));
    }
    // There is more room now, and then less.
    fake.room = 5;
    assert_eq!(fake.read(Some(2), None), two);
    assert_eq!((fake.threads.files(), fake.room), (2, 4));
    assert_eq!(fake.threads.close_files(1), 1);
    fake.room = 0;
    assert_eq!(fake.read(Some(2), None), two);
    assert_eq!((fake.threads.files(), fake.room), (1, 0));
    fake.end(10);
    fake.end(11);
    assert_eq!(fake.read(Some(0), None), None);
    assert_eq!(fake.room, 1);
}

#[test]
fn nothing_is_known_of_a_process_that_has_ended_or_is_not_counted() {
    let mut fake = Fake::new(9);
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    fake.exists.set(false);
    assert_eq!(
        fake.read(Some(1), None),
        None,
        "the number may be another process's"
    );
    assert_eq!(fake.room, 9);
    fake.exists.set(true);
    fake.set(10, "CPU 0/KVM", "0 0 0\n");
    assert_eq!(fake.read(Some(1), None), None, "the kernel does not count");
    fake.set(10, "CPU 0/KVM", "1 2 3\n");
    assert!(fake.read(Some(1), None).is_some());
}
