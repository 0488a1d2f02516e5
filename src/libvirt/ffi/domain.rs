//! Handles of domains, and the calls for a single domain.

use std::ffi::{c_int, c_uint};
use std::ptr::{self, NonNull};
use std::time::Duration;

use uuid::Uuid;
use virt::sys;

use super::value::{all_typed, typed};
use super::{Value, c_string, check, owned_text, text};
use crate::hypervisor::calls::{CallKind, count};
use crate::libvirt::{Error, job_stats};
use crate::sample::JobStats;

/// A handle of one domain. It identifies the domain by its UUID and keeps its connection open.
#[derive(Debug)]
pub struct Domain {
    pub(super) raw: NonNull<sys::virDomain>,
}

/// Whether a domain's monitor is in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Monitor {
    /// The monitor is free.
    Free,
    /// A command has occupied the monitor for this time.
    Occupied(Duration),
    /// The monitor is in use within a job whose progress libvirt reports (backup, migration, dump, save). The time that
    /// libvirt gives then is that of the job (qemuDomainGetControlInfo in its src/qemu/qemu_driver.c).
    Job,
}

impl Domain {
    /// The domain's UUID; makes no call to the daemon.
    pub fn uuid(&self) -> Uuid {
        // SAFETY: the handle is valid for as long as `self` is.
        unsafe { uuid_of(self.raw.as_ptr()) }
    }

    /// The id of the run for which the handle was made; `None` for an inactive domain.
    pub fn id(&self) -> Option<u32> {
        // SAFETY: as above; libvirt returns (unsigned) -1 for a domain without an id.
        let id = unsafe { sys::virDomainGetID(self.raw.as_ptr()) };
        (id != c_uint::MAX).then_some(id)
    }

    /// The domain's name when the handle was made.
    pub fn name(&self) -> String {
        // SAFETY: the name belongs to the handle and is copied.
        unsafe { text(sys::virDomainGetName(self.raw.as_ptr())) }
    }

