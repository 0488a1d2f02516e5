//! Checks of the host against a real kernel. A FUSE mount whose server is stopped stands for a dead NFS,
//! and a process that waits for it for a stuck QEMU.
//!
//! Each test runs once more in namespaces of its own: mounts, servers and processes end with it.

mod processes;
use std::fs::{self, Permissions};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use crate::support::inside::{as_nobody, inside, is_nobody};
use crate::support::outage::Mount;
use crate::support::{children_of, wait_for};
use telegraf_kvm::host::{Mounts, Storage};

/// Ten times what a check may take, for this machine may be busy. A check that hangs takes for ever.
const AT_MOST: Duration = Duration::from_secs(2);
const SLOW: Duration = Duration::from_secs(20);
const STOPPED: &str = "TELEGRAF_KVM_STOPPED";

/// The storage of one path. Fails if the check takes too long.
fn storage(mounts: &mut Mounts, path: &Path) -> Storage {
    let start = Instant::now();
    let mut seen = mounts.check(&[path]);
    let took = start.elapsed();
    assert!(took < AT_MOST, "{path:?}: {took:?}");
    seen.remove(path).unwrap_or(Storage::Local)
}

fn late(mount: &Mount) -> Storage {
    Storage::Late(mount.point().into())
}

fn dead(mount: &Mount) -> Storage {
    Storage::Dead(mount.point().into())
}

fn becomes(mounts: &mut Mounts, path: &Path, expected: &Storage) {
    wait_for(&format!("{path:?} is {expected:?}"), SLOW, || {
        (storage(mounts, path) == *expected).then_some(())
    });
}

/// The mounts, with checkers of the program that lies in the test's folder.
fn mounts_of(folder: &Path) -> Mounts {
    Mounts::new(&folder.join("telegraf-kvm"))
}

/// The mount checkers of this process which have not ended. The path resolver is not counted.
fn checkers() -> Vec<u32> {
    let running = |pid: &u32| {
        let stat = fs::read_to_string(format!("/proc/{pid}/stat")).unwrap_or_default();
        stat.contains("(mount checker)") && !stat.contains(") Z ")
    };
    let children = children_of(std::process::id()).into_iter();
    children.filter(running).collect()
}

/// Monitors the calling thread. [`SleepMonitor::end`] fails if the thread was in uninterruptible sleep for 20
/// samples (0.1 s) in a row.
struct SleepMonitor {
    end: Arc<AtomicBool>,
    thread: Option<JoinHandle<u32>>,
}

impl SleepMonitor {
    fn new() -> Self {
        let me = fs::read_link("/proc/thread-self").unwrap();
        let stat = Path::new("/proc").join(me).join("stat");
        let end = Arc::new(AtomicBool::new(false));
        let flag = Arc::clone(&end);
        let monitor = move || {
            let (mut row, mut longest) = (0, 0);
            while !flag.load(Ordering::Relaxed) {
                let stat = fs::read_to_string(&stat).unwrap();
                let (_, fields) = stat.rsplit_once(')').unwrap();
                row = if fields.starts_with(" D") { row + 1 } else { 0 };
                longest = longest.max(row);
                thread::sleep(Duration::from_millis(5));
            }
            longest
        };
        let thread = Some(thread::spawn(monitor));
        Self { end, thread }
    }

    fn end(mut self) {
        self.end.store(true, Ordering::Relaxed);
        let longest = self.thread.take().unwrap().join().unwrap();
        assert!(
            longest < 20,
            "in uninterruptible sleep for {longest} samples"
        );
    }
}

