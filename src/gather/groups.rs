//! Which statistics the configured measurements need.

use crate::config::Measurements;
use crate::libvirt::bulk::Groups;

/// The groups that a field of these measurements needs, and no other. The vCPU group is never among
/// them: the vCPU count is the one figure of it that is written, and `virDomainGetInfo` has it for a
/// sixth of the price.
pub(crate) fn groups_needed(measurements: &Measurements) -> Groups {
    let figures = measurements.metrics || measurements.features || measurements.totals;
    let devices = measurements.features || measurements.devices || measurements.totals;
    let mut groups = Groups::STATE;
    if figures {
        groups = groups | Groups::CPU | Groups::BALLOON;
    }
    if devices {
        groups = groups | Groups::NET | Groups::BLOCK;
    }
    groups
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_groups_that_a_field_needs_are_asked_for() {
        let none = Measurements {
            metrics: false,
            features: false,
            devices: false,
            totals: false,
            collector: false,
            info: false,
        };
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
                Measurements {
                    features: true,
                    ..none
                },
                Groups::STATE | devices | figures,
            ),
            (
                Measurements {
                    collector: true,
                    ..none
                },
                Groups::STATE,
            ),
        ] {
            assert_eq!(groups_needed(&wanted), groups, "{wanted:?}");
        }
    }
}
