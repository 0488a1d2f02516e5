//! What is asked beside the gather: shut-off VMs, the node, and storage pools. With dead storage below them, the VMs that
//! run have all their lines, and other clients are served as before.

use crate::support::daemon::expect_quick;
use crate::support::fleet::{Fleet, at_most, small};
use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::outage::Mount;
use crate::support::plugin::Plugin;
use crate::support::vm::{VmSpec, disk_xml};
use crate::support::{alone, succeed, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::thread::sleep;
use std::time::{Duration, Instant};

const LONG: Duration = Duration::from_secs(60);

/// Defines a VM with this image, without starting it; returns its name.
fn define(lab: &Lab, name: &str, image: &Path) -> String {
    let name = format!("{}-{name}", lab.prefix());
    let disk = disk_xml("disk", "vda", Some(image));
    let xml = format!(
        "<domain type='qemu'><name>{name}</name><memory unit='MiB'>32</memory><vcpu current='2'>4</vcpu>\
         <os><type arch='x86_64' machine='pc'>hvm</type></os><devices>{disk}</devices></domain>"
    );
    let file = lab.dir().join(format!("{name}.xml"));
    std::fs::write(&file, xml).unwrap();
    lab.virsh(&["define", file.to_str().unwrap()]);
    name
}

/// The output of a virsh command of `KEY: VALUE` lines.
fn table(lab: &Lab, words: &[&str]) -> BTreeMap<String, String> {
    let text = lab.virsh(words);
    let pairs = text.lines().filter_map(|line| line.split_once(':'));
    pairs
        .map(|(key, value)| (key.to_owned(), value.trim().to_owned()))
        .collect()
}

/// Panics unless the line of a VM that is off says what virsh says.
fn is_off(lab: &Lab, gather: &[Line], name: &str, reason: &str) {
    let line = lines::one(gather, "vm_metrics", name);
    let info = table(lab, &["dominfo", name]);
    let number = |key: &str| info[key].trim_end_matches(" KiB").parse().ok();
    assert_eq!(line.tag("VMID"), "-");
    assert_eq!(line.tag("uuid"), info["UUID"]);
    assert_eq!(line.text("state"), Some("shutoff"));
    assert_eq!(line.text("state_reason"), Some(reason), "{line:?}");
    assert_eq!(line.int("cpu_count"), number("CPU(s)"));
    assert_eq!(line.int("memory_max_kb"), number("Max memory"));
    assert_eq!(line.text("persistent"), Some("yes"));
    let autostart = match &*info["Autostart"] {
        "enable" => "yes",
        _ => "no",
    };
    assert_eq!(line.text("autostart"), Some(autostart));
    assert_eq!(line.fields.len(), 6, "{line:?}");
}

/// Panics unless the sums of the host's line are those over the lines vm_totals of the same gather, and it says of the node
/// what virsh says.
fn is_sum(lab: &Lab, gather: &[Line]) {
    lines::host_adds_up(gather);
    let host = gather.iter().find(|line| line.measurement == "vm_host");
    let host = host.unwrap();
    let node = table(lab, &["nodeinfo"]);
    assert_eq!(host.int("node_cpus"), node["CPU(s)"].parse().ok());
    let memory: i64 = node["Memory size"]
        .trim_end_matches(" KiB")
        .parse()
        .unwrap();
    // A host that is a VM itself may be given memory while the test runs, in whole blocks.
    let block = std::fs::read_to_string("/sys/devices/system/memory/block_size_bytes");
    let block = block.map_or(i64::MAX, |hex| {
        i64::from_str_radix(hex.trim(), 16).unwrap() / 1024
    });
    let other = host.int("node_memory_kb").unwrap() - memory;
    assert_eq!(other % block, 0, "{host:?}, {node:?}");
    let free = host.int("node_memory_free_kb").unwrap();
    assert!((1..memory).contains(&free), "{free}");
}

/// Gathers until the lines of what is asked beside the VMs are there: on a busy host they may come in the next gather.
fn in_time(mut gather: impl FnMut() -> Vec<Line>) -> Vec<Line> {
    wait_for("all replies in time", LONG, || {
        let gather = gather();
        let host = gather.iter().find(|line| line.measurement == "vm_host")?;
        let all = ["vms_shutoff", "node_memory_free_kb"];
        let is_whole = all.iter().all(|field| host.fields.contains_key(*field));
        is_whole.then_some(gather)
    })
}

/// Panics unless a check finds this, in one line.
fn checked(lab: &Lab, config: &str, words: &[&str]) {
    wait_for("the finding of a check", LONG, || {
        let check = succeed(&mut lab.plugin_unprivileged(&["--check", "--config", config]));
        let has = |line: &str| words.iter().all(|word| line.contains(word));
        check.lines().any(has).then_some(())
    });
}

/// The VMs by state in the host's line.
fn states(gather: &[Line]) -> BTreeMap<String, i64> {
    let host = gather.iter().find(|line| line.measurement == "vm_host");
    let host = host.unwrap();
    let counts = host.fields.keys().filter(|field| field.starts_with("vms_"));
    counts
        .map(|field| (field.clone(), host.int(field).unwrap()))
        .collect()
}

#[test]
fn vms_that_are_off_and_the_host_in_one_line() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    // libvirt opens an image of a VM that is off for the block group.
    let off = define(&lab, "off", &mount.new_image("off.img", 1024, true));
    let empty = define(&lab, "empty", &mount.new_image("empty.img", 1024, false));
    define(&lab, "hidden", &mount.new_image("hidden.img", 1024, true));
    lab.virsh(&["autostart", &off]);
    let ran = lab.create(&VmSpec {
        persistent: true,
        ..small("ran".to_owned())
    });
    ran.destroy();
    let mut fleet = Fleet::start(&lab, 3, |number| small(format!("vm{number}")));
    let plain = lab.config("domain_exclude = ['*-hidden']\n");
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &plain]));
    fleet.learn(&mut plugin);
    drop(plugin);

    let with = "domain_exclude = ['*-hidden']\ninactive = true\n\
        measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector', 'vm_host']\n";
    let with = lab.config(with);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &with]));
    let expect = |gather: &[Line], when: &str| {
        is_off(&lab, gather, &off, "unknown");
        is_off(&lab, gather, &empty, "unknown");
        is_off(&lab, gather, ran.name(), "destroyed");
        is_sum(&lab, gather);
        let all = states(gather);
        let count = |field: &str| all[field];
        assert_eq!(
            (count("vms_paused"), count("vms_shutoff")),
            (3, 3),
            "{when}"
        );
        assert_eq!(all.values().sum::<i64>(), 6, "{when}: {all:?}");
        assert_eq!(all.len(), 8, "zero ones, too: {all:?}");
        assert!(
            !gather
                .iter()
                .any(|l| l.tags.get("name").is_some_and(|n| n.ends_with("hidden")))
        );
    };
    expect(&in_time(|| plugin.gather()), "first");
    for round in 1..=3 {
        let gather = in_time(|| plugin.gather());
        fleet.expect_complete_but(&gather, &[], "healthy");
        expect(&gather, &format!("healthy {round}"));
        assert_eq!(plugin.collected("vms_seen"), 3, "active ones alone");
    }

    // With --once, all lines are there as well.
    let once = in_time(|| {
        let mut once = lab.plugin_unprivileged(&["--once", "--config", &with]);
        lines::lines(&succeed(&mut once))
    });
    expect(&once, "once");
    checked(&lab, &with, &["shut-off VMs", "3 VMs"]);

    mount.stop(Duration::from_millis(1500));
    for round in 1..=4 {
        let when = format!("dead, gather {round}");
        let gather = in_time(|| {
            let (gather, took) = plugin.timed_gather();
            println!("{when}: {took:?}");
            assert!(
                took <= at_most(Duration::from_millis(500)),
                "{when}: {took:?}"
            );
            fleet.expect_complete_but(&gather, &[], &when);
            gather
        });
        expect(&gather, &when);
        assert_eq!(lab.hanging_calls(), 0, "{when}");
        expect_quick(&lab, fleet.vms[0].name(), &when);
    }
    assert_eq!(plugin.stderr(), "");

    // A VM that was started meanwhile is written once, as active.
    lab.virsh(&["start", ran.name(), "--paused"]);
    let gather = wait_for("the VM to be active", LONG, || {
        let gather = in_time(|| plugin.gather());
        let line = lines::one(&gather, "vm_metrics", ran.name());
        (line.tag("VMID") != "-").then_some(gather)
    });
    is_sum(&lab, &gather);
    let all = states(&gather);
    assert_eq!((all["vms_paused"], all["vms_shutoff"]), (4, 2), "{all:?}");

    // libvirtd holds the lock of a VM that is being started, and waits for its image: lists hang for everybody.
    let mut start = lab.client(&["start", &off]);
    wait_for("the VM to be locked", LONG, || {
        // A start that failed at once locks nothing.
        if !start.runs() {
            println!("the start ended: {}", start.stderr());
            start = lab.client(&["start", &off]);
        }
        let mut probe = lab.client(&["list", "--all"]);
        sleep(Duration::from_millis(500));
        probe.runs().then_some(())
    });
    let others = lab.hanging_calls();
    let begin = Instant::now();
    let mut round = 0;
    while plugin.warnings().is_empty() {
        round += 1;
        let when = format!("locked, gather {round}");
        let (gather, took) = plugin.timed_gather();
        println!("{when}: {took:?}, {} hang", lab.hanging_calls());
        fleet.expect_complete_but(&gather, &[], &when);
        assert!(
            took <= at_most(Duration::from_millis(1500)),
            "{when}: {took:?}"
        );
        // The list of the gather is one, that of the VMs which are off another.
        assert!(lab.hanging_calls() <= others + 2, "{when}");
        assert!(begin.elapsed() < LONG, "no warning");
        sleep(Duration::from_millis(700));
    }
    let silence = begin.elapsed();
    assert!(silence > Duration::from_secs(6), "{silence:?}");
    plugin.gather();
    mount.go_on();
    start.wait();
    let gather = wait_for("the VMs that are off", LONG, || {
        let gather = plugin.gather();
        let found = lines::of(&gather, "vm_metrics", &empty).len() == 1;
        found.then_some(gather)
    });
    is_off(&lab, &gather, &empty, "unknown");
    let log = plugin.stderr();
    let count = |text: &str| log.lines().filter(|line| line.contains(text)).count();
    assert_eq!(count("W! shut-off VMs have no lines"), 1, "{log}");
    assert_eq!(count("I! shut-off VMs are listed again"), 1, "{log}");
}

