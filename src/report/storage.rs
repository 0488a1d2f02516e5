//! Messages about storage that does not answer, answers slowly, or is unknown.

use log::Level;

use super::{Reporter, names, names_of};
use crate::gather::GatherReport;
use crate::gather::protocol::DomainRef;
use crate::maps::HashSet;
use crate::times::MOUNT_ANSWERS;
use crate::wording::count;

impl Reporter {
    /// Reports each mount that does not answer, with the VMs that have disks on it.
    pub(super) fn dead_mounts(&mut self, report: &GatherReport) {
        let dead: HashSet<String> = report
            .dead
            .keys()
            .map(|mount| mount.display().to_string())
            .collect();
        for mount in self.dead.difference(&dead) {
            if let Some(times) = self.problems.clear(mount) {
                log::info!("{mount} answers again, after {}", count(times, "gather"));
            }
        }
        for (mount, domains) in &report.dead {
            let mount = mount.display().to_string();
            self.problems.report(mount.clone(), Level::Warn, || {
                let names = names_of(domains);
                if report.disks_left_out {
                    format!(
                        "{mount} does not answer; with this version of libvirt, reading disk statistics would \
                         stop the guests, so the disks of these VMs are left out: {names}"
                    )
                } else {
                    format!("{mount} does not answer, so the disks of these VMs are read one by one: {names}")
                }
            });
        }
        self.dead = dead;
    }

    /// Reported from the second gather in succession on: the first may end before all paths are resolved
    /// on a busy host.
    pub(super) fn unknown_storage(&mut self, unknown: &[DomainRef]) {
        let was_unknown = std::mem::replace(&mut self.unknown_storage, !unknown.is_empty());
        self.while_it_lasts(
            "unknown storage",
            (!unknown.is_empty() && was_unknown).then(|| {
                format!(
                    "not known where all files of these VMs lie; with this version of libvirt, reading disk \
                     statistics would stop the guests if that storage did not answer, so the disks are \
                     left out (block_statistics = \"bulk\" reads them all the same): {}",
                    names_of(unknown)
                )
            }),
            "it is known where all files of all VMs lie",
        );
    }

    /// Reported of a VM from the second gather in succession on: a mount that dies is known to be dead by
    /// then, and a host that is busy for a moment is not worth a message.
    pub(super) fn slow_storage(&mut self, slow: &[DomainRef]) {
        let now = slow.iter().map(|domain| domain.run.uuid).collect();
        let before = std::mem::replace(&mut self.slow_storage, now);
        let again: Vec<&str> = slow
            .iter()
            .filter(|domain| before.contains(&domain.run.uuid))
            .map(|domain| domain.name.as_str())
            .collect();
        self.while_it_lasts(
            "slow storage",
            (!again.is_empty()).then(|| {
                format!(
                    "mounts of these VMs take longer than {} s to answer; with this version of libvirt, \
                     reading disk statistics would stop the guests if they did not answer at all, so the \
                     disks are left out (block_statistics = \"bulk\" reads them all the same): {}",
                    MOUNT_ANSWERS.as_secs_f64(),
                    names(again)
                )
            }),
            "no VM's disks are left out for a slow mount any more",
        );
    }
}
