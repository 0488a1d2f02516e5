//! Events of domains that start, stop or change their state.

use std::ffi::{c_int, c_uint, c_void};

use virt::sys;

use super::EventSink;
use crate::libvirt::ffi::domain::uuid_of;
use crate::libvirt::ffi::text;
use crate::libvirt::{DomainEvent, Stop};

pub(super) unsafe extern "C" fn started_or_stopped(
    _: sys::virConnectPtr,
    domain: sys::virDomainPtr,
    event: c_int,
    detail: c_int,
    opaque: *mut c_void,
) {
    // SAFETY: as in `callbacks::device_added`; the name is copied. None of the three functions calls the daemon.
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
        if is_revert(event, detail) {
            sink(DomainEvent::ImageChanged(uuid));
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

/// Whether a lifecycle event tells that the domain is in the state of a snapshot, in the same run: with the images and the
/// configuration of the snapshot.
fn is_revert(event: c_int, detail: c_int) -> bool {
    let states = [
        (
            sys::VIR_DOMAIN_EVENT_SUSPENDED,
            sys::VIR_DOMAIN_EVENT_SUSPENDED_FROM_SNAPSHOT,
        ),
        (
            sys::VIR_DOMAIN_EVENT_RESUMED,
            sys::VIR_DOMAIN_EVENT_RESUMED_FROM_SNAPSHOT,
        ),
    ];
    let state = c_uint::try_from(event)
        .ok()
        .zip(c_uint::try_from(detail).ok());
    state.is_some_and(|state| states.contains(&state))
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
        let reverts: Vec<(c_int, c_int)> = (-1..9)
            .flat_map(|event| (-1..9).map(move |detail| (event, detail)))
            .filter(|(event, detail)| is_revert(*event, *detail))
            .collect();
        assert_eq!(reverts, [(3, 5), (4, 2)]);
        let definitions: Vec<c_int> = (-1..9).filter(|event| is_definition(*event)).collect();
        assert_eq!(definitions, [0, 1]);
    }
}
