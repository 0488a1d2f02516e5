//! What the readings of this host prove of a run, and how long that lasts.

use super::*;
use crate::description::{Description, Nic};
use crate::host::NetDev;
use crate::host::qemu::HostFigures;
use crate::host::qemu::cgroups::CpuUsage;
use crate::host::qemu::vcpus::ThreadTimes;
use crate::maps::HashSet;
use crate::sample::NIC_COUNTERS;
use crate::sample::Sample;
use crate::sample::testing::{device, devices, empty, vcpu_times};

const NET_DEV: &str = "v: 7 0 0 0 0 0 0 0 3 0 0 0 0 0 0 0\n";

/// Everything was read on this host: the VM's tap, and so much CPU time of one vCPU.
fn read(vms: &mut Vms, time: u64) {
    let at = Instant::now();
    let uuid = run(1).uuid;
    let usage = CpuUsage {
        at,
        time,
        user: time,
        system: time,
        vcpus: 1,
        resolution: [1; 3],
    };
    let net_dev = NetDev::parse(NET_DEV.as_bytes(), at);
    vms.on_readings(
        Some((net_dev, HashSet::from_iter([uuid]))),
        HashMap::from_iter([(uuid, usage)]),
        HashMap::default(),
    );
}

/// libvirt reports the same of this run.
fn report(vms: &mut Vms, run: RunId, time: u64) {
    let at = Instant::now();
    let mut sample = empty(at);
    sample.run = run;
    sample.vcpus = Some(1);
    let cpu = &mut sample.cpu;
    (cpu.time, cpu.user, cpu.system) = (Some(time), Some(time), Some(time));
    let counters = [3, 0, 0, 0, 7, 0, 0, 0].map(Some);
    sample.nics = Some(devices(at, vec![device("v", "bridge", counters)]));
    vms.on_sample(true, &mut sample);
}

/// The XML of this run is read; the statistics have the same NIC.
fn describe(vms: &mut Vms, run: RunId) {
    let at = Instant::now();
    let mut sample = empty(at);
    sample.nics = Some(devices(
        at,
        vec![device("v", "bridge", [None; NIC_COUNTERS])],
    ));
    let nic = Nic {
        target: Some("v".into()),
        mac: None,
        kind: "bridge".into(),
    };
    let description = Description {
        nics: vec![nic],
        ..Description::default()
    };
    let names = Some(DeviceNames::of(&sample));
    let described = CachedDescription::new(Some(description), names, at);
    vms.on_description(run, Arc::new(described));
}

/// Whether the NICs and the CPU time of the VM are proven.
fn proven(vms: &Vms) -> (bool, bool) {
    let prepared = vms.prepare(run(1).uuid, |_| true, Instant::now()).unwrap();
    (prepared.nics.is_some(), prepared.processor.is_some())
}

/// A run of the VM of which both are proven.
fn both_proven() -> Vms {
    let mut vms = Vms::new(TTL);
    vms.set_feed(EventFeed::Live(Instant::now()));
    vms.begin();
    list(&mut vms, [run(1)]);
    describe(&mut vms, run(1));
    read(&mut vms, 10);
    report(&mut vms, run(1), 15);
    vms.begin();
    assert_eq!(proven(&vms), (false, false), "not read yet");
    read(&mut vms, 20);
    assert_eq!(proven(&vms), (true, true));
    vms
}

#[test]
fn what_is_proven_lasts_as_long_as_the_run_is_active() {
    let mut vms = both_proven();
    list(&mut vms, [run(1)]);
    assert_eq!(proven(&vms), (true, true));
    list(&mut vms, []);
    list(&mut vms, [run(1)]);
    describe(&mut vms, run(1));
    assert_eq!(proven(&vms), (false, false));
}

#[test]
fn nothing_is_proven_of_another_run() {
    let mut vms = both_proven();
    list(&mut vms, [run(2)]);
    describe(&mut vms, run(2));
    assert_eq!(proven(&vms), (false, false), "by the list");
    let mut vms = both_proven();
    report(&mut vms, run(2), 25);
    assert_eq!(vms.get(run(1).uuid), Some(&domain(run(2))));
    describe(&mut vms, run(2));
    assert_eq!(proven(&vms), (false, false), "by a sample");
}

