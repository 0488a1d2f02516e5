use std::time::Instant;

use super::*;
use crate::sample::testing::{device, devices, run};

fn taps(rows: &[(&str, u64, u64)]) -> NetDev {
    let row = |(name, received, sent): &(&str, u64, u64)| {
        format!("{name}: {received} 0 0 0 0 0 0 0 {sent} 0 0 0 0 0 0 0\n")
    };
    let table: String = rows.iter().map(row).collect();
    NetDev::parse(table.as_bytes(), Instant::now())
}

fn said(rows: &[(&str, u64, u64)]) -> Devices<8> {
    let nic = |(name, received, sent): &(&str, u64, u64)| {
        device(name, "", [*received, 0, 0, 0, *sent, 0, 0, 0].map(Some))
    };
    devices(Instant::now(), rows.iter().map(nic).collect())
}

fn nic(name: &str, kind: &str) -> Nic {
    Nic {
        target: (!name.is_empty()).then(|| name.into()),
        kind: kind.into(),
    }
}

fn named(names: &[&str]) -> Vec<Nic> {
    names.iter().map(|name| nic(name, "bridge")).collect()
}

fn in_our_netns() -> HashSet<Uuid> {
    HashSet::from_iter([run(1).uuid])
}

/// A gather in which libvirt said this between that reading and the one that follows.
fn shown(before: &[(&str, u64, u64)], libvirt: &[(&str, u64, u64)]) -> Nics {
    let mut nics = Nics::default();
    nics.begin();
    nics.read(taps(before), in_our_netns());
    nics.said(run(1), &said(libvirt));
    nics.begin();
    nics.read(taps(before), in_our_netns());
    nics
}

#[test]
fn from_the_gather_after_the_proof_on_libvirt_is_not_asked() {
    let mut nics = Nics::default();
    let (all, any) = (named(&["v"]), |_: &str| true);
    for gather in 1..=4 {
        nics.begin();
        assert_eq!(nics.of(run(1), &all, any), None, "{gather}: not read yet");
        nics.read(taps(&[("v", 10 * gather, gather)]), in_our_netns());
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
    let ask = |list: &[&str]| nics.of(run(1), &named(list), |_| true);
    assert!(ask(&["v"]).is_some());
    assert_eq!(ask(&["v", "w"]), None, "another namespace's");
    assert_eq!(ask(&["v", "z"]), None, "history still");
    assert_eq!(ask(&["v", "new"]), None);
    // Who is not wanted is not missed, and keeps its place.
    let found = nics.of(run(1), &named(&["w", "v"]), |name| name == "v");
    let found = found.unwrap().list.into_iter();
    let found: Vec<_> = found.map(|nic| nic.name).collect();
    assert_eq!(found, [Some("w".into()), Some("v".into())]);
}

#[test]
fn a_vm_whose_nics_have_no_name_here_needs_nobody() {
    let nics = shown(&[], &[]);
    let any = |_: &str| true;
    assert_eq!(nics.of(run(9), &[], any).unwrap().list, []);
    let nameless = nics.of(run(9), &named(&[""]), any).unwrap().list;
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
        assert_eq!(nics.of(run(1), &named(&["v"]), any), None);
        nics.said(run(1), &said(&[("v", 3, 7)]));
    }
    let mut nics = shown(&here, &[("v", 3, 7)]);
    assert!(nics.of(run(1), &named(&["v"]), any).is_some());
    nics.begin();
    nics.read(taps(&here), HashSet::default());
    assert_eq!(nics.of(run(1), &named(&["v"]), any), None, "no more");
    assert!(
        nics.of(run(1), &named(&[""]), any).is_some(),
        "needs nobody"
    );
}

#[test]
fn a_nic_of_a_vm_described_anew_may_be_another_of_the_same_name() {
    let mut nics = shown(&[("v", 7, 3)], &[("v", 3, 7)]);
    let ask = |nics: &Nics| nics.of(run(1), &named(&["v"]), |_| true);
    assert!(ask(&nics).is_some());
    nics.learn(run(1), None);
    assert_eq!(ask(&nics), None);
    // Of this very gather: our own words.
    let mut own = said(&[("v", 3, 7)]);
    own.at = nics.taps.as_ref().unwrap().at;
    nics.said(run(1), &own);
    nics.begin();
    nics.read(taps(&[("v", 7, 3)]), in_our_netns());
    assert_eq!(ask(&nics), None);
    // Counted from the host's side now.
    nics.said(run(1), &said(&[("v", 7, 3)]));
    nics.begin();
    nics.read(taps(&[("v", 8, 3)]), in_our_netns());
    let found = ask(&nics).unwrap();
    assert_eq!(found.list, said(&[("v", 8, 3)]).list);
}

#[test]
fn without_a_reading_nothing_is_ours() {
    let mut nics = shown(&[("v", 7, 3)], &[("v", 3, 7)]);
    let ask = |nics: &Nics| nics.of(run(1), &named(&["v"]), |_| true);
    assert!(ask(&nics).is_some());
    nics.begin();
    assert_eq!(ask(&nics), None, "the look was late");
    nics.said(run(1), &said(&[("v", 3, 7)]));
    nics.begin();
    nics.read(taps(&[("v", 9, 9)]), in_our_netns());
    assert!(ask(&nics).is_some(), "and what was shown stays shown");
    nics.keep(&HashSet::from_iter([run(1)]));
    assert!(ask(&nics).is_some());
    nics.keep(&HashSet::default());
    assert_eq!(ask(&nics), None);
}

fn figures(nics: &Devices<8>) -> Vec<Option<(u64, u64)>> {
    let list = nics.list.iter();
    list.map(|nic| nic.counters[0].zip(nic.counters[4]))
        .collect()
}

