//! The storage of disk images: where each lies, and whether that answers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use self::checker::{Checker, Launch};
use self::path_walk::{PathWalk, WalkState};
use self::resolver::Resolver;
use self::state::{Health, MountState, wait_readable};
use self::table::{FileSystemKind, Mount, MountTable};
use crate::maps::{HashMap, HashSet};
use crate::threads::NotStarted;
use crate::times::{LOCAL_PATHS, MOUNT_ANSWERS};

mod checker;
pub mod checker_process;
mod path_walk;
mod resolver;
mod state;
mod table;
#[cfg(test)]
mod tests;

/// A link is followed anew after so long.
const RESOLVED_TTL: Duration = Duration::from_secs(60);

/// What the storage of one path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// A file system of this host's own, or no file at all (a network disk): asking is safe.
    Local,
    /// A mount that answered just now.
    Alive,
    /// The mount at this point did not answer in this look, but answers from one look to the next:
    /// this host is busy, the mount is slow, or it has just died.
    Late(PathBuf),
    /// The mount at this point says that it is dead, or has not answered from one look to the next.
    Dead(PathBuf),
    /// Nothing is known: the path is not in our sight, or goes by this mount point, of which we
    /// may not ask.
    Unknown(PathBuf),
}

/// The mounts that carry disks, and the way to each.
#[derive(Debug)]
pub struct Mounts {
    source: PathBuf,
    text: Vec<u8>,
    table: MountTable,
    launch: Launch,
    /// The remote mounts, by number.
    states: HashMap<u64, MountState>,
    /// Follows paths over local file systems.
    resolver: Resolver,
    /// Checkers that were closed and have not ended yet.
    closing: Vec<Child>,
    /// A checker that could not be started in the last look.
    pub not_started: Option<String>,
    /// The remote mounts on a path's way, and when it was followed.
    resolved: HashMap<OsString, (Vec<u64>, Instant)>,
    /// Paths whose mount went away (`umount -l`) while they were asked for: a QEMU that has the file
    /// open still has the one on that mount, whatever is mounted there now.
    unmounted: HashMap<OsString, Unmounted>,
    /// How far paths were followed whose next component lies on a remote mount, and when: what was
    /// looked up on the way there is not looked up again at each look while that mount is silent.
    unfinished: HashMap<OsString, (PathWalk, Instant)>,
}

/// A mount that went away below a path.
#[derive(Debug)]
struct Unmounted {
    mount: Mount,
    storage: Storage,
}

/// How one path fared in one look.
#[derive(Debug)]
struct PathOutcome {
    mounts_crossed: Vec<u64>,
    /// `None`: it was followed to its end. Else what is wrong, unless a mount on the mounts_crossed is.
    failure: Option<Storage>,
}

impl Mounts {
    /// Those of this process's mount namespace. `program` is this one: what asks a mount is a
    /// process of it, started with [`checker_process::FLAG`].
    #[must_use]
    pub fn new(program: &Path) -> Self {
        let mut mounts = Self::at(Path::new("/proc/self/mountinfo"), program);
        // Should that fail, the first look tries again.
        let _ = mounts.resolver.start(&mounts.launch);
        mounts
    }

    /// Those of another table.
    #[must_use]
    pub fn at(mountinfo: &Path, program: &Path) -> Self {
        Self {
            source: mountinfo.into(),
            text: Vec::new(),
            table: MountTable::default(),
            launch: Launch::Program(program.into()),
            states: HashMap::default(),
            resolver: Resolver::default(),
            closing: Vec::new(),
            not_started: None,
            resolved: HashMap::default(),
            unmounted: HashMap::default(),
            unfinished: HashMap::default(),
        }
    }