#[test]
fn a_sample_in_part_of_an_earlier_run_changes_nothing() {
    let mut vms = Vms::new(TTL);
    list(&mut vms, [run(2)]);
    let mut sample = empty(Instant::now());
    sample.run = run(1);
    vms.on_sample(false, &mut sample);
    assert_eq!(vms.get(run(2).uuid).map(|domain| domain.run), Some(run(2)));
}

#[test]
fn a_description_has_both_proven_anew() {
    let mut vms = both_proven();
    describe(&mut vms, run(1));
    assert_eq!(proven(&vms), (false, false));
    report(&mut vms, run(1), 25);
    vms.begin();
    read(&mut vms, 30);
    assert_eq!(proven(&vms), (true, true));
}

#[test]
fn what_was_reported_around_a_restart_proves_nothing() {
    let mut vms = both_proven();
    vms.on_restart();
    assert_eq!(proven(&vms), (false, false));
    // It was under way when libvirtd was restarted.
    report(&mut vms, run(1), 25);
    vms.begin();
    read(&mut vms, 30);
    assert_eq!(proven(&vms), (false, false));
    report(&mut vms, run(1), 35);
    vms.begin();
    read(&mut vms, 40);
    assert_eq!(proven(&vms), (true, true));
}

#[test]
fn without_a_reading_nothing_is_proven_or_forgotten() {
    let mut vms = both_proven();
    vms.begin();
    assert_eq!(proven(&vms), (false, false));
    vms.on_readings(None, HashMap::default(), HashMap::default());
    assert_eq!(proven(&vms), (false, false));
    vms.begin();
    read(&mut vms, 50);
    assert_eq!(proven(&vms), (true, true));
}

#[test]
fn a_sample_of_a_vm_that_is_not_listed_any_more_is_corrected() {
    let mut vms = Vms::new(TTL);
    vms.begin();
    let net_dev =
        "web: 9 0 0 0 0 0 0 0 3 0 0 0 0 0 0 0\ndmz-web: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n";
    let net_dev = NetDev::parse(net_dev.as_bytes(), Instant::now());
    let in_our_netns = HashSet::from_iter([run(1).uuid]);
    vms.on_readings(
        Some((net_dev, in_our_netns)),
        HashMap::default(),
        HashMap::default(),
    );
    let mut sample = empty(Instant::now());
    let libvirts = device("web", "bridge", [Some(0); NIC_COUNTERS]);
    sample.nics = Some(devices(Instant::now(), vec![libvirts]));
    vms.on_sample(true, &mut sample);
    let counters = [3, 0, 0, 0, 9, 0, 0, 0].map(Some);
    assert_eq!(sample.nics.unwrap().list[0].counters, counters);
    assert_eq!(vms.iter().count(), 0);
}

/// This host says of the VM's QEMU that it is 60 s old and has two vCPU threads.
fn read_figures(vms: &mut Vms, shared: bool) {
    let list = [(0, 1, 10), (4, 2, 20)];
    let list = list.into_iter().take(if shared { 1 } else { 2 });
    let times = vcpu_times(Instant::now(), list);
    let figures = HostFigures {
        uptime: Some(60),
        resident: None,
        vcpus: Some(ThreadTimes { times, shared }),
        throttling: None,
        pressure: Vec::new(),
    };
    let figures = HashMap::from_iter([(run(1).uuid, figures)]);
    vms.on_readings(None, HashMap::default(), figures);
}

/// The uptime and the sum of the delays in a sample of this run that says so many vCPUs are online.
fn shown(vms: &mut Vms, run: RunId, full: bool, online: Option<u64>) -> (Option<u64>, Option<u64>) {
    let mut sample = Sample::new(run, "test".into(), Instant::now());
    sample.vcpus = online;
    vms.on_sample(full, &mut sample);
    let vcpus = sample.vcpu_times.as_ref();
    let delay = vcpus.and_then(|vcpus| vcpus.sum(|vcpu| vcpu.delay));
    (sample.uptime, delay)
}

