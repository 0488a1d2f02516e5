//! Whether the counters of a VM's NICs that we read from `/proc/net/dev` are libvirt's.
//!
//! libvirt is queried until what it reports has been seen to lie between two of our readings
//! ([`Proof`]).
//!
//! There are two sorts of NICs of which libvirt may report wrong figures. What it reports of them
//! proves nothing, and ours are used where the NIC is in our network namespace:
//! - a NIC whose name is the end of another interface's name: libvirt may report the other's counters
//!   (virNetDevTapInterfaceStats in its src/util/virnetdevtap.c);
//! - `<interface type='ethernet'>`: libvirt 7.0 exchanges received and sent for a tap, 9.0 for a
//!   macvtap that was made by hand; 11.3 does not (virDomainNetTypeSharesHostView in its
//!   src/conf/domain_conf.c).

use std::path::PathBuf;

use smol_str::SmolStr;
use uuid::Uuid;

use super::proof::Proof;
use crate::description::{Description, Nic};
use crate::host::net_dev::{self, NetDev, NicCounters, Perspective};
use crate::maps::HashSet;
use crate::sample::{Device, Devices, NIC_COUNTERS};

/// What `/proc/net/dev` says, and which VMs it is true of.
#[derive(Debug)]
pub(super) struct NetReadings {
    /// Where sysfs is mounted.
    pub(super) sys: PathBuf,
    /// This gather's reading.
    pub(super) now: Option<NetDev>,
    /// The reading before it, until there is a new one.
    pub(super) before: Option<NetDev>,
    /// The VMs whose QEMU, and so libvirtd, was seen in the network namespace of the reading.
    pub(super) in_our_netns: HashSet<Uuid>,
}

impl Default for NetReadings {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            now: None,
            before: None,
            in_our_netns: HashSet::default(),
        }
    }
}

impl NetReadings {
    /// A new gather begins.
    pub(super) fn begin(&mut self) {
        if let Some(last) = self.now.take() {
            self.before = Some(last);
        }
    }
}

/// What is known of the NICs of one run of a VM.
#[derive(Debug, Default)]
pub(super) struct VmNics {
    /// By the NIC's name. Proven: our interface is libvirt's, and this is libvirt's perspective of it.
    proofs: Vec<(SmolStr, Proof<NicCounters, Perspective>)>,
    /// The macvtaps that were made by hand.
    macvtaps: Vec<SmolStr>,
}

impl VmNics {
    /// libvirt reported these in this gather.
    pub(super) fn report(&mut self, net: &NetReadings, uuid: Uuid, nics: &Devices<NIC_COUNTERS>) {
        let Some(now) = &net.now else { return };
        // A sample with our own figures proves nothing.
        if nics.at == now.at || !net.in_our_netns.contains(&uuid) {
            return;
        }
        for nic in &nics.list {
            if let Some(name) = &nic.name
                && let Some(reported) = all(nic.counters)
                && self.proven(name).is_none()
                && self.unreliable(now, name, &nic.kind).is_none()
            {
                self.proof(name).report(reported);
            }
        }
    }

    /// Compares what libvirt reported with our readings before (`None`: there is none) and after.
    pub(super) fn compare(&mut self, before: Option<&NetDev>, after: &NetDev) {
        for (name, proof) in &mut self.proofs {
            proof.compare(|libvirt| before?.perspective(after, name, &libvirt));
        }
        self.proofs.retain(|(_, proof)| !proof.is_empty());
    }

