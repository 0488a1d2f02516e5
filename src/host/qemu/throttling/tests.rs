use std::fs;

use super::*;

const A: Uuid = Uuid::from_u128(1);

/// Process 7 with this text in its `cgroup`, and groups at these places with this text in `cpu.stat`.
fn host(cgroup: &str, groups: &[(&str, &str)]) -> (tempfile::TempDir, QuotaGroups) {
    let folder = tempfile::tempdir().unwrap();
    let (proc, root) = (folder.path().join("proc"), folder.path().join("cg"));
    fs::create_dir_all(proc.join("7")).unwrap();
    fs::write(proc.join("7/cgroup"), cgroup).unwrap();
    for (group, text) in groups {
        fs::create_dir_all(root.join(group)).unwrap();
        fs::write(root.join(group).join("cpu.stat"), text).unwrap();
    }
    let groups = QuotaGroups::at(&proc, &root);
    (folder, groups)
}

fn v2(periods: u64, throttled: u64, microseconds: u64) -> String {
    format!(
        "usage_usec 9\nuser_usec 9\nsystem_usec 9\nnr_periods {periods}\nnr_throttled {throttled}\n\
         throttled_usec {microseconds}\nnr_bursts 0\nburst_usec 0\n"
    )
}

fn read(groups: &mut QuotaGroups, vcpus: bool, vm: bool) -> Option<(u64, u64, u64)> {
    let limited = Limited {
        vm: A,
        process: 7,
        quota: CpuQuota { vcpus, vm },
    };
    let read = groups.read(&[limited]);
    let sum = read.get(&A)?;
    Some((sum.periods, sum.throttled_periods, sum.throttled))
}

#[test]
fn the_groups_that_have_the_quota_are_summed() {
    let place = "machine.slice/machine-qemu\\x2d1\\x2da.scope/libvirt";
    let lines = format!("0::/{place}/emulator\n");
    for mounted in ["", "unified/"] {
        let at = |group: &str| format!("{mounted}{place}/{group}");
        let (folder, mut groups) = host(
            &lines,
            &[
                (&at(""), &v2(100, 10, 1)),
                (&at("vcpu0"), &v2(20, 3, 5)),
                (&at("vcpu7"), &v2(30, 4, 6)),
                (&at("emulator"), &v2(7, 7, 7)),
                (&at("iothread1"), &v2(7, 7, 7)),
            ],
        );
        assert_eq!(read(&mut groups, true, false), Some((50, 7, 11_000)));
        assert_eq!(read(&mut groups, false, true), Some((100, 10, 1000)));
        assert_eq!(read(&mut groups, true, true), Some((150, 17, 12_000)));
        // A vCPU is added.
        let added = folder.path().join("cg").join(at("vcpu8"));
        fs::create_dir(&added).unwrap();
        assert_eq!(read(&mut groups, true, false), None, "not all can be read");
        fs::write(added.join("cpu.stat"), v2(1, 1, 1)).unwrap();
        assert_eq!(read(&mut groups, true, false), Some((51, 8, 12_000)));
        assert!(groups.read(&[]).is_empty() && groups.kept.len() == 0);
    }
}

#[test]
fn v1_has_the_cpu_controller_in_a_place_of_its_own() {
    let lines = "5:cpuacct:/a/emulator\n4:cpuset,cpu:/b/emulator\n0::/c/emulator\n";
    let v1 = "nr_periods 5\nnr_throttled 2\nthrottled_time 1234\n";
    let groups = [("cpu/b/vcpu0", v1), ("unified/c/vcpu0", "usage_usec 1\n")];
    let (_folder, mut groups) = host(lines, &groups);
    assert_eq!(read(&mut groups, true, false), Some((5, 2, 1234)));
    assert_eq!(read(&mut groups, false, true), None);
}

#[test]
fn groups_that_do_not_count_or_are_not_visible_have_no_figures() {
    for (lines, group, text) in [
        // Without the cpu controller.
        ("0::/g/emulator\n", "g/vcpu0", "usage_usec 9\n"),
        ("0::/g/emulator\n", "h/vcpu0", "nr_periods 1\n"),
        ("0::/g\n", "g/vcpu0", "nr_periods 1\n"),
        (
            "0::/g/emulator\n",
            "g/vcpu0",
            "nr_periods x\nnr_throttled 1\nthrottled_usec 1\n",
        ),
    ] {
        let (_folder, mut groups) = host(lines, &[(group, text)]);
        assert_eq!(read(&mut groups, true, false), None, "{lines}{text}");
    }
}
