use std::io::{self, Write};

use super::*;

/// One check, in which the checker writes these bytes, if any.
fn check(state: &mut MountState, written: Option<(&mut io::PipeWriter, &[u8])>) -> Health {
    state.begin_check();
    state.send_next();
    if let Some((results, bytes)) = written {
        results.write_all(bytes).unwrap();
        state.receive();
        state.send_next();
    }
    state.health()
}

#[test]
fn an_unanswered_check_makes_the_mount_dead_until_it_answers_in_time() {
    let (checker, _requests, mut results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    assert_eq!(
        check(&mut state, Some((&mut results, b"A\0"))),
        Health::Alive
    );
    assert_eq!(check(&mut state, None), Health::Late);
    assert!(state.is_waited_for());
    for _ in 0..3 {
        assert_eq!(check(&mut state, None), Health::Dead);
        assert!(state.is_busy() && !state.is_waited_for());
    }
    // An outdated answer says nothing about the present.
    assert_eq!(
        check(&mut state, Some((&mut results, b"A\0"))),
        Health::Dead
    );
    assert!(state.is_waited_for(), "checked again");
    results.write_all(b"A\0").unwrap();
    state.receive();
    assert_eq!(state.health(), Health::Alive);
    assert_eq!(check(&mut state, None), Health::Late, "a new problem");
}

/// Loaded storage may take 60 ms each time. Its disks are then read one by one, without a warning.
#[test]
fn an_answer_between_two_checks_is_an_answer() {
    let (checker, _requests, mut results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    for _ in 0..4 {
        assert_eq!(check(&mut state, None), Health::Late);
        results.write_all(b"A\0").unwrap();
    }
    assert_eq!(check(&mut state, None), Health::Late);
    assert_eq!(check(&mut state, None), Health::Dead);
    // It answers the request of the check before the last, then that of the last one.
    results.write_all(b"A\0").unwrap();
    assert_eq!(check(&mut state, None), Health::Dead);
    results.write_all(b"A\0").unwrap();
    assert_eq!(check(&mut state, None), Health::Late);
    results.write_all(b"D\0").unwrap();
    assert_eq!(check(&mut state, None), Health::Dead, "it reported so");
}

#[test]
fn storage_that_reports_that_it_is_dead_is_dead_at_once() {
    let (checker, _requests, mut results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    for (written, health) in [
        (b"D\0", Health::Dead),
        (b"U\0", Health::Unknown),
        (b"D\0", Health::Dead),
        (b"A\0", Health::Alive),
    ] {
        assert_eq!(check(&mut state, Some((&mut results, written))), health);
    }
}

#[test]
fn a_mount_is_not_back_because_its_checker_was_killed() {
    let (checker, _requests, results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    check(&mut state, None);
    assert_eq!(check(&mut state, None), Health::Dead);
    drop(results);
    state.receive();
    assert!(state.has_checker_ended() && !state.is_busy());
    assert_eq!(state.health(), Health::Dead);
    let (checker, _requests, mut results) = Checker::with_pipes();
    state.replace(checker);
    assert_eq!(
        check(&mut state, None),
        Health::Dead,
        "nothing is known yet"
    );
    check(&mut state, Some((&mut results, b"A\0")));
    results.write_all(b"A\0").unwrap();
    state.receive();
    assert_eq!(state.health(), Health::Alive);
}

#[test]
fn bytes_without_an_end_are_not_read_for_ever() {
    let (checker, _requests, mut results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    check(&mut state, None);
    results.write_all(&[b'y'; 20_000]).unwrap();
    state.begin_check();
    assert!(state.has_checker_ended() && !state.is_busy());
}

#[test]
fn a_checker_that_ends_leaves_the_mount_unknown() {
    let (checker, requests, results) = Checker::with_pipes();
    let mut state = MountState::new(checker);
    drop((requests, results));
    assert_eq!(check(&mut state, None), Health::Unknown);
    assert!(state.has_checker_ended());
}
