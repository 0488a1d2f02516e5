//! Events of domains, which libvirt sends by itself.

use std::ffi::{c_char, c_int, c_uint, c_void};
use std::ptr;

use uuid::Uuid;
use virt::sys;

use super::domain::uuid_of;
use super::{Connection, last_error, text};
use crate::libvirt::Error;

/// An event.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DomainEvent {
    /// The domain runs, with this id and name: it was started, restored or migrated in.
    Started(Uuid, u32, String),
    /// The QEMU of the domain's run with this id has arrived: its start or restore is over, or it was resumed. It may be
    /// paused.
    Arrived(Uuid, u32),
    /// The domain does not run any more: it was shut down, destroyed, saved or migrated away, or it crashed.
    Stopped(Stop),
    /// The kernel of the guest panicked (a pvpanic device reported it). What becomes of the domain depends on its
    /// `<on_crash>`.
    Panicked(Uuid),
    /// A device was added to the domain.
    DeviceAdded(Uuid),
    /// The device with this alias (`<alias name='net0'/>`) was removed from the domain.
    DeviceRemoved(Uuid, String),
    /// The image of a disk may have changed: a tray moved, so a medium may have been changed, or a block job that copies
    /// to another image is in step with its source or has ended.
    ImageChanged(Uuid),
    /// The title, the description or the metadata of the domain changed.
    MetadataChanged(Uuid),
    /// The domain's configuration was stored or deleted, so the domain may have become persistent or transient.
    DefinitionChanged(Uuid),
    /// Something in `<cputune>`, or a limit of a disk, was changed (`virsh schedinfo`).
    TunableChanged(Uuid),
    /// A request of the guest to a disk failed.
    IoError(IoError),
}

/// A stop of a domain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Stop {
    /// The domain.
    pub uuid: Uuid,
    /// The id of the run that ended. Mostly libvirt has dropped it before it makes the event.
    pub id: Option<u32>,
    /// Why (virDomainShutoffReason).
    pub reason: i32,
}

/// An I/O error of a disk.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct IoError {
    /// The domain.
    pub uuid: Uuid,
    /// The id of the run in which it happened.
    pub id: u32,
    /// The disk (`<alias name='virtio-disk0'/>`).
    pub alias: String,
    /// libvirt's word for the cause: `enospc`, or empty if it knows none; that of the first one if there are more.
    pub reason: String,
    /// How many there were: one a event, and more where events have waited.
    pub count: u64,
}

impl IoError {
    /// Whether both are errors of the same disk in the same run.
    pub fn is_of_same_disk(&self, other: &Self) -> bool {
        (self.uuid, self.id, &self.alias) == (other.uuid, other.id, &other.alias)
    }
}

/// Which of the kinds of events that a driver may lack were registered.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct OptionalKinds {
    /// [`DomainEvent::IoError`].
    pub io_errors: bool,
    /// [`DomainEvent::MetadataChanged`].
    pub metadata: bool,
}

type EventSink = Box<dyn Fn(DomainEvent) + Send + Sync>;

impl Connection {
    /// Calls `on_event` whenever a domain starts or stops, a device or its image changes, or a disk has an I/O error
    /// (`virConnectDomainEventRegisterAny`). The thread of the event loop makes these calls for as long as the
    /// connection is open. A driver may have no events for trays, block jobs, tunables and I/O errors.
    ///
    /// `metadata`: whether changes of the metadata are wanted, too; libvirt before 3.0 has no event for them. Returns which
    /// of the kinds that may be lacking were registered.
    ///
    /// # Errors
    /// `VIR_ERR_NO_SUPPORT` if the driver has no events, or another error of libvirt.
    pub fn on_event(
        &self,
        metadata: bool,
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
        type TunableCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            sys::virTypedParameterPtr,
            c_int,
            *mut c_void,
        );
        type JobCallback = unsafe extern "C" fn(
            sys::virConnectPtr,
            sys::virDomainPtr,
            *const c_char,
            c_int,
            c_int,
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
        let (lifecycle, added, removed, tray, job, tunable, io_error, metadata_changed) = unsafe {
            (
                std::mem::transmute::<LifecycleCallback, AnyCallback>(started_or_stopped),
                std::mem::transmute::<DeviceCallback, AnyCallback>(device_added),
                std::mem::transmute::<DeviceCallback, AnyCallback>(device_removed),
                std::mem::transmute::<TrayCallback, AnyCallback>(tray_moved),
                std::mem::transmute::<JobCallback, AnyCallback>(block_job_changed),
                std::mem::transmute::<TunableCallback, AnyCallback>(tunable_changed),
                std::mem::transmute::<IoErrorCallback, AnyCallback>(io_error_reported),
                std::mem::transmute::<MetadataCallback, AnyCallback>(metadata_changed),
            )
        };
        let mut optional = OptionalKinds::default();
        let kinds = [
            (sys::VIR_DOMAIN_EVENT_ID_LIFECYCLE, lifecycle, true),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_ADDED, added, true),
            (sys::VIR_DOMAIN_EVENT_ID_DEVICE_REMOVED, removed, true),
            (sys::VIR_DOMAIN_EVENT_ID_TRAY_CHANGE, tray, false),
            (sys::VIR_DOMAIN_EVENT_ID_BLOCK_JOB_2, job, false),
            (sys::VIR_DOMAIN_EVENT_ID_TUNABLE, tunable, false),
            (sys::VIR_DOMAIN_EVENT_ID_IO_ERROR_REASON, io_error, false),
            (
                sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE,
                metadata_changed,
                false,
            ),
        ];
        let is_wanted = |id| metadata || id != sys::VIR_DOMAIN_EVENT_ID_METADATA_CHANGE;
        for (id, callback, needed) in kinds {
            if !is_wanted(id) {
                continue;
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
                _ => {}
            }
        }
        Ok(optional)
    }
}

