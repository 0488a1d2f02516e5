//! When memory figures are kept: everything that could tell of a change must be at hand.

use super::*;
use crate::description::Description;
use crate::host::qemu::HostFigures;
use crate::maps::HashMap;
use crate::sample::testing::full;

/// This host says of the VM's QEMU that it has run for an hour, and what memory it has.
fn read_host(vms: &mut Vms) {
    let figures = HostFigures {
        uptime: Some(3_600),
        resident: Some(77),
        ..HostFigures::default()
    };
    let figures = HashMap::from_iter([(run(1).uuid, figures)]);
    vms.on_readings(None, HashMap::default(), figures);
}

/// A VM that was described and then asked, and the time between the two.
fn kept(description: Option<Description>) -> (Vms, Instant) {
    let mut vms = Vms::new(TTL);
    let read_at = Instant::now();
    vms.set_feed(EventFeed::Live(read_at));
    vms.keep_memory();
    vms.set_memory_events(read_at.checked_sub(Duration::from_secs(3_600)));
    vms.begin();
    list(&mut vms, [run(1)]);
    read_host(&mut vms);
    let described = CachedDescription::new(description, Some(DeviceNames::default()), read_at);
    vms.on_description(run(1), Arc::new(described));
    let asked_at = after(read_at, 1);
    vms.on_sample(true, &mut full(asked_at));
    (vms, asked_at)
}

/// The memory that is known when the VM is to be asked again.
fn memory(vms: &Vms, asked_at: Instant) -> Option<Memory> {
    let target = vms.prepare(run(1).uuid, |_| true, after(asked_at, 10));
    target.unwrap().memory
}

#[test]
fn figures_are_those_of_libvirt_but_for_the_resident_size() {
    let (vms, asked_at) = kept(Some(Description::default()));
    let expected = Memory {
        at: after(asked_at, 10),
        rss: Some(77),
        ..full(asked_at).memory
    };
    assert_eq!(memory(&vms, asked_at), Some(expected));
}

#[test]
fn nothing_is_kept_where_a_change_would_not_be_noticed() {
    let is_kept = |change: fn(&mut Vms, Instant)| {
        let (mut vms, asked_at) = kept(Some(Description::default()));
        change(&mut vms, after(asked_at, 5));
        memory(&vms, asked_at).is_some()
    };
    assert!(is_kept(|_, _| {}));
    assert!(!is_kept(|vms, at| vms.memory_changed(run(1).uuid, at)));
    assert!(!is_kept(|vms, at| vms.guest_starts(run(1).uuid, at)));
    assert!(!is_kept(|vms, at| vms.device_changed(run(1).uuid, at)));
    assert!(!is_kept(|vms, at| vms.device_removed(
        run(1).uuid,
        "dimm0",
        at
    )));
    assert!(!is_kept(|vms, _| vms.set_memory_events(None)));
    // The guest may have been reset just before.
    assert!(!is_kept(|vms, at| vms.set_memory_events(Some(at))));
    assert!(!is_kept(|vms, _| vms.set_feed(EventFeed::Down)));
    assert!(!is_kept(|vms, at| vms.set_feed(EventFeed::Live(at))));
    assert!(!is_kept(|vms, _| vms.on_restart()));
    assert!(!is_kept(|vms, _| vms.begin()), "the host's check is late");
    assert!(!is_kept(|vms, _| list(vms, [run(2)])));
    let (vms, asked_at) = kept(None);
    assert_eq!(memory(&vms, asked_at), None, "an unknown period");
}
