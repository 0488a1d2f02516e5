//! What libvirt says when a call fails, and what an operator can do about it.

use std::fmt;

use virt::sys;

/// One libvirt error (`virGetLastError`).
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Error {
    /// `virErrorNumber`.
    pub code: u32,
    /// `virErrorDomain`: the part of libvirt that raised it.
    pub domain: u32,
    /// libvirt's own words.
    pub message: String,
}

impl Error {
    /// An error of our own making, in libvirt's clothes (a NUL in a name, say).
    pub(crate) fn invalid(message: impl Into<String>) -> Self {
        Self {
            code: sys::VIR_ERR_INVALID_ARG,
            domain: 0,
            message: message.into(),
        }
    }

    /// The domain is gone or just going: daily life, not trouble.
    pub fn is_vanished(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_NO_DOMAIN | sys::VIR_ERR_OPERATION_INVALID
        )
    }

    /// The driver does not have this call at all.
    pub fn is_unsupported(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_NO_SUPPORT
                | sys::VIR_ERR_CONFIG_UNSUPPORTED
                | sys::VIR_ERR_OPERATION_UNSUPPORTED
                | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
        )
    }

    /// The driver refused a flag (vz and test refuse NOWAIT with one of these).
    pub fn is_refused_flag(&self) -> bool {
        matches!(
            self.code,
            sys::VIR_ERR_INVALID_ARG | sys::VIR_ERR_ARGUMENT_UNSUPPORTED
        )
    }

    /// Raised by the transport, not by the hypervisor: a lost connection shows as
    /// `VIR_ERR_INTERNAL_ERROR` of the RPC domain, so the code alone tells nothing. `VIR_ERR_RPC` is
    /// one reply that the protocol cannot carry (a description of more than 4 MiB): the daemon says
    /// so over a connection that stands.
    pub fn is_transport(&self) -> bool {
        matches!(self.domain, sys::VIR_FROM_RPC | sys::VIR_FROM_REMOTE)
            && !matches!(self.code, sys::VIR_ERR_NO_SUPPORT | sys::VIR_ERR_RPC)
    }

    /// What an operator can do, when a connection could not be opened.
    pub fn remedy(&self) -> &'static str {
        let text = self.message.as_str();
        if text.contains("Permission denied") || text.contains("authentication") {
            "the read-only socket is open to every user by default: see unix_sock_ro_perms and \
             auth_unix_ro in libvirtd.conf (virtqemud.conf with modular daemons)"
        } else if text.contains("No such file") || text.contains("Connection refused") {
            "the daemon is not running: systemctl start libvirtd.socket (with modular daemons \
             virtqemud.socket, or for remote URIs virtproxyd.socket)"
        } else if self.is_unsupported() || text.contains("no connection driver") {
            "this libvirt has no driver for that URI: check the URI and the installed \
             libvirt-daemon-driver packages"
        } else {
            "check with: virsh -r -c URI list"
        }
    }
}

impl fmt::Display for Error {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Error {}
