//! The storage of disk images: where each lies, and whether that answers.

use std::collections::{HashMap, HashSet, VecDeque};
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use std::time::{Duration, Instant};

use super::mount_table::{Mount, Table};
use super::prober::{Done, Prober, Report, Verdict};
use super::walk::{Stop, Walk};

#[cfg(test)]
mod tests;

/// All that a look waits for mounts.
const PATIENCE: Duration = Duration::from_millis(100);
/// A link is followed anew after so long.
const REMEMBERED: Duration = Duration::from_secs(60);

/// What the storage of one path is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Storage {
    /// A file system of this kernel's own, or no file at all (a network disk): asking is safe.
    Local,
    /// A mount that answered just now.
    Alive,
    /// The mount at this point does not answer.
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
    table: Arc<Table>,
    /// By the mount's number.
    posts: HashMap<u64, Post>,
    last_serial: u64,
    /// The remote mounts on a path's way, and when it was followed.
    ways: HashMap<PathBuf, (Vec<u64>, Instant)>,
    tell: Sender<Report>,
    reports: Receiver<Report>,
}

/// A remote mount, as far as a look knows it.
#[derive(Debug)]
struct Post {
    prober: Prober,
    /// It has something to do.
    busy: bool,
    /// It had already when this look began: it is not waited for.
    hangs: bool,
    /// Of this look.
    verdict: Option<Verdict>,
    /// What waits until the mount is known to answer.
    queue: VecDeque<Walk>,
}

/// How one path fared in one look.
#[derive(Debug)]
struct Fate {
    trail: Vec<u64>,
    /// `None`: it was followed to its end. Else what is wrong, unless a mount on the trail is.
    lost: Option<Storage>,
}

impl Default for Mounts {
    fn default() -> Self {
        Self::new()
    }
}

impl Mounts {
    /// Those of this process's mount namespace.
    #[must_use]
    pub fn new() -> Self {
        Self::at(Path::new("/proc/self/mountinfo"))
    }

    /// Those of another table.
    #[must_use]
    pub fn at(mountinfo: &Path) -> Self {
        let (tell, reports) = channel();
        Self {
            source: mountinfo.into(),
            text: Vec::new(),
            table: Arc::default(),
            posts: HashMap::new(),
            last_serial: 0,
            ways: HashMap::new(),
            tell,
            reports,
        }
    }

    /// Where these disk images lie, and whether their mounts answer. Takes 100 ms at most, whatever
    /// hangs. Paths not asked for, and mounts without any, are forgotten.
    pub fn look(&mut self, paths: &[PathBuf]) -> HashMap<PathBuf, Storage> {
        let start = Instant::now();
        let until = start + PATIENCE;
        self.read_table();
        for post in self.posts.values_mut() {
            post.hangs = post.busy;
            post.verdict = None;
            post.queue.clear();
        }
        let asked: HashSet<&PathBuf> = paths.iter().collect();
        self.ways.retain(|path, _| asked.contains(path));

        let mut fates = HashMap::new();
        for path in asked.iter().filter(|path| path.is_absolute()) {
            let fresh = |(_, followed): &&(_, Instant)| start - *followed < REMEMBERED;
            if let Some((trail, _)) = self.ways.get(*path).filter(fresh) {
                let trail = trail.clone();
                fates.insert((*path).clone(), Fate { trail, lost: None });
            } else {
                let mut walk = Walk::new(path);
                let stop = walk.advance(&self.table, None);
                self.stopped(walk, stop, &mut fates);
            }
        }
        self.wait(until, &mut fates);

        // A mount that carries no disk any more needs no prober.
        let carrying = carrying(&fates);
        self.posts.retain(|id, _| carrying.contains(id));
        let storage = |path: &PathBuf| {
            let fate = fates.get(path);
            fate.map_or(Storage::Local, |fate| self.judge(fate))
        };
        let seen = asked.into_iter().map(|path| (path.clone(), storage(path)));
        seen.collect()
    }

    /// It is read at each look and compared: whatever changed, no way is known any more.
    fn read_table(&mut self) {
        let text = fs::read(&self.source).unwrap_or_default();
        if text == self.text {
            return;
        }
        self.table = Arc::new(Table::parse(&text));
        self.text = text;
        self.ways.clear();
        let table = &self.table;
        let there = |mount: &Mount| table.get(mount.id) == Some(mount);
        self.posts.retain(|_, post| there(&post.prober.mount));
    }

