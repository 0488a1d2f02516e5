use super::*;
use crate::sample::testing::{full, run};

const S: Duration = Duration::from_secs(1);
const HOUR: Duration = Duration::from_secs(3_600);

/// A sample of a guest that reported at `last_update`, so many seconds before libvirt was asked.
fn sample(asked_at: Instant, last_update: u64, age: u64) -> Sample {
    let mut sample = full(asked_at);
    sample.state = Some(1);
    sample.memory.last_update = Some(last_update);
    sample.memory.report_age = (last_update > 0).then_some(age);
    sample
}

fn moment(now: Instant, period: u64) -> Moment {
    Moment {
        now,
        period: Duration::from_secs(period),
        running: HOUR,
    }
}

/// What is known after this sample.
fn after(sample: &Sample, period: u64) -> VmBalloon {
    let mut balloon = VmBalloon::default();
    assert!(!balloon.report(sample, moment(sample.memory.asked_at, period)));
    balloon
}

fn asks(balloon: &VmBalloon, moment: Moment) -> bool {
    balloon.memory(run(1).uuid, moment).is_none()
}

/// The seconds after which libvirt is asked again.
fn asked_after(balloon: &VmBalloon, began: Instant, period: u64) -> u32 {
    let asks = |after: &u32| asks(balloon, moment(began + S * *after, period));
    (0..3_600).find(asks).unwrap()
}

#[test]
fn a_guest_without_a_period_is_asked_about_once_a_minute() {
    let began = Instant::now();
    assert!(asks(&VmBalloon::default(), moment(began, 0)), "never asked");
    let sample = sample(began, 1_000, 1);
    let balloon = after(&sample, 0);
    assert_eq!(
        balloon.memory(run(1).uuid, moment(began, 0)),
        Some(sample.memory)
    );
    let again = asked_after(&balloon, began, 0);
    assert!((46..=55).contains(&again), "{again}");
    // Not all VMs in the same gather.
    let asked = |number: u128, after: u32| {
        let moment = moment(began + S * after, 0);
        balloon.memory(Uuid::from_u128(number), moment).is_none()
    };
    assert_eq!((0..10).filter(|number| asked(*number, 50)).count(), 5);
}

#[test]
fn a_guest_with_a_period_is_asked_when_it_may_have_reported() {
    let began = Instant::now();
    for (period, expected) in [(1, 0), (3, 0), (10, 7), (30, 27), (86_400, 51)] {
        let balloon = after(&sample(began, 1_000, 1), period);
        let asked = asked_after(&balloon, began, period);
        let spread = if period > 60 { 4 } else { 0 };
        assert!(asked.abs_diff(expected) <= spread, "{period}: {asked}");
    }
    // A guest that never reported may do so at any time.
    assert_eq!(asked_after(&after(&sample(began, 0, 0), 30), began, 30), 0);
}

#[test]
fn a_period_that_became_shorter_is_noticed_within_a_minute() {
    let began = Instant::now();
    let mut balloon = after(&sample(began, 1_000, 1), 30);
    // The guest reports in each second. Reports that are due do not show it.
    let mut told = None;
    for after in 1..=60 {
        let now = began + S * after;
        if asks(&balloon, moment(now, 30))
            && balloon.report(&sample(now, 1_000 + u64::from(after), 1), moment(now, 30))
        {
            told = Some(after);
            break;
        }
    }
    let told = told.expect("the XML is to be read again");
    assert!(told <= 56, "{told}");
    // Until the XML has told the period, libvirt is asked in each gather, and the XML is read once.
    let now = began + S * (told + 1);
    assert!(asks(&balloon, moment(now, 30)));
    assert!(!balloon.report(&sample(now, 1_002 + u64::from(told), 0), moment(now, 30)));
}

/// Where each ask is due by the old period, only the time between two reports shows it.
#[test]
fn a_period_that_became_a_little_shorter_is_noticed_by_the_second_report() {
    let began = Instant::now();
    let mut balloon = after(&sample(began, 1_000, 0), 80);
    let mut told = None;
    for after in (5..1_000).step_by(10) {
        let now = began + S * after;
        let (report, age) = (1_000 + u64::from(after / 70 * 70), u64::from(after % 70));
        if asks(&balloon, moment(now, 80))
            && balloon.report(&sample(now, report, age), moment(now, 80))
        {
            told = Some(after);
            break;
        }
    }
    assert!(told.is_some_and(|told| told <= 2 * 80), "{told:?}");
}

