//! The times that depend on each other. The test below holds their inequalities.

use std::time::Duration;

// How long a gather waits for what the kernel says of the host.

/// How long the host's report waits for QEMU processes to be found. A slower scan of /proc goes on by itself.
pub const PROCESS_SCAN: Duration = Duration::from_millis(300);
/// A scan that takes longer than this for one command line counts as hanging.
pub const SCAN_HANGS: Duration = Duration::from_millis(100);
/// Between the two readings of a process that is in uninterruptible sleep.
pub const PROCESS_RECHECK: Duration = Duration::from_millis(50);
/// How long the host's report waits for all mounts: a loaded NFS, sshfs or Ceph may take 60 ms.
pub const MOUNT_ANSWERS: Duration = Duration::from_millis(150);
/// How long the host's report waits until paths over local file systems are resolved, which is done in the
/// first gather and once a minute. A local disk answers at once or is dead, but on a busy host the process
/// that resolves them may get the CPU late.
pub const LOCAL_PATHS: Duration = Duration::from_millis(500);
/// How long a gather waits for the host's report before it goes on without. This is longer than the report
/// itself waits for anything, so that it comes just when mounts hang or the host is busy: without it VMs
/// lose their disks from libvirt 11.4 on.
pub const HOST_CHECK: Duration = Duration::from_millis(1100);

/// The default of the key `deadline`.
pub const DEADLINE: Duration = Duration::from_secs(8);

// Calls to libvirt.

/// A call that has not returned after this time is diagnosed.
pub const STALL: Duration = Duration::from_millis(250);
/// How far a time that libvirt has measured may be off: clocks differ, and a busy host schedules late.
pub const STALL_SLACK: Duration = Duration::from_millis(100);
/// An opening that fails within this time is tried again, but no more than twice.
pub const QUICK_FAILURE: Duration = Duration::from_millis(100);
/// A client that has used a domain's monitor for so long may go on doing so. The domain's XML is not asked
/// for then, since that would wait. A call of ours that waits all the same is diagnosed after [`STALL`].
pub const MONITOR_HELD: Duration = Duration::from_millis(100);
/// How often a gather reads what libraries print, while it waits. libvirt may wait for room in their pipe
/// (LIBVIRT_LOG_OUTPUTS=1:file:/dev/stderr).
pub const LIBRARY_OUTPUT: Duration = Duration::from_millis(100);

/// How long after its beginning a gather waits for domains that it found locked, and for calls that it
/// abandoned: they may only be slow.
pub const GRACE: Duration = Duration::from_millis(600);
/// How long after it was sent a call that was abandoned may come past its other domains. They are not asked by extra calls
/// meanwhile: of two calls that ask a domain at the same moment, libvirt passes its monitor by in one.
pub const COMES_PAST: Duration = Duration::from_secs(1);
/// The same as [`GRACE`] where the daemon may just have been started.
pub const GRACE_AFTER_START: Duration = Duration::from_secs(3);
/// How long a daemon that seems to have no worker to spare may still prove the contrary.
pub const SATURATION_RECHECK: Duration = Duration::from_secs(1);
/// A worker that has been busy with one request for so long hangs: another may take its place.
pub const WORKER_HANGS: Duration = Duration::from_secs(1);
/// A worker that libvirtd has not let in for so long after it answered another one waits because of `max_clients`.
pub const NOT_LET_IN: Duration = Duration::from_secs(5);
/// The same where the hypervisor is another host: connect() repeats what was lost on the way after 1, 3, 7, 15, 31 and 63 s.
pub const NOT_LET_IN_AFAR: Duration = Duration::from_secs(130);
/// How long no more connections are tried after that.
pub const CONNECTIONS_SCARCE: Duration = Duration::from_secs(3600);

// What is asked beside the gather.

/// How long after it has asked for what comes beside the VMs (shut-off VMs, the node, storage pools) a gather whose VMs are
/// done waits for it. They take some ten milliseconds; what comes later is written in the next gather.
pub const INVENTORY_GRACE: Duration = Duration::from_millis(300);
/// A call for a storage pool that has not returned after this time is left to hang, and the other pools are asked without it.
pub const POOL_ANSWERS: Duration = Duration::from_secs(1);

// The end of the process. The gather under way gets its grace, then the reader of stdout gets time to read,
// then connections are closed, then the readers of both pipes get time to see the end.

/// How long the closing of connections may take.
pub const CLOSE: Duration = Duration::from_millis(100);
/// How long after that the last call on the connection for events may take.
pub const LAST_CALL: Duration = Duration::from_millis(100);
/// Between the closing of stdout and stderr and the end of the process: the shortest time in which Telegraf
/// lost nothing of what it had read but not parsed.
pub const SETTLE: Duration = Duration::from_millis(100);
/// How long a reader may take at the most for what is left in a pipe.
pub const LONGEST_DRAIN: Duration = Duration::from_secs(1);
/// How long the reader of stderr may take for the message of a program that fails.
pub const FAILURE_DRAIN: Duration = Duration::from_millis(500);

