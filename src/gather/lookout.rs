//! The lookout: what the host says of the VMs before libvirt is asked, in a thread of its own, for
//! reading a process's command line can hang.

use std::collections::{BTreeMap, BTreeSet};
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};
use std::thread;

use uuid::Uuid;

use super::engine::Look;
use crate::config::BlockStatistics;
use crate::host::cgroups::{Cgroups, Usage};
use crate::host::{Mounts, Processes, Storage, Taps};
use crate::inventory::Described;
use crate::libvirt::bulk::Groups;
use crate::maps::{HashMap, HashSet};

/// Whom to look at.
#[derive(Debug, Default)]
pub struct Question {
    /// Comes back with the answer.
    pub number: u64,
    /// Each VM, and what is known of where its disks lie.
    pub vms: Vec<(Uuid, Option<Arc<Described>>)>,
    /// Whether the network interfaces' counters are wanted,
    pub taps: bool,
    /// and the VMs' CPU time.
    pub cpus: bool,
}

/// What was seen.
#[derive(Debug, Clone, Default)]
pub struct Seen {
    /// The question's number.
    pub number: u64,
    /// What it means for the gather.
    pub look: Look,
    /// VMs with a disk on a mount that does not answer, or has not in time.
    pub silent: HashSet<Uuid>,
    /// VMs whose QEMU is in sight, and of which it is not known where all their files lie, or whether
    /// that answers.
    pub unknown: HashSet<Uuid>,
    /// VMs whose disks all lie on file systems of this kernel's own.
    pub local: HashSet<Uuid>,
    /// Mounts that have not answered since an earlier look, and the VMs with a disk there.
    pub dead: BTreeMap<PathBuf, BTreeSet<Uuid>>,
    /// What the network interfaces have counted.
    pub taps: Option<Taps>,
    /// The VMs whose QEMU is in that network.
    pub near: HashSet<Uuid>,
    /// What the VMs' control groups say.
    pub cpus: HashMap<Uuid, Usage>,
}

/// From this version of libvirt on, virDomainBlockStats makes QEMU look at every file of the VM, as the
/// block group always did: query-named-block-nodes after query-blockstats (12.8 was seen to, 11.3 not
/// to; what lies between was not tried).
const TOUCHES: u64 = 11_004_000;

/// The way to the lookout's thread, and what it saw last.
#[derive(Debug)]
pub struct Lookout {
    ask: Option<Sender<Question>>,
    number: u64,
    waiting: bool,
    last: Seen,
    block_statistics: BlockStatistics,
    /// libvirt makes QEMU look at a VM's files also when it is asked for one disk.
    touches: bool,
    /// What is read each time.
    taps: bool,
    cpus: bool,
}

impl Lookout {
    /// Nothing asked yet; without a thread to ask, nothing is ever seen. `groups` are those that
    /// libvirt would be asked for.
    pub fn new(
        ask: Option<Sender<Question>>,
        block_statistics: BlockStatistics,
        groups: Groups,
    ) -> Self {
        Self {
            taps: groups.has(Groups::NET),
            cpus: groups.has(Groups::CPU),
            ask,
            number: 0,
            waiting: false,
            last: Seen::default(),
            touches: false,
            block_statistics,
        }
    }

    /// Puts the question; `false` when nobody is there to answer it now.
    pub fn ask(&mut self, vms: Vec<(Uuid, Option<Arc<Described>>)>) -> bool {
        // Should this look be late, the last one does not hold for a VM of which an event told since.
        for (uuid, _) in vms.iter().filter(|(_, known)| known.is_none()) {
            self.last.local.remove(uuid);
        }
        let Some(ask) = self.ask.as_ref().filter(|_| !self.waiting) else {
            return false;
        };
        self.number += 1;
        let number = self.number;
        let question = Question {
            number,
            vms,
            taps: self.taps,
            cpus: self.cpus,
        };
        self.waiting = ask.send(question).is_ok();
        self.waiting
    }

