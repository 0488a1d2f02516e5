//! Writes whole lines to stdout, on a descriptor of the program's own, and gives the reader time before the
//! end.
//!
//! A line that is cut is worse than one that is lost: Telegraf stores `txdrops=448920473i 179568` as a
//! point of 1970. The process may end at any time while it waits for the reader, by itself or by SIGKILL.
//! So it waits only in writes of which the kernel takes all or nothing:
//!
//! - A pipe takes [`PIPE_BUF`] bytes (one page) as a whole, whatever else happens (pipe(7)).
//! - A longer line is written when the pipe is empty and large enough, so that the write does not wait.
//!   Such a line may be cut where the pipe cannot be made large enough (fcntl(2), F_SETPIPE_SZ: the size
//!   is over /proc/sys/fs/pipe-max-size, or the user has too many pages in pipes).
//! - A Unix domain socket takes up to a page as a whole: it is one buffer (`unix_stream_sendmsg`). A TCP
//!   socket or a terminal may take part of a line, and a file does so on a full disk.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PIPE_BUF, fcntl_getpipe_size, fcntl_setpipe_size};

use crate::blocking_io::write_all;
pub use crate::times::FAILURE_DRAIN;
use crate::times::{LONGEST_DRAIN, SETTLE};
use crate::{libvirt, logging};

/// The first time between two checks whether a pipe has been read.
const SHORT_WAIT: Duration = Duration::from_micros(100);
/// The longest time between two checks.
const LONG_WAIT: Duration = Duration::from_millis(5);

/// Where the program prints: what was stdout when it started.
#[derive(Debug)]
pub struct Output {
    /// The descriptor, or why there is none.
    own: Result<OwnedFd, Errno>,
    kind: FileType,
    /// Held during a write.
    writing: Mutex<()>,
}

impl Output {
    /// Reserves stdout for this program's lines: what a library prints to descriptor 1 from now on (as GLib
    /// does where it cannot convert its messages) goes to stderr. Call this once, first in `main`.
    ///
    /// From now on a write beyond the limit of a file's size (`ulimit -f`) fails instead of ending the process.
    pub fn take() -> Self {
        // By default SIGXFSZ ends the process; with any handler the write fails (EFBIG).
        let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
        let stdout = rustix::stdio::stdout();
        let own = if libvirt::stdout_was_closed() {
            Err(Errno::BADF)
        } else {
            // At least 3: the lower ones are stdin, stdout and stderr, or would be taken for them.
            rustix::io::fcntl_dupfd_cloexec(stdout, 3)
        };
        let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
        Self::new(own)
    }

    fn new(own: Result<OwnedFd, Errno>) -> Self {
        let kind = own.as_ref().map_or(FileType::Unknown, file_type);
        Self {
            own,
            kind,
            writing: Mutex::default(),
        }
    }

    /// Writes all of these lines, and none of another thread between them. Nothing is buffered here, so there is nothing to
    /// flush.
    ///
    /// # Errors
    /// The error of write(2), with `BrokenPipe` for a socket or a terminal without a reader as well. Also where
    /// stdout was closed when the program started.
    pub fn write(&self, mut lines: &[u8]) -> io::Result<()> {
        let own = match &self.own {
            Ok(own) => own.as_fd(),
            Err(Errno::BADF) => {
                return Err(io::Error::other("it was closed when the program started"));
            }
            Err(error) => return Err((*error).into()),
        };
        let _writing = self.writing.lock().unwrap_or_else(PoisonError::into_inner);
        while !lines.is_empty() {
            let size = self.piece(own, lines);
            let (piece, rest) = lines.split_at_checked(size).unwrap_or((lines, &[]));
            write_all(own, piece).map_err(|error| match (error, self.kind) {
                (Errno::CONNRESET, FileType::Socket) | (Errno::IO, FileType::CharacterDevice) => {
                    Errno::PIPE
                }
                (error, _) => error,
            })?;
            lines = rest;
        }
        Ok(())
    }

    /// How many bytes the next write may have: whole lines, at least one. Where the next line is longer than a
    /// page, this waits until the pipe is empty.
    fn piece(&self, own: BorrowedFd<'_>, lines: &[u8]) -> usize {
        if !matches!(self.kind, FileType::Fifo | FileType::Socket) {
            return lines.len();
        }
        let size = whole_lines(lines, PIPE_BUF);
        if size <= PIPE_BUF || self.kind != FileType::Fifo {
            return size;
        }
        wait_until_read(own, None);
        let room = fcntl_getpipe_size(own)
            .and_then(|room| {
                if room < size {
                    fcntl_setpipe_size(own, size)
                } else {
                    Ok(room)
                }
            })
            .unwrap_or(size);
        // As many further lines as the empty pipe has room for.
        whole_lines(lines, room)
    }

