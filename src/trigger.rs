//! What starts a gather and what ends the program: stdin and signals.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::Duration;

use crate::threads::{self, NotStarted};
pub use crate::times::SLOW_READ;
use crate::times::{END_FORCED, STOP_FORCED};
use crate::{blocking_io, libvirt};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::flag::register_conditional_shutdown;
use signal_hook::iterator::Signals;

/// What stdin or a signal asks for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Trigger {
    /// A newline, or one of the signals that Telegraf sends: gather.
    Gather,
    /// stdin is at its end: finish the gather that is pending, then end.
    EndOfInput,
    /// SIGTERM or SIGINT: end now.
    Stop,
}

/// Exit code of a program that was meant to run until it is stopped.
const STOPPED: i32 = 0;
/// Exit code of a program that was stopped before its work was done.
const UNDONE: i32 = 1;

/// Combines requests to gather: at most one is on its way to the main loop. A flood of them would fill
/// the memory while the loop is blocked in a write.
#[derive(Debug, Clone, Default)]
pub struct Requests(Arc<AtomicBool>);

impl Requests {
    /// Whether this request is to be sent; `false` while another one is on its way.
    pub fn is_first(&self) -> bool {
        !self.0.swap(true, Ordering::SeqCst)
    }

    /// The loop has received the request that was on its way.
    pub fn taken(&self) {
        self.0.store(false, Ordering::SeqCst);
    }
}

/// The signals that the program handles.
const OURS: [i32; 5] = [SIGHUP, SIGUSR1, SIGUSR2, SIGTERM, SIGINT];

/// What [`SignalThread::watch`] gives to the thread for signals.
type Receiving = Box<dyn Fn(Trigger) + Send>;

/// The installed signal handlers.
#[derive(Debug)]
pub struct Handlers {
    signals: Signals,
    /// Whether SIGTERM and SIGINT end the process in the handler, with exit code [`STOPPED`].
    stops: Arc<AtomicBool>,
    /// Whether they do so with exit code [`UNDONE`].
    aborts: Arc<AtomicBool>,
}

/// The thread for signals, or why there is none.
#[derive(Debug)]
pub struct SignalThread {
    receiving: Result<Sender<Receiving>, NotStarted>,
    stops: Arc<AtomicBool>,
    aborts: Arc<AtomicBool>,
}

/// Installs the signal handlers. Call this first in `main`: Telegraf may send a signal right after exec,
/// and a process without a handler would end. signal-hook-registry loses a signal that comes after the
/// handler is installed and before its action is registered, so signals are blocked until both are.
///
/// Until [`SignalThread::watch`], SIGTERM and SIGINT end the process in the handler itself, with exit code
/// 0. This works whatever the main thread waits for (a write to a full pipe, for example), and where no
/// thread can be started.
///
/// # Errors
/// The system does not let a handler be installed.
pub fn install_handlers() -> io::Result<Handlers> {
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
    /// Makes a stop that comes before [`SignalThread::watch`] end with exit code 1: for commands that have
    /// work to finish, such as `--check`.
    pub fn stop_is_failure(&self) {
        self.aborts.store(true, Ordering::SeqCst);
        self.stops.store(false, Ordering::SeqCst);
    }

    /// Starts the thread for signals, and calls `read` while it handles them. A read from a hard NFS mount
    /// whose server is away does not return for a signal that has a handler, so the thread that reads must
    /// not be the one that gets the signal. If `read` takes longer than [`SLOW_READ`], `is_slow` is called.
    ///
    /// Where no thread can be started, `read` is called all the same.
    pub fn start_thread<T>(
        self,
        is_slow: impl FnOnce() + Send + 'static,
        read: impl FnOnce() -> T,
    ) -> (SignalThread, T) {
        let Self {
            mut signals,
            stops,
            aborts,
        } = self;
        let (reading, has_read) = channel::<()>();
        let (sender, receiver) = channel::<Receiving>();
        let handle = move || {
            if has_read.recv_timeout(SLOW_READ) == Err(RecvTimeoutError::Timeout) {
                // Not in this thread: a full pipe on stderr would keep signals from being handled.
                let _ = threads::start("slow read", is_slow);
            }
            let Ok(tell) = receiver.recv() else {
                return;
            };
            for signal in signals.forever() {
                if signal == SIGTERM || signal == SIGINT {
                    tell(Trigger::Stop);
                    exit_after(STOP_FORCED);
                }
                tell(Trigger::Gather);
            }
        };
        let receiving = threads::start("signals", handle).map(|()| sender);
        let result = match receiving {
            Ok(_) => libvirt::while_signals_wait(&OURS, read),
            Err(_) => read(),
        };
        drop(reading);
        let thread = SignalThread {
            receiving,
            stops,
            aborts,
        };
        (thread, result)
    }
}

impl SignalThread {
    /// Has the thread call `tell` for each signal, from now on for SIGTERM and SIGINT, too. Signals that
    /// came since [`install_handlers`] are not lost.
    ///
    /// # Errors
    /// The thread could not be started.
    pub fn watch(self, tell: impl Fn(Trigger) + Send + 'static) -> Result<(), NotStarted> {
        // An error would mean that the thread has ended, which it does only with the process.
        let _ = self.receiving?.send(Box::new(tell));
        self.stops.store(false, Ordering::SeqCst);
        self.aborts.store(false, Ordering::SeqCst);
        Ok(())
    }
}

/// Starts the thread that calls `tell` for what comes from stdin. With `self_timed` (`--interval`), a stdin
/// that is at its end from the start (/dev/null under systemd or cron) does not count as the end of input.
///
/// # Errors
/// No thread can be started.
pub fn watch_stdin(
    self_timed: bool,
    tell: impl Fn(Trigger) + Send + 'static,
) -> Result<(), NotStarted> {
    threads::start("stdin", move || {
        let mut is_unused = self_timed && blocking_io::is_stdin_readable();
        let mut bytes = [0_u8; 4096];
        loop {
            match blocking_io::read_stdin(&mut bytes) {
                Ok(0) if is_unused => return,
                Ok(0) => break,
                Ok(count) => {
                    is_unused = false;
                    // All newlines that were read together ask for one gather.
                    let has_newline = bytes.iter().take(count).any(|&byte| byte == b'\n');
                    if has_newline {
                        tell(Trigger::Gather);
                    }
                }
                // This is not logged: the end of the program would wait for a reader of stderr.
                Err(_) if is_unused => return,
                Err(_) => break,
            }
        }
        tell(Trigger::EndOfInput);
        exit_after(END_FORCED);
    })
}

/// Ends the process after this time. The main thread may hang in a write to a pipe that nobody reads; the
/// calling thread does not.
fn exit_after(delay: Duration) -> ! {
    thread::sleep(delay);
    signal_hook::low_level::exit(0)
}
