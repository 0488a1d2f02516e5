//! Whether the memory figures of a VM can have changed since libvirt was asked for them.
//!
//! Of the balloon group, `current` and `maximum` change with an event (the balloon's, or that of a device), and the resident
//! size is on this host. The guest's own figures change when the guest reports: once when its driver starts, and then only
//! where a period is set (balloon_stats_poll_cb in QEMU's hw/virtio/virtio-balloon.c). The XML has the period, but no event
//! tells of a new one (`virsh dommemstat --period`). So libvirt is asked when a report may have come, and otherwise about
//! once a minute.
//!
//! Events are compared with the start of the call: one that came while the call was made may tell of something that the reply
//! does not have yet.

use std::time::{Duration, Instant};

use uuid::Uuid;

use super::{VmRecord, Vms};
use crate::sample::{Memory, Sample};

/// For so long after a guest was started, reset or resumed, its driver may start and report at any time.
const GUEST_STARTS: Duration = Duration::from_secs(300);
/// At this age at the latest, what libvirt gave is asked for again although no report is due. With an interval of 10 s, that is
/// once a minute.
const OLDEST: Duration = Duration::from_secs(55);
/// VMs whose figures came at the same time are asked again in different gathers, within so many seconds.
const SPREAD: u128 = 10;
/// The time of a report is in whole seconds, and a gather goes on for a while after it was decided what to ask.
const MARGIN: Duration = Duration::from_secs(2);

/// virDomainState: the guest does not run (paused, suspended by itself).
const AT_REST: [i32; 2] = [3, 7];

/// What decides whether the figures can have changed, beside them.
#[derive(Debug, Clone, Copy)]
pub(super) struct Moment {
    pub(super) now: Instant,
    /// How often the guest reports by the XML; 0: never.
    pub(super) period: Duration,
    /// How long ago QEMU was started, or the guest reset or resumed while no event would have told of it.
    pub(super) running: Duration,
}

/// What libvirt gave in one run of a VM.
#[derive(Debug, Default)]
pub(super) struct VmBalloon {
    kept: Option<Kept>,
    /// When an event last told that figures may have changed.
    changed: Option<Instant>,
    /// When an event last told of something after which the guest's driver may start.
    started: Option<Instant>,
}

#[derive(Debug, Clone, Copy)]
struct Kept {
    memory: Memory,
    /// When the guest reported, if it has.
    reported_at: Option<Instant>,
    /// When libvirt was last asked although no report was due.
    checked_at: Instant,
    /// A report came too early: the guest reports more often than is known.
    reports: bool,
    /// The guest did not run, so it could not report.
    rested: bool,
}

impl VmBalloon {
    /// An event tells that the figures may be others.
    pub(super) fn on_change(&mut self, at: Instant) {
        self.changed = Some(at);
    }

    /// An event tells that the guest was reset, or goes on, perhaps for the first time.
    pub(super) fn on_start(&mut self, at: Instant) {
        self.changed = Some(at);
        self.started = Some(at);
    }

    /// What libvirt gave may not hold.
    pub(super) fn forget(&mut self) {
        self.kept = None;
    }

    /// A full sample. Returns whether a report came too early: the XML may have another period by now.
    pub(super) fn report(&mut self, sample: &Sample, moment: Moment) -> bool {
        let memory = sample.memory;
        let before = self.kept;
        if before.is_some_and(|before| before.memory.asked_at == memory.asked_at) {
            return false;
        }
        let mut disks = sample.disks.iter().flat_map(|disks| &disks.list);
        // Without counters of a disk, nothing else would show that QEMU answers.
        if memory.rss.is_none() || !disks.any(|disk| disk.counters.iter().any(Option::is_some)) {
            self.kept = None;
            return false;
        }
        let is_due = before.is_none_or(|before| self.is_due(&before, moment));
        let reports = before.is_some_and(|before| self.is_early(&before, &memory, is_due, moment));
        let is_new = reports && before.is_some_and(|before| !before.reports);
        let age = memory.report_age.map(Duration::from_secs);
        let reported_at = age.and_then(|age| memory.asked_at.checked_sub(age));
        // If it is the same report, the host's clock may have been set back since.
        let same = before.filter(|before| before.memory.last_update == memory.last_update);
        let known = same.and_then(|before| before.reported_at);
        self.kept = Some(Kept {
            memory,
            reported_at: [reported_at, known].into_iter().flatten().min(),
            checked_at: match before {
                Some(before) if is_due => before.checked_at,
                _ => memory.asked_at,
            },
            reports,
            rested: sample.state.is_some_and(|state| AT_REST.contains(&state)),
        });
        is_new
    }

