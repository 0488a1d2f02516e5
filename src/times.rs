//! Times that depend on each other, with a test of how.

use std::time::Duration;

/// All that a look at the host spends on finding QEMU processes. A slower scan goes on by itself.
pub const PROCESS_SCAN: Duration = Duration::from_millis(300);
/// Between the two looks at a process in uninterruptible sleep.
pub const PROCESS_RECHECK: Duration = Duration::from_millis(50);
/// All that a look at the host waits for mounts: a loaded NFS, sshfs or Ceph may take 60 ms.
pub const MOUNT_ANSWERS: Duration = Duration::from_millis(150);
/// All that a look at the host waits for the ways of paths over local file systems, which are followed
/// at the first look and once a minute. A local disk answers at once, or is dead; a busy host gives the
/// process that follows them its processor late.
pub const LOCAL_PATHS: Duration = Duration::from_millis(500);
/// How long a gather waits for the look at the host before it goes on without: longer than all
/// that the look waits for, so that it is there just when things hang, or the processor is late:
/// without a look VMs lose their disks from libvirt 11.4 on.
pub const HOST_LOOK: Duration = Duration::from_millis(1100);

/// A call that has brought nothing for so long is looked into.
pub const STALL: Duration = Duration::from_millis(250);
/// Whoever has had a domain's monitor for so long may go on having it: its XML is not asked for,
/// for that would wait. A call of ours that does so all the same is found out after [`STALL`].
pub const MONITOR_HELD: Duration = Duration::from_millis(100);

/// How long after its beginning a gather waits for domains that it found locked, and for calls that it
/// abandoned: they may only be slow.
pub const GRACE: Duration = Duration::from_millis(600);
/// The same where the daemon may just have been started.
pub const GRACE_AFTER_START: Duration = Duration::from_secs(3);
/// How long a daemon that seems to have no worker to spare may still prove the contrary.
pub const SATURATION_RECHECK: Duration = Duration::from_secs(1);
/// A worker that has been busy with one request for so long hangs: another may take its place.
pub const WORKER_HANGS: Duration = Duration::from_secs(1);
/// A worker that libvirtd has not let in for so long waits because of `max_clients`.
pub const NOT_LET_IN: Duration = Duration::from_secs(5);
/// How long no more connections are tried after that.
pub const CONNECTIONS_SCARCE: Duration = Duration::from_secs(3600);

/// How long the closing of connections may take at the end.
pub const CLOSE: Duration = Duration::from_millis(100);

/// After SIGTERM the gather in hand goes on for so long,
pub const STOP_GRACE: Duration = Duration::from_millis(1300);
/// and what was written may be read for so long.
pub const STOP_DRAIN: Duration = Duration::from_millis(200);
/// What is promised of a stop.
pub const STOP: Duration = Duration::from_secs(2);

/// After the end of input a gather goes on while the last answer is younger than this,
pub const END_PATIENCE: Duration = Duration::from_millis(1500);
/// and for so long at the most;
pub const END_GRACE: Duration = Duration::from_millis(2700);
/// where libvirt has never answered before, for so long whether answers come or not: opening may take
/// seconds, and what is written last may be little.
pub const END_FIRST_GRACE: Duration = Duration::from_millis(3400);
/// What was written may be read for so long after [`END_GRACE`].
pub const END_DRAIN: Duration = Duration::from_millis(900);
/// What is promised of the end of input: Telegraf sends SIGTERM after 5 s.
pub const END: Duration = Duration::from_secs(4);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a busy machine may add to a time.
    const ROOM: Duration = Duration::from_millis(200);

    #[test]
    fn the_host_is_waited_for_longer_than_its_parts_may_take() {
        let parts = PROCESS_SCAN + PROCESS_RECHECK + MOUNT_ANSWERS.max(LOCAL_PATHS);
        assert!(parts + ROOM <= HOST_LOOK);
    }

    #[test]
    fn at_an_end_a_gather_asks_also_when_the_host_was_waited_for_in_vain() {
        assert!(HOST_LOOK + ROOM <= STOP_GRACE);
        assert!(HOST_LOOK + ROOM <= END_PATIENCE);
    }

    #[test]
    fn what_is_left_to_others_is_known_before_a_call_of_ours_stalls() {
        assert!(MONITOR_HELD < STALL);
    }

    #[test]
    fn a_stop_and_the_end_of_input_keep_their_time() {
        assert!(STOP_GRACE + STOP_DRAIN + CLOSE + ROOM <= STOP);
        assert!(END_GRACE + END_DRAIN + CLOSE + ROOM <= END);
        assert!(END_PATIENCE <= END_GRACE && END_GRACE <= END_FIRST_GRACE);
        assert!(END_FIRST_GRACE + STOP_DRAIN <= END_GRACE + END_DRAIN);
    }

    #[test]
    fn what_is_waited_for_has_time_to_stall_and_to_be_probed() {
        let found_out = STALL + STALL / 2;
        assert!(found_out + ROOM <= GRACE && GRACE < GRACE_AFTER_START);
        assert!(found_out + ROOM <= SATURATION_RECHECK);
        assert!(found_out + ROOM <= WORKER_HANGS);
    }

    #[test]
    fn a_worker_is_given_up_as_not_let_in_long_after_its_request_was_taken_back() {
        assert!(STALL + ROOM < NOT_LET_IN && WORKER_HANGS < NOT_LET_IN);
        assert!(NOT_LET_IN < CONNECTIONS_SCARCE);
    }
}
