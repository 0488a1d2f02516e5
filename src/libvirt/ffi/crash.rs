//! When the process crashes, copies to the log what libraries have written to their pipe
//! ([`crate::logging::capture`]).

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// The signals of a crash. Before SIGABRT (abort(3)), glibc, GLib and Rust print a reason, and GLib before SIGTRAP.
/// Nothing is printed for the others, but an earlier message may be the reason.
const SIGNALS: [c_int; 4] = [libc::SIGABRT, libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS];

/// How long the copying may take, in seconds.
const COPY_TIME: c_uint = 2;

static PIPE: AtomicI32 = AtomicI32::new(-1);
static LOG: AtomicI32 = AtomicI32::new(-1);
/// The earlier actions for these signals. Rust has a handler that reports an overflow of the stack.
static BEFORE: OnceLock<Vec<(c_int, libc::sigaction)>> = OnceLock::new();

/// Installs handlers that at a crash copy the content of `pipe`, which must be non-blocking, to `log`. Both must stay
/// open until [`forget_crash`].
pub fn pass_on_at_crash(pipe: BorrowedFd<'_>, log: BorrowedFd<'_>) {
    PIPE.store(pipe.as_raw_fd(), Ordering::SeqCst);
    LOG.store(log.as_raw_fd(), Ordering::SeqCst);
    // SAFETY: all-zero is a valid sigaction, and each lives through the calls; the handler has the
    // signature that SA_SIGINFO asks for and makes only calls that are safe in one.
    unsafe {
        BEFORE.get_or_init(|| {
            let before = |signal| {
                let mut action: libc::sigaction = std::mem::zeroed();
                libc::sigaction(signal, ptr::null(), &mut action);
                (signal, action)
            };
            SIGNALS.map(before).to_vec()
        });
        let mut action: libc::sigaction = std::mem::zeroed();
        let handler: unsafe extern "C" fn(c_int, *mut libc::siginfo_t, *mut c_void) = on_crash;
        action.sa_sigaction = handler as usize;
        action.sa_flags = libc::SA_SIGINFO | libc::SA_ONSTACK;
        for signal in SIGNALS {
            libc::sigaction(signal, &action, ptr::null_mut());
        }
    }
}

/// Undoes [`pass_on_at_crash`]: the descriptors are not used any more.
pub fn forget_crash() {
    PIPE.store(-1, Ordering::SeqCst);
    LOG.store(-1, Ordering::SeqCst);
}

/// Copies the content of the pipe, and lets the signal have its usual effect.
unsafe extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let (pipe, log) = (PIPE.load(Ordering::SeqCst), LOG.load(Ordering::SeqCst));
    // SAFETY: only calls of signal-safety(7); descriptors of -1 fail. The kernel gives `info`.
    unsafe {
        // A write to the log may wait for its reader, and other threads may go on writing to the pipe. The alarm
        // ends the process in any case.
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &alarm, ptr::null_mut());
        libc::alarm(COPY_TIME);
        // What is written from now on does not go to the pipe.
        libc::dup2(log, libc::STDERR_FILENO);
        libc::dup2(log, libc::STDOUT_FILENO);
        // The buffer is small because the stack may be the alternative one of 8 KiB.
        let mut bytes = [0_u8; 512];
        loop {
            let count = libc::read(pipe, bytes.as_mut_ptr().cast(), bytes.len());
            let Ok(count @ 1..) = usize::try_from(count) else {
                break;
            };
            libc::write(log, bytes.as_ptr().cast(), count);
        }
        // A faulting instruction faults again when this handler returns, and the earlier handler is called: that
        // of Rust reports an overflow of the stack. Any other signal is raised again and ends the process.
        let faults = matches!(signal, libc::SIGSEGV | libc::SIGBUS) && (*info).si_code > 0;
        let mut before = BEFORE.get().into_iter().flatten();
        match before.find(|(of, _)| faults && *of == signal) {
            Some((_, action)) => {
                libc::sigaction(signal, action, ptr::null_mut());
            }
            None => {
                libc::signal(signal, libc::SIG_DFL);
                libc::raise(signal);
            }
        }
    }
}
