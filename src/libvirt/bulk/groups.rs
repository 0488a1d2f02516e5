//! The groups of bulk statistics.

use virt::sys;

/// A set of statistics groups (`virDomainStatsTypes`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Groups(u32);

impl Groups {
    /// No group.
    pub const NONE: Self = Self(0);
    /// State and its reason.
    pub const STATE: Self = Self(sys::VIR_DOMAIN_STATS_STATE);
    /// CPU time.
    pub const CPU: Self = Self(sys::VIR_DOMAIN_STATS_CPU_TOTAL);
    /// Memory.
    pub const BALLOON: Self = Self(sys::VIR_DOMAIN_STATS_BALLOON);
    /// Network interfaces.
    pub const NET: Self = Self(sys::VIR_DOMAIN_STATS_INTERFACE);
    /// Disks.
    pub const BLOCK: Self = Self(sys::VIR_DOMAIN_STATS_BLOCK);
    /// Each vCPU.
    pub const VCPU: Self = Self(sys::VIR_DOMAIN_STATS_VCPU);
    /// Events of the CPU's performance counters.
    pub const PERF: Self = Self(1 << 6);
    /// I/O threads.
    pub const IOTHREAD: Self = Self(1 << 7);
    /// Memory bandwidth (resctrl); libvirt 6.0.
    pub const MEMORY: Self = Self(1 << 8);
    /// How fast the guest changes its memory; libvirt 7.2.
    pub const DIRTYRATE: Self = Self(1 << 9);
    /// What KVM counts of the VM as a whole; libvirt 8.9.
    pub const VM: Self = Self(1 << 10);
    /// The groups of later versions. libvirt leaves out groups that it does not know
    /// (qemuDomainGetStatsCheckSupport), so they can be asked for.
    pub const LATER: Self = Self(u32::MAX << 11);
    /// The groups that may need QEMU's monitor.
    pub const MONITOR: Self = Self(Self::CPU.0 | Self::BALLOON.0 | Self::BLOCK.0 | Self::VCPU.0);

    /// The set as libvirt's bit mask.
    pub fn bits(self) -> u32 {
        self.0
    }

    /// The groups that are in either set.
    pub const fn or(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    /// Whether all groups of `other` are in this set.
    pub fn has(self, other: Self) -> bool {
        self.0 & other.0 == other.0
    }

    /// The groups that are in both sets.
    pub fn and(self, other: Self) -> Self {
        Self(self.0 & other.0)
    }

    /// This set without the groups of `other`.
    pub fn without(self, other: Self) -> Self {
        Self(self.0 & !other.0)
    }
}

/// The known groups, each with the first part of its keys.
const NAMES: [(&str, Groups); 11] = [
    ("state", Groups::STATE),
    ("cpu", Groups::CPU),
    ("balloon", Groups::BALLOON),
    ("vcpu", Groups::VCPU),
    ("net", Groups::NET),
    ("block", Groups::BLOCK),
    ("perf", Groups::PERF),
    ("iothread", Groups::IOTHREAD),
    ("memory", Groups::MEMORY),
    ("dirtyrate", Groups::DIRTYRATE),
    ("vm", Groups::VM),
];

impl Groups {
    /// The group of a key of a reply; none if it is not known.
    pub fn of_key(key: &[u8]) -> Self {
        let name = key.split(|byte| *byte == b'.').next();
        let mut known = NAMES.iter();
        let found = known.find(|(known, _)| Some(known.as_bytes()) == name);
        found.map_or(Self::NONE, |(_, group)| *group)
    }

    /// The groups whose keys may match this pattern of a whole key.
    pub fn of_pattern(pattern: &str) -> Self {
        let end = pattern.find(['.', '*', '?', '[']).unwrap_or(pattern.len());
        let (start, rest) = pattern.split_at(end);
        let is_whole = rest.starts_with('.');
        let matching = NAMES.into_iter().filter(|(name, _)| match is_whole {
            true => *name == start,
            false => name.starts_with(start),
        });
        let known = matching.fold(Self::NONE, |all, (_, group)| all | group);
        match is_whole && known != Self::NONE {
            true => known,
            false => known | Self::LATER,
        }
    }
}

impl std::ops::BitOr for Groups {
    type Output = Self;
    fn bitor(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }
}
