//! Messages about VMs that have ended: a crash is worth a warning, a stop that somebody wanted is not.

use super::Reporter;
use crate::gather::GatherReport;
use crate::libvirt::per_call::SHUTOFF;
use crate::measurements::state;
use crate::vms::EndedRun;

impl Reporter {
    /// Logs one warning for each run that has crashed or whose guest's kernel has panicked.
    pub(super) fn endings(&mut self, report: &GatherReport) {
        for domain in &report.panicked {
            if self.panicked.insert(domain.run) {
                log::warn!(
                    "VM {} ({}): the guest's kernel panicked; see the guest's console and its crash dump",
                    domain.name,
                    domain.run.uuid
                );
            }
        }
        for ended in &report.ended {
            let was_reported = self.panicked.remove(&ended.domain.run);
            if ended.has_crashed() && !was_reported {
                log::warn!("{}", crashed(ended, &self.uri.value));
            } else {
                log::debug!("{}", stopped(ended));
            }
        }
    }
}

fn stopped(ended: &EndedRun) -> String {
    let why = state::reason(SHUTOFF, ended.reason);
    format!("VM {} has stopped ({why})", ended.domain.name)
}

fn crashed(ended: &EndedRun, uri: &str) -> String {
    let name = &ended.domain.name;
    let uuid = ended.domain.run.uuid;
    // "qemu+ssh://host/system"; empty: libvirt's default.
    let driver = uri.split(['+', ':']).next().unwrap_or_default();
    match driver {
        "" | "qemu" => format!(
            "VM {name} ({uuid}) has crashed: its QEMU ended by itself or was killed; see \
             /var/log/libvirt/qemu/{name}.log on the hypervisor, and the kernel's log for \"Out of memory\""
        ),
        _ => format!("VM {name} ({uuid}) has crashed; see libvirt's log on the hypervisor"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::report::tests::{found, reached, reporter};
    use crate::sample::testing::run;

    fn ended(reason: i32) -> GatherReport {
        let mut report = reached(vec![]);
        report.ended = vec![EndedRun::new(found("web"), reason)];
        report
    }

    #[test]
    fn a_crash_names_the_vm_and_the_log_of_its_driver() {
        let crash = EndedRun::new(found("web"), 3);
        for uri in ["", "qemu:///system", "qemu+ssh://host/system"] {
            let said = crashed(&crash, uri);
            assert!(said.starts_with("VM web (6695eb01-"), "{said}");
            assert!(said.contains("crashed") && said.contains("/var/log/libvirt/qemu/web.log"));
        }
        assert!(!crashed(&crash, "lxc:///system").contains("qemu"));
    }

    #[test]
    fn a_stop_has_libvirts_word_for_its_reason() {
        let saved = EndedRun::new(found("web"), 5);
        assert_eq!(stopped(&saved), "VM web has stopped (saved)");
    }

    #[test]
    fn a_panic_is_remembered_until_the_run_ends() {
        let mut reporter = reporter();
        let mut panic = reached(vec![]);
        panic.panicked = vec![found("web")];
        reporter.report(&panic);
        assert!(reporter.panicked.contains(&run(1)));
        reporter.report(&ended(3));
        assert!(reporter.panicked.is_empty());
        reporter.report(&panic);
        reporter.forget(run(1).uuid);
        assert!(reporter.panicked.is_empty());
    }
}
