//! What is worked out of samples: sums over devices, rates, and the history of each VM that they need.

mod features;
mod history;
mod latency;
mod steal;
mod totals;

pub(crate) use features::{DISK_RATES, Features, NET_RATES};
pub use history::{Derived, History, VmHistory, device_tags};
