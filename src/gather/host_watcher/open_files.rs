//! How many files of VMs are kept open.

/// What is kept open for each VM in any case, at most: `stat` of its QEMU and the state of its freezer; of its
/// control group the folder, the files of its CPU time (two in v1), and the folder of its CPU quota.
const FILES_A_VM: usize = 6;

/// The kernel keeps a buffer of 4 KiB for each file of /proc and of control groups that has been read
/// (seq_read_iter in its fs/seq_file.c), which counts as no program's memory: 16 MiB.
const MOST_FILES: usize = 4096;

/// How many files of vCPU threads may be kept open, and as many of pressure. Each may take a quarter of what
/// the files that each VM has in any case leave of the limit. The rest is left to connections and other files.
pub(super) fn most_files(limit: u64, vms: usize) -> usize {
    let limit = usize::try_from(limit).unwrap_or(usize::MAX);
    let left = limit.saturating_sub(vms.saturating_mul(FILES_A_VM));
    (left / 4).min(MOST_FILES)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_each_vm_has_comes_first() {
        for (limit, vms, most) in [
            (0, 0, 0),
            (1024, 10, 241),
            (1024, 100, 106),
            (1024, 170, 1),
            (1024, 200, 0),
            (16_000, 100, 3850),
            (524_288, 1000, MOST_FILES),
            (u64::MAX, 0, MOST_FILES),
        ] {
            assert_eq!(most_files(limit, vms), most, "{limit} {vms}");
        }
    }
}
