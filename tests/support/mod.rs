//! Helpers that the test crates share; each crate compiles them once.
//!
//! - [`lab`]: a throw-away hypervisor; [`vm`]: its VMs; [`fleet`]: many of them.
//! - [`inside`]: a test in namespaces of its own.
//! - [`turn`]: modules run one after the other, or share a turn; [`alone`]: tests of a module run one after the
//!   other.
//! - [`virsh`]: the lines that the plugin should write, from the output of virsh.
//! - [`influxd`]: a running InfluxDB.
//! - [`plugin`]: a running telegraf-kvm; [`capture`]: its output; [`lines`]: what it wrote.
//! - [`node`]: domains of the test driver; [`reading`]: what virsh says of a domain.
//! - [`migration`]: a live migration between two labs.
//! - Faults: [`outage`], storage that dies; [`frozen_group`], a QEMU frozen by its control group; [`daemon`],
//!   hanging calls and other clients; [`proxy`], a socket that delays, cuts and closes.
//!
//! A helper that fails panics with what it saw: the test then fails and is never skipped.

// No crate uses all of these helpers.
#![allow(dead_code, clippy::unwrap_used, clippy::expect_used, clippy::panic)]

pub mod capture;
pub mod daemon;
pub mod fleet;
pub mod frozen_group;
pub mod influxd;
pub mod inside;
pub mod lab;
pub mod lines;
pub mod migration;
pub mod node;
pub mod outage;
pub mod plugin;
pub mod proxy;
pub mod reading;
pub mod turn;
pub mod virsh;
pub mod vm;

use std::ffi::OsStr;
use std::io::{PipeReader, PipeWriter, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::time::{Duration, Instant};

/// The folder of the files that `tests/run` makes: the guest, the Python for the SQL tests, Telegraf.
pub fn cache() -> PathBuf {
    let tmp = Path::new(env!("CARGO_TARGET_TMPDIR"));
    tmp.parent()
        .expect("target/tmp has a parent")
        .join("telegraf-kvm-tests")
}

/// The path of a file that `tests/run` makes; panics with that hint if it is missing.
pub fn cached(name: &str) -> PathBuf {
    let path = cache().join(name);
    assert!(
        path.exists(),
        "{} is missing: run tests/run, which makes it",
        path.display()
    );
    path
}

/// The Python that has datafusion and pyarrow.
pub fn sql_python() -> PathBuf {
    cached("python/bin/python")
}

/// The program `name` on the PATH; panics and names `tests/run`, which installs it.
pub fn program(name: &str) -> PathBuf {
    let path = std::env::var_os("PATH").unwrap_or_default();
    // An ordinary user's PATH lacks the folders of libvirtd and ip; our own Telegraf is in the cache.
    let further = ["/usr/sbin", "/sbin"].map(PathBuf::from);
    std::env::split_paths(&path)
        .chain(further)
        .chain([cache().join("bin")])
        .map(|folder| folder.join(name))
        .find(|file| file.is_file())
        .unwrap_or_else(|| panic!("{name} is not installed: run tests/run, which installs it"))
}

/// A configuration file, which is deleted when the handle is dropped.
pub fn config(text: &str) -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".toml").expect("a file can be made");
    std::fs::write(file.path(), text).expect("and written");
    file
}

