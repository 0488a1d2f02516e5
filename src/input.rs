//! stdin, read so that a non-blocking one is waited for.

use std::io;

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::Errno;

/// Reads what there is, and waits while there is nothing; 0 is the end of input.
///
/// Whoever shares the pipe, the socket or the terminal with us may have made it non-blocking
/// (`O_NONBLOCK` belongs to the open file, not to the process): EAGAIN is not the end.
///
/// # Errors
/// The system's.
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

/// Whether stdin has something to say this very moment, its end for instance.
pub fn is_readable() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}
