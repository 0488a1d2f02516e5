//! Reading and writing that waits, also on a descriptor that is non-blocking.
//!
//! `O_NONBLOCK` belongs to the open file, not to the process: another process that shares the pipe, the
//! socket or the terminal may have set it. So EAGAIN is neither the end of input nor an error.

use std::io;
use std::os::fd::BorrowedFd;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Reads what there is on stdin, and waits while there is nothing; 0 is the end of input.
///
/// # Errors
/// The error of read(2).
pub(crate) fn read_stdin(bytes: &mut [u8]) -> io::Result<usize> {
    let stdin = rustix::stdio::stdin();
    loop {
        match rustix::io::read(stdin, &mut *bytes) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(stdin, PollFlags::IN),
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a read of stdin would return at once: with input, the end of input or an error.
pub(crate) fn is_stdin_readable() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// Writes all bytes, in one write where the kernel takes them.
///
/// # Errors
/// The error of write(2).
pub(crate) fn write_all(fd: BorrowedFd<'_>, mut bytes: &[u8]) -> rustix::io::Result<()> {
    while !bytes.is_empty() {
        match rustix::io::write(fd, bytes) {
            Ok(written) => bytes = bytes.get(written..).unwrap_or_default(),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => wait(fd, PollFlags::OUT),
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

fn wait(fd: BorrowedFd<'_>, event: PollFlags) {
    let _ = poll(&mut [PollFd::new(&fd, event)], None);
}
