//! Network storage that can die: a FUSE file system which passes through a folder (bindfs) and whose
//! server can be stopped.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use rustix::process::{Pid, Signal, kill_process};

use super::daemon::expect_quick;
use super::fleet::{Fleet, at_most};
use super::lab::Lab;
use super::lines::Line;
use super::plugin::Plugin;
use super::{child_of, program, run, wait_for};

/// How long a gather waits for all mounts (docs/architecture.md).
const MOUNT_ANSWERS: Duration = Duration::from_millis(150);
const SLOW: Duration = Duration::from_secs(20);

/// A mounted bindfs. When it is dropped, its server is killed, so that processes that wait for it get an
/// error, and it is unmounted.
pub struct Mount<'lab> {
    lab: Option<&'lab Lab>,
    point: PathBuf,
    behind: PathBuf,
    /// bindfs itself, or the nsenter that runs it.
    handle: Child,
    server: Pid,
}

impl Mount<'static> {
    /// Mounts `FOLDER/NAME.behind`, which has a file `image`, at `FOLDER/NAME` in the mount namespace of the
    /// caller.
    pub fn new(folder: &Path, name: &str, options: &[&str]) -> Self {
        let point = folder.join(name);
        let behind = point.with_extension("behind");
        fs::create_dir_all(&behind).unwrap();
        fs::write(behind.join("image"), "x").unwrap();
        Mount::over(None, &point, &behind, options)
    }
}

impl<'lab> Mount<'lab> {
    /// Mounts the folder beside `point` at `point`, which is below the lab's folder, inside the lab. The
    /// kernel uses the attributes of a file for a second before it asks the server again.
    pub fn start(lab: &'lab Lab, point: &Path) -> Self {
        let options = ["-o", "attr_timeout=1,entry_timeout=1"];
        Mount::over(Some(lab), point, &point.with_extension("behind"), &options)
    }

    /// Mounts `behind`, which may be the mount point of another one, at `point`.
    pub fn over(lab: Option<&'lab Lab>, point: &Path, behind: &Path, options: &[&str]) -> Self {
        program("bindfs");
        for folder in [point, behind] {
            fs::create_dir_all(folder).unwrap();
            fs::set_permissions(folder, Permissions::from_mode(0o755)).unwrap();
        }
        let mut command = command(lab, "bindfs");
        command.arg("-f").args(options).args([behind, point]);
        let mut handle = command.spawn().unwrap();
        let table = lab.map_or("self".to_owned(), |lab| lab.init().to_string());
        wait_for("bindfs to be mounted", SLOW, || {
            assert_eq!(handle.try_wait().unwrap(), None, "bindfs has ended");
            let mounts = fs::read_to_string(format!("/proc/{table}/mounts")).unwrap();
            let mut points = mounts.lines().filter_map(|line| line.split(' ').nth(1));
            points.any(|found| Path::new(found) == point).then_some(())
        });
        let server = wait_for("bindfs's process", SLOW, || {
            let server = lab.map_or(Some(handle.id()), |_| child_of(handle.id()))?;
            let exe = fs::read_link(format!("/proc/{server}/exe")).ok()?;
            exe.ends_with("bindfs").then_some(server)
        });
        Mount {
            lab,
            point: point.to_owned(),
            behind: behind.to_owned(),
            handle,
            server: Pid::from_raw(server.cast_signed()).unwrap(),
        }
    }

    /// The mount point.
    pub fn point(&self) -> &Path {
        &self.point
    }

    /// The file that [`Mount::new`] made.
    pub fn image(&self) -> PathBuf {
        self.point.join("image")
    }

    /// Makes a raw image of `kib` KiB on it, with every block written or none. Returns its path.
    pub fn new_image(&self, name: &str, kib: usize, written: bool) -> PathBuf {
        // It is made behind the mount, so the kernel has nothing of it in its cache.
        let file = self.behind.join(name);
        if written {
            fs::write(file, vec![0xa5; kib << 10]).unwrap();
        } else {
            let file = fs::File::create(file).unwrap();
            file.set_len((kib as u64) << 10).unwrap();
        }
        self.point.join(name)
    }

    /// Stops the server. When this returns, it has been stopped for `ago`.
    pub fn stop(&self, ago: Duration) {
        kill_process(self.server, Signal::STOP).unwrap();
        thread::sleep(ago);
    }

    /// Lets the server go on. It answers the oldest requests first; in a lab, when this returns, it has answered
    /// one that was sent after it went on.
    pub fn go_on(&self) {
        kill_process(self.server, Signal::CONT).unwrap();
        if let Some(lab) = self.lab {
            // The kernel keeps no answer of this call.
            let point = lab.inside(self.point.to_str().unwrap());
            rustix::fs::statvfs(point).unwrap();
        }
    }

