//! What each option adds to a gather of real VMs: the program with one more option each, in turns. Or the program beside
//! another build of it.

use std::cell::RefCell;

use crate::gatherer::Gatherer;
use crate::process::{self, Host};
use crate::support::lab::Lab;
use crate::table::{Subject, measure, ms, ratio, shown, spread};
use crate::{Options, vms};

/// All measurements that are on by default, and one more.
fn with(measurement: &str) -> String {
    format!(
        "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector', '{measurement}']\n"
    )
}

pub fn run(options: &Options) {
    let lab = Lab::start();
    let _fleet = vms::start(&lab, options, options.disks, None);
    let host = Host::daemon(Some(process::libvirtd(&lab)));
    let tags = "[tags]\na = 'title'\nb = 'description'\nc = 'libosinfo:os'\n";
    let settings = [
        ("the defaults", String::new()),
        ("the same again", String::new()),
        ("vcpu_delay = \"off\"", "vcpu_delay = 'off'\n".into()),
        (
            "vcpu_delay = \"libvirt\"",
            "vcpu_delay = 'libvirt'\n".into(),
        ),
        ("vm_vcpus", with("vm_vcpus")),
        ("vm_pressure", with("vm_pressure")),
        ("vm_jobs", with("vm_jobs")),
        ("vm_info", with("vm_info")),
        ("three [tags]", tags.into()),
        ("max_lines that fits", "max_lines = 1000000\n".into()),
    ];
    // Beside another build, only that counts, and more rounds fit into the same time.
    let compared = match options.other {
        Some(_) => &settings[..2],
        None => &settings[..],
    };
    let start = |(name, settings): &(&'static str, String)| {
        (*name, Gatherer::plugin(&lab, settings).share())
    };
    let mut programs: Vec<(&str, RefCell<Gatherer>)> = compared.iter().map(start).collect();
    if let Some(other) = &options.other {
        let measurements = "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector']\n";
        let other = Gatherer::other(&lab, other, measurements);
        programs.push(("the other build", other.share()));
    }
    for (_, program) in &programs {
        for _ in 0..3 {
            program.borrow_mut().gather();
        }
    }
    let mut subjects: Vec<Subject> = programs
        .iter()
        .map(|(name, program)| Subject::gatherer(*name, program))
        .collect();
    let all = measure(&mut subjects, &host, options.rounds);
    println!("## Prices, {}\n", vms::described(options));
    println!(
        "| | gather, ms | of that with the defaults | own CPU beyond, us a VM | libvirtd's CPU beyond, us a VM |"
    );
    println!("|---|---|---|---|---|");
    for (subject, row) in subjects.iter().zip(&all) {
        let beyond = |figure: fn(&crate::table::Round) -> std::time::Duration| {
            let pairs = row.iter().zip(&all[0]);
            let beyond = pairs.map(|(a, b)| (ms(figure(a)) - ms(figure(b))) * 1e3);
            shown(spread(beyond.map(|us| us / options.vms as f64)))
        };
        println!(
            "| {} | {} | {} | {} | {} |",
            subject.name,
            shown(spread(row.iter().map(|round| ms(round.wall)))),
            shown(ratio(row, &all[0], |round| round.wall)),
            beyond(|round| round.own),
            beyond(|round| round.daemon),
        );
    }
    println!();
}