/// A report that is asked for twice is as old as it was, and the time between.
#[test]
fn a_clock_that_is_set_back_makes_no_report_younger() {
    let began = Instant::now();
    let mut balloon = after(&sample(began, 1_000, 20), 60);
    balloon.on_change(began + S);
    balloon.report(
        &sample(began + S * 10, 1_000, 0),
        moment(began + S * 10, 60),
    );
    let asked = asked_after(&balloon, began, 60);
    assert_eq!(asked, 38);
}

#[test]
fn a_guest_at_rest_does_not_report() {
    let began = Instant::now();
    for state in AT_REST {
        let mut resting = sample(began, 1_000, 1);
        resting.state = Some(state);
        let mut balloon = after(&resting, 1);
        assert!(asked_after(&balloon, began, 1) > 40, "{state}");
        balloon.on_start(began + S);
        assert_eq!(asked_after(&balloon, began, 1), 0, "it goes on");
        // What it reports then does not mean another period.
        let now = began + S * 2;
        assert!(!balloon.report(&sample(now, 1_005, 0), moment(now, 0)));
    }
}

#[test]
fn a_guest_that_comes_to_rest_after_long_is_asked_about_once_a_minute() {
    let began = Instant::now();
    let mut balloon = after(&sample(began, 1_000, 0), 1);
    for after in 1..100 {
        let now = began + S * after;
        assert!(asks(&balloon, moment(now, 1)));
        balloon.report(&sample(now, 1_000 + u64::from(after), 0), moment(now, 1));
    }
    let mut asked = 0;
    for after in 100..220 {
        let now = began + S * after;
        if asks(&balloon, moment(now, 1)) {
            asked += 1;
            let mut resting = sample(now, 1_099, u64::from(after) - 99);
            resting.state = Some(AT_REST[0]);
            balloon.report(&resting, moment(now, 1));
        }
    }
    assert!((3..=5).contains(&asked), "{asked}");
}

/// A VM may be created paused, and its driver starts when it is resumed, long after QEMU.
#[test]
fn events_and_guests_that_start_are_asked_for_at_once() {
    let began = Instant::now();
    let kept = || after(&sample(began, 0, 0), 0);
    let later = moment(began + S * 2, 0);
    assert!(!asks(&kept(), later));
    // Also where it was in its first minutes when it was asked, and is no more.
    for running in [S, GUEST_STARTS - S, GUEST_STARTS + S] {
        assert!(asks(&kept(), Moment { running, ..later }));
    }
    let running = GUEST_STARTS + S * 2;
    assert!(!asks(&kept(), Moment { running, ..later }));
    // The event may have come while the call was made, which the reply need not show.
    for happens in [VmBalloon::on_change, VmBalloon::on_start] {
        for at in [began, began + S] {
            let mut balloon = kept();
            happens(&mut balloon, at);
            assert!(asks(&balloon, later));
        }
    }
    // Once the figures were asked for again, a change is over, and a start goes on.
    let mut again = kept();
    again.on_change(began + S);
    again.report(&sample(began + S * 2, 0, 0), later);
    assert!(!asks(&again, moment(began + S * 3, 0)));
    again.on_start(began + S * 3);
    again.report(&sample(began + S * 4, 0, 0), moment(began + S * 4, 0));
    assert!(asks(&again, moment(began + S * 5, 0)));
    let first = sample(began + S * 6, 1_006, 0);
    assert!(
        !again.report(&first, moment(began + S * 6, 0)),
        "no other period"
    );
    assert!(asks(&again, moment(began + GUEST_STARTS, 0)));
    // The last of its first minutes was asked for, and the minute is over.
    for after in [3, 4] {
        let now = began + GUEST_STARTS + S * after;
        assert!(asks(&again, moment(now, 0)));
        again.report(&sample(now, 1_006, 294 + u64::from(after)), moment(now, 0));
    }
    assert!(!asks(&again, moment(began + GUEST_STARTS + S * 5, 0)));
    let mut balloon = kept();
    balloon.forget();
    assert!(asks(&balloon, later));
}

#[test]
fn the_same_figures_again_do_not_count_as_asked_for() {
    let began = Instant::now();
    let mut balloon = after(&sample(began, 1_000, 1), 0);
    for after in 1..50 {
        let now = began + S * after;
        let mut kept = sample(began, 1_000, 1);
        kept.memory.at = now;
        balloon.report(&kept, moment(now, 0));
    }
    assert!((46..=55).contains(&asked_after(&balloon, began, 0)));
}

#[test]
fn without_counters_of_a_disk_or_without_the_monitor_nothing_is_kept() {
    let began = Instant::now();
    let mut diskless = sample(began, 0, 0);
    diskless.disks = None;
    let mut passed_by = sample(began, 0, 0);
    passed_by.memory.rss = None;
    for sample in [diskless, passed_by] {
        assert!(asks(&after(&sample, 0), moment(began + S, 0)));
    }
}
