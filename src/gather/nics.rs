//! Which VMs' network counters we read ourselves.
//!
//! libvirt is asked until what it says has been seen to be what `/proc/net/dev` says here: its
//! figures lie between those of this gather's reading and the next one's.

use smol_str::SmolStr;
use uuid::Uuid;

use crate::host::taps::{Counters, Taps, View};
use crate::maps::{HashMap, HashSet};
use crate::sample::{Device, Devices, Run};

/// The readings, and what they have shown.
#[derive(Debug, Default)]
pub struct Nics {
    /// This gather's reading,
    taps: Option<Taps>,
    /// and the VMs whose QEMU, so libvirtd too, was seen to stand in the network that it is of.
    near: HashSet<Uuid>,
    /// The last gather's, as long as there is something to compare with it,
    before: Option<Taps>,
    /// and what libvirt said after it.
    said: HashMap<Run, Vec<(SmolStr, Counters)>>,
    /// The interfaces that are the same here and there.
    ours: HashMap<Run, HashMap<SmolStr, View>>,
}

impl Nics {
    /// A new gather begins.
    pub fn begin(&mut self) {
        self.before = self.taps.take();
    }

    /// What `/proc/net/dev` says in this gather, and whose QEMU is in that network.
    pub fn read(&mut self, taps: Taps, near: HashSet<Uuid>) {
        let said = std::mem::take(&mut self.said);
        if let Some(before) = self.before.take() {
            for (run, nics) in said {
                let view = |(name, said): (SmolStr, Counters)| {
                    let view = before.view(&taps, &name, &said)?;
                    Some((name, view))
                };
                let ours = nics.into_iter().filter_map(view);
                self.ours.entry(run).or_default().extend(ours);
            }
        }
        self.taps = Some(taps);
        self.near = near;
    }

    /// What libvirt said of a VM's NICs in this gather.
    pub fn said(&mut self, run: Run, nics: &Devices<8>) {
        let Some(taps) = &self.taps else { return };
        // Our own figures prove nothing.
        if nics.at == taps.at || !self.near.contains(&run.uuid) {
            return;
        }
        let ours = self.ours.get(&run);
        let new = nics.list.iter().filter_map(|nic| {
            let name = nic.name.as_ref()?;
            let mut said = [0; 8];
            for (place, counter) in said.iter_mut().zip(nic.counters) {
                *place = counter?;
            }
            let known = ours.is_some_and(|ours| ours.contains_key(name));
            (!known).then(|| (name.clone(), said))
        });
        let new: Vec<_> = new.collect();
        if !new.is_empty() {
            self.said.insert(run, new);
        }
    }

