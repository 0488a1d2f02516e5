use super::*;

const A: Uuid = Uuid::from_u128(1);

/// Process 7 with this text in its `cgroup`, and an empty folder where control groups are mounted.
fn host(cgroup: &str) -> (tempfile::TempDir, Cgroups) {
    let folder = tempfile::tempdir().unwrap();
    let (proc, root) = (folder.path().join("proc"), folder.path().join("cg"));
    fs::create_dir_all(proc.join("7")).unwrap();
    fs::create_dir_all(&root).unwrap();
    fs::write(proc.join("7/cgroup"), cgroup).unwrap();
    let cgroups = Cgroups::at(&proc, &root);
    (folder, cgroups)
}

fn group(root: &Path, path: &str, files: &[(&str, &str)]) {
    let folder = root.join("cg").join(path);
    fs::create_dir_all(&folder).unwrap();
    for (name, text) in files {
        fs::write(folder.join(name), text).unwrap();
    }
}

const STAT: &str = "usage_usec 30\nuser_usec 10\nsystem_usec 20\nnr_periods 0\n";

#[test]
fn v2_with_and_without_systemd() {
    for (path, mounted) in [
        ("machine.slice/machine-qemu\\x2d1\\x2da b.scope/libvirt", ""),
        ("machine/qemu-1-a.libvirt-qemu", "unified/"),
    ] {
        let (folder, mut cgroups) = host(&format!("1:cpu:/\n0::/{path}/emulator\n"));
        assert_eq!(cgroups.read(&[(A, 7)]), HashMap::default());
        let place = format!("{mounted}{path}");
        group(folder.path(), &place, &[("cpu.stat", STAT)]);
        let usage = cgroups.read(&[(A, 7)])[&A];
        let figures = (usage.time, usage.user, usage.system);
        assert_eq!(figures, (30_000, 10_000, 20_000));
        assert!(cgroups.read(&[]).is_empty());
        assert!(cgroups.known.is_empty());
    }
}

#[test]
fn v1_counts_in_ticks() {
    let path = "machine.slice/machine-qemu\\x2d1\\x2da.scope/libvirt";
    let lines = format!(
        "5:memory:/x/emulator\n4:cpu,cpuacct:/{path}/emulator\n0::/machine.slice/x.scope\n"
    );
    let (folder, mut cgroups) = host(&lines);
    let files = [
        ("cpuacct.usage", "123456789\n"),
        ("cpuacct.stat", "user 7\nsystem 5\n"),
    ];
    group(folder.path(), &format!("cpuacct/{path}"), &files);
    let usage = cgroups.read(&[(A, 7)])[&A];
    let tick = 1_000_000_000 / rustix::param::clock_ticks_per_second();
    assert_eq!(
        (usage.time, usage.user, usage.system),
        (123_456_789, 7 * tick, 5 * tick)
    );
}

#[test]
fn where_libvirt_uses_both_versions_it_has_cpu_time_from_v2() {
    let path = "machine/qemu-1-a.libvirt-qemu";
    let lines = format!("4:cpu,cpuacct:/{path}/emulator\n0::/{path}/emulator\n");
    let (folder, mut cgroups) = host(&lines);
    let split = [
        ("cpuacct.usage", "30001\n"),
        ("cpuacct.stat", "user 0\nsystem 0\n"),
    ];
    group(folder.path(), &format!("cpuacct/{path}"), &split);
    assert_eq!(
        cgroups.read(&[(A, 7)]),
        HashMap::default(),
        "v2 is not visible"
    );
    group(
        folder.path(),
        &format!("unified/{path}"),
        &[("cpu.stat", STAT)],
    );
    assert_eq!(cgroups.read(&[(A, 7)])[&A].time, 30_000);
}

#[test]
fn vcpu_groups_are_counted_at_each_read() {
    let (folder, mut cgroups) = host("0::/g/emulator\n");
    group(folder.path(), "g", &[("cpu.stat", STAT)]);
    let mut vcpus = |remove: &[&str], make: &[&str]| {
        let place = folder.path().join("cg/g");
        for name in remove {
            fs::remove_dir(place.join(name)).unwrap();
        }
        for name in make {
            fs::create_dir(place.join(name)).unwrap();
        }
        cgroups.read(&[(A, 7)])[&A].vcpus
    };
    assert_eq!(vcpus(&[], &["emulator", "iothread1", "vcpu", "vcpux"]), 0);
    assert_eq!(vcpus(&[], &["vcpu0"]), 1);
    // The number of folders stays the same.
    assert_eq!(vcpus(&["iothread1"], &["vcpu17"]), 2);
    let many: Vec<String> = (100..400).map(|n| format!("vcpu{n}")).collect();
    let many: Vec<&str> = many.iter().map(String::as_str).collect();
    assert_eq!(vcpus(&["vcpu0"], &many), 301);
}

#[test]
fn groups_that_are_not_libvirts_or_cannot_be_read_are_skipped() {
    for (lines, file, text) in [
        ("0::/user.slice/x\n", "cpu.stat", STAT),
        (
            "0::/g/emulator\n",
            "cpu.stat",
            "usage_usec 1\nuser_usec 1\n",
        ),
        (
            "0::/g/emulator\n",
            "cpu.stat",
            "usage_usec x\nuser_usec 1\nsystem_usec 1\n",
        ),
        ("0::/g/emulator\n", "other", STAT),
        ("4:cpu:/g/emulator\n", "cpu.stat", STAT),
        ("", "cpu.stat", STAT),
    ] {
        let (folder, mut cgroups) = host(lines);
        group(folder.path(), "g", &[(file, text)]);
        assert_eq!(
            cgroups.read(&[(A, 7), (Uuid::nil(), 8)]),
            HashMap::default()
        );
    }
}
