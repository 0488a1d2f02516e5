//! Passes on what libraries print. libvirt, libxml2 and GLib write to descriptors 1 and 2 by themselves, and a
//! program can set error handlers for all of that only if it links each of these libraries.
//!
//! So from [`capture`] on, descriptor 2 is a pipe, as is descriptor 1, its copy
//! ([`crate::output::Output::take`]). The log has a descriptor of its own for the real stderr. [`pass_on`]
//! reads the pipe and logs what it reads: while a gather waits, at the end of each gather, and at the end of
//! the program. The pipe is non-blocking at both ends. When it is full, a library's line is lost and libvirt
//! does not wait. This needs no thread, which might have to wait for the reader of stderr.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::blocking_io::write_all;
use crate::hypervisor;
use crate::libvirt;
use crate::maps::HashMap;
use crate::wording::count;

/// The size of the pipe in bytes: the default limit for any user (/proc/sys/fs/pipe-max-size). Where the
/// limit is lower, the pipe keeps its 64 KiB.
const ROOM: usize = 1 << 20;

/// How many kinds of lines are distinguished.
const MOST: usize = 32;

/// The real stderr, once descriptor 2 is the pipe.
static LOG: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// The pipe and what was read from it.
static CAPTURED: Mutex<Option<Captured>> = Mutex::new(None);

struct Captured {
    pipe: File,
    /// The write end, to see whether it is full.
    end: OwnedFd,
    /// Whether the pipe was full once, which is logged once.
    overflowed: bool,
    /// The beginning of a line whose end has not been read yet.
    begun: Vec<u8>,
    logged: Logged,
}

/// Makes libraries write to a pipe from now on. If the system refuses that, nothing changes.
pub fn capture() {
    let _ = try_capture();
}

fn try_capture() -> rustix::io::Result<()> {
    let (pipe, end) = pipe_with(PipeFlags::CLOEXEC | PipeFlags::NONBLOCK)?;
    let _ = fcntl_setpipe_size(&end, ROOM);
    let log = rustix::io::fcntl_dupfd_cloexec(rustix::stdio::stderr(), 3)?;
    libvirt::pass_on_at_crash(pipe.as_fd(), log.as_fd());
    rustix::stdio::dup2_stderr(&end)?;
    let _ = rustix::stdio::dup2_stdout(&end);
    *lock(&LOG) = Some(Arc::new(log));
    *lock(&CAPTURED) = Some(Captured {
        pipe: pipe.into(),
        end,
        overflowed: false,
        begun: Vec::new(),
        logged: Logged::default(),
    });
    // The message of a panic and all that follows it go to the real stderr.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        pass_on_rest();
        restore();
        print(panic);
    }));
    Ok(())
}

/// Writes to the log's descriptor, in one write where the kernel takes it.
pub(super) fn write(bytes: &[u8]) -> std::io::Result<()> {
    // The lock is not held here, for this may wait for the reader.
    match descriptor() {
        Some(log) => write_all(log.as_fd(), bytes)?,
        None => write_all(rustix::stdio::stderr(), bytes)?,
    }
    Ok(())
}

/// Logs what libraries have printed since the last time: each kind of line once; the others are counted. Nothing tells of
/// which hypervisor a line is.
pub fn pass_on() {
    // If the lock is held, another call is passing this on.
    let Ok(mut captured) = CAPTURED.try_lock() else {
        return;
    };
    if let Some(captured) = captured.as_mut() {
        hypervisor::for_all(|| captured.pass_on());
    }
}

/// As [`pass_on`], and also logs a line without its end.
pub fn pass_on_rest() {
    let Ok(mut captured) = CAPTURED.try_lock() else {
        return;
    };
    if let Some(captured) = captured.as_mut() {
        hypervisor::for_all(|| captured.pass_on());
        if !captured.begun.is_empty() {
            captured.begun.push(b'\n');
            hypervisor::for_all(|| captured.pass_on());
        }
    }
}

/// Makes descriptors 1 and 2 the real stderr again.
fn restore() {
    libvirt::forget_crash();
    if let Some(log) = lock(&LOG).take() {
        let _ = rustix::stdio::dup2_stderr(&*log);
        let _ = rustix::stdio::dup2_stdout(&*log);
    }
}

/// The descriptor to which the log goes; `None` if it is descriptor 2.
pub fn descriptor() -> Option<Arc<OwnedFd>> {
    lock(&LOG).clone()
}