unsafe extern "C" fn started_or_stopped(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `device_added`; the name is copied. None of the three functions calls the daemon.
    unsafe {
        let sink = &*opaque.cast::<EventSink>();
        let uuid = uuid_of(domain);
        let id = sys::virDomainGetID(domain);
        let id = (id != c_uint::MAX).then_some(id);
        if event == sys::VIR_DOMAIN_EVENT_STOPPED as c_int {
            let reason = shutoff_reason(detail);
            sink(DomainEvent::Stopped(Stop { uuid, id, reason }));
        } else if event == sys::VIR_DOMAIN_EVENT_CRASHED as c_int
            && detail == sys::VIR_DOMAIN_EVENT_CRASHED_PANICKED as c_int
        {
            sink(DomainEvent::Panicked(uuid));
        } else if event == sys::VIR_DOMAIN_EVENT_STARTED as c_int
            && let Some(id) = id
        {
            sink(DomainEvent::Started(
                uuid,
                id,
                text(sys::virDomainGetName(domain)),
            ));
        }
        if let Some(id) = id
            && is_arrival(event, detail)
        {
            sink(DomainEvent::Arrived(uuid, id));
        }
        if is_definition(event) {
            sink(DomainEvent::DefinitionChanged(uuid));
        }
    }
}

/// Whether a lifecycle event tells that the domain's QEMU has arrived. A domain that is migrated in is reported as started
/// when the migration begins, and as resumed in a post-copy migration before its memory is there.
fn is_arrival(event: c_int, detail: c_int) -> bool {
    let (Ok(event), Ok(detail)) = (c_uint::try_from(event), c_uint::try_from(detail)) else {
        return false;
    };
    match event {
        sys::VIR_DOMAIN_EVENT_STARTED => detail != sys::VIR_DOMAIN_EVENT_STARTED_MIGRATED,
        sys::VIR_DOMAIN_EVENT_RESUMED => {
            // VIR_DOMAIN_EVENT_RESUMED_POSTCOPY, ..._POSTCOPY_FAILED
            !matches!(detail, 3 | 4)
        }
        _ => false,
    }
}

/// Whether a lifecycle event tells that the domain's configuration was stored or deleted.
fn is_definition(event: c_int) -> bool {
    let kinds = [
        sys::VIR_DOMAIN_EVENT_DEFINED,
        sys::VIR_DOMAIN_EVENT_UNDEFINED,
    ];
    c_uint::try_from(event).is_ok_and(|event| kinds.contains(&event))
}

/// The reason for the state (virDomainShutoffReason) that belongs to the detail of a stop
/// (virDomainEventStoppedDetailType). The two have the same values in different orders.
fn shutoff_reason(detail: c_int) -> i32 {
    let reason = match c_uint::try_from(detail) {
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_SHUTDOWN) => sys::VIR_DOMAIN_SHUTOFF_SHUTDOWN,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_DESTROYED) => sys::VIR_DOMAIN_SHUTOFF_DESTROYED,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_CRASHED) => sys::VIR_DOMAIN_SHUTOFF_CRASHED,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_MIGRATED) => sys::VIR_DOMAIN_SHUTOFF_MIGRATED,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_SAVED) => sys::VIR_DOMAIN_SHUTOFF_SAVED,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_FAILED) => sys::VIR_DOMAIN_SHUTOFF_FAILED,
        Ok(sys::VIR_DOMAIN_EVENT_STOPPED_FROM_SNAPSHOT) => sys::VIR_DOMAIN_SHUTOFF_FROM_SNAPSHOT,
        _ => sys::VIR_DOMAIN_SHUTOFF_UNKNOWN,
    };
    reason as i32
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
        sink(DomainEvent::DeviceAdded(uuid_of(domain)));
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
        sink(DomainEvent::DeviceRemoved(uuid_of(domain), text(alias)));
    }
}

unsafe extern "C" fn tray_moved(
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

unsafe extern "C" fn tunable_changed(
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
unsafe extern "C" fn block_job_changed(
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

unsafe extern "C" fn metadata_changed(
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

unsafe extern "C" fn io_error_reported(
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

unsafe extern "C" fn free_sink(opaque: *mut c_void) {
    // SAFETY: `opaque` came from `Box::into_raw` in `on_event` and is freed once.
    drop(unsafe { Box::from_raw(opaque.cast::<EventSink>()) });
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_detail_of_a_stop_is_the_reason_of_the_same_name() {
        // virDomainShutoffReason: 1 shutdown, 2 destroyed, 3 crashed, 4 migrated, 5 saved, 6 failed, 7 from snapshot.
        let reasons: Vec<i32> = (-1..8).map(shutoff_reason).collect();
        assert_eq!(reasons, [0, 1, 2, 3, 4, 5, 6, 7, 0]);
    }

    #[test]
    fn a_start_and_a_resume_are_arrivals_unless_a_migration_goes_on() {
        // virDomainEventType: 0 defined, 1 undefined, 2 started, 3 suspended, 4 resumed. Of a start 1 is migrated and 2 restored; of a resume 1
        // is migrated, 3 post-copy, 4 post-copy failed.
        for (event, arrivals) in [(2, &[0, 2, 3, 4][..]), (3, &[]), (4, &[0, 1, 2]), (-1, &[])] {
            let found: Vec<c_int> = (-1..5)
                .filter(|detail| is_arrival(event, *detail))
                .collect();
            assert_eq!(found, arrivals, "{event}");
        }
        let definitions: Vec<c_int> = (-1..9).filter(|event| is_definition(*event)).collect();
        assert_eq!(definitions, [0, 1]);
    }
}
