//! Whole gathers against a daemon that never answers: the test answers in the workers' place.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, channel};
use std::time::Duration;

use uuid::Uuid;

use super::*;
use crate::gather::host_watcher::HostReport;
use crate::gather::protocol::{Completeness, Measured, Monitor};
use crate::gather::scheduler::HostVerdict;
use crate::gather::testing::Frozen;
use crate::host::qemu::cgroups::CpuUsage;
use crate::maps::HashSet;
use crate::sample::testing::{device, devices, full};
use crate::sample::{DISK_COUNTERS, Sample};
use crate::vms::CachedDescription;

/// A gatherer whose workers all hang: the test answers in their place.
struct Driven {
    gatherer: Gatherer,
    frozen: Frozen,
    _replies: Receiver<Reply>,
}

impl Driven {
    fn new(with: impl Fn(&mut Settings), host_watcher: Option<Sender<HostQuery>>) -> Self {
        let frozen = Frozen::start();
        let (sink, replies) = inbox();
        let mut settings = settings(&frozen.uri());
        with(&mut settings);
        Self {
            gatherer: Gatherer::new(&settings, sink, host_watcher),
            frozen,
            _replies: replies,
        }
    }

    /// The calls that are out, hanging ones included, the oldest first.
    fn out(&self) -> Vec<CallId> {
        let mut out = self.gatherer.workers.busy();
        out.sort_unstable();
        out
    }

    fn newest(&self) -> CallId {
        *self.out().last().unwrap()
    }

    fn answer(&mut self, call_id: CallId, answer: Response) {
        self.gatherer.on_reply(Reply {
            call_id,
            worker: 0,
            result: Ok(answer),
            opened: false,
            reopened: false,
            version: None,
        });
    }

    /// Answers the call that was sent last.
    fn next(&mut self, answer: Response) {
        self.answer(self.newest(), answer);
    }

    fn lose(&mut self, call_id: CallId) {
        let lost = Failure::Lost(Error::invalid("lost"));
        self.gatherer.on_reply(failed(call_id, lost));
    }

    /// From the beginning of a gather to its first calls for statistics.
    fn listed_and_described(&mut self, names: &[&str]) {
        self.gatherer.begin();
        self.next(domains(names));
        self.described(names);
        self.next(Response::Done);
    }

    /// The call that describes these comes back.
    fn described(&mut self, names: &[&str]) {
        let describe = self.newest();
        for name in names {
            let described = CachedDescription::new(None, None, Instant::now());
            let answer = Response::Described(domain(name).run, Arc::new(described), None);
            self.answer(describe, answer);
        }
        self.answer(describe, Response::Done);
    }

    /// A probe comes back from all of these domains, and their monitors are free.
    fn probed(&mut self, names: &[&str]) {
        let probe = self.newest();
        self.answer(probe, Response::Alive);
        for name in names {
            self.answer(probe, Response::Control(Node::uuid(name), Monitor::Free));
        }
        self.answer(probe, Response::Done);
    }

    /// Whether the description of this VM is current.
    fn is_described(&self, name: &str) -> bool {
        self.gatherer.vms.description(Node::uuid(name)).is_some()
    }

    /// Ends the gather; the workers had their connections.
    fn finish(&mut self) -> GatherReport {
        self.gatherer.workers.connect();
        self.gatherer.finish()
    }

    /// Time passes until the calls in hand stall.
    fn stall(&mut self) {
        std::thread::sleep(STALL + Duration::from_millis(10));
        self.gatherer.tick();
    }
}

fn domain(name: &str) -> DomainRef {
    DomainRef {
        run: RunId {
            uuid: Node::uuid(name),
            id: u32::from(name.as_bytes()[0]),
        },
        name: name.into(),
    }
}

fn domains(names: &[&str]) -> Response {
    Response::Domains(names.iter().map(|name| domain(name)).collect())
}

fn sample(name: &str) -> Sample {
    Sample {
        run: domain(name).run,
        name: name.into(),
        ..full(Instant::now())
    }
}

fn measured(name: &str, completeness: Completeness) -> Measured {
    let mut sample = sample(name);
    sample.answers = (completeness == Completeness::Full).then_some(true);
    Measured {
        sample,
        completeness,
        described: None,
        outdated: false,
        problem: None,
    }
}

