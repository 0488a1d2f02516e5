//! The thread that receives events, on a connection of its own.
//!
//! No call may be under way on that connection when the process ends. libvirtd may then remove the connection's
//! registrations in two threads at once, one which finds the connection closed and one which cannot send the reply
//! (`virNetServerClientCloseLocked`). libvirt 7.0 and 9.0 do so without a lock, and may crash; 11.3 has one
//! (`remoteClientFreePrivateCallbacks`). Only a libvirtd that stops answering in the middle of such a call is left with it,
//! for the process must end in time.

use std::cell::Cell;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::time::{Duration, Instant};

use super::{EventUpdate, EventUpdates};
use crate::libvirt::{Connection, OptionalKinds};
use crate::threads::{self, NotStarted};
use crate::times::LAST_CALL;

/// How often the thread checks whether its connection is alive, which makes no call to the daemon.
const ALIVE_CHECK: Duration = Duration::from_secs(1);
/// How long the thread waits before it opens a connection again that could not be opened or used.
const RETRY: Duration = Duration::from_secs(5);

/// Whether this driver reports devices that are added and removed. QEMU's driver does, and the test driver in versions
/// that can add devices (libvirt 10.0). The lxc and libxl drivers accept the registration and never send such an
/// event, and no other driver is known to (`virDomainEventDeviceAddedNew` in libvirt's source).
fn reports_devices(driver: Option<&str>) -> bool {
    matches!(driver, Some("QEMU" | "TEST"))
}

/// The kinds that this driver really sends, of those that were registered: every driver accepts every registration.
/// QEMU's driver alone reports I/O errors (`virDomainEventIOErrorReasonNewFromObj` in libvirt's source) and balloons
/// (`virDomainEventBalloonChangeNewFromObj`).
fn kinds_sent(driver: Option<&str>, registered: OptionalKinds) -> OptionalKinds {
    OptionalKinds {
        io_errors: registered.io_errors && driver == Some("QEMU"),
        memory: registered.memory && driver == Some("QEMU"),
        ..registered
    }
}

/// The thread that receives events.
#[derive(Debug)]
pub struct Watcher {
    /// When this is dropped, the thread begins no more calls. A time that is sent first allows those that close its
    /// connection and begin before it.
    orders: Sender<Instant>,
    ended: Receiver<()>,
}

impl Watcher {
    /// Ends the thread at the end of the process. Where the daemon `answers`, the connection is closed, as far as that is
    /// done by `limit`; otherwise it is left open, and libvirtd logs that it broke off. Waits for [`LAST_CALL`] longer for a
    /// call that is under way.
    pub fn end(self, answers: bool, limit: Instant) {
        if answers {
            // An error means that the thread has ended.
            let _ = self.orders.send(limit);
        }
        drop(self.orders);
        let limit = limit + LAST_CALL;
        let timeout = limit.saturating_duration_since(Instant::now());
        // Nothing is ever sent, so this returns an error when the thread has ended or the time is up.
        let _ = self.ended.recv_timeout(timeout);
    }
}

/// How the thread is to end.
#[derive(Debug, Clone, Copy)]
enum Order {
    /// By removing the registrations, with no call that begins after this time, and closing the connection.
    Close(Instant),
    /// Without a call while there are registrations.
    Leave,
}

/// The thread's side of [`Watcher`].
struct Orders {
    receiver: Receiver<Instant>,
    order: Cell<Option<Order>>,
}

impl Orders {
    /// Waits for the order to end, this long at the most.
    fn wait(&self, time: Duration) -> Option<Order> {
        if self.order.get().is_none() {
            self.order.set(match self.receiver.recv_timeout(time) {
                Ok(limit) => Some(Order::Close(limit)),
                Err(RecvTimeoutError::Disconnected) => Some(Order::Leave),
                Err(RecvTimeoutError::Timeout) => None,
            });
        }
        self.order.get()
    }

    /// Whether the order to end has not come.
    fn go_on(&self) -> bool {
        self.wait(Duration::ZERO).is_none()
    }

    /// Whether a call that closes the connection may be begun.
    fn allow_closing(&self) -> bool {
        match self.wait(Duration::ZERO) {
            None => true,
            Some(Order::Close(limit)) => Instant::now() < limit,
            Some(Order::Leave) => false,
        }
    }
}

/// Starts the thread, which calls `tell` when there are updates. It ends by itself if the driver has no events. For
/// such a driver, as for one that does not report devices, cached descriptions have a time to live. `wanted`: which of the
/// kinds that a driver may lack are wanted.
///
/// # Errors
/// No thread can be started.
pub fn start(
    uri: String,
    wanted: OptionalKinds,
    tell: impl Fn(EventUpdates) + Clone + Send + Sync + 'static,
) -> Result<Watcher, NotStarted> {
    let (orders, receiver) = channel();
    let (ends, ended) = channel::<()>();
    let updates = EventUpdates::default();
    let tell = move |update| {
        if updates.add(update) {
            tell(updates.clone());
        }
    };
    let work = move || {
        // This is dropped last, after the connection is closed.
        let _ends = ends;
        let orders = Orders {
            receiver,
            order: Cell::default(),
        };
        while orders.go_on() {
            let Ok(connection) = Connection::open(&uri) else {
                orders.wait(RETRY);
                continue;
            };
            let again = receive(&connection, wanted, &tell, &orders);
            if connection.remove_registrations(|| orders.allow_closing()) {
                drop(connection);
            } else {
                // To drop it would make calls. The order to end has come, so it is left to the end of the process.
                std::mem::forget(connection);
            }
            let Some(pause) = again else {
                return;
            };
            orders.wait(pause);
        }
    };
    threads::start("event feed", work)?;
    Ok(Watcher { orders, ended })
}

/// Receives events until the connection is lost or the thread is to end. Returns after which time another connection is
/// opened; `None` if the driver has no events.
fn receive(
    connection: &Connection,
    wanted: OptionalKinds,
    tell: &(impl Fn(EventUpdate) + Clone + Send + Sync + 'static),
    orders: &Orders,
) -> Option<Duration> {
    // Before there are registrations, a call may be under way when the process ends.
    let driver = connection.driver();
    let driver = driver.as_deref();
    let sink = tell.clone();
    let on_event = move |event| sink(EventUpdate::Event(event, Instant::now()));
    match connection.on_event(wanted, || orders.go_on(), on_event) {
        Ok(registered) => {
            let all = registered.metadata || !wanted.metadata;
            if all && reports_devices(driver) {
                let kinds = kinds_sent(driver, registered);
                tell(EventUpdate::Live(Instant::now(), kinds));
            }
            while connection.is_alive() {
                if orders.wait(ALIVE_CHECK).is_some() {
                    return None;
                }
            }
            tell(EventUpdate::Down);
            log::debug!("the connection for events was lost; it is opened again");
            Some(Duration::ZERO)
        }
        Err(error) if error.is_unsupported() => {
            log::debug!("no events from this driver: {error}");
            None
        }
        Err(error) => {
            log::debug!("libvirt sends no events: {error}");
            Some(RETRY)
        }
    }
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

    #[test]
    fn only_qemu_reports_io_errors_and_balloons() {
        for sent in [true, false] {
            let registered = OptionalKinds {
                io_errors: sent,
                metadata: true,
                jobs: true,
                memory: sent,
            };
            assert_eq!(kinds_sent(Some("QEMU"), registered), registered);
            for driver in [Some("TEST"), Some("LXC"), None] {
                let kinds = kinds_sent(driver, registered);
                assert!(!kinds.io_errors && !kinds.memory, "{driver:?}");
            }
        }
    }
}
