use std::time::Instant;

use super::*;
use crate::sample::testing::{device, devices, run};

/// One VM and the readings of this host.
#[derive(Default)]
struct Nics {
    net: NetReadings,
    vm: VmNics,
}

impl Nics {
    fn begin(&mut self) {
        self.net.begin();
    }

    fn read(&mut self, net_dev: NetDev, in_our_netns: HashSet<Uuid>) {
        self.vm.compare(self.net.before.take().as_ref(), &net_dev);
        self.net.now = Some(net_dev);
        self.net.in_our_netns = in_our_netns;
    }

    fn report(&mut self, nics: &Devices<NIC_COUNTERS>) {
        self.vm.report(&self.net, run(1).uuid, nics);
    }

    fn counters(
        &self,
        nics: &[Nic],
        wanted: impl Fn(&str) -> bool,
    ) -> Option<Devices<NIC_COUNTERS>> {
        self.vm.counters(&self.net, run(1).uuid, nics, wanted)
    }

    fn correct(&self, nics: &mut Devices<NIC_COUNTERS>) {
        self.vm.correct(&self.net, run(1).uuid, nics);
    }

    fn describe(&mut self, description: Option<&Description>) {
        self.vm.on_description(&self.net, description);
    }
}

fn reading(rows: &[(&str, u64, u64)]) -> NetDev {
    let row = |(name, received, sent): &(&str, u64, u64)| {
        format!("{name}: {received} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0\n")
    };
    let table: String = rows.iter().map(row).collect();
    NetDev::parse(table.as_bytes(), Instant::now())
}

fn reported(rows: &[(&str, u64, u64)]) -> Devices<NIC_COUNTERS> {
    let nic = |(name, received, sent): &(&str, u64, u64)| {
        device(name, "", [*received, 0, 0, 0, *sent, 0, 0, 0].map(Some))
    };
    devices(Instant::now(), rows.iter().map(nic).collect())
}

fn nic(name: &str, kind: &str) -> Nic {
    Nic {
        target: (!name.is_empty()).then(|| name.into()),
        mac: None,
        kind: kind.into(),
    }
}

fn named(names: &[&str]) -> Vec<Nic> {
    names.iter().map(|name| nic(name, "bridge")).collect()
}

fn in_our_netns() -> HashSet<Uuid> {
    HashSet::from_iter([run(1).uuid])
}

/// Between two readings like this one libvirt reported these figures.
fn compared(before: &[(&str, u64, u64)], libvirt: &[(&str, u64, u64)]) -> Nics {
    let mut nics = Nics::default();
    nics.begin();
    nics.read(reading(before), in_our_netns());
    nics.report(&reported(libvirt));
    nics.begin();
    nics.read(reading(before), in_our_netns());
    nics
}

#[test]
fn from_the_gather_after_the_proof_on_libvirt_is_not_queried() {
    let mut nics = Nics::default();
    let (all, any) = (named(&["v"]), |_: &str| true);
    for gather in 1..=4 {
        nics.begin();
        assert_eq!(nics.counters(&all, any), None, "{gather}: not read yet");
        nics.read(reading(&[("v", 10 * gather, gather)]), in_our_netns());
        let found = nics.counters(&all, any);
        if gather == 1 {
            assert_eq!(found, None);
            nics.report(&reported(&[("v", 1, 10)]));
        } else {
            let mut expected = reported(&[("v", gather, 10 * gather)]);
            let found = found.expect("proven");
            expected.at = found.at;
            assert_eq!(found, expected);
        }
    }
}

#[test]
fn for_one_nic_without_proof_libvirt_is_queried_for_all_of_the_vm() {
    let here = [("v", 7, 3), ("w", 8, 4), ("z", 0, 0)];
    let nics = compared(&here, &[("v", 3, 7), ("w", 5, 8), ("z", 0, 0)]);
    let ask = |list: &[&str]| nics.counters(&named(list), |_| true);
    assert!(ask(&["v"]).is_some());
    assert_eq!(ask(&["v", "w"]), None, "another namespace's");
    assert_eq!(ask(&["v", "z"]), None, "all zero proves nothing");
    assert_eq!(ask(&["v", "new"]), None);
    // A NIC that is not wanted needs no proof, and keeps its place.
    let names: Vec<_> = nics
        .counters(&named(&["w", "v"]), |name| name == "v")
        .unwrap()
        .list
        .into_iter()
        .map(|nic| nic.name)
        .collect();
    assert_eq!(names, [Some("w".into()), Some("v".into())]);
}

