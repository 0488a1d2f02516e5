//! Real VMs of three disks and two taps: telegraf-kvm, the bare calls in several variants, and the peers.

use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use crate::gatherer::{Gatherer, calls};
use crate::support::fleet::{Fleet, big};
use crate::support::lab::Lab;
use crate::support::succeed;
use crate::table::{Subject, measure, ms, print, shown, spread};
use crate::{Options, peers, process};

const URI: &str = "qemu:///system";
/// virDomainStatsTypes: state, balloon, block. A gather requests these in a steady state, as CPU time and the
/// network's counters are read on the host.
const OURS: &str = "0x25";
/// The same with cpu and net: for hosts where these cannot be read on the host.
const WITHOUT_HOST: &str = "0x37";
/// state, cpu, balloon, vcpu, net, block
const SIX: &str = "0x3f";

pub fn run(options: &Options) {
    let lab = Lab::start();
    let began = Instant::now();
    let fleet = Fleet::start(&lab, options.vms, |n| big(format!("vm{n:03}")));
    eprintln!("{} VMs after {:.0?}", fleet.vms.len(), began.elapsed());
    stir(&lab);
    let daemon = process::libvirtd(&lab);

    let mut plugin = Gatherer::plugin(&lab, "");
    for _ in 0..5 {
        plugin.gather();
    }
    let before = plugin.last.clone();
    plugin.gather();
    let calls = calls(&before, &plugin.last);
    let bytes = plugin.bytes;
    let floor = |args: &[&str]| Gatherer::floor(&lab, &[&[URI], args].concat()).share();
    let plugin = plugin.share();
    let bare = [
        (
            "the same calls, bare, 4 connections",
            floor(&["4", "8", OURS, "canary", "events"]),
        ),
        (
            "one bulk call of the same groups (state, balloon, block)",
            floor(&["1", "100000", OURS]),
        ),
        (
            "all that libvirt has of it: cpu and net too, GetInfo; 4 connections",
            floor(&["4", "8", WITHOUT_HOST, "info", "canary", "events"]),
        ),
        (
            "one bulk call of state, cpu, balloon, net, block",
            floor(&["1", "100000", WITHOUT_HOST]),
        ),
        (
            "one bulk call of six groups (vcpu too)",
            floor(&["1", "100000", SIX]),
        ),
    ];
    let mut subjects = vec![Subject::gatherer("telegraf-kvm", &plugin)];
    for (name, one) in &bare {
        subjects.push(Subject::gatherer(*name, one));
    }
    subjects.push(Subject {
        name: "virsh domstats of six groups".into(),
        pid: None,
        gather: Box::new(|| {
            let mut virsh = lab.virsh_command();
            virsh.args(["domstats", "--state", "--cpu-total", "--balloon", "--vcpu"]);
            virsh.args(["--interface", "--block"]);
            takes(&mut virsh)
        }),
    });
    let peers = peers::start(&lab);
    for peer in peers {
        match peer {
            peers::Peer::Runs { name, gather } => subjects.push(Subject {
                name: name.into(),
                pid: None,
                gather,
            }),
            peers::Peer::Lacks(name) => println!("- {name}: not installed"),
        }
    }
    let all = measure(&mut subjects, Some(daemon), options.rounds);
    println!(
        "## {} real VMs of 3 disks and 2 taps (QEMU, paused)",
        options.vms
    );
    let mut rows = vec![String::new(); subjects.len()];
    rows[0] = format!(
        "peak {} KiB; {calls}; {bytes} bytes",
        process::peak(plugin.borrow().pid())
    );
    print(&subjects, &all, &rows, true);
    for (what, bare) in [
        ("the same calls, bare", &all[1]),
        (
            "libvirt's own for the same figures (the third of the bare)",
            &all[3],
        ),
    ] {
        let beyond = all[0].iter().zip(bare);
        let beyond = beyond.map(|(a, b)| (ms(a.own) - ms(b.own)) * 1e3 / options.vms as f64);
        println!("- own CPU beyond {what}: {} us a VM", shown(spread(beyond)));
    }
    println!();
    drop(subjects);

    // collectd ignores paused VMs.
    for vm in &fleet.vms {
        lab.virsh(&["resume", "--domain", vm.name()]);
    }
    settle();
    let (name, gather) = match peers::collectd(&lab) {
        peers::Peer::Runs { name, gather } => (name, gather),
        peers::Peer::Lacks(name) => {
            println!("- {name}: not installed");
            return;
        }
    };
    let mut subjects = [
        Subject::gatherer("telegraf-kvm", &plugin),
        Subject {
            name: name.into(),
            pid: None,
            gather,
        },
    ];
    let all = measure(&mut subjects, Some(daemon), options.rounds);
    println!("## The same, running (idle)");
    print(&subjects, &all, &[String::new(), String::new()], true);
}