fn samples(names: &[&str]) -> Response {
    let measured = names.iter().map(|name| measured(name, Completeness::Full));
    Response::Samples(measured.collect(), vec![])
}

/// Whether the QEMU of each VM answered, in the order of their names.
fn answers(gathered: &GatherReport) -> Vec<Option<bool>> {
    let mut samples: Vec<_> = gathered.samples.iter().collect();
    samples.sort_unstable_by_key(|sample| &sample.name);
    samples.iter().map(|sample| sample.answers).collect()
}

/// Where its images lie now is not known until its XML has been read.
#[test]
fn a_vm_that_shows_other_devices_than_it_is_known_to_have_is_described_anew() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b"]);
    let mut other = measured("b", Completeness::Partial);
    other.outdated = true;
    driven.next(Response::Samples(
        vec![measured("a", Completeness::Full), other],
        vec![],
    ));
    driven.finish();
    let known = |driven: &Driven, name| driven.is_described(name);
    assert!(known(&driven, "a") && !known(&driven, "b"));
}

#[test]
fn while_a_list_hangs_none_is_sent_again_and_the_domains_last_known_serve() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b"]);
    driven.next(samples(&["a", "b"]));
    assert!(driven.gatherer.is_done());
    assert_eq!(names(&driven.finish()), ["a", "b"]);

    driven.gatherer.begin();
    let list = driven.newest();
    driven.stall();
    driven.probed(&["a", "b"]);
    for _ in 0..2 {
        assert_eq!(driven.out().len(), 2, "one besides the list");
        // It is no second list: it is answered as what it is, and the gather goes on with both.
        driven.next(Response::Done);
        driven.next(samples(&["a", "b"]));
        assert!(driven.gatherer.is_done());
        let gathered = driven.finish();
        assert_eq!(names(&gathered), ["a", "b"]);
        assert_eq!((gathered.active, gathered.hanging), (None, 1));
        driven.gatherer.begin();
    }
    driven.next(Response::Done);
    let gathered = driven.finish();
    assert_eq!(missing(&gathered), ["a", "b"], "they were asked");
    assert_eq!(gathered.hanging, 2);

    // The list comes back, late: it is dropped, and the next gather lists again.
    driven.answer(list, domains(&["x"]));
    assert_eq!(driven.gatherer.scheduler.hanging(), 1);
    driven.gatherer.begin();
    driven.next(domains(&["c"]));
    let gathered = driven.finish();
    let active: Vec<RunId> = gathered.active.into_iter().flatten().collect();
    assert_eq!(active, [domain("c").run]);
}

#[test]
fn a_stopped_daemon_has_one_call_of_ours_however_many_gathers() {
    let mut driven = Driven::new(|_| {}, None);
    for _ in 0..4 {
        driven.gatherer.begin();
        let gathered = driven.finish();
        assert!(!gathered.reached && gathered.active.is_none());
        assert_eq!((gathered.hanging, driven.out().len()), (1, 1));
    }
    // It ends: the calls that wait fail, and the next gather lists again.
    driven.lose(driven.newest());
    assert_eq!(driven.gatherer.scheduler.hanging(), 0);
    driven.gatherer.begin();
    driven.next(domains(&["a"]));
    assert!(driven.finish().reached);
}

#[test]
fn calls_are_capped_over_all_gathers_as_the_settings_say() {
    let names: Vec<String> = ('a'..='z').map(String::from).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    for (max_calls, expected) in [(8, [4, 8, 9, 9]), (5, [4, 5, 6, 6]), (2, [2, 3, 3, 3])] {
        let with = |settings: &mut Settings| {
            settings.chunk_size = Some(1);
            settings.max_calls = max_calls;
        };
        let mut driven = Driven::new(with, None);
        let hanging = expected.map(|_| {
            let before = driven.out().len();
            driven.gatherer.begin();
            // Lists come as long as there is room for one, everything else hangs: also the call past the
            // limit that priority workers serve.
            if driven.out().len() > before {
                driven.next(domains(&names));
            }
            driven.finish().hanging
        });
        assert_eq!(hanging, expected);
        // And so many connections stand, and one for lists, no more.
        let max_calls = max_calls + 1;
        let until = Instant::now() + LIMIT;
        let mut history = 0;
        while history < max_calls && Instant::now() < until {
            std::thread::sleep(Duration::from_millis(20));
            history += driven.frozen.waiting();
        }
        std::thread::sleep(Duration::from_millis(200));
        assert_eq!(history + driven.frozen.waiting(), max_calls);
    }
}

