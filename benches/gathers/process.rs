//! Processor time and memory of processes, from /proc.

use std::fs;
use std::time::Duration;

use crate::support::children_of;
use crate::support::lab::Lab;

/// The process id of the lab's libvirtd, as this process numbers it.
pub fn libvirtd(lab: &Lab) -> u32 {
    let is_it = |pid: &u32| {
        fs::read_to_string(format!("/proc/{pid}/comm")).is_ok_and(|name| name == "libvirtd\n")
    };
    children_of(lab.init()).into_iter().find(is_it).unwrap()
}

/// Processor time of all current threads of a process, with a resolution of 1 ns. For processes whose threads
/// do not end.
pub fn threads_cpu(pid: u32) -> Duration {
    let tasks = fs::read_dir(format!("/proc/{pid}/task")).unwrap();
    let ns = tasks.flatten().filter_map(|task| {
        let text = fs::read_to_string(task.path().join("schedstat")).ok()?;
        text.split(' ').next()?.parse::<u64>().ok()
    });
    Duration::from_nanos(ns.sum())
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
