//! Whether the memory figures of a VM can have changed since libvirt was asked for them.
//!
//! Of the balloon group, `current` and `maximum` change with an event (the balloon's, or that of a device), and the resident
//! size is on this host. The guest's own figures change when the guest reports: once when its driver starts, and then only
//! where a period is set (balloon_stats_poll_cb in QEMU's hw/virtio/virtio-balloon.c). The XML has the period, but no event
//! tells of a new one (`virsh dommemstat --period`). So libvirt is asked when a report may have come, and otherwise about
//! once a minute.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use uuid::Uuid;

use super::{VmRecord, Vms};
use crate::sample::{Memory, Sample};

/// For so long after a guest was started or reset, its driver may start and report at any time.
const GUEST_STARTS: Duration = Duration::from_secs(300);
/// At this age at the latest, what libvirt gave is asked for again although no report is due. With an interval of 10 s, that is
/// once a minute.
const OLDEST: Duration = Duration::from_secs(55);
/// VMs whose figures came at the same time are asked again in different gathers, within so many seconds.
const SPREAD: u128 = 10;
/// The time of a report is in whole seconds, and a gather goes on for a while after it was decided what to ask.
const MARGIN: u64 = 2;

/// virDomainState: paused.
const PAUSED: i32 = 3;

/// What decides whether the figures can have changed, beside them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// s since 1970.
    pub(super) wall: u64,
    /// How often the guest reports by the XML, s; 0: never.
    pub(super) period: u64,
    /// How long ago QEMU was started.
    pub(super) uptime: Duration,
}

/// What libvirt gave in one run of a VM.
#[derive(Debug, Default)]
pub(super) struct VmBalloon {
    kept: Option<Kept>,
    /// When an event last told that figures may have changed.
    changed: Option<Instant>,
    /// When the guest was last reset.
    reset: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    memory: Memory,
    /// When libvirt was last asked although no report was due.
    checked_at: Instant,
    /// A report came that was not due: the guest reports more often than is known.
    reports: bool,
    /// The VM was paused, so its guest could not report.
    paused: bool,
}

impl Kept {
    /// Whether the guest may have reported again, by the period.
    fn is_due(&self, period: u64, wall: u64) -> bool {
        let last = self.memory.last_update.unwrap_or(0);
        let is_time = last == 0 || wall + MARGIN >= last.saturating_add(period);
        period > 0 && !self.paused && is_time
    }
}

impl VmBalloon {
    /// Something happened after which the figures may be others.
    pub(super) fn on_change(&mut self, at: Instant) {
        self.changed = Some(at);
    }

    pub(super) fn on_reset(&mut self, at: Instant) {
        self.reset = Some(at);
    }

    /// What libvirt gave may not hold.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// A full sample with figures of this gather. Returns whether a report came that was not due: the XML may have another
    /// period by now.
    pub(super) fn report(&mut self, sample: &Sample, period: u64, wall: u64) -> bool {
        let memory = sample.memory;
        let mut disks = sample.disks.iter().flat_map(|disks| &disks.list);
        // Without counters of a disk, nothing else would show that QEMU answers.
        if memory.rss.is_none() || !disks.any(|disk| disk.counters.iter().any(Option::is_some)) {
            self.kept = None;
            return false;
        }
        let before = self.kept.as_ref();
        let is_due = before.is_some_and(|before| before.is_due(period, wall));
        let has_reported =
            before.is_some_and(|before| before.memory.last_update != memory.last_update);
        let reports = has_reported && !is_due;
        let is_new = reports && before.is_some_and(|before| !before.reports);
        self.kept = Some(Kept {
            memory,
            checked_at: match before {
                Some(before) if is_due => before.checked_at,
                _ => memory.at,
            },
            reports,
            paused: sample.state == Some(PAUSED),
        });
        is_new
    }

    /// What libvirt would give of the balloon group now, but for the resident size; `None`: it has to be asked. Events must have
    /// come since [`VmBalloon::asked_at`].
    pub(super) fn memory(&self, uuid: Uuid, moment: Moment) -> Option<Memory> {
        let Moment {
            now,
            wall,
            period,
            uptime,
        } = moment;
        let kept = self.kept.as_ref()?;
        let asked_at = kept.memory.at;
        let spread = u64::try_from(uuid.as_u128() % SPREAD).unwrap_or(0);
        let oldest = OLDEST.saturating_sub(Duration::from_secs(spread));
        let is_old = |at: Instant| now.saturating_duration_since(at) >= oldest;
        let starts = uptime < GUEST_STARTS
            || self
                .reset
                .is_some_and(|reset| now.saturating_duration_since(reset) < GUEST_STARTS);
        let may_differ = self.changed.is_some_and(|changed| changed >= asked_at)
            || starts && !kept.paused
            || kept.reports
            || kept.is_due(period, wall)
            || is_old(kept.checked_at);
        (!may_differ).then_some(kept.memory)
    }

    /// When libvirt was last asked.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.kept.as_ref().map(|kept| kept.memory.at)
    }
}

/// s since 1970.
fn wall() -> u64 {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    now.unwrap_or_default().as_secs()
}

impl Vms {
    /// Memory figures that cannot have changed are not to be asked for.
    pub fn keep_memory(&mut self) {
        self.keeps_memory = true;
    }

    /// Events of balloons that change and of guests that are reset come from now on, or no more.
    pub fn set_memory_events(&mut self, are_reported: bool) {
        self.memory_events = are_reported;
    }

    /// libvirt reports a new size of the balloon, or that the VM goes on.
    pub fn memory_changed(&mut self, uuid: Uuid, at: Instant) {
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.balloon.on_change(at);
        }
    }

    /// libvirt reports that the guest was reset.
    pub fn reset(&mut self, uuid: Uuid, at: Instant) {
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.balloon.on_reset(at);
        }
    }

    /// What libvirt would give of the VM's balloon group, where that is certain.
    pub(super) fn kept_memory(&self, vm: &VmRecord, now: Instant) -> Option<Memory> {
        if !self.keeps_memory || !self.memory_events {
            return None;
        }
        let described = vm.unchanged_description()?;
        let asked_at = vm.balloon.asked_at()?;
        let is_current = described.read_at <= asked_at
            && self.freshness.reports_changes_since(described.read_at);
        let figures = vm.figures.as_ref().filter(|_| is_current)?;
        let moment = Moment {
            now,
            wall: wall(),
            period: described.description.as_ref()?.stats_period,
            uptime: Duration::from_secs(figures.uptime?),
        };
        let rss = Some(figures.resident?);
        let memory = vm.balloon.memory(vm.domain.run.uuid, moment)?;
        Some(Memory {
            at: now,
            rss,
            is_kept: true,
            ..memory
        })
    }
}

impl VmRecord {
    /// Keeps the memory figures of a full sample.
    pub(super) fn keep_memory(&mut self, sample: &Sample) {
        if sample.memory.is_kept {
            return;
        }
        let described = self.description.as_ref();
        let described = described.and_then(|cached| cached.description.as_ref());
        let period = described.map_or(0, |described| described.stats_period);
        if self.balloon.report(sample, period, wall()) {
            // The XML is read again.
            self.changed = Some(Instant::now());
        }
    }
}

#[cfg(test)]
mod tests;
