//! Set-up of the whole process: libvirt's library and its event loop, descriptors, memory, signals.

use std::ffi::{c_int, c_uint, c_void};
use std::io;
use std::ptr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use virt::sys;

use super::{check, last_error};
use crate::libvirt::Error;
use crate::threads::{self, NotStarted};

/// libvirt prints errors to stderr unless there is an error function. Here they are returned as [`Error`].
unsafe extern "C" fn silent(_: *mut c_void, _: sys::virErrorPtr) {}

/// Sets the library up. Call this once, before any connection is opened.
///
/// # Errors
/// The error of `virInitialize` or `virEventRegisterDefaultImpl`.
pub fn initialize() -> Result<(), Error> {
    // SAFETY: the error function has the required signature and does nothing; setting it stores a pointer. The
    // other two functions have no arguments and are documented as the first ones to call.
    unsafe {
        // This is the first call because virInitialize may fail itself (LIBVIRT_DEBUG=bogus).
        sys::virSetErrorFunc(ptr::null_mut(), Some(silent));
        check(sys::virInitialize())?;
        check(sys::virEventRegisterDefaultImpl())?;
    }
    Ok(())
}

/// The version of libvirt's client library in this process, 9_000_000 for 9.0.0 (`virGetVersion`, which makes no call
/// to a daemon).
///
/// # Errors
/// The error of libvirt.
pub fn client_version() -> Result<u64, Error> {
    let mut version = 0;
    // SAFETY: the number lives through the call, and without a type no other version is stored.
    check(unsafe { sys::virGetVersion(&mut version, ptr::null(), ptr::null_mut()) })?;
    Ok(version)
}

/// The paths of the Unix sockets to which this process is connected (getpeername(2) of each of its descriptors):
/// libvirt chooses its socket itself.
pub fn connected_sockets() -> Vec<String> {
    let descriptors = std::fs::read_dir("/proc/self/fd")
        .into_iter()
        .flatten()
        .flatten();
    let numbers = descriptors.filter_map(|entry| entry.file_name().to_str()?.parse::<c_int>().ok());
    let mut paths: Vec<String> = numbers.filter_map(peer).collect();
    paths.sort_unstable();
    paths.dedup();
    paths
}

/// The path of the Unix socket to which this descriptor is connected.
fn peer(descriptor: c_int) -> Option<String> {
    // SAFETY: zeroes are a valid value of this plain structure. The call writes at most `length` bytes to it, and fails
    // for a number that is no connected socket, or has been closed meanwhile.
    let (address, length) = unsafe {
        let mut address: libc::sockaddr_un = std::mem::zeroed();
        let mut length = size_of::<libc::sockaddr_un>() as libc::socklen_t;
        let at = ptr::from_mut(&mut address).cast();
        if libc::getpeername(descriptor, at, &mut length) < 0 {
            return None;
        }
        (address, length)
    };
    let path = (length as usize).checked_sub(std::mem::offset_of!(libc::sockaddr_un, sun_path))?;
    let path = address.sun_path.iter().take(path).map(|byte| *byte as u8);
    let path: Vec<u8> = path.take_while(|byte| *byte != 0).collect();
    let is_path = c_int::from(address.sun_family) == libc::AF_UNIX && !path.is_empty();
    is_path.then(|| String::from_utf8_lossy(&path).into_owned())
}

/// Starts the thread that runs libvirt's event loop: keepalive and domain events need it.
///
/// # Errors
/// No thread can be started.
pub fn start_event_loop() -> Result<(), NotStarted> {
    threads::start("event loop", || {
        loop {
            // SAFETY: there are no arguments; `initialize` has registered the default implementation, and only
            // this thread runs it.
            if unsafe { sys::virEventRunDefaultImpl() } < 0 {
                log::debug!("libvirt's event loop failed: {}", last_error());
                std::thread::sleep(Duration::from_secs(1));
            }
        }
    })
}

/// Closes all files but stdin, stdout and stderr, in a process of this program that the program has started. libvirt
/// opens its sockets without O_CLOEXEC and sets that a moment later, so a process that is started in that moment
/// inherits them. Call this first in `main`. Before Linux 5.9 it does nothing.
pub fn close_inherited() {
    let last = c_uint::MAX;
    // SAFETY: nothing was opened yet, so nothing in this process owns the descriptors. The call is made by number
    // because glibc has no such function before 2.34.
    unsafe { libc::syscall(libc::SYS_close_range, 3, last, 0) };
}

static STDOUT_WAS_CLOSED: AtomicBool = AtomicBool::new(false);

/// Whether the program was started without descriptor 1 (`>&-`). Rust's runtime opens /dev/null in its place before
/// `main`.
pub fn stdout_was_closed() -> bool {
    STDOUT_WAS_CLOSED.load(Ordering::Relaxed)
}

extern "C" fn check_stdout() {
    // SAFETY: this only reads flags; it fails for a number that is no open descriptor.
    let flags = unsafe { libc::fcntl(libc::STDOUT_FILENO, libc::F_GETFD) };
    STDOUT_WAS_CLOSED.store(flags < 0, Ordering::Relaxed);
}

// SAFETY: the C runtime calls the functions of this section once, before `main` and so before Rust's runtime; this
// function needs neither.
#[used]
#[unsafe(link_section = ".init_array")]
static BEFORE_MAIN: extern "C" fn() = check_stdout;

/// Makes all threads use one arena of glibc's allocator, so that memory that one thread has freed serves the others.
/// With the default of several arenas, a gather of 10,000 VMs kept 54 MB more and took more CPU time.
pub fn share_memory() {
    // SAFETY: this sets a limit of the allocator; no other thread runs yet.
    #[cfg(target_env = "gnu")]
    unsafe {
        libc::mallopt(libc::M_ARENA_MAX, 1);
    }
}

/// Raises the soft limit of open files to the hard limit, and returns it. rustix is not used for this because it panics where a
/// filter of system calls (seccomp(2)) denies getrlimit(2).
///
/// # Errors
/// The error of getrlimit(2) or setrlimit(2).
pub fn raise_file_limit() -> io::Result<u64> {
    let mut limit = libc::rlimit {
        rlim_cur: 0,
        rlim_max: 0,
    };
    // SAFETY: the structure lives through both calls, which do not keep a pointer to it.
    let done = unsafe {
        libc::getrlimit(libc::RLIMIT_NOFILE, &mut limit) == 0 && {
            limit.rlim_cur = limit.rlim_max;
            libc::setrlimit(libc::RLIMIT_NOFILE, &limit) == 0
        }
    };
    if done {
        Ok(limit.rlim_cur)
    } else {
        Err(io::Error::last_os_error())
    }
}

/// Calls `work` while these signals are blocked in this thread, and unblocks them afterwards, also if the process
/// that started this program had blocked them (pthread_sigmask(3)). A signal to the process waits until then, or goes
/// to another thread.
pub fn while_signals_wait<T>(signals: &[c_int], work: impl FnOnce() -> T) -> T {
    let change = |how| {
        // SAFETY: an all-zero set is valid memory for sigemptyset, which makes it an empty set; the set lives
        // through the calls, and the old mask is not requested.
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