    /// Where those of these disk images lie that are not [`Storage::Local`], and whether their mounts
    /// answer. Takes [`MOUNT_ANSWERS`] at most, whatever remote mount hangs, and [`LOCAL_PATHS`] while
    /// local file systems are waited for. Paths not asked for, and mounts without any, are forgotten.
    pub fn check<P: AsRef<Path>>(&mut self, paths: &[P]) -> HashMap<PathBuf, Storage> {
        let start = Instant::now();
        self.not_started = None;
        self.receive_late_results();
        self.read_table();
        self.replace_ended_checkers();
        // As text: to compare paths part by part took more time than all the rest.
        let asked = paths.iter().map(|path| path.as_ref().as_os_str());
        let asked: HashSet<&OsStr> = asked.collect();
        self.resolved.retain(|path, _| asked.contains(&**path));
        self.unmounted.retain(|path, _| asked.contains(&**path));
        self.unfinished.retain(|path, _| asked.contains(&**path));

        let mut outcomes = HashMap::default();
        for &path in asked.iter().filter(|path| Path::new(path).is_absolute()) {
            let fresh =
                |followed: Instant| start.saturating_duration_since(followed) < RESOLVED_TTL;
            match self.resolved.get(path).filter(|(_, at)| fresh(*at)) {
                Some((mounts_crossed, _)) if mounts_crossed.is_empty() => {}
                Some((mounts_crossed, _)) => {
                    let mounts_crossed = mounts_crossed.clone();
                    outcomes.insert(
                        path.into(),
                        PathOutcome {
                            mounts_crossed,
                            failure: None,
                        },
                    );
                }
                None => {
                    let begun = self.unfinished.remove(path).filter(|(_, at)| fresh(*at));
                    let new = || PathWalk::new(Path::new(path));
                    let mut walk = begun.map_or_else(new, |(walk, _)| walk);
                    let walk_state = walk.advance(&self.table, None);
                    self.record(walk, walk_state, &mut outcomes);
                }
            }
        }
        self.wait(start, &mut outcomes);

        // A mount that carries no disk any more needs no checker. One that hangs is kept: should the
        // mount carry disks again, a second one would hang beside it.
        let mounts_in_use = mounts_in_use(&outcomes);
        self.close_checkers(|id, state| !mounts_in_use.contains(&id) && !state.is_busy());
        // A walk that was begun for an earlier look may have come to its end in this one.
        let seen = outcomes.into_iter();
        let seen = seen.filter(|(path, _)| asked.contains(path.as_os_str()));
        let seen = seen.map(|(path, outcome)| (path, self.storage_of(&outcome)));
        let seen = seen.filter(|(_, storage)| *storage != Storage::Local);
        let left = self.unmounted.iter();
        let left = left.map(|(path, left)| (path.into(), left.storage.clone()));
        seen.chain(left).collect()
    }

    /// Whether a path, taken as it is written, lies on a file system of this kernel's own.
    #[must_use]
    pub fn is_local_as_written(&self, path: &Path) -> bool {
        let mount = self.table.mount_of(path);
        mount.is_some_and(|mount| {
            matches!(mount.kind, FileSystemKind::Kernel | FileSystemKind::Disk)
        })
    }

    /// Hears what was answered since the last look, before that counts as no answer.
    fn receive_late_results(&mut self) {
        self.resolver.begin_check(&self.table);
        let told = self.states.values_mut().filter_map(MountState::begin_check);
        for (mut walk, answer) in told.collect::<Vec<_>>() {
            // A slow mount is followed by a component a look.
            if let WalkState::AtRemote(_) = walk.advance(&self.table, Some(answer)) {
                let path = walk.path.clone();
                self.unfinished.insert(path.into(), (walk, Instant::now()));
            }
        }
    }

    /// It is read at each look and compared: whatever changed, no way is known any more.
    fn read_table(&mut self) {
        // If it cannot be read now (no descriptor left), what was read before must do.
        let Ok(text) = fs::read(&self.source) else {
            return;
        };
        if text == self.text {
            return;
        }
        let table = MountTable::parse(&text);
        self.text = text;
        for (path, (mounts_crossed, _)) in self.resolved.drain() {
            let went = |id: &&u64| table.get(**id) != self.table.get(**id);
            let Some(mount) = mounts_crossed
                .iter()
                .find(went)
                .and_then(|id| self.table.get(*id))
            else {
                continue;
            };
            let mount = mount.clone();
            let dead = self.states.get(&mount.id).is_some_and(MountState::is_dead);
            let storage = match dead {
                true => Storage::Dead(mount.point.clone()),
                false => Storage::Unknown(mount.point.clone()),
            };
            let left = Unmounted { mount, storage };
            self.unmounted.entry(path).or_insert(left);
        }
        self.unmounted
            .retain(|_, left| !table.is_mounted_again(&left.mount));
        self.unfinished.clear();
        self.resolver.drop_unmounted(&table);
        self.close_checkers(|id, state| table.get(id) != Some(&state.checker.mount));
        self.table = table;
    }

