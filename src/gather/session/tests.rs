use super::*;
use crate::config::Measurements;
use crate::gather::examples::{Node, connect, settings};
use crate::sample::Wanted;

fn brief(wanted: Measurements) -> Brief {
    let settings = settings("test:///default");
    Brief {
        uri: settings.uri.value.clone(),
        groups: Groups::needed(&wanted),
        wanted: Wanted::new(&settings),
    }
}

const ALL: Measurements = Measurements {
    metrics: true,
    features: true,
    devices: true,
    totals: true,
};

fn listed(session: &mut Session) -> Vec<Found> {
    match session.list().unwrap() {
        Answer::Domains(found) => found,
        other => panic!("{other:?}"),
    }
}

fn asked(
    session: &mut Session,
    brief: &Brief,
    targets: &[Target],
) -> (Vec<Measured>, Vec<(Found, String)>) {
    match session.ask(brief, targets, targets.len()).unwrap() {
        Answer::Samples(measured, troubles) => (measured, troubles),
        other => panic!("{other:?}"),
    }
}

fn new(found: &Found) -> Target {
    Target {
        found: found.clone(),
        known: Known::New,
    }
}

#[test]
fn what_the_bulk_reply_lacks_comes_by_single_calls() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    assert_eq!(found[0].name, "test");
    let (measured, troubles) = asked(&mut session, &brief(ALL), &[new(&found[0])]);
    assert!(troubles.is_empty(), "{troubles:?}");
    let sample = &measured[0].sample;
    assert_eq!(sample.state, Some(1));
    // Which reason depends on the version of libvirt.
    assert!(sample.reason.is_some());
    assert_eq!(sample.vcpus, Some(2));
    assert!(sample.cpu.time.is_some());
    // Of libvirt's built-in node.
    assert_eq!(sample.memory.maximum, Some(8_388_608));
    assert_eq!(sample.memory.current, Some(2_097_152));
    assert_eq!(sample.memory.actual, Some(2_097_152));
    assert_eq!(sample.memory.rss, Some(1_048_576));
    let nics = sample.nics.as_ref().unwrap();
    let disks = sample.disks.as_ref().unwrap();
    assert_eq!(nics.list[0].name.as_deref(), Some("testnet0"));
    assert!(nics.list[0].counters.iter().all(Option::is_some));
    assert_eq!(disks.list[0].name.as_deref(), Some("vda"));
    assert_eq!(disks.list[0].kind, "disk");
    assert!(disks.list[0].counters.iter().all(Option::is_some));
    let state_alone = Groups::STATE;
    let all = Groups::needed(&ALL);
    assert_eq!(session.bulk.lacking, Some(all.without(state_alone)));
}

#[test]
fn the_description_is_read_once() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let (measured, _) = asked(&mut session, &brief(ALL), &[new(&found[0])]);
    let described = measured[0].described.clone().unwrap();
    let fresh = Target {
        found: found[0].clone(),
        known: Known::Fresh(Arc::clone(&described)),
    };
    let (measured, _) = asked(&mut session, &brief(ALL), &[fresh]);
    assert!(measured[0].described.is_none());
    assert_eq!(measured[0].sample.disks.as_ref().unwrap().list.len(), 1);
    let stale = Target {
        found: found[0].clone(),
        known: Known::Stale(described),
    };
    let (measured, _) = asked(&mut session, &brief(ALL), &[stale]);
    assert!(measured[0].described.is_some());
}

#[test]
fn a_measurement_without_devices_needs_no_description() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let only = Measurements {
        metrics: true,
        features: false,
        devices: false,
        totals: false,
    };
    let (measured, _) = asked(&mut session, &brief(only), &[new(&found[0])]);
    assert!(measured[0].described.is_none());
    let sample = &measured[0].sample;
    assert!(sample.nics.is_none() && sample.disks.is_none());
    assert!(sample.cpu.time.is_some());
}

#[test]
fn a_domain_that_is_gone_or_off_is_no_trouble_and_costs_nobody_else() {
    let node = Node::of(&["a", "b"], &["off"]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session);
    assert_eq!(found.len(), 2, "only the active ones");
    let ghost = |name: &str| Found {
        run: Run {
            uuid: Node::uuid(name),
            id: 9,
        },
        name: name.to_owned(),
    };
    let targets = [
        new(&ghost("gone")),
        new(&found[0]),
        new(&ghost("off")),
        new(&found[1]),
    ];
    let (measured, troubles) = asked(&mut session, &brief(ALL), &targets);
    let mut names: Vec<_> = measured.iter().map(|m| m.sample.name.as_str()).collect();
    names.sort_unstable();
    assert_eq!(names, ["a", "b"]);
    assert!(troubles.is_empty(), "{troubles:?}");
    assert!(measured.iter().all(|m| m.trouble.is_none()));
}

#[test]
fn handles_of_domains_that_are_gone_do_not_pile_up() {
    let names: Vec<String> = (0..80).map(|i| format!("vm{i}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let node = Node::of(&names, &[]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session);
    assert_eq!(session.handles.len(), 80);
    // As if but two of them were still active.
    asked(&mut session, &brief(ALL), &[new(&found[0]), new(&found[1])]);
    assert_eq!(session.handles.len(), 2);
}
