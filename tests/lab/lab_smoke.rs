//! The lab itself: it is isolated and complete as the other tests require, and leaves nothing behind.

use crate::support::inside::again;
use crate::support::lab::{BRIDGE, Lab};
use crate::support::lines::{self, Value};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, VmSpec, disks};
use crate::support::{succeed, turn, wait_for};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

fn number(stats: &std::collections::BTreeMap<String, String>, key: &str) -> u64 {
    stats
        .get(key)
        .unwrap_or_else(|| panic!("no {key} in {stats:#?}"))
        .parse()
        .unwrap()
}

/// Every control group with a lab's prefix in its name.
fn groups(prefix: &str) -> Vec<PathBuf> {
    fn walk(folder: &Path, prefix: &str, depth: u32, found: &mut Vec<PathBuf>) {
        for entry in std::fs::read_dir(folder).into_iter().flatten().flatten() {
            if entry.file_name().to_string_lossy().contains(prefix) {
                found.push(entry.path());
            } else if depth > 0 && entry.file_type().is_ok_and(|kind| kind.is_dir()) {
                walk(&entry.path(), prefix, depth - 1, found);
            }
        }
    }
    let mut found = Vec::new();
    walk(Path::new("/sys/fs/cgroup"), prefix, 3, &mut found);
    found
}

/// Every process whose command line contains `text`.
fn processes(text: &str) -> Vec<String> {
    std::fs::read_dir("/proc")
        .unwrap()
        .flatten()
        .filter_map(|entry| std::fs::read(entry.path().join("cmdline")).ok())
        .map(|line| String::from_utf8_lossy(&line).replace('\0', " "))
        .filter(|line| line.contains(text))
        .collect()
}

#[test]
fn a_vm_has_its_disks_and_taps() {
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap, Nic::Named("tap,odd=1".into()), Nic::User],
        cdrom: true,
        floppy: true,
        max_vcpus: 2,
        persistent: true,
        ..VmSpec::default()
    });
    let stats = lab.domstats(vm.name());
    let names: Vec<&String> = (0..number(&stats, "block.count"))
        .map(|n| &stats[&format!("block.{n}.name")])
        .collect();
    assert_eq!(names, ["vda", "vdb", "hdc", "fda"]);
    assert_eq!(number(&stats, "net.count"), 3);
    assert_eq!(stats["net.0.name"], "vnet0");
    assert_eq!(stats["net.1.name"], "tap,odd=1");
    assert_eq!(stats["vcpu.current"], "1");
    assert_eq!(stats["vcpu.maximum"], "2");

    lab.virsh(&["setvcpus", vm.name(), "2", "--live"]);
    assert_eq!(lab.domstats(vm.name())["vcpu.current"], "2");

    vm.freeze();
    let state = || {
        let stat = lab.inside(&format!("/proc/{}/stat", vm.qemu_pid()));
        let stat = std::fs::read_to_string(stat).unwrap();
        stat.rsplit(") ").next().unwrap().chars().next().unwrap()
    };
    wait_for("QEMU to be stopped", Duration::from_secs(5), || {
        (state() == 'T').then_some(())
    });
    vm.thaw();
    wait_for("QEMU to go on", Duration::from_secs(5), || {
        (state() != 'T').then_some(())
    });

    lab.stop_libvirtd();
    assert!(
        !lab.virsh_command()
            .arg("list")
            .output()
            .unwrap()
            .status
            .success()
    );
    lab.start_libvirtd();
    assert!(lab.virsh(&["list", "--name"]).contains(vm.name()));
    // A destroy may fail while libvirtd still connects to the QEMU, which this waits for.
    lab.domstats(vm.name());
    vm.destroy();
    assert!(lab.virsh(&["list", "--all", "--name"]).contains(vm.name()));
}

#[test]
fn the_guest_moves_counters() {
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        memory_mib: 96,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    });
    vm.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    let before = lab.domstats(vm.name());
    vm.guest("dd if=/dev/zero of=/dev/vda bs=64k count=16 oflag=direct");
    vm.guest("dd if=/dev/vda of=/dev/null bs=64k count=8 iflag=direct");
    let said = vm.guest(&format!("ping -c 3 -i 0.2 -s 1000 {BRIDGE}"));
    assert!(
        said.contains("3 packets transmitted, 3 packets received"),
        "{said}"
    );
    let after = lab.domstats(vm.name());
    let moved = |key: &str| number(&after, key) - number(&before, key);
    assert_eq!(moved("block.0.wr.bytes"), 16 << 16);
    assert_eq!(moved("block.0.rd.bytes"), 8 << 16);
    // Three pings (Ethernet, IP and ICMP headers) and an ARP exchange.
    let ping = 1000 + 14 + 20 + 8;
    assert!(
        (3 * ping..3 * ping + 200).contains(&moved("net.0.tx.bytes")),
        "{before:?} {after:?}"
    );
    wait_for("the guest's memory", Duration::from_secs(10), || {
        lab.domstats(vm.name())
            .contains_key("balloon.usable")
            .then_some(())
    });
    let failed = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| vm.guest("false")));
    assert!(failed.is_err(), "a command that fails in the guest is seen");
}

