//! A VM's memory, and how old the guest's own figures of it may be.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// Memory of a VM, sizes in KiB.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Memory {
    /// When it was so: the midpoint of the call that reported it, or the time at which it was found that it cannot have changed.
    pub at: Instant,
    /// The most memory that the VM may have.
    pub maximum: Option<u64>,
    /// The memory that the VM has now.
    pub current: Option<u64>,
    /// The size of the balloon, from libvirt's memory statistics.
    pub actual: Option<u64>,
    /// Resident memory of the QEMU process on the host.
    pub rss: Option<u64>,
    /// The total memory that the guest sees.
    pub available: Option<u64>,
    /// The memory that the guest could use without swapping.
    pub usable: Option<u64>,
    /// Memory that the guest has swapped in.
    pub swap_in: Option<u64>,
    /// Memory that the guest has swapped out.
    pub swap_out: Option<u64>,
    /// How many page faults of the guest needed the disk.
    pub major_fault: Option<u64>,
    /// How many page faults of the guest did not.
    pub minor_fault: Option<u64>,
    /// The size of the guest's page cache.
    pub disk_caches: Option<u64>,
    /// The memory that the guest leaves unused.
    pub unused: Option<u64>,
    /// When the guest last reported its figures, in s since 1970 by the hypervisor's clock; 0: never.
    pub last_update: Option<u64>,
    /// The age of that report when it was read, in s.
    pub report_age: Option<u64>,
    /// When libvirt was asked for them. That was in an earlier gather if they cannot have changed since.
    pub asked_at: Instant,
}

impl Memory {
    pub(super) fn new(at: Instant) -> Self {
        Self {
            at,
            maximum: None,
            current: None,
            actual: None,
            rss: None,
            available: None,
            usable: None,
            swap_in: None,
            swap_out: None,
            major_fault: None,
            minor_fault: None,
            disk_caches: None,
            unused: None,
            last_update: None,
            report_age: None,
            asked_at: at,
        }
    }

    /// The figures for which libvirt needs no monitor: its bulk call has them of a VM that does not answer, too.
    #[must_use]
    pub fn without_monitor(self) -> Self {
        Self {
            maximum: self.maximum,
            current: self.current,
            actual: self.actual,
            asked_at: self.asked_at,
            ..Self::new(self.at)
        }
    }

    /// Sets the age of the guest's last report. From the age of `max_age` on the guest's own figures are
    /// dropped: QEMU goes on giving those of its last report, for as long as the guest sends no other one
    /// (a paused VM, a driver that was unloaded).
    pub fn set_report_age(&mut self, now: SystemTime, max_age: Duration) {
        let Some(last_update) = self.last_update.filter(|at| *at > 0) else {
            return;
        };
        // Another host's clock may be ahead of this one.
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let age = now.saturating_sub(last_update);
        self.report_age = Some(age);
        if Duration::from_secs(age) >= max_age {
            self.available = None;
            self.usable = None;
            self.unused = None;
            self.swap_in = None;
            self.swap_out = None;
            self.major_fault = None;
            self.minor_fault = None;
            self.disk_caches = None;
        }
    }
}
