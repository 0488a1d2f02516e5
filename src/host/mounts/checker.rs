//! This program's side of a checker, a process that accesses one mount or the local file systems
//! ([`super::checker_process`]).
//!
//! A checker may hang where not even a signal ends it. It is a process because a thread that hangs like
//! this keeps its whole process from ending. Its end is never waited for.

use std::fs::File;
use std::io::{self, Read, Write};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use super::checker_process::{CheckResult, END, FLAG};
use super::table::Mount;

/// How to start a checker.
#[derive(Debug)]
pub(super) enum Launch {
    /// As a process of this program.
    Program(PathBuf),
    /// As a thread, in unit tests, which are not the program.
    #[cfg(test)]
    Thread,
}

/// No result is longer: it is a letter and the target of a link, which has at most PATH_MAX (4096) bytes.
const MAX_RESULT_BYTES: usize = 8192;

/// A running checker. When this is dropped, the checker's stdin is closed and it ends as soon as the
/// kernel lets it.
#[derive(Debug)]
pub(super) struct Checker {
    /// The mount that it checks.
    pub mount: Mount,
    requests: File,
    results: File,
    /// The part of a result that has been received so far.
    incomplete: Vec<u8>,
    child: Option<Child>,
}

impl Checker {
    /// Starts a checker for this mount.
    ///
    /// # Errors
    /// The error of the system when no process can be started.
    pub fn start(launch: &Launch, mount: &Mount) -> io::Result<Self> {
        let (requests, results, child) = match launch {
            Launch::Program(program) => start_process(program, &mount.point)?,
            #[cfg(test)]
            Launch::Thread => start_thread(&mount.point)?,
        };
        Ok(Self {
            mount: mount.clone(),
            requests: requests.into(),
            results: results.into(),
            incomplete: Vec::new(),
            child,
        })
    }

    /// Requests a check of each of these paths. The empty path stands for the mount itself.
    ///
    /// This does not block as long as the pipes have room. Therefore the results of all earlier requests
    /// must have been received, and there may be at most [`Checker::batch_size`] paths.
    ///
    /// # Errors
    /// The checker has ended.
    pub fn send(&mut self, paths: &[&Path]) -> io::Result<()> {
        let mut requests = Vec::new();
        for path in paths {
            requests.extend_from_slice(path.as_os_str().as_bytes());
            requests.push(END);
        }
        self.requests.write_all(&requests)
    }

    /// How many of these paths may be sent at once, at least one. The requests fit into the smallest pipe
    /// (one page, pipe(7)), and the results, of PATH_MAX bytes each, into an ordinary pipe (64 KiB).
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

    /// Readable when [`Checker::receive`] does not block.
    pub fn fd(&self) -> BorrowedFd<'_> {
        self.results.as_fd()
    }

    /// The results that are complete by now, in the order of the requests. Blocks unless [`Checker::fd`]
    /// is readable.
    ///
    /// # Errors
    /// The checker has ended, or what it sent is not a result.
    pub fn receive(&mut self) -> io::Result<Vec<CheckResult>> {
        let mut bytes = [0; 8192];
        let count = match self.results.read(&mut bytes) {
            Ok(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => return Ok(Vec::new()),
            Err(error) => return Err(error),
        };
        self.incomplete.extend_from_slice(&bytes[..count]);
        let Some(end) = self.incomplete.iter().rposition(|byte| *byte == END) else {
            // Bytes without an end would be collected for ever.
            if self.incomplete.len() > MAX_RESULT_BYTES {
                return Err(io::ErrorKind::InvalidData.into());
            }
            return Ok(Vec::new());
        };
        let rest = self.incomplete.split_off(end + 1);
        let whole = std::mem::replace(&mut self.incomplete, rest);
        whole[..end]
            .split(|byte| *byte == END)
            .map(CheckResult::decode)
            .collect::<Option<Vec<_>>>()
            .ok_or(io::ErrorKind::InvalidData.into())
    }

    /// Lets the checker end. Returns its process, which has to be reaped later.
    pub fn close(self) -> Option<Child> {
        self.child
    }
}

/// Where requests are written, where results are read, and the process.
type Started = (OwnedFd, OwnedFd, Option<Child>);

/// Starts a checker which has no descriptors but its own pipes. Telegraf reads the stdout and stderr of
/// this program to their end, so a checker that hangs must not hold them open.
fn start_process(program: &Path, point: &Path) -> io::Result<Started> {
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
    /// A checker whose results are written by the caller. Requests remain in the first pipe.
    pub fn with_pipes() -> (Self, io::PipeReader, io::PipeWriter) {
        let (requested, requests) = io::pipe().unwrap();
        let (results, sent) = io::pipe().unwrap();
        let checker = Self {
            mount: Mount::default(),
            requests: OwnedFd::from(requests).into(),
            results: OwnedFd::from(results).into(),
            incomplete: Vec::new(),
            child: None,
        };
        (checker, requested, sent)
    }
}

#[cfg(test)]
fn start_thread(point: &Path) -> io::Result<Started> {
    let (requests, to) = io::pipe()?;
    let (from, results) = io::pipe()?;
    let point = point.to_owned();
    std::thread::spawn(move || {
        super::checker_process::serve(&point, io::BufReader::new(requests), results)
    });
    Ok((to.into(), from.into(), None))
}
