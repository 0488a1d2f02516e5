//! A FUSE mount whose server can be stopped: it stands for a dead NFS. It lives in name spaces of
//! the test's own, and ends with them.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::{program, succeed, wait_for};

const SLOW: Duration = Duration::from_secs(20);
const INSIDE: &str = "TELEGRAF_KVM_INSIDE";

/// In name spaces of its own: the test's folder. Outside: runs the test `test` once more, in there
/// (120 s at most), and says `None`.
pub fn inside(test: &str) -> Option<PathBuf> {
    if let Some(folder) = std::env::var_os(INSIDE) {
        return Some(folder.into());
    }
    let folder = tempfile::tempdir().unwrap();
    // For other users too, and the program as well.
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let exe = folder.path().join("test");
    // By a process of its own: this one's other threads would inherit a file open for writing, and
    // what is open for writing cannot be run.
    succeed(
        Command::new("cp")
            .arg(std::env::current_exe().unwrap())
            .arg(&exe),
    );
    // A look that hangs is a failure, not an endless test: what is killed here takes all with it.
    let mut unshare = Command::new(program("timeout"));
    unshare.args(["--signal=KILL", "120"]);
    unshare.arg(program("unshare"));
    unshare.args("--mount --propagation private --pid --fork --kill-child --mount-proc".split(' '));
    unshare.arg(exe).args(["--exact", test, "--nocapture"]);
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
    let mut again = Command::new(std::env::current_exe().unwrap());
    again.args(["--exact", test, "--nocapture"]);
    again.env(variable.0, variable.1).uid(65534).gid(65534);
    println!("{}", succeed(&mut again));
}

/// A bindfs. Dropped, it is killed and unmounted: who waits for it gets an error.
pub struct Mount {
    /// Where it is mounted: `FOLDER/NAME`.
    pub point: PathBuf,
    /// What serves it.
    pub server: Child,
}

impl Mount {
    /// `FOLDER/NAME.real`, with a file `image` in it, seen through `FOLDER/NAME`.
    pub fn new(folder: &Path, name: &str, options: &[&str]) -> Self {
        let (behind, point) = (folder.join(format!("{name}.real")), folder.join(name));
        fs::create_dir_all(&behind).unwrap();
        fs::create_dir_all(&point).unwrap();
        fs::write(behind.join("image"), "x").unwrap();
        let mut command = Command::new(program("bindfs"));
        command.arg("-f").args(options).arg(behind).arg(&point);
        let server = command.spawn().unwrap();
        wait_for("bindfs mounts", SLOW, || {
            let table = fs::read_to_string("/proc/self/mountinfo").unwrap();
            let point = format!(" {} ", point.display());
            table.contains(&point).then_some(())
        });
        Self { point, server }
    }

    /// The file on it.
    pub fn image(&self) -> PathBuf {
        self.point.join("image")
    }

    /// Signals the server.
    pub fn signal(&self, signal: Signal) {
        let pid = Pid::from_child(&self.server);
        kill_process(pid, signal).unwrap();
    }

    /// The server answers nothing any more, since `ago` when this returns.
    pub fn stop(&self, ago: Duration) {
        self.signal(Signal::STOP);
        thread::sleep(ago);
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let _ = self.server.kill();
        let _ = self.server.wait();
        let _ = Command::new("umount").arg("-l").arg(&self.point).status();
    }
}
