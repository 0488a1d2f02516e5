//! libvirt as this program needs it: read-only connections, bulk statistics, and single calls for drivers
//! without bulk statistics.
//!
//! A connection belongs to one thread, for the client library loses wake-ups when two threads make calls on one
//! connection. [`Connection`] is not `Send`, so the compiler checks this.

pub mod bulk;
mod domain_event;
pub(crate) mod error;
pub(crate) mod events;
#[allow(unsafe_code)]
mod ffi;
pub(crate) mod job_stats;
pub(crate) mod per_call;
#[cfg(test)]
pub(crate) mod testing;

pub(crate) use domain_event::{CompletedJob, DomainEvent, IoError, OptionalKinds, Stop};
pub(crate) use error::Error;
pub(crate) use ffi::{Connection, Domain, NodeInfo, PoolInfo, Record, Records, StoragePool};
pub use ffi::{Monitor, Value, close_inherited, share_memory};
pub(crate) use ffi::{
    client_version, connected_sockets, forget_crash, initialize, pass_on_at_crash,
    raise_file_limit, start_event_loop, stdout_was_closed, while_signals_wait,
};
