use std::fmt::Write as _;
use std::fs;
use std::io::{self, BufRead as _, Write as _};
use std::os::unix::fs::symlink;
use std::time::Duration;

use tempfile::TempDir;

use super::checker::Checker;
use super::path_cache::RESOLVED_TTL;
use super::*;
use crate::times::MOUNT_ANSWERS;

/// A folder with a mountinfo file that declares its subfolders to be mounts.
struct FakeMounts {
    folder: TempDir,
    table: PathBuf,
}

impl FakeMounts {
    /// `mounts` are names of subfolders and types of file systems.
    fn new(mounts: &[(&str, &str)]) -> Self {
        let folder = TempDir::new().unwrap();
        let table = folder.path().join("mountinfo");
        let fake = Self { folder, table };
        for (name, _) in mounts {
            fs::create_dir_all(fake.path(name)).unwrap();
        }
        fake.mount(mounts);
        fake
    }

    fn mount(&self, mounts: &[(&str, &str)]) {
        let mut text = "1 0 8:1 / / rw - ext4 /dev/sda rw\n".to_owned();
        for (number, (name, kind)) in mounts.iter().enumerate() {
            let point = self.path(name);
            let (id, point) = (number + 2, point.display());
            writeln!(text, "{id} 1 0:{id} / {point} rw - {kind} x rw").unwrap();
        }
        fs::write(&self.table, text).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        // The path of the temporary folder may contain links.
        self.folder.path().canonicalize().unwrap().join(name)
    }

    fn file(&self, name: &str) -> PathBuf {
        let path = self.path(name);
        fs::write(&path, "").unwrap();
        path
    }

    fn link(&self, name: &str, target: impl AsRef<Path>) -> PathBuf {
        let path = self.path(name);
        symlink(target, &path).unwrap();
        path
    }
}

/// The mounts in this mountinfo file, with threads in place of checker processes.
fn at(mountinfo: &Path) -> Mounts {
    let mut mounts = Mounts::at(mountinfo, Path::new("/nonexistent"));
    mounts.launch = Launch::Thread;
    mounts
}

/// The storage of one path. Waits for a result other than unknown, for on a busy machine a walk may take
/// several checks.
fn storage(mounts: &mut Mounts, path: &Path) -> Storage {
    let start = Instant::now();
    loop {
        let found = mounts.check(&[path]).remove(path);
        let found = found.unwrap_or(Storage::Local);
        let enough = match found {
            Storage::Local | Storage::Alive => 0,
            Storage::Unknown(_) => 500,
            // On a busy machine a checker may answer too late.
            Storage::Late(_) | Storage::Dead(_) => 20_000,
        };
        if start.elapsed() >= Duration::from_millis(enough) {
            return found;
        }
    }
}

#[test]
fn local_files_and_network_disks_need_no_checker() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    let paths = ["", "pool/image", "nbd://host/x"].map(PathBuf::from);
    let link = fake.link("link", "file");
    let paths = [&paths[..], &[fake.file("file"), link]].concat();
    let start = Instant::now();
    while !mounts.check(&paths).is_empty() {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
    assert!(mounts.checkers.states.is_empty());
}

#[test]
fn links_are_followed_from_and_onto_remote_mounts() {
    let fake = FakeMounts::new(&[("a", "nfs4"), ("b", "fuse.sshfs"), ("c", "cifs")]);
    let mut mounts = at(&fake.table);
    let (home, on_a) = (fake.file("home"), fake.file("a/file"));
    fake.link("out", "./a/../a");
    let chain = [
        (on_a.clone(), Storage::Alive, 1),
        (fake.path("out/file"), Storage::Alive, 1),
        (fake.link("a/home", &home), Storage::Alive, 1),
        (fake.link("a/to-b", "../b/to-c"), Storage::Alive, 3),
        (fake.link("b/to-c", fake.path("c/back")), Storage::Alive, 3),
        (fake.link("c/back", &on_a), Storage::Alive, 2),
        (home, Storage::Local, 0),
    ];
    for (path, expected, mounts_crossed) in chain {
        assert_eq!(storage(&mut mounts, &path), expected, "{path:?}");
        assert_eq!(mounts.checkers.states.len(), mounts_crossed, "{path:?}");
    }
}

#[test]
fn missing_files_and_circular_links_are_unknown() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    let root = Storage::Unknown("/".into());
    assert_eq!(storage(&mut mounts, &fake.path("none")), root);
    assert_eq!(storage(&mut mounts, &fake.link("loop", "loop")), root);
    let nfs = Storage::Unknown(fake.path("nfs"));
    assert_eq!(storage(&mut mounts, &fake.path("nfs/none")), nfs);
    assert_eq!(storage(&mut mounts, &fake.link("nfs/l", "l")), nfs);
    let mut nothing = at(Path::new("/nonexistent"));
    assert_eq!(storage(&mut nothing, &fake.file("file")), root);
}

