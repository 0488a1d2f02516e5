//! The counters of network interfaces, by a call for each.

use std::time::Instant;

use smol_str::SmolStr;
use virt::sys;

use super::{counted, midpoint, tolerate};
use crate::description::Description;
use crate::device_filter::DeviceFilter;
use crate::libvirt::{Domain, Error};
use crate::maps::HashSet;
use crate::sample::{Device, Devices, NIC_COUNTERS, RunId, Sample};

/// Fetches the counters of the NICs that have a name on the host.
///
/// # Errors
/// As for [`super::fill`].
pub(super) fn by_name(
    sample: &mut Sample,
    domain: &Domain,
    description: &Description,
    wanted: &DeviceFilter,
) -> Result<(), Error> {
    let start = Instant::now();
    let mut list = Vec::with_capacity(description.nics.len());
    for nic in &description.nics {
        let counters = match &nic.target {
            Some(target) if !wanted.nic(target) => continue,
            Some(target) => tolerate(domain, domain.interface_stats(target))?,
            None => None,
        };
        let counters = counters.map_or([None; NIC_COUNTERS], nic_counters);
        list.push(Device {
            name: nic.target.clone(),
            kind: nic.kind.clone(),
            counters,
            io_errors: None,
        });
    }
    sample.nics = Some(Devices {
        at: midpoint(start),
        list,
        complete: true,
    });
    Ok(())
}

fn nic_counters(stats: sys::virDomainInterfaceStatsStruct) -> [Option<u64>; NIC_COUNTERS] {
    [
        stats.rx_bytes,
        stats.rx_packets,
        stats.rx_errs,
        stats.rx_drop,
        stats.tx_bytes,
        stats.tx_packets,
        stats.tx_errs,
        stats.tx_drop,
    ]
    .map(counted)
}

/// Fetches the counters of the NICs that have no name on the host and are known by their MAC address, and names them by
/// it. `uncounted`: those of which libvirt has none, and is not asked again.
///
/// # Errors
/// As for [`super::fill`].
pub fn by_mac(
    sample: &mut Sample,
    domain: &Domain,
    description: &Description,
    wanted: &DeviceFilter,
    uncounted: &mut HashSet<(RunId, SmolStr)>,
) -> Result<(), Error> {
    for nic in &description.nics {
        let Some(mac) = nic.mac.as_ref().filter(|mac| wanted.nic(mac)) else {
            continue;
        };
        let key = (sample.run, mac.clone());
        let Some(nics) = sample.nics.as_mut().filter(|_| !uncounted.contains(&key)) else {
            continue;
        };
        let Some(counters) = tolerate(domain, domain.interface_stats(mac))?.map(nic_counters)
        else {
            log::debug!("{}: libvirt has no counters of its NIC {mac}", sample.name);
            uncounted.insert(key);
            continue;
        };
        // The NICs without a name are alike.
        let place = nics.list.iter().position(|nic| nic.name.is_none());
        let named = Device {
            name: Some(mac.clone()),
            kind: nic.kind.clone(),
            counters,
            io_errors: None,
        };
        match place {
            Some(place) => nics.list[place] = named,
            None => nics.list.push(named),
        }
    }
    Ok(())
}
