//! Storage pools. None of these calls makes libvirt look at the storage: they give what the last refresh found.

use std::ptr::{self, NonNull};

use uuid::Uuid;
use virt::sys;

use super::{Connection, check, last_error, owned_handles, owned_text, text};
use crate::hypervisor::calls::{CallKind, count};
use crate::libvirt::Error;

/// A handle of one storage pool. It identifies the pool by its UUID and keeps its connection open.
#[derive(Debug)]
pub struct StoragePool {
    raw: NonNull<sys::virStoragePool>,
}

/// State and sizes of a pool, as of its last refresh.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PoolInfo {
    /// virStoragePoolState.
    pub state: u32,
    /// Bytes.
    pub capacity: u64,
    /// Bytes in use.
    pub allocation: u64,
    /// Bytes that are free.
    pub available: u64,
}

impl Connection {
    /// Handles of all storage pools, inactive ones among them (`virConnectListAllStoragePools`). libvirtd locks one pool
    /// after the other for it, and waits for one that is being refreshed.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn storage_pools(&self) -> Result<Vec<StoragePool>, Error> {
        count(CallKind::Pool);
        let mut list: *mut sys::virStoragePoolPtr = ptr::null_mut();
        // SAFETY: libvirt gives the array and its handles to the caller.
        let handles = unsafe {
            let count = check(sys::virConnectListAllStoragePools(
                self.raw.as_ptr(),
                &mut list,
                0,
            ))?;
            owned_handles(list, count)
        };
        Ok(handles.into_iter().map(|raw| StoragePool { raw }).collect())
    }

    /// A handle by UUID (`virStoragePoolLookupByUUID`). This returns also while another pool is locked.
    ///
    /// # Errors
    /// `VIR_ERR_NO_STORAGE_POOL` if there is no such pool, or another error of libvirt.
    pub fn storage_pool(&self, uuid: Uuid) -> Result<StoragePool, Error> {
        count(CallKind::Pool);
        // SAFETY: the UUID's 16 bytes live through the call.
        let raw =
            unsafe { sys::virStoragePoolLookupByUUID(self.raw.as_ptr(), uuid.as_bytes().as_ptr()) };
        NonNull::new(raw)
            .map(|raw| StoragePool { raw })
            .ok_or_else(last_error)
    }
}

impl StoragePool {
    /// The pool's UUID; makes no call to the daemon.
    pub fn uuid(&self) -> Uuid {
        let mut bytes = [0_u8; 16];
        // SAFETY: the handle is valid for as long as `self` is; libvirt writes VIR_UUID_BUFLEN (16) bytes, or none.
        unsafe { sys::virStoragePoolGetUUID(self.raw.as_ptr(), bytes.as_mut_ptr()) };
        Uuid::from_bytes(bytes)
    }

    /// The pool's name; makes no call to the daemon.
    pub fn name(&self) -> String {
        // SAFETY: the name belongs to the handle and is copied.
        unsafe { text(sys::virStoragePoolGetName(self.raw.as_ptr())) }
    }

    /// `virStoragePoolGetInfo`. It waits while libvirtd refreshes this pool.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn info(&self) -> Result<PoolInfo, Error> {
        count(CallKind::Pool);
        let mut info = sys::virStoragePoolInfo {
            state: 0,
            capacity: 0,
            allocation: 0,
            available: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virStoragePoolGetInfo(self.raw.as_ptr(), &mut info) })?;
        Ok(PoolInfo {
            state: info.state.unsigned_abs(),
            capacity: info.capacity,
            allocation: info.allocation,
            available: info.available,
        })
    }

    /// The pool's XML (`virStoragePoolGetXMLDesc`). It waits as [`StoragePool::info`] does.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn xml(&self) -> Result<String, Error> {
        count(CallKind::Pool);
        // SAFETY: libvirt gives the text to the caller.
        unsafe { owned_text(sys::virStoragePoolGetXMLDesc(self.raw.as_ptr(), 0)) }
    }
}

impl Drop for StoragePool {
    fn drop(&mut self) {
        // SAFETY: this gives up the one reference that `self` has.
        unsafe { sys::virStoragePoolFree(self.raw.as_ptr()) };
    }
}