/// The names of the pools that have a line; each says what virsh says of a pool that answers.
fn pools(lab: &Lab, gather: &[Line]) -> BTreeSet<String> {
    let lines = gather.iter().filter(|line| line.measurement == "vm_pools");
    let name = |line: &Line| {
        let name = line.tag("pool");
        let info = table(lab, &["pool-info", name, "--bytes"]);
        assert_eq!(line.tag("type"), "dir");
        assert_eq!(line.text("state"), Some(&*info["State"]));
        let mut fields = 1;
        for (field, key) in [
            ("capacity_bytes", "Capacity"),
            ("allocation_bytes", "Allocation"),
            ("available_bytes", "Available"),
        ] {
            let value = info.get(key).map(|value| value.parse().unwrap());
            assert_eq!(line.int(field), value, "{name} {field}");
            fields += usize::from(value.is_some());
        }
        assert_eq!(line.fields.len(), fields, "{line:?}");
        name.to_owned()
    };
    lines.map(name).collect()
}

/// Gathers until each of these pools has had a line; panics if another one has.
fn until_pools(lab: &Lab, names: &[&str], mut gather: impl FnMut() -> Vec<Line>) {
    let expected: BTreeSet<String> = names.iter().map(ToString::to_string).collect();
    let mut found = BTreeSet::new();
    wait_for("lines of these pools", LONG, || {
        found.extend(pools(lab, &gather()));
        assert!(
            found.is_subset(&expected),
            "{found:?}, not only {expected:?}"
        );
        (found == expected).then_some(())
    });
}