    /// The counters of the VM's NICs by our reading, `nics` being all that it has; `None` where
    /// libvirt has to be queried. A NIC whose name is not `wanted` gets no counters.
    pub(super) fn counters(
        &self,
        net: &NetReadings,
        uuid: Uuid,
        nics: &[Nic],
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Devices<NIC_COUNTERS>> {
        let now = net.now.as_ref()?;
        let in_our_netns = net.in_our_netns.contains(&uuid);
        let mut list = Vec::with_capacity(nics.len());
        for Nic { target, kind, .. } in nics {
            let counters = match target {
                Some(name) if wanted(name) => {
                    let perspective = self.perspective(now, name, kind).filter(|_| in_our_netns)?;
                    now.counters(name, perspective)?.map(Some)
                }
                _ => [None; NIC_COUNTERS],
            };
            list.push(Device {
                name: target.clone(),
                kind: SmolStr::default(),
                counters,
                io_errors: None,
            });
        }
        Some(Devices {
            at: now.at,
            list,
            complete: true,
        })
    }

    /// Puts our figures in the place of libvirt's if the VM has a NIC of which libvirt may report
    /// wrong ones. Without a reading in this gather, such a NIC gets none.
    pub(super) fn correct(&self, net: &NetReadings, uuid: Uuid, nics: &mut Devices<NIC_COUNTERS>) {
        let Some(known) = net.now.as_ref().or(net.before.as_ref()) else {
            return;
        };
        if nics.at == known.at || !net.in_our_netns.contains(&uuid) {
            return;
        }
        let unreliable = |name: &SmolStr, kind: &str| self.unreliable(known, name, kind).is_some();
        let mut named = nics
            .list
            .iter()
            .filter_map(|nic| Some((nic.name.as_ref()?, &nic.kind)));
        if !named.any(|(name, kind)| unreliable(name, kind)) {
            return;
        }
        for nic in &mut nics.list {
            let Some(name) = &nic.name else { continue };
            match &net.now {
                None if unreliable(name, &nic.kind) => nic.counters = [None; NIC_COUNTERS],
                None => {}
                // Those that are proven are replaced as well: all figures are of one moment.
                Some(now) => {
                    let perspective = self.perspective(now, name, &nic.kind);
                    if let Some(ours) =
                        perspective.and_then(|perspective| now.counters(name, perspective))
                    {
                        nic.counters = ours.map(Some);
                    }
                }
            }
        }
        nics.at = net.now.as_ref().map_or(nics.at, |now| now.at);
    }

    /// The perspective in which our counters of a NIC can be used, if they can be.
    fn perspective(&self, now: &NetDev, name: &str, kind: &str) -> Option<Perspective> {
        let unreliable = self.unreliable(now, name, kind);
        unreliable.or_else(|| self.proven(name).copied())
    }

    fn proven(&self, name: &str) -> Option<&Perspective> {
        let mut proofs = self.proofs.iter();
        proofs.find(|(known, _)| known == name)?.1.proven()
    }

    fn proof(&mut self, name: &SmolStr) -> &mut Proof<NicCounters, Perspective> {
        let known = self.proofs.iter().position(|(known, _)| known == name);
        let place = known.unwrap_or_else(|| {
            self.proofs.push((name.clone(), Proof::default()));
            self.proofs.len() - 1
        });
        &mut self.proofs[place].1
    }

    /// If libvirt may report wrong figures of this NIC: the perspective in which ours are right.
    fn unreliable(&self, net_dev: &NetDev, name: &str, kind: &str) -> Option<Perspective> {
        if kind != "ethernet" && !net_dev.is_suffix_of_another(name) {
            return None;
        }
        let perspective = match kind {
            "direct" => Perspective::Host,
            "ethernet" if self.macvtaps.iter().any(|known| known == name) => Perspective::Host,
            "bridge" | "network" | "ethernet" => Perspective::Guest,
            // The kernel does not count the others (vhost-user, for example).
            _ => return None,
        };
        net_dev.counters(name, perspective).and(Some(perspective))
    }

    /// The run was described anew. One of its NICs may be another one of the same name, so all is to
    /// be proven again.
    pub(super) fn on_description(&mut self, net: &NetReadings, description: Option<&Description>) {
        self.proofs.clear();
        self.macvtaps = description
            .iter()
            .flat_map(|known| &known.nics)
            .filter(|nic| nic.kind == "ethernet")
            .filter_map(|nic| nic.target.clone())
            .filter(|name| net_dev::is_macvtap(&net.sys, name) == Some(true))
            .collect();
    }

    /// libvirtd may be another process. Which interfaces are macvtaps does not depend on it.
    pub(super) fn on_restart(&mut self) {
        self.proofs.clear();
    }
}

/// All counters, if none is missing.
fn all(counters: [Option<u64>; NIC_COUNTERS]) -> Option<NicCounters> {
    let mut all = [0; NIC_COUNTERS];
    for (place, counter) in all.iter_mut().zip(counters) {
        *place = counter?;
    }
    Some(all)
}

#[cfg(test)]
mod tests;