#[test]
fn the_look_at_the_host_decides_what_each_vm_is_asked_for() {
    let (ask, questions) = channel();
    let mut driven = Driven::new(|_| {}, Some(ask));
    driven.gatherer.begin();
    driven.next(domains(&["a", "b"]));
    driven.described(&["a", "b"]);
    assert!(driven.out().is_empty(), "the host is checked first");
    let question: HostQuery = questions.try_recv().unwrap();
    let mut vms: Vec<Uuid> = question.vms.iter().map(|(uuid, _)| *uuid).collect();
    vms.sort_unstable();
    let (a, b) = (Node::uuid("a"), Node::uuid("b"));
    assert_eq!(vms, [a, b]);
    let mount = PathBuf::from("/mnt/gone");
    driven.gatherer.on_host_report(HostReport {
        number: question.number,
        verdict: HostVerdict {
            stuck: [a].into_iter().collect(),
            no_block: [b].into_iter().collect(),
            ..HostVerdict::default()
        },
        dead_mounts: [(mount.clone(), [b].into())].into(),
        ..HostReport::default()
    });
    driven.next(Response::Done);
    let &[whole, quiet] = &driven.out()[..] else {
        panic!("{:?}", driven.out());
    };
    let part = Response::Samples(vec![measured("a", Completeness::Partial)], vec![]);
    driven.answer(quiet, part);
    assert!(!driven.gatherer.is_done());
    let mut without_disks = measured("b", Completeness::Full);
    without_disks.sample.disks = None;
    driven.answer(whole, Response::Samples(vec![without_disks], vec![]));
    // Its disks are asked for by themselves, and only its.
    let disk = device("vdz", "disk", [Some(1); DISK_COUNTERS]);
    let disks = devices(Instant::now(), vec![disk]);
    assert_eq!(driven.out().len(), 1);
    driven.next(Response::Disks(domain("b").run, disks.clone()));
    assert!(driven.gatherer.is_done());
    let gathered = driven.finish();
    assert_eq!(names(&gathered), ["a", "b"]);
    assert_eq!(gathered.samples[1].disks, Some(disks));
    assert_eq!(answers(&gathered), [Some(false), Some(true)]);
    assert_eq!(counts(&gathered), (2, [1, 1, 0]));
    let dead = [(mount, vec![domain("b")])].into();
    assert_eq!(gathered.dead, dead);
    // The next gather ends before the host was looked at: it knows nothing better.
    driven.gatherer.begin();
    assert_eq!(driven.finish().dead, dead);
}

#[test]
fn a_short_deadline_is_not_spent_on_waiting_for_the_host() {
    let short = Duration::from_millis(500);
    let (ask, _questions) = channel();
    let mut driven = Driven::new(|settings| settings.deadline = short, Some(ask));
    driven.gatherer.begin();
    driven.next(domains(&["a"]));
    driven.described(&["a"]);
    let by = Instant::now() + short / 2;
    assert!(driven.out().is_empty(), "the host is checked first");
    assert!(
        driven.gatherer.wake().unwrap() <= by,
        "no VM could be asked"
    );
}

/// A gather in which the host's view of this VM is `time` ns of CPU time and one vCPU.
fn gather_with_usage(driven: &mut Driven, questions: &Receiver<HostQuery>, time: u64) {
    driven.gatherer.begin();
    driven.next(domains(&["a"]));
    if !driven.is_described("a") {
        driven.described(&["a"]);
    }
    assert!(driven.out().is_empty(), "the host is checked first");
    let number = questions.try_recv().unwrap().number;
    let usage = CpuUsage {
        at: Instant::now(),
        time,
        user: time,
        system: time,
        vcpus: 1,
        resolution: [1; 3],
    };
    driven.gatherer.on_host_report(HostReport {
        number,
        cpu_usage: [(Node::uuid("a"), usage)].into_iter().collect(),
        ..HostReport::default()
    });
    driven.next(Response::Done);
}

