//! The watch: a connection of its own, on which libvirt reports domains and devices that come and
//! go.

use std::thread;
use std::time::{Duration, Instant};

use super::{Connection, Occurrence};

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

/// Starts the watch's thread. It ends by itself where the driver has no events: the cache's time
/// to live applies then.
///
/// # Errors
/// The system's, when no thread can be started.
pub fn start(
    uri: String,
    tell: impl Fn(Notice) + Clone + Send + Sync + 'static,
) -> std::io::Result<()> {
    let watch = move || {
        loop {
            let Ok(connection) = Connection::open(&uri) else {
                thread::sleep(RETRY);
                continue;
            };
            let sink = tell.clone();
            let registered =
                connection.on_event(move |event| sink(Notice::Event(event, Instant::now())));
            match registered {
                Ok(()) => {
                    tell(Notice::Watching(Instant::now()));
                    while connection.is_alive() {
                        thread::sleep(LOOK);
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
                    thread::sleep(RETRY);
                }
            }
        }
    };
    thread::Builder::new()
        .name("watch".into())
        .spawn(watch)
        .map(drop)
}