#[test]
fn for_nics_without_a_name_here_libvirt_is_not_queried() {
    let mut nics = Nics::default();
    nics.begin();
    nics.read(reading(&[]), HashSet::default());
    let any = |_: &str| true;
    assert_eq!(nics.counters(&[], any).unwrap().list, []);
    let nameless = nics.counters(&named(&[""]), any).unwrap().list;
    assert_eq!(
        (nameless.len(), nameless[0].counters),
        (1, [None; NIC_COUNTERS])
    );
}

#[test]
fn for_a_vm_in_another_network_namespace_libvirt_is_queried_whatever_the_figures() {
    let here = [("v", 7, 3)];
    let mut nics = Nics::default();
    let any = |_: &str| true;
    for _ in 0..3 {
        nics.begin();
        nics.read(reading(&here), HashSet::default());
        assert_eq!(nics.counters(&named(&["v"]), any), None);
        nics.report(&reported(&[("v", 3, 7)]));
    }
    let mut nics = compared(&here, &[("v", 3, 7)]);
    assert!(nics.counters(&named(&["v"]), any).is_some());
    nics.begin();
    nics.read(reading(&here), HashSet::default());
    assert_eq!(nics.counters(&named(&["v"]), any), None, "no more");
    assert!(
        nics.counters(&named(&[""]), any).is_some(),
        "there is nothing to query"
    );
}

#[test]
fn a_nic_of_a_vm_described_anew_may_be_another_of_the_same_name() {
    let mut nics = compared(&[("v", 7, 3)], &[("v", 3, 7)]);
    let ask = |nics: &Nics| nics.counters(&named(&["v"]), |_| true);
    assert!(ask(&nics).is_some());
    nics.describe(None);
    assert_eq!(ask(&nics), None);
    // The sample has the figures that we read in this gather.
    let mut own = reported(&[("v", 3, 7)]);
    own.at = nics.net.now.as_ref().unwrap().at;
    nics.report(&own);
    nics.begin();
    nics.read(reading(&[("v", 7, 3)]), in_our_netns());
    assert_eq!(ask(&nics), None);
    // Now libvirt counts from the host's side.
    nics.report(&reported(&[("v", 7, 3)]));
    nics.begin();
    nics.read(reading(&[("v", 8, 3)]), in_our_netns());
    let found = ask(&nics).unwrap();
    assert_eq!(found.list, reported(&[("v", 8, 3)]).list);
}

#[test]
fn without_a_reading_libvirt_is_queried() {
    let mut nics = compared(&[("v", 7, 3)], &[("v", 3, 7)]);
    let ask = |nics: &Nics| nics.counters(&named(&["v"]), |_| true);
    assert!(ask(&nics).is_some());
    nics.begin();
    assert_eq!(ask(&nics), None, "the host watcher was late");
    nics.report(&reported(&[("v", 3, 7)]));
    nics.begin();
    nics.read(reading(&[("v", 9, 9)]), in_our_netns());
    assert!(ask(&nics).is_some(), "and what was proven stays proven");
}

fn figures(nics: &Devices<NIC_COUNTERS>) -> Vec<Option<(u64, u64)>> {
    let list = nics.list.iter();
    list.map(|nic| nic.counters[0].zip(nic.counters[4]))
        .collect()
}

/// libvirt reported these NICs, each with its kind.
fn reported_with_kinds(rows: &[(&str, &str, u64, u64)]) -> Devices<NIC_COUNTERS> {
    let nic = |(name, kind, received, sent): &(&str, &str, u64, u64)| {
        device(name, kind, [*received, 0, 0, 0, *sent, 0, 0, 0].map(Some))
    };
    devices(Instant::now(), rows.iter().map(nic).collect())
}

#[test]
fn where_a_name_is_the_end_of_anothers_our_figures_are_used_at_once() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3), ("other", 20, 10)];
    let mut nics = Nics::default();
    for gather in 1..=2 {
        nics.begin();
        nics.read(reading(&here), in_our_netns());
        let mut found =
            reported_with_kinds(&[("web", "bridge", 50, 100), ("other", "bridge", 11, 20)]);
        let at = found.at;
        nics.report(&found);
        nics.correct(&mut found);
        assert_eq!(figures(&found), [Some((3, 9)), Some((11, 20))], "{gather}");
        assert!(found.at < at, "measured with our reading");
        // It is never proven, and needs no proof.
        let web = nics.counters(&named(&["web"]), |_| true).unwrap();
        assert_eq!(figures(&web), [Some((3, 9))]);
    }
    // The figures of the other NIC did not lie between ours, so libvirt is still queried.
    assert_eq!(nics.counters(&named(&["web", "other"]), |_| true), None);
}

