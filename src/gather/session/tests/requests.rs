//! The requests other than those for statistics.

use super::*;
use crate::description::Nic;
use crate::name_filter;
use crate::sample::{Devices, NIC_COUNTERS};
use crate::vms::Processor;

#[test]
fn without_the_block_group_the_disks_come_by_a_request_of_their_own() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let target = target(&found[0], known(&mut session, &found[0]));
    let (measured, _) = asked_for(
        Scope::NoBlock,
        &mut session,
        &config(ALL),
        std::slice::from_ref(&target),
    );
    let sample = &measured[0].sample;
    assert!(sample.disks.is_none() && sample.nics.is_some());
    let (_, last) = performed(&mut session, &Request::Disks(target));
    let Response::Disks(run, disks) = last else {
        panic!("{last:?}");
    };
    assert_eq!(run, found[0].run);
    assert_eq!(disks.list[0].name.as_deref(), Some("vda"));
    // Those that the test driver has.
    assert!(disks.list[0].counters[..5].iter().all(Option::is_some));
    // Which of them are CD-ROM drives is not known without a description.
    let (_, last) = performed(&mut session, &Request::Disks(new(&found[0])));
    assert!(matches!(last, Response::Done), "{last:?}");
}

#[test]
fn what_needs_no_monitor_is_state_network_and_cpu_time() {
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let (measured, _) = asked_for(
        Scope::NoMonitor,
        &mut session,
        &config(ALL),
        &[new(&found[0])],
    );
    assert_eq!(measured[0].completeness, Completeness::Partial);
    let sample = &measured[0].sample;
    assert!(sample.disks.is_none() && sample.memory.rss.is_none());
    assert_eq!(sample.state, Some(1));
    assert!(sample.cpu.user.is_some());
    assert_eq!(sample.vcpus, Some(2));
}

#[test]
fn priority_figures_come_one_vm_at_a_time() {
    let node = Node::of(&["a", "b"], &[]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session);
    let mut targets = Vec::new();
    for one in &found {
        targets.push(target(one, known(&mut session, one)));
    }
    let (told, last) = performed(&mut session, &Request::Priority(targets));
    assert!(matches!(last, Response::Done), "{last:?}");
    for (one, answer) in found.iter().zip(&told) {
        let Response::Priority(sample) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(sample.run, one.run);
        assert_eq!(sample.state, Some(1));
        assert_eq!(sample.nics.as_ref().unwrap().list.len(), 1);
        assert!(sample.cpu.time.is_none() && sample.disks.is_none());
    }
    assert_eq!(told.len(), 2);
}

#[test]
fn priority_figures_have_what_was_read_on_this_host() {
    let node = Node::of(&["a"], &[]);
    let mut session = Session::new(connect(&node.uri()));
    let found = listed(&mut session).remove(0);
    let read = full(Instant::now());
    let mut target = target(&found, known(&mut session, &found));
    target.nics = read.nics.clone();
    target.processor = Some(Processor {
        cpu: read.cpu,
        vcpus: 3,
    });
    let (told, _) = performed(&mut session, &Request::Priority(vec![target]));
    let [Response::Priority(sample)] = &told[..] else {
        panic!("{told:?}");
    };
    assert_eq!(sample.state, Some(1));
    assert_eq!((sample.cpu, sample.vcpus), (read.cpu, Some(3)));
    let counters = |nics: &Option<Devices<NIC_COUNTERS>>| nics.as_ref().unwrap().list[0].counters;
    assert_eq!(counters(&sample.nics), counters(&read.nics));
}

#[test]
fn a_probe_tells_first_that_the_daemon_answers_and_then_of_each_domain() {
    let node = Node::of(&["a", "b"], &[]);
    let mut session = Session::new(connect(&node.uri()));
    let mut domains = listed(&mut session);
    domains.push(orphan("gone"));
    let (told, last) = performed(&mut session, &Request::Probe(domains.clone()));
    assert!(matches!(last, Response::Done), "{last:?}");
    assert!(matches!(told[0], Response::Alive), "{told:?}");
    assert_eq!(told.len(), 4);
    for (found, answer) in domains.iter().zip(&told[1..]) {
        // The test driver does not know; a domain that is gone blocks no call.
        let Response::Control(uuid, Monitor::Free) = answer else {
            panic!("{answer:?}");
        };
        assert_eq!(*uuid, found.run.uuid);
    }
}

/// The test driver gives each NIC a name on the host, so the description here is not libvirt's.
#[test]
fn a_nic_without_a_name_on_the_host_is_counted_by_its_mac_address() {
    let mac = "aa:bb:cc:dd:ee:ff";
    let nic = |mac: Option<&str>| Nic {
        target: None,
        mac: mac.map(Into::into),
        kind: "hostdev".into(),
    };
    let mut session = Session::new(connect("test:///default"));
    let found = listed(&mut session);
    let asked = |session: &mut Session, nics: Vec<Nic>, devices: &[&str]| {
        let description = Description {
            nics,
            ..Description::default()
        };
        let known = CachedDescription::new(Some(description), None, Instant::now());
        let target = target(&found[0], Known::Fresh(Arc::new(known)));
        let mut config = config(ALL);
        config.devices.names.exclude = devices
            .iter()
            .map(|name| name_filter::pattern(name).unwrap())
            .collect();
        let (measured, _) = asked_for(Scope::Full, session, &config, &[target]);
        measured[0].sample.nics.clone().unwrap().list
    };
    let list = asked(&mut session, vec![nic(None), nic(Some(mac))], &[]);
    assert_eq!(list.len(), 2);
    let counted: Vec<_> = list.iter().filter(|nic| nic.name.is_some()).collect();
    assert_eq!(counted.len(), 1);
    assert_eq!(counted[0].name.as_deref(), Some(mac));
    assert_eq!(counted[0].kind, "hostdev");
    assert!(counted[0].counters.iter().all(Option::is_some));
    // One that libvirt does not know stays without counters, and is not asked for again.
    let unknown = "aa:bb:cc:dd:ee:00";
    for _ in 0..2 {
        let list = asked(&mut session, vec![nic(Some(unknown))], &[]);
        assert_eq!((list.len(), &list[0].name), (1, &None));
    }
    assert_eq!(session.uncounted.len(), 1);
    let list = asked(&mut session, vec![nic(Some(mac))], &["aa:*"]);
    assert_eq!(list[0].name, None);
}
