//! Which descriptions hold, and what events tell.

use super::*;
use crate::description::{Description, Nic};
use crate::maps::HashMap;
use crate::sample::testing::{device, devices, empty};
use crate::sample::{NIC_COUNTERS, Removed};

fn described(read_at: Instant) -> Arc<CachedDescription> {
    Arc::new(CachedDescription::new(
        Some(Description::default()),
        Some(DeviceNames::default()),
        read_at,
    ))
}

/// Events come since `since`; a gather has begun, and the list has the first run of the VM.
fn watched(since: Instant) -> Vms {
    let mut vms = Vms::new(TTL);
    vms.set_feed(EventFeed::Live(since));
    vms.begin();
    list(&mut vms, [run(1)]);
    vms
}

fn look(vms: &Vms, run: RunId, now: Instant) -> &'static str {
    let prepared = vms.prepare(run.uuid, |_| true, now).unwrap();
    assert_eq!(prepared.domain.run, run);
    match prepared.known {
        Known::New => "new",
        Known::Fresh(_) => "fresh",
        Known::Stale(_) => "stale",
    }
}

fn all_nics(vms: &Vms) -> Option<&[Nic]> {
    vms.all_nics(&vms.records[&run(1).uuid])
}

fn known_removed(vms: &Vms) -> Removed {
    let vm = vms.records.get(&run(1).uuid);
    vm.map_or(Removed::default(), |vm| vm.removed)
}

fn is_current(vms: &Vms) -> bool {
    vms.is_current(&vms.records[&run(1).uuid])
}

#[test]
fn a_vm_is_read_once_and_no_more_while_events_come() {
    let at = Instant::now();
    let mut vms = watched(at);
    assert_eq!(look(&vms, run(1), at), "new");
    vms.on_description(run(1), described(after(at, 1)));
    assert_eq!(look(&vms, run(1), after(at, 2)), "fresh");
    // However long ago.
    assert_eq!(look(&vms, run(1), after(at, 1_000_000)), "fresh");
}

#[test]
fn another_run_is_new() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.on_description(run(1), described(at));
    list(&mut vms, [run(2)]);
    assert_eq!(look(&vms, run(2), at), "new");
    vms.on_description(run(1), described(after(at, 1)));
    assert_eq!(look(&vms, run(2), at), "new", "of the earlier run");
}

#[test]
fn an_event_makes_stale_until_it_is_read_again() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.on_description(run(1), described(after(at, 1)));
    vms.device_changed(run(1).uuid, after(at, 2));
    assert_eq!(look(&vms, run(1), after(at, 3)), "stale");
    assert_eq!(look(&vms, run(1), after(at, 4)), "stale");
    vms.on_description(run(1), described(after(at, 5)));
    assert_eq!(look(&vms, run(1), after(at, 6)), "fresh");
}

#[test]
fn an_event_that_came_while_it_was_read_keeps_it_stale() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.on_description(run(1), described(after(at, 1)));
    // A worker begins to read at 2, the event comes at 3, and the reply after that.
    vms.device_changed(run(1).uuid, after(at, 3));
    vms.on_description(run(1), described(after(at, 2)));
    assert_eq!(look(&vms, run(1), after(at, 4)), "stale");
}

#[test]
fn an_event_that_came_while_a_new_vm_was_read_is_not_lost() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.device_changed(run(1).uuid, after(at, 3));
    vms.on_description(run(1), described(after(at, 2)));
    assert_eq!(look(&vms, run(1), after(at, 4)), "stale");
    // The same for a new run of a VM that was known, whether the event comes before the list or after.
    vms.device_changed(run(2).uuid, after(at, 7));
    list(&mut vms, [run(2)]);
    vms.on_description(run(2), described(after(at, 6)));
    assert_eq!(look(&vms, run(2), after(at, 8)), "stale");
    vms.device_changed(run(2).uuid, after(at, 7));
    vms.on_description(run(2), described(after(at, 6)));
    assert_eq!(look(&vms, run(2), after(at, 8)), "stale");
    vms.on_description(run(2), described(after(at, 9)));
    assert_eq!(look(&vms, run(2), after(at, 10)), "fresh");
}

#[test]
fn an_event_of_one_vm_leaves_the_others_alone() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.on_description(run(1), described(at));
    vms.device_changed(Uuid::from_u128(1), after(at, 1));
    assert_eq!(look(&vms, run(1), after(at, 2)), "fresh");
}

