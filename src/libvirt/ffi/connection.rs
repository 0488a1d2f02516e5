//! Connections.

use std::cell::RefCell;
use std::ffi::{c_int, c_uint};
use std::fs::File;
use std::io::{ErrorKind, Read};
use std::ptr::{self, NonNull};

use uuid::Uuid;
use virt::sys;

use super::{Domain, c_string, check, last_error, owned_handles, text};
use crate::hypervisor::calls::{CallKind, count};
use crate::libvirt::Error;
use crate::uri::node_file;

/// Keepalive: the seconds between two probes, and how many may remain unanswered. With shorter times, healthy but busy
/// daemons were declared dead.
const KEEPALIVE: (c_int, c_uint) = (5, 5);

/// A read-only connection, owned by the thread that opened it.
#[derive(Debug)]
pub struct Connection {
    pub(super) raw: NonNull<sys::virConnect>,
    /// The ids of the registrations for events. Each keeps the connection in memory until it is removed.
    pub(super) registered: RefCell<Vec<c_int>>,
}

/// Returns an error that says what is wrong with a node file of the test driver. libvirt's own error says only that it
/// cannot parse the file.
fn check_node_file(uri: &str) -> Result<(), Error> {
    let Some(path) = node_file(uri) else {
        return Ok(());
    };
    let read = || {
        let meta = std::fs::metadata(&path)?;
        // A FIFO can be read only once.
        if meta.is_file() || meta.is_dir() {
            File::open(&path)?.read_exact(&mut [0])?;
        }
        Ok(())
    };
    read().map_err(|error: std::io::Error| match error.kind() {
        ErrorKind::UnexpectedEof => {
            Error::invalid(format!("{}: the file is empty", path.display()))
        }
        _ => Error::invalid(format!("{}: {error}", path.display())),
    })
}

impl Connection {
    /// Opens `uri` read-only (`virConnectOpenReadOnly`), with keepalive if the transport has it. This may block for as
    /// long as the daemon is frozen.
    ///
    /// # Errors
    /// The error of libvirt; [`Error::remedy`] says what to do.
    pub fn open(uri: &str) -> Result<Self, Error> {
        check_node_file(uri)?;
        count(CallKind::Open);
        let uri = c_string(uri)?;
        // SAFETY: `uri` is NUL-terminated and lives through the call.
        let raw = unsafe { sys::virConnectOpenReadOnly(uri.as_ptr()) };
        let connection = NonNull::new(raw)
            .map(|raw| Self {
                raw,
                registered: RefCell::default(),
            })
            .ok_or_else(last_error)?;
        // SAFETY: the connection is open. Drivers that run in this process have no keepalive and return an
        // error, which can be ignored.
        unsafe { sys::virConnectSetKeepAlive(raw, KEEPALIVE.0, KEEPALIVE.1) };
        Ok(connection)
    }

    /// Whether the connection is alive, as far as this side knows; makes no call to the daemon.
    pub fn is_alive(&self) -> bool {
        // SAFETY: the connection is open for as long as `self` is.
        unsafe { sys::virConnectIsAlive(self.raw.as_ptr()) == 1 }
    }

    /// The driver's name (`virConnectGetType`): QEMU, TEST, LXC, ...
    pub fn driver(&self) -> Option<String> {
        // SAFETY: the name belongs to the connection and is copied; NULL means that the call failed.
        unsafe {
            let raw = sys::virConnectGetType(self.raw.as_ptr());
            (!raw.is_null()).then(|| text(raw))
        }
    }

    /// The daemon's version of libvirt, 11_003_000 for 11.3.0 (`virConnectGetLibVersion`): a round trip
    /// for which the daemon needs no domain.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn lib_version(&self) -> Result<u64, Error> {
        let mut version = 0;
        // SAFETY: the number lives through the call.
        check(unsafe { sys::virConnectGetLibVersion(self.raw.as_ptr(), &mut version) })?;
        Ok(version)
    }

    /// The hypervisor's version, 7_002_000 for QEMU 7.2.0 (`virConnectGetVersion`). libvirtd may have to start a QEMU
    /// to know it, which takes seconds where what it knows of that QEMU is out of date.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn hypervisor_version(&self) -> Result<u64, Error> {
        let mut version = 0;
        // SAFETY: the number lives through the call.
        check(unsafe { sys::virConnectGetVersion(self.raw.as_ptr(), &mut version) })?;
        Ok(version)
    }

    /// Handles of all active domains (`virConnectListAllDomains`), with their names, UUIDs and ids.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn active_domains(&self) -> Result<Vec<Domain>, Error> {
        self.domains(sys::VIR_CONNECT_LIST_DOMAINS_ACTIVE)
    }

    /// Handles of the inactive domains that start with the host, or of those that do not
    /// (`virConnectListAllDomains`). A domain without a configuration that stays is inactive only while it is being
    /// started or ended, and is left out.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn inactive_domains(&self, autostart: bool) -> Result<Vec<Domain>, Error> {
        let autostart = match autostart {
            true => sys::VIR_CONNECT_LIST_DOMAINS_AUTOSTART,
            false => sys::VIR_CONNECT_LIST_DOMAINS_NO_AUTOSTART,
        };
        let persistent = sys::VIR_CONNECT_LIST_DOMAINS_PERSISTENT;
        self.domains(sys::VIR_CONNECT_LIST_DOMAINS_INACTIVE | persistent | autostart)
    }

    fn domains(&self, filter: sys::virConnectListAllDomainsFlags) -> Result<Vec<Domain>, Error> {
        count(CallKind::List);
        let mut list: *mut sys::virDomainPtr = ptr::null_mut();
        // SAFETY: libvirt gives the array and its handles to the caller.
        let handles = unsafe {
            let count = check(sys::virConnectListAllDomains(
                self.raw.as_ptr(),
                &mut list,
                filter,
            ))?;
            owned_handles(list, count)
        };
        Ok(handles.into_iter().map(|raw| Domain { raw }).collect())
    }

    /// A handle by UUID (`virDomainLookupByUUID`). This returns even while another domain is locked.
    ///
    /// # Errors
    /// `VIR_ERR_NO_DOMAIN` if there is no such domain, or another error of libvirt.
    pub fn lookup(&self, uuid: Uuid) -> Result<Domain, Error> {
        count(CallKind::Lookup);
        // SAFETY: the UUID's 16 bytes live through the call.
        let raw =
            unsafe { sys::virDomainLookupByUUID(self.raw.as_ptr(), uuid.as_bytes().as_ptr()) };
        NonNull::new(raw)
            .map(|raw| Domain { raw })
            .ok_or_else(last_error)
    }

    /// Removes the registrations for events, each by a call to the daemon, while `go_on` allows it. Returns whether none is
    /// left.
    pub fn remove_registrations(&self, go_on: impl Fn() -> bool) -> bool {
        let mut registered = self.registered.borrow_mut();
        while let Some(id) = registered.pop_if(|_| go_on()) {
            // SAFETY: the connection is open, at least at this end, where libvirt removes the registration first, and with
            // it the reference to the connection. This is so also if the call fails.
            unsafe { sys::virConnectDomainEventDeregisterAny(self.raw.as_ptr(), id) };
        }
        registered.is_empty()
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.remove_registrations(|| true);
        // SAFETY: this gives up the one reference that `self` has; handles have references of their own.
        unsafe { sys::virConnectClose(self.raw.as_ptr()) };
    }
}
