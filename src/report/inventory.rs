//! What is asked beside the gather and does not come: shut-off VMs, the node, storage pools.

use super::Reporter;
use crate::gather::worker::Failure;
use crate::inventory::{Fares, HangingCall, InventoryReport, MOST_HANGING};
use crate::wording::first_names;

/// What may be the reason that calls for VMs do not return, and what to do.
const LOCKED: &str = "a VM is locked inside libvirtd, as it is while it is being started with an image on storage that does not \
     answer, or libvirtd lets no more connections in (max_clients); see whether \"virsh list --all\" answers, and the storage of \
     the VM that was started last";

impl Reporter {
    /// Logs what began and what ended with this gather, in which libvirt answered.
    pub fn inventory(&mut self, report: &InventoryReport) {
        self.while_it_lasts(
            "inventory threads",
            report.not_started.clone(),
            "the threads for what is asked beside the gather can be started again",
        );
        self.while_it_lasts(
            "inventory closed",
            report.is_closed.then(|| CLOSED.to_owned()),
            "what is asked beside the gather is asked for again",
        );
        let silence = self.silence;
        let message = |fares: &Fares, what: &str, why: &str| {
            let silent = fares.silent.filter(|silent| *silent >= silence);
            let seconds = silent.map(|silent| silent.as_secs());
            match (seconds, &fares.failure) {
                (Some(seconds), _) => {
                    let why = if fares.is_connected { why } else { CONNECTION };
                    Some(format!("{what}: no answer for {seconds} s; {why}"))
                }
                (None, Some(Failure::Refused(error))) => {
                    Some(format!("{what}: libvirt refuses them: {error}; {REFUSED}"))
                }
                // Without a connection the gather itself says so, or the next one has it.
                (None, _) => None,
            }
        };
        let off = "shut-off VMs have no lines (inactive = true)";
        let inactive = message(&report.inactive, off, LOCKED);
        let pools = message(
            &report.pools,
            "storage pools, or some of them, have no lines",
            POOL,
        );
        let node = "the node's memory and CPUs are missing in vm_host";
        let node = message(&report.node, node, CONNECTION);
        self.while_it_lasts("inactive VMs", inactive, "shut-off VMs are listed again");
        self.while_it_lasts("pools", pools, "storage pools are listed again");
        self.while_it_lasts("node", node, "the node's figures come again");
        let hanging = || {
            let calls = report.hanging.iter();
            calls.filter(|call| call.since.elapsed() >= silence)
        };
        let names: Vec<String> = hanging().map(name).collect();
        self.while_it_lasts(
            "hanging pools",
            (!names.is_empty()).then(|| locked_pools(&names)),
            "every storage pool answers again",
        );
        self.while_it_lasts(
            "too many hanging pools",
            (hanging().count() >= MOST_HANGING).then(|| {
                format!(
                    "{MOST_HANGING} calls for storage pools hang ({}), so no pool is asked for until one returns; vm_pools has no \
                     lines meanwhile; see the storage of these pools",
                    first_names(&names)
                )
            }),
            "there is room for calls for storage pools again",
        );
    }
}

/// Why nothing is asked.
const CLOSED: &str = "libvirtd accepts fewer connections than this program wants, so shut-off VMs, storage pools and the node are \
     not asked for, and other clients get in; they are tried again in an hour; raise max_clients and max_anonymous_clients in \
     libvirtd's configuration";

/// What may be the reason that the round over all pools is not over.
const POOL: &str = "a pool may be locked, as it is while libvirtd refreshes it on storage that does not answer; see whether \
     \"virsh pool-list\" answers";

/// What to do where libvirt refuses a call.
const REFUSED: &str =
    "this driver may not have them; with modular daemons, storage pools need virtstoraged";

/// What to do where a harmless call does not return.
const CONNECTION: &str = "libvirtd may let no more connections in: see max_clients and max_anonymous_clients in its \
     configuration, and whether \"virsh pool-list\" answers";

fn name(call: &HangingCall) -> String {
    let list = || "the list of all pools".to_owned();
    call.pool.as_ref().map_or_else(list, ToString::to_string)
}

fn locked_pools(names: &[String]) -> String {
    format!(
        "no answer from these storage pools, which have no lines until libvirtd unlocks them: {}; libvirtd holds a pool's lock \
         while it refreshes the pool, so its storage does not answer: see the mount or the server of the pool (\"virsh \
         pool-list\" hangs as well)",
        first_names(names)
    )
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, Instant};

    use super::*;
    use crate::libvirt::Error;
    use crate::logging::Problems;
    use crate::report::tests::reporter;

    fn silent(seconds: u64) -> Fares {
        Fares {
            silent: Some(Duration::from_secs(seconds)),
            is_connected: true,
            failure: None,
        }
    }

    /// How often each kind was reported of the two gathers, both of which had this.
    fn counted(report: &InventoryReport, key: &str) -> Option<u64> {
        let mut reporter = reporter();
        reporter.inventory(report);
        reporter.inventory(report);
        let count = reporter.problems.clear(key);
        reporter.inventory(report);
        reporter.inventory(&InventoryReport::default());
        let none = format!("{:?}", Problems::default());
        assert_eq!(format!("{:?}", reporter.problems), none, "all is over");
        count
    }

    #[test]
    fn silence_is_reported_when_it_lasts() {
        for (key, seconds, count) in [
            ("inactive VMs", 6, None),
            ("inactive VMs", 7, Some(2)),
            ("pools", 7, Some(2)),
            ("node", 7, Some(2)),
        ] {
            let mut report = InventoryReport::default();
            match key {
                "inactive VMs" => report.inactive = silent(seconds),
                "pools" => report.pools = silent(seconds),
                _ => report.node = silent(seconds),
            }
            assert_eq!(counted(&report, key), count, "{key} {seconds}");
        }
    }

    #[test]
    fn a_refusal_is_reported_and_a_lost_connection_is_not() {
        let error = Error::invalid("no storage driver");
        for (failure, count) in [
            (Failure::Refused(error.clone()), Some(2)),
            (Failure::Lost(error.clone()), None),
            (Failure::Unreachable(error), None),
        ] {
            let mut report = InventoryReport::default();
            report.pools.failure = Some(failure);
            assert_eq!(counted(&report, "pools"), count, "{report:?}");
        }
    }

    #[test]
    fn hanging_pools_are_named_and_two_of_them_stop_the_others() {
        let call = |pool: &str, seconds| HangingCall {
            pool: Some(pool.into()),
            since: Instant::now() - Duration::from_secs(seconds),
        };
        let mut report = InventoryReport {
            hanging: vec![call("a", 8), call("b", 1)],
            ..InventoryReport::default()
        };
        assert_eq!(counted(&report, "hanging pools"), Some(2));
        assert_eq!(counted(&report, "too many hanging pools"), None);
        report.hanging[1] = call("b", 8);
        assert_eq!(counted(&report, "too many hanging pools"), Some(2));
        assert!(locked_pools(&["a".into(), "b".into()]).contains(": a, b; "));
    }
}
