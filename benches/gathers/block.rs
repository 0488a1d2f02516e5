//! What the calls for figures of disks cost, on VMs of few and of many disks, and the cheap calls beside them.

use crate::gatherer::Gatherer;
use crate::process::Host;
use crate::support::lab::Lab;
use crate::table::{Subject, measure, us_per_vm};
use crate::{Options, vms};

/// A name, and the floor's arguments: groups, then the call for each VM. 0x20 is block, 0x4 balloon, 0x1 state.
const CALLS: [(&str, &[&str]); 7] = [
    ("block group", &["0x20"]),
    ("BlockStatsFlags, empty path", &["0", "summary"]),
    ("BlockStatsFlags, each disk", &["0", "disks"]),
    ("balloon group", &["0x4"]),
    ("state group", &["0x1"]),
    ("GetInfo", &["0", "info"]),
    ("state, balloon and block groups", &["0x25"]),
];

pub fn run(options: &Options) {
    println!(
        "## Calls on {} real VMs, 4 connections, chunks of 8: us a VM, median (quartiles)\n",
        options.vms
    );
    println!(
        "| disks | call | wall time | libvirtd's CPU | QEMUs' CPU | libvirtd and QEMUs |\n|---|---|---|---|---|---|"
    );
    for disks in [1, 2, 3, 6] {
        part(options, disks);
    }
    println!();
}

fn part(options: &Options, disks: usize) {
    let lab = Lab::start();
    let _fleet = vms::start(&lab, options, disks, None);
    let mut host = Host::of(&lab);
    if options.running {
        vms::settle(&mut host);
    }
    let floors = CALLS.map(|(_, args)| {
        Gatherer::floor(&lab, &[&["qemu:///system", "4", "8"], args].concat()).share()
    });
    let mut subjects: Vec<Subject> = CALLS
        .iter()
        .zip(&floors)
        .map(|((name, _), floor)| Subject::gatherer(*name, floor))
        .collect();
    let all = measure(&mut subjects, &host, options.rounds);
    for (subject, row) in subjects.iter().zip(&all) {
        let of = |figure| us_per_vm(row, options.vms, figure);
        println!(
            "| {disks} | {} | {} | {} | {} | {} |",
            subject.name,
            of(|r| r.wall),
            of(|r| r.daemon),
            of(|r| r.qemus),
            of(|r| r.daemon + r.qemus),
        );
    }
}
