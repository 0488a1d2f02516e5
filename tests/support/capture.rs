//! The output of a program, which a thread reads from a pipe.

use super::wait_for;
use rustix::event::{PollFd, PollFlags, poll};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard};
use std::time::{Duration, Instant};

/// The longest time that the thread may need for what is in the pipe.
const LIMIT: Duration = Duration::from_secs(30);

/// A pipe, and the thread that reads it.
pub struct Capture {
    /// Our end of the pipe.
    pipe: OwnedFd,
    output: Arc<Mutex<CapturedOutput>>,
}

/// What was read.
#[derive(Default)]
pub struct CapturedOutput {
    /// All bytes.
    pub bytes: Vec<u8>,
    /// When the last of them were read.
    pub last: Option<Instant>,
    /// Whether there can be no more.
    pub closed: bool,
}

impl Capture {
    /// Starts the thread.
    pub fn start(mut pipe: impl Read + AsFd + Send + 'static) -> Capture {
        let ours = pipe.as_fd().try_clone_to_owned().unwrap();
        let output: Arc<Mutex<CapturedOutput>> = Arc::default();
        let captured = Arc::clone(&output);
        std::thread::spawn(move || {
            let mut buffer = [0; 65536];
            loop {
                let _ = poll(&mut [PollFd::new(&pipe, PollFlags::IN)], None);
                // The bytes go from the pipe to `bytes` under the lock, see `so_far`.
                let mut captured = captured.lock().unwrap();
                let count = pipe.read(&mut buffer).unwrap_or(0);
                if count == 0 {
                    captured.closed = true;
                    return;
                }
                captured.bytes.extend_from_slice(&buffer[..count]);
                captured.last = Some(Instant::now());
            }
        });
        Capture { pipe: ours, output }
    }

    /// All that was written to the pipe before this call.
    pub fn so_far(&self) -> MutexGuard<'_, CapturedOutput> {
        wait_for("the pipe to be read", LIMIT, || {
            let left = rustix::io::ioctl_fionread(&self.pipe).unwrap();
            (left == 0).then_some(())
        });
        self.output.lock().unwrap()
    }
}
