//! Which network interfaces and disks are wanted.

use crate::description::DiskKind;
use crate::name_filter::NameFilter;

/// The devices that are wanted: by name, and drives for removable media by kind.
#[derive(Debug, Clone)]
pub struct DeviceFilter {
    /// Names of network interfaces and disks as libvirt has them (`vnet0`, `vda`).
    pub(crate) names: NameFilter,
    /// Whether CD-ROM drives are wanted.
    pub(crate) cdrom: bool,
    /// Whether floppy drives are wanted.
    pub(crate) floppy: bool,
}

impl DeviceFilter {
    /// Whether a network interface of this name is wanted.
    pub fn nic(&self, name: &str) -> bool {
        self.names.matches(name)
    }

    /// Whether a disk of this name and kind is wanted.
    pub fn disk(&self, name: &str, kind: DiskKind) -> bool {
        let is_kind_wanted = match kind {
            DiskKind::Cdrom => self.cdrom,
            DiskKind::Floppy => self.floppy,
            DiskKind::Disk | DiskKind::Lun => true,
        };
        is_kind_wanted && self.names.matches(name)
    }
}
