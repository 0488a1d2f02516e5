//! One gather: the list, the chunks, the workers, and what came back in time.

mod gather_report;
mod gatherer;
mod groups;
pub(crate) mod host_watcher;
mod in_flight;
pub mod protocol;
mod samples;
pub mod scheduler;
mod session;
#[cfg(test)]
pub(crate) mod testing;
pub(crate) mod worker;
pub(crate) mod worker_pool;

pub(crate) use gather_report::{GatherReport, Problem};
pub(crate) use gatherer::{DeviceLeftOut, Gatherer, HostOverview, WhyLeftOut};
pub(crate) use scheduler::MOST_EXTRA;
