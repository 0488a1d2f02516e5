//! What concerns the connection to libvirt: its first answer, whether it answers, and what it refuses.

use log::Level;

use super::Reporter;
use crate::gather::{GatherReport, Problem};
use crate::wording::{active_vms, count, dotted};

impl Reporter {
    /// The one line of the start, when libvirt has answered for the first time.
    pub(super) fn start(&mut self, report: &GatherReport) {
        let Some(active) = report.active.as_ref().filter(|_| !self.started) else {
            return;
        };
        self.started = true;
        let version = report
            .libvirt_version
            .map(|version| format!(" {}", dotted(version)));
        let version = version.unwrap_or_default();
        let active = active_vms(active.len(), report.filtered.len());
        log::info!("libvirt{version} at {}: {active}", self.uri);
    }

    pub(super) fn connection(&mut self, report: &GatherReport) {
        let uri = &self.uri;
        let unreachable = report.problems.iter().find_map(|problem| match problem {
            Problem::Unreachable(error) => Some(error),
            _ => None,
        });
        if !report.reached {
            if unreachable.is_none() && report.unasked {
                return;
            }
            self.problems.report("libvirt", Level::Warn, || match unreachable {
                Some(error) => {
                    let remedy = error.remedy(&uri.value);
                    format!("cannot reach libvirt at {uri}: {error}; {remedy}; trying again at every gather")
                }
                None => match report.cut {
                    Some(why) => format!("{why} before libvirt at {uri} had answered"),
                    None => format!("libvirt at {uri} does not answer; trying again at every gather"),
                },
            });
            return;
        }
        if let Some(times) = self.problems.clear("libvirt") {
            let gathers = count(times, "gather");
            log::info!("libvirt answers again, after {gathers} without an answer");
        }
        let message = unreachable.map(|error| {
            format!(
                "not all connections to libvirt at {uri} could be opened in this gather: {error}"
            )
        });
        self.while_it_lasts(
            "connections",
            message,
            "all connections can be opened again",
        );
    }

    pub(super) fn refusals(&mut self, report: &GatherReport) {
        let refused = report.problems.iter().find_map(|problem| match problem {
            Problem::Refused(error) => Some(format!("libvirt refused a call: {error}")),
            _ => None,
        });
        self.while_it_lasts("refused", refused, "libvirt refuses no call any more");
    }
}
