//! What the kernel says of this host before libvirt is asked: which QEMU processes are stuck,
//! which disk images lie on storage that does not answer, and what its network interfaces have
//! counted. No libvirt in here.

mod between;
pub mod mounts;
pub mod net_dev;
pub(crate) mod qemu;

pub(crate) use between::lie_between;
pub use mounts::{Mounts, Storage};
pub use net_dev::NetDev;
pub use qemu::Processes;
