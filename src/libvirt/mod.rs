//! libvirt as this program needs it: read-only connections, bulk statistics, and single calls for drivers
//! without bulk statistics.
//!
//! A connection belongs to one thread, for the client library loses wake-ups when two threads make calls on one
//! connection. [`Connection`] is not `Send`, so the compiler checks this.

pub mod bulk;
pub mod calls;
pub mod error;
pub mod events;
#[allow(unsafe_code)]
mod ffi;
pub mod per_call;

pub use error::Error;
pub use ffi::{Connection, Domain, DomainEvent, Monitor, Record, Records, Value};
pub use ffi::{
    close_inherited, forget_crash, initialize, pass_on_at_crash, raise_file_limit, share_memory,
    start_event_loop, stdout_was_closed, while_signals_wait,
};