/// What libvirt says of these, by kind.
fn brought(rows: &[(&str, &str, u64, u64)]) -> Devices<8> {
    let nic = |(name, kind, received, sent): &(&str, &str, u64, u64)| {
        device(name, kind, [*received, 0, 0, 0, *sent, 0, 0, 0].map(Some))
    };
    devices(Instant::now(), rows.iter().map(nic).collect())
}

#[test]
fn of_a_name_that_is_the_end_of_anothers_ours_is_right_at_once() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3), ("other", 20, 10)];
    let mut nics = Nics::default();
    for gather in 1..=2 {
        nics.begin();
        nics.read(taps(&here), in_our_netns());
        let mut found = brought(&[("web", "bridge", 50, 100), ("other", "bridge", 11, 20)]);
        let at = found.at;
        nics.said(run(1), &found);
        nics.correct(run(1), &mut found);
        assert_eq!(figures(&found), [Some((3, 9)), Some((11, 20))], "{gather}");
        assert!(found.at < at, "measured with our reading");
        // Never proven, and needs no proof.
        let web = nics.of(run(1), &named(&["web"]), |_| true).unwrap();
        assert_eq!(figures(&web), [Some((3, 9))]);
    }
    // The other one was not in between, so libvirt is asked on.
    assert_eq!(nics.of(run(1), &named(&["web", "other"]), |_| true), None);
}

#[test]
fn where_ours_are_put_in_the_proven_ones_are_of_the_same_moment() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3), ("other", 20, 10)];
    let mut nics = shown(&here, &[("other", 10, 20)]);
    nics.begin();
    nics.read(
        taps(&[("dmz-web", 1, 1), ("web", 9, 4), ("other", 22, 11)]),
        in_our_netns(),
    );
    let mut found = brought(&[("web", "bridge", 50, 100), ("other", "bridge", 12, 24)]);
    nics.correct(run(1), &mut found);
    assert_eq!(figures(&found), [Some((4, 9)), Some((11, 22))]);
}

#[test]
fn who_is_elsewhere_or_not_counted_by_the_kernel_keeps_libvirts_figures() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3)];
    let said = brought(&[("web", "bridge", 50, 100)]);
    let mut nics = Nics::default();
    let corrected = |nics: &Nics, said: &Devices<8>| {
        let mut found = said.clone();
        nics.correct(run(1), &mut found);
        found
    };
    nics.begin();
    nics.read(taps(&here), HashSet::default());
    assert_eq!(corrected(&nics, &said), said, "another network's");
    nics.begin();
    nics.read(taps(&here[..1]), in_our_netns());
    assert_eq!(corrected(&nics, &said), said, "moved to another network");
    nics.begin();
    nics.read(taps(&here), in_our_netns());
    assert_ne!(corrected(&nics, &said), said);
    let vhost = brought(&[("web", "vhostuser", 50, 100)]);
    assert_eq!(corrected(&nics, &vhost), vhost);
    let direct = corrected(&nics, &brought(&[("web", "direct", 50, 100)]));
    assert_eq!(figures(&direct), [Some((9, 3))]);
}

#[test]
fn without_a_reading_what_libvirt_may_get_wrong_is_missing() {
    let here = [("dmz-web", 100, 50), ("web", 9, 3)];
    let mut nics = Nics::default();
    nics.begin();
    nics.read(taps(&here), in_our_netns());
    for _ in 0..2 {
        nics.begin();
        let mut found = brought(&[("web", "bridge", 50, 100), ("other", "bridge", 10, 20)]);
        nics.correct(run(1), &mut found);
        assert_eq!(figures(&found), [None, Some((10, 20))]);
    }
}

#[test]
fn a_macvtap_made_by_hand_counts_from_the_hosts_side_whatever_libvirt_says() {
    let sys = tempfile::tempdir().unwrap();
    for folder in ["hand0/macvtap", "tap0"] {
        std::fs::create_dir_all(sys.path().join("class/net").join(folder)).unwrap();
    }
    let mut nics = Nics {
        sys: sys.path().into(),
        ..Nics::default()
    };
    let all = [
        nic("hand0", "ethernet"),
        nic("tap0", "ethernet"),
        nic("far0", "ethernet"),
    ];
    let description = Description {
        nics: all.to_vec(),
        ..Description::default()
    };
    nics.learn(run(1), Some(&description));
    let here = [("hand0", 7, 3), ("tap0", 7, 3), ("far0", 7, 3)];
    nics.begin();
    nics.read(taps(&here), in_our_netns());
    // 9.0 has it exchanged, and that proves nothing.
    let said = all
        .each_ref()
        .map(|nic| (nic.target.as_deref().unwrap(), "ethernet", 3, 7));
    let mut found = brought(&said);
    nics.said(run(1), &found);
    nics.correct(run(1), &mut found);
    assert_eq!(figures(&found), [Some((7, 3)), Some((3, 7)), Some((3, 7))]);
    nics.begin();
    nics.read(taps(&here), in_our_netns());
    let found = nics.of(run(1), &all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((7, 3)), Some((3, 7)), Some((3, 7))]);
    // A tap in its place counts from the guest's side: 7.0 has that exchanged.
    std::fs::remove_dir(sys.path().join("class/net/hand0/macvtap")).unwrap();
    nics.learn(run(1), Some(&description));
    let found = nics.of(run(1), &all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((3, 7)); 3]);
    // What was learnt of the interfaces outlives libvirtd.
    nics.clear();
    let found = nics.of(run(1), &all, |_| true).unwrap();
    assert_eq!(figures(&found), [Some((3, 7)); 3]);
}
