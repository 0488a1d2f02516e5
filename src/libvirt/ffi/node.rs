//! The node: the host that a connection leads to.

use std::ffi::c_char;

use virt::sys;

use super::{Connection, check, last_error};
use crate::hypervisor::calls::{CallKind, count};
use crate::libvirt::Error;

/// What does not change while the host runs, but for CPUs that are taken off line and memory that is added.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NodeInfo {
    /// CPUs online, threads of a core counted one by one.
    pub cpus: u64,
    /// Memory, KiB.
    pub memory: u64,
}

impl Connection {
    /// `virNodeGetInfo`.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn node_info(&self) -> Result<NodeInfo, Error> {
        count(CallKind::Node);
        let mut info = sys::virNodeInfo {
            model: [0 as c_char; 32],
            memory: 0,
            cpus: 0,
            mhz: 0,
            nodes: 0,
            sockets: 0,
            cores: 0,
            threads: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virNodeGetInfo(self.raw.as_ptr(), &mut info) })?;
        Ok(NodeInfo {
            cpus: info.cpus.into(),
            memory: info.memory,
        })
    }

    /// The memory of the node that nothing uses, in bytes (`virNodeGetFreeMemory`).
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn free_memory(&self) -> Result<u64, Error> {
        count(CallKind::Node);
        // SAFETY: the connection is open for as long as `self` is.
        match unsafe { sys::virNodeGetFreeMemory(self.raw.as_ptr()) } {
            0 => Err(last_error()),
            bytes => Ok(bytes),
        }
    }
}
