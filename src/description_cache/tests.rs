use super::*;
use crate::description::Nic;
use crate::sample::testing::{device, devices, empty, run};

const TTL: Duration = Duration::from_secs(300);

fn described(read_at: Instant) -> Arc<CachedDescription> {
    Arc::new(CachedDescription::new(
        Some(Description::default()),
        Some(DeviceNames::default()),
        read_at,
    ))
}

fn after(at: Instant, seconds: u64) -> Instant {
    at + Duration::from_secs(seconds)
}

/// Events come since `since`; a gather has begun.
fn watched(since: Instant) -> DescriptionCache {
    let mut cache = DescriptionCache::new(TTL);
    cache.events(EventFeed::Live(since));
    cache.begin();
    cache
}

fn word(known: &Known) -> &'static str {
    match known {
        Known::New => "new",
        Known::Fresh(_) => "fresh",
        Known::Stale(_) => "stale",
    }
}

fn look(cache: &mut DescriptionCache, run: RunId, now: Instant) -> &'static str {
    word(&cache.look_up(run, now))
}

#[test]
fn a_vm_is_read_once_and_no_more_while_events_come() {
    let at = Instant::now();
    let mut cache = watched(at);
    assert_eq!(look(&mut cache, run(1), at), "new");
    cache.learn(run(1), described(after(at, 1)));
    assert_eq!(look(&mut cache, run(1), after(at, 2)), "fresh");
    // However long ago.
    assert_eq!(look(&mut cache, run(1), after(at, 1_000_000)), "fresh");
}

#[test]
fn another_run_is_new() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.learn(run(1), described(at));
    assert_eq!(look(&mut cache, run(2), at), "new");
}

#[test]
fn an_event_makes_stale_until_it_is_read_again() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.learn(run(1), described(after(at, 1)));
    cache.device_changed(run(1).uuid, after(at, 2));
    assert_eq!(look(&mut cache, run(1), after(at, 3)), "stale");
    assert_eq!(look(&mut cache, run(1), after(at, 4)), "stale");
    cache.learn(run(1), described(after(at, 5)));
    assert_eq!(look(&mut cache, run(1), after(at, 6)), "fresh");
}

#[test]
fn an_event_that_came_while_it_was_read_keeps_it_stale() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.learn(run(1), described(after(at, 1)));
    // A worker begins to read at 2; the event comes at 3, the answer after that.
    cache.device_changed(run(1).uuid, after(at, 3));
    cache.learn(run(1), described(after(at, 2)));
    assert_eq!(look(&mut cache, run(1), after(at, 4)), "stale");
}

#[test]
fn an_event_that_came_while_a_new_vm_was_read_is_not_lost() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.device_changed(run(1).uuid, after(at, 3));
    cache.learn(run(1), described(after(at, 2)));
    assert_eq!(look(&mut cache, run(1), after(at, 4)), "stale");
    // The same for a new run of a VM that was known.
    cache.device_changed(run(2).uuid, after(at, 7));
    cache.learn(run(2), described(after(at, 6)));
    assert_eq!(look(&mut cache, run(2), after(at, 8)), "stale");
    cache.learn(run(2), described(after(at, 9)));
    assert_eq!(look(&mut cache, run(2), after(at, 10)), "fresh");
}

#[test]
fn an_event_of_one_vm_leaves_the_others_alone() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.learn(run(1), described(at));
    cache.device_changed(Uuid::from_u128(1), after(at, 1));
    assert_eq!(look(&mut cache, run(1), after(at, 2)), "fresh");
}

#[test]
fn the_time_to_live_holds_only_while_blind() {
    let at = Instant::now();
    let mut cache = DescriptionCache::new(TTL);
    cache.begin();
    cache.learn(run(1), described(at));
    assert_eq!(look(&mut cache, run(1), after(at, 299)), "fresh");
    assert_eq!(look(&mut cache, run(1), after(at, 300)), "stale");
    cache.events(EventFeed::Live(at));
    assert_eq!(look(&mut cache, run(1), after(at, 300)), "fresh");
    cache.events(EventFeed::Down);
    assert_eq!(look(&mut cache, run(1), after(at, 300)), "stale");
}

