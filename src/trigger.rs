//! What starts a gather, and what ends the program: stdin, signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;
use std::time::Duration;

use crate::threads::{self, NotStarted};
use crate::times::{END_FORCED, STOP_FORCED};
use crate::{input, libvirt};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag::register_conditional_shutdown;
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

/// Exit code of a program that was to run until somebody stops it.
const STOPPED: i32 = 0;
/// Exit code of a program that was stopped before its work was done.
const UNDONE: i32 = 1;

/// Requests to gather fold before they are sent: while the loop is blocked in a write, a flood of
/// them would fill the memory.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicBool>);

impl Requests {
    /// Whether this one is to be sent: `false` while another is on its way.
    fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }

    /// The loop has taken the one that was on its way.
    pub fn taken(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The installed handlers.
#[derive(Debug)]
pub struct Handlers {
    signals: Signals,
    /// SIGTERM and SIGINT end the process at once, with [`STOPPED`],
    stops: Arc<AtomicBool>,
    /// or with [`UNDONE`].
    aborts: Arc<AtomicBool>,
}

/// Installs the handlers. First thing in `main`: in its signal modes Telegraf may signal right
/// after exec, and a process without a handler dies of it. A signal that came between a handler and
/// what it is to do would be lost (signal-hook-registry), so they wait until both are there.
///
/// Until [`Handlers::watch`], SIGTERM and SIGINT end the process in the handler itself, with exit
/// code 0: whatever the main thread waits for (a write to a full pipe, say), and also where no
/// thread can be started.
///
/// # Errors
/// The system's.
pub fn install_handlers() -> io::Result<Handlers> {
    const OURS: [i32; 5] = [SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGINT];
    libvirt::while_signals_wait(&OURS, || {
        let stops = Arc::new(AtomicBool::new(true));
        let aborts = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            register_conditional_shutdown(signal, STOPPED, Arc::clone(&stops))?;
            register_conditional_shutdown(signal, UNDONE, Arc::clone(&aborts))?;
        }
        let signals = Signals::new(OURS)?;
        Ok(Handlers {
            signals,
            stops,
            aborts,
        })
    })
}

impl Handlers {
    /// There is work to be done (`--check`, say): a stop before its end has exit code 1.
    pub fn stop_is_failure(&self) {
        self.aborts.store(true, Ordering::SeqCst);
        self.stops.store(false, Ordering::SeqCst);
    }

    /// Passes on what signals say, from now on SIGTERM and SIGINT, too. Signals that came since
    /// [`install_handlers`] are not lost.
    ///
    /// # Errors
    /// The system's, when no thread can be started.
    pub fn watch(
        self,
        requests: Requests,
        tell: impl Fn(Trigger) + Send + 'static,
    ) -> Result<(), NotStarted> {
        let Self {
            mut signals,
            stops,
            aborts,
        } = self;
        threads::start("signals", move || {
            for signal in signals.forever() {
                if signal == SIGTERM || signal == SIGINT {
                    tell(Trigger::Stop);
                    exit_after(STOP_FORCED);
                }
                if requests.is_first() {
                    tell(Trigger::Gather);
                }
            }
        })?;
        stops.store(false, Ordering::SeqCst);
        aborts.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Passes on what stdin says. With `self_timed` (`--interval`) a stdin that is at its end from the
/// start, /dev/null under systemd or cron, is no end.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn watch_stdin(
    self_timed: bool,
    requests: Requests,
    tell: impl Fn(Trigger) + Send + 'static,
) -> Result<(), NotStarted> {
    threads::start("stdin", move || {
        let mut fresh = self_timed && input::is_readable();
        let mut bytes = [0_u8; 4096];
        loop {
            match input::read(&mut bytes) {
                Ok(0) if fresh => return,
                Ok(0) => break,
                Ok(count) => {
                    fresh = false;
                    // However many newlines lie there, they ask for one gather.
                    let asks = bytes.iter().take(count).any(|&byte| byte == b'\n');
                    if asks && requests.is_first() {
                        tell(Trigger::Gather);
                    }
                }
                // Not logged: the end would wait for a reader of stderr.
                Err(_) if fresh => return,
                Err(_) => break,
            }
        }
        tell(Trigger::EndOfInput);
        exit_after(END_FORCED);
    })
}

/// The main thread may hang in a write to a pipe that nobody reads; this one does not.
fn exit_after(patience: Duration) -> ! {
    thread::sleep(patience);
    signal_hook::low_level::exit(0)
}
