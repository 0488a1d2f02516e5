//! Which statistics the configured measurements need.

use crate::config::{Measurements, VcpuDelay};
use crate::libvirt::bulk::Groups;

/// The groups that a field of these measurements needs, and no other. The vCPU group is not among them:
/// this host has its figures, and `virDomainGetInfo` has the number of vCPUs for a sixth of the price.
pub(crate) fn groups_needed(measurements: &Measurements) -> Groups {
    let figures = measurements.metrics || measurements.features || measurements.has_totals();
    let devices = measurements.features || measurements.devices || measurements.has_totals();
    let mut groups = Groups::STATE;
    if figures {
        groups = groups | Groups::CPU | Groups::BALLOON;
    }
    if devices {
        groups = groups | Groups::NET | Groups::BLOCK;
    }
    groups
}

/// The groups that belong to the ordinary statistics of a VM. Where a key of one of them is named (`statistics`), the
/// call that asks for the others brings it, too: one call costs less than two, and what protects guests from storage that
/// does not answer holds for it. The other groups are asked for by calls of their own.
pub(super) const ORDINARY: Groups = Groups::CPU
    .or(Groups::BALLOON)
    .or(Groups::NET)
    .or(Groups::BLOCK);

/// The vCPU group, where libvirt is to be asked for what this host does not show.
pub(super) fn vcpu_group(measurements: &Measurements, vcpu_delay: VcpuDelay) -> Groups {
    if measurements.any_of_vcpus() && vcpu_delay == VcpuDelay::Libvirt {
        Groups::VCPU
    } else {
        Groups::NONE
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_that_a_field_needs_are_asked_for() {
        let none = Measurements::NONE;
        let devices = Groups::NET | Groups::BLOCK;
        let figures = Groups::CPU | Groups::BALLOON;
        for (wanted, groups) in [
            (
                Measurements {
                    metrics: true,
                    ..none
                },
                Groups::STATE | figures,
            ),
            (
                Measurements {
                    devices: true,
                    ..none
                },
                Groups::STATE | devices,
            ),
            (
                Measurements {
                    totals: true,
                    ..none
                },
                Groups::STATE | devices | figures,
            ),
            (
                Measurements { host: true, ..none },
                Groups::STATE | devices | figures,
            ),
            (
                Measurements {
                    pools: true,
                    ..none
                },
                Groups::STATE,
            ),
            (
                Measurements {
                    features: true,
                    ..none
                },
                Groups::STATE | devices | figures,
            ),
            (
                Measurements {
                    vcpus: true,
                    ..none
                },
                Groups::STATE,
            ),
            (
                Measurements {
                    pressure: true,
                    ..none
                },
                Groups::STATE,
            ),
            (Measurements { jobs: true, ..none }, Groups::STATE),
            (
                Measurements {
                    collector: true,
                    ..none
                },
                Groups::STATE,
            ),
        ] {
            assert_eq!(groups_needed(&wanted), groups, "{wanted:?}");
            for vcpu_delay in [VcpuDelay::Auto, VcpuDelay::Off] {
                assert_eq!(vcpu_group(&wanted, vcpu_delay), Groups::NONE);
            }
            let asked = vcpu_group(&wanted, VcpuDelay::Libvirt).has(Groups::VCPU);
            assert_eq!(
                asked,
                wanted.has_totals() || wanted.features || wanted.vcpus
            );
        }
    }
}