    /// What libvirt would give of the balloon group now, but for the resident size; `None`: it has to be asked. Events must have
    /// come since [`VmBalloon::asked_at`].
    pub(super) fn memory(&self, uuid: Uuid, moment: Moment) -> Option<Memory> {
        let kept = self.kept.as_ref()?;
        let spread = u64::try_from(uuid.as_u128() % SPREAD).unwrap_or(0);
        let oldest = OLDEST.saturating_sub(Duration::from_secs(spread));
        let is_old = moment.now.saturating_duration_since(kept.checked_at) >= oldest;
        let may_differ = kept.reports || is_old || self.is_due(kept, moment);
        (!may_differ).then_some(kept.memory)
    }

    /// When libvirt was last asked.
    pub(super) fn asked_at(&self) -> Option<Instant> {
        self.kept.as_ref().map(|kept| kept.memory.asked_at)
    }

    /// Whether the figures may have changed since they were asked for, by what is known of the guest.
    fn is_due(&self, kept: &Kept, moment: Moment) -> bool {
        let age = |at| moment.now.saturating_duration_since(at);
        let reported_at = kept.reported_at;
        let has_come = reported_at.is_none_or(|at| age(at) + MARGIN >= moment.period);
        let may_report = self.was_starting(kept, moment) || !moment.period.is_zero() && has_come;
        self.has_changed(kept) || may_report && !kept.rested
    }

    fn has_changed(&self, kept: &Kept) -> bool {
        self.changed.is_some_and(|at| at >= kept.memory.asked_at)
    }

    /// Whether the guest's driver might still have started after the figures were asked for.
    fn was_starting(&self, kept: &Kept, moment: Moment) -> bool {
        let asked_at = kept.memory.asked_at;
        let since = moment.now.saturating_duration_since(asked_at);
        let starts = |at: Instant| asked_at.saturating_duration_since(at) < GUEST_STARTS;
        moment.running.saturating_sub(since) < GUEST_STARTS || self.started.is_some_and(starts)
    }

    /// Whether a report came earlier than by the period.
    fn is_early(&self, before: &Kept, memory: &Memory, is_due: bool, moment: Moment) -> bool {
        let [last, next] =
            [before.memory.last_update, memory.last_update].map(Option::unwrap_or_default);
        let spacing = Duration::from_secs(next.saturating_sub(last));
        let is_early = !is_due || last > 0 && spacing.saturating_add(MARGIN) < moment.period;
        let is_regular =
            !before.rested && !self.has_changed(before) && !self.was_starting(before, moment);
        last != next && is_early && is_regular
    }
}

impl Vms {
    /// Memory figures that cannot have changed are not to be asked for.
    pub fn keep_memory(&mut self) {
        self.keeps_memory = true;
    }

    /// Events of balloons that change and of guests that are reset come since then, or no more.
    pub fn set_memory_events(&mut self, since: Option<Instant>) {
        self.memory_events = since;
    }

    /// libvirt reports another size of the VM's memory.
    pub fn memory_changed(&mut self, uuid: Uuid, at: Instant) {
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.balloon.on_change(at);
        }
    }

    /// libvirt reports that the guest was reset or goes on: its drivers may be started.
    pub fn guest_starts(&mut self, uuid: Uuid, at: Instant) {
        if let Some(vm) = self.records.get_mut(&uuid) {
            vm.balloon.on_start(at);
        }
    }

    /// What libvirt would give of the VM's balloon group, where that is certain.
    pub(super) fn kept_memory(&self, vm: &VmRecord, now: Instant) -> Option<Memory> {
        let events_since = self.memory_events.filter(|_| self.keeps_memory)?;
        let described = vm.unchanged_description()?;
        let is_current = described.read_at <= vm.balloon.asked_at()?
            && self.freshness.reports_changes_since(described.read_at);
        let figures = vm.figures.as_ref().filter(|_| is_current)?;
        let rss = Some(figures.resident?);
        let moment = vm.moment(now, events_since)?;
        let memory = vm.balloon.memory(vm.domain.run.uuid, moment)?;
        Some(Memory {
            at: now,
            rss,
            ..memory
        })
    }
}

impl VmRecord {
    /// A full sample came; events tell of changes since `events_since`.
    pub(super) fn on_memory(&mut self, sample: &Sample, events_since: Option<Instant>) {
        let now = Instant::now();
        let moment = events_since.and_then(|since| self.moment(now, since));
        let Some(moment) = moment else {
            return self.balloon.forget();
        };
        if self.balloon.report(sample, moment) {
            // The XML is read again.
            self.changed = Some(now);
        }
    }

    /// What is known of the guest, as of now; `None` where its period is not known, or when QEMU was started.
    fn moment(&self, now: Instant, events_since: Instant) -> Option<Moment> {
        let described = self.description.as_ref()?.description.as_ref()?;
        let uptime = Duration::from_secs(self.figures.as_ref()?.uptime?);
        Some(Moment {
            now,
            period: Duration::from_secs(described.stats_period),
            running: uptime.min(now.saturating_duration_since(events_since)),
        })
    }
}

#[cfg(test)]
mod tests;