#[test]
fn a_mount_whose_server_stops_is_dead_and_alive_again_once_it_goes_on() {
    let Some(folder) = inside("a_mount_whose_server_stops_is_dead_and_alive_again_once_it_goes_on")
    else {
        return;
    };
    let monitor = SleepMonitor::new();
    let (mount, other) = (
        Mount::new(&folder, "mount", &[]),
        Mount::new(&folder, "other", &[]),
    );
    let link = folder.join("link");
    symlink("mount/image", &link).unwrap();
    let mut mounts = mounts_of(&folder);
    for ago in [200, 3000] {
        for path in [mount.image(), link.clone(), other.image()] {
            becomes(&mut mounts, &path, &Storage::Alive);
        }
        mount.stop(Duration::from_millis(ago));
        // One unanswered check may be this host's fault.
        assert_eq!(storage(&mut mounts, &mount.image()), late(&mount));
        // The checker hangs. It is not waited for again, and other mounts are not affected.
        let paths = [
            mount.image(),
            link.clone(),
            folder.join("mount.behind/image"),
        ];
        let start = Instant::now();
        for _ in 0..20 {
            let seen = mounts.check(&paths);
            let [image, link, behind] = paths.each_ref().map(|path| seen.get(path).cloned());
            assert_eq!([image, link], [Some(dead(&mount)), Some(dead(&mount))]);
            assert_eq!(behind, None, "it is local");
        }
        let took = start.elapsed();
        assert!(took < Duration::from_secs(1), "20 checks: {took:?}");
        becomes(&mut mounts, &other.image(), &Storage::Alive);
        assert_eq!(storage(&mut mounts, &mount.image()), dead(&mount));
        // After a restart.
        let mut fresh = mounts_of(&folder);
        becomes(&mut fresh, &link, &late(&mount));
        assert_eq!(
            storage(&mut fresh, &mount.point().join("never/seen")),
            dead(&mount)
        );
        // It answers an earlier request only: an outdated answer does not count.
        mount.go_on();
        thread::sleep(Duration::from_millis(300));
        mount.stop(Duration::from_millis(200));
        assert_eq!(storage(&mut mounts, &mount.image()), dead(&mount));
        assert_eq!(checkers().len(), 2, "one for each Mounts");
        mount.go_on();
        for mounts in [&mut mounts, &mut fresh] {
            becomes(mounts, &mount.image(), &Storage::Alive);
            becomes(mounts, &link, &Storage::Alive);
        }
    }
    monitor.end();
}

#[test]
fn a_mount_whose_server_is_killed_is_dead_while_a_vm_has_it_and_no_checker_stays() {
    let Some(folder) =
        inside("a_mount_whose_server_is_killed_is_dead_while_a_vm_has_it_and_no_checker_stays")
    else {
        return;
    };
    let mut mounts = mounts_of(&folder);
    let mut mount = Mount::new(&folder, "mount", &[]);
    let (image, late, dead) = (mount.image(), late(&mount), dead(&mount));
    becomes(&mut mounts, &image, &Storage::Alive);
    assert_eq!(checkers().len(), 1);
    // Once while a checker hangs, and once while none does.
    for hanging in [true, false] {
        if hanging {
            mount.stop(Duration::from_millis(200));
            assert_eq!(storage(&mut mounts, &image), late);
        }
        mount.kill();
        assert_eq!(storage(&mut mounts, &image), dead);
        drop(mount);
        // It was unmounted, but a QEMU that has the file open still has it.
        assert_eq!(storage(&mut mounts, &image), dead);
        assert!(
            mounts.check::<&Path>(&[]).is_empty(),
            "no VM has it any more"
        );
        let root = Storage::Unknown("/".into());
        assert!([root, Storage::Local].contains(&storage(&mut mounts, &image)));
        assert!(mounts.check::<&Path>(&[]).is_empty());
        mount = Mount::new(&folder, "mount", &[]);
        becomes(&mut mounts, &image, &Storage::Alive);
    }
    // A hanging checker which is not needed any more is used again if it is needed before it ends.
    mount.stop(Duration::from_millis(200));
    assert_eq!(storage(&mut mounts, &image), late);
    for _ in 0..3 {
        assert!(mounts.check::<&Path>(&[]).is_empty());
        becomes(&mut mounts, &image, &dead);
    }
    assert_eq!(checkers().len(), 1);
    drop(mount);
    wait_for("no checker is left", SLOW, || {
        assert!(mounts.check::<&Path>(&[]).is_empty());
        checkers().is_empty().then_some(())
    });
}

