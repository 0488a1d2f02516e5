//! Figures under libvirt's own names.

use smol_str::SmolStr;

/// Figures of bulk statistics that the configuration names, of one object of a VM.
#[derive(Debug, Clone, PartialEq)]
pub struct Stats {
    /// The first part of their keys.
    pub group: SmolStr,
    /// The tag and the value that tell the object from others of the VM: a device, a vCPU, an I/O thread; `None`: the
    /// figures are of the VM.
    pub object: Option<(&'static str, SmolStr)>,
    /// Field and value of each figure.
    pub fields: Vec<(SmolStr, StatValue)>,
}

/// A value as libvirt has it.
#[derive(Debug, Clone, PartialEq)]
pub enum StatValue {
    /// An integer, and a boolean as 0 or 1.
    Integer(i64),
    /// A floating-point number.
    Float(f64),
    /// A string.
    Text(SmolStr),
}
