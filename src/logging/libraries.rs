//! What libraries print: libvirt, libxml2 and GLib write to descriptors 1 and 2 by themselves, past
//! every error handler that a program can set without linking each of them.
//!
//! So descriptor 2, and 1, which is the same ([`crate::output::Output::take`]), is a pipe from
//! [`capture`] on, and the log has a private copy of what it was. [`pass_on`] empties the pipe into
//! the log, while a gather waits, at its end and at that of the program. The pipe is non-blocking at
//! both ends: when it is full, a library's line is lost, and libvirt does not wait. No thread is
//! needed for that, and none that could wait for a reader of our stderr.

use std::fs::File;
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use log::Level;
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::pipe::{PipeFlags, fcntl_setpipe_size, pipe_with};

use crate::libvirt;
use crate::maps::HashMap;
use crate::output::write_all;
use crate::wording::count;

/// Bytes that wait in the pipe at the most: what the kernel grants any user
/// (/proc/sys/fs/pipe-max-size). Without it the pipe keeps its 64 KiB.
const ROOM: usize = 1 << 20;

/// How many sorts of lines are told apart.
const MOST: usize = 32;

/// Where the log goes, once descriptor 2 is the pipe.
static LOG: Mutex<Option<Arc<OwnedFd>>> = Mutex::new(None);

/// The pipe's read end and what was read from it.
static CAPTURED: Mutex<Option<Captured>> = Mutex::new(None);

struct Captured {
    pipe: File,
    /// The write end, to see whether it is full.
    end: OwnedFd,
    /// It was full once, and that has been said.
    overflowed: bool,
    /// A line whose end has not come yet.
    begun: Vec<u8>,
    said: Said,
}

/// Lets libraries write to a pipe from now on. Where that cannot be had, all stays as it is.
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
        said: Said::default(),
    });
    // A panic's message, and all after it, is written where it always was.
    let print = std::panic::take_hook();
    std::panic::set_hook(Box::new(move |panic| {
        pass_on_rest();
        restore();
        print(panic);
    }));
    Ok(())
}

/// Writes to the log's own descriptor, in one piece where the kernel takes it.
pub(super) fn write(bytes: &[u8]) -> std::io::Result<()> {
    // Not under the lock: this may wait for a reader.
    match descriptor() {
        Some(log) => write_all(log.as_fd(), bytes)?,
        None => write_all(rustix::stdio::stderr(), bytes)?,
    }
    Ok(())
}

/// Logs what libraries have written since the last time: each sort of line once, the rest counted.
pub fn pass_on() {
    // A call that is under way passes this on as well.
    let Ok(mut captured) = CAPTURED.try_lock() else {
        return;
    };
    if let Some(captured) = captured.as_mut() {
        captured.pass_on();
    }
}

/// Passes on what there is, also a line without its end.
pub fn pass_on_rest() {
    let Ok(mut captured) = CAPTURED.try_lock() else {
        return;
    };
    if let Some(captured) = captured.as_mut() {
        captured.pass_on();
        if !captured.begun.is_empty() {
            captured.begun.push(b'\n');
            captured.pass_on();
        }
    }
}

/// What is written to descriptors 1 and 2 from now on goes where stderr always went.
fn restore() {
    libvirt::forget_crash();
    if let Some(log) = lock(&LOG).take() {
        let _ = rustix::stdio::dup2_stderr(&*log);
        let _ = rustix::stdio::dup2_stdout(&*log);
    }
}

/// Where the log goes; `None`: descriptor 2.
pub fn descriptor() -> Option<Arc<OwnedFd>> {
    lock(&LOG).clone()
}

/// Lets go of where the log goes. Nothing can be logged afterwards.
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
        // At most what fits: others may go on writing.
        while text.len() < had + ROOM {
            match self.pipe.read(&mut chunk) {
                Ok(0) | Err(_) => break,
                Ok(count) => text.extend_from_slice(&chunk[..count]),
            }
        }
        let end = memchr::memrchr(b'\n', &text).map_or(0, |newline| newline + 1);
        self.begun = text.split_off(end);
        // A line that long is cut in any case.
        if self.begun.len() > super::LONGEST {
            text.append(&mut self.begun);
        }
        if !text.is_empty() {
            self.said.say(&String::from_utf8_lossy(&text));
        }
        if full && !std::mem::replace(&mut self.overflowed, true) {
            log::warn!(
                "libraries print more between two gathers than can be kept, so some lines are lost"
            );
        }
    }
}

/// The lines that were logged.
#[derive(Debug, Default)]
struct Said {
    /// How often each sort came.
    counts: HashMap<String, u64>,
    /// More than [`MOST`] sorts came, and that has been said.
    overflowed: bool,
}

impl Said {
    /// Logs each sort of line once. What libvirt itself calls debug or info is there only because the
    /// environment asks for it (`LIBVIRT_DEBUG`): it goes to the debug log as it is.
    fn say(&mut self, text: &str) {
        let mut again: HashMap<String, (&str, u64)> = HashMap::default();
        let mut further = 0_u64;
        let mut level = Level::Warn;
        for line in text.lines().filter(|line| !line.trim().is_empty()) {
            // A message of several lines has its level in the first one.
            if !line.starts_with(char::is_whitespace) {
                level = level_of(line);
            }
            if level == Level::Debug {
                log::debug!("a library says: {line}");
                continue;
            }
            let sort = sort(line);
            if let Some(count) = self.counts.get_mut(&sort) {
                *count += 1;
                again.entry(sort).or_insert((line, 0)).1 += 1;
            } else if self.counts.len() < MOST {
                self.counts.insert(sort, 1);
                log::warn!("a library says: {line}");
            } else {
                further += 1;
            }
        }
        for (sort, (line, times)) in again {
            let all = self.counts.get(&sort).copied().unwrap_or_default();
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

/// What lines that differ in numbers alone (times, addresses, serials) have in common.
fn sort(line: &str) -> String {
    let mut sort = String::with_capacity(line.len());
    for word in line.split_inclusive(|c: char| !c.is_ascii_alphanumeric()) {
        let number = word.starts_with(|c: char| c.is_ascii_digit());
        match word.char_indices().next_back() {
            Some((at, end)) if number && !end.is_ascii_alphanumeric() => {
                sort.push('0');
                sort.push_str(&word[at..]);
            }
            _ if number => sort.push('0'),
            _ => sort.push_str(word),
        }
    }
    sort
}

/// libvirt's own log (`LIBVIRT_DEBUG`) says its level: `TIME: THREAD: debug : ...` (virLogFormatString).
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
    fn lines_that_differ_in_numbers_are_one_sort() {
        let of = |time: &str, serial: &str| {
            sort(&format!(
                "{time}+0000: 12: warning : virNetClientCallDispatchReply:9 : serial {serial}"
            ))
        };
        assert_eq!(
            of("2026-01-01 10:00:00.000", "17"),
            of("2026-02-03 11:22:33.444", "0x7f3a")
        );
        assert_ne!(sort("no a"), sort("no b"));
        assert_eq!(sort("x1 22"), "x1 0");
    }

    #[test]
    fn each_sort_counts_and_their_number_is_bounded() {
        let mut said = Said::default();
        said.say("a 1\na 2\n\n b \n");
        assert_eq!((said.counts.len(), said.overflowed), (2, false));
        assert_eq!(said.counts["a 0"], 2);
        let letters = |n: u32| char::from_u32(0x4e00 + n).unwrap().to_string();
        said.say(&(0..1000).map(letters).collect::<Vec<_>>().join("\n"));
        assert_eq!((said.counts.len(), said.overflowed), (MOST, true));
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
