//! What the kernel says of this host before libvirt is asked: which QEMU processes are stuck,
//! which disk images lie on storage that does not answer, and what its network interfaces have
//! counted. No libvirt in here.

mod between;
pub mod mounts;
pub mod net_dev;
pub(crate) mod qemu;

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

pub(crate) use between::lie_between;
pub use mounts::{Mounts, Storage};
pub use net_dev::NetDev;
pub use qemu::Processes;

/// Reads a table of the proc file system. It shows no size, so `std::fs::read` would begin with a buffer of 32 bytes and take
/// ten steps for a few kB, and for each of them the kernel renders the table up to there anew.
///
/// # Errors
/// The error of the system.
fn read_table(path: &Path) -> io::Result<Vec<u8>> {
    let mut table = Vec::with_capacity(64 << 10);
    File::open(path)?.read_to_end(&mut table)?;
    Ok(table)
}
