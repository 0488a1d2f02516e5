//! libvirt's events: domains that start and stop, changes of devices and of memory, I/O errors of disks, jobs that are
//! over. A thread receives them ([`watcher`]), and here they wait for the main loop.

mod watcher;

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Instant;

use super::{DomainEvent, IoError, OptionalKinds};
pub use watcher::{Watcher, start};

/// A message about libvirt's events.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventUpdate {
    /// Events are received since this time, and these of the kinds that a driver may lack.
    Live(Instant, OptionalKinds),
    /// The connection was lost, and events with it. It is opened again.
    Down,
    /// An event, and when it was received.
    Event(DomainEvent, Instant),
}

/// How many updates may wait for the main loop.
const MOST: usize = 10_000;

/// The updates that wait for the main loop. While the loop is blocked in a write, a busy daemon goes on sending
/// events. If there are too many, all are dropped, and the loop reads everything again as after a lost
/// connection.
///
/// I/O errors of one disk are one update: with `error_policy='report'` each request that fails is an event, and one disk
/// alone could fill the queue. So are changes of one domain's memory: a balloon that moves is an event in each second.
#[derive(Debug, Clone, Default)]
pub struct EventUpdates(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    updates: Vec<EventUpdate>,
    /// What [`EventUpdate::Live`] said, while events are received: it was the last of its kind.
    live: Option<OptionalKinds>,
}

impl EventUpdates {
    /// Takes all updates that wait.
    pub fn take(&self) -> Vec<EventUpdate> {
        std::mem::take(&mut self.lock().updates)
    }