#[test]
fn names_of_nics_are_given_only_while_libvirt_tells_of_changes() {
    let at = Instant::now();
    let mut sample = empty(at);
    sample.nics = Some(devices(at, vec![device("vnet0", "", [None; 8])]));
    let with = |read_at, targets: &[Option<&str>]| {
        let nic = |target: &Option<&str>| Nic {
            target: target.map(Into::into),
            kind: "bridge".into(),
        };
        let mut described = CachedDescription::clone(&described(read_at));
        described.description.as_mut().unwrap().nics = targets.iter().map(nic).collect();
        described.names = Some(DeviceNames::of(&sample));
        Arc::new(described)
    };
    let with_names = |read_at| with(read_at, &[Some("vnet0")]);
    let mut cache = DescriptionCache::new(TTL);
    cache.learn(run(1), with_names(after(at, 1)));
    assert_eq!(cache.nics(run(1)), None, "no events");
    cache.events(EventFeed::Live(after(at, 2)));
    assert_eq!(cache.nics(run(1)), None, "read before events came");
    cache.learn(run(1), with_names(after(at, 3)));
    let names = [Nic {
        target: Some("vnet0".into()),
        kind: "bridge".into(),
    }];
    assert_eq!(cache.nics(run(1)), Some(&names[..]));
    assert_eq!(cache.nics(run(2)), None, "another run");
    cache.device_changed(run(1).uuid, after(at, 4));
    assert_eq!(cache.nics(run(1)), None, "a device came or went");
    cache.learn(run(1), with_names(after(at, 5)));
    assert_eq!(cache.nics(run(1)), Some(&names[..]));
    cache.learn(run(1), described(after(at, 6)));
    assert_eq!(cache.nics(run(1)), None, "no statistics yet");
    // Changed between the statistics and the XML.
    for targets in [
        &[][..],
        &[Some("vnet1")],
        &[Some("vnet0"), Some("vnet1")],
        &[Some("vnet0"), None],
    ] {
        cache.learn(run(1), with(after(at, 6), targets));
        assert_eq!(cache.nics(run(1)), None, "{targets:?}");
    }
    cache.learn(run(1), with_names(after(at, 6)));
    assert_eq!(cache.nics(run(1)), Some(&names[..]));
    cache.events(EventFeed::Down);
    assert_eq!(cache.nics(run(1)), None);
}

#[test]
fn when_the_watch_is_back_each_vm_is_read_once_more_spread_over_gathers() {
    const VMS: u128 = 100;
    let at = Instant::now();
    let mut cache = watched(at);
    let run = |number: u128| RunId {
        uuid: Uuid::from_u128(number),
        id: 1,
    };
    for number in 0..VMS {
        cache.learn(run(number), described(after(at, 1)));
    }
    cache.events(EventFeed::Down);
    cache.events(EventFeed::Live(after(at, 10)));
    let mut reads = HashMap::default();
    let mut gathers = 0;
    loop {
        cache.begin();
        let now = after(at, 11 + gathers);
        let stale: Vec<u128> = (0..VMS)
            .filter(|&number| look(&mut cache, run(number), now) == "stale")
            .collect();
        if stale.is_empty() {
            break;
        }
        assert!(stale.len() <= 12, "{} in one gather", stale.len());
        for number in stale {
            *reads.entry(number).or_insert(0) += 1;
            cache.learn(run(number), described(now));
        }
        gathers += 1;
    }
    assert_eq!(reads.len(), VMS as usize, "each of them");
    assert!(reads.values().all(|&times| times == 1), "and once");
    assert!((2..=10).contains(&gathers), "{gathers} gathers");
}

