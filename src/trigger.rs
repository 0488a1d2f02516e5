//! What starts a gather, and what ends the program: stdin, signals.

use std::io::{self, Read};
use std::thread;
use std::time::Duration;

use crate::libvirt;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::iterator::Signals;

/// What came in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A newline, or one of Telegraf's signals: gather.
    Gather,
    /// stdin is at its end: answer what is pending, then end.
    EndOfInput,
    /// SIGTERM or SIGINT: end now.
    Stop,
}

/// Within this time after SIGTERM the process is gone, whatever a thread of it waits for.
const STOP_WITHIN: Duration = Duration::from_millis(1900);

/// Within this time after the end of input the process is gone.
const END_WITHIN: Duration = Duration::from_millis(3950);

/// Installs the handlers. First thing in `main`: in its signal modes Telegraf may signal right
/// after exec, and a process without a handler dies of it. A signal that came between a handler and
/// what it is to do would be lost (signal-hook-registry), so they wait until both are there.
///
/// # Errors
/// The system's.
pub fn install_handlers() -> io::Result<Signals> {
    const OURS: [i32; 5] = [SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGINT];
    libvirt::while_signals_wait(&OURS, || Signals::new(OURS))
}

/// Passes on what signals say. Signals that came since [`install_handlers`] are not lost.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn watch_signals(
    mut signals: Signals,
    tell: impl Fn(Trigger) + Send + 'static,
) -> io::Result<()> {
    let watch = move || {
        for signal in signals.forever() {
            if signal == SIGTERM || signal == SIGINT {
                tell(Trigger::Stop);
                exit_after(STOP_WITHIN);
            }
            tell(Trigger::Gather);
        }
    };
    let thread = thread::Builder::new().name("signals".into());
    thread.spawn(watch).map(drop)
}

/// Passes on what stdin says. With `self_timed` (`--interval`) a stdin that is at its end from the
/// start, /dev/null under systemd or cron, is no end.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn watch_stdin(self_timed: bool, tell: impl Fn(Trigger) + Send + 'static) -> io::Result<()> {
    let watch = move || {
        let mut fresh = self_timed && readable();
        let mut bytes = [0_u8; 4096];
        loop {
            match io::stdin().lock().read(&mut bytes) {
                Ok(0) if fresh => return,
                Ok(0) => break,
                Ok(count) => {
                    fresh = false;
                    // However many newlines lie there, they ask for one gather.
                    if bytes.iter().take(count).any(|&byte| byte == b'\n') {
                        tell(Trigger::Gather);
                    }
                }
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => {
                    log::debug!("stdin: {error}");
                    if fresh {
                        return;
                    }
                    break;
                }
            }
        }
        tell(Trigger::EndOfInput);
        exit_after(END_WITHIN);
    };
    let thread = thread::Builder::new().name("stdin".into());
    thread.spawn(watch).map(drop)
}

/// Whether stdin has something to say this very moment, its end for instance.
fn readable() -> bool {
    let stdin = rustix::stdio::stdin();
    let mut polled = [PollFd::new(&stdin, PollFlags::IN)];
    poll(&mut polled, Some(&Timespec::default())).is_ok_and(|ready| ready > 0)
}

/// The main thread may hang in a write to a pipe that nobody reads; this one does not.
fn exit_after(patience: Duration) -> ! {
    thread::sleep(patience);
    signal_hook::low_level::exit(0)
}