    /// The counters of a VM's NICs, `names` being all that it has; `None` where libvirt has to be
    /// asked. Whose name is not `wanted` gets no counters.
    pub fn of(
        &self,
        run: Run,
        names: &[Option<SmolStr>],
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Devices<8>> {
        let taps = self.taps.as_ref()?;
        let ours = self.ours.get(&run);
        let near = self.near.contains(&run.uuid);
        let mut list = Vec::with_capacity(names.len());
        for name in names {
            let counters = match name {
                Some(name) if wanted(name) => {
                    let view = ours.filter(|_| near)?.get(name)?;
                    taps.counters(name, *view)?.map(Some)
                }
                _ => [None; 8],
            };
            list.push(Device {
                name: name.clone(),
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

    /// A run was described anew: one of its NICs may be another of the same name, and what they have
    /// shown is shown again.
    pub fn forget(&mut self, run: Run) {
        self.ours.remove(&run);
        self.said.remove(&run);
    }

    /// libvirtd may be another process: every NIC has to show anew whose figures they are. Replies of
    /// the last process may still be on their way, so this gather's reading proves nothing either.
    pub fn clear(&mut self) {
        *self = Self::default();
    }

    /// Forgets the VMs that are gone.
    pub fn keep(&mut self, active: &HashSet<Run>) {
        self.ours.retain(|run, _| active.contains(run));
        self.said.retain(|run, _| active.contains(run));
    }
}

#[cfg(test)]
mod tests {
    use std::time::Instant;

    use super::*;
    use crate::sample::examples::{device, devices, run};

    fn taps(rows: &[(&str, u64, u64)]) -> Taps {
        let row = |(name, received, sent): &(&str, u64, u64)| {
            format!("{name}: {received} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0\n")
        };
        let table: String = rows.iter().map(row).collect();
        Taps::parse(table.as_bytes(), Instant::now())
    }

    fn said(rows: &[(&str, u64, u64)]) -> Devices<8> {
        let nic = |(name, received, sent): &(&str, u64, u64)| {
            device(name, "", [*received, 0, 0, 0, *sent, 0, 0, 0].map(Some))
        };
        devices(Instant::now(), rows.iter().map(nic).collect())
    }

    fn names(names: &[&str]) -> Vec<Option<SmolStr>> {
        names.iter().map(|name| Some((*name).into())).collect()
    }

    fn near() -> HashSet<Uuid> {
        HashSet::from_iter([run(1).uuid])
    }

    /// A gather in which libvirt said this between that reading and the one that follows.
    fn shown(before: &[(&str, u64, u64)], libvirt: &[(&str, u64, u64)]) -> Nics {
        let mut nics = Nics::default();
        nics.begin();
        nics.read(taps(before), near());
        nics.said(run(1), &said(libvirt));
        nics.begin();
        nics.read(taps(before), near());
        nics
    }

    #[test]
    fn from_the_gather_after_the_proof_on_libvirt_is_not_asked() {
        let mut nics = Nics::default();
        let (all, any) = (names(&["v"]), |_: &str| true);
        for gather in 1..=4 {
            nics.begin();
            assert_eq!(nics.of(run(1), &all, any), None, "{gather}: not read yet");
            nics.read(taps(&[("v", 10 * gather, gather)]), near());
            let found = nics.of(run(1), &all, any);
            if gather == 1 {
                assert_eq!(found, None);
                nics.said(run(1), &said(&[("v", 1, 10)]));
            } else {
                let mut expected = said(&[("v", gather, 10 * gather)]);
                let found = found.expect("proven");
                expected.at = found.at;
                assert_eq!(found, expected);
            }
        }
        assert_eq!(nics.of(run(2), &all, any), None, "another run");
    }

    #[test]
    fn one_that_does_not_agree_has_libvirt_asked_for_the_whole_vm() {
        let here = [("v", 7, 3), ("w", 8, 4), ("z", 0, 0)];
        let nics = shown(&here, &[("v", 3, 7), ("w", 5, 8), ("z", 0, 0)]);
        let ask = |list: &[&str]| nics.of(run(1), &names(list), |_| true);
        assert!(ask(&["v"]).is_some());
        assert_eq!(ask(&["v", "w"]), None, "another namespace's");
        assert_eq!(ask(&["v", "z"]), None, "standing still");
        assert_eq!(ask(&["v", "new"]), None);
        // Who is not wanted is not missed, and keeps its place.
        let found = nics.of(run(1), &names(&["w", "v"]), |name| name == "v");
        let found: Vec<_> = found
            .unwrap()
            .list
            .into_iter()
            .map(|nic| nic.name)
            .collect();
        assert_eq!(found, names(&["w", "v"]));
    }

    #[test]
    fn a_vm_whose_nics_have_no_name_here_needs_nobody() {
        let nics = shown(&[], &[]);
        let any = |_: &str| true;
        assert_eq!(nics.of(run(9), &[], any).unwrap().list, []);
        let nameless = nics.of(run(9), &[None], any).unwrap().list;
        assert_eq!((nameless.len(), nameless[0].counters), (1, [None; 8]));
    }

    #[test]
    fn a_vm_of_another_network_has_libvirt_asked_whatever_the_figures() {
        let here = [("v", 7, 3)];
        let mut nics = Nics::default();
        let any = |_: &str| true;
        for _ in 0..3 {
            nics.begin();
            nics.read(taps(&here), HashSet::default());
            assert_eq!(nics.of(run(1), &names(&["v"]), any), None);
            nics.said(run(1), &said(&[("v", 3, 7)]));
        }
        let mut nics = shown(&here, &[("v", 3, 7)]);
        assert!(nics.of(run(1), &names(&["v"]), any).is_some());
        nics.begin();
        nics.read(taps(&here), HashSet::default());
        assert_eq!(nics.of(run(1), &names(&["v"]), any), None, "no more");
        assert!(nics.of(run(1), &[None], any).is_some(), "needs nobody");
    }

    #[test]
    fn a_nic_of_a_vm_described_anew_may_be_another_of_the_same_name() {
        let mut nics = shown(&[("v", 7, 3)], &[("v", 3, 7)]);
        let ask = |nics: &Nics| nics.of(run(1), &names(&["v"]), |_| true);
        assert!(ask(&nics).is_some());
        nics.forget(run(1));
        assert_eq!(ask(&nics), None);
        // Of this very gather: our own words.
        let mut own = said(&[("v", 3, 7)]);
        own.at = nics.taps.as_ref().unwrap().at;
        nics.said(run(1), &own);
        nics.begin();
        nics.read(taps(&[("v", 7, 3)]), near());
        assert_eq!(ask(&nics), None);
        // Counted from the host's side now.
        nics.said(run(1), &said(&[("v", 7, 3)]));
        nics.begin();
        nics.read(taps(&[("v", 8, 3)]), near());
        let found = ask(&nics).unwrap();
        assert_eq!(found.list, said(&[("v", 8, 3)]).list);
    }

    #[test]
    fn without_a_reading_nothing_is_ours() {
        let mut nics = shown(&[("v", 7, 3)], &[("v", 3, 7)]);
        let ask = |nics: &Nics| nics.of(run(1), &names(&["v"]), |_| true);
        assert!(ask(&nics).is_some());
        nics.begin();
        assert_eq!(ask(&nics), None, "the look was late");
        nics.said(run(1), &said(&[("v", 3, 7)]));
        nics.begin();
        nics.read(taps(&[("v", 9, 9)]), near());
        assert!(ask(&nics).is_some(), "and what was shown stays shown");
        nics.keep(&HashSet::from_iter([run(1)]));
        assert!(ask(&nics).is_some());
        nics.keep(&HashSet::default());
        assert_eq!(ask(&nics), None);
    }
}