    /// Takes an answer; `false` for one to an older question.
    pub fn take(&mut self, seen: Seen) -> bool {
        self.waiting = false;
        let current = seen.number == self.number;
        self.last = seen;
        current
    }

    /// The daemon's version of libvirt.
    pub fn talks_to(&mut self, version: u64) {
        self.touches = version >= TOUCHES;
    }

    /// What was seen, and what the configuration makes of it.
    pub fn verdict(&self, domains: &[Uuid]) -> Look {
        let mut look = self.last.look.clone();
        match self.block_statistics {
            BlockStatistics::Auto => {}
            BlockStatistics::Bulk => look.no_block.clear(),
            BlockStatistics::PerDisk => look.no_block.extend(domains),
        }
        if self.leaves_out_disks() {
            look.no_disks = &self.last.silent | &self.last.unknown;
        }
        look
    }

    /// VMs whose disks are left out, for it is not known where all their files lie.
    pub fn left_out(&self) -> impl Iterator<Item = Uuid> {
        let unknown = self.last.unknown.iter().copied();
        unknown.filter(|_| self.leaves_out_disks())
    }

    /// Whether disks on a mount that does not answer are not even read one by one.
    pub fn leaves_out_disks(&self) -> bool {
        self.touches && self.block_statistics != BlockStatistics::Bulk
    }

    /// What to take for granted as long as an answer is out: a look is late when things hang, so
    /// only disks that lay on this host's own file systems are asked for in bulk. Where no answer
    /// will ever come, for the hypervisor is another host, there is nothing to wait for either.
    pub fn presumed(&self, domains: &[Uuid]) -> Look {
        let remote = self.ask.is_none();
        let doubtful = |uuid: &&Uuid| match self.block_statistics {
            BlockStatistics::Auto => !remote && !self.last.local.contains(*uuid),
            BlockStatistics::Bulk => false,
            BlockStatistics::PerDisk => true,
        };
        Look {
            stuck: self.last.look.stuck.clone(),
            no_block: domains.iter().filter(doubtful).copied().collect(),
            no_disks: if self.leaves_out_disks() {
                &self.last.silent | &self.last.unknown
            } else {
                HashSet::default()
            },
        }
    }

    /// Mounts that do not answer, and the VMs with a disk there.
    pub fn dead(&self) -> &BTreeMap<PathBuf, BTreeSet<Uuid>> {
        &self.last.dead
    }
}

/// Starts the lookout; its answers go to `tell`.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(tell: impl Fn(Seen) + Send + 'static) -> io::Result<Sender<Question>> {
    let (ask, questions) = channel::<Question>();
    let look = move || {
        let mut processes = Processes::new();
        // Also after an upgrade has put another program in this one's place.
        let mut mounts = Mounts::new(Path::new("/proc/self/exe"));
        let mut cgroups = Cgroups::default();
        while let Ok(question) = questions.recv() {
            let mut seen = see(&mut processes, &mut mounts, &question);
            // Last, so that what libvirt says is the younger.
            if question.taps {
                seen.taps = Taps::read(Path::new("/proc")).ok();
                seen.near = processes.near();
            }
            if question.cpus {
                seen.cpus = cgroups.read(&processes.only());
            }
            tell(seen);
        }
    };
    let thread = thread::Builder::new().name("lookout".into());
    thread.spawn(look)?;
    Ok(ask)
}

/// The files that a VM's QEMU looks at when it is asked for block statistics.
struct Files<'t> {
    vm: Uuid,
    paths: Vec<&'t Path>,
    /// Whether the paths are surely all, and QEMU waits for nothing else.
    complete: bool,
    /// There may be other files.
    unresolved: bool,
}

