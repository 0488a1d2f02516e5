//! The watch: a connection of its own, on which libvirt reports domains and devices that come and
//! go.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use super::{Connection, DomainEvent};
use crate::threads::{self, NotStarted};

/// What the watch has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum EventUpdate {
    /// Events come from now on.
    Live(Instant),
    /// The connection was lost; it is being opened anew.
    Down,
    /// Something came or went.
    Event(DomainEvent, Instant),
}

/// No more updates wait for the loop.
const MOST: usize = 10_000;

/// The updates that wait for the loop. While that is blocked in a write, a busy daemon goes on
/// sending: what is too much is given up, and all is read anew, as after a lost connection.
#[derive(Debug, Clone, Default)]
pub struct EventUpdates(Arc<Mutex<Waiting>>);

#[derive(Debug, Default)]
struct Waiting {
    updates: Vec<EventUpdate>,
    /// Whether the last that was told is [`EventUpdate::Live`].
    live: bool,
}

impl EventUpdates {
    /// Takes all that wait.
    pub fn take(&self) -> Vec<EventUpdate> {
        std::mem::take(&mut self.lock().updates)
    }

    /// Adds one; whether the loop is to be told, for it was the first.
    fn add(&self, update: EventUpdate) -> bool {
        let mut waiting = self.lock();
        let first = waiting.updates.is_empty();
        if waiting.updates.len() >= MOST {
            waiting.updates.clear();
            waiting.updates.push(EventUpdate::Down);
            if waiting.live {
                waiting.updates.push(EventUpdate::Live(Instant::now()));
            }
        }
        match update {
            EventUpdate::Live(_) => waiting.live = true,
            EventUpdate::Down => waiting.live = false,
            EventUpdate::Event(..) => {}
        }
        waiting.updates.push(update);
        first
    }

    fn lock(&self) -> MutexGuard<'_, Waiting> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// How often the watch looks whether its connection still stands (no call to the daemon).
const LOOK: Duration = Duration::from_secs(1);
/// How long it waits before it opens a lost connection anew.
const RETRY: Duration = Duration::from_secs(5);

/// Whether this driver reports devices that come and go. QEMU's does, and the test driver where it
/// can plug devices at all (libvirt 10.0); lxc's and libxl's accept the registration and never send
/// one, as no other is known to do (`virDomainEventDeviceAddedNew` in libvirt's src).
fn reports_devices(driver: Option<&str>) -> bool {
    matches!(driver, Some("QEMU" | "TEST"))
}

/// The watch's thread. Dropped, it ends as well.
#[derive(Debug)]
pub struct Watcher {
    stop: Sender<()>,
    ended: Receiver<()>,
}

impl Watcher {
    /// Ends the thread, and waits until its connection is closed, until `limit` at the longest.
    pub fn close(self, limit: Instant) {
        drop(self.stop);
        let patience = limit.saturating_duration_since(Instant::now());
        // An error either way: nothing is ever sent.
        let _ = self.ended.recv_timeout(patience);
    }
}

/// Waits for so long; `false` when the thread is to end.
fn wait(stop: &Receiver<()>, patience: Duration) -> bool {
    stop.recv_timeout(patience) == Err(RecvTimeoutError::Timeout)
}

/// Starts the watch's thread; `tell` is called when there are updates. It ends by itself where the
/// driver has no events: the cache's time to live applies then, and where the driver reports no
/// devices.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(
    uri: String,
    tell: impl Fn(EventUpdates) + Clone + Send + Sync + 'static,
) -> Result<Watcher, NotStarted> {
    let (stop, stopped) = channel::<()>();
    let (ends, ended) = channel::<()>();
    let updates = EventUpdates::default();
    let tell = move |update| {
        if updates.add(update) {
            tell(updates.clone());
        }
    };
    let watch = move || {
        // Dropped last, when the connection is closed.
        let _ends = ends;
        loop {
            let Ok(connection) = Connection::open(&uri) else {
                if !wait(&stopped, RETRY) {
                    return;
                }
                continue;
            };
            let sink = tell.clone();
            let registered =
                connection.on_event(move |event| sink(EventUpdate::Event(event, Instant::now())));
            match registered {
                Ok(()) => {
                    if reports_devices(connection.driver().as_deref()) {
                        tell(EventUpdate::Live(Instant::now()));
                    }
                    while connection.is_alive() {
                        if !wait(&stopped, LOOK) {
                            return;
                        }
                    }
                    tell(EventUpdate::Down);
                    log::debug!("the connection for events was lost; it is opened again");
                }
                Err(error) if error.is_unsupported() => {
                    log::debug!("no events from this driver: {error}");
                    return;
                }
                Err(error) => {
                    log::debug!("events cannot be had: {error}");
                    if !wait(&stopped, RETRY) {
                        return;
                    }
                }
            }
        }
    };
    threads::start("watch", watch)?;
    Ok(Watcher { stop, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn notices_are_told_of_once_and_do_not_grow_without_bounds() {
        let event = || EventUpdate::Event(DomainEvent::Stopped(uuid::Uuid::nil()), Instant::now());
        for live in [true, false] {
            let updates = EventUpdates::default();
            if live {
                assert!(updates.add(EventUpdate::Live(Instant::now())));
            }
            assert_eq!(updates.add(event()), !live);
            assert_eq!(updates.take().len(), 1 + usize::from(live));
            for number in 0..MOST {
                assert_eq!(updates.add(event()), number == 0);
            }
            assert!(!updates.add(event()), "too much");
            let left = updates.take();
            if live {
                let anew = matches!(left[..2], [EventUpdate::Down, EventUpdate::Live(_)]);
                assert!(anew && left.len() == 3, "{left:?}");
            } else {
                assert!(left[0] == EventUpdate::Down && left.len() == 2, "{left:?}");
            }
            assert!(updates.add(event()));
        }
    }

    #[test]
    fn only_drivers_that_send_device_events_are_relied_on() {
        let relied_on = |driver| reports_devices(Some(driver));
        assert!(relied_on("QEMU") && relied_on("TEST"));
        for driver in ["LXC", "Xen", "CH", "VZ", "BHYVE", ""] {
            assert!(!relied_on(driver), "{driver}");
        }
        assert!(!reports_devices(None));
    }
}