#[test]
fn where_our_figures_are_used_those_that_are_proven_are_of_the_same_moment() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3), ("other", 20, 10)];
    let mut nics = compared(&here, &[("other", 10, 20)]);
    nics.begin();
    nics.read(
        reading(&[("dmz-web", 1, 1), ("web", 9, 4), ("other", 22, 11)]),
        in_our_netns(),
    );
    let mut found = reported_with_kinds(&[("web", "bridge", 50, 100), ("other", "bridge", 12, 24)]);
    nics.correct(&mut found);
    assert_eq!(figures(&found), [Some((4, 9)), Some((11, 22))]);
}

#[test]
fn libvirts_figures_stay_in_another_namespace_or_where_the_kernel_does_not_count() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3)];
    let libvirts = reported_with_kinds(&[("web", "bridge", 50, 100)]);
    let mut nics = Nics::default();
    let corrected = |nics: &Nics, libvirts: &Devices<NIC_COUNTERS>| {
        let mut found = libvirts.clone();
        nics.correct(&mut found);
        found
    };
    nics.begin();
    nics.read(reading(&here), HashSet::default());
    assert_eq!(
        corrected(&nics, &libvirts),
        libvirts,
        "another network namespace"
    );
    nics.begin();
    nics.read(reading(&here[..1]), in_our_netns());
    assert_eq!(
        corrected(&nics, &libvirts),
        libvirts,
        "moved to another network namespace"
    );
    nics.begin();
    nics.read(reading(&here), in_our_netns());
    assert_ne!(corrected(&nics, &libvirts), libvirts);
    let vhost = reported_with_kinds(&[("web", "vhostuser", 50, 100)]);
    assert_eq!(corrected(&nics, &vhost), vhost);
    let direct = corrected(&nics, &reported_with_kinds(&[("web", "direct", 50, 100)]));
    assert_eq!(figures(&direct), [Some((9, 3))]);
}

#[test]
fn without_a_reading_figures_that_may_be_wrong_are_missing() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3)];
    let mut nics = Nics::default();
    nics.begin();
    nics.read(reading(&here), in_our_netns());
    for _ in 0..2 {
        nics.begin();
        let mut found =
            reported_with_kinds(&[("web", "bridge", 50, 100), ("other", "bridge", 10, 20)]);
        nics.correct(&mut found);
        assert_eq!(figures(&found), [None, Some((10, 20))]);
    }
}

#[test]
fn a_macvtap_made_by_hand_counts_from_the_hosts_side_whatever_libvirt_reports() {
    let sys = tempfile::tempdir().unwrap();
    for folder in ["hand0/macvtap", "tap0"] {
        std::fs::create_dir_all(sys.path().join("class/net").join(folder)).unwrap();
    }
    let mut nics = Nics::default();
    nics.net.sys = sys.path().into();
    let all = [
        nic("hand0", "ethernet"),
        nic("tap0", "ethernet"),
        nic("far0", "ethernet"),
    ];
    let description = Description {
        nics: all.to_vec(),
        ..Description::default()
    };
    nics.describe(Some(&description));
    let here = [("hand0", 7, 3), ("tap0", 7, 3), ("far0", 7, 3)];
    nics.begin();
    nics.read(reading(&here), in_our_netns());
    // libvirt 9.0 exchanges the two, and that proves nothing.
    let libvirts = all
        .each_ref()
        .map(|nic| (nic.target.as_deref().unwrap(), "ethernet", 3, 7));
    let mut found = reported_with_kinds(&libvirts);
    nics.report(&found);
    nics.correct(&mut found);
    assert_eq!(figures(&found), [Some((7, 3)), Some((3, 7)), Some((3, 7))]);
    nics.begin();
    nics.read(reading(&here), in_our_netns());
    let found = nics.counters(&all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((7, 3)), Some((3, 7)), Some((3, 7))]);
    // A tap in its place counts from the guest's side; libvirt 7.0 exchanges the two.
    std::fs::remove_dir(sys.path().join("class/net/hand0/macvtap")).unwrap();
    nics.describe(Some(&description));
    let found = nics.counters(&all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((3, 7)); 3]);
    // What is known of the interfaces does not depend on libvirtd.
    nics.vm.on_restart();
    let found = nics.counters(&all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((3, 7)); 3]);
}