#[test]
fn an_event_is_no_matter_of_the_budget() {
    let at = Instant::now();
    let mut cache = watched(at);
    let runs: Vec<RunId> = (0..100)
        .map(|number| RunId {
            uuid: Uuid::from_u128(number),
            id: 1,
        })
        .collect();
    for &run in &runs {
        cache.learn(run, described(after(at, 1)));
        cache.device_changed(run.uuid, after(at, 2));
    }
    for &run in &runs {
        assert_eq!(look(&mut cache, run, after(at, 3)), "stale");
    }
}

#[test]
fn who_is_gone_is_forgotten() {
    let at = Instant::now();
    let mut cache = watched(at);
    cache.learn(run(1), described(at));
    cache.keep(&HashSet::from_iter([run(1)]));
    assert_eq!(look(&mut cache, run(1), at), "fresh");
    // The VM lives, but in another run.
    cache.keep(&HashSet::from_iter([run(2)]));
    assert_eq!(look(&mut cache, run(1), at), "new");
}

#[test]
fn other_names_differ_and_unreported_ones_do_not() {
    let at = Instant::now();
    let sample = |nics: Option<&[&str]>, disks: Option<&[&str]>| {
        let mut sample = empty(at);
        let nic = |name: &&str| device(name, "", [None; 8]);
        let disk = |name: &&str| device(name, "", [Some(1); 5]);
        sample.nics = nics.map(|names| devices(at, names.iter().map(nic).collect()));
        sample.disks = disks.map(|names| devices(at, names.iter().map(disk).collect()));
        sample
    };
    let all = sample(Some(&["vnet0", ""]), Some(&["vda"]));
    let known = DeviceNames::of(&all);
    assert!(!known.differ(&all));
    assert!(!known.differ(&sample(None, None)), "not reported");
    assert!(!known.differ(&sample(Some(&["vnet0", ""]), None)));
    assert!(known.differ(&sample(Some(&["vnet0"]), Some(&["vda"]))));
    assert!(known.differ(&sample(Some(&["vnet1", ""]), Some(&["vda"]))));
    assert!(known.differ(&sample(None, Some(&["vda", "vdb"]))));
    assert!(known.differ(&sample(None, Some(&[]))));
    // What was not reported is learnt once it is.
    let unreported = DeviceNames::of(&sample(None, None));
    assert!(!unreported.differ(&all));
    assert_eq!(unreported.and(&all), Some(DeviceNames::of(&all)));
    let nics_alone = DeviceNames::of(&sample(Some(&["vnet0", ""]), None));
    assert_eq!(nics_alone.and(&all), Some(DeviceNames::of(&all)));
    assert_eq!(known.and(&all), None);
    assert_eq!(known.and(&sample(None, None)), None);
}

/// Statistics with one disk, whose image is this.
fn with_image(at: Instant, path: &str) -> Sample {
    let mut sample = empty(at);
    sample.disks = Some(devices(at, vec![device("vda", "", [Some(1); 5])]));
    sample.paths = format!("{path}\0");
    sample
}

#[test]
fn another_image_differs() {
    let at = Instant::now();
    let known = DeviceNames::of(&with_image(at, "/a"));
    assert!(!known.differ(&with_image(at, "/a")));
    assert!(known.differ(&with_image(at, "/b")));
    let mut ejected = with_image(at, "/a");
    ejected.paths.clear();
    assert!(known.differ(&ejected));
    ejected.disks = None;
    assert!(!known.differ(&ejected), "not reported");
}

#[test]
fn an_image_that_the_xml_does_not_have_leaves_it_unresolved() {
    let at = Instant::now();
    let xml = |source: &str| {
        let disk = format!("<disk><source {source}/><target dev='vda'/></disk>");
        let xml = format!("<domain><devices>{disk}</devices></domain>");
        Some(Description::parse(&xml).unwrap())
    };
    let unresolved = |description, path: &str| {
        let names = DeviceNames::of(&with_image(at, path));
        CachedDescription::new(description, Some(names), at).unresolved
    };
    assert!(!unresolved(xml("file='/a'"), "/a"));
    assert!(unresolved(xml("file='/a'"), "/b"));
    assert!(
        !unresolved(xml("protocol='nbd' name='b'"), "b"),
        "no local file"
    );
    assert!(!unresolved(xml("pool='p' volume='v' index='1'"), "/pool/v"));
    assert!(
        unresolved(None, "/a"),
        "an XML that could not be understood"
    );
    assert!(!CachedDescription::new(xml("file='/a'"), None, at).unresolved);
}