    /// Replaces checkers that somebody has ended, and reaps what was closed.
    fn replace_ended_checkers(&mut self) {
        for state in self
            .states
            .values_mut()
            .filter(|state| state.has_checker_ended())
        {
            if let Ok(checker) = Checker::start(&self.launch, &state.checker.mount) {
                self.closing.extend(state.replace(checker).close());
            }
        }
        let closed = self.resolver.take_closed().filter_map(Checker::close);
        self.closing.extend(closed);
        // Never waited for: one that hangs in the kernel ends when its mount lets it.
        self.closing
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Lets those checkers end.
    fn close_checkers(&mut self, which: impl Fn(u64, &MountState) -> bool) {
        let going = self.states.extract_if(|id, state| which(*id, state));
        let children = going.filter_map(|(_, state)| state.checker.close());
        self.closing.extend(children);
    }

    /// Notes where a walk stopped, and sends it on.
    fn record(
        &mut self,
        walk: PathWalk,
        walk_state: WalkState,
        outcomes: &mut HashMap<PathBuf, PathOutcome>,
    ) {
        let mut mounts_crossed = walk.mounts_crossed.clone();
        let path = walk.path.clone();
        self.unfinished.remove(path.as_os_str());
        let failure = match walk_state {
            WalkState::Resolved => {
                let way = (mounts_crossed.clone(), Instant::now());
                self.resolved.insert(path.clone().into(), way);
                None
            }
            WalkState::Unknown(point) => {
                self.resolved.remove(path.as_os_str());
                Some(Storage::Unknown(point))
            }
            WalkState::Dead(point) => {
                self.resolved.remove(path.as_os_str());
                Some(Storage::Dead(point))
            }
            WalkState::AtRemote(id) => {
                let begun = (walk.clone(), Instant::now());
                self.unfinished.insert(path.clone().into(), begun);
                if let Some(state) = self.mount_state(id) {
                    state.queue.push(walk);
                }
                self.fallback(&path, &mut mounts_crossed, id)
            }
            WalkState::AtDisk(id) if self.resolver.is_hanging(id) => {
                Some(Storage::Dead(self.point(id)))
            }
            WalkState::AtDisk(id) => {
                self.resolver.push(walk, id);
                self.fallback(&path, &mut mounts_crossed, id)
            }
        };
        outcomes.insert(
            path,
            PathOutcome {
                mounts_crossed,
                failure,
            },
        );
    }

    /// What holds of a path should time run out before the mount of this number says more: the way of
    /// a minute ago is the best that is known.
    fn fallback(&self, path: &Path, mounts_crossed: &mut Vec<u64>, id: u64) -> Option<Storage> {
        match self.resolved.get(path.as_os_str()) {
            Some((old, _)) => {
                mounts_crossed.extend(old);
                None
            }
            None => Some(Storage::Unknown(self.point(id))),
        }
    }

    fn point(&self, id: u64) -> PathBuf {
        let mount = self.table.get(id);
        mount.map_or_else(|| "/".into(), |mount| mount.point.clone())
    }

    /// The state of a mount, set up if there is none.
    fn mount_state(&mut self, id: u64) -> Option<&mut MountState> {
        if !self.states.contains_key(&id) {
            let mount = self.table.get(id)?;
            let checker = match Checker::start(&self.launch, mount) {
                Ok(checker) => checker,
                Err(error) => {
                    let what = format!("the mount checker of {}", mount.point.display());
                    self.not_started = Some(NotStarted::new(what, error).to_string());
                    return None;
                }
            };
            self.states.insert(id, MountState::new(checker));
        }
        self.states.get_mut(&id)
    }

    /// Lets all checkers work, and the walks go on, until all is known or the time of a look that began
    /// at `start` is over.
    fn wait(&mut self, start: Instant, outcomes: &mut HashMap<PathBuf, PathOutcome>) {
        let [remote_until, local_until] = [MOUNT_ANSWERS, LOCAL_PATHS].map(|it| start + it);
        loop {
            let now = Instant::now();
            if now < remote_until {
                self.states.values_mut().for_each(MountState::send_next);
            }
            if now < local_until
                && let Err(error) = self.resolver.send_next(&self.launch)
            {
                let error = NotStarted::new("the path resolver", error);
                self.not_started = Some(error.to_string());
            }
            let local = self.resolver.fd().map(|fd| (None, fd));
            // What came back from an old hang is taken even if nobody is waited for.
            let waiting = local.is_some() || self.states.values().any(MountState::is_waited_for);
            let until = local.as_ref().map_or(remote_until, |_| local_until);
            let timeout = until.saturating_duration_since(now);
            let timeout = if waiting { timeout } else { Duration::ZERO };
            let busy = self.states.iter().filter(|(_, state)| state.is_busy());
            let remote = busy.map(|(id, state)| (Some(*id), state.checker.fd()));
            let ready = match wait_readable(remote.chain(local), timeout) {
                Ok(ready) if !ready.is_empty() => ready,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => return,
            };
            for id in ready {
                let told = match id {
                    Some(id) => {
                        let told = self.states.get_mut(&id).and_then(MountState::receive);
                        told.into_iter().collect()
                    }
                    None => self.resolver.receive(),
                };
                for (mut walk, answer) in told {
                    let walk_state = walk.advance(&self.table, Some(answer));
                    self.record(walk, walk_state, outcomes);
                }
            }
        }
    }

    fn storage_of(&self, outcome: &PathOutcome) -> Storage {
        // Without a state there was no process to be had.
        let health = |id: &u64| {
            let state = self.states.get(id);
            (state.map_or(Health::Unknown, MountState::health), *id)
        };
        let worst = outcome.mounts_crossed.iter().map(health).max();
        match (worst, &outcome.failure) {
            (Some((Health::Dead, id)), _) => Storage::Dead(self.point(id)),
            (Some((Health::Late, id)), _) => Storage::Late(self.point(id)),
            (Some((Health::Unknown, id)), _) => Storage::Unknown(self.point(id)),
            (Some((Health::Alive, _)) | None, Some(failure)) => failure.clone(),
            (Some((Health::Alive, _)), None) => Storage::Alive,
            (None, None) => Storage::Local,
        }
    }
}

/// The numbers of the mounts that these paths lead over.
fn mounts_in_use(outcomes: &HashMap<PathBuf, PathOutcome>) -> HashSet<u64> {
    let crossed = outcomes
        .values()
        .flat_map(|outcome| &outcome.mounts_crossed);
    crossed.copied().collect()
}