/// Waits until the only checker has answered, which shows by the bytes in its pipe.
fn answered() {
    let checker = wait_for("the checker", SLOW, || checkers().pop());
    let pipe = fs::File::open(format!("/proc/{checker}/fd/1")).unwrap();
    wait_for("the checker's answer", SLOW, || {
        let waiting = rustix::io::ioctl_fionread(&pipe).unwrap();
        (waiting > 0).then_some(())
    });
}

/// Its answer comes after the check, but before the next one. Disks are then read one by one, and there
/// is nothing to warn of.
#[test]
fn a_mount_that_answers_between_two_checks_is_late_and_never_dead() {
    let Some(folder) = inside("a_mount_that_answers_between_two_checks_is_late_and_never_dead")
    else {
        return;
    };
    let mount = Mount::new(&folder, "mount", &[]);
    let mut mounts = mounts_of(&folder);
    // At the first check nothing is known about it, not even that the path crosses it.
    for known in [false, true] {
        if known {
            becomes(&mut mounts, &mount.image(), &Storage::Alive);
        }
        for _ in 0..5 {
            mount.stop(Duration::from_millis(200));
            // On a busy machine the first walk may not have reached the mount yet.
            becomes(&mut mounts, &mount.image(), &late(&mount));
            mount.go_on();
            answered();
        }
    }
    mount.stop(Duration::from_millis(200));
    assert_eq!(storage(&mut mounts, &mount.image()), late(&mount));
    assert_eq!(storage(&mut mounts, &mount.image()), dead(&mount));
    mount.go_on();
}

/// The disk of a local file system may be dead, so no thread of this program accesses it, not even to
/// follow a path. A path that was resolved is not followed again.
#[test]
fn a_local_file_system_that_hangs_holds_no_thread_of_ours() {
    let Some(folder) = inside("a_local_file_system_that_hangs_holds_no_thread_of_ours") else {
        return;
    };
    let (disk, other) = (
        Mount::new(&folder, "disk", &[]),
        Mount::new(&folder, "other", &[]),
    );
    let table = folder.join("mountinfo");
    let mut text = "1 0 8:1 / / rw - ext4 /dev/sda1 rw\n".to_owned();
    for (number, mount) in [(2, &disk), (3, &other)] {
        let point = mount.point().display();
        text += &format!("{number} 1 8:{number} / {point} rw - xfs /dev/sdb{number} rw\n");
    }
    fs::write(&table, text).unwrap();
    // In a thread of its own, for it hangs if the test fails.
    let (tell, told) = std::sync::mpsc::channel();
    let program = folder.join("telegraf-kvm");
    let paths = [disk.image(), other.image()];
    let (dead_one, well_one) = (disk.image(), other.image());
    disk.stop(Duration::from_millis(200));
    thread::spawn(move || {
        let mut mounts = Mounts::at(&table, &program);
        loop {
            let start = Instant::now();
            let seen = mounts.check(&paths);
            if tell.send((seen, start.elapsed())).is_err() {
                return;
            }
        }
    });
    let dead = Storage::Dead(disk.point().into());
    // On a busy machine the first walk may not have reached the disk yet.
    let mut last = None;
    wait_for("the dead disk alone is dead", SLOW, || {
        let (mut seen, took) = told.recv_timeout(SLOW).expect("a check");
        assert!(took < AT_MOST, "{took:?}");
        let state = seen.remove(&dead_one).expect("not local");
        assert!(
            matches!(state, Storage::Unknown(_)) || state == dead,
            "{state:?}"
        );
        if state == dead {
            assert_ne!(last, None, "dead at the first check");
        }
        last = Some(state.clone());
        (state == dead && !seen.contains_key(&well_one)).then_some(())
    });
    disk.go_on();
    wait_for("both are local", SLOW, || {
        let (seen, _) = told.recv_timeout(SLOW).expect("a check");
        seen.is_empty().then_some(())
    });
    // The paths are resolved, so no component is looked up any more.
    disk.stop(Duration::from_millis(1500));
    while told.try_recv().is_ok() {}
    for _ in 0..20 {
        let (seen, _) = told.recv_timeout(SLOW).expect("a check");
        assert!(seen.is_empty(), "{seen:?}");
    }
    disk.go_on();
}

