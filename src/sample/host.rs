//! What the kernel of the host counts of a VM's QEMU: vCPU threads, CPU quota, pressure.

use std::sync::Arc;
use std::time::Instant;

/// The resources of which the kernel reports pressure; each has a file of that name.
pub const RESOURCES: [&str; 3] = ["cpu", "memory", "io"];

/// What the threads of a VM's vCPUs have counted.
#[derive(Debug, Clone, PartialEq)]
pub struct VcpuTimes {
    /// The midpoint of the reading.
    pub at: Instant,
    /// Each vCPU that is online, in the order of the numbers. It is shared with the history.
    pub list: Arc<[VcpuTime]>,
}

/// What the thread of one vCPU has counted since it was started.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct VcpuTime {
    /// libvirt's number of the vCPU. Numbers may have gaps.
    pub number: u32,
    /// The number of the thread, which tells the vCPU from an earlier one of the same number. 0 where it is
    /// not known.
    pub thread: u32,
    /// The CPU time that it has used, ns.
    pub time: Option<u64>,
    /// How long it was ready to run and had no CPU of the host, ns.
    pub delay: Option<u64>,
    /// Its state (virVcpuState), which libvirt alone has.
    pub state: Option<i32>,
    /// How long it has waited for I/O, ns, which libvirt alone has.
    pub wait: Option<u64>,
}

/// How much the tasks of a control group have waited for one resource.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Pressure {
    /// One of [`RESOURCES`].
    pub resource: &'static str,
    /// `some`: at least one task waited; `full`: some did, and none could run.
    pub kind: &'static str,
    /// The share of the last 10 seconds, %. The kernel computes it every 2 seconds.
    pub avg10: f64,
    /// The share of the last minute, %.
    pub avg60: f64,
    /// The share of the last 5 minutes, %.
    pub avg300: f64,
    /// All time of waiting, microseconds.
    pub total: u64,
}

/// What the kernel counts in control groups with a CPU quota, summed.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Throttling {
    /// The periods of the quota in which the group had something to run.
    pub periods: u64,
    /// The periods in which it used up the quota and was stopped.
    pub throttled_periods: u64,
    /// How long it was stopped, ns.
    pub throttled: u64,
}

impl std::ops::AddAssign for Throttling {
    fn add_assign(&mut self, other: Self) {
        self.periods = self.periods.saturating_add(other.periods);
        self.throttled_periods = self
            .throttled_periods
            .saturating_add(other.throttled_periods);
        self.throttled = self.throttled.saturating_add(other.throttled);
    }
}

impl VcpuTimes {
    /// The sum over the vCPUs. `None` if one of them lacks the figure.
    pub fn sum(&self, figure: impl Fn(&VcpuTime) -> Option<u64>) -> Option<u64> {
        let mut figures = self.list.iter().map(figure);
        figures.try_fold(0, |sum: u64, figure| Some(sum.saturating_add(figure?)))
    }
}
