//! The QEMU processes of this host: whether they can answer their monitors, and how much CPU time
//! their control groups and vCPU threads have counted.

mod block_nodes;
pub(crate) mod cgroups;
mod freezer;
mod kept;
pub(crate) mod pressure;
mod process;
mod processes;
mod scan;
pub(crate) mod throttling;
pub(crate) mod vcpus;

pub use processes::{HostFigures, Processes, VcpuReading};
