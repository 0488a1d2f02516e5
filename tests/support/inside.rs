//! A test in name spaces of its own: its mounts, servers and processes end with it.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::Command;

use super::{program, succeed, turn};

const INSIDE: &str = "TELEGRAF_KVM_INSIDE";

/// In name spaces of its own: the test's folder, with the program `telegraf-kvm` in it. Outside:
/// runs the test `test` once more, in there (120 s at most), and says `None`.
pub fn inside(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let _turn = turn::take();
    let folder = tempfile::tempdir().unwrap();
    // For other users too, and the programs as well.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let exe = folder.path().join("test");
    // By a process of its own: this one's other threads would inherit a file open for writing, and
    // what is open for writing cannot be run.
    let copy = |from: PathBuf, name: &str| {
        succeed(Command::new("cp").arg(from).arg(folder.path().join(name)));
    };
    copy(std::env::current_exe().unwrap(), "test");
    copy(env!("CARGO_BIN_EXE_telegraf-kvm").into(), "telegraf-kvm");
    // What hangs is a failure, not an endless test: what is killed here takes all with it.
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

/// Whether this is [`as_nobody`]'s doing.
pub fn is_nobody() -> bool {
    rustix::process::getuid().as_raw() == 65534
}

/// Runs the test `test` once more as user nobody, with that variable in its environment.
pub fn as_nobody(test: &str, variable: (&str, &str)) {
    let mut again = again(test);
    again.env(variable.0, variable.1).uid(65534).gid(65534);
    println!("{}", succeed(&mut again));
}

/// What runs the test `test` of this crate once more, and no other.
pub fn again(test: &str) -> Command {
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", &full_name(test), "--nocapture"]);
    again
}

/// The name of the test `test` with its modules, as libtest wants it.
fn full_name(test: &str) -> String {
    let mut list = Command::new(std::env::current_exe().unwrap());
    let list = succeed(list.args(["--list", "--format", "terse"]));
    let end = format!("::{test}");
    let names = list.lines().filter_map(|line| line.strip_suffix(": test"));
    let found: Vec<&str> = names.filter(|name| name.ends_with(&end)).collect();
    assert_eq!(found.len(), 1, "tests of the name {test}: {found:?}");
    found[0].to_owned()
}