#[test]
fn what_this_host_says_is_put_into_each_sample_of_the_run() {
    let mut vms = Vms::new(TTL);
    vms.begin();
    list(&mut vms, [run(1)]);
    read_figures(&mut vms, false);
    for full in [true, false] {
        assert_eq!(shown(&mut vms, run(1), full, Some(2)), (Some(60), Some(30)));
        // Priority calls do not have the number of vCPUs.
        assert_eq!(shown(&mut vms, run(1), full, None), (Some(60), Some(30)));
    }
    vms.begin();
    assert_eq!(shown(&mut vms, run(1), true, Some(2)), (None, None), "late");
    read_figures(&mut vms, false);
    assert_eq!(shown(&mut vms, run(0), false, Some(2)), (None, None));
    // The VM was restarted after the reading.
    assert_eq!(shown(&mut vms, run(2), true, Some(2)), (None, None));
    assert_eq!(shown(&mut vms, run(2), true, Some(2)), (None, None));
}

#[test]
fn vcpus_have_figures_only_if_all_that_are_online_have_a_thread() {
    let mut vms = Vms::new(TTL);
    list(&mut vms, [run(1)]);
    for (shared, online, delay) in [
        (false, Some(1), None),
        (false, Some(3), None),
        (true, Some(1), Some(10)),
        (true, Some(2), None),
        (true, None, None),
    ] {
        read_figures(&mut vms, shared);
        let expected = (Some(60), delay);
        let found = shown(&mut vms, run(1), true, online);
        assert_eq!(found, expected, "{shared} {online:?}");
    }
}

#[test]
fn a_count_of_libvirts_that_stays_wrong_does_not_cost_the_figures() {
    let mut vms = Vms::new(TTL);
    list(&mut vms, [run(1)]);
    // Two threads. What libvirt counts in these gathers, and the sum of the delays.
    for (online, delay) in [
        (Some(3), None),
        (Some(3), Some(30)),
        (None, Some(30)),
        (Some(3), Some(30)),
        // A change may be under way.
        (Some(1), None),
        (Some(3), None),
        (Some(3), Some(30)),
        (Some(2), Some(30)),
        (Some(3), None),
    ] {
        vms.begin();
        read_figures(&mut vms, false);
        // Within a gather a VM may be asked more than once.
        for _ in 0..2 {
            let found = shown(&mut vms, run(1), true, online);
            assert_eq!(found, (Some(60), delay), "{online:?}");
        }
    }
    // One thread for all vCPUs has the time of none.
    for _ in 0..3 {
        vms.begin();
        read_figures(&mut vms, true);
        assert_eq!(shown(&mut vms, run(1), true, Some(2)), (Some(60), None));
    }
}

/// A sample of the run with figures of vCPUs that libvirt reports.
fn report_vcpus(vms: &mut Vms, of: RunId) -> Option<u64> {
    let mut sample = Sample::new(of, "test".into(), Instant::now());
    sample.vcpus = Some(2);
    sample.vcpu_times = Some(vcpu_times(Instant::now(), [(0, 5, 50), (4, 6, 60)]));
    vms.on_sample(true, &mut sample);
    sample.vcpu_times.unwrap().sum(|vcpu| vcpu.delay)
}

fn asks_vcpus(vms: &Vms) -> bool {
    let target = vms.prepare(run(1).uuid, |_| true, Instant::now());
    target.unwrap().asks_vcpus
}

#[test]
fn the_figures_of_vcpus_have_one_source_in_a_run() {
    let mut vms = Vms::new(TTL);
    vms.begin();
    list(&mut vms, [run(1)]);
    assert!(!asks_vcpus(&vms), "the check of the host is late");
    read_figures(&mut vms, false);
    assert!(!asks_vcpus(&vms));
    assert_eq!(report_vcpus(&mut vms, run(1)), Some(30), "of this host");
    vms.begin();
    vms.on_readings(None, HashMap::default(), HashMap::default());
    assert!(!asks_vcpus(&vms), "this host has had them");

    list(&mut vms, [run(2)]);
    assert!(asks_vcpus(&vms), "another run, and nothing of it here");
    assert_eq!(report_vcpus(&mut vms, run(2)), Some(110));
    vms.begin();
    assert!(asks_vcpus(&vms), "libvirt has had them");
    read_figures(&mut vms, false);
    assert!(asks_vcpus(&vms));
    assert_eq!(report_vcpus(&mut vms, run(2)), Some(110));
}

#[test]
fn of_another_host_libvirt_is_asked_for_vcpus() {
    let mut vms = Vms::new(TTL);
    vms.begin();
    list(&mut vms, [run(1)]);
    vms.on_other_host();
    assert!(asks_vcpus(&vms));
    assert_eq!(report_vcpus(&mut vms, run(1)), Some(110));
}