    /// Kills the server. Every access then returns an error.
    pub fn kill(&mut self) {
        // The process may have ended already.
        let _ = kill_process(self.server, Signal::KILL);
        // nsenter stops when its child is stopped, and then does not notice its end.
        let _ = self.handle.kill();
        let _ = self.handle.wait();
    }
}

impl Drop for Mount<'_> {
    fn drop(&mut self) {
        // A second signal could reach another process of the same number.
        if matches!(self.handle.try_wait(), Ok(None)) {
            self.kill();
        }
        let _ = run(command(self.lab, "umount").arg("-l").arg(&self.point));
    }
}

/// A command that runs in the lab, or in the environment of the caller; in a process group of its own.
fn command(lab: Option<&Lab>, name: &str) -> Command {
    if let Some(lab) = lab {
        return lab.command(name);
    }
    let mut command = Command::new(program(name));
    command.process_group(0);
    command
}

/// Checks what is promised for a plugin while one mount is dead.
pub struct Outage<'t> {
    /// The lab.
    pub lab: &'t Lab,
    /// Its VMs.
    pub fleet: &'t Fleet<'t>,
    /// The dead mount.
    pub mount: &'t Mount<'t>,
    /// The number of VMs, from the first on, that have a file there.
    pub carried: usize,
    /// How long a gather takes while the mount answers.
    pub healthy: Duration,
}

impl Outage<'_> {
    /// Panics unless all VMs are complete in each of four gathers, all is quick, and no QEMU hangs. Where a
    /// call for one disk makes QEMU access all files, the disks of VMs with a file on the mount are
    /// omitted.
    pub fn expect_all(&self, plugin: &mut Plugin, when: &str) {
        let mut following = Vec::new();
        for round in 1..=4 {
            let when = format!("{when}, gather {round}");
            let (gather, took) = plugin.timed_gather();
            println!("{when}: {took:?}, healthy {:?}", self.healthy);
            self.expect_complete(&gather, &when);
            if round == 1 {
                let limit = self.healthy.mul_f64(1.5) + at_most(MOUNT_ANSWERS);
                assert!(took <= limit, "{when}: {took:?} > {limit:?}");
            } else {
                following.push(took);
            }
            for number in 0..self.fleet.vms.len() {
                let state = self.fleet.qemu_state(number);
                // A QEMU that copies a disk may be running.
                assert!(matches!(state, 'S' | 'R'), "{when}: QEMU {number}: {state}");
            }
            assert_eq!(self.lab.hanging_calls(), 0, "{when}: no call of ours hangs");
            let list = self.lab.list_takes();
            let quick = at_most(Duration::from_millis(500));
            assert!(list.is_some_and(|took| took < quick), "{when}: {list:?}");
        }
        // The median of three, for other processes may delay one of them.
        following.sort_unstable();
        let limit = self.healthy.mul_f64(1.5) + at_most(Duration::ZERO);
        assert!(following[1] <= limit, "{when}: {following:?} > {limit:?}");
        // A QEMU whose main thread waits for its other threads has the state S. Only its monitor shows that
        // it hangs.
        let last = self.fleet.vms.len() - 1;
        expect_quick(self.lab, self.fleet.vms[last].name(), when);
        for vm in &self.fleet.vms {
            let mut asked = self.lab.virsh_command();
            asked.args(["qemu-monitor-command", vm.name(), "--hmp", "info name"]);
            assert!(ends(asked), "{when}: the QEMU of {} hangs", vm.name());
        }
    }

    /// Panics unless the first gather of a plugin has everything that is available.
    pub fn expect_complete_first(&self, gather: &[Line], when: &str) {
        let omitted = self.omitted();
        self.fleet.expect_complete_first_but(gather, &omitted, when);
        self.fleet.expect_without_disks(gather, &omitted, when);
    }

    /// Panics unless a later gather has everything that is available.
    pub fn expect_complete(&self, gather: &[Line], when: &str) {
        let omitted = self.omitted();
        self.fleet.expect_complete_but(gather, &omitted, when);
        self.fleet.expect_without_disks(gather, &omitted, when);
    }

    fn omitted(&self) -> Vec<usize> {
        let omitted = self.lab.asking_touches_disks();
        (0..self.carried).filter(|_| omitted).collect()
    }

    /// Panics unless there is exactly one warning, and it names the mount and the VMs with a file there.
    pub fn expect_one_warning(&self, plugin: &Plugin) {
        let point = self.mount.point().to_str().unwrap();
        let warnings = plugin.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].contains(point), "{warnings:#?}");
        for vm in &self.fleet.vms[..self.carried] {
            assert!(warnings[0].contains(vm.name()), "{warnings:#?}");
        }
    }
}

/// Whether the command ends within 5 s.
fn ends(mut command: Command) -> bool {
    let mut child = command.stdout(Stdio::null()).spawn().unwrap();
    for _ in 0..250 {
        if child.try_wait().unwrap().is_some() {
            return true;
        }
        thread::sleep(Duration::from_millis(20));
    }
    let _ = child.kill();
    let _ = child.wait();
    false
}