/// Whichever connection it is that a restarted libvirtd cut.
#[test]
fn what_the_host_has_proven_is_forgotten_when_any_connection_is_lost() {
    let (ask, questions) = channel();
    let mut driven = Driven::new(|_| {}, Some(ask));
    let said = |time| {
        let mut one = measured("a", Completeness::Full);
        one.sample.vcpus = Some(1);
        let cpu = &mut one.sample.cpu;
        (cpu.time, cpu.user, cpu.system) = (Some(time), Some(time), Some(time));
        Response::Samples(vec![one], vec![])
    };
    let proven = |driven: &Driven| {
        let vms = &driven.gatherer.vms;
        let prepared = vms.prepare(Node::uuid("a"), |_| true, Instant::now());
        prepared.unwrap().processor.is_some()
    };
    gather_with_usage(&mut driven, &questions, 10);
    driven.next(said(15));
    driven.finish();
    gather_with_usage(&mut driven, &questions, 20);
    assert!(proven(&driven));
    driven.lose(driven.newest());
    assert!(!proven(&driven));
    driven.next(said(25));
    driven.finish();
    gather_with_usage(&mut driven, &questions, 30);
    assert!(!proven(&driven), "it may be of before the restart");
}

#[test]
fn a_vm_that_was_restarted_since_the_list_is_active() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b"]);
    let mut restarted = measured("a", Completeness::Full);
    restarted.sample.run.id += 100;
    let run = restarted.sample.run;
    let answer = Response::Samples(vec![restarted, measured("b", Completeness::Full)], vec![]);
    driven.next(answer);
    let active = driven.finish().active.unwrap();
    assert_eq!(active, HashSet::from_iter([run, domain("b").run]));
}

#[test]
fn vms_that_answer_vanish_and_cannot_be_read_add_up() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b", "c", "d"]);
    let mut restarted = measured("a", Completeness::Full);
    restarted.sample.run.id += 100;
    let unreadable = (domain("c"), "no".to_owned());
    let part = vec![restarted, measured("d", Completeness::Partial)];
    driven.next(Response::Samples(part, vec![unreadable]));
    // The one in part is asked again, and has not answered when the gather is cut.
    assert!(!driven.gatherer.is_done());
    let gathered = driven.finish();
    assert_eq!(counts(&gathered), (3, [1, 1, 1]), "b is gone");
    assert!(gathered.missing.is_empty());
}

#[test]
fn a_vm_of_which_all_but_the_disks_came_is_in_part_where_disks_are_wanted() {
    for (devices, expected) in [(true, &["a"][..]), (false, &[])] {
        let without = |settings: &mut Settings| {
            settings.measurements.features &= devices;
            settings.measurements.devices = devices;
            settings.measurements.totals &= devices;
        };
        let mut driven = Driven::new(without, None);
        driven.gatherer.begin();
        driven.next(domains(&["a", "b"]));
        if devices {
            driven.described(&["a", "b"]);
            driven.next(Response::Done);
        }
        let mut a = measured("a", Completeness::Full);
        a.sample.disks = None;
        let answer = Response::Samples(vec![a, measured("b", Completeness::Full)], vec![]);
        driven.next(answer);
        let gathered = driven.finish();
        assert_eq!(counts(&gathered).0, 2);
        assert_eq!(in_part(&gathered)[2], expected, "{devices}");
    }
}

#[test]
fn a_gather_that_is_cut_before_any_vm_was_asked_withholds_those_of_its_list() {
    let mut driven = Driven::new(|_| {}, None);
    driven.gatherer.begin();
    driven.next(domains(&["a", "b"]));
    let gathered = driven.finish();
    assert_eq!(counts(&gathered), (2, [0, 0, 2]));

    // No connection can be opened any more.
    let mut driven = Driven::new(|_| {}, None);
    driven.gatherer.begin();
    driven.next(domains(&["a", "b"]));
    let failure = Failure::Unreachable(Error::invalid("no"));
    driven.gatherer.on_reply(failed(driven.newest(), failure));
    assert!(driven.gatherer.is_done());
    let gathered = driven.finish();
    assert_eq!(counts(&gathered), (2, [0, 0, 2]));
    assert_eq!(missing(&gathered), ["a", "b"]);
}

