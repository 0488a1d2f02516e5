//! Which VMs' network counters we read ourselves.
//!
//! libvirt is asked until what it says has been seen to be what `/proc/net/dev` says here: its
//! figures lie between those of this gather's reading and the next one's.
//!
//! Two sorts of interfaces it may get wrong, so what it says of them proves nothing, and ours are
//! the figures of those that stand in our network namespace:
//! - one whose name is the end of another's: it may get the other's counters
//!   (virNetDevTapInterfaceStats in libvirt's src/util/virnetdevtap.c);
//! - `<interface type='ethernet'>`: received and sent are exchanged, by 7.0 for a tap, by 9.0 for a
//!   macvtap that was made by hand; not by 11.3 (virDomainNetTypeSharesHostView in its
//!   src/conf/domain_conf.c).

use std::path::PathBuf;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::description::{Description, Nic};
use crate::host::net_dev::{self, NetDev, NicCounters, Perspective};
use crate::maps::{HashMap, HashSet};
use crate::sample::{Device, Devices, RunId};

/// The readings, and what they have shown.
#[derive(Debug)]
pub struct Nics {
    /// Where sysfs is mounted.
    sys: PathBuf,
    /// This gather's reading,
    taps: Option<NetDev>,
    /// and the VMs whose QEMU, so libvirtd too, was seen to stand in the network that it is of.
    in_our_netns: HashSet<Uuid>,
    /// The one before it, as long as there is something to compare with it,
    before: Option<NetDev>,
    /// and what libvirt said after it.
    said: HashMap<RunId, Vec<(SmolStr, NicCounters)>>,
    /// The interfaces that are the same here and there.
    ours: HashMap<RunId, HashMap<SmolStr, Perspective>>,
    /// The macvtaps that were made by hand.
    macvtaps: HashMap<RunId, Vec<SmolStr>>,
    /// libvirtd may have become another process in this gather: what is said in it proves nothing.
    restarted: bool,
}

impl Default for Nics {
    fn default() -> Self {
        Self {
            sys: "/sys".into(),
            taps: None,
            in_our_netns: HashSet::default(),
            before: None,
            said: HashMap::default(),
            ours: HashMap::default(),
            macvtaps: HashMap::default(),
            restarted: false,
        }
    }
}

impl Nics {
    /// A new gather begins.
    pub fn begin(&mut self) {
        if let Some(taps) = self.taps.take() {
            self.before = Some(taps);
        }
        self.restarted = false;
    }

    /// What `/proc/net/dev` says in this gather, and whose QEMU is in that network.
    pub fn read(&mut self, taps: NetDev, in_our_netns: HashSet<Uuid>) {
        let said = std::mem::take(&mut self.said);
        if let Some(before) = self.before.take() {
            for (run, nics) in said {
                let view = |(name, said): (SmolStr, NicCounters)| {
                    let view = before.perspective(&taps, &name, &said)?;
                    Some((name, view))
                };
                let ours = nics.into_iter().filter_map(view);
                self.ours.entry(run).or_default().extend(ours);
            }
        }
        self.taps = Some(taps);
        self.in_our_netns = in_our_netns;
    }

    /// What libvirt said of a VM's NICs in this gather.
    pub fn said(&mut self, run: RunId, nics: &Devices<8>) {
        let Some(taps) = &self.taps else { return };
        // Our own figures prove nothing.
        if self.restarted || nics.at == taps.at || !self.in_our_netns.contains(&run.uuid) {
            return;
        }
        let ours = self.ours.get(&run);
        let new = nics.list.iter().filter_map(|nic| {
            let name = nic.name.as_ref()?;
            let mut said = [0; 8];
            for (place, counter) in said.iter_mut().zip(nic.counters) {
                *place = counter?;
            }
            let known = ours.is_some_and(|ours| ours.contains_key(name))
                || self.doubtful(taps, run, name, &nic.kind).is_some();
            (!known).then(|| (name.clone(), said))
        });
        let new: Vec<_> = new.collect();
        if !new.is_empty() {
            self.said.insert(run, new);
        }
    }