#[test]
fn where_images_lie_is_not_known_after_an_event_until_the_xml_is_read() {
    let at = Instant::now();
    let mut cache = watched(at);
    let uuid = run(1).uuid;
    assert!(cache.described(uuid).is_none());
    cache.learn(run(1), described(after(at, 1)));
    assert!(cache.described(uuid).is_some());
    cache.device_changed(uuid, after(at, 2));
    assert!(cache.described(uuid).is_none());
    cache.learn(run(1), described(after(at, 3)));
    assert!(cache.described(uuid).is_some());
}

/// What happens while libvirtd is being restarted no event tells.
#[test]
fn while_events_are_lost_a_description_holds_for_one_gather() {
    let mut cache = watched(Instant::now());
    let uuid = run(1).uuid;
    let read = |cache: &mut DescriptionCache| {
        cache.learn(run(1), described(Instant::now()));
    };
    read(&mut cache);
    assert!(cache.is_current(run(1)));
    cache.events(EventFeed::Down);
    for _ in 0..2 {
        cache.begin();
        assert!(!cache.is_current(run(1)) && cache.described(uuid).is_none());
        read(&mut cache);
        assert!(cache.is_current(run(1)) && cache.described(uuid).is_some());
    }
    // Something may have changed since the last gather.
    cache.events(EventFeed::Live(Instant::now()));
    assert!(!cache.is_current(run(1)));
    read(&mut cache);
    cache.begin();
    assert!(cache.is_current(run(1)));
}

#[test]
fn an_event_tells_by_its_alias_what_was_removed() {
    let at = Instant::now();
    let mut cache = watched(at);
    let mut known = CachedDescription::clone(&described(after(at, 1)));
    let description = known.description.as_mut().unwrap();
    description.nic_aliases = vec!["net0".into(), "ua-mine".into()];
    description.disk_aliases = vec!["virtio-disk0".into()];
    cache.learn(run(1), Arc::new(known.clone()));
    let uuid = run(1).uuid;
    let removed = |cache: &mut DescriptionCache, alias: &str, seconds| {
        cache.device_removed(uuid, alias, after(at, seconds));
        let removed = cache.removed(uuid);
        let since = |at: Instant, then: Instant| then.duration_since(at).as_secs();
        [removed.nic, removed.disk].map(|then| then.map(|then| since(at, then)))
    };
    assert_eq!(removed(&mut cache, "serial0", 2), [None, None]);
    assert_eq!(look(&mut cache, run(1), after(at, 2)), "stale");
    known.read_at = after(at, 3);
    cache.learn(run(1), Arc::new(known.clone()));
    assert_eq!(removed(&mut cache, "ua-mine", 4), [Some(4), None]);
    assert_eq!(removed(&mut cache, "virtio-disk0", 5), [Some(4), Some(5)]);
    // The description may be older than this device.
    assert_eq!(removed(&mut cache, "net1", 6), [Some(6), Some(6)]);
    // Nobody understands it.
    known.description = None;
    known.read_at = after(at, 7);
    cache.learn(run(1), Arc::new(known));
    assert_eq!(removed(&mut cache, "serial0", 8), [Some(8), Some(8)]);
    cache.keep(&HashSet::from_iter([run(1)]));
    assert_ne!(cache.removed(uuid), Removed::default());
    cache.keep(&HashSet::default());
    assert_eq!(cache.removed(uuid), Removed::default());
    // Of one that was never described no rate is made yet.
    assert_eq!(removed(&mut cache, "net0", 9), [None, None]);
}
