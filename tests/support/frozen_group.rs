//! A QEMU frozen by a control group, as `systemctl freeze` does it.

use super::lab::Lab;
use super::{succeed, wait_for};
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

/// A control group of cgroup v2 that freezes one QEMU. When it is dropped, the QEMU is thawed and moved back
/// to its group.
pub struct FrozenGroup<'lab> {
    lab: &'lab Lab,
    folder: PathBuf,
    /// The group to which the process is moved back, if it was moved.
    pub back: Option<PathBuf>,
    pid: u32,
}

impl<'lab> FrozenGroup<'lab> {
    /// Freezes the group into which libvirt put the process, or, where that is no group of v2, a new one.
    /// `None`: this machine has no cgroup v2 with a freezer.
    pub fn freeze(lab: &'lab Lab, pid: u32) -> Option<Self> {
        let roots = ["/sys/fs/cgroup/unified", "/sys/fs/cgroup"].map(PathBuf::from);
        let is_v2 = |root: &&PathBuf| root.join("cgroup.controllers").exists();
        let root = roots.iter().find(is_v2)?;
        let text = fs::read_to_string(lab.inside(&format!("/proc/{pid}/cgroup"))).unwrap();
        let path = text.lines().find_map(|line| line.strip_prefix("0::/"))?;
        let (folder, back) = match path.strip_suffix("/emulator") {
            Some(vm) => (root.join(vm), None),
            None => {
                let folder = root.join(format!("{}-frozen", lab.prefix()));
                fs::create_dir(&folder).unwrap();
                (folder, Some(root.join(path)))
            }
        };
        println!("a process of {path:?} is frozen by {}", folder.display());
        let freeze = folder.join("cgroup.freeze");
        let group = Self {
            lab,
            folder,
            back,
            pid,
        };
        if group.back.is_some() {
            succeed(&mut group.moves_to(&group.folder));
        }
        fs::write(freeze, "1").ok()?;
        wait_for("the group to be frozen", Duration::from_secs(5), || {
            let events = fs::read_to_string(group.folder.join("cgroup.events")).unwrap();
            events.contains("frozen 1").then_some(())
        });
        Some(group)
    }

    /// The process id inside the lab.
    fn moves_to(&self, group: &Path) -> Command {
        let mut command = self.lab.command("sh");
        command.args(["-c", "echo $0 >$1", &self.pid.to_string()]);
        command.arg(group.join("cgroup.procs"));
        command
    }
}

impl Drop for FrozenGroup<'_> {
    fn drop(&mut self) {
        let _ = fs::write(self.folder.join("cgroup.freeze"), "0");
        if let Some(back) = &self.back {
            let _ = self.moves_to(back).status();
            let _ = fs::remove_dir(&self.folder);
        }
    }
}
