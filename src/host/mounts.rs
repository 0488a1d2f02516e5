//! The storage of disk images: where each lies, and whether that answers.

use std::ffi::{OsStr, OsString};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::{Duration, Instant};

use rustix::io::Errno;

use super::checker::{Checker, Launch};
use super::mount_state::{Post, Standing, ready};
use super::mount_table::{Ground, Mount, Table};
use super::path_walk::{Stop, Walk};
use super::resolver::Resolver;
use crate::maps::{HashMap, HashSet};
use crate::threads::NotStarted;
use crate::times::{LOCAL_PATHS, MOUNT_ANSWERS};

#[cfg(test)]
mod tests;

/// A link is followed anew after so long.
const REMEMBERED: Duration = Duration::from_secs(60);

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
    table: Table,
    launch: Launch,
    /// The remote mounts, by number.
    posts: HashMap<u64, Post>,
    /// Follows paths over local file systems.
    resolver: Resolver,
    /// Checkers that were dismissed and have not ended yet.
    dismissed: Vec<Child>,
    /// A checker that could not be started in the last look.
    pub not_started: Option<String>,
    /// The remote mounts on a path's way, and when it was followed.
    ways: HashMap<OsString, (Vec<u64>, Instant)>,
    /// Paths whose mount went away (`umount -l`) while they were asked for: a QEMU that has the file
    /// open still has the one on that mount, whatever is mounted there now.
    left: HashMap<OsString, Left>,
    /// How far paths were followed whose next component lies on a remote mount, and when: what was
    /// looked up on the way there is not looked up again at each look while that mount is silent.
    begun: HashMap<OsString, (Walk, Instant)>,
}

/// A mount that went away below a path.
#[derive(Debug)]
struct Left {
    mount: Mount,
    storage: Storage,
}

/// How one path fared in one look.
#[derive(Debug)]
struct Fate {
    trail: Vec<u64>,
    /// `None`: it was followed to its end. Else what is wrong, unless a mount on the trail is.
    lost: Option<Storage>,
}

