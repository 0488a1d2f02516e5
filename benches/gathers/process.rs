//! Processor time and memory of processes, from /proc.

use std::collections::HashMap;
use std::fs;
use std::time::{Duration, Instant};

use crate::support::children_of;
use crate::support::lab::Lab;

/// The process id of the lab's libvirtd, as this process numbers it.
pub fn libvirtd(lab: &Lab) -> u32 {
    children_called(lab, "libvirtd").remove(0)
}

/// The lab's own children, as this process numbers them, whose name begins with this. The daemons and QEMU are
/// such: each leaves its parent.
fn children_called(lab: &Lab, name: &str) -> Vec<u32> {
    let mut children = children_of(lab.init());
    children.retain(|pid| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|comm| comm.starts_with(name))
    });
    children
}

/// The processes that a gather makes work, beside the program that gathers.
#[derive(Default)]
pub struct Host {
    pub daemon: Option<u32>,
    pub qemus: Vec<u32>,
    /// The processor time that all QEMUs together use per second while nothing gathers.
    idle: f64,
}

impl Host {
    /// libvirtd alone, or nothing.
    pub fn daemon(daemon: Option<u32>) -> Self {
        Self {
            daemon,
            ..Self::default()
        }
    }

    /// A lab's libvirtd and QEMUs.
    pub fn of(lab: &Lab) -> Self {
        Self {
            daemon: Some(libvirtd(lab)),
            qemus: children_called(lab, "qemu-system"),
            idle: 0.0,
        }
    }

    /// Measures for some seconds what the VMs use while nothing gathers. From now on
    /// [`Host::of_gather`] leaves it out.
    pub fn learn_idle(&mut self) -> Duration {
        let start = Instant::now();
        let before = Cpu::of(&self.qemus);
        std::thread::sleep(Duration::from_secs(5));
        let used = Cpu::of(&self.qemus).since(&before);
        self.idle = used.as_secs_f64() / start.elapsed().as_secs_f64();
        Duration::from_secs_f64(self.idle)
    }

    /// What [`Host::learn_idle`] has found, in ms per second.
    pub fn idle_ms(&self) -> f64 {
        self.idle * 1e3
    }

    /// The part of the QEMUs' processor time in `wall` that they do not use by themselves.
    pub fn of_gather(&self, used: Duration, wall: Duration) -> Duration {
        used.saturating_sub(wall.mul_f64(self.idle))
    }
}

/// Processor time of each thread of some processes in ns, with the kernel's full resolution.
pub struct Cpu(HashMap<u32, u64>);

impl Cpu {
    /// The threads of these processes now.
    pub fn of<'a>(pids: impl IntoIterator<Item = &'a u32>) -> Self {
        Self(pids.into_iter().flat_map(threads).collect())
    }

    /// The processor time since `before`: of a thread that has ended meanwhile none.
    pub fn since(&self, before: &Self) -> Duration {
        let used = self.0.iter().map(|(thread, ns)| {
            let then = before.0.get(thread).copied().unwrap_or(0);
            ns.saturating_sub(then)
        });
        Duration::from_nanos(used.sum())
    }
}

/// The threads of a process, each with its processor time in ns (/proc/PID/task/TID/schedstat).
fn threads(pid: &u32) -> Vec<(u32, u64)> {
    let Ok(tasks) = fs::read_dir(format!("/proc/{pid}/task")) else {
        return Vec::new();
    };
    let time = |task: fs::DirEntry| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        let thread = task.file_name().to_str()?.parse().ok()?;
        Some((thread, text.split(' ').next()?.parse().ok()?))
    };
    tasks.flatten().filter_map(time).collect()
}

/// Peak resident memory in KiB.
pub fn peak(pid: u32) -> u64 {
    status(pid, "VmHWM:")
}

fn status(pid: u32, key: &str) -> u64 {
    let text = fs::read_to_string(format!("/proc/{pid}/status")).unwrap();
    let line = text.lines().find(|line| line.starts_with(key)).unwrap();
    line.split_whitespace().nth(1).unwrap().parse().unwrap()
}
