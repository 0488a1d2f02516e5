use super::*;
use crate::sample::testing::{full, run};

const S: Duration = Duration::from_secs(1);
const HOUR: u64 = 3_600;

/// A sample of this moment whose guest reported at `last_update`.
fn sample(at: Instant, last_update: u64) -> Sample {
    let mut sample = full(at);
    sample.state = Some(1);
    sample.memory.last_update = Some(last_update);
    sample
}

fn moment(now: Instant, wall: u64, period: u64) -> Moment {
    Moment {
        now,
        wall,
        period,
        uptime: Duration::from_secs(HOUR),
    }
}

/// The seconds after which libvirt is asked again, when a guest that reported at 1,000 is asked at 1,001; `None`: not within an hour.
fn asked_after(balloon: &VmBalloon, began: Instant, period: u64) -> Option<u64> {
    (0..HOUR).find(|after| {
        let now = began + S * u32::try_from(*after).unwrap();
        let moment = moment(now, 1_001 + after, period);
        balloon.memory(run(1).uuid, moment).is_none()
    })
}

#[test]
fn a_guest_without_a_period_is_asked_about_once_a_minute() {
    let began = Instant::now();
    let mut balloon = VmBalloon::default();
    assert_eq!(asked_after(&balloon, began, 0), Some(0), "never asked");
    assert!(!balloon.report(&sample(began, 1_000), 0, 1_001));
    assert_eq!(
        balloon.memory(run(1).uuid, moment(began, 1_001, 0)),
        Some(sample(began, 1_000).memory)
    );
    let again = asked_after(&balloon, began, 0).unwrap();
    assert!((46..=55).contains(&again), "{again}");
    // Not all VMs in the same gather.
    let asked = |number: u128, after: u32| {
        let moment = moment(began + S * after, 1_050, 0);
        balloon.memory(Uuid::from_u128(number), moment).is_none()
    };
    assert_eq!((0..10).filter(|number| asked(*number, 50)).count(), 5);
}

#[test]
fn a_guest_with_a_period_is_asked_when_it_may_have_reported() {
    let began = Instant::now();
    for (period, expected) in [(1, 0), (3, 0), (10, 7), (30, 27), (86_400, 51)] {
        let mut balloon = VmBalloon::default();
        balloon.report(&sample(began, 1_000), period, 1_001);
        let asked = asked_after(&balloon, began, period).unwrap();
        let spread = if period > 60 { 4 } else { 0 };
        assert!(asked.abs_diff(expected) <= spread, "{period}: {asked}");
    }
    // A guest that never reported may do so at any time.
    let mut balloon = VmBalloon::default();
    balloon.report(&sample(began, 0), 30, 1_001);
    assert_eq!(asked_after(&balloon, began, 30), Some(0));
}

#[test]
fn a_period_that_became_shorter_is_noticed_within_a_minute() {
    let began = Instant::now();
    let mut balloon = VmBalloon::default();
    balloon.report(&sample(began, 1_000), 30, 1_001);
    // The guest reports in each second. Reports that are due do not show it.
    let mut told = None;
    for after in 1..=60 {
        let (now, wall) = (began + S * after, 1_001 + u64::from(after));
        if balloon.memory(run(1).uuid, moment(now, wall, 30)).is_none()
            && balloon.report(&sample(now, wall - 1), 30, wall)
        {
            told = Some(after);
            break;
        }
    }
    let told = told.expect("the XML is to be read again");
    assert!(told <= 56, "{told}");
    // Until the XML has told the period, libvirt is asked in each gather, and the XML is read once.
    let (now, wall) = (began + S * (told + 1), 1_002 + u64::from(told));
    assert_eq!(balloon.memory(run(1).uuid, moment(now, wall, 30)), None);
    assert!(!balloon.report(&sample(now, wall), 30, wall));
}

#[test]
fn a_paused_guest_does_not_report() {
    let began = Instant::now();
    let mut paused = sample(began, 1_000);
    paused.state = Some(PAUSED);
    let mut balloon = VmBalloon::default();
    balloon.report(&paused, 1, 1_001);
    assert!(asked_after(&balloon, began, 1).unwrap() > 40);
    balloon.on_change(began + S);
    assert_eq!(asked_after(&balloon, began, 1), Some(0), "it goes on");
}

#[test]
fn events_and_young_guests_are_asked_for_at_once() {
    let began = Instant::now();
    let kept = || {
        let mut balloon = VmBalloon::default();
        balloon.report(&sample(began, 0), 0, 1_001);
        balloon
    };
    let later = moment(began + S, 1_002, 0);
    assert!(kept().memory(run(1).uuid, later).is_some());
    let young = Moment {
        uptime: GUEST_STARTS - S,
        ..later
    };
    assert_eq!(kept().memory(run(1).uuid, young), None);
    for happens in [VmBalloon::on_change, VmBalloon::on_reset] {
        let mut balloon = kept();
        happens(&mut balloon, began + S);
        assert_eq!(balloon.memory(run(1).uuid, later), None);
    }
    let mut balloon = kept();
    balloon.on_change(began);
    balloon.forget();
    assert_eq!(balloon.memory(run(1).uuid, later), None);
}

#[test]
fn without_counters_of_a_disk_or_without_the_monitor_nothing_is_kept() {
    let began = Instant::now();
    let later = moment(began + S, 1_002, 0);
    let mut diskless = sample(began, 0);
    diskless.disks = None;
    let mut passed_by = sample(began, 0);
    passed_by.memory.rss = None;
    for sample in [diskless, passed_by] {
        let mut balloon = VmBalloon::default();
        balloon.report(&sample, 0, 1_001);
        assert_eq!(balloon.memory(run(1).uuid, later), None);
    }
}