impl Mounts {
    /// Those of this process's mount namespace. `program` is this one: what asks a mount is a
    /// process of it, started with [`super::checker_process::FLAG`].
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
            table: Table::default(),
            launch: Launch::Program(program.into()),
            posts: HashMap::default(),
            resolver: Resolver::default(),
            dismissed: Vec::new(),
            not_started: None,
            ways: HashMap::default(),
            left: HashMap::default(),
            begun: HashMap::default(),
        }
    }

    /// Where those of these disk images lie that are not [`Storage::Local`], and whether their mounts
    /// answer. Takes [`MOUNT_ANSWERS`] at most, whatever remote mount hangs, and [`LOCAL_PATHS`] while
    /// local file systems are waited for. Paths not asked for, and mounts without any, are forgotten.
    pub fn look<P: AsRef<Path>>(&mut self, paths: &[P]) -> HashMap<PathBuf, Storage> {
        let start = Instant::now();
        self.not_started = None;
        self.begin();
        self.read_table();
        self.replace_ended_checkers();
        // As text: to compare paths part by part took more time than all the rest.
        let asked = paths.iter().map(|path| path.as_ref().as_os_str());
        let asked: HashSet<&OsStr> = asked.collect();
        self.ways.retain(|path, _| asked.contains(&**path));
        self.left.retain(|path, _| asked.contains(&**path));
        self.begun.retain(|path, _| asked.contains(&**path));

        let mut fates = HashMap::default();
        for &path in asked.iter().filter(|path| Path::new(path).is_absolute()) {
            let fresh = |followed: Instant| start.saturating_duration_since(followed) < REMEMBERED;
            match self.ways.get(path).filter(|(_, at)| fresh(*at)) {
                Some((trail, _)) if trail.is_empty() => {}
                Some((trail, _)) => {
                    let trail = trail.clone();
                    fates.insert(path.into(), Fate { trail, lost: None });
                }
                None => {
                    let begun = self.begun.remove(path).filter(|(_, at)| fresh(*at));
                    let new = || Walk::new(Path::new(path));
                    let mut walk = begun.map_or_else(new, |(walk, _)| walk);
                    let stop = walk.advance(&self.table, None);
                    self.stopped(walk, stop, &mut fates);
                }
            }
        }
        self.wait(start, &mut fates);

        // A mount that carries no disk any more needs no checker. One that hangs is kept: should the
        // mount carry disks again, a second one would hang beside it.
        let carrying = carrying(&fates);
        self.dismiss(|id, post| !carrying.contains(&id) && !post.is_busy());
        // A walk that was begun for an earlier look may have come to its end in this one.
        let seen = fates.into_iter();
        let seen = seen.filter(|(path, _)| asked.contains(path.as_os_str()));
        let seen = seen.map(|(path, fate)| (path, self.judge(&fate)));
        let seen = seen.filter(|(_, storage)| *storage != Storage::Local);
        let left = self.left.iter();
        let left = left.map(|(path, left)| (path.into(), left.storage.clone()));
        seen.chain(left).collect()
    }

    /// Whether a path, taken as it is written, lies on a file system of this kernel's own.
    #[must_use]
    pub fn is_plainly_local(&self, path: &Path) -> bool {
        let mount = self.table.mount_of(path);
        mount.is_some_and(|mount| matches!(mount.ground, Ground::Kernel | Ground::Disk))
    }

    /// Hears what was answered since the last look, before that counts as no answer.
    fn begin(&mut self) {
        self.resolver.begin(&self.table);
        let told = self.posts.values_mut().filter_map(Post::begin);
        for (mut walk, answer) in told.collect::<Vec<_>>() {
            // A slow mount is followed by a component a look.
            if let Stop::Before(_) = walk.advance(&self.table, Some(answer)) {
                let asked = walk.asked.clone();
                self.begun.insert(asked.into(), (walk, Instant::now()));
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
        let table = Table::parse(&text);
        self.text = text;
        for (path, (trail, _)) in self.ways.drain() {
            let went = |id: &&u64| table.get(**id) != self.table.get(**id);
            let Some(mount) = trail.iter().find(went).and_then(|id| self.table.get(*id)) else {
                continue;
            };
            let mount = mount.clone();
            let dead = self.posts.get(&mount.id).is_some_and(Post::is_dead);
            let storage = match dead {
                true => Storage::Dead(mount.point.clone()),
                false => Storage::Unknown(mount.point.clone()),
            };
            let left = Left { mount, storage };
            self.left.entry(path).or_insert(left);
        }
        self.left.retain(|_, left| !table.has_again(&left.mount));
        self.begun.clear();
        self.resolver.forget(&table);
        self.dismiss(|id, post| table.get(id) != Some(&post.checker.mount));
        self.table = table;
    }

    /// Replaces checkers that somebody has ended, and reaps what was dismissed.
    fn replace_ended_checkers(&mut self) {
        for post in self.posts.values_mut().filter(|post| post.is_gone()) {
            if let Ok(checker) = Checker::start(&self.launch, &post.checker.mount) {
                self.dismissed.extend(post.replace(checker).dismiss());
            }
        }
        let dismissed = self.resolver.dismissed().filter_map(Checker::dismiss);
        self.dismissed.extend(dismissed);
        // Never waited for: one that hangs in the kernel ends when its mount lets it.
        self.dismissed
            .retain_mut(|child| matches!(child.try_wait(), Ok(None)));
    }

    /// Lets those checkers end.
    fn dismiss(&mut self, whom: impl Fn(u64, &Post) -> bool) {
        let going = self.posts.extract_if(|id, post| whom(*id, post));
        let children = going.filter_map(|(_, post)| post.checker.dismiss());
        self.dismissed.extend(children);
    }

    /// Notes where a walk stopped, and sends it on.
    fn stopped(&mut self, walk: Walk, stop: Stop, fates: &mut HashMap<PathBuf, Fate>) {
        let mut trail = walk.trail.clone();
        let path = walk.asked.clone();
        self.begun.remove(path.as_os_str());
        let lost = match stop {
            Stop::End => {
                let way = (trail.clone(), Instant::now());
                self.ways.insert(path.clone().into(), way);
                None
            }
            Stop::Lost(point) => {
                self.ways.remove(path.as_os_str());
                Some(Storage::Unknown(point))
            }
            Stop::Dead(point) => {
                self.ways.remove(path.as_os_str());
                Some(Storage::Dead(point))
            }
            Stop::Before(id) => {
                let begun = (walk.clone(), Instant::now());
                self.begun.insert(path.clone().into(), begun);
                if let Some(post) = self.post(id) {
                    post.queue.push(walk);
                }
                self.unfinished(&path, &mut trail, id)
            }
            Stop::OnDisk(id) if self.resolver.hangs(id) => Some(Storage::Dead(self.point(id))),
            Stop::OnDisk(id) => {
                self.resolver.push(walk, id);
                self.unfinished(&path, &mut trail, id)
            }
        };
        fates.insert(path, Fate { trail, lost });
    }

    /// What holds of a path should time run out before the mount of this number says more: the way of
    /// a minute ago is the best that is known.
    fn unfinished(&self, path: &Path, trail: &mut Vec<u64>, id: u64) -> Option<Storage> {
        match self.ways.get(path.as_os_str()) {
            Some((old, _)) => {
                trail.extend(old);
                None
            }
            None => Some(Storage::Unknown(self.point(id))),
        }
    }

    fn point(&self, id: u64) -> PathBuf {
        let mount = self.table.get(id);
        mount.map_or_else(|| "/".into(), |mount| mount.point.clone())
    }

    /// The post of a mount, set up if there is none.
    fn post(&mut self, id: u64) -> Option<&mut Post> {
        if !self.posts.contains_key(&id) {
            let mount = self.table.get(id)?;
            let checker = match Checker::start(&self.launch, mount) {
                Ok(checker) => checker,
                Err(error) => {
                    let what = format!("the mount checker of {}", mount.point.display());
                    self.not_started = Some(NotStarted::new(what, error).to_string());
                    return None;
                }
            };
            self.posts.insert(id, Post::new(checker));
        }
        self.posts.get_mut(&id)
    }

    /// Lets all checkers work, and the walks go on, until all is known or the time of a look that began
    /// at `start` is over.
    fn wait(&mut self, start: Instant, fates: &mut HashMap<PathBuf, Fate>) {
        let [remote_until, local_until] = [MOUNT_ANSWERS, LOCAL_PATHS].map(|it| start + it);
        loop {
            let now = Instant::now();
            if now < remote_until {
                self.posts.values_mut().for_each(Post::feed);
            }
            if now < local_until
                && let Err(error) = self.resolver.feed(&self.launch)
            {
                let error = NotStarted::new("the path resolver", error);
                self.not_started = Some(error.to_string());
            }
            let local = self.resolver.ear().map(|ear| (None, ear));
            // What came back from an old hang is taken even if nobody is waited for.
            let waiting = local.is_some() || self.posts.values().any(Post::is_waited_for);
            let until = local.as_ref().map_or(remote_until, |_| local_until);
            let patience = until.saturating_duration_since(now);
            let patience = if waiting { patience } else { Duration::ZERO };
            let busy = self.posts.iter().filter(|(_, post)| post.is_busy());
            let remote = busy.map(|(id, post)| (Some(*id), post.checker.ear()));
            let ready = match ready(remote.chain(local), patience) {
                Ok(ready) if !ready.is_empty() => ready,
                Err(Errno::INTR) => continue,
                Ok(_) | Err(_) => return,
            };
            for id in ready {
                let told = match id {
                    Some(id) => {
                        let told = self.posts.get_mut(&id).and_then(Post::hear);
                        told.into_iter().collect()
                    }
                    None => self.resolver.hear(),
                };
                for (mut walk, answer) in told {
                    let stop = walk.advance(&self.table, Some(answer));
                    self.stopped(walk, stop, fates);
                }
            }
        }
    }

    fn judge(&self, fate: &Fate) -> Storage {
        // Without a post there was no process to be had.
        let standing = |id: &u64| {
            let post = self.posts.get(id);
            (post.map_or(Standing::Unknown, Post::standing), *id)
        };
        let worst = fate.trail.iter().map(standing).max();
        match (worst, &fate.lost) {
            (Some((Standing::Dead, id)), _) => Storage::Dead(self.point(id)),
            (Some((Standing::Late, id)), _) => Storage::Late(self.point(id)),
            (Some((Standing::Unknown, id)), _) => Storage::Unknown(self.point(id)),
            (Some((Standing::Alive, _)) | None, Some(lost)) => lost.clone(),
            (Some((Standing::Alive, _)), None) => Storage::Alive,
            (None, None) => Storage::Local,
        }
    }
}

/// The numbers of the mounts that these paths lead over.
fn carrying(fates: &HashMap<PathBuf, Fate>) -> HashSet<u64> {
    let trails = fates.values().flat_map(|fate| &fate.trail);
    trails.copied().collect()
}