#[test]
fn the_time_to_live_applies_only_without_events() {
    let at = Instant::now();
    let mut vms = Vms::new(TTL);
    vms.begin();
    list(&mut vms, [run(1)]);
    vms.on_description(run(1), described(at));
    assert_eq!(look(&vms, run(1), after(at, 299)), "fresh");
    assert_eq!(look(&vms, run(1), after(at, 300)), "stale");
    vms.set_feed(EventFeed::Live(at));
    assert_eq!(look(&vms, run(1), after(at, 300)), "fresh");
    vms.set_feed(EventFeed::Down);
    assert_eq!(look(&vms, run(1), after(at, 300)), "stale");
}

#[test]
fn nics_are_known_only_while_libvirt_reports_changes() {
    let at = Instant::now();
    let mut sample = empty(at);
    sample.nics = Some(devices(at, vec![device("vnet0", "", [None; NIC_COUNTERS])]));
    let with = |read_at, targets: &[Option<&str>]| {
        let nic = |target: &Option<&str>| Nic {
            target: target.map(Into::into),
            mac: None,
            kind: "bridge".into(),
        };
        let mut described = CachedDescription::clone(&described(read_at));
        described.description.as_mut().unwrap().nics = targets.iter().map(nic).collect();
        described.names = Some(DeviceNames::of(&sample));
        Arc::new(described)
    };
    let with_names = |read_at| with(read_at, &[Some("vnet0")]);
    let mut vms = Vms::new(TTL);
    list(&mut vms, [run(1)]);
    vms.on_description(run(1), with_names(after(at, 1)));
    assert_eq!(all_nics(&vms), None, "no events");
    vms.set_feed(EventFeed::Live(after(at, 2)));
    assert_eq!(all_nics(&vms), None, "read before events came");
    vms.on_description(run(1), with_names(after(at, 3)));
    let names = [Nic {
        target: Some("vnet0".into()),
        mac: None,
        kind: "bridge".into(),
    }];
    assert_eq!(all_nics(&vms), Some(&names[..]));
    vms.device_changed(run(1).uuid, after(at, 4));
    assert_eq!(all_nics(&vms), None, "a device was added or removed");
    vms.on_description(run(1), with_names(after(at, 5)));
    assert_eq!(all_nics(&vms), Some(&names[..]));
    vms.on_description(run(1), described(after(at, 6)));
    assert_eq!(all_nics(&vms), None, "no statistics yet");
    // Changed between the statistics and the XML.
    for targets in [
        &[][..],
        &[Some("vnet1")],
        &[Some("vnet0"), Some("vnet1")],
        &[Some("vnet0"), None],
    ] {
        vms.on_description(run(1), with(after(at, 6), targets));
        assert_eq!(all_nics(&vms), None, "{targets:?}");
    }
    vms.on_description(run(1), with_names(after(at, 6)));
    assert_eq!(all_nics(&vms), Some(&names[..]));
    vms.set_feed(EventFeed::Down);
    assert_eq!(all_nics(&vms), None);
    vms.set_feed(EventFeed::Live(at));
    assert_eq!(all_nics(&vms), Some(&names[..]));
    list(&mut vms, [run(2)]);
    assert_eq!(all_nics(&vms), None, "another run");
}

#[test]
fn when_events_are_back_each_vm_is_read_once_more_spread_over_gathers() {
    const VMS: u128 = 100;
    let at = Instant::now();
    let mut vms = watched(at);
    let run = |number: u128| RunId {
        uuid: Uuid::from_u128(number),
        id: 1,
    };
    list(&mut vms, (0..VMS).map(run));
    for number in 0..VMS {
        vms.on_description(run(number), described(after(at, 1)));
    }
    vms.set_feed(EventFeed::Down);
    vms.set_feed(EventFeed::Live(after(at, 10)));
    let mut reads = HashMap::default();
    let mut gathers = 0;
    loop {
        vms.begin();
        let now = after(at, 11 + gathers);
        let stale: Vec<u128> = (0..VMS)
            .filter(|&number| look(&vms, run(number), now) == "stale")
            .collect();
        if stale.is_empty() {
            break;
        }
        assert!(stale.len() <= 12, "{} in one gather", stale.len());
        for number in stale {
            *reads.entry(number).or_insert(0) += 1;
            vms.on_description(run(number), described(now));
        }
        gathers += 1;
    }
    assert_eq!(reads.len(), VMS as usize, "each of them");
    assert!(reads.values().all(|&times| times == 1), "and once");
    assert!((2..=10).contains(&gathers), "{gathers} gathers");
}

