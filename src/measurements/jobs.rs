//! `vm_jobs`: one line for each VM with a job (a migration, a backup, ...), with what the job does as the tag `operation`.

use crate::line_protocol::{Line, Tags};
use crate::sample::{JobStats, JobStatus};

/// The words for virDomainJobOperation, as its constants in libvirt-domain.h have them.
const OPERATIONS: [&str; 11] = [
    "unknown",
    "start",
    "save",
    "restore",
    "migration_in",
    "migration_out",
    "snapshot",
    "snapshot_revert",
    "dump",
    "backup",
    "snapshot_delete",
];

/// The word for what a job does; "unknown" for a number that this program does not know.
fn word(operation: i32) -> &'static str {
    let known = usize::try_from(operation).ok();
    let word = known.and_then(|known| OPERATIONS.get(known));
    word.copied().unwrap_or("unknown")
}

/// Appends the line of one job to `buffer`; `tags` are those of the VM.
pub(crate) fn write(
    buffer: &mut String,
    tags: &Tags,
    stats: &JobStats,
    status: JobStatus,
    timestamp: i64,
) {
    let operation = Tags::new().with("operation", word(stats.operation));
    let mut line = Line::begin_with(buffer, "vm_jobs", tags, &operation);
    line.string(
        "status",
        Some(match status {
            JobStatus::Running => "running",
            JobStatus::Completed => "completed",
            JobStatus::Failed => "failed",
        }),
    );
    line.int("elapsed_ms", stats.elapsed);
    line.int("data_total_bytes", stats.data_total);
    line.int("data_processed_bytes", stats.data_processed);
    line.int("data_remaining_bytes", stats.data_remaining);
    line.int("memory_dirty_rate_pages", stats.memory_dirty_rate);
    line.int("memory_bps", stats.memory_bps);
    line.int("memory_iteration", stats.memory_iteration);
    line.int("downtime_ms", stats.downtime);
    line.end(timestamp);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_line_of_a_job_has_what_is_known_and_how_far_it_is() {
        let vm = Tags::new().with("VMID", "1");
        let stats = JobStats {
            operation: 5,
            elapsed: Some(1),
            data_total: Some(2),
            data_processed: Some(3),
            data_remaining: Some(4),
            memory_dirty_rate: Some(5),
            memory_bps: Some(6),
            memory_iteration: Some(7),
            downtime: Some(8),
            success: None,
        };
        let backup = JobStats {
            operation: 9,
            elapsed: Some(1),
            success: Some(false),
            ..JobStats::default()
        };
        let mut lines = String::new();
        write(&mut lines, &vm, &stats, JobStatus::Running, 17);
        for stats in [stats, backup] {
            write(&mut lines, &vm, &stats, stats.final_status(), 18);
        }
        let figures = "elapsed_ms=1i,data_total_bytes=2i,data_processed_bytes=3i,data_remaining_bytes=4i,\
             memory_dirty_rate_pages=5i,memory_bps=6i,memory_iteration=7i,downtime_ms=8i";
        let expected = format!(
            "vm_jobs,VMID=1,operation=migration_out status=\"running\",{figures} 17\n\
             vm_jobs,VMID=1,operation=migration_out status=\"completed\",{figures} 18\n\
             vm_jobs,VMID=1,operation=backup status=\"failed\",elapsed_ms=1i 18\n"
        );
        assert_eq!(lines, expected);
    }

    #[test]
    fn words() {
        assert_eq!(word(8), "dump");
        assert_eq!(word(10), "snapshot_delete");
        assert_eq!(word(11), "unknown");
        assert_eq!(word(-1), "unknown");
    }
}
