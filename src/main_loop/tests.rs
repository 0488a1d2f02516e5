use std::sync::Arc;
use std::sync::mpsc::{Sender, channel};

use super::*;
use crate::description::Description;
use crate::gather::GatherReport;
use crate::gather::testing::{Frozen, inbox, settings};
use crate::sample::testing::{full, run};
use crate::times::INVENTORY_GRACE;
use crate::vms::{DomainRef, EndedRun};

fn main_loop(mode: Mode) -> (MainLoop, Sender<Message>) {
    let (sink, _) = inbox();
    let settings = settings("test:///default");
    let (sender, receiver) = channel();
    let gatherer = Gatherer::new(&settings, sink, None);
    let inventory = Inventory::new(&settings, Arc::new(drop));
    let requests = Requests::default();
    (
        MainLoop::new(settings, mode, gatherer, inventory, receiver, requests),
        sender,
    )
}

fn ms(n: u64) -> Duration {
    Duration::from_millis(n)
}

/// What a gather with this report writes of what was found beside its VMs.
fn found(main_loop: &mut MainLoop, report: &GatherReport) -> String {
    main_loop.buffer.clear();
    main_loop.write_inventory(report, 17);
    main_loop.buffer.clone()
}

#[test]
fn a_vm_that_was_started_meanwhile_is_written_as_active_alone() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    main_loop.settings.measurements.host = true;
    let vm = |uuid: u128| inventory::InactiveVm {
        uuid: uuid::Uuid::from_u128(uuid),
        name: "a".into(),
        autostart: false,
        state: Some(5),
        reason: Some(0),
        memory: None,
        vcpus: None,
    };
    let reply = |vms| Message::Inventory(inventory::Reply::Inactive(Ok(vms)));
    let started = vm(run(1).uuid.as_u128());
    let mut report = GatherReport {
        reached: true,
        ..GatherReport::default()
    };
    // Without a list it is not known which VMs are active: it waits for the next gather.
    main_loop.on_message(reply(vec![vm(1), started]));
    assert_eq!(found(&mut main_loop, &report), "");
    report.active = Some([run(1)].into_iter().collect());
    let lines = found(&mut main_loop, &report);
    assert_eq!(lines.matches("vm_metrics,VMID=-").count(), 1, "{lines}");
    assert!(lines.contains(&vm(1).uuid.to_string()), "{lines}");
    assert!(lines.contains("vms_shutoff=1i"), "{lines}");
    // What was written is not written again, and their number is not known.
    let lines = found(&mut main_loop, &report);
    assert!(!lines.contains("VMID=-") && !lines.contains("vms_shutoff"));
    assert!(lines.contains("vms_running=0i"), "{lines}");
    // A VM without figures is in no sum.
    report.withheld = 1;
    assert_eq!(found(&mut main_loop, &report), "");
}

#[test]
fn a_gather_waits_a_moment_for_what_it_has_asked_beside_its_vms() {
    let frozen = Frozen::start();
    let mut settings = settings(&frozen.uri());
    settings.measurements.host = true;
    let (sender, receiver) = channel();
    let gatherer = Gatherer::new(&settings, inbox().0, None);
    let inventory = Inventory::new(&settings, Arc::new(drop));
    let (mode, requests) = (Mode::Triggered, Requests::default());
    let mut main_loop = MainLoop::new(settings, mode, gatherer, inventory, receiver, requests);
    // The node's reply, which its worker never has.
    let reply = || {
        let info = None;
        let figures = inventory::NodeFigures {
            info,
            free_memory: Some(1),
        };
        Message::Inventory(inventory::Reply::Node(Ok(figures)))
    };
    let ask = |main_loop: &mut MainLoop| {
        main_loop.inventory.begin(Instant::now(), false);
        main_loop.inventory.ask();
    };
    let start = Instant::now();
    ask(&mut main_loop);
    main_loop.receive_inventory(start);
    assert!(start.elapsed() >= INVENTORY_GRACE && !main_loop.inventory.is_done());
    // What an earlier gather has asked is not waited for.
    ask(&mut main_loop);
    assert!(main_loop.inventory.is_done());
    main_loop.on_message(reply());
    // This gather asks again, and the reply comes while it waits.
    ask(&mut main_loop);
    assert!(!main_loop.inventory.is_done());
    sender.send(reply()).unwrap();
    main_loop.receive_inventory(Instant::now());
    assert!(main_loop.inventory.is_done());
}