    /// Notes where a walk stopped, and sends it on.
    fn stopped(&mut self, walk: Walk, stop: Stop, fates: &mut HashMap<PathBuf, Fate>) {
        let mut trail = walk.trail.clone();
        let path = walk.asked.clone();
        let lost = match stop {
            Stop::End => {
                let way = (trail.clone(), Instant::now());
                self.ways.insert(path.clone(), way);
                None
            }
            Stop::Lost(point) => {
                self.ways.remove(&path);
                Some(Storage::Unknown(point))
            }
            Stop::Dead(point) => {
                self.ways.remove(&path);
                Some(Storage::Dead(point))
            }
            Stop::Before(id) => {
                if let Some(post) = self.post(id) {
                    post.queue.push_back(walk);
                }
                // Should time run out, the way of a minute ago is the best that is known.
                match self.ways.get(&path) {
                    Some((old, _)) => {
                        trail.extend(old);
                        None
                    }
                    None => Some(Storage::Unknown(self.point(id))),
                }
            }
        };
        fates.insert(path, Fate { trail, lost });
    }

    fn point(&self, id: u64) -> PathBuf {
        let mount = self.table.get(id);
        mount.map_or_else(|| "/".into(), |mount| mount.point.clone())
    }

    /// The post of a mount, set up if there is none.
    fn post(&mut self, id: u64) -> Option<&mut Post> {
        if !self.posts.contains_key(&id) {
            self.last_serial += 1;
            let mount = self.table.get(id)?;
            let prober = Prober::start(mount, self.last_serial, self.tell.clone()).ok()?;
            let post = Post {
                prober,
                busy: false,
                hangs: false,
                verdict: None,
                queue: VecDeque::new(),
            };
            self.posts.insert(id, post);
        }
        self.posts.get_mut(&id)
    }

    /// Lets all probers work, and the walks go on, until all is known or `until` has come.
    fn wait(&mut self, until: Instant, fates: &mut HashMap<PathBuf, Fate>) {
        loop {
            let now = Instant::now();
            if now < until {
                for post in self.posts.values_mut() {
                    post.feed(&self.table);
                }
            }
            // What came back from an old hang is taken even if nobody is waited for.
            let waiting = self.posts.values().any(|post| post.busy && !post.hangs);
            let patience = until.saturating_duration_since(now);
            let patience = if waiting { patience } else { Duration::ZERO };
            let Ok(report) = self.reports.recv_timeout(patience) else {
                return;
            };
            let Some(post) = self.posts.get_mut(&report.mount) else {
                continue;
            };
            if post.prober.serial != report.serial {
                continue;
            }
            let late = std::mem::take(&mut post.hangs);
            post.busy = false;
            match report.done {
                // What an earlier look asked says nothing about now.
                _ if late => {}
                Done::Probe(verdict) => post.verdict = Some(verdict),
                Done::Walk(walk, stop) => self.stopped(walk, stop, fates),
            }
        }
    }

    fn judge(&self, fate: &Fate) -> Storage {
        let mut worst = if fate.trail.is_empty() {
            Storage::Local
        } else {
            Storage::Alive
        };
        for id in &fate.trail {
            match self.posts.get(id).map(|post| post.verdict) {
                Some(Some(Verdict::Alive)) => {}
                Some(Some(Verdict::Dead) | None) => return Storage::Dead(self.point(*id)),
                // None: there was no thread to be had.
                Some(Some(Verdict::Unknown)) | None => worst = Storage::Unknown(self.point(*id)),
            }
        }
        match (worst, &fate.lost) {
            (Storage::Local | Storage::Alive, Some(lost)) => lost.clone(),
            (worst, _) => worst,
        }
    }
}

impl Post {
    /// Gives the prober its next piece of work, if it is free: first the probe, then, on a mount
    /// that answered, one walk after the other, so that one at the most is in hand at the end.
    fn feed(&mut self, table: &Arc<Table>) {
        if self.busy {
            return;
        }
        match self.verdict {
            None => self.prober.probe(),
            Some(Verdict::Alive) => match self.queue.pop_front() {
                Some(walk) => self.prober.walk(walk, table),
                None => return,
            },
            Some(Verdict::Dead | Verdict::Unknown) => return,
        }
        self.busy = true;
    }
}

/// The numbers of the mounts that these paths lead over.
fn carrying(fates: &HashMap<PathBuf, Fate>) -> HashSet<u64> {
    let trails = fates.values().flat_map(|fate| &fate.trail);
    trails.copied().collect()
}
