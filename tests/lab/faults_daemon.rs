//! Faults of libvirtd itself: no free worker, frozen, killed, slow.

use crate::support::daemon::Client;
use crate::support::fleet::{Fleet, at_most, long, shapes, small};
use crate::support::lab::Lab;
use crate::support::lines::one;
use crate::support::plugin::Plugin;
use crate::support::{alone, run, told, wait_for};
use rustix::process::Signal;
use std::path::PathBuf;
use std::time::{Duration, Instant};

/// The number of libvirtd's ordinary workers.
const WORKERS: usize = 20;

#[test]
fn a_spent_daemon() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, 6, |n| small(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    fleet.learn(&mut plugin);
    let before = plugin.gather();

    // The first call waits for the frozen QEMU, the others wait up to 30 s for the first.
    fleet.freeze(&[0]);
    let occupied = fleet.vms[0].name();
    let clients: Vec<Client> = (0..WORKERS)
        .map(|_| lab.client(&["domstats", "--block", "--domain", occupied]))
        .collect();
    wait_for("20 hanging calls", Duration::from_secs(10), || {
        (lab.calls_in_daemon() >= WORKERS).then_some(())
    });
    let spent = Instant::now();
    for round in 1..=4 {
        let (gather, took) = plugin.timed_gather();
        println!("spent daemon, gather {round}: {took:?}");
        assert!(took <= at_most(Duration::from_secs(2)), "{took:?}");
        for vm in &fleet.vms {
            let now = one(&gather, "vm_metrics", vm.name());
            assert!(now.text("state").is_some(), "{now:?}");
            let now = one(&gather, "vm_totals", vm.name());
            let then = one(&before, "vm_totals", vm.name());
            for field in then.fields.keys().filter(|key| key.starts_with("net_")) {
                assert!(now.int(field) >= then.int(field), "{field}: {now:?}");
            }
            // These are read from the control groups.
            for field in ["cputime", "cpus"] {
                assert!(now.int(field) >= then.int(field), "{field}: {now:?}");
            }
        }
        let calls = lab.hanging_calls();
        assert!(calls <= WORKERS + 1, "{} calls of ours", calls - WORKERS);
    }
    // The check says why no VM has full figures.
    let (code, out, _) = told(&run(&mut lab.plugin_unprivileged(&["--check", "--json"])));
    assert_eq!(code, Some(0));
    let found: serde_json::Value = serde_json::from_str(&out).unwrap();
    let vms = &found["vms"];
    let number = |key: &str| vms[key].as_u64().unwrap();
    let named = |key: &str| vms[key].as_array().unwrap().len() as u64;
    assert_eq!((number("wanted"), number("complete")), (6, 0), "{out}");
    assert_eq!(number("partial") + number("withheld"), 6, "{out}");
    let lists = ["not_answering", "state_and_network_only", "without_disks"];
    let in_part: u64 = lists.iter().map(|key| named(key)).sum();
    assert_eq!(in_part, number("partial"), "{out}");
    assert!(named("state_and_network_only") > 0, "{out}");
    assert!(out.contains("state and network only, because"), "{out}");
    assert!(
        spent.elapsed() < Duration::from_secs(25),
        "the other clients' calls had given up by themselves"
    );
    let warnings = plugin.warnings();
    assert_eq!(warnings.len(), 1, "{warnings:#?}");
    assert!(warnings[0].contains(occupied), "{warnings:#?}");

    fleet.thaw(&[0]);
    for mut client in clients {
        client.wait();
    }
    fleet.expect_recovery(&mut plugin, 2, "no longer spent");
    wait_for("calls to return", Duration::from_secs(5), || {
        (lab.hanging_calls() == 0).then_some(())
    });
}

/// libvirtd's first bulk call takes a second longer, only once, and holds a VM's lock meanwhile.
#[test]
fn the_first_gather_is_complete() {
    let _alone = alone();
    for size in [2, 6] {
        let lab = Lab::start();
        let fleet = Fleet::start(&lab, size, |n| small(format!("vm{n}")));
        let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
        plugin.newline();
        let gather = plugin.lines_within(Duration::from_secs(10));
        for vm in &fleet.vms {
            let totals = one(&gather, "vm_totals", vm.name());
            for field in ["disk_rd_bytes", "net_rxbytes", "memactual", "cputime"] {
                assert!(totals.int(field).is_some(), "no {field}: {totals:?}");
            }
        }
        assert_eq!(plugin.warnings(), Vec::<String>::new());
    }
}

