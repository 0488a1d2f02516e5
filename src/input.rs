//! Reading stdin, also where it is non-blocking.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Reads what there is, and waits while there is nothing; 0 is the end of input.
///
/// Another process that shares the pipe, the socket or the terminal may have made it non-blocking
/// (`O_NONBLOCK` belongs to the open file, not to the process), so EAGAIN is not the end.
///
/// # Errors
/// The error of read(2).
pub fn read(bytes: &mut [u8]) -> io::Result<usize> {
    let stdin = rustix::stdio::stdin();
    loop {
        match rustix::io::read(stdin, &mut *bytes) {
            Ok(count) => return Ok(count),
            Err(Errno::INTR) => {}
            Err(Errno::AGAIN) => {
                let _ = poll(&mut [PollFd::new(&stdin, PollFlags::IN)], None);
            }
            Err(error) => return Err(error.into()),
        }
    }
}

/// Whether a read of stdin would return at once: with input, the end of input or an error.
pub fn is_readable() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
