//! One remote mount in the course of the looks: what its checker is at, and what that tells.

use std::os::fd::BorrowedFd;
use std::path::PathBuf;
use std::time::Duration;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

use super::checker::Checker;
use super::checker_process::CheckResult;
use super::path_walk::PathWalk;

/// A remote mount, as far as a look knows it.
#[derive(Debug)]
pub(super) struct MountState {
    /// Who asks the mount.
    pub checker: Checker,
    /// What waits until the mount is known to answer.
    pub queue: Vec<PathWalk>,
    pending: Option<Pending>,
    /// What the mount said in this look.
    result: Option<CheckResult>,
    /// It said so, or had not answered when the next look began; and has not since answered a
    /// question before the look after it.
    dead: bool,
    /// The checker ended, though nobody told it to.
    checker_ended: bool,
}

/// What the checker is at.
#[derive(Debug)]
enum Pending {
    /// It asks whether the mount answers.
    MountCheck,
    /// It looks at the place where this walk stands.
    PathStep(PathWalk),
    /// What an earlier look asked: not waited for, and the answer says nothing about now.
    Outdated,
}

/// How a mount stands in one look, from good to bad.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Health {
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

impl MountState {
    /// Nothing asked yet.
    pub fn new(checker: Checker) -> Self {
        Self {
            checker,
            queue: Vec::new(),
            pending: None,
            result: None,
            dead: false,
            checker_ended: false,
        }
    }

    /// A look begins. What was answered since the last one is read first: the mount answers, if
    /// slowly, and a walk that asked it comes back. What was said between two looks is no verdict
    /// of this one: the mount may have died since.
    pub fn begin_check(&mut self) -> Option<(PathWalk, CheckResult)> {
        let mut told = None;
        while self.is_busy() && is_readable(self.checker.fd()) {
            let asked_in_last_check = self.is_waited_for();
            told = self.receive();
            if asked_in_last_check && !self.is_busy() && !self.checker_ended {
                self.dead = self.result == Some(CheckResult::Dead);
            }
        }
        if self.pending.is_some() {
            self.pending = Some(Pending::Outdated);
            self.dead = true;
        }
        self.result = None;
        self.queue.clear();
        told
    }

    /// Whether the mount was dead at the last look.
    pub fn is_dead(&self) -> bool {
        self.dead
    }

    /// Whether a new checker is needed, for [`MountState::replace`].
    pub fn has_checker_ended(&self) -> bool {
        self.checker_ended
    }

    /// Takes a new checker, and gives back the old one.
    pub fn replace(&mut self, checker: Checker) -> Checker {
        self.checker_ended = false;
        std::mem::replace(&mut self.checker, checker)
    }

    /// Whether the checker has something to do.
    pub fn is_busy(&self) -> bool {
        self.pending.is_some()
    }

    /// Whether this look waits for the checker.
    pub fn is_waited_for(&self) -> bool {
        matches!(
            self.pending,
            Some(Pending::MountCheck | Pending::PathStep(_))
        )
    }

    /// How the mount stands, as far as this look knows by now.
    pub fn health(&self) -> Health {
        match self.result {
            Some(CheckResult::Alive | CheckResult::Link(_)) => Health::Alive,
            Some(CheckResult::Dead) => Health::Dead,
            _ if self.dead => Health::Dead,
            Some(CheckResult::Unknown) => Health::Unknown,
            None if self.checker_ended => Health::Unknown,
            None => Health::Late,
        }
    }

    /// Gives the checker its next piece of work, if it is free: first the check of the mount, then, on a mount
    /// that answered, one place after the other, so that one at the most is in hand at the end.
    pub fn send_next(&mut self) {
        if self.pending.is_some() || self.checker_ended {
            return;
        }
        let (pending, path) = match self.result {
            None => (Pending::MountCheck, PathBuf::new()),
            Some(CheckResult::Alive) => match self.queue.pop() {
                Some(walk) => {
                    let path = walk.next_path();
                    (Pending::PathStep(walk), path)
                }
                None => return,
            },
            Some(_) => return,
        };
        match self.checker.send(&[&path]) {
            Ok(()) => self.pending = Some(pending),
            Err(_) => self.checker_ended = true,
        }
    }

    /// Hears what the checker has to say; what a walk asked for comes back with it.
    pub fn receive(&mut self) -> Option<(PathWalk, CheckResult)> {
        let answer = match self.checker.receive() {
            // One question, one answer.
            Ok(answers) => answers.into_iter().next()?,
            Err(_) => {
                self.pending = None;
                self.checker_ended = true;
                return None;
            }
        };
        match self.pending.take() {
            Some(Pending::MountCheck) => {
                self.dead = answer == CheckResult::Dead;
                self.result = Some(answer);
                None
            }
            Some(Pending::PathStep(walk)) => Some((walk, answer)),
            Some(Pending::Outdated) | None => None,
        }
    }
}

