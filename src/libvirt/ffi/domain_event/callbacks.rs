//! What libvirt calls for events of devices, disks, settings and jobs. None of these functions calls the daemon.

use std::ffi::{c_char, c_int, c_uint, c_ulonglong, c_void};

use virt::sys;

use super::EventSink;
use crate::libvirt::ffi::domain::uuid_of;
use crate::libvirt::ffi::text;
use crate::libvirt::ffi::value::all_typed;
use crate::libvirt::{CompletedJob, DomainEvent, IoError, job_stats};

pub(super) unsafe extern "C" fn device_added(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: `opaque` is the sink that was registered, alive until `free_sink`; the domain lives
    // through the call.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::DeviceAdded(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn device_removed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    alias: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`; the alias is copied.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::DeviceRemoved(uuid_of(domain), text(alias)));
    }
}

pub(super) unsafe extern "C" fn tray_moved(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::ImageChanged(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn tunable_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: sys::virTypedParameterPtr,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`. libvirt frees the parameters, which are not read.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::TunableChanged(uuid_of(domain)));
    }
}

/// In every new state of the job (ready, completed, failed or cancelled), QEMU has opened the target of the job or has
/// closed it.
pub(super) unsafe extern "C" fn block_job_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    _: c_int,
    _: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::ImageChanged(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn metadata_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_int,
    _: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::MetadataChanged(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn balloon_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::MemoryChanged(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn memory_device_changed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    _: c_ulonglong,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::MemoryChanged(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn reset(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        sink(DomainEvent::Reset(uuid_of(domain)));
    }
}

pub(super) unsafe extern "C" fn io_error_reported(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    _: *const c_char,
    alias: *const c_char,
    _: c_int,
    reason: *const c_char,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`; the texts are copied. virDomainGetID does not call the daemon.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        let id = sys::virDomainGetID(domain);
        if id != c_uint::MAX {
            sink(DomainEvent::IoError(IoError {
                uuid: uuid_of(domain),
                id,
                alias: text(alias),
                reason: text(reason),
                count: 1,
            }));
        }
    }
}

pub(super) unsafe extern "C" fn job_completed(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    params: sys::virTypedParameterPtr,
    count: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`. There are `count` parameters, which libvirt frees after this call.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        let id = sys::virDomainGetID(domain);
        sink(DomainEvent::JobCompleted(CompletedJob {
            uuid: uuid_of(domain),
            id: (id != c_uint::MAX).then_some(id),
            stats: job_stats::read(all_typed(params, count)),
        }));
    }
}

pub(super) unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` in `on_event` and is freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}