/// Starts the VMs and waits for the end of stdin: for a profiler, or for manual tests.
pub fn hold(options: &Options) {
    let lab = Lab::start();
    let _fleet = Fleet::start(&lab, options.vms, |n| big(format!("vm{n:03}")));
    println!(
        "nsenter -a -t {} is inside; the end of stdin ends it",
        lab.init()
    );
    let _ = std::io::copy(&mut std::io::stdin(), &mut std::io::sink());
}

/// Sends packets to every tap, as any network does: ARP requests for addresses that do not exist.
pub fn stir(lab: &Lab) {
    let send = "for n in 201 202 203; do echo x >/dev/udp/192.168.77.$n/9; done; sleep 3";
    succeed(lab.command("bash").args(["-c", send]));
}

/// Waits until the guests are idle, for two minutes at most.
fn settle() {
    for _ in 0..24 {
        let before = busy();
        std::thread::sleep(Duration::from_secs(5));
        if busy() - before < 50 {
            return;
        }
    }
}

/// Ticks (10 ms) in which the machine's processors were not idle.
fn busy() -> u64 {
    let text = std::fs::read_to_string("/proc/stat").unwrap();
    let ticks = text.lines().next().unwrap().split_whitespace().skip(1);
    let ticks: Vec<u64> = ticks.filter_map(|tick| tick.parse().ok()).collect();
    ticks[0] + ticks[1] + ticks[2]
}

/// The time from the start of the gather to its end.
pub fn takes(command: &mut Command) -> Duration {
    let start = Instant::now();
    command.stdin(Stdio::null()).stdout(Stdio::null());
    let status = command.status().unwrap();
    assert!(status.success(), "{command:?}: {status}");
    start.elapsed()
}

/// Compares chunk sizes and numbers of workers, by the bare calls.
pub fn sweep(options: &Options) {
    let lab = Lab::start();
    let _fleet = Fleet::start(&lab, options.vms, |n| big(format!("vm{n:03}")));
    stir(&lab);
    let daemon = process::libvirtd(&lab);
    let mut settings = Vec::new();
    for workers in [1, 2, 3, 4, 6, 8] {
        for chunk in [1, 2, 4, 8, 16, 32] {
            let text = format!("workers = {workers}\nchunk_size = {chunk}\n");
            let mut plugin = Gatherer::plugin(&lab, &text);
            for _ in 0..3 {
                plugin.gather();
            }
            settings.push((workers, chunk, plugin.share()));
        }
    }
    let mut subjects = Vec::new();
    for (workers, chunk, plugin) in &settings {
        let name = format!("{workers} workers, chunks of {chunk}");
        subjects.push(Subject::gatherer(name, plugin));
    }
    let all = measure(&mut subjects, Some(daemon), options.rounds);
    println!(
        "## Workers and chunks, {} real VMs: gather in ms, libvirtd's CPU in ms",
        options.vms
    );
    println!();
    println!("| workers \\ chunk | 1 | 2 | 4 | 8 | 16 | 32 |\n|---|---|---|---|---|---|---|");
    for (line, rows) in settings.chunks(6).zip(all.chunks(6)) {
        let cell = |row: &Vec<crate::table::Round>| {
            let wall = spread(row.iter().map(|r| ms(r.wall))).middle;
            let host = spread(row.iter().map(|r| ms(r.daemon))).middle;
            format!("{wall:.0}, {host:.0}")
        };
        let cells: Vec<String> = rows.iter().map(cell).collect();
        println!("| {} | {} |", line[0].0, cells.join(" | "));
    }
    println!();
}
