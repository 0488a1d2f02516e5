//! Records of bulk statistics.

use std::ffi::c_uint;
use std::marker::PhantomData;
use std::ptr::{self, NonNull};

use virt::sys;

use super::value::all_typed;
use super::{Domain, Value, check};
use crate::hypervisor::calls::{CallKind, count};
use crate::libvirt::Error;

/// The records of one bulk call, freed together.
#[derive(Debug)]
pub struct Records {
    raw: *mut sys::virDomainStatsRecordPtr,
    count: usize,
}

impl Records {
    /// `virDomainListGetStats` for these groups of these domains. libvirt leaves out domains that do not exist any more.
    ///
    /// # Errors
    /// The error of libvirt, which also refuses handles of different connections.
    pub fn get(domains: &[&Domain], groups: u32, flags: u32) -> Result<Self, Error> {
        count(CallKind::Bulk);
        let mut handles: Vec<sys::virDomainPtr> = domains
            .iter()
            .map(|domain| domain.raw.as_ptr())
            .chain([ptr::null_mut()])
            .collect();
        let mut raw: *mut sys::virDomainStatsRecordPtr = ptr::null_mut();
        // SAFETY: the list of handles ends in NULL as the API requires; `Records` owns the records.
        let count = check(unsafe {
            sys::virDomainListGetStats(handles.as_mut_ptr(), groups, &mut raw, flags)
        })?;
        Ok(Self {
            raw,
            count: count as usize,
        })
    }

    /// The records, in libvirt's order.
    pub fn iter(&self) -> impl Iterator<Item = Record<'_>> {
        // SAFETY: `raw` holds `count` records until `self` is dropped.
        (0..self.count).map(|i| Record {
            raw: unsafe { *self.raw.add(i) },
            owner: PhantomData,
        })
    }
}

impl Drop for Records {
    fn drop(&mut self) {
        // SAFETY: `self` owns the records and frees them once; NULL is allowed.
        unsafe { sys::virDomainStatsRecordListFree(self.raw) };
    }
}

/// One domain's record.
#[derive(Debug)]
pub struct Record<'a> {
    raw: sys::virDomainStatsRecordPtr,
    owner: PhantomData<&'a Records>,
}

impl<'a> Record<'a> {
    /// The domain's id at the time of the call; `None` if it is not active any more.
    pub fn id(&self) -> Option<u32> {
        // SAFETY: the record's handle is valid as long as the record.
        let id = unsafe { sys::virDomainGetID((*self.raw).dom) };
        (id != c_uint::MAX).then_some(id)
    }

    /// A handle of the domain, with its id at the time of the call.
    pub fn domain(&self) -> Option<Domain> {
        // SAFETY: the record's handle is valid as long as the record; virDomainRef adds a reference, which `Domain`
        // gives up when it is dropped.
        unsafe {
            let raw = NonNull::new((*self.raw).dom)?;
            sys::virDomainRef(raw.as_ptr());
            Some(Domain { raw })
        }
    }

    /// Key and value of each parameter; strings that are not UTF-8 are skipped.
    pub fn params(&self) -> impl Iterator<Item = (&'a [u8], Value<'a>)> + Clone {
        // SAFETY: the record holds `nparams` parameters and lives as long as its list.
        unsafe {
            let record = &*self.raw;
            all_typed(record.params, record.nparams)
        }
    }
}
