//! Fetches the figures that a driver's bulk statistics lack, by single calls for each domain.
//!
//! The test driver's bulk call reports only the state; lxc, libxl and ch have no bulk call at all.

mod nics;

use std::time::Instant;

use smol_str::SmolStr;
use virt::sys;

use super::bulk::{self, Groups};
use super::{Domain, Error, Value};
use crate::description::Description;
use crate::device_filter::DeviceFilter;
use crate::sample::{DISK_COUNTERS, Device, Devices, Sample};
pub use nics::by_mac as nics_by_mac;

/// virDomainState: shut off.
pub const SHUTOFF: i32 = sys::VIR_DOMAIN_SHUTOFF as i32;

/// Fetches the figures of the groups in `lacking`. A figure that the driver does not report stays `None`.
///
/// # Errors
/// The domain has stopped or the connection was lost. Other errors only mean that a figure is not reported.
pub fn fill(
    sample: &mut Sample,
    domain: &Domain,
    lacking: Groups,
    description: Option<&Description>,
    wanted: &DeviceFilter,
    source: &mut CpuSource,
    disk_call: &mut DiskCall,
) -> Result<(), Error> {
    if lacking.has(Groups::STATE)
        && let Some((state, reason)) = tolerate(domain, domain.state())?
    {
        sample.state = Some(state);
        sample.reason = Some(reason);
    }
    if lacking.has(Groups::CPU) {
        cpu(sample, domain, source)?;
    }
    if lacking.has(Groups::BALLOON) {
        memory(sample, domain)?;
    }
    if let Some(description) = description {
        if lacking.has(Groups::NET) {
            nics::by_name(sample, domain, description, wanted)?;
        }
        if lacking.has(Groups::BLOCK) {
            sample.disks = Some(disks(domain, description, wanted, disk_call)?);
        }
    }
    Ok(())
}

/// Where the CPU time of a driver comes from, if its bulk statistics have none. The two sources count differently (the
/// control group and the process), so one of them is used for a driver from then on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum CpuSource {
    /// `virDomainGetCPUStats`, as far as is known. The number is how many parameters it gives; 0 if that is not known
    /// yet.
    Totals(u32),
    /// `virDomainGetInfo`: the driver has no other source.
    Info,
}

impl CpuSource {
    /// The source to use from now on, after the calls for one domain ended with `new`. A domain with a job
    /// (`has_job`) does not show that a driver lacks control groups: a libvirtd that was restarted does not know
    /// the control group of a VM until QEMU has answered, and holds the VM's job until then
    /// (qemuProcessReconnect).
    #[must_use]
    pub fn after(self, new: Self, has_job: bool) -> Self {
        if has_job && new == Self::Info {
            self
        } else {
            new
        }
    }
}

impl Default for CpuSource {
    fn default() -> Self {
        Self::Totals(0)
    }
}

/// Fetches the vCPU count and, if they are not reported yet, memory and CPU time.
///
/// # Errors
/// As for [`fill`].
pub fn info(sample: &mut Sample, domain: &Domain, source: CpuSource) -> Result<(), Error> {
    let start = Instant::now();
    let Some(info) = tolerate(domain, domain.info())? else {
        return Ok(());
    };
    let at = midpoint(start);
    sample.vcpus = Some(info.nrVirtCpu.into());
    if sample.memory.current.is_none() {
        sample.memory.at = at;
        // A size may be unlimited or unknown, for which libvirt returns the largest number of KiB.
        let size = |kib: u64| (kib < u64::MAX / 1024).then_some(kib);
        sample.memory.maximum = size(info.maxMem);
        sample.memory.current = size(info.memory);
    }
    if source == CpuSource::Info && sample.cpu.time.is_none() {
        sample.cpu.at = at;
        sample.cpu.time = Some(info.cpuTime);
    }
    Ok(())
}

/// Turns "the driver does not have this call" and a problem of one domain into "not reported".
///
/// `VIR_ERR_OPERATION_INVALID` can mean that the domain has stopped, or that the host lacks a control group (lxc's block
/// and CPU statistics); the state of the domain shows which.
fn tolerate<T>(domain: &Domain, result: Result<T, Error>) -> Result<Option<T>, Error> {
    match result {
        Ok(value) => Ok(Some(value)),
        Err(error) if error.is_transport() => Err(error),
        Err(error) if error.is_vanished() && has_stopped(domain, &error) => Err(error),
        Err(error) => {
            log::trace!("not reported: {error}");
            Ok(None)
        }
    }
}

fn has_stopped(domain: &Domain, error: &Error) -> bool {
    error.code == sys::VIR_ERR_NO_DOMAIN
        || domain.state().map_or(true, |(state, _)| state == SHUTOFF)
}

fn midpoint(start: Instant) -> Instant {
    start + start.elapsed() / 2
}

