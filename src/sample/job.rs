//! The figures of a job: of a migration, a backup, a dump or another operation that takes its time and whose progress
//! libvirt reports.

/// The figures of one job of a VM (`virDomainGetJobStats`), as far as its kind has them.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct JobStats {
    /// What the job does (virDomainJobOperation); 0 is unknown.
    pub operation: i32,
    /// How long it has run, ms.
    pub elapsed: Option<u64>,
    /// How much it has to copy, memory and disks, bytes.
    pub data_total: Option<u64>,
    /// How much it has copied, bytes. What the guest changed meanwhile counts again.
    pub data_processed: Option<u64>,
    /// How much is left to copy, bytes.
    pub data_remaining: Option<u64>,
    /// How much memory the guest changes, pages per second.
    pub memory_dirty_rate: Option<u64>,
    /// How fast memory is copied, bytes per second.
    pub memory_bps: Option<u64>,
    /// How often QEMU has begun to go through the memory.
    pub memory_iteration: Option<u64>,
    /// How long the guest stood still, ms; while the job runs, how long QEMU expects that it will.
    pub downtime: Option<u64>,
    /// Whether a job that has finished has succeeded. libvirt says so of backups alone.
    pub success: Option<bool>,
}

/// How far a job has come.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum JobStatus {
    /// It runs.
    Running,
    /// It has done what it was started for.
    Completed,
    /// It has ended without that: it failed or was cancelled.
    Failed,
}

impl JobStats {
    /// How the job ended, if these are its final figures. For kinds other than backups libvirt sends final figures only of
    /// jobs that were completed.
    pub fn final_status(&self) -> JobStatus {
        match self.success {
            Some(false) => JobStatus::Failed,
            Some(true) | None => JobStatus::Completed,
        }
    }
}
