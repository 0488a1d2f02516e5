//! What the tests that call libvirt share: its initialization, connections, and nodes of its test driver.

use std::sync::Once;

use tempfile::NamedTempFile;
use uuid::Uuid;

use super::Connection;

/// A connection to `uri`.
pub(crate) fn connect(uri: &str) -> Connection {
    initialize();
    Connection::open(uri).unwrap()
}

/// Once for all tests.
pub(crate) fn initialize() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| super::initialize().unwrap());
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
