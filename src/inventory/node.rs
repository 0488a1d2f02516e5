//! The figures of the node.

use super::worker;
use crate::libvirt::{Connection, Error, NodeInfo};

/// What is known of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeFigures {
    /// Its CPUs and memory; `None` if the driver does not tell.
    pub info: Option<NodeInfo>,
    /// Its free memory, KiB; `None` likewise.
    pub free_memory: Option<u64>,
}

/// A connection, and what was read once.
pub(super) struct Session {
    connection: Connection,
    /// `None`: not read yet.
    info: Option<Option<NodeInfo>>,
}

impl Session {
    pub(super) fn new(connection: Connection) -> Self {
        let info = None;
        Self { connection, info }
    }
}

impl worker::Session for Session {
    type Request = ();
    type Answer = NodeFigures;

    fn connection(&self) -> &Connection {
        &self.connection
    }

    fn answer(&mut self, (): &()) -> Result<NodeFigures, Error> {
        let info = match self.info {
            Some(info) => info,
            None => *self
                .info
                .insert(unless_lacking(self.connection.node_info())?),
        };
        // The library takes a driver's 0 for a failure: in the test driver VMs may have all memory of the node, or more.
        let free = match self.connection.free_memory() {
            Err(error) if error.is_transport() => return Err(error),
            other => other.ok(),
        };
        Ok(NodeFigures {
            info,
            free_memory: free.map(|bytes| bytes / 1024),
        })
    }
}

/// A driver that does not have the call is no failure.
fn unless_lacking<T>(result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_unsupported() => Ok(None),
        Err(error) => Err(error),
    }
}
