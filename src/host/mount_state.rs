//! One remote mount in the course of the looks: what its checker is at, and what that tells.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::checker::Checker;
use super::checker_process::Answer;
use super::path_walk::Walk;

/// A remote mount, as far as a look knows it.
#[derive(Debug)]
pub(super) struct Post {
    /// Who asks the mount.
    pub checker: Checker,
    /// What waits until the mount is known to answer.
    pub queue: Vec<Walk>,
    task: Option<Task>,
    /// What the mount said in this look.
    verdict: Option<Answer>,
    /// It said so, or had not answered when the next look began; and has not since answered a
    /// question before the look after it.
    dead: bool,
    /// The checker ended, though nobody told it to.
    gone: bool,
}

/// What the checker is at.
#[derive(Debug)]
enum Task {
    /// It asks whether the mount answers.
    MountCheck,
    /// It looks at the place where this walk stands.
    Walk(Walk),
    /// What an earlier look asked: not waited for, and the answer says nothing about now.
    Old,
}

/// How a mount stands in one look, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Standing {
    /// It answered just now.
    Alive,
    /// We may not know.
    Unknown,
    /// No answer in this look, but every earlier question was answered before the next one: a busy
    /// host, slow storage, or storage that has just died. It may be so for any number of looks.
    Late,
    /// It says so itself, or has not answered from one look to the next.
    Dead,
}

impl Post {
    /// Nothing asked yet.
    pub fn new(checker: Checker) -> Self {
        Self {
            checker,
            queue: Vec::new(),
            task: None,
            verdict: None,
            dead: false,
            gone: false,
        }
    }

    /// A look begins. What was answered since the last one is read first: the mount answers, if
    /// slowly, and a walk that asked it comes back. What was said between two looks is no verdict
    /// of this one: the mount may have died since.
    pub fn begin(&mut self) -> Option<(Walk, Answer)> {
        let mut told = None;
        while self.is_busy() && is_readable(self.checker.ear()) {
            let asked_at_the_last_look = self.is_waited_for();
            told = self.hear();
            if asked_at_the_last_look && !self.is_busy() && !self.gone {
                self.dead = self.verdict == Some(Answer::Dead);
            }
        }
        if self.task.is_some() {
            self.task = Some(Task::Old);
            self.dead = true;
        }
        self.verdict = None;
        self.queue.clear();
        told
    }

    /// Whether the mount was dead at the last look.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether a new checker is needed, for [`Post::replace`].
    pub fn is_gone(&self) -> bool {
        self.gone
    }

    /// Takes a new checker, and gives back the old one.
    pub fn replace(&mut self, checker: Checker) -> Checker {
        self.gone = false;
        std::mem::replace(&mut self.checker, checker)
    }

    /// Whether the checker has something to do.
    pub fn is_busy(&self) -> bool {
        self.task.is_some()
    }

    /// Whether this look waits for the checker.
    pub fn is_waited_for(&self) -> bool {
        matches!(self.task, Some(Task::MountCheck | Task::Walk(_)))
    }

    /// How the mount stands, as far as this look knows by now.
    pub fn standing(&self) -> Standing {
        match self.verdict {
            Some(Answer::Alive | Answer::Link(_)) => Standing::Alive,
            Some(Answer::Dead) => Standing::Dead,
            _ if self.dead => Standing::Dead,
            Some(Answer::Unknown) => Standing::Unknown,
            None if self.gone => Standing::Unknown,
            None => Standing::Late,
        }
    }

    /// Gives the checker its next piece of work, if it is free: first the check of the mount, then, on a mount
    /// that answered, one place after the other, so that one at the most is in hand at the end.
    pub fn feed(&mut self) {
        if self.task.is_some() || self.gone {
            return;
        }
        let (task, place) = match self.verdict {
            None => (Task::MountCheck, PathBuf::new()),
            Some(Answer::Alive) => match self.queue.pop() {
                Some(walk) => {
                    let place = walk.place();
                    (Task::Walk(walk), place)
                }
                None => return,
            },
            Some(_) => return,
        };
        match self.checker.ask(&[&place]) {
            Ok(()) => self.task = Some(task),
            Err(_) => self.gone = true,
        }
    }

    /// Hears what the checker has to say; what a walk asked for comes back with it.
    pub fn hear(&mut self) -> Option<(Walk, Answer)> {
        let answer = match self.checker.hear() {
            // One question, one answer.
            Ok(answers) => answers.into_iter().next()?,
            Err(_) => {
                self.task = None;
                self.gone = true;
                return None;
            }
        };
        match self.task.take() {
            Some(Task::MountCheck) => {
                self.dead = answer == Answer::Dead;
                self.verdict = Some(answer);
                None
            }
            Some(Task::Walk(walk)) => Some((walk, answer)),
            Some(Task::Old) | None => None,
        }
    }
}

