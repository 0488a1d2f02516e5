//! One gather: the list, the chunks, the workers, and what came back in time.

mod gather_report;
mod gatherer;
mod groups;
pub mod host_watcher;
mod in_flight;
pub mod protocol;
pub mod scheduler;
mod session;
#[cfg(test)]
pub(crate) mod testing;
pub mod worker;
pub mod worker_pool;

pub use gather_report::{GatherReport, Problem};
pub use gatherer::Gatherer;