#[test]
fn a_frozen_daemon() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, 4, |n| small(format!("vm{n}")));
    let config = lab.config("deadline = \"2s\"\n");
    let args = ["--config", &config];
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&args));
    let mut stopped = Plugin::spawn(lab.plugin_unprivileged(&args));
    let mut closed = Plugin::spawn(lab.plugin_unprivileged(&args));
    fleet.learn(&mut plugin);
    stopped.gather();
    closed.gather();

    lab.signal_libvirtd("STOP");
    for _ in 0..2 {
        let (written, took) = plugin.timed_gather();
        assert!(took <= at_most(Duration::from_millis(2200)), "{took:?}");
        assert!(shapes(&written).is_empty(), "lines of VMs: {written:?}");
        assert_eq!(plugin.collected("up"), 0);
    }
    assert_eq!(plugin.warnings().len(), 1, "{}", plugin.stderr());

    stopped.newline();
    std::thread::sleep(Duration::from_millis(300));
    stopped.signal(Signal::TERM);
    stopped.wait(at_most(Duration::from_secs(2)));
    closed.newline();
    closed.close();
    closed.wait(at_most(Duration::from_secs(4)));

    lab.signal_libvirtd("CONT");
    wait_for("libvirtd to go on", Duration::from_secs(5), || {
        lab.list_takes()
    });
    fleet.expect_complete_but(&plugin.gather(), &[], "it goes on");

    if long() {
        // Keepalive (5 s x 5) closes the connections.
        lab.signal_libvirtd("STOP");
        let start = Instant::now();
        while start.elapsed() < Duration::from_secs(45) {
            plugin.newline();
            let written = plugin.lines_within(Duration::from_secs(5));
            assert!(shapes(&written).is_empty(), "lines of VMs: {written:?}");
        }
        lab.signal_libvirtd("CONT");
        wait_for("libvirtd to go on", Duration::from_secs(5), || {
            lab.list_takes()
        });
        fleet.expect_complete_but(&plugin.gather(), &[], "after keepalive");
    }
}

/// The default of `workers`.
const OUR_WORKERS: usize = 4;
/// Connections that the default configuration can use at most: one per worker, one for events, and that of
/// the one call which may be out in addition (the list, a canary, a probe).
const CONNECTIONS: usize = OUR_WORKERS + 2;
/// The pair of sockets by which signal-hook's handlers wake its thread.
const SOCKETS: usize = CONNECTIONS + 2;
/// Threads: main, signals, stdin, libvirt's event loop, its events, the host watcher, the process scan, and
/// one for each connection except that for events.
const THREADS: usize = 7 + CONNECTIONS - 1;

/// The resources that a process uses.
#[derive(Debug)]
struct Resources {
    threads: usize,
    sockets: usize,
    descriptors: usize,
    /// Resident memory in KiB.
    resident: usize,
}

fn resources(pid: u32) -> Resources {
    let proc = PathBuf::from(format!("/proc/{pid}"));
    let status = std::fs::read_to_string(proc.join("status")).unwrap();
    let number = |key: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(key));
        let word = line.unwrap().split_whitespace().next().unwrap();
        word.parse().unwrap()
    };
    let open: Vec<PathBuf> = std::fs::read_dir(proc.join("fd"))
        .unwrap()
        .flatten()
        .map(|entry| std::fs::read_link(entry.path()).unwrap_or_default())
        .collect();
    let is_socket = |link: &&PathBuf| link.to_string_lossy().starts_with("socket:");
    Resources {
        threads: number("Threads:"),
        sockets: open.iter().filter(is_socket).count(),
        descriptors: open.len(),
        resident: number("VmRSS:"),
    }
}

#[test]
fn a_daemon_killed_and_restarted() {
    let _alone = alone();
    let lab = Lab::start();
    let mut fleet = Fleet::start(&lab, 4, |n| small(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    fleet.learn(&mut plugin);
    let rounds = if long() { 100 } else { 14 };
    let warm = 10;
    let mut settled = None;
    for round in 1..=rounds {
        lab.signal_libvirtd("KILL");
        wait_for("libvirtd to end", Duration::from_secs(5), || {
            (!lab.libvirtd_runs()).then_some(())
        });
        if round % 2 == 1 {
            plugin.newline();
            let written = plugin.lines_within(Duration::from_millis(500));
            assert!(shapes(&written).is_empty(), "lines of VMs: {written:?}");
        }
        lab.start_libvirtd();
        // The daemon answers and has found its VMs again.
        wait_for("libvirtd's VMs", Duration::from_secs(30), || {
            let list = lab.virsh_command().args(["list", "--name"]).output().ok()?;
            let names = String::from_utf8_lossy(&list.stdout).into_owned();
            (names.split_whitespace().count() == fleet.vms.len()).then_some(())
        });
        let when = format!("restarted {round} times");
        fleet.expect_complete_but(&plugin.gather(), &[], &when);
        // libvirt's event loop closes the socket of a lost connection only after a moment.
        let mut now = resources(plugin.pid());
        for _ in 0..100 {
            if now.threads <= THREADS && now.sockets <= SOCKETS {
                break;
            }
            std::thread::sleep(Duration::from_millis(100));
            now = resources(plugin.pid());
        }
        let bounded = now.threads <= THREADS && now.sockets <= SOCKETS;
        assert!(bounded, "{when}: {now:?}; stderr:\n{}", plugin.stderr());
        if round == warm {
            settled = Some(now);
        }
    }
    // The numbers with an upper bound may differ by connections and threads in transition; all others are
    // unchanged.
    let (then, now) = (settled.unwrap(), resources(plugin.pid()));
    println!("after {warm} restarts {then:?}, after {rounds} {now:?}");
    let others = |held: &Resources| held.descriptors - held.sockets;
    // libvirt's client library has a pipe for each connection.
    let pipes = 2 * SOCKETS.saturating_sub(then.sockets);
    assert!(others(&now) <= others(&then) + pipes, "{then:?}, {now:?}");
    assert!(now.resident <= then.resident + 2048, "{then:?}, {now:?}");
}