#[test]
fn links_inside_a_mount_lead_to_another_that_counts_as_well() {
    let Some(folder) = inside("links_inside_a_mount_lead_to_another_that_counts_as_well") else {
        return;
    };
    let (near, far) = (
        Mount::new(&folder, "near", &[]),
        Mount::new(&folder, "far", &[]),
    );
    let link = near.point().join("link");
    symlink(far.image(), folder.join("near.behind/link")).unwrap();
    let mut mounts = mounts_of(&folder);
    becomes(&mut mounts, &link, &Storage::Alive);
    far.stop(Duration::from_millis(200));
    // On a busy machine the first mount may answer too late as well, but never do both answer.
    assert_ne!(storage(&mut mounts, &link), Storage::Alive);
    becomes(&mut mounts, &link, &dead(&far));
    becomes(&mut mounts_of(&folder), &link, &dead(&far));
    becomes(&mut mounts, &near.image(), &Storage::Alive);
    far.go_on();
    becomes(&mut mounts, &link, &Storage::Alive);
    near.stop(Duration::from_millis(200));
    assert_eq!(storage(&mut mounts, &link), late(&near));
    becomes(&mut mounts_of(&folder), &link, &late(&near));
    becomes(&mut mounts, &link, &dead(&near));
}

#[test]
fn a_mount_that_a_user_may_not_access_is_unknown_to_that_user_dead_or_not() {
    let name = "a_mount_that_a_user_may_not_access_is_unknown_to_that_user_dead_or_not";
    let Some(folder) = inside(name) else {
        return;
    };
    let (closed, open) = (folder.join("closed"), folder.join("open"));
    if is_nobody() {
        let closed = closed.join("mount");
        let own = folder.join("own");
        // Links to all of them are followed without accessing the mounts.
        for (target, link) in [("closed/mount", "to-closed"), ("own", "to-own")] {
            let unknown = Storage::Unknown(folder.join(target));
            becomes(
                &mut mounts_of(&folder),
                &folder.join(link).join("image"),
                &unknown,
            );
        }
        for mount in [&closed, &own] {
            let mut mounts = mounts_of(&folder);
            let unknown = Storage::Unknown(mount.clone());
            becomes(&mut mounts, &mount.join("image"), &unknown);
            becomes(&mut mounts, mount, &unknown);
        }
        let below = folder.join("closed/mount.behind/image");
        let seen = storage(&mut mounts_of(&folder), &below);
        assert!(matches!(seen, Storage::Unknown(_)), "{seen:?}");
        let open = open.join("mount");
        let stopped = std::env::var(STOPPED).unwrap() == "yes";
        let expected = if stopped {
            Storage::Dead(open.clone())
        } else {
            Storage::Alive
        };
        becomes(&mut mounts_of(&folder), &open.join("image"), &expected);
        return;
    }
    fs::create_dir(&closed).unwrap();
    let mounts = [
        Mount::new(&closed, "mount", &[]),
        Mount::new(&open, "mount", &[]),
        // FUSE serves only the owner of the mount. Other users get an empty answer.
        Mount::new(&folder, "own", &["--no-allow-other"]),
    ];
    fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    symlink("closed/mount", folder.join("to-closed")).unwrap();
    symlink("own", folder.join("to-own")).unwrap();
    as_nobody(name, (STOPPED, "no"));
    for mount in &mounts {
        mount.stop(Duration::from_millis(200));
    }
    as_nobody(name, (STOPPED, "yes"));
}
