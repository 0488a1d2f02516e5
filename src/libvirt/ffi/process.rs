//! What concerns the whole process: libvirt's library and its event loop, descriptors, memory.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use virt::sys;

use super::{check, last_error};
use crate::libvirt::Error;
use crate::threads::{self, NotStarted};

/// libvirt prints errors to stderr unless told otherwise; ours come back as [`Error`].
unsafe extern "C" fn silent(_: *mut c_void, _: sys::virErrorPtr) {}

/// Sets the library up. Call once, before any connection is opened and any thread is started.
///
/// # Errors
/// Whatever `virInitialize` or `virEventRegisterDefaultImpl` says.
pub fn initialize() -> Result<(), Error> {
    // SAFETY: the error function has the signature asked for and touches nothing; setting it stores a
    // pointer. The other two take no arguments and are documented as the first ones to make.
    unsafe {
        // First: virInitialize has errors of its own (LIBVIRT_DEBUG=bogus).
        sys::virSetErrorFunc(ptr::null_mut(), Some(silent));
        check(sys::virInitialize())?;
        check(sys::virEventRegisterDefaultImpl())?;
    }
    Ok(())
}

/// Starts the thread that runs libvirt's event loop: keepalive and domain events need it.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start_event_loop() -> Result<(), NotStarted> {
    threads::start("events", || {
        loop {
            // SAFETY: no arguments; the default implementation was registered in
            // `initialize`, and this thread alone runs it.
            if unsafe { sys::virEventRunDefaultImpl() } < 0 {
                log::debug!("libvirt's event loop failed: {}", last_error());
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    })
}

/// Closes all files but stdin, stdout and stderr, for a process that this program has started of
/// itself: libvirt opens its sockets without O_CLOEXEC and marks them a moment later, so what
/// starts in that moment has them. Call first thing in `main`. Before Linux 5.9 it does nothing.
pub fn close_inherited() {
    let last = c_uint::MAX;
    // SAFETY: nothing was opened yet, so that nobody owns what is closed; by number, for the C
    // library has no such function before glibc 2.34.
    unsafe { libc::syscall(libc::SYS_close_range, 3, last, 0) };
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the program was started without descriptor 1 (`>&-`). Rust's runtime opens /dev/null in
/// its place before `main`.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn look_at_stdout() {
    // SAFETY: asks for flags; for a number that is no open descriptor it fails, and does nothing.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags < 0, Ordering::Relaxed);
}

// SAFETY: the C runtime calls what stands in this section once, before `main` and so before Rust's
// runtime; the function needs nothing of either.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = look_at_stdout;

/// All threads take memory from one place: what one has freed serves the next. With glibc's usual
/// arena per thread a gather of 10,000 VMs kept 54 MB more, and took more processor time for it.
pub fn share_memory() {
    // SAFETY: sets a limit of the allocator's; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Raises the soft limit of open files to the hard one. rustix panics where a filter of system calls
/// (seccomp(2)) denies the question.
///
/// # Errors
/// The system's.
pub fn raise_file_limit() -> io::Result<()> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through both calls, which keep no pointer to it.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if done {
        Ok(())
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Does `work` while these signals wait, and lets them in afterwards, also those that whoever started
/// the program had blocked (pthread_sigmask(3)). Only in a process of one thread.
pub fn while_signals_wait<T>(signals: &[c_int], work: impl FnOnce() -> T) -> T {
    let change = |how| {
        // SAFETY: an all-zero set is valid memory for sigemptyset, which makes it an empty one; it
        // lives through the calls, and the old mask is not asked for.
        unsafe {
            let mut set: libc::sigset_t = std::mem::zeroed();
            libc::sigemptyset(&mut set);
            for signal in signals {
                libc::sigaddset(&mut set, *signal);
            }
            libc::pthread_sigmask(how, &set, ptr::null_mut());
        }
    };
    change(libc::SIG_BLOCK);
    let done = work();
    change(libc::SIG_UNBLOCK);
    done
}