#[test]
fn a_gather_ends_by_its_deadline() {
    let (main_loop, _sender) = main_loop(Mode::Triggered);
    let start = Instant::now();
    assert_eq!(main_loop.limit(start, start), start + ms(8000));
    assert_eq!(main_loop.limit(start, start + ms(7999)), start + ms(8000));
}

#[test]
fn after_a_stop_a_gather_has_1300_ms_more() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    let start = Instant::now();
    main_loop.ending = Some(Ending::Stop(start + ms(1000)));
    assert_eq!(main_loop.limit(start, start), start + ms(2300));
    main_loop.ending = Some(Ending::Stop(start + ms(7000)));
    assert_eq!(
        main_loop.limit(start, start),
        start + ms(8000),
        "the deadline holds"
    );
}

#[test]
fn after_the_end_of_input_a_gather_goes_on_while_answers_come_but_not_for_ever() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    let start = Instant::now();
    main_loop.ending = Some(Ending::EndOfInput(start));
    (main_loop.answered, main_loop.opening) = (true, false);
    assert_eq!(main_loop.limit(start, start), start + ms(1500));
    assert_eq!(main_loop.limit(start, start + ms(1000)), start + ms(2500));
    let latest = main_loop.limit(start, start + ms(3000));
    assert_eq!(latest, start + ms(2600), "the pipe needs the rest of 4 s");
}

#[test]
fn before_libvirt_has_ever_answered_the_end_of_input_leaves_it_nearly_all_of_4_s() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    let start = Instant::now();
    main_loop.ending = Some(Ending::EndOfInput(start));
    assert_eq!(main_loop.limit(start, start), start + ms(3300));
    main_loop.answered = true;
    assert_eq!(main_loop.limit(start, start + ms(1000)), start + ms(2500));
    assert_eq!(main_loop.limit(start, start + ms(3000)), start + ms(3300));
}

#[test]
fn a_stop_is_stronger_than_the_end_of_input_and_counts_from_the_first() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    main_loop.on_message(Message::Trigger(Trigger::EndOfInput));
    let Some(Ending::EndOfInput(ended)) = main_loop.ending else {
        panic!("{:?}", main_loop.ending);
    };
    std::thread::sleep(ms(2));
    main_loop.on_message(Message::Trigger(Trigger::EndOfInput));
    assert!(matches!(main_loop.ending, Some(Ending::EndOfInput(at)) if at == ended));
    main_loop.on_message(Message::Trigger(Trigger::Stop));
    let Some(Ending::Stop(stopped)) = main_loop.ending else {
        panic!("{:?}", main_loop.ending);
    };
    std::thread::sleep(ms(2));
    main_loop.on_message(Message::Trigger(Trigger::Stop));
    main_loop.on_message(Message::Trigger(Trigger::EndOfInput));
    assert!(matches!(main_loop.ending, Some(Ending::Stop(at)) if at == stopped));
}

#[test]
fn newlines_fold_into_one_gather_and_are_answered_before_the_end() {
    let (mut main_loop, sender) = main_loop(Mode::Triggered);
    assert!(!main_loop.pending);
    for trigger in [Trigger::Gather, Trigger::Gather, Trigger::EndOfInput] {
        sender.send(Message::Trigger(trigger)).unwrap();
    }
    main_loop.wait(Instant::now());
    assert!(std::mem::take(&mut main_loop.pending) && main_loop.ending.is_none());
    // During that gather:
    while let Some(message) = main_loop.receive(Instant::now()) {
        main_loop.on_message(message);
    }
    assert!(main_loop.pending, "one more");
    assert!(main_loop.ending.is_some());
}

#[test]
fn once_and_the_interval_gather_at_once() {
    for (mode, pending) in [
        (Mode::Once, true),
        (Mode::Every(ms(10_000)), true),
        (Mode::Triggered, false),
    ] {
        assert_eq!(main_loop(mode).0.pending, pending, "{mode:?}");
    }
}