fn cpu(sample: &mut Sample, domain: &Domain, source: &mut CpuSource) -> Result<(), Error> {
    let CpuSource::Totals(known) = source else {
        return Ok(());
    };
    let start = Instant::now();
    let mut cpu = sample.cpu;
    let totals = domain.cpu_totals(known, |key, value| {
        let Value::Integer(value) = value else { return };
        let value = u64::try_from(value).ok();
        match key {
            b"cpu_time" => cpu.time = value,
            b"user_time" => cpu.user = value,
            b"system_time" => cpu.system = value,
            _ => {}
        }
    });
    if let Err(error) = &totals
        && (error.is_unsupported() || error.message.contains("cgroup"))
    {
        *source = CpuSource::Info;
    }
    if tolerate(domain, totals)?.is_some() {
        cpu.at = midpoint(start);
        sample.cpu = cpu;
    }
    Ok(())
}

fn memory(sample: &mut Sample, domain: &Domain) -> Result<(), Error> {
    let start = Instant::now();
    let mut memory = sample.memory;
    tolerate(
        domain,
        domain.memory_stats(|tag, value| {
            let field = match tag {
                sys::VIR_DOMAIN_MEMORY_STAT_ACTUAL_BALLOON => &mut memory.actual,
                sys::VIR_DOMAIN_MEMORY_STAT_RSS => &mut memory.rss,
                sys::VIR_DOMAIN_MEMORY_STAT_AVAILABLE => &mut memory.available,
                sys::VIR_DOMAIN_MEMORY_STAT_USABLE => &mut memory.usable,
                sys::VIR_DOMAIN_MEMORY_STAT_SWAP_IN => &mut memory.swap_in,
                sys::VIR_DOMAIN_MEMORY_STAT_SWAP_OUT => &mut memory.swap_out,
                sys::VIR_DOMAIN_MEMORY_STAT_MAJOR_FAULT => &mut memory.major_fault,
                sys::VIR_DOMAIN_MEMORY_STAT_MINOR_FAULT => &mut memory.minor_fault,
                sys::VIR_DOMAIN_MEMORY_STAT_DISK_CACHES => &mut memory.disk_caches,
                sys::VIR_DOMAIN_MEMORY_STAT_UNUSED => &mut memory.unused,
                // Without bulk statistics only the test driver has LAST_UPDATE: always a time in 1989
                // (testDomainMemoryStats in libvirt's test_driver.c).
                _ => return,
            };
            *field = Some(value);
        }),
    )?;
    memory.asked_at = start;
    memory.at = midpoint(start);
    sample.memory = memory;
    Ok(())
}

/// The call that reads a disk's counters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum DiskCall {
    /// `virDomainBlockStatsFlags`, as far as is known.
    #[default]
    Flags,
    /// `virDomainBlockStats`: the driver (test) has no other. It counts neither times nor flushes.
    Plain,
}

/// The disks by `virDomainBlockStatsFlags` or `virDomainBlockStats`, which QEMU answers from memory, without touching the
/// image. Neither reports a size.
///
/// # Errors
/// As for [`fill`].
pub fn disks(
    domain: &Domain,
    description: &Description,
    wanted: &DeviceFilter,
    call: &mut DiskCall,
) -> Result<Devices<DISK_COUNTERS>, Error> {
    let start = Instant::now();
    let mut list = Vec::with_capacity(description.disks.len());
    for disk in &description.disks {
        if !disk.counted || !wanted.disk(&disk.target, disk.kind) {
            continue;
        }
        let counters = disk_counters(domain, &disk.target, call)?;
        list.push(Device {
            name: Some(disk.target.clone()),
            kind: SmolStr::new_static(disk.kind.word()),
            counters: counters.unwrap_or([None; DISK_COUNTERS]),
            io_errors: None,
        });
    }
    Ok(Devices {
        at: midpoint(start),
        list,
        complete: true,
    })
}

fn disk_counters(
    domain: &Domain,
    target: &str,
    call: &mut DiskCall,
) -> Result<Option<[Option<u64>; DISK_COUNTERS]>, Error> {
    let mut counters = [None; DISK_COUNTERS];
    if *call == DiskCall::Flags {
        let stats = domain.block_stats_flags(target, |key, value| {
            if let Some(at) = disk_counter(key) {
                counters[at] = bulk::count(value);
            }
        });
        match stats {
            // What the driver does not have, it does not have for any disk.
            Err(error) if error.code == sys::VIR_ERR_NO_SUPPORT => *call = DiskCall::Plain,
            stats => return Ok(tolerate(domain, stats)?.map(|()| counters)),
        }
    }
    let Some(s) = tolerate(domain, domain.block_stats(target))? else {
        return Ok(None);
    };
    let counted = [s.rd_req, s.rd_bytes, s.wr_req, s.wr_bytes, s.errs].map(counted);
    counters[..counted.len()].copy_from_slice(&counted);
    Ok(Some(counters))
}

/// The place in [`crate::sample::DISK_FIELDS`] of a key of `virDomainBlockStatsFlags`.
fn disk_counter(key: &[u8]) -> Option<usize> {
    Some(match key {
        b"rd_operations" => 0,
        b"rd_bytes" => 1,
        b"wr_operations" => 2,
        b"wr_bytes" => 3,
        b"errs" => 4,
        b"rd_total_times" => 5,
        b"wr_total_times" => 6,
        b"flush_total_times" => 7,
        b"flush_operations" => 8,
        _ => return None,
    })
}

/// `None` for -1, which means that this is not counted.
fn counted(value: i64) -> Option<u64> {
    u64::try_from(value).ok()
}

#[cfg(test)]
mod tests;
