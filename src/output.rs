//! stdout: whole lines, on a descriptor of the program's own, and time for the reader before the end.
//!
//! A line that is cut is not lost but wrong: Telegraf stores `txdrops=448920473i 179568` as a point
//! of 1970. The process may end at any time, by itself or by SIGKILL, while it waits for the reader.
//! So it waits only in writes that are taken as a whole or not at all:
//!
//! - A pipe takes [`PIPE_BUF`] bytes (one page) as a whole, whatever else happens (pipe(7)).
//! - A longer line is written when the pipe is empty, and has room for it: such a write waits for
//!   nothing. Where the pipe cannot be made larger (fcntl(2), F_SETPIPE_SZ: over
//!   /proc/sys/fs/pipe-max-size, or the user has too many pages in pipes), it may be cut.
//! - A socket of the Unix domain takes as much as a whole: it is one buffer (`unix_stream_sendmsg`).
//!   One of TCP and a terminal may take part of a line, and a file does on a full disk.

use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;
use rustix::pipe::{PIPE_BUF, fcntl_getpipe_size, fcntl_setpipe_size};

use crate::times::{LONGEST_DRAIN, SETTLE};
use crate::{libvirt, logging};

/// Between two looks whether a pipe has been read: the first, and the longest.
const SHORT_WAIT: Duration = Duration::from_micros(100);
const LONG_WAIT: Duration = Duration::from_millis(5);

/// Where the program prints.
#[derive(Debug)]
pub struct Output {
    /// Or why there is none.
    own: Result<OwnedFd, Errno>,
    kind: FileType,
}

impl Output {
    /// Takes stdout away from everything else in this process: what a library prints on descriptor 1
    /// (GLib does where it cannot convert its messages) goes to stderr. Call once, first thing in
    /// `main`.
    ///
    /// From then on a write over the limit of a file's size (`ulimit -f`) fails and does not kill.
    pub fn take() -> Self {
        // By default SIGXFSZ kills; a handler that does nothing much makes it an error (EFBIG).
        let _ = signal_hook::flag::register(libc::SIGXFSZ, Arc::default());
        let stdout = rustix::stdio::stdout();
        let own = if libvirt::stdout_was_closed() {
            Err(Errno::BADF)
        } else {
            // Not below 3: those are in use, or will be taken for stdin, stdout and stderr.
            rustix::io::fcntl_dupfd_cloexec(stdout, 3)
        };
        let _ = rustix::stdio::dup2_stdout(rustix::stdio::stderr());
        Self::new(own)
    }

    fn new(own: Result<OwnedFd, Errno>) -> Self {
        let kind = own.as_ref().map_or(FileType::Unknown, file_type);
        Self { own, kind }
    }

    /// Writes all of these lines. Nothing is buffered on this side, so there is nothing to flush.
    ///
    /// # Errors
    /// The system's: `BrokenPipe` says that nobody reads any more, also of a socket or a terminal. One
    /// of our own where stdout was closed when the program started.
    pub fn write(&self, mut lines: &[u8]) -> io::Result<()> {
        let own = match &self.own {
            Ok(own) => own.as_fd(),
            Err(Errno::BADF) => {
                return Err(io::Error::other("it was closed when the program started"));
            }
            Err(error) => return Err((*error).into()),
        };
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

    /// How many bytes of these lines, at least one line, the next write may have. Waits until the
    /// pipe has room where one that is too long for a page comes next.
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
        // And what else has room now.
        whole_lines(lines, room)
    }

    /// Waits until the pipe on stdout has been read, until `limit` at the longest. `telegraf --test`
    /// waits for the process while it still reads, and loses what is left in the pipe at its end.
    pub fn drain(&self, limit: Instant) {
        if let Ok(own) = &self.own
            && self.kind == FileType::Fifo
        {
            wait_until_read(own.as_fd(), Some(limit));
        }
    }

    /// Lets go of stdout and stderr, where they are pipes, and gives their readers time to see the
    /// end. Nothing can be written afterwards.
    ///
    /// At the end of the process Telegraf closes its ends of the pipes; a reader of its own that
    /// still waits there then logs `E! read |0: file already closed` (3 of 20 runs of
    /// `telegraf --test`), and what it has not read of stderr by then, the reason of a failed start
    /// say, is lost.
    pub fn close(self) {
        if self.kind != FileType::Fifo && !with_stderr(is_pipe) {
            return;
        }
        let Ok(nothing) = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty()) else {
            return;
        };
        drop(self.own);
        // Descriptor 1 is stderr by another name.
        let _ = rustix::stdio::dup2_stdout(&nothing);
        let _ = rustix::stdio::dup2_stderr(&nothing);
        logging::close();
        thread::sleep(SETTLE);
    }
}

/// [`Output::drain`] for stderr, after the last word.
pub fn drain_stderr(limit: Instant) {
    with_stderr(|stderr| {
        if is_pipe(stderr) {
            wait_until_read(stderr, Some(limit));
        }
    });
}

/// Does something with what was stderr when the program started.
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

/// The length of as many whole lines as `room` bytes hold; of the first one where it is longer.
fn whole_lines(lines: &[u8], room: usize) -> usize {
    let Some(within) = lines.get(..room) else {
        return lines.len();
    };
    memchr::memrchr(b'\n', within)
        .or_else(|| memchr::memchr(b'\n', lines))
        .map_or(lines.len(), |end| end + 1)
}

/// Writes all of it, in one piece where the kernel takes it.
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Another program that shares the pipe may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&fd, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Waits until all that lies in the pipe has been read, or it has no reader any more; until `limit`
/// at the longest, and no longer than [`LONGEST_DRAIN`].
fn wait_until_read(pipe: BorrowedFd<'_>, limit: Option<Instant>) {
    let limit = limit.map(|limit| limit.min(Instant::now() + LONGEST_DRAIN));
    let mut wait = SHORT_WAIT;
    while rustix::io::ioctl_fionread(pipe).is_ok_and(|unread| unread > 0) {
        if limit.is_some_and(|limit| Instant::now() >= limit) {
            return;
        }
        let timeout = Timespec::try_from(wait).ok();
        // No event is asked for, but one comes unasked: POLLERR, the last reader has gone.
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