#[test]
fn an_automount_is_never_accessed() {
    let fake = FakeMounts::new(&[("net", "autofs"), ("net/host", "nfs")]);
    let mut mounts = at(&fake.table);
    // The table says that `host` lies on the root, where `net` hides it: it is not mounted yet.
    fake.file("file");
    let trap = fake.link("net/trap", "../file");
    let net = Storage::Unknown(fake.path("net"));
    assert_eq!(storage(&mut mounts, &trap), net);
    assert_eq!(storage(&mut mounts, &fake.file("net/host/x")), net);
    // Now it is mounted.
    let text = fs::read_to_string(&fake.table).unwrap();
    fs::write(&fake.table, text.replace("\n3 1", "\n3 2")).unwrap();
    let found = storage(&mut mounts, &fake.path("net/host/x"));
    assert_eq!(found, Storage::Alive);
}

#[test]
fn a_path_stays_resolved_until_the_mounts_change_or_it_is_not_wanted() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    fake.file("nfs/file");
    let link = fake.link("link", "nfs/file");
    assert_eq!(storage(&mut mounts, &link), Storage::Alive);
    fs::remove_file(&link).unwrap();
    fake.file("link");
    assert_eq!(storage(&mut mounts, &link), Storage::Alive);
    fake.mount(&[("nfs", "nfs4"), ("new", "tmpfs")]);
    assert_eq!(storage(&mut mounts, &link), Storage::Local);
    assert!(mounts.checkers.states.is_empty());

    fs::remove_file(&link).unwrap();
    fake.link("link", "nfs/file");
    assert_eq!(storage(&mut mounts, &link), Storage::Local);
    assert!(mounts.check::<&Path>(&[]).is_empty());
    assert_eq!(storage(&mut mounts, &link), Storage::Alive);
}

#[test]
fn a_path_is_resolved_again_after_a_minute() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    fake.file("nfs/file");
    let link = fake.link("nfs/link", "file");
    assert_eq!(storage(&mut mounts, &link), Storage::Alive);
    fs::remove_file(&link).unwrap();
    assert_eq!(storage(&mut mounts, &link), Storage::Alive);
    let (_, followed) = mounts.paths.resolved.get_mut(link.as_os_str()).unwrap();
    *followed -= RESOLVED_TTL;
    let unknown = Storage::Unknown(fake.path("nfs"));
    let start = Instant::now();
    // Until the walk has ended the earlier result holds.
    while mounts.check(&[&link]).get(&link) != Some(&unknown) {
        assert!(start.elapsed() < Duration::from_secs(20));
    }
}

/// A disk may answer late or never. Then only what waits for it is unknown.
#[test]
fn a_local_mount_that_does_not_answer_is_dead_until_it_does() {
    let fake = FakeMounts::new(&[("disk", "xfs")]);
    let mut mounts = at(&fake.table);
    let (home, image) = (fake.file("home"), fake.file("disk/image"));
    let disk = fake.path("disk");
    let use_pipes = |mounts: &mut Mounts| {
        let (checker, requests, results) = Checker::with_pipes();
        mounts.resolver.use_checker(checker);
        (requests, results)
    };
    let (requests, mut results) = use_pipes(&mut mounts);
    let mut answering = results.try_clone().unwrap();
    std::thread::spawn(move || {
        for request in io::BufReader::new(requests).split(0).map_while(Result::ok) {
            if !request.ends_with(b"disk/image") {
                answering.write_all(b"A\0").unwrap();
            }
        }
    });
    let check = |mounts: &mut Mounts| mounts.check(&[&home, &image]);
    let found = check(&mut mounts);
    let unknown = Storage::Unknown(disk.clone());
    assert_eq!(
        (found.get(&image), found.get(&home)),
        (Some(&unknown), None)
    );
    for _ in 0..3 {
        // A new process resolves the paths that do not lie there.
        assert_eq!(storage(&mut mounts, &home), Storage::Local);
        let found = check(&mut mounts);
        assert_eq!(found.get(&image), Some(&Storage::Dead(disk.clone())));
        assert_eq!(found.get(&home), None);
    }
    results.write_all(b"A\0").unwrap();
    assert_eq!(storage(&mut mounts, &image), Storage::Local);
    assert_eq!(storage(&mut mounts, &home), Storage::Local);
    // A slow disk: an answer between two checks is an answer.
    assert!(mounts.check::<&Path>(&[]).is_empty());
    let (_requests, mut results) = use_pipes(&mut mounts);
    for _ in 0..3 {
        let found = mounts.check(&[&image]);
        assert_eq!(found.get(&image), Some(&Storage::Unknown("/".into())));
        results.write_all(b"A\0").unwrap();
    }
}

