//! What the kernel says of this host before libvirt is asked: which QEMU processes are stuck,
//! which disk images lie on storage that does not answer, and what its network interfaces have
//! counted. No libvirt in here.

pub mod cgroups;
mod freezer;
mod mount_table;
pub mod mounts;
mod nodes;
mod post;
pub mod probe;
mod prober;
pub mod processes;
mod resolver;
mod scan;
pub mod taps;
mod walk;

pub use mounts::{Mounts, Storage};
pub use processes::{ProcessReport, Processes};
pub use taps::Taps;