/// Closes the log's descriptor. Nothing can be logged afterwards.
pub fn close() {
    libvirt::forget_crash();
    lock(&LOG).take();
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Captured {
    fn pass_on(&mut self) {
        let mut room = [PollFd::new(&self.end, PollFlags::OUT)];
        let full = poll(&mut room, Some(&Timespec::default())) == Ok(0);
        let mut text = std::mem::take(&mut self.begun);
        let had = text.len();
        let mut chunk = [0; 4096];
        // At most what fits into the pipe, for other threads may go on writing.
        while text.len() < had + ROOM {
            match self.pipe.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&chunk[..count]),
            }
        }
        let end = memchr::memrchr(b'\n', &text).map_or(0, |newline| newline + 1);
        self.begun = text.split_off(end);
        // A line of this length is cut in any case.
        if self.begun.len() > super::LONGEST {
            text.append(&mut self.begun);
        }
        if !text.is_empty() {
            self.logged.log(&String::from_utf8_lossy(&text));
        }
        if full && !std::mem::replace(&mut self.overflowed, true) {
            log::warn!(
                "libraries print more between two gathers than can be kept, so some lines are lost"
            );
        }
    }
}

/// The kinds of lines that were logged.
#[derive(Debug, Default)]
struct Logged {
    /// How many lines of each kind came.
    counts: HashMap<String, u64>,
    /// Whether more than [`MOST`] kinds came, which is logged once.
    overflowed: bool,
}

impl Logged {
    /// Logs each kind of line once. What libvirt itself logs as debug or info was asked for by the environment
    /// (`LIBVIRT_DEBUG`): all of it goes to the debug log.
    fn log(&mut self, text: &str) {
        let mut again: HashMap<String, (&str, u64)> = HashMap::default();
        let mut further = 0_u64;
        let mut level = Level::Warn;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            // A message of several lines has its level in the first of them.
            if !line.starts_with(char::is_whitespace) {
                level = level_of(line);
            }
            if level == Level::Debug {
                log::debug!("a library says: {line}");
                continue;
            }
            let kind = kind_of(line);
            if let Some(count) = self.counts.get_mut(&kind) {
                *count += 1;
                again.entry(kind).or_insert((line, 0)).1 += 1;
            } else if self.counts.len() < MOST {
                self.counts.insert(kind, 1);
                log::warn!("a library says: {line}");
            } else {
                further += 1;
            }
        }
        for (kind, (line, times)) in again {
            let all = self.counts.get(&kind).copied().unwrap_or_default();
            log::debug!(
                "a library says this {} more, {all} in all: {line}",
                count(times, "time")
            );
        }
        if further > 0 && !std::mem::replace(&mut self.overflowed, true) {
            log::warn!(
                "libraries print more than {MOST} different messages; further ones are only counted"
            );
        }
        if further > 0 {
            log::debug!(
                "libraries print {} more of other messages",
                count(further, "line")
            );
        }
    }
}

/// The line with 0 in place of each number: lines of one kind differ only in times, addresses and the like.
fn kind_of(line: &str) -> String {
    let mut kind = String::with_capacity(line.len());
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        match word.char_indices().next_back() {
            Some((at, end)) if number && !end.is_ascii_alphanumeric() => {
                kind.push('0');
                kind.push_str(&word[at..]);
            }
            _ if number => kind.push('0'),
            _ => kind.push_str(word),
        }
    }
    kind
}

/// The level of a line. Lines of libvirt's log (`LIBVIRT_DEBUG`) have it: `TIME: THREAD: debug : ...`
/// (virLogFormatString).
fn level_of(line: &str) -> Level {
    match line.split(": ").nth(2) {
        Some("debug " | "info ") => Level::Debug,
        _ => Level::Warn,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_that_differ_in_numbers_are_of_one_kind() {
        let of = |time: &str, serial: &str| {
            kind_of(&format!(
                "{time}+0000: 12: warning : virNetClientCallDispatchReply:9 : serial {serial}"
            ))
        };
        assert_eq!(
            of("2026-01-01 10:00:00.000", "17"),
            of("2026-02-03 11:22:33.444", "0x7f3a")
        );
        assert_ne!(kind_of("no a"), kind_of("no b"));
        assert_eq!(kind_of("x1 22"), "x1 0");
    }

    #[test]
    fn each_kind_counts_and_their_number_is_bounded() {
        let mut logged = Logged::default();
        logged.log("a 1\na 2\n\n b \n");
        assert_eq!((logged.counts.len(), logged.overflowed), (2, false));
        assert_eq!(logged.counts["a 0"], 2);
        let letters = |n: u32| char::from_u32(0x4e00 + n).unwrap().to_string();
        logged.log(&(0..1000).map(letters).collect::<Vec<_>>().join("\n"));
        assert_eq!((logged.counts.len(), logged.overflowed), (MOST, true));
    }

    #[test]
    fn what_libvirt_calls_debug_is_debug() {
        for (line, expected) in [
            (
                "2026-01-01 10:00:00.000+0000: 12: debug : virGlobalInit:235 : register",
                Level::Debug,
            ),
            (
                "2026-01-01 10:00:00.000+0000: 12: info : libvirt version: 9.0.0",
                Level::Debug,
            ),
            (
                "2026-01-01 10:00:00.000+0000: 12: warning : f:1 : debug : x",
                Level::Warn,
            ),
            ("I/O warning : failed to load external entity", Level::Warn),
        ] {
            assert_eq!(level_of(line), expected, "{line}");
        }
    }
}
