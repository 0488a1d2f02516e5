//! The last words of a process that crashes: what libraries wrote to their pipe
//! ([`crate::logging::capture`]) and nobody will read any more.

use std::ffi::{c_int, c_uint, c_void};
use std::os::fd::{AsRawFd, BorrowedFd};
use std::ptr;
use std::sync::OnceLock;
use std::sync::atomic::{AtomicI32, Ordering};

/// abort(3): glibc, GLib and Rust print their reason first. SIGTRAP: GLib's fatal messages. The
/// others print nothing, but what came before them may be the reason.
const SIGNALS: [c_int; 4] = [libc::SIGABRT, libc::SIGTRAP, libc::SIGSEGV, libc::SIGBUS];

/// How long the last words may take, in s.
const LAST_WORDS: c_uint = 2;

static PIPE: AtomicI32 = AtomicI32::new(-1);
static LOG: AtomicI32 = AtomicI32::new(-1);
/// What was done at these signals before: Rust has a handler that tells an overflow of the stack.
static BEFORE: OnceLock<Vec<(c_int, libc::sigaction)>> = OnceLock::new();

/// From now on a crash first copies to `log` what is in `pipe`, which must be non-blocking. Both must
/// stay open until [`forget_crash`].
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

/// Ends what [`pass_on_at_crash`] began.
pub fn forget_crash() {
    PIPE.store(-1, Ordering::SeqCst);
    LOG.store(-1, Ordering::SeqCst);
}

/// Copies, and lets the signal do what it would have done.
unsafe extern "C" fn on_crash(signal: c_int, info: *mut libc::siginfo_t, _: *mut c_void) {
    let (pipe, log) = (PIPE.load(Ordering::SeqCst), LOG.load(Ordering::SeqCst));
    // SAFETY: only calls of signal-safety(7); descriptors of -1 fail. The kernel gives `info`.
    unsafe {
        // The log may wait for a reader, and other threads may go on filling the pipe; the process is
        // to end all the same.
        libc::signal(libc::SIGALRM, libc::SIG_DFL);
        let mut alarm: libc::sigset_t = std::mem::zeroed();
        libc::sigaddset(&mut alarm, libc::SIGALRM);
        libc::pthread_sigmask(libc::SIG_UNBLOCK, &alarm, ptr::null_mut());
        libc::alarm(LAST_WORDS);
        // What is written from now on goes past the pipe.
        libc::dup2(log, libc::STDERR_FILENO);
        libc::dup2(log, libc::STDOUT_FILENO);
        // Small: the stack may be the alternative one of 8 KiB.
        let mut bytes = [0_u8; 512];
        loop {
            let count = libc::read(pipe, bytes.as_mut_ptr().cast(), bytes.len());
            let Ok(count @ 1..) = usize::try_from(count) else {
                break;
            };
            libc::write(log, bytes.as_ptr().cast(), count);
        }
        // An instruction that faults does so again when this returns, then for the earlier handler:
        // Rust's tells an overflow of the stack. All else is sent again, and ends the process.
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
