//! The watch: a connection of its own, on which libvirt reports domains and devices that come and
//! go.

use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread;
use std::time::{Duration, Instant};

use super::{Connection, Occurrence};
use crate::threads::{self, NotStarted};

/// What the watch has to tell.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Notice {
    /// Events come from now on.
    Watching(Instant),
    /// The connection was lost; it is being opened anew.
    Blind,
    /// Something came or went.
    Event(Occurrence, Instant),
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

/// Starts the watch's thread. It ends by itself where the driver has no events: the cache's time
/// to live applies then, and where the driver reports no devices.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(
    uri: String,
    tell: impl Fn(Notice) + Clone + Send + Sync + 'static,
) -> Result<Watcher, NotStarted> {
    let (stop, stopped) = channel::<()>();
    let (ends, ended) = channel::<()>();
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
                connection.on_event(move |event| sink(Notice::Event(event, Instant::now())));
            match registered {
                Ok(()) => {
                    if reports_devices(connection.driver().as_deref()) {
                        tell(Notice::Watching(Instant::now()));
                    }
                    while connection.is_alive() {
                        if !wait(&stopped, LOOK) {
                            return;
                        }
                    }
                    tell(Notice::Blind);
                    log::debug!("the connection for events was lost");
                }
                Err(error) if error.is_unsupported() => {
                    log::debug!("no events from this driver: {error}");
                    return;
                }
                Err(error) => {
                    log::debug!("no events: {error}");
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
    fn only_drivers_that_send_device_events_are_relied_on() {
        let relied_on = |driver| reports_devices(Some(driver));
        assert!(relied_on("QEMU") && relied_on("TEST"));
        for driver in ["LXC", "Xen", "CH", "VZ", "BHYVE", ""] {
            assert!(!relied_on(driver), "{driver}");
        }
        assert!(!reports_devices(None));
    }
}