/// How long the gather under way goes on after SIGTERM or SIGINT.
pub const STOP_GRACE: Duration = Duration::from_millis(1300);
/// How long the reader of stdout may take after [`STOP_GRACE`].
pub const STOP_DRAIN: Duration = Duration::from_millis(200);
/// So long after SIGTERM or SIGINT the process ends whatever its threads wait for.
pub const STOP_FORCED: Duration = Duration::from_millis(1800);
/// What is promised: so long after SIGTERM or SIGINT the process has ended.
#[cfg(test)]
pub const STOP: Duration = Duration::from_secs(2);

/// After the end of input a gather goes on for as long as the last reply is younger than this.
pub const END_PATIENCE: Duration = Duration::from_millis(1500);
/// How long a gather goes on after the end of input at the most.
pub const END_GRACE: Duration = Duration::from_millis(2600);
/// How long the first gather goes on after the end of input, whether replies come or not: opening a connection
/// may take seconds. It may take some of [`END_DRAIN`], for what is written so late may be little.
pub const END_FIRST_GRACE: Duration = Duration::from_millis(3300);
/// How long the reader of stdout may take after [`END_GRACE`].
pub const END_DRAIN: Duration = Duration::from_millis(900);
/// So long after the end of input the process ends whatever its threads wait for.
pub const END_FORCED: Duration = Duration::from_millis(3850);
/// What is promised: so long after the end of input the process has ended. Telegraf sends SIGTERM after 5 s.
#[cfg(test)]
pub const END: Duration = Duration::from_secs(4);

/// A program that waits for requests, and has had none for this long after its start, says what may be wrong.
pub const FIRST_REQUEST: Duration = Duration::from_secs(60);

/// A configuration that has not been read after this time is worth a warning.
pub const SLOW_READ: Duration = Duration::from_secs(5);

#[cfg(test)]
mod tests {
    use super::*;

    /// What a busy machine may add to a time.
    const ROOM: Duration = Duration::from_millis(200);

    #[test]
    fn the_host_is_waited_for_longer_than_its_parts_may_take() {
        let parts = PROCESS_SCAN + PROCESS_RECHECK + MOUNT_ANSWERS.max(LOCAL_PATHS);
        assert!(parts + ROOM <= HOST_CHECK);
    }

    #[test]
    fn a_scan_that_hangs_is_known_before_it_is_waited_for_in_vain() {
        assert!(SCAN_HANGS < PROCESS_SCAN);
    }

    #[test]
    fn at_an_end_a_gather_asks_also_when_the_host_was_waited_for_in_vain() {
        assert!(HOST_CHECK + ROOM <= STOP_GRACE);
        assert!(HOST_CHECK + ROOM <= END_PATIENCE);
    }

    #[test]
    fn other_reasons_to_wait_are_known_before_a_call_of_ours_stalls() {
        assert!(MONITOR_HELD < STALL);
        assert!(LIBRARY_OUTPUT < STALL);
        assert!(STALL_SLACK < STALL / 2);
        assert!(QUICK_FAILURE * 2 < STALL);
    }

    #[test]
    fn a_stop_and_the_end_of_input_keep_their_time() {
        let stop = STOP_GRACE + STOP_DRAIN + CLOSE + LAST_CALL + SETTLE;
        assert!(stop <= STOP_FORCED && STOP_FORCED < STOP && stop + ROOM <= STOP);
        let end = END_GRACE + END_DRAIN + CLOSE + LAST_CALL + SETTLE;
        assert!(end <= END_FORCED && END_FORCED < END && end + ROOM <= END);
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
    fn what_is_asked_beside_the_gather_is_waited_for_less_than_what_may_only_be_slow() {
        assert!(INVENTORY_GRACE + ROOM <= GRACE);
        assert!(INVENTORY_GRACE < POOL_ANSWERS);
    }

    #[test]
    fn the_default_deadline_leaves_time_for_all_that_a_gather_may_wait_for() {
        assert!(HOST_CHECK <= DEADLINE / 2);
        assert!(HOST_CHECK + GRACE_AFTER_START + SATURATION_RECHECK + ROOM <= DEADLINE);
    }

    #[test]
    fn a_worker_is_given_up_as_not_let_in_long_after_its_request_was_taken_back() {
        assert!(STALL + ROOM < NOT_LET_IN && WORKER_HANGS < NOT_LET_IN);
        assert!(NOT_LET_IN < NOT_LET_IN_AFAR && NOT_LET_IN_AFAR < CONNECTIONS_SCARCE);
    }

    #[test]
    fn no_drain_is_cut_short() {
        let drains = [STOP_DRAIN, END_DRAIN, FAILURE_DRAIN];
        assert!(drains.iter().all(|drain| *drain <= LONGEST_DRAIN));
    }
}