    /// Waits until all in the pipe on stdout has been read, until `limit` at the longest. `telegraf --test`
    /// loses what is left in the pipe when the process ends.
    pub fn drain(&self, limit: Instant) {
        if let Ok(own) = &self.own
            && self.kind == FileType::Fifo
        {
            wait_until_read(own.as_fd(), Some(limit));
        }
    }

    /// Closes stdout and stderr, where they are pipes, and gives their readers time to see the end. Nothing
    /// can be written afterwards.
    ///
    /// When the process ends, Telegraf closes its ends of the pipes. If its own reader still waits there, it
    /// logs `E! read |0: file already closed` (in 3 of 20 runs of `telegraf --test`), and what it has not
    /// read of stderr, such as the reason of a failed start, is lost.
    pub fn close(self) {
        if self.kind != FileType::Fifo && !with_stderr(is_pipe) {
            return;
        }
        let Ok(nothing) = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty()) else {
            return;
        };
        drop(self.own);
        // Descriptor 1 is a copy of stderr since `take`.
        let _ = rustix::stdio::dup2_stdout(&nothing);
        let _ = rustix::stdio::dup2_stderr(&nothing);
        logging::close();
        thread::sleep(SETTLE);
    }
}

/// Waits until all in the pipe on stderr has been read, until `limit` at the longest.
pub fn drain_stderr(limit: Instant) {
    with_stderr(|stderr| {
        if is_pipe(stderr) {
            wait_until_read(stderr, Some(limit));
        }
    });
}

/// Calls `work` with what was stderr when the program started.
fn with_stderr<T>(work: impl FnOnce(BorrowedFd<'_>) -> T) -> T {
    match logging::descriptor() {
        Some(log) => work(log.as_fd()),
        None => work(rustix::stdio::stderr()),
    }
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    file_type(&fd) == FileType::Fifo
}

fn file_type(fd: &impl AsFd) -> FileType {
    rustix::fs::fstat(fd).map_or(FileType::Unknown, |stat| {
        FileType::from_raw_mode(stat.st_mode)
    })
}

/// The length of as many whole lines as fit into `room` bytes, or of the first line where it is longer.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    let Some(within) = lines.get(..room) else {
        return lines.len();
    };
    memchr::memrchr(b'\n', within)
        .or_else(|| memchr::memchr(b'\n', lines))
        .map_or(lines.len(), |end| end + 1)
}

/// Waits until all in the pipe has been read or the pipe has no reader. Where there is a `limit`, it waits
/// no longer than that and than [`LONGEST_DRAIN`].
fn wait_until_read(pipe: BorrowedFd<'_>, limit: Option<Instant>) {
    let limit = limit.map(|limit| limit.min(Instant::now() + LONGEST_DRAIN));
    let mut wait = SHORT_WAIT;
    while rustix::io::ioctl_fionread(pipe).is_ok_and(|unread| unread > 0) {
        if limit.is_some_and(|limit| Instant::now() >= limit) {
            return;
        }
        let timeout = Timespec::try_from(wait).ok();
        // POLLERR needs no request: the last reader has closed the pipe.
        let mut polled = [PollFd::new(&pipe, PollFlags::empty())];
        match poll(&mut polled, timeout.as_ref()) {
            Ok(0) | Err(Errno::INTR) => {}
            _ => return,
        }
        wait = LONG_WAIT.min(wait * 2);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_piece_is_as_many_whole_lines_as_fit_or_the_first() {
        for (lines, room, size) in [
            ("", 4, 0),
            ("ab\n", 4, 3),
            ("ab\ncd\n", 6, 6),
            ("ab\ncd\n", 5, 3),
            ("ab\ncd\n", 3, 3),
            ("ab\ncd\n", 2, 3),
            ("ab\ncd", 4, 3),
            ("abcd", 3, 4),
        ] {
            assert_eq!(whole_lines(lines.as_bytes(), room), size, "{lines:?}");
        }
    }

    #[test]
    fn waiting_for_room_ends_when_the_reader_has_gone() {
        let (reader, writer) = io::pipe().unwrap();
        let output = Output::new(Ok(writer.into()));
        output.write(b"#\n").unwrap();
        let long = [&[b'x'; PIPE_BUF][..], b"\n"].concat();
        let waits = thread::spawn(move || output.write(&long));
        thread::sleep(Duration::from_millis(50));
        drop(reader);
        let error = waits.join().unwrap().unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    }
}