#[test]
fn the_interval_waits_until_its_tick_and_no_longer() {
    let (mut main_loop, _sender) = main_loop(Mode::Every(ms(50)));
    main_loop.pending = false;
    let start = Instant::now();
    main_loop.wait(start + ms(50));
    assert!(start.elapsed() >= ms(50));
}

#[test]
fn last_lines_are_those_of_runs_that_had_lines_and_of_the_measurements_that_are_wanted() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    let domain = |id| DomainRef {
        run: run(id),
        name: "test".into(),
    };
    let report = GatherReport {
        ended: vec![EndedRun::new(domain(1), 4), EndedRun::new(domain(2), 3)],
        ..GatherReport::default()
    };
    // The VM was started again: the first run had lines, the second had none, and the third has.
    for id in [1, 3] {
        let mut sample = full(Instant::now());
        sample.run = run(id);
        main_loop.history.update(&sample);
    }
    let tags = format!("VMID=1,name=test,uuid={}", run(1).uuid);
    let metrics = format!("vm_metrics,{tags} state=\"shutoff\",state_reason=\"migrated\" 7\n");
    let totals = format!("vm_totals,{tags} state=5i,state_reason=4i 7\n");
    for (wants_metrics, wants_totals) in [(true, true), (true, false), (false, true)] {
        let wanted = &mut main_loop.settings.measurements;
        (wanted.metrics, wanted.totals) = (wants_metrics, wants_totals);
        main_loop.buffer.clear();
        main_loop.write_last_lines(&report, 7);
        let mut expected = String::new();
        expected += if wants_metrics { &metrics } else { "" };
        expected += if wants_totals { &totals } else { "" };
        assert_eq!(main_loop.buffer, expected);
    }
}

#[test]
fn no_request_is_told_once_and_is_no_end() {
    let (mut main_loop, sender) = main_loop(Mode::Triggered);
    assert!(main_loop.unasked.is_some());
    main_loop.unasked = Some(Instant::now());
    let later = std::thread::spawn(move || {
        std::thread::sleep(ms(50));
        sender.send(Message::Trigger(Trigger::Gather)).unwrap();
        sender
    });
    main_loop.wait(Instant::now());
    assert!(main_loop.pending && main_loop.unasked.is_none());
    later.join().unwrap();
    // Once a request has come, nothing is said.
    let (mut main_loop, sender) = super::tests::main_loop(Mode::Triggered);
    sender.send(Message::Trigger(Trigger::Gather)).unwrap();
    main_loop.wait(Instant::now());
    assert!(main_loop.pending && main_loop.unasked.is_none());
    for mode in [Mode::Once, Mode::Every(ms(1000))] {
        assert!(super::tests::main_loop(mode).0.unasked.is_none());
    }
}

#[test]
fn what_max_lines_leaves_out_of_vm_info_is_due_again() {
    let (mut main_loop, _sender) = main_loop(Mode::Triggered);
    main_loop.settings.measurements.info = true;
    let mut sample = full(Instant::now());
    let description = Description::parse_with("<domain><title>a</title></domain>", &[], true);
    sample.info = description.unwrap().info;
    let mut gather = |max: Option<usize>| {
        main_loop.line_cap = max.map(LineCap::new);
        main_loop.buffer.clear();
        main_loop.write(&sample, 7);
        main_loop.limit_lines(true);
        let dropped = main_loop.capped.as_ref().map(|capped| capped.lines_dropped);
        (dropped, main_loop.buffer.matches("vm_info,").count())
    };
    for _ in 0..2 {
        assert_eq!(gather(Some(1)), (Some(3), 0));
    }
    assert_eq!(gather(Some(100)), (Some(0), 1));
    assert_eq!(gather(None), (None, 0), "it was written");
}

#[test]
fn vms_without_guest_memory_are_kept_only_where_somebody_is_told_of_them() {
    let mut sample = full(Instant::now());
    (sample.memory.available, sample.memory.usable) = (None, None);
    for (mode, kept) in [(Mode::Triggered, 0), (Mode::Check, 1)] {
        let (mut main_loop, _sender) = main_loop(mode);
        main_loop.write(&sample, 7);
        assert_eq!(main_loop.without_guest_memory.len(), kept, "{mode:?}");
    }
}