fn files<'t>(
    processes: &'t Processes,
    (vm, known): &'t (Uuid, Option<Arc<Described>>),
) -> Files<'t> {
    let mut files = Files {
        vm: *vm,
        paths: Vec::new(),
        complete: false,
        unresolved: known.is_none(),
    };
    if let Some(known) = known {
        files.unresolved = known.unresolved;
        files.paths.extend(known.paths());
        for number in known.volumes() {
            match processes.node(*vm, *number) {
                Some(path) => files.paths.push(path),
                // Plugged in later, or a driver of QEMU's own.
                None => files.unresolved = true,
            }
        }
        let description = known.description.as_ref();
        let waits = description.is_some_and(|known| known.waits_for_server);
        files.complete = !files.unresolved && !waits;
    }
    files
}

fn see(processes: &mut Processes, mounts: &mut Mounts, question: &Question) -> Seen {
    let uuids: Vec<Uuid> = question.vms.iter().map(|(uuid, _)| *uuid).collect();
    let seen = processes.look(&uuids);
    let files: Vec<Files> = question.vms.iter().map(|vm| files(processes, vm)).collect();
    let paths: Vec<&Path> = files
        .iter()
        .flat_map(|files| &files.paths)
        .copied()
        .collect();
    let storage: HashMap<PathBuf, Storage> = mounts.look(&paths);
    let mut no_block = HashSet::default();
    let mut local = HashSet::default();
    let mut silent = HashSet::default();
    let mut unknown = HashSet::default();
    let mut dead: BTreeMap<PathBuf, BTreeSet<Uuid>> = BTreeMap::new();
    for files in &files {
        let uuid = files.vm;
        // Where our /proc does not show a VM's QEMU, our mounts need not be its mounts either.
        let out_of_sight =
            seen.unseen.contains(&uuid) && files.paths.iter().any(|path| path.is_absolute());
        if out_of_sight || !files.complete {
            no_block.insert(uuid);
        }
        // Of a QEMU out of sight nothing can be known, so there it is no reason to do without disks.
        let in_sight = !seen.unseen.contains(&uuid);
        if in_sight && files.unresolved {
            unknown.insert(uuid);
        }
        if files.complete && !files.paths.iter().any(|path| storage.contains_key(*path)) {
            local.insert(uuid);
        }
        if storage.is_empty() {
            continue;
        }
        for path in &files.paths {
            match storage.get(*path) {
                Some(Storage::Dead(mount)) => {
                    no_block.insert(uuid);
                    silent.insert(uuid);
                    dead.entry(mount.clone()).or_default().insert(uuid);
                }
                Some(Storage::Late(_)) => {
                    no_block.insert(uuid);
                    silent.insert(uuid);
                }
                Some(Storage::Unknown(_)) => {
                    no_block.insert(uuid);
                    if in_sight {
                        unknown.insert(uuid);
                    }
                }
                Some(Storage::Local | Storage::Alive) | None => {}
            }
        }
    }
    Seen {
        number: question.number,
        local: &local - &no_block,
        look: Look {
            stuck: seen.stuck,
            no_block,
            ..Look::default()
        },
        silent,
        unknown,
        dead,
        ..Seen::default()
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::time::Instant;

    use super::*;
    use crate::description::{Description, Disk, DiskKind};

    const A: Uuid = Uuid::from_u128(1);
    const B: Uuid = Uuid::from_u128(2);

    #[test]
    fn one_question_at_a_time() {
        let (ask, questions) = channel();
        let mut lookout = Lookout::new(Some(ask), BlockStatistics::Auto, Groups::NONE);
        assert!(lookout.ask(vec![(A, None)]));
        assert!(!lookout.ask(vec![(B, None)]), "it is still at the first");
        let first = questions.try_recv().unwrap();
        assert_eq!(first.vms, [(A, None)]);
        assert!(questions.try_recv().is_err());
        let seen = Seen {
            number: first.number,
            look: Look {
                stuck: [A].into_iter().collect(),
                no_block: HashSet::default(),
                ..Look::default()
            },
            ..Seen::default()
        };
        assert!(lookout.take(seen.clone()));
        assert_eq!(lookout.verdict(&[A, B]), seen.look);
        assert!(lookout.ask(vec![]));
        assert!(!lookout.take(seen), "an answer to the question before");
    }

    #[test]
    fn where_nobody_looks_nothing_is_waited_for() {
        let mut lookout = Lookout::new(None, BlockStatistics::Auto, Groups::NONE);
        assert!(!lookout.ask(vec![(A, None)]));
        let (ask, _) = channel();
        let mut lookout = Lookout::new(Some(ask), BlockStatistics::Auto, Groups::NONE);
        for _ in 0..2 {
            assert!(!lookout.ask(vec![(A, None)]), "its thread is gone");
        }
        assert_eq!(lookout.verdict(&[A]), Look::default());
    }

    #[test]
    fn the_configuration_forces_how_disks_are_read_but_not_who_is_stuck() {
        for (setting, no_block) in [
            (BlockStatistics::Auto, HashSet::from_iter([A])),
            (BlockStatistics::Bulk, HashSet::default()),
            (BlockStatistics::PerDisk, HashSet::from_iter([A, B])),
        ] {
            let mut lookout = Lookout::new(None, setting, Groups::NONE);
            lookout.take(Seen {
                look: Look {
                    stuck: [B].into_iter().collect(),
                    no_block: [A].into_iter().collect(),
                    ..Look::default()
                },
                ..Seen::default()
            });
            let expected = Look {
                stuck: [B].into_iter().collect(),
                no_block,
                ..Look::default()
            };
            assert_eq!(lookout.verdict(&[A, B]), expected, "{setting:?}");
        }
    }

    /// From 11.4 on asking for one disk makes QEMU look at all files.
    #[test]
    fn where_asking_for_a_disk_touches_it_those_on_silent_mounts_are_left_out() {
        let (ask, _questions) = channel();
        for (block_statistics, version, left_out) in [
            (BlockStatistics::Auto, 11_003_000, false),
            (BlockStatistics::Auto, 12_008_000, true),
            (BlockStatistics::PerDisk, 12_008_000, true),
            (BlockStatistics::Bulk, 12_008_000, false),
        ] {
            let mut lookout = Lookout::new(Some(ask.clone()), block_statistics, Groups::NONE);
            lookout.talks_to(version);
            lookout.take(Seen {
                silent: HashSet::from_iter([A]),
                ..Seen::default()
            });
            let expected = HashSet::from_iter(left_out.then_some(A));
            assert_eq!(lookout.verdict(&[A, B]).no_disks, expected);
            assert_eq!(lookout.presumed(&[A, B]).no_disks, expected);
        }
    }

    #[test]
    fn while_an_answer_is_out_only_local_disks_are_taken_for_granted() {
        let (ask, _questions) = channel();
        let look = |no_block: &[Uuid]| Look {
            stuck: HashSet::default(),
            no_block: no_block.iter().copied().collect(),
            no_disks: HashSet::default(),
        };
        for (block_statistics, first, later) in [
            (BlockStatistics::Auto, &[A, B][..], &[B][..]),
            (BlockStatistics::Bulk, &[], &[]),
            (BlockStatistics::PerDisk, &[A, B], &[A, B]),
        ] {
            let mut lookout = Lookout::new(Some(ask.clone()), block_statistics, Groups::NONE);
            assert_eq!(
                lookout.presumed(&[A, B]),
                look(first),
                "{block_statistics:?}"
            );
            lookout.take(Seen {
                local: HashSet::from_iter([A]),
                ..Seen::default()
            });
            assert_eq!(
                lookout.presumed(&[A, B]),
                look(later),
                "{block_statistics:?}"
            );
        }
        // Of another host nothing will ever be known.
        for (block_statistics, no_block) in [
            (BlockStatistics::Auto, &[][..]),
            (BlockStatistics::PerDisk, &[A][..]),
        ] {
            let lookout = Lookout::new(None, block_statistics, Groups::NONE);
            assert_eq!(lookout.presumed(&[A]), look(no_block));
        }
    }

    /// A folder as /proc, with the QEMU of `A` in it.
    fn proc_of_a(root: &Path) {
        let process = root.join("77");
        fs::create_dir_all(process.join("task/77")).unwrap();
        fs::write(process.join("cmdline"), format!("qemu\0-uuid\0{A}\0")).unwrap();
        let stat = format!("77 (qemu) S 1{}\n", " 0".repeat(48));
        fs::write(process.join("stat"), &stat).unwrap();
        fs::write(process.join("schedstat"), "1 1 1\n").unwrap();
    }

    #[test]
    fn a_vm_whose_process_is_out_of_sight_has_its_disks_out_of_sight_too() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proc");
        proc_of_a(&root);
        let table = folder.path().join("mountinfo");
        fs::write(&table, "1 0 0:1 / / rw - tmpfs x rw\n").unwrap();
        let image = folder.path().canonicalize().unwrap().join("image");
        fs::write(&image, "").unwrap();
        let mut processes = Processes::at(&root);
        let mut mounts = Mounts::at(&table, Path::new("/nonexistent"));
        let described = Arc::new(Described::new(
            Some(Description {
                disks: vec![Disk {
                    target: "vda".into(),
                    kind: DiskKind::Disk,
                    sources: vec![image.to_str().unwrap().to_owned()],
                    counted: true,
                }],
                ..Description::default()
            }),
            None,
            Instant::now(),
        ));
        let question = Question {
            number: 5,
            vms: vec![
                (A, Some(Arc::clone(&described))),
                (B, Some(described)),
                (Uuid::from_u128(3), None),
            ],
            ..Question::default()
        };
        let seen = see(&mut processes, &mut mounts, &question);
        assert_eq!(seen.number, 5);
        assert_eq!(seen.look.stuck, HashSet::default());
        assert_eq!(
            seen.look.no_block,
            HashSet::from_iter([B, Uuid::from_u128(3)])
        );
        assert_eq!(seen.dead, BTreeMap::new());
    }

    #[test]
    fn a_volume_is_known_by_its_qemus_command_line() {
        let folder = tempfile::tempdir().unwrap();
        let root = folder.path().join("proc");
        proc_of_a(&root);
        let table = folder.path().join("mountinfo");
        fs::write(&table, "1 0 0:1 / / rw - tmpfs x rw\n").unwrap();
        let image = folder.path().canonicalize().unwrap().join("image");
        let image = image.to_str().unwrap();
        fs::write(image, "").unwrap();
        let node = format!(r#"{{"filename":"{image}","node-name":"libvirt-7-storage"}}"#);
        let line = format!("qemu\0-uuid\0{A}\0-blockdev\0{node}\0");
        fs::write(root.join("77/cmdline"), line).unwrap();
        let mut processes = Processes::at(&root);
        let mut mounts = Mounts::at(&table, Path::new("/nonexistent"));
        let described = |volumes: &[u32], unresolved| {
            let description = Description {
                volumes: volumes.to_vec(),
                unresolved,
                ..Description::default()
            };
            Some(Arc::new(Described::new(
                Some(description),
                None,
                Instant::now(),
            )))
        };
        let unreadable = Some(Arc::new(Described::new(None, None, Instant::now())));
        for (known, asked) in [
            (described(&[], false), true),
            (described(&[7], false), true),
            (described(&[7], true), false),
            (described(&[7, 8], false), false),
            (unreadable, false),
            (None, false),
        ] {
            let question = Question {
                vms: vec![(A, known)],
                ..Question::default()
            };
            let seen = see(&mut processes, &mut mounts, &question);
            assert_eq!(seen.look.no_block.is_empty(), asked, "{question:?}");
        }
    }
}