    /// The counters of a VM's NICs, `nics` being all that it has; `None` where libvirt has to be
    /// asked. Whose name is not `wanted` gets no counters.
    pub fn of(
        &self,
        run: RunId,
        nics: &[Nic],
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Devices<8>> {
        let taps = self.taps.as_ref()?;
        let in_our_netns = self.in_our_netns.contains(&run.uuid);
        let mut list = Vec::with_capacity(nics.len());
        for Nic { target, kind } in nics {
            let counters = match target {
                Some(name) if wanted(name) => {
                    let doubtful = self.doubtful(taps, run, name, kind);
                    let view = doubtful.or_else(|| self.proven(run, name));
                    taps.counters(name, view.filter(|_| in_our_netns)?)?
                        .map(Some)
                }
                _ => [None; 8],
            };
            list.push(Device {
                name: target.clone(),
                kind: SmolStr::default(),
                counters,
            });
        }
        Some(Devices {
            at: taps.at,
            list,
            complete: true,
        })
    }

    /// Puts our figures in the place of libvirt's for a VM with a NIC that it may get wrong; without
    /// a reading of ours that NIC has none.
    pub fn correct(&self, run: RunId, nics: &mut Devices<8>) {
        let Some(known) = self.taps.as_ref().or(self.before.as_ref()) else {
            return;
        };
        if nics.at == known.at || !self.in_our_netns.contains(&run.uuid) {
            return;
        }
        let doubtful = |name: &SmolStr, kind: &str| self.doubtful(known, run, name, kind);
        let mut named = nics
            .list
            .iter()
            .filter_map(|nic| Some((nic.name.as_ref()?, &nic.kind)));
        if !named.any(|(name, kind)| doubtful(name, kind).is_some()) {
            return;
        }
        for nic in &mut nics.list {
            let Some(name) = &nic.name else { continue };
            let view = doubtful(name, &nic.kind);
            match &self.taps {
                None if view.is_some() => nic.counters = [None; 8],
                None => {}
                // Those that are proven, too: all of one moment.
                Some(taps) => {
                    let view = view.or_else(|| self.proven(run, name));
                    if let Some(ours) = view.and_then(|view| taps.counters(name, view)) {
                        nic.counters = ours.map(Some);
                    }
                }
            }
        }
        nics.at = self.taps.as_ref().map_or(nics.at, |taps| taps.at);
    }

    /// In which view our counters of a NIC are libvirt's, as it has shown.
    fn proven(&self, run: RunId, name: &str) -> Option<Perspective> {
        self.ours.get(&run)?.get(name).copied()
    }

    /// In which view our counters are the guest's, where libvirt's may be wrong.
    fn doubtful(&self, taps: &NetDev, run: RunId, name: &str, kind: &str) -> Option<Perspective> {
        let macvtaps = self.macvtaps.get(&run);
        let by_hand = macvtaps.is_some_and(|all| all.iter().any(|known| known == name));
        if kind != "ethernet" && !taps.is_suffix_of_another(name) {
            return None;
        }
        let view = match kind {
            "direct" => Perspective::Host,
            "ethernet" if by_hand => Perspective::Host,
            "bridge" | "network" | "ethernet" => Perspective::Guest,
            // vhost-user, say: not counted by the kernel.
            _ => return None,
        };
        taps.counters(name, view).and(Some(view))
    }

    /// A run was described anew: one of its NICs may be another of the same name, and what they have
    /// shown is shown again.
    pub fn learn(&mut self, run: RunId, described: Option<&Description>) {
        self.ours.remove(&run);
        self.said.remove(&run);
        let nics = described.iter().flat_map(|known| &known.nics);
        let by_hand = nics.filter(|nic| nic.kind == "ethernet");
        let names = by_hand.filter_map(|nic| nic.target.clone());
        let is_macvtap = |name: &SmolStr| net_dev::is_macvtap(&self.sys, name) == Some(true);
        let macvtaps: Vec<SmolStr> = names.filter(is_macvtap).collect();
        if macvtaps.is_empty() {
            self.macvtaps.remove(&run);
        } else {
            self.macvtaps.insert(run, macvtaps);
        }
    }

    /// libvirtd may be another process: every NIC has to show anew whose figures they are. Replies of
    /// the last process may still be on their way, so what is said in this gather proves nothing.
    pub fn clear(&mut self) {
        self.ours.clear();
        self.said.clear();
        self.restarted = true;
    }

    /// Forgets the VMs that are gone.
    pub fn keep(&mut self, active: &HashSet<RunId>) {
        self.ours.retain(|run, _| active.contains(run));
        self.said.retain(|run, _| active.contains(run));
        self.macvtaps.retain(|run, _| active.contains(run));
    }
}

#[cfg(test)]
mod tests;