#[test]
fn a_pool_on_dead_storage_costs_its_own_line_alone() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let folder = |name: &str, dir: &Path| {
        let dir = dir.join(name);
        std::fs::create_dir_all(lab.inside(dir.to_str().unwrap())).unwrap();
        lab.virsh(&[
            "pool-define-as",
            name,
            "dir",
            "--target",
            dir.to_str().unwrap(),
        ]);
    };
    for (name, dir) in [
        ("a-dead", mount.point()),
        ("b-alive", lab.dir()),
        ("c-dead", mount.point()),
        ("d-alive", lab.dir()),
        ("e-off", lab.dir()),
    ] {
        folder(name, dir);
        if name != "e-off" {
            lab.virsh(&["pool-start", name]);
        }
    }
    let mut fleet = Fleet::start(&lab, 3, |number| small(format!("vm{number}")));
    let config = "pool_interval = '1s'\n\
        measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector', 'vm_pools']\n";
    let config = lab.config(config);
    let file = lab.dir().join("client.log");
    std::fs::write(&file, "").unwrap();
    let mut command = lab.plugin(&["--config", &config]);
    command
        .env("LIBVIRT_DEBUG", "1")
        .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", file.display()));
    let mut plugin = Plugin::spawn(command);
    let all = ["a-dead", "b-alive", "c-dead", "d-alive", "e-off"];
    until_pools(&lab, &all, || plugin.gather());
    fleet.learn(&mut plugin);

    // The figures are those of the last refresh, so dead storage alone changes nothing.
    mount.stop(Duration::from_millis(1500));
    for _ in 0..2 {
        until_pools(&lab, &all, || plugin.gather());
    }
    assert_eq!(lab.hanging_calls(), 0);

    // One gather in each period of the pools. One client refreshes a pool: libvirtd locks it until the storage answers.
    let mut round = 0;
    let mut expect = |plugin: &mut Plugin, ours: usize, others: usize| {
        round += 1;
        sleep(Duration::from_secs(1));
        let (gather, took) = plugin.timed_gather();
        println!("gather {round}: {took:?}, {} hang", lab.hanging_calls());
        let when = format!("gather {round}");
        fleet.expect_complete_but(&gather, &[], &when);
        assert!(
            took <= at_most(Duration::from_millis(700)),
            "{when}: {took:?}"
        );
        assert!(lab.hanging_calls() <= ours + others, "{when}");
        expect_quick(&lab, fleet.vms[0].name(), &when);
        gather
    };
    let refresh = |name: &str| {
        let before = lab.hanging_calls();
        let client = lab.client(&["pool-refresh", name]);
        wait_for("the pool to be locked", LONG, || {
            (lab.hanging_calls() > before).then_some(())
        });
        client
    };
    let mut one = refresh("a-dead");
    let alive = ["b-alive", "c-dead", "d-alive", "e-off"];
    // A reply that came before may still be written in the next gather.
    expect(&mut plugin, 1, 1);
    let begin = Instant::now();
    while plugin.warnings().is_empty() {
        until_pools(&lab, &alive, || expect(&mut plugin, 1, 1));
        assert!(begin.elapsed() < LONG, "no warning");
    }
    let warnings = plugin.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains(": a-dead; "), "{warnings:#?}");

    // The second one: no pool is asked for any more.
    let mut two = refresh("c-dead");
    wait_for("the pools to be left alone", LONG, || {
        let calls = plugin.collected("calls_pool");
        for _ in 0..3 {
            let gather = expect(&mut plugin, 2, 2);
            if plugin.collected("calls_pool") > calls {
                return None;
            }
            assert!(pools(&lab, &gather).is_subset(&BTreeSet::from(["b-alive".to_owned()])));
        }
        Some(())
    });

    mount.go_on();
    for client in [&mut one, &mut two] {
        client.wait();
    }
    for _ in 0..2 {
        until_pools(&lab, &all, || plugin.gather());
    }
    plugin.wait_for_log("I! every storage pool answers again");
    assert_eq!(lab.hanging_calls(), 0);

    let log = std::fs::read_to_string(&file).unwrap();
    assert!(log.contains("virStoragePoolGetInfo") && !log.contains("virStoragePoolRefresh"));
    let read = log.matches("virStoragePoolGetXMLDesc:").count();
    assert_eq!(read, all.len(), "the type of each pool is read once");

    // A pool that is defined or goes shows in the next round.
    folder("f-new", lab.dir());
    lab.virsh(&["pool-undefine", "e-off"]);
    wait_for("the new pool's line", LONG, || {
        let found = pools(&lab, &plugin.gather());
        found.contains("f-new").then_some(())
    });
    let now = ["a-dead", "b-alive", "c-dead", "d-alive", "f-new"];
    until_pools(&lab, &now, || plugin.gather());
    checked(
        &lab,
        &config,
        &["storage pools", "5 pools: a-dead, b-alive"],
    );
}

