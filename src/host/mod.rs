//! What the kernel says of this host before libvirt is asked: which QEMU processes are stuck,
//! which disk images lie on storage that does not answer, and what its network interfaces have
//! counted. No libvirt in here.

mod checker;
pub mod checker_process;
mod mount_state;
mod mount_table;
pub mod mounts;
pub mod net_dev;
mod path_walk;
pub mod qemu;
mod resolver;

pub use mounts::{Mounts, Storage};
pub use net_dev::NetDev;
pub use qemu::{ProcessReport, Processes};