#[test]
fn labs_in_parallel_leave_nothing() {
    let (one, two) = (Lab::start(), Lab::start());
    let spec = VmSpec {
        paused: true,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        ..VmSpec::default()
    };
    let (first, second) = (one.create(&spec), two.create(&spec));
    assert!(one.virsh(&["list", "--name"]).contains(first.name()));
    assert!(!two.virsh(&["list", "--name"]).contains(first.name()));
    assert!(two.virsh(&["list", "--name"]).contains(second.name()));
    // A frozen QEMU ends, too.
    first.freeze();
    let traces = |lab: &Lab| (lab.prefix().to_owned(), lab.dir().to_owned());
    let all = [traces(&one), traces(&two)];
    for (prefix, _) in &all {
        assert!(!groups(prefix).is_empty(), "a VM's control group is seen");
        assert!(!processes(prefix).is_empty());
    }
    let start = Instant::now();
    drop(second);
    drop(two);
    assert!(
        one.virsh(&["list", "--name"]).contains(first.name()),
        "the other lab lives on"
    );
    drop(first);
    drop(one);
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "{:?}",
        start.elapsed()
    );
    for (prefix, dir) in &all {
        assert_eq!(groups(prefix), Vec::<PathBuf>::new());
        assert_eq!(processes(prefix), Vec::<String>::new());
        assert!(!dir.exists());
    }
    let mounts = std::fs::read_to_string("/proc/self/mounts").unwrap();
    assert!(!mounts.lines().any(|line| line.starts_with("lab ")));
}

/// A test process that is killed leaves only the folder of its files.
#[test]
fn a_killed_test_leaves_no_process() {
    const CHILD: &str = "TELEGRAF_KVM_LAB_CHILD";
    if std::env::var_os(CHILD).is_some() {
        let lab = Lab::start();
        let _vm = lab.create(&VmSpec::default());
        println!("\nprefix={} dir={}", lab.prefix(), lab.dir().display());
        std::thread::sleep(Duration::from_secs(60));
        return;
    }
    let _turn = turn::take();
    let mut child = again("a_killed_test_leaves_no_process")
        .env(CHILD, "1")
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
    let line = std::io::BufRead::lines(stdout)
        .map(Result::unwrap)
        .find(|line| line.starts_with("prefix="))
        .unwrap();
    let (prefix, dir) = line["prefix=".len()..].split_once(" dir=").unwrap();
    assert!(!processes(prefix).is_empty());
    child.kill().unwrap();
    child.wait().unwrap();
    wait_for(
        "the killed test's lab to go",
        Duration::from_secs(10),
        || (processes(prefix).is_empty() && groups(prefix).is_empty()).then_some(()),
    );
    std::fs::remove_dir_all(dir).unwrap();
}

#[test]
fn a_plugin_handle_reaches_the_program() {
    let lab = Lab::start();
    // This script replaces the plugin: it answers each newline, and a signal.
    let mut command = lab.command("bash");
    command.args([
        "-c",
        r#"trap 'echo "m,t=sig\ nal f=1.5 3"' USR1
           echo "I! here" >&2
           while :; do
               read -r line; status=$?
               if [ $status = 0 ]; then printf 'm,t=a\\,b f=1i,s="x\\"y" 1\nm f=2i 2\n'; continue; fi
               [ $status -gt 128 ] || exit 3
           done"#,
    ]);
    let mut plugin = Plugin::spawn(command);
    let found = plugin.gather();
    assert_eq!(found.len(), 2);
    assert_eq!(found[0].tag("t"), "a,b");
    assert_eq!(found[0].int("f"), Some(1));
    assert_eq!(found[0].fields["s"], Value::Text("x\"y".into()));
    assert_eq!(found[1].timestamp, 2);
    assert_eq!(plugin.gather().len(), 2);
    plugin.wait_for_log("I! here");

    let pid = plugin.pid();
    assert_ne!(pid, 0);
    plugin.signal(rustix::process::Signal::USR1);
    let found = plugin.next_gather();
    assert_eq!(lines::of(&found, "m", "none").len(), 0);
    assert_eq!(found[0].tag("t"), "sig nal");
    assert_eq!(found[0].float("f"), Some(1.5));

    plugin.close();
    assert_eq!(plugin.wait(Duration::from_secs(5)).code(), Some(3));

    // This fails if an ordinary user cannot enter the build's folder.
    succeed(&mut lab.plugin_as(12345, &["--version"]));
    // A program is killed with its handle.
    let mut command = lab.command("sleep");
    command.arg("54321");
    let sleeper = Plugin::spawn(command);
    let pid = sleeper.pid();
    drop(sleeper);
    wait_for("the program to die", Duration::from_secs(5), || {
        (!Path::new(&format!("/proc/{pid}/stat")).exists()).then_some(())
    });
}
