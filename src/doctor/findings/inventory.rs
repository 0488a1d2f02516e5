//! Shut-off VMs and storage pools.

use super::Finding;
use crate::doctor::facts::Inventory;
use crate::wording::{count, first_names};

pub(super) fn found(inventory: &Inventory) -> Vec<Finding> {
    let mut found = Vec::new();
    if inventory.inactive_wanted {
        found.push(match inventory.inactive {
            Some(vms) => Finding::ok("shut-off VMs", count(vms as u64, "VM")),
            None => Finding::warning("shut-off VMs", "no list of them came").with(
                "a VM may be locked inside libvirtd: see whether \"virsh list --all\" answers",
            ),
        });
    }
    if inventory.pools_wanted {
        found.push(match &inventory.pools {
            Some(pools) if pools.is_empty() => {
                Finding::note("storage pools", "there is none, so vm_pools has no lines")
            }
            Some(pools) => {
                let message = format!(
                    "{}: {}",
                    count(pools.len() as u64, "pool"),
                    first_names(pools)
                );
                Finding::ok("storage pools", message)
            }
            None => Finding::warning("storage pools", "no list of them came").with(
                "a pool may be locked inside libvirtd: see whether \"virsh pool-list\" answers",
            ),
        });
    }
    let silent = &inventory.pools_not_answering;
    if !silent.is_empty() {
        let message = format!("no answer from {}", first_names(silent));
        found.push(Finding::warning("storage pools", message).with(
            "libvirtd holds the pool's lock while it refreshes it: see the mount or the server of the pool",
        ));
    }
    if !inventory.problems.is_empty() {
        let message = format!("libvirt refused: {}", inventory.problems.join("; "));
        let remedy =
            "this driver may not have them; with modular daemons, storage pools need virtstoraged";
        let subject = "shut-off VMs, pools and node";
        found.push(Finding::warning(subject, message).with(remedy));
    }
    found
}
