//! Events of domains, which libvirt sends by itself: the registration for them.

mod callbacks;
mod lifecycle;

use std::ffi::{c_char, c_int, c_ulonglong, c_void};
use std::ptr;

use virt::sys;

use callbacks::{
    balloon_changed, block_job_changed, device_added, device_removed, free_sink, io_error_reported,
    job_completed, memory_device_changed, metadata_changed, reset, tray_moved, tunable_changed,
};
use lifecycle::started_or_stopped;

use super::{Connection, last_error};
use crate::libvirt::{DomainEvent, Error, OptionalKinds};

type EventSink = Box<dyn Fn(DomainEvent) + Send + Sync>;

/// The version of libvirt that began to report memory devices (virtio-mem) that change their size, and to have them.
const MEMORY_DEVICE_EVENTS_SINCE: u64 = 7_009_000;

impl Connection {
    /// Calls `on_event` whenever a domain starts or stops, a device or its image changes, a disk has an I/O error, and so on
    /// (`virConnectDomainEventRegisterAny`). The thread of the event loop makes these calls for as long as the
    /// connection is open. A driver may have no events for trays, block jobs, tunables, I/O errors, jobs, balloons and resets.
    ///
    /// `wanted`: which of the kinds that a driver may lack are wanted. libvirt before 3.0 has no event for metadata, before
    /// 1.3.3 none for jobs. No call is begun once `go_on` is false. Returns which were registered until then.
    ///
    /// # Errors
    /// `VIR_ERR_NO_SUPPORT` if the driver has no events, or another error of libvirt.
    pub fn on_event(
        &self,
        wanted: OptionalKinds,
        go_on: impl Fn() -> bool,
        on_event: impl Fn(DomainEvent) + Clone + Send + Sync + 'static,
    ) -> Result<OptionalKinds, Error> {
        type AnyCallback = unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *mut c_void);
        type LifecycleCallback =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_int, c_int, *mut c_void);
        type DeviceCallback =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, *const c_char, *mut c_void);
        type TrayCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            *const c_char,
            c_int,
            *mut c_void,
        );
        type ParametersCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            sys::virTypedParameterPtr,
            c_int,
            *mut c_void,
        );
        type BlockJobCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            *const c_char,
            c_int,
            c_int,
            *mut c_void,
        );
        type BalloonCallback =
            unsafe extern "C" fn(sys::virConnectPtr, sys::virDomainPtr, c_ulonglong, *mut c_void);
        type MemoryDeviceCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            *const c_char,
            c_ulonglong,
            *mut c_void,
        );
        type MetadataCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            c_int,
            *const c_char,
            *mut c_void,
        );
        type IoErrorCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            *const c_char,
            *const c_char,
            c_int,
            *const c_char,
            *mut c_void,
        );
        // SAFETY: libvirt stores all callbacks as the generic type, and calls each with the arguments of its
        // event, which are these.
        let (
            lifecycle,
            added,
            removed,
            tray,
            block_job,
            tunable,
            io_error,
            metadata_changed,
            job,
            balloon,
            memory_device,
        ) = unsafe {
            (
                std::mem::transmute::<LifecycleCallback, AnyCallback>(started_or_stopped),
                std::mem::transmute::<DeviceCallback, AnyCallback>(device_added),
                std::mem::transmute::<DeviceCallback, AnyCallback>(device_removed),
                std::mem::transmute::<TrayCallback, AnyCallback>(tray_moved),
                std::mem::transmute::<BlockJobCallback, AnyCallback>(block_job_changed),
                std::mem::transmute::<ParametersCallback, AnyCallback>(tunable_changed),
                std::mem::transmute::<IoErrorCallback, AnyCallback>(io_error_reported),
                std::mem::transmute::<MetadataCallback, AnyCallback>(metadata_changed),
                std::mem::transmute::<ParametersCallback, AnyCallback>(job_completed),
                std::mem::transmute::<BalloonCallback, AnyCallback>(balloon_changed),
                std::mem::transmute::<MemoryDeviceCallback, AnyCallback>(memory_device_changed),
            )
        };
        let mut optional = OptionalKinds::default();
        let mut memory = Vec::new();
        let kinds = [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, true),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, added, true),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, removed, true),
            (sys::VIR_DOMAIN_EVENT_ID_TRAY_CHANGE, tray, false),
            (sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, block_job, false),
            (sys::VIR_DOMAIN_EVENT_ID_TUNABLE, tunable, false),
            (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error, false),
            (
                sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
                metadata_changed,
                false,
            ),
            (sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED, job, false),
            (sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE, balloon, false),
            (
                sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE,
                memory_device,
                false,
            ),
            (sys::VIR_DOMAIN_EVENT_ID_REBOOT, reset as AnyCallback, false),
        ];
        let is_wanted = |id| match id {
            sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON => wanted.io_errors,
            sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE => wanted.metadata,
            sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED => wanted.jobs,
            sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE
            | sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE
            | sys::VIR_DOMAIN_EVENT_ID_REBOOT => wanted.memory,
            _ => true,
        };
        for (id, callback, needed) in kinds {
            if !is_wanted(id) {
                continue;
            }
            if !go_on() {
                break;
            }
            let sink: Box<EventSink> = Box::new(Box::new(on_event.clone()));
            let opaque = Box::into_raw(sink).cast::<c_void>();
            // SAFETY: the registration owns `opaque` and frees it by `free_sink`; if it fails, it is freed below.
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
                    if needed || error.is_transport() {
                        return Err(error);
                    }
                    log::debug!("no events of kind {id} from this driver: {error}");
                    continue;
                }
                self.registered.borrow_mut().push(registered);
            }
            match id {
                sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON => optional.io_errors = true,
                sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE => optional.metadata = true,
                sys::VIR_DOMAIN_EVENT_ID_JOB_COMPLETED => optional.jobs = true,
                sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE
                | sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE
                | sys::VIR_DOMAIN_EVENT_ID_REBOOT => memory.push(id),
                _ => {}
            }
        }
        let has = |id| memory.contains(&id);
        optional.memory = has(sys::VIR_DOMAIN_EVENT_ID_BALLOON_CHANGE)
            && has(sys::VIR_DOMAIN_EVENT_ID_REBOOT)
            && (has(sys::VIR_DOMAIN_EVENT_ID_MEMORY_DEVICE_SIZE_CHANGE)
                // Where only the client library is too old, the daemon has such devices.
                || go_on() && self.lib_version().is_ok_and(|daemon| daemon < MEMORY_DEVICE_EVENTS_SINCE));
        Ok(optional)
    }
}