/// Which of these have something to say, waited for as long as `timeout`.
///
/// # Errors
/// The system's, a signal included.
pub(super) fn wait_readable<'e, K>(
    fds: impl Iterator<Item = (K, BorrowedFd<'e>)>,
    timeout: Duration,
) -> Result<Vec<K>, Errno> {
    let fd = |(key, fd)| (key, PollFd::from_borrowed_fd(fd, PollFlags::IN));
    let (keys, mut fds): (Vec<K>, Vec<PollFd<'_>>) = fds.map(fd).unzip();
    let timeout = Timespec::try_from(timeout).map_err(|_| Errno::INVAL)?;
    poll(&mut fds, Some(&timeout))?;
    let heard = keys.into_iter().zip(&fds);
    let heard = heard.filter(|(_, fd)| !fd.revents().is_empty());
    Ok(heard.map(|(key, _)| key).collect())
}

/// Whether there is something to hear now.
pub(super) fn is_readable(fd: BorrowedFd<'_>) -> bool {
    let fds = std::iter::once(((), fd));
    wait_readable(fds, Duration::ZERO).is_ok_and(|ready| !ready.is_empty())
}

#[cfg(test)]
mod tests {
    use std::io::{self, Write};

    use super::*;

    /// Asks, lets the checker say this, and hears it.
    fn check(state: &mut MountState, said: Option<(&mut io::PipeWriter, &[u8])>) -> Health {
        state.begin_check();
        state.send_next();
        if let Some((told, words)) = said {
            told.write_all(words).unwrap();
            state.receive();
            state.send_next();
        }
        state.health()
    }

    #[test]
    fn who_did_not_answer_is_dead_at_the_next_look_until_it_answers_in_time() {
        let (checker, _asked, mut told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        assert_eq!(check(&mut state, Some((&mut told, b"A\0"))), Health::Alive);
        assert_eq!(check(&mut state, None), Health::Late);
        assert!(state.is_waited_for());
        for _ in 0..3 {
            assert_eq!(check(&mut state, None), Health::Dead);
            assert!(state.is_busy() && !state.is_waited_for());
        }
        // The old answer says nothing about now, and the next one is late again.
        assert_eq!(check(&mut state, Some((&mut told, b"A\0"))), Health::Dead);
        assert!(state.is_waited_for(), "asked anew");
        told.write_all(b"A\0").unwrap();
        state.receive();
        assert_eq!(state.health(), Health::Alive);
        assert_eq!(check(&mut state, None), Health::Late, "a new problem");
    }

    /// Loaded storage may take 60 ms each time: asked per disk each time, and never warned of.
    #[test]
    fn an_answer_between_two_looks_is_an_answer() {
        let (checker, _asked, mut told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        for _ in 0..4 {
            assert_eq!(check(&mut state, None), Health::Late);
            told.write_all(b"A\0").unwrap();
        }
        assert_eq!(check(&mut state, None), Health::Late);
        assert_eq!(check(&mut state, None), Health::Dead);
        // It answers what was asked two looks ago, then what was asked at the last one.
        told.write_all(b"A\0").unwrap();
        assert_eq!(check(&mut state, None), Health::Dead);
        told.write_all(b"A\0").unwrap();
        assert_eq!(check(&mut state, None), Health::Late);
        told.write_all(b"D\0").unwrap();
        assert_eq!(check(&mut state, None), Health::Dead, "it said so");
    }

    #[test]
    fn storage_that_says_it_is_dead_is_so_at_once() {
        let (checker, _asked, mut told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        for (said, health) in [
            (b"D\0", Health::Dead),
            (b"U\0", Health::Unknown),
            (b"D\0", Health::Dead),
            (b"A\0", Health::Alive),
        ] {
            assert_eq!(check(&mut state, Some((&mut told, said))), health);
        }
    }

    #[test]
    fn a_mount_is_not_back_because_its_checker_was_killed() {
        let (checker, _asked, told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        check(&mut state, None);
        assert_eq!(check(&mut state, None), Health::Dead);
        drop(told);
        state.receive();
        assert!(state.has_checker_ended() && !state.is_busy());
        assert_eq!(state.health(), Health::Dead);
        let (checker, _asked, mut told) = Checker::with_pipes();
        state.replace(checker);
        assert_eq!(
            check(&mut state, None),
            Health::Dead,
            "nothing is known yet"
        );
        check(&mut state, Some((&mut told, b"A\0")));
        told.write_all(b"A\0").unwrap();
        state.receive();
        assert_eq!(state.health(), Health::Alive);
    }

    #[test]
    fn nonsense_without_an_end_is_not_read_for_ever() {
        let (checker, _asked, mut told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        check(&mut state, None);
        told.write_all(&[b'y'; 20_000]).unwrap();
        state.begin_check();
        assert!(state.has_checker_ended() && !state.is_busy());
    }

    #[test]
    fn a_checker_that_ends_leaves_the_mount_unknown() {
        let (checker, asked, told) = Checker::with_pipes();
        let mut state = MountState::new(checker);
        drop((asked, told));
        assert_eq!(check(&mut state, None), Health::Unknown);
        assert!(state.has_checker_ended());
    }
}
