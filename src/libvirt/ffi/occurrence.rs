//! Events: what libvirt reports of domains by itself.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use uuid::Uuid;
use virt::sys;

use super::domain::uuid_of;
use super::{Connection, last_error, text};
use crate::libvirt::Error;

/// What an event tells.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Occurrence {
    /// The domain runs, under this id and name: started, restored or migrated in.
    Started(Uuid, u32, String),
    /// It runs no more: shut down, destroyed, saved, crashed or migrated away.
    Stopped(Uuid),
    /// A device was added to it.
    DeviceAdded(Uuid),
    /// The device of this alias (`<alias name='net0'/>`) was removed from it.
    DeviceRemoved(Uuid, String),
}

type EventSink = Box<dyn Fn(Occurrence) + Send + Sync>;

impl Connection {
    /// Calls `on_event` whenever a domain starts or stops, or a device is added to one or removed
    /// (`virConnectDomainEventRegisterAny`), from the event loop's thread, for as long as the
    /// connection stands.
    ///
    /// # Errors
    /// Drivers without events say `VIR_ERR_NO_SUPPORT`.
    pub fn on_event(
        &self,
        on_event: impl Fn(Occurrence) + Clone + Send + Sync + 'static,
    ) -> Result<(), Error> {
        type Generic = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        type Lifecycle =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);
        type Device =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
        // SAFETY: libvirt keeps each callback under the generic type by design, and calls it with
        // the arguments that its event has: these.
        let (lifecycle, added, removed) = unsafe {
            (
                std::mem::transmute::<Lifecycle, Generic>(started_or_stopped),
                std::mem::transmute::<Device, Generic>(device_added),
                std::mem::transmute::<Device, Generic>(device_removed),
            )
        };
        for (id, callback) in [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, added),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, removed),
        ] {
            let sink: Box<EventSink> = Box::new(Box::new(on_event.clone()));
            let opaque = Box::into_raw(sink).cast::<c_void>();
            // SAFETY: `opaque` is owned by the registration and freed by `free_sink`, or below
            // where that failed.
            unsafe {
                let registered = sys::virConnectDomainEventRegisterAny(
                    self.raw.as_ptr(),
                    ptr::null_mut(),
                    id as c_int,
                    Some(callback),
                    opaque,
                    Some(free_sink),
                );
                if registered < 0 {
                    let error = last_error();
                    free_sink(opaque);
                    return Err(error);
                }
                self.registered.borrow_mut().push(registered);
            }
        }
        Ok(())
    }
}

unsafe extern "C" fn started_or_stopped(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`; the name is copied. None of the three calls the daemon.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        let uuid = uuid_of(domain);
        let id = sys::virDomainGetID(domain);
        if event == sys::VIR_DOMAIN_EVENT_STOPPED as c_int {
            sink(Occurrence::Stopped(uuid));
        } else if event == sys::VIR_DOMAIN_EVENT_STARTED as c_int && id != c_uint::MAX {
            sink(Occurrence::Started(
                uuid,
                id,
                text(sys::virDomainGetName(domain)),
            ));
        }
    }
}

unsafe extern "C" fn device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the sink that was registered, alive until `free_sink`; the domain lives
    // through the call.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(Occurrence::DeviceAdded(uuid_of(domain)));
    }
}

unsafe extern "C" fn device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`; the alias is copied.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(Occurrence::DeviceRemoved(uuid_of(domain), text(alias)));
    }
}

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` in `on_event` and is freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}
