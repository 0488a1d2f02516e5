//! Real VMs: telegraf-kvm, the bare calls in several variants, and the peers.

use std::time::Instant;

use crate::gatherer::{Gatherer, calls};
use crate::process::{self, Host};
use crate::support::lab::Lab;
use crate::table::{Subject, measure, ms, shown, spread};
use crate::{Options, held, host_view, peers, vms};

const URI: &str = "qemu:///system";
/// virDomainStatsTypes: state, block. Most gathers request these in a steady state, as CPU time and the network's counters
/// are read on the host, and memory has not changed.
const OURS: &str = "0x21";
/// The same with balloon.
const WITH_BALLOON: &str = "0x25";
/// The same with cpu and net: for hosts where these cannot be read on the host.
const WITHOUT_HOST: &str = "0x37";
/// state, cpu, balloon, vcpu, net, block
const SIX: &str = "0x3f";

pub fn run(options: &Options) {
    let lab = Lab::start();
    let began = Instant::now();
    let socket = lab.dir().join("monitor");
    let fleet = vms::start(&lab, options, options.disks, Some(&socket));
    eprintln!("{} VMs after {:.0?}", fleet.vms.len(), began.elapsed());
    let mut host = Host::of(&lab);
    assert_eq!(host.qemus.len(), options.vms, "QEMUs");
    let mut plugin = Gatherer::plugin(&lab, "");
    let other = options.other.as_ref();
    let other = other.map(|program| Gatherer::other(&lab, program, "").share());
    if options.running {
        vms::age();
        vms::settle(&mut host);
    }
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
            "one bulk call of state, balloon, block",
            floor(&["1", "100000", WITH_BALLOON]),
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
    if let Some(other) = &other {
        subjects.push(Subject::gatherer("the other build", other));
    }
    let first_bare = subjects.len();
    for (name, one) in &bare {
        subjects.push(Subject::gatherer(*name, one));
    }
    let virsh = Subject::untracked("virsh domstats of six groups", || {
        let mut virsh = lab.virsh_command();
        virsh.args(["domstats", "--state", "--cpu-total", "--balloon", "--vcpu"]);
        virsh.args(["--interface", "--block"]);
        peers::takes(&mut virsh)
    });
    subjects.push(virsh);
    let mut peers = peers::start(&lab, options.vms);
    if options.running {
        peers.push(peers::collectd(&lab));
    }
    add(&mut subjects, peers);
    let all = measure(&mut subjects, &host, options.rounds);
    println!("## {}", vms::described(options));
    host_view::print(&subjects, &all, options.vms);
    println!(
        "- telegraf-kvm: {calls}; {bytes} bytes; peak {} KiB",
        process::peak(plugin.borrow().pid())
    );
    for (what, bare) in [
        ("the same calls, bare", 0),
        (
            "libvirt's own for the same figures (the third of the bare)",
            2,
        ),
    ] {
        let bare = &all[first_bare + bare];
        let beyond = all[0].iter().zip(bare);
        let beyond = beyond.map(|(a, b)| (ms(a.own) - ms(b.own)) * 1e3 / options.vms as f64);
        println!("- own CPU beyond {what}: {} us a VM", shown(spread(beyond)));
    }
    println!();
    held::run(&mut subjects, &host, &socket, options.rounds);
    drop(subjects);
    if options.running {
        return;
    }

    // collectd ignores paused VMs.
    for vm in &fleet.vms {
        lab.virsh(&["resume", "--domain", vm.name()]);
    }
    vms::age();
    vms::settle(&mut host);
    let mut subjects = vec![Subject::gatherer("telegraf-kvm", &plugin)];
    add(&mut subjects, vec![peers::collectd(&lab)]);
    let all = measure(&mut subjects, &host, options.rounds);
    println!("## The same, running (idle)");
    host_view::print(&subjects, &all, options.vms);
    held::run(&mut subjects, &host, &socket, options.rounds);
}

/// Adds the peers that are installed.
fn add(subjects: &mut Vec<Subject>, peers: Vec<peers::Peer>) {
    for peer in peers {
        match peer {
            Ok(subject) => subjects.push(subject),
            Err(name) => println!("- {name}: not installed"),
        }
    }
}
