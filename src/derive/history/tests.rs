//! Tests of the history.

use std::time::Instant;

use super::*;
use crate::sample::testing::{device, devices, full, run};

#[test]
fn tags_name_the_run_and_follow_a_rename() {
    let mut history = History::default();
    let mut sample = full(Instant::now());
    sample.name = "a b".into();
    let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    let tags = format!(",VMID=1,name=a\\ b,uuid={uuid}");
    assert_eq!(history.update(&sample).0.tags.as_str(), tags);
    sample.name = "c".into();
    let tags = format!(",VMID=1,name=c,uuid={uuid}");
    assert_eq!(history.update(&sample).0.tags.as_str(), tags);
    sample.run = run(2);
    let tags = format!(",VMID=2,name=c,uuid={uuid}");
    assert_eq!(history.update(&sample).0.tags.as_str(), tags);
    assert_eq!(history.vms.len(), 1, "the earlier run is gone");
}

#[test]
fn the_tags_of_all_lines_come_first_and_stay() {
    let mut history = History::new(Tags::new().with("host", "kvm 1"));
    let mut sample = full(Instant::now());
    let uuid = "6695eb01-f6a4-8304-79aa-97f2502e193f";
    for (name, id) in [("a", 1), ("b", 1), ("b", 2)] {
        (sample.name, sample.run) = (name.into(), run(id));
        let tags = format!(",host=kvm\\ 1,VMID={id},name={name},uuid={uuid}");
        let (vm, _) = history.update(&sample);
        assert_eq!(vm.tags.as_str(), tags);
        assert_eq!(vm.identity().as_str(), tags);
    }
}

#[test]
fn tags_of_the_configuration_change_and_the_run_goes_on() {
    let at = Instant::now();
    let mut history = History::default();
    let mut sample = full(at);
    let values = |text: &str| -> Option<Arc<TagValues>> {
        Some(Arc::from(vec![
            ("owner".into(), text.into()),
            ("b".into(), "c".into()),
        ]))
    };
    sample.tags = values("a b");
    let start = ",VMID=1,name=test,uuid=6695eb01-f6a4-8304-79aa-97f2502e193f";
    let tags = |history: &mut History, sample: &Sample| {
        let (vm, derived) = history.update(sample);
        let tags = vm.tags.as_str().strip_prefix(start).unwrap().to_owned();
        (tags, derived.features.net[0].is_some())
    };
    assert_eq!(
        tags(&mut history, &sample),
        (r",owner=a\ b,b=c".into(), false)
    );
    let later = |sample: &mut Sample| {
        let at = &mut sample.nics.as_mut().unwrap().at;
        *at += std::time::Duration::from_secs(1);
    };
    later(&mut sample);
    sample.tags = values("d");
    assert_eq!(tags(&mut history, &sample), (",owner=d,b=c".into(), true));
    // Its VM is going away: there is no description any more.
    later(&mut sample);
    sample.tags = None;
    assert_eq!(tags(&mut history, &sample), (",owner=d,b=c".into(), true));
    // Nothing of this can be written.
    sample.tags = values("\\");
    assert_eq!(tags(&mut history, &sample).0, ",b=c");
    sample.run = run(2);
    sample.tags = None;
    let (vm, _) = history.update(&sample);
    assert!(vm.tags.as_str().ends_with("193f"), "a new run has its own");
}

#[test]
fn device_tags_come_and_go_with_the_devices() {
    let at = Instant::now();
    let mut history = History::default();
    let mut sample = full(at);
    let nics = |vm: &VmHistory| -> Vec<String> {
        vm.nic_tags().map(|tags| tags.as_str().to_owned()).collect()
    };
    let (vm, _) = history.update(&sample);
    assert_eq!(nics(vm), [",devtype=nic,device=vnet0"]);
    let disks: Vec<&str> = vm.disk_tags().map(Tags::as_str).collect();
    assert_eq!(disks, [",devtype=disk,device=vda"]);
    let other = device("tap,1", "bridge", [Some(1); NIC_COUNTERS]);
    sample.nics = Some(devices(at, vec![other]));
    let (vm, _) = history.update(&sample);
    assert_eq!(nics(vm), [",devtype=nic,device=tap\\,1"]);
}

#[test]
fn a_counter_reported_in_another_run_is_no_veto_in_this_one() {
    let at = Instant::now();
    let mut history = History::default();
    let with = full(at);
    let mut without = full(at);
    let counters = &mut without.disks.as_mut().unwrap().list[0].counters;
    counters[0] = None;
    let mut rest = device("vdb", "disk", [None; DISK_COUNTERS]);
    rest.counters[1] = Some(1);
    without.disks.as_mut().unwrap().list.push(rest);
    history.update(&with);
    without.run = run(2);
    let (_, derived) = history.update(&without);
    assert_eq!(derived.disk[1], Some(43));
    assert_eq!(derived.disk[0], None, "no device reported it");
}

#[test]
fn runs_that_are_gone_are_dropped_and_named() {
    let mut history = History::default();
    history.update(&full(Instant::now()));
    let mut gone = Vec::new();
    history.retain(&HashSet::from_iter([run(1)]), |uuid| gone.push(uuid));
    assert!(gone.is_empty());
    history.retain(&HashSet::from_iter([run(2)]), |uuid| gone.push(uuid));
    assert_eq!(gone, [run(1).uuid]);
    assert!(history.vms.is_empty());
}

#[test]
fn the_tags_of_a_run_are_there_until_the_second_list_without_it() {
    let mut history = History::default();
    assert!(history.tags(run(1)).is_none(), "no line of it was written");
    let mut sample = full(Instant::now());
    history.update(&sample);
    let tags = history.tags(run(1)).unwrap().clone();
    for _ in 0..2 {
        history.retain(&HashSet::from_iter([run(1)]), |_| {});
        assert_eq!(history.tags(run(1)), Some(&tags));
    }
    history.retain(&HashSet::default(), |_| {});
    assert_eq!(history.tags(run(1)), Some(&tags));
    history.retain(&HashSet::default(), |_| {});
    assert!(history.tags(run(1)).is_none());
    // Restarted: both runs are known.
    history.update(&sample);
    sample.run = run(2);
    history.update(&sample);
    assert_eq!(history.tags(run(1)), Some(&tags));
    assert!(history.tags(run(2)).unwrap().as_str().contains("VMID=2"));
}