#[test]
fn a_vm_that_blocks_a_call_is_not_waited_for_and_the_late_reply_is_dropped() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b"]);
    let held = driven.newest();
    driven.stall();
    let probe = driven.newest();
    assert_ne!(probe, held);
    driven.answer(probe, Response::Alive);
    let occupied = Monitor::Occupied(STALL);
    driven.answer(probe, Response::Control(Node::uuid("a"), occupied));
    // Both are asked again at once, one by one: libvirt passes the first by now.
    let &[a, b] = &driven.out()[2..] else {
        panic!("{:?}", driven.out());
    };
    let part = measured("a", Completeness::Partial);
    driven.answer(a, Response::Samples(vec![part], vec![]));
    driven.answer(b, samples(&["b"]));
    driven.answer(probe, Response::Control(Node::uuid("b"), Monitor::Free));
    driven.answer(probe, Response::Done);
    // It may only be slow: that is waited for a little.
    assert!(!driven.gatherer.is_done());
    std::thread::sleep(Duration::from_millis(700));
    driven.gatherer.tick();
    assert!(driven.gatherer.is_done());
    let gathered = driven.finish();
    assert_eq!(names(&gathered), ["a", "b"]);
    assert_eq!(gathered.hanging, 1);
    assert_eq!(counts(&gathered), (2, [1, 1, 0]));
    assert!(gathered.missing.is_empty() && gathered.locked.is_empty());

    driven.gatherer.begin();
    driven.answer(held, samples(&["a", "b"]));
    let gathered = driven.finish();
    assert!(gathered.samples.is_empty(), "{:?}", names(&gathered));
    assert_eq!(driven.gatherer.losses(), (1, 0));
}

/// Kept, it would not be read again, and nobody would be told.
#[test]
fn an_unreadable_description_that_comes_late_is_read_again() {
    let mut driven = Driven::new(|_| {}, None);
    driven.gatherer.begin();
    driven.next(domains(&["a", "b"]));
    let late = driven.newest();
    driven.finish();
    for (name, problem) in [("a", None), ("b", Some("unreadable".to_owned()))] {
        let described = CachedDescription::new(None, None, Instant::now());
        let run = domain(name).run;
        driven.answer(late, Response::Described(run, Arc::new(described), problem));
    }
    assert!(driven.is_described("a") && !driven.is_described("b"));
}

#[test]
fn a_vm_that_a_daemon_without_workers_serves_by_priority_calls_is_not_missing() {
    let mut driven = Driven::new(|_| {}, None);
    driven.gatherer.begin();
    driven.next(domains(&["a", "b", "c"]));
    driven.described(&["a", "b", "c"]);
    // The canary does not come back, and no VM blocks it.
    driven.stall();
    let probe = driven.newest();
    driven.answer(probe, Response::Alive);
    for name in ["a", "b", "c"] {
        let control = match name {
            "b" => Monitor::Occupied(Duration::from_secs(60)),
            _ => Monitor::Free,
        };
        driven.answer(probe, Response::Control(Node::uuid(name), control));
    }
    driven.answer(probe, Response::Done);
    let urgent = driven.newest();
    for name in ["a", "b"] {
        let sample = measured(name, Completeness::PriorityOnly).sample;
        driven.answer(urgent, Response::Priority(Box::new(sample)));
    }
    assert!(!driven.gatherer.is_done());
    let gathered = driven.finish();
    assert_eq!(gathered.saturated, Some(Some(domain("b"))));
    assert_eq!(names(&gathered), ["a", "b"]);
    assert_eq!(counts(&gathered), (3, [0, 2, 1]));
    assert_eq!(in_part(&gathered)[1], ["a", "b"]);
    assert_eq!(missing(&gathered), ["c"]);
    assert_eq!(answers(&gathered), [None; 2], "no QEMU was asked");
}

