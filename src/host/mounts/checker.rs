//! The in_our_netns end of a process that asks one mount ([`super::checker_process`]). Nobody waits for it: it may
//! hang where not even a signal ends it, and a thread that does keeps its whole process from ending.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::checker_process::{CheckResult, END, FLAG};
use super::table::Mount;

/// How checkers are started.
#[derive(Debug)]
pub(super) enum Launch {
    /// As processes of this program.
    Program(PathBuf),
    /// As threads: a unit test is not the program.
    #[cfg(test)]
    Thread,
}

/// No answer is longer: a letter and a link's target, which is at most PATH_MAX (4096) bytes long.
const MAX_RESULT_BYTES: usize = 8192;

/// The in_our_netns end. Dropped, the far one ends, as soon as the kernel lets it.
#[derive(Debug)]
pub(super) struct Checker {
    /// What it asks.
    pub mount: Mount,
    questions: File,
    answers: File,
    /// Of the answers that are on their way.
    incomplete: Vec<u8>,
    child: Option<Child>,
}

impl Checker {
    /// Starts one for this mount.
    ///
    /// # Errors
    /// The system's, when no process can be started.
    pub fn start(launch: &Launch, mount: &Mount) -> io::Result<Self> {
        let (questions, answers, child) = match launch {
            Launch::Program(program) => start_process(program, &mount.point)?,
            #[cfg(test)]
            Launch::Thread => start_thread(&mount.point)?,
        };
        Ok(Self {
            mount: mount.clone(),
            questions: questions.into(),
            answers: answers.into(),
            incomplete: Vec::new(),
            child,
        })
    }

    /// Asks for paths, one after the other; the empty path is the mount itself. Only when the
    /// answers to all earlier questions were heard, and for no more than [`Checker::batch_size`]: thus the
    /// pipes have room, and this does not block.
    ///
    /// # Errors
    /// The checker is gone.
    pub fn send(&mut self, paths: &[&Path]) -> io::Result<()> {
        let mut questions = Vec::new();
        for path in paths {
            questions.extend_from_slice(path.as_os_str().as_bytes());
            questions.push(END);
        }
        self.questions.write_all(&questions)
    }

    /// How many of these paths may be asked for at once, at least one: the questions fit into the
    /// smallest pipe (one page, pipe(7)), and the answers, of PATH_MAX bytes each, into an ordinary
    /// one (64 KiB).
    pub fn batch_size<'p>(paths: impl Iterator<Item = &'p Path>) -> usize {
        let mut room = 4096_usize;
        let fits = paths.take(15).take_while(|path| {
            let needed = path.as_os_str().len() + 1;
            let fits = needed <= room;
            room = room.saturating_sub(needed);
            fits
        });
        fits.count().max(1)
    }

    /// Readable when there is something to hear.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.answers.as_fd()
    }

    /// The answers that are whole by now, in the order of the questions. Blocks unless
    /// [`Checker::fd`] is readable.
    ///
    /// # Errors
    /// The checker is gone, or talks nonsense.
    pub fn receive(&mut self) -> io::Result<Vec<CheckResult>> {
        let mut bytes = [0; 8192];
        let count = match self.answers.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        self.incomplete.extend_from_slice(&bytes[..count]);
        let Some(end) = self.incomplete.iter().rposition(|byte| *byte == END) else {
            // It would be read for ever.
            if self.incomplete.len() > MAX_RESULT_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return Ok(Vec::new());
        };
        let rest = self.incomplete.split_off(end + 1);
        let whole = std::mem::replace(&mut self.incomplete, rest);
        let answers = whole[..end].split(|byte| *byte == END);
        let answers: Option<Vec<CheckResult>> = answers.map(CheckResult::decode).collect();
        answers.ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Lets it end. The process, if it is one, must be reaped some time after.
    pub fn close(self) -> Option<Child> {
        self.child
    }
}

type Ends = (OwnedFd, OwnedFd, Option<Child>);

/// With pipes of its own only: Telegraf reads our stdout and stderr to their end, which no hanging
/// checker may hold open.
fn start_process(program: &Path, point: &Path) -> io::Result<Ends> {
    let mut command = Command::new(program);
    command.arg0("telegraf-kvm").arg(FLAG).arg(point);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.stderr(Stdio::null()).spawn()?;
    match (child.stdin.take(), child.stdout.take()) {
        (Some(stdin), Some(stdout)) => Ok((stdin.into(), stdout.into(), Some(child))),
        _ => Err(io::ErrorKind::BrokenPipe.into()),
    }
}

#[cfg(test)]
impl Checker {
    /// One for any mount, whose answers the caller gives; what is asked stays in the first pipe.
    pub fn with_pipes() -> (Self, io::PipeReader, io::PipeWriter) {
        let (asked, questions) = io::pipe().unwrap();
        let (answers, told) = io::pipe().unwrap();
        let checker = Self {
            mount: Mount::default(),
            questions: OwnedFd::from(questions).into(),
            answers: OwnedFd::from(answers).into(),
            incomplete: Vec::new(),
            child: None,
        };
        (checker, asked, told)
    }
}

#[cfg(test)]
fn start_thread(point: &Path) -> io::Result<Ends> {
    let (questions, to) = io::pipe()?;
    let (from, answers) = io::pipe()?;
    let point = point.to_owned();
    std::thread::spawn(move || {
        super::checker_process::serve(&point, io::BufReader::new(questions), answers)
    });
    Ok((to.into(), from.into(), None))
}