/// Runs `command` to its end and returns its stdout; panics unless it succeeded.
pub fn succeed(command: &mut Command) -> String {
    let output = run(command);
    assert!(
        output.status.success(),
        "{command:?}: {}\n{}{}",
        output.status,
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    String::from_utf8(output.stdout).expect("stdout is UTF-8")
}

/// Copies a program that is to be run. Another process does that: other threads of this one could fork while the file is
/// open for writing, and a file that is open for writing cannot be executed.
pub fn copy_program(from: impl AsRef<OsStr>, to: &Path) {
    succeed(Command::new("cp").arg(from).arg(to));
}

/// Runs `command` to its end.
pub fn run(command: &mut Command) -> Output {
    command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"))
}

/// Exit code, stdout, stderr.
pub fn told(output: &Output) -> (Option<i32>, String, String) {
    let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
    (
        output.status.code(),
        text(&output.stdout),
        text(&output.stderr),
    )
}

/// Whether this is the line of the start, which says what libvirt is and how many VMs there are, and is no trouble.
pub fn is_start(level: char, message: &str) -> bool {
    level == 'I' && message.starts_with("libvirt ") && message.contains(" active VM")
}

/// The log without the line of the start.
pub fn without_start(log: &str) -> String {
    let starts = |line: &&str| {
        let message = line.strip_prefix("I! ");
        message.is_some_and(|message| is_start('I', message))
    };
    let lines = log.split_inclusive('\n');
    lines.filter(|line| !starts(line)).collect()
}

/// Calls `answer` every 20 ms until it is `Some`; panics with `what` after `limit`.
pub fn wait_for<T>(what: &str, limit: Duration, mut answer: impl FnMut() -> Option<T>) -> T {
    let start = Instant::now();
    loop {
        if let Some(answer) = answer() {
            return answer;
        }
        assert!(
            start.elapsed() < limit,
            "waited {limit:?} in vain for {what}"
        );
        std::thread::sleep(Duration::from_millis(20));
    }
}

/// A pipe that is full to the last byte.
pub fn full_pipe() -> (PipeReader, PipeWriter) {
    let (reader, mut writer) = std::io::pipe().unwrap();
    rustix::io::ioctl_fionbio(&writer, true).unwrap();
    while writer.write(&[b'\n'; 4096]).is_ok() {}
    rustix::io::ioctl_fionbio(&writer, false).unwrap();
    (reader, writer)
}

/// Waits until the main thread of this process waits in a kernel function whose name contains one of these.
pub fn wait_until_in(pid: u32, functions: &[&str]) {
    wait_for(&format!("{functions:?}"), Duration::from_secs(30), || {
        let mut threads = std::fs::read_dir(format!("/proc/{pid}/task"))
            .ok()?
            .flatten();
        let is_there = |thread: std::fs::DirEntry| {
            let at = std::fs::read_to_string(thread.path().join("wchan"));
            at.is_ok_and(|at| functions.iter().any(|one| at.contains(one)))
        };
        threads.any(is_there).then_some(())
    });
}

/// The process whose parent is `parent`, if there is one yet (both as this process numbers them).
pub fn child_of(parent: u32) -> Option<u32> {
    children_of(parent).first().copied()
}

/// All processes whose parent is `parent`.
pub fn children_of(parent: u32) -> Vec<u32> {
    let processes = std::fs::read_dir("/proc").expect("/proc can be read");
    let child = |entry: std::fs::DirEntry| {
        let pid: u32 = entry.file_name().to_str()?.parse().ok()?;
        let stat = std::fs::read_to_string(entry.path().join("stat")).ok()?;
        // "PID (NAME) STATE PPID ...", where the name may contain any character.
        let after_name = &stat[stat.rfind(')')? + 1..];
        let parent_of_it: u32 = after_name.split_whitespace().nth(1)?.parse().ok()?;
        (parent_of_it == parent).then_some(pid)
    };
    processes.flatten().filter_map(child).collect()
}

/// The handle that [`alone`] returns.
pub struct Alone {
    _lock: std::sync::MutexGuard<'static, ()>,
    _turn: turn::Turn,
}

/// Makes tests of a module that measure time or need the processor run one at a time, and at the same time as
/// no test of another module.
pub fn alone() -> Alone {
    static ALONE: std::sync::Mutex<()> = std::sync::Mutex::new(());
    let turn = turn::take();
    // If a test failed while it held the lock, the next test need not fail.
    let lock = ALONE
        .lock()
        .unwrap_or_else(std::sync::PoisonError::into_inner);
    Alone {
        _lock: lock,
        _turn: turn,
    }
}
