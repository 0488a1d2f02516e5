//! The QEMU processes of this host: whether their monitors can answer, and how much CPU time their
//! control groups have counted.

mod block_nodes;
pub mod cgroups;
mod freezer;
mod processes;
mod scan;

pub use processes::{ProcessReport, Processes};
