//! stdout: one write per gather, and time for the reader before the end.

use std::io;
use std::os::fd::BorrowedFd;
use std::thread;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, poll};
use rustix::fs::{FileType, Mode, OFlags};
use rustix::io::Errno;

/// Writes all of it. One `write` where the kernel takes it whole; nothing is buffered on this side,
/// so there is nothing to flush.
///
/// # Errors
/// The system's: `BrokenPipe` says that nobody reads any more.
pub fn write(mut bytes: &[u8]) -> io::Result<()> {
    let stdout = rustix::stdio::stdout();
    while !bytes.is_empty() {
        match rustix::io::write(stdout, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            // Whoever shares the pipe with us may have made it non-blocking.
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stdout, PollFlags::OUT)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Ok(())
}

/// Waits until the pipe on stdout has been read, until `limit` at the longest. `telegraf --test`
/// waits for the process while it still reads, and loses what is left in the pipe at its end.
pub fn drain(limit: Instant) {
    wait_until_read(rustix::stdio::stdout(), limit);
}

/// The same for stderr, after the last word.
pub fn drain_stderr(limit: Instant) {
    wait_until_read(rustix::stdio::stderr(), limit);
}

fn wait_until_read(pipe: BorrowedFd<'_>, limit: Instant) {
    if !is_pipe(pipe) {
        return;
    }
    let limit = limit.min(Instant::now() + Duration::from_secs(1));
    while rustix::io::ioctl_fionread(pipe).is_ok_and(|unread| unread > 0) {
        if Instant::now() >= limit {
            return;
        }
        thread::sleep(Duration::from_millis(5));
    }
}

/// Lets go of stdout and stderr, where they are pipes, and gives their readers time to see the
/// end. Nothing can be written afterwards.
///
/// At the end of the process Telegraf closes its ends of the pipes; a reader of its own that still
/// waits there then logs `E! read |0: file already closed` (3 of 20 runs of `telegraf --test`), and
/// what it has not read of stderr by then, the reason of a failed start say, is lost.
pub fn close() {
    let (stdout, stderr) = (rustix::stdio::stdout(), rustix::stdio::stderr());
    if !is_pipe(stdout) && !is_pipe(stderr) {
        return;
    }
    let Ok(nothing) = rustix::fs::open("/dev/null", OFlags::WRONLY, Mode::empty()) else {
        return;
    };
    let _ = rustix::stdio::dup2_stdout(&nothing);
    let _ = rustix::stdio::dup2_stderr(&nothing);
    // What was read from the pipe is not yet parsed: the figure at which nothing was lost any more.
    let settle = Duration::from_millis(100);
    thread::sleep(settle);
}

fn is_pipe(fd: BorrowedFd<'_>) -> bool {
    rustix::fs::fstat(fd).is_ok_and(|stat| FileType::from_raw_mode(stat.st_mode) == FileType::Fifo)
}