#[test]
fn the_budget_does_not_apply_to_events() {
    let at = Instant::now();
    let mut vms = watched(at);
    let runs: Vec<RunId> = (0..100)
        .map(|number| RunId {
            uuid: Uuid::from_u128(number),
            id: 1,
        })
        .collect();
    list(&mut vms, runs.iter().copied());
    for &run in &runs {
        vms.on_description(run, described(after(at, 1)));
        vms.device_changed(run.uuid, after(at, 2));
    }
    for &run in &runs {
        assert_eq!(look(&vms, run, after(at, 3)), "stale");
    }
}

#[test]
fn a_vm_that_is_not_listed_any_more_is_forgotten() {
    let at = Instant::now();
    let mut vms = watched(at);
    vms.on_description(run(1), described(at));
    list(&mut vms, [run(1)]);
    assert_eq!(look(&vms, run(1), at), "fresh");
    // The VM is active, but in another run.
    list(&mut vms, [run(2)]);
    list(&mut vms, [run(1)]);
    assert_eq!(look(&vms, run(1), at), "new");
    vms.on_description(run(1), described(at));
    list(&mut vms, []);
    assert!(vms.prepare(run(1).uuid, |_| true, at).is_none());
    list(&mut vms, [run(1)]);
    assert_eq!(look(&vms, run(1), at), "new");
}

#[test]
fn after_an_event_the_paths_of_images_are_not_known_until_the_xml_is_read() {
    let at = Instant::now();
    let mut vms = watched(at);
    let uuid = run(1).uuid;
    assert!(vms.description(uuid).is_none());
    vms.on_description(run(1), described(after(at, 1)));
    assert!(vms.description(uuid).is_some());
    vms.device_changed(uuid, after(at, 2));
    assert!(vms.description(uuid).is_none());
    vms.on_description(run(1), described(after(at, 3)));
    assert!(vms.description(uuid).is_some());
}

/// No event reports what changes while libvirtd is being restarted.
#[test]
fn while_events_are_lost_a_description_holds_for_one_gather() {
    let mut vms = watched(Instant::now());
    let uuid = run(1).uuid;
    let read = |vms: &mut Vms| {
        vms.on_description(run(1), described(Instant::now()));
    };
    read(&mut vms);
    assert!(is_current(&vms));
    vms.set_feed(EventFeed::Down);
    for _ in 0..2 {
        vms.begin();
        assert!(!is_current(&vms) && vms.description(uuid).is_none());
        read(&mut vms);
        assert!(is_current(&vms) && vms.description(uuid).is_some());
    }
    // Something may have changed since the last gather.
    vms.set_feed(EventFeed::Live(Instant::now()));
    assert!(!is_current(&vms));
    read(&mut vms);
    vms.begin();
    assert!(is_current(&vms));
}

#[test]
fn the_alias_in_an_event_tells_what_was_removed() {
    let at = Instant::now();
    let mut vms = watched(at);
    let mut known = CachedDescription::clone(&described(after(at, 1)));
    let description = known.description.as_mut().unwrap();
    description.nic_aliases = vec!["net0".into(), "ua-mine".into()];
    description.disk_aliases = vec!["virtio-disk0".into()];
    vms.on_description(run(1), Arc::new(known.clone()));
    let uuid = run(1).uuid;
    let removed = |vms: &mut Vms, alias: &str, seconds| {
        vms.device_removed(uuid, alias, after(at, seconds));
        let removed = known_removed(vms);
        let since = |at: Instant, then: Instant| then.duration_since(at).as_secs();
        [removed.nic, removed.disk].map(|then| then.map(|then| since(at, then)))
    };
    assert_eq!(removed(&mut vms, "serial0", 2), [None, None]);
    assert_eq!(look(&vms, run(1), after(at, 2)), "stale");
    known.read_at = after(at, 3);
    vms.on_description(run(1), Arc::new(known.clone()));
    assert_eq!(removed(&mut vms, "ua-mine", 4), [Some(4), None]);
    assert_eq!(removed(&mut vms, "virtio-disk0", 5), [Some(4), Some(5)]);
    // The description may be older than this device.
    assert_eq!(removed(&mut vms, "net1", 6), [Some(6), Some(6)]);
    // A description that could not be understood.
    known.description = None;
    known.read_at = after(at, 7);
    vms.on_description(run(1), Arc::new(known));
    assert_eq!(removed(&mut vms, "serial0", 8), [Some(8), Some(8)]);
    list(&mut vms, [run(1)]);
    assert_ne!(known_removed(&vms), Removed::default());
    list(&mut vms, []);
    assert_eq!(known_removed(&vms), Removed::default());
    // There is no rate yet of the devices of a VM that was never described.
    assert_eq!(removed(&mut vms, "net0", 9), [None, None]);
    list(&mut vms, [run(1)]);
    assert_eq!(removed(&mut vms, "net0", 9), [None, None]);
}