    /// Adds an update; returns whether it is the first one, so that the loop must be told.
    fn add(&self, update: EventUpdate) -> bool {
        let mut waiting = self.lock();
        let first = waiting.updates.is_empty();
        let is_merged = match &update {
            EventUpdate::Event(DomainEvent::IoError(error), at) => {
                merge(&mut waiting.updates, error, *at)
            }
            EventUpdate::Event(
                event @ (DomainEvent::MemoryChanged(_) | DomainEvent::Reset(_)),
                at,
            ) => delay(&mut waiting.updates, event, *at),
            _ => false,
        };
        if is_merged {
            return false;
        }
        if waiting.updates.len() >= MOST {
            waiting.updates.clear();
            waiting.updates.push(EventUpdate::Down);
            if let Some(kinds) = waiting.live {
                let live = EventUpdate::Live(Instant::now(), kinds);
                waiting.updates.push(live);
            }
        }
        match update {
            EventUpdate::Live(_, kinds) => waiting.live = Some(kinds),
            EventUpdate::Down => waiting.live = None,
            EventUpdate::Event(..) => {}
        }
        waiting.updates.push(update);
        first
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Counts an I/O error in the update of the same disk and run that waits; returns whether there is one. What came before
/// the disk was removed, or before events were lost, is another matter.
fn merge(updates: &mut [EventUpdate], error: &IoError, at: Instant) -> bool {
    for update in updates.iter_mut().rev() {
        match update {
            EventUpdate::Event(DomainEvent::IoError(waiting), last)
                if waiting.is_of_same_disk(error) =>
            {
                waiting.count += error.count;
                *last = at;
                return true;
            }
            EventUpdate::Event(DomainEvent::DeviceRemoved(uuid, alias), _)
                if (*uuid, &*alias) == (error.uuid, &error.alias) =>
            {
                return false;
            }
            EventUpdate::Live(..) | EventUpdate::Down => return false,
            EventUpdate::Event(..) => {}
        }
    }
    false
}

/// Moves the same event, if it waits, to this time: only the last one matters. Returns whether it waits.
fn delay(updates: &mut [EventUpdate], event: &DomainEvent, at: Instant) -> bool {
    for update in updates.iter_mut().rev() {
        match update {
            EventUpdate::Event(waiting, last) if waiting == event => {
                *last = at;
                return true;
            }
            EventUpdate::Live(..) | EventUpdate::Down => return false,
            EventUpdate::Event(..) => {}
        }
    }
    false
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;

    #[test]
    fn updates_are_told_of_once_and_do_not_grow_without_bounds() {
        let event =
            || EventUpdate::Event(DomainEvent::DeviceAdded(uuid::Uuid::nil()), Instant::now());
        let kinds = OptionalKinds {
            io_errors: true,
            ..OptionalKinds::default()
        };
        for live in [true, false] {
            let updates = EventUpdates::default();
            if live {
                assert!(updates.add(EventUpdate::Live(Instant::now(), kinds)));
            }
            assert_eq!(updates.add(event()), !live);
            assert_eq!(updates.take().len(), 1 + usize::from(live));
            for number in 0..MOST {
                assert_eq!(updates.add(event()), number == 0);
            }
            assert!(!updates.add(event()), "too much");
            let left = updates.take();
            if live {
                let anew = matches!(left[..2], [EventUpdate::Down, EventUpdate::Live(_, of)] if of == kinds);
                assert!(anew && left.len() == 3, "{left:?}");
            } else {
                assert!(left[0] == EventUpdate::Down && left.len() == 2, "{left:?}");
            }
            assert!(updates.add(event()));
        }
    }

    fn io_error(alias: &str, id: u32) -> EventUpdate {
        let error = IoError {
            uuid: Uuid::nil(),
            id,
            alias: alias.to_owned(),
            reason: String::new(),
            count: 1,
        };
        EventUpdate::Event(DomainEvent::IoError(error), Instant::now())
    }

    /// Each update that waits: how many I/O errors of which disk, or what else.
    fn taken(updates: &EventUpdates) -> Vec<String> {
        let text = |update| match update {
            EventUpdate::Event(DomainEvent::IoError(error), _) => {
                format!("{} of {} in run {}", error.count, error.alias, error.id)
            }
            EventUpdate::Event(DomainEvent::DeviceRemoved(_, alias), _) => {
                format!("{alias} removed")
            }
            EventUpdate::Event(DomainEvent::DeviceAdded(_), _) => "added".to_owned(),
            EventUpdate::Event(..) => "event".to_owned(),
            EventUpdate::Live(..) => "live".to_owned(),
            EventUpdate::Down => "down".to_owned(),
        };
        updates.take().into_iter().map(text).collect()
    }

    /// With error_policy='report' each request that fails is an event, thousands a second.
    #[test]
    fn a_storm_of_io_errors_drops_no_other_event() {
        let updates = EventUpdates::default();
        let added = || EventUpdate::Event(DomainEvent::DeviceAdded(Uuid::nil()), Instant::now());
        assert!(updates.add(added()));
        for _ in 0..MOST {
            assert!(!updates.add(io_error("a", 1)));
            assert!(!updates.add(io_error("b", 1)));
        }
        updates.add(added());
        updates.add(io_error("a", 1));
        let errors = ["10001 of a in run 1", "10000 of b in run 1"];
        assert_eq!(taken(&updates), ["added", errors[0], errors[1], "added"]);
        assert!(updates.add(io_error("a", 1)), "the loop must be told again");
        assert_eq!(taken(&updates), ["1 of a in run 1"]);
    }

    #[test]
    fn the_last_change_of_a_domains_memory_is_the_one_that_counts() {
        let updates = EventUpdates::default();
        let event = |event| EventUpdate::Event(event, Instant::now());
        let [one, other] = [1, 2].map(Uuid::from_u128);
        for _ in 0..MOST {
            updates.add(event(DomainEvent::MemoryChanged(one)));
            updates.add(event(DomainEvent::Reset(one)));
        }
        updates.add(event(DomainEvent::MemoryChanged(other)));
        let last = Instant::now();
        updates.add(EventUpdate::Event(DomainEvent::MemoryChanged(one), last));
        let waiting = updates.take();
        assert_eq!(waiting.len(), 3);
        assert_eq!(
            waiting[0],
            EventUpdate::Event(DomainEvent::MemoryChanged(one), last)
        );
        // What came before events were lost is another matter.
        updates.add(event(DomainEvent::Reset(one)));
        updates.add(EventUpdate::Down);
        updates.add(event(DomainEvent::Reset(one)));
        assert_eq!(updates.take().len(), 3);
    }

    #[test]
    fn io_errors_of_another_run_or_of_another_disk_with_the_same_alias_are_not_merged() {
        let updates = EventUpdates::default();
        let removed = |alias: &str| {
            let event = DomainEvent::DeviceRemoved(Uuid::nil(), alias.to_owned());
            EventUpdate::Event(event, Instant::now())
        };
        for update in [
            io_error("a", 1),
            io_error("a", 2),
            removed("b"),
            io_error("a", 1),
            removed("a"),
            io_error("a", 1),
            EventUpdate::Down,
            io_error("a", 1),
        ] {
            updates.add(update);
        }
        let (first, other) = ("1 of a in run 1", "1 of a in run 2");
        let merged = "2 of a in run 1";
        assert_eq!(
            taken(&updates),
            [
                merged,
                other,
                "b removed",
                "a removed",
                first,
                "down",
                first
            ]
        );
    }
}