/// On a busy host the path resolver gets a CPU late.
#[test]
fn the_first_answer_of_a_local_file_system_may_come_late() {
    let fake = FakeMounts::new(&[("disk", "xfs")]);
    let image = fake.file("disk/image");
    // This machine may be busy, too.
    let known_at_once = || {
        let mut mounts = at(&fake.table);
        let (checker, requests, mut results) = Checker::with_pipes();
        mounts.resolver.use_checker(checker);
        std::thread::spawn(move || {
            std::thread::sleep(MOUNT_ANSWERS + Duration::from_millis(50));
            for _ in io::BufReader::new(requests).split(0) {
                if results.write_all(b"A\0").is_err() {
                    return;
                }
            }
        });
        mounts.check(&[&image]).is_empty()
    };
    assert!((0..20).any(|_| known_at_once()));
}

#[test]
fn the_checker_of_an_unmounted_mount_is_closed() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    let file = fake.file("nfs/file");
    assert_eq!(storage(&mut mounts, &file), Storage::Alive);
    let before = mounts.checkers.states[&2].checker.mount.clone();
    // Another file system under the same number needs another checker.
    fake.mount(&[("nfs", "nfs")]);
    let text = fs::read_to_string(&fake.table).unwrap();
    fs::write(&fake.table, text.replace("0:2", "0:9")).unwrap();
    let other = fake.file("nfs/other");
    assert_eq!(storage(&mut mounts, &other), Storage::Alive);
    assert_ne!(mounts.checkers.states[&2].checker.mount, before);
    fake.mount(&[]);
    mounts.check(&[] as &[&Path]);
    assert_eq!(storage(&mut mounts, &other), Storage::Local);
    assert!(mounts.checkers.states.is_empty());
}

/// A QEMU that has a file open has the one on the unmounted file system, whatever is mounted there now.
#[test]
fn a_file_on_an_unmounted_mount_is_not_taken_for_one_on_another() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let mut mounts = at(&fake.table);
    let file = fake.file("nfs/file");
    assert_eq!(storage(&mut mounts, &file), Storage::Alive);
    // Unmounted, and another one mounted in its place.
    for there in [&[][..], &[("nfs", "cifs")]] {
        fake.mount(there);
        let text = fs::read_to_string(&fake.table).unwrap();
        fs::write(&fake.table, text.replace("0:2", "0:9")).unwrap();
        for _ in 0..2 {
            let found = mounts.check(&[&file]).remove(&file);
            assert_eq!(found, Some(Storage::Unknown(fake.path("nfs"))));
        }
    }
    // No VM has it any more. One that is started now has the file on the new mount.
    mounts.check(&[] as &[&Path]);
    assert_eq!(storage(&mut mounts, &file), Storage::Alive);
    // The same file system is mounted again, with the files that QEMU processes have open.
    fake.mount(&[]);
    assert_eq!(
        mounts.check(&[&file]).remove(&file),
        Some(Storage::Unknown(fake.path("nfs")))
    );
    let text = "1 0 8:1 / / rw - ext4 /dev/sda rw\n";
    let again = format!(
        "{text}7 1 0:9 / {} rw - cifs x rw\n",
        fake.path("nfs").display()
    );
    fs::write(&fake.table, again).unwrap();
    assert_eq!(storage(&mut mounts, &file), Storage::Alive);
}

#[test]
fn without_a_checker_the_storage_is_unknown() {
    let fake = FakeMounts::new(&[("nfs", "nfs4")]);
    let file = fake.file("nfs/file");
    // A missing program, one that ends at once, and one whose output is not valid.
    let text = fs::read_to_string(&fake.table).unwrap();
    fs::write(&fake.table, text.replace("ext4", "tmpfs")).unwrap();
    for program in ["/nonexistent", "/bin/true", "/bin/echo"] {
        let mut mounts = Mounts::at(&fake.table, Path::new(program));
        for _ in 0..3 {
            let found = mounts.check(&[&file]).remove(&file).unwrap();
            let nfs = fake.path("nfs");
            // On a busy machine the program may not have ended yet.
            let unknown = [Storage::Unknown(nfs.clone()), Storage::Late(nfs)];
            assert!(unknown.contains(&found), "{program}: {found:?}");
            let start = Instant::now();
            while mounts
                .checkers
                .states
                .values_mut()
                .any(|state| state.is_busy())
            {
                assert!(start.elapsed() < Duration::from_secs(20));
                mounts
                    .checkers
                    .states
                    .values_mut()
                    .for_each(|state| drop(state.receive()));
            }
        }
        mounts.launch = Launch::Thread;
        assert_eq!(storage(&mut mounts, &file), Storage::Alive, "{program}");
    }
}
