//! What the tests of gathers share: settings, an inbox for replies, and a daemon that never answers.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::protocol::{DomainRef, Target};
use super::worker::Reply;
use super::worker_pool::Sink;
use crate::config::{Settings, Uri, UriOrigin};
use crate::libvirt::testing::initialize;
use crate::vms::Known;

/// No reply in a test takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// The defaults with another URI.
pub(crate) fn settings(uri: &str) -> Settings {
    Settings {
        uri: Uri {
            value: uri.to_owned(),
            origin: UriOrigin::Flag,
        },
        ..Settings::default()
    }
}

/// Where workers put their replies, and where they come out.
pub(crate) fn inbox() -> (Sink, Receiver<Reply>) {
    initialize();
    let (sender, receiver) = channel();
    let sender = Mutex::new(sender);
    // A worker that was abandoned may answer after the test's end.
    let sink = move |reply| drop(sender.lock().unwrap().send(reply));
    (Arc::new(sink), receiver)
}

/// A target of which nothing was read on this host.
pub(crate) fn target(domain: &DomainRef, known: Known) -> Target {
    Target {
        asks_vcpus: false,
        left_paused: false,
        domain: domain.clone(),
        known,
        nics: None,
        processor: None,
        memory: None,
    }
}

/// A daemon that takes connections and never answers, like one that is stopped. When it is dropped, the
/// connections to it fail.
pub(crate) struct Frozen {
    dir: TempDir,
    listener: UnixListener,
}

impl Frozen {
    pub(crate) fn start() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let listener = UnixListener::bind(dir.path().join("socket")).unwrap();
        Self { dir, listener }
    }

    pub(crate) fn uri(&self) -> String {
        let socket = self.dir.path().join("socket");
        format!("test+unix:///default?socket={}", socket.display())
    }

    /// How many have connected and wait.
    pub(crate) fn waiting(&self) -> usize {
        self.listener.set_nonblocking(true).unwrap();
        let streams: Vec<_> = std::iter::from_fn(|| self.listener.accept().ok()).collect();
        let count = streams.len();
        // They go on waiting.
        std::mem::forget(streams);
        count
    }
}