#[test]
fn a_vm_on_which_a_call_hangs_does_not_answer_also_when_libvirtd_has_no_worker_to_ask_it() {
    let mut driven = Driven::new(|_| {}, None);
    driven.listed_and_described(&["a", "b"]);
    let held = driven.newest();
    driven.stall();
    let probe = driven.newest();
    driven.answer(probe, Response::Alive);
    let occupied = Monitor::Occupied(STALL);
    driven.answer(probe, Response::Control(Node::uuid("a"), occupied));
    driven.answer(probe, Response::Control(Node::uuid("b"), Monitor::Free));
    driven.answer(probe, Response::Done);
    driven.finish();

    driven.gatherer.begin();
    driven.next(domains(&["a", "b"]));
    // The canary does not come back, and no VM blocks it: libvirtd has no worker.
    driven.stall();
    let probe = driven.newest();
    driven.answer(probe, Response::Alive);
    driven.answer(
        probe,
        Response::Control(Node::uuid("a"), Monitor::Occupied(2 * STALL)),
    );
    driven.answer(probe, Response::Control(Node::uuid("b"), Monitor::Free));
    driven.answer(probe, Response::Done);
    let urgent = driven.newest();
    for (name, state) in [("a", (1, 1)), ("b", (1, 1)), ("a", (3, 2))] {
        let mut sample = measured(name, Completeness::PriorityOnly).sample;
        (sample.state, sample.reason) = (Some(state.0), Some(state.1));
        driven.answer(urgent, Response::Priority(Box::new(sample)));
    }
    assert!(driven.out().contains(&held));
    let gathered = driven.finish();
    assert_eq!(answers(&gathered), [Some(false), None]);
}

/// The canary of a daemon without workers does not come back, so that no VM is taken up.
#[test]
fn a_vm_that_priority_calls_do_not_find_any_more_is_gone() {
    let mut driven = Driven::new(|_| {}, None);
    driven.gatherer.begin();
    driven.next(domains(&["a", "b", "c"]));
    driven.described(&["a", "b", "c"]);
    driven.stall();
    driven.probed(&["a", "b", "c"]);
    let urgent = driven.newest();
    let sample = measured("a", Completeness::PriorityOnly).sample;
    driven.answer(urgent, Response::Priority(Box::new(sample)));
    driven.answer(urgent, Response::Done);
    let gathered = driven.finish();
    assert_eq!(counts(&gathered), (1, [0, 1, 0]));
    assert!(gathered.missing.is_empty());
}

#[test]
fn for_figures_of_vcpus_the_control_groups_are_read_and_the_last_number_is_passed_on() {
    let only_vcpus = |settings: &mut Settings| {
        let measurements = &mut settings.measurements;
        (measurements.metrics, measurements.features) = (false, false);
        (measurements.devices, measurements.totals) = (false, false);
        measurements.vcpus = true;
    };
    let (ask, questions) = channel();
    let mut driven = Driven::new(only_vcpus, Some(ask));
    let a = Node::uuid("a");
    for (online, known) in [(Some(2), None), (None, Some(2)), (Some(3), Some(2))] {
        driven.gatherer.begin();
        driven.next(domains(&["a"]));
        let question = questions.try_recv().unwrap();
        assert!(question.wants.vcpu_times && question.wants.cpu_usage);
        assert_eq!(question.online.get(&a).copied(), known);
        driven.gatherer.on_host_report(HostReport {
            number: question.number,
            ..HostReport::default()
        });
        let mut one = measured("a", Completeness::Full);
        one.sample.vcpus = online;
        driven.next(Response::Samples(vec![one], vec![]));
        driven.finish();
    }
}

/// From libvirt 11.4 on, disks are left out where it is not known where all files of their VM lie, or where that is slow.
#[test]
fn where_no_disks_are_wanted_none_are_left_out() {
    for (devices, expected) in [(true, &["a"][..]), (false, &[])] {
        let without = |settings: &mut Settings| {
            settings.measurements.features &= devices;
            settings.measurements.devices = devices;
            settings.measurements.totals &= devices;
        };
        let (ask, questions) = channel();
        let mut driven = Driven::new(without, Some(ask));
        driven.gatherer.begin();
        let list = Reply {
            call_id: driven.newest(),
            worker: 0,
            result: Ok(domains(&["a"])),
            opened: true,
            reopened: false,
            version: Some(12_008_000),
        };
        driven.gatherer.on_reply(list);
        if devices {
            driven.described(&["a"]);
        }
        let a: HashSet<Uuid> = [Node::uuid("a")].into_iter().collect();
        driven.gatherer.on_host_report(HostReport {
            number: questions.try_recv().unwrap().number,
            on_unknown_storage: a.clone(),
            on_unanswering_mount: a,
            ..HostReport::default()
        });
        driven.next(Response::Done);
        driven.next(samples(&["a"]));
        let gathered = driven.finish();
        for left_out in [gathered.unknown_storage, gathered.slow_storage] {
            let names: Vec<&str> = left_out.iter().map(|vm| vm.name.as_str()).collect();
            assert_eq!(names, expected, "{devices}");
        }
    }
}