/// libvirtd allows fewer connections than there are workers: those beside the gather do without, and other clients get in.
#[test]
fn what_is_asked_beside_takes_no_connection_from_other_clients() {
    let _alone = alone();
    let lab = Lab::start();
    let vm = lab.create(&VmSpec {
        name: "runs".into(),
        ..VmSpec::default()
    });
    let config = lab.config(
        "measurements = [\"vm_metrics\", \"vm_pools\", \"vm_host\"]\ninactive = true\npool_interval = \"1s\"\n",
    );
    for clients in [3, 4] {
        let settings = format!("max_clients = {clients}\nmax_anonymous_clients = {clients}\n");
        lab.reconfigure_libvirtd(&settings);
        let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
        // A connection that is not let in for 5 s is given up, between two gathers, too.
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(8) {
            if clients > 3 || start.elapsed() < Duration::from_secs(1) {
                let gather = plugin.gather();
                lines::one(&gather, "vm_metrics", vm.name());
            }
            sleep(Duration::from_millis(500));
        }
        let mut list = lab.command("timeout");
        let listed = succeed(list.args([
            "30",
            "virsh",
            "-q",
            "-c",
            "qemu:///system",
            "list",
            "--name",
        ]));
        assert_eq!(listed.trim(), vm.name(), "{clients} clients");
        plugin.gather();
        let warnings = plugin.warnings();
        let is_told = |warning: &String| {
            warning.contains("shut-off VMs, storage pools and the node are not asked for")
        };
        assert!(
            warnings.iter().any(is_told),
            "{clients} clients: {warnings:#?}"
        );
    }
}
