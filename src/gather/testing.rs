//! What the tests of gathers share: nodes of libvirt's test driver, and a daemon that never answers.

use std::os::unix::net::UnixListener;
use std::sync::mpsc::{Receiver, channel};
use std::sync::{Arc, Mutex, Once};
use std::time::Duration;

use tempfile::{NamedTempFile, TempDir};
use uuid::Uuid;

use super::protocol::{DomainRef, Target};
use super::worker::Reply;
use super::worker_pool::Sink;
use crate::config::{Settings, Uri, UriOrigin};
use crate::libvirt::{self, Connection};
use crate::vms::Known;

/// No reply in a test takes longer.
pub(crate) const LIMIT: Duration = Duration::from_secs(30);

/// A connection to `uri`.
pub(crate) fn connect(uri: &str) -> Connection {
    initialize();
    Connection::open(uri).unwrap()
}

/// Once for all tests.
pub(crate) fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| libvirt::initialize().unwrap());
}

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
        domain: domain.clone(),
        known,
        nics: None,
        processor: None,
    }
}

/// A node file for `test:///FILE`.
pub(crate) struct Node(NamedTempFile);

impl Node {
    /// With these running domains, in this order (their ids count from 1), and these that are off.
    pub(crate) fn of(running: &[&str], off: &[&str]) -> Self {
        let domain = |name: &&str, state: u8| {
            format!(
                "<domain type='test' xmlns:test='http://libvirt.org/schemas/domain/test/1.0'>\
                 <test:runstate>{state}</test:runstate><name>{name}</name><uuid>{}</uuid>\
                 <memory>8192</memory><vcpu>2</vcpu><os><type>hvm</type></os><devices>\
                 <disk type='file' device='disk'><source file='/guest/disk'/><target dev='vda'/></disk>\
                 <interface type='network'><source network='default'/><target dev='tap0'/></interface>\
                 </devices></domain>",
                Self::uuid(name)
            )
        };
        let running = running.iter().map(|name| domain(name, 1));
        let all: String = running
            .chain(off.iter().map(|name| domain(name, 5)))
            .collect();
        let file = tempfile::Builder::new().suffix(".xml").tempfile().unwrap();
        std::fs::write(file.path(), format!("<node>{all}</node>")).unwrap();
        Self(file)
    }

    /// The UUID of the domain with that name: its first bytes are the name's.
    pub(crate) fn uuid(name: &str) -> Uuid {
        let mut bytes = [b'-'; 16];
        for (to, from) in bytes.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        Uuid::from_bytes(bytes)
    }

    pub(crate) fn uri(&self) -> String {
        format!("test://{}", self.0.path().display())
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
