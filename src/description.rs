//! What a VM's XML says of its devices.

/// The devices of one VM, as its live XML names them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Description {
    /// Network interfaces, in the order of the XML.
    pub nics: Vec<Nic>,
    /// Disks of every kind, in the order of the XML.
    pub disks: Vec<Disk>,
}

/// One `<interface>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Nic {
    /// `<target dev='vnet0'/>`: the name on the host; a user-mode NIC has none.
    pub target: Option<String>,
    /// `<interface type='bridge'>`: what libvirt connects it to.
    pub kind: String,
}

/// One `<disk>`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Disk {
    /// `<target dev='vda'/>`.
    pub target: String,
    /// `<disk device='disk'>`.
    pub kind: DiskKind,
}

/// `<disk device='...'>`; libvirt's default is `disk`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum DiskKind {
    /// A disk.
    Disk,
    /// A SCSI device passed through.
    Lun,
    /// A CD-ROM drive, with or without a medium.
    Cdrom,
    /// A floppy drive.
    Floppy,
}