/// Which of these have something to say, waited for as long as `patience`.
///
/// # Errors
/// The system's, a signal included.
pub(super) fn ready<'e, K>(
    ears: impl Iterator<Item = (K, BorrowedFd<'e>)>,
    patience: Duration,
) -> Result<Vec<K>, Errno> {
    let ear = |(key, ear)| (key, PollFd::from_borrowed_fd(ear, PollFlags::IN));
    let (keys, mut ears): (Vec<K>, Vec<PollFd<'_>>) = ears.map(ear).unzip();
    let patience = Timespec::try_from(patience).map_err(|_| Errno::INVAL)?;
    poll(&mut ears, Some(&patience))?;
    let heard = keys.into_iter().zip(&ears);
    let heard = heard.filter(|(_, ear)| !ear.revents().is_empty());
    Ok(heard.map(|(key, _)| key).collect())
}

/// Whether there is something to hear now.
pub(super) fn is_readable(ear: BorrowedFd<'_>) -> bool {
    let ears = std::iter::once(((), ear));
    ready(ears, Duration::ZERO).is_ok_and(|ready| !ready.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    /// Asks, lets the checker say this, and hears it.
    fn look(post: &mut Post, said: Option<(&mut io::PipeWriter, &[u8])>) -> Standing {
        post.begin();
        post.feed();
        if let Some((told, words)) = said {
            told.write_all(words).unwrap();
            post.hear();
            post.feed();
        }
        post.standing()
    }

    #[test]
    fn who_did_not_answer_is_dead_at_the_next_look_until_it_answers_in_time() {
        let (checker, _asked, mut told) = Checker::by_hand();
        let mut post = Post::new(checker);
        assert_eq!(look(&mut post, Some((&mut told, b"A\0"))), Standing::Alive);
        assert_eq!(look(&mut post, None), Standing::Late);
        assert!(post.is_waited_for());
        for _ in 0..3 {
            assert_eq!(look(&mut post, None), Standing::Dead);
            assert!(post.is_busy() && !post.is_waited_for());
        }
        // The old answer says nothing about now, and the next one is late again.
        assert_eq!(look(&mut post, Some((&mut told, b"A\0"))), Standing::Dead);
        assert!(post.is_waited_for(), "asked anew");
        told.write_all(b"A\0").unwrap();
        post.hear();
        assert_eq!(post.standing(), Standing::Alive);
        assert_eq!(look(&mut post, None), Standing::Late, "a new problem");
    }

    /// Loaded storage may take 60 ms each time: asked per disk each time, and never warned of.
    #[test]
    fn an_answer_between_two_looks_is_an_answer() {
        let (checker, _asked, mut told) = Checker::by_hand();
        let mut post = Post::new(checker);
        for _ in 0..4 {
            assert_eq!(look(&mut post, None), Standing::Late);
            told.write_all(b"A\0").unwrap();
        }
        assert_eq!(look(&mut post, None), Standing::Late);
        assert_eq!(look(&mut post, None), Standing::Dead);
        // It answers what was asked two looks ago, then what was asked at the last one.
        told.write_all(b"A\0").unwrap();
        assert_eq!(look(&mut post, None), Standing::Dead);
        told.write_all(b"A\0").unwrap();
        assert_eq!(look(&mut post, None), Standing::Late);
        told.write_all(b"D\0").unwrap();
        assert_eq!(look(&mut post, None), Standing::Dead, "it said so");
    }

    #[test]
    fn storage_that_says_it_is_dead_is_so_at_once() {
        let (checker, _asked, mut told) = Checker::by_hand();
        let mut post = Post::new(checker);
        for (said, standing) in [
            (b"D\0", Standing::Dead),
            (b"U\0", Standing::Unknown),
            (b"D\0", Standing::Dead),
            (b"A\0", Standing::Alive),
        ] {
            assert_eq!(look(&mut post, Some((&mut told, said))), standing);
        }
    }

    #[test]
    fn a_mount_is_not_back_because_its_checker_was_killed() {
        let (checker, _asked, told) = Checker::by_hand();
        let mut post = Post::new(checker);
        look(&mut post, None);
        assert_eq!(look(&mut post, None), Standing::Dead);
        drop(told);
        post.hear();
        assert!(post.is_gone() && !post.is_busy());
        assert_eq!(post.standing(), Standing::Dead);
        let (checker, _asked, mut told) = Checker::by_hand();
        post.replace(checker);
        assert_eq!(
            look(&mut post, None),
            Standing::Dead,
            "nothing is known yet"
        );
        look(&mut post, Some((&mut told, b"A\0")));
        told.write_all(b"A\0").unwrap();
        post.hear();
        assert_eq!(post.standing(), Standing::Alive);
    }

    #[test]
    fn nonsense_without_an_end_is_not_read_for_ever() {
        let (checker, _asked, mut told) = Checker::by_hand();
        let mut post = Post::new(checker);
        look(&mut post, None);
        told.write_all(&[b'y'; 20_000]).unwrap();
        post.begin();
        assert!(post.is_gone() && !post.is_busy());
    }

    #[test]
    fn a_checker_that_ends_leaves_the_mount_unknown() {
        let (checker, asked, told) = Checker::by_hand();
        let mut post = Post::new(checker);
        drop((asked, told));
        assert_eq!(look(&mut post, None), Standing::Unknown);
        assert!(post.is_gone());
    }
}
