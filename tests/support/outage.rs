//! A network mount that can die: a FUSE passthrough whose server can be stopped.

use super::lab::Lab;
use super::{child_of, program, run, wait_for};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::time::Duration;

/// Seconds for which the kernel trusts a file's attributes without asking the server.
const ATTRIBUTES: &str = "1";

/// A mounted bindfs inside a lab. Dropped, its server is killed, so that nothing hangs on it, and
/// it is unmounted.
pub struct Mount<'lab> {
    lab: &'lab Lab,
    handle: Child,
    server: u32,
    point: PathBuf,
}

impl<'lab> Mount<'lab> {
    /// Mounts it at `point`, a path below the lab's folder; files in it lie beside that path.
    pub fn start(lab: &'lab Lab, point: &Path) -> Self {
        program("bindfs");
        let behind = point.with_extension("behind");
        for folder in [point, &behind] {
            std::fs::create_dir_all(folder).unwrap();
            std::fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = lab.command("bindfs");
        command
            .arg("-f")
            .args([
                "-o",
                &format!("attr_timeout={ATTRIBUTES},entry_timeout={ATTRIBUTES}"),
            ])
            .args([&behind, point]);
        let mut handle = command.spawn().unwrap();
        let limit = Duration::from_secs(10);
        wait_for("bindfs to be mounted", limit, || {
            assert_eq!(handle.try_wait().unwrap(), None, "bindfs has ended");
            let mounts = std::fs::read_to_string(format!("/proc/{}/mounts", lab.init())).unwrap();
            let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
            points.any(|found| Path::new(found) == point).then_some(())
        });
        let server = wait_for("bindfs's process", limit, || {
            let server = child_of(handle.id())?;
            let exe = std::fs::read_link(format!("/proc/{server}/exe")).ok()?;
            exe.ends_with("bindfs").then_some(server)
        });
        Mount {
            lab,
            handle,
            server,
            point: point.to_owned(),
        }
    }

    /// Where it is mounted.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// A new raw image of `kib` KiB on it, with every block written, or none. Returns its path.
    pub fn image(&self, name: &str, kib: usize, written: bool) -> PathBuf {
        // Behind the mount, which this process does not see: the kernel knows nothing of it yet.
        let file = self.point.with_extension("behind").join(name);
        if written {
            std::fs::write(file, vec![0xa5; kib << 10]).unwrap();
        } else {
            let file = std::fs::File::create(file).unwrap();
            file.set_len((kib as u64) << 10).unwrap();
        }
        self.point.join(name)
    }

    /// The server stops answering.
    pub fn stop(&self) {
        self.signal(rustix::process::Signal::STOP);
    }

    /// The server answers again, what waited first.
    pub fn go_on(&self) {
        self.signal(rustix::process::Signal::CONT);
    }

    fn signal(&self, signal: rustix::process::Signal) {
        let pid = rustix::process::Pid::from_raw(self.server.cast_signed()).unwrap();
        rustix::process::kill_process(pid, signal).unwrap();
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        self.signal(rustix::process::Signal::KILL);
        // nsenter stops when its child is stopped, and sees no end of it then.
        let _ = self.handle.kill();
        let _ = self.handle.wait();
        let _ = run(self.lab.command("umount").arg("-l").arg(&self.point));
    }
}