    /// `virDomainGetInfo`: needs no QEMU monitor.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn info(&self) -> Result<sys::virDomainInfo, Error> {
        count(CallKind::Info);
        let mut info = sys::virDomainInfo {
            state: 0,
            maxMem: 0,
            memory: 0,
            nrVirtCpu: 0,
            cpuTime: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virDomainGetInfo(self.raw.as_ptr(), &mut info) })?;
        Ok(info)
    }

    /// `virDomainGetAutostart`: whether the domain starts with the host.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn autostart(&self) -> Result<bool, Error> {
        count(CallKind::Autostart);
        let mut starts = 0;
        // SAFETY: the number lives through the call.
        check(unsafe { sys::virDomainGetAutostart(self.raw.as_ptr(), &mut starts) })?;
        Ok(starts != 0)
    }

    /// `virDomainIsPersistent`: whether the domain has a configuration that stays when it stops.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn is_persistent(&self) -> Result<bool, Error> {
        count(CallKind::Persistent);
        // SAFETY: the handle is valid for as long as `self` is.
        let is = check(unsafe { sys::virDomainIsPersistent(self.raw.as_ptr()) })?;
        Ok(is != 0)
    }

    /// `virDomainGetState`: state and reason, libvirt's numbers.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn state(&self) -> Result<(i32, i32), Error> {
        count(CallKind::State);
        let (mut state, mut reason) = (0, 0);
        // SAFETY: both numbers live through the call.
        check(unsafe { sys::virDomainGetState(self.raw.as_ptr(), &mut state, &mut reason, 0) })?;
        Ok((state, reason))
    }

    /// Whether the domain's monitor is in use (`virDomainGetControlInfo`). The call takes no job, and
    /// priority workers of libvirtd serve it.
    ///
    /// # Errors
    /// The error of libvirt. Only QEMU's driver has this call.
    pub fn monitor(&self) -> Result<Monitor, Error> {
        count(CallKind::Control);
        let mut info = sys::virDomainControlInfo {
            state: 0,
            details: 0,
            stateTime: 0,
        };
        // SAFETY: `info` is a struct of libvirt's own layout that lives through the call.
        check(unsafe { sys::virDomainGetControlInfo(self.raw.as_ptr(), &mut info, 0) })?;
        Ok(match info.state {
            sys::VIR_DOMAIN_CONTROL_OCCUPIED => {
                Monitor::Occupied(Duration::from_millis(info.stateTime))
            }
            sys::VIR_DOMAIN_CONTROL_JOB => Monitor::Job,
            _ => Monitor::Free,
        })
    }

    /// The job that runs on the domain (`virDomainGetJobStats`); `None` if there is none. In QEMU's driver the call waits up
    /// to 30 s for the domain's own job, and it may ask QEMU's monitor.
    ///
    /// # Errors
    /// The error of libvirt: `VIR_ERR_OPERATION_UNSUPPORTED` while the domain is migrated in.
    pub fn job_stats(&self) -> Result<Option<JobStats>, Error> {
        count(CallKind::Job);
        let (mut kind, mut filled) = (0, 0);
        let mut params: sys::virTypedParameterPtr = ptr::null_mut();
        // SAFETY: the three variables live through the call. libvirt allocates the parameters, and `virTypedParamsFree`
        // frees them with the strings that they own.
        unsafe {
            let domain = self.raw.as_ptr();
            check(sys::virDomainGetJobStats(
                domain,
                &mut kind,
                &mut params,
                &mut filled,
                0,
            ))?;
            let is_any = kind != sys::VIR_DOMAIN_JOB_NONE as c_int;
            let stats = is_any.then(|| job_stats::read(all_typed(params, filled)));
            sys::virTypedParamsFree(params, filled);
            Ok(stats)
        }
    }

    /// `virDomainGetCPUStats`, the total over all CPUs: calls `each` with key and value. `known` is the number of
    /// parameters that the driver has; if it is 0, a first call asks for it.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn cpu_totals(
        &self,
        known: &mut u32,
        mut each: impl FnMut(&[u8], Value<'_>),
    ) -> Result<(), Error> {
        const ROOM: usize = 16;
        // SAFETY: an all-zero parameter is a valid one (an empty name, no type).
        let mut params: [sys::virTypedParameter; ROOM] = unsafe { std::mem::zeroed() };
        // SAFETY: start_cpu -1 with one CPU asks for the total; at most `ROOM` parameters are written, and
        // `virTypedParamsClear` frees the strings that they own.
        unsafe {
            let domain = self.raw.as_ptr();
            if *known == 0 {
                count(CallKind::Cpu);
                let nothing = ptr::null_mut();
                *known = check(sys::virDomainGetCPUStats(domain, nothing, 0, -1, 1, 0))? as u32;
            }
            count(CallKind::Cpu);
            let room = (*known as usize).min(ROOM) as c_uint;
            let buffer = params.as_mut_ptr();
            let count = check(sys::virDomainGetCPUStats(domain, buffer, room, -1, 1, 0))?;
            let count = (count as usize).min(ROOM);
            for param in &params[..count] {
                if let Some((key, value)) = typed(param) {
                    each(key, value);
                }
            }
            sys::virTypedParamsClear(params.as_mut_ptr(), count as c_int);
        }
        Ok(())
    }

    /// `virDomainMemoryStats`: calls `each` with tag (`VIR_DOMAIN_MEMORY_STAT_*`) and value.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn memory_stats(&self, mut each: impl FnMut(u32, u64)) -> Result<(), Error> {
        count(CallKind::Memory);
        const ROOM: usize = 32;
        let mut stats = [sys::virDomainMemoryStatStruct { tag: 0, val: 0 }; ROOM];
        // SAFETY: at most `ROOM` entries are written.
        let count = check(unsafe {
            sys::virDomainMemoryStats(self.raw.as_ptr(), stats.as_mut_ptr(), ROOM as c_uint, 0)
        })?;
        for stat in stats.iter().take(count as usize) {
            each(stat.tag as u32, stat.val);
        }
        Ok(())
    }

    /// `virDomainInterfaceStats` of the NIC with this name on the host; -1 means not counted.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn interface_stats(
        &self,
        target: &str,
    ) -> Result<sys::virDomainInterfaceStatsStruct, Error> {
        count(CallKind::Interface);
        let target = c_string(target)?;
        // SAFETY: all-zero is a valid value of this struct of integers; libvirt gets its size and does not write
        // more; the name lives through the call.
        unsafe {
            let mut stats: sys::virDomainInterfaceStatsStruct = std::mem::zeroed();
            check(sys::virDomainInterfaceStats(
                self.raw.as_ptr(),
                target.as_ptr(),
                &mut stats,
                size_of_val(&stats),
            ))?;
            Ok(stats)
        }
    }

    /// `virDomainBlockStats` of the disk with this target; -1 means not counted.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn block_stats(&self, target: &str) -> Result<sys::virDomainBlockStatsStruct, Error> {
        count(CallKind::Block);
        let target = c_string(target)?;
        // SAFETY: as for `interface_stats`.
        unsafe {
            let mut stats: sys::virDomainBlockStatsStruct = std::mem::zeroed();
            check(sys::virDomainBlockStats(
                self.raw.as_ptr(),
                target.as_ptr(),
                &mut stats,
                size_of_val(&stats),
            ))?;
            Ok(stats)
        }
    }

    /// `virDomainBlockStatsFlags` of the disk with this target: calls `each` with key and value. It is one call, for the
    /// array has room for all that a reply can hold.
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn block_stats_flags(
        &self,
        target: &str,
        mut each: impl FnMut(&[u8], Value<'_>),
    ) -> Result<(), Error> {
        /// `REMOTE_DOMAIN_BLOCK_STATS_PARAMETERS_MAX` of libvirt's src/remote/remote_protocol.x: the daemon refuses to
        /// fill a larger array. QEMU's driver has 8 parameters.
        const ROOM: usize = 16;
        count(CallKind::Block);
        let target = c_string(target)?;
        let mut filled = ROOM as c_int;
        // SAFETY: an all-zero parameter is a valid one; at most `ROOM` parameters are written, `filled` says how many,
        // and `virTypedParamsClear` frees the strings that they own; the name lives through the call.
        unsafe {
            let mut params: [sys::virTypedParameter; ROOM] = std::mem::zeroed();
            check(sys::virDomainBlockStatsFlags(
                self.raw.as_ptr(),
                target.as_ptr(),
                params.as_mut_ptr(),
                &mut filled,
                0,
            ))?;
            for param in params.iter().take(filled.max(0) as usize) {
                if let Some((key, value)) = typed(param) {
                    each(key, value);
                }
            }
            sys::virTypedParamsClear(params.as_mut_ptr(), filled.clamp(0, ROOM as c_int));
        }
        Ok(())
    }

    /// The live XML (`virDomainGetXMLDesc`).
    ///
    /// # Errors
    /// The error of libvirt.
    pub fn xml(&self) -> Result<String, Error> {
        count(CallKind::Xml);
        // SAFETY: libvirt gives the text to the caller.
        unsafe { owned_text(sys::virDomainGetXMLDesc(self.raw.as_ptr(), 0)) }
    }
}

impl Drop for Domain {
    fn drop(&mut self) {
        // SAFETY: this gives up the one reference that `self` has.
        unsafe { sys::virDomainFree(self.raw.as_ptr()) };
    }
}

/// # Safety
/// `domain` is a valid handle.
pub(super) unsafe fn uuid_of(domain: sys::virDomainPtr) -> Uuid {
    let mut bytes = [0_u8; 16];
    // SAFETY: libvirt writes VIR_UUID_BUFLEN (16) bytes, or none.
    unsafe { sys::virDomainGetUUID(domain, bytes.as_mut_ptr()) };
    Uuid::from_bytes(bytes)
}
