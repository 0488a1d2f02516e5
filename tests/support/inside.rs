//! Runs a test in namespaces of its own: its mounts, servers and processes end with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::{copy_program, program, succeed, turn};

const INSIDE: &str = "TELEGRAF_KVM_INSIDE";

/// In namespaces of its own: returns the test's folder, with the program `telegraf-kvm` in it. Outside: runs
/// the test `test` once more in such namespaces (120 s at most) and returns `None`.
pub fn inside(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let _turn = turn::take();
    let folder = tempfile::tempdir().unwrap();
    // Other users need access to the folder, and to the programs.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let exe = folder.path().join("test");
    let copy = |from: PathBuf, name: &str| copy_program(from, &folder.path().join(name));
    copy(std::env::current_exe().unwrap(), "test");
    copy(env!("CARGO_BIN_EXE_telegraf-kvm").into(), "telegraf-kvm");
    // A hang is a failure, not an endless test: killing this process ends all of its namespaces.
    let mut unshare = Command::new(program("timeout"));
    unshare.args(["--signal=KILL", "120"]);
    unshare.arg(program("unshare"));
    unshare.args("--mount --propagation private --pid --fork --kill-child --mount-proc".split(' '));
    unshare
        .arg(exe)
        .args(["--exact", &full_name(test), "--nocapture"]);
    unshare.env(INSIDE, folder.path());
    println!("{}", succeed(&mut unshare));
    None
}

/// Whether this process was started by [`as_nobody`].
pub fn is_nobody() -> bool {
    rustix::process::getuid().as_raw() == 65534
}

/// Runs the test `test` once more as the user nobody, with that variable in its environment.
pub fn as_nobody(test: &str, variable: (&str, &str)) {
    let mut again = again(test);
    again.env(variable.0, variable.1).uid(65534).gid(65534);
    println!("{}", succeed(&mut again));
}

/// A command that runs only the test `test` of this crate.
pub fn again(test: &str) -> Command {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &full_name(test), "--nocapture"]);
    again
}

/// The name of the test `test` with its modules, as libtest expects it.
fn full_name(test: &str) -> String {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let list = succeed(list.args(["--list", "--format", "terse"]));
    let end = format!("::{test}");
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let found: Vec<&str> = names.filter(|name| name.ends_with(&end)).collect();
    assert_eq!(found.len(), 1, "tests of the name {test}: {found:?}");
    found[0].to_owned()
}
