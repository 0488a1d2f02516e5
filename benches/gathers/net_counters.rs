//! The cost of network counters among thousands of interfaces: libvirt's net group, which reads /proc/net/dev
//! from its top for every NIC, and one read of that file.

use std::path::Path;
use std::time::Duration;

use telegraf_kvm::host::NetDev;

use crate::Options;
use crate::gatherer::Gatherer;
use crate::process::Host;
use crate::support::fleet::{Fleet, big};
use crate::support::lab::Lab;
use crate::support::succeed;
use crate::table::{Subject, measure, ms, shown, spread};
use crate::vms::stir;

/// VIR_DOMAIN_STATS_INTERFACE
const NET: &str = "0x10";
const VMS: usize = 10;
const NICS: usize = 2 * VMS;

pub fn run(options: &Options) {
    println!("## {VMS} VMs of 2 taps behind many interfaces, ms: median (quartiles)");
    println!();
    println!(
        "| interfaces | libvirt's net group, a NIC | /proc/net/dev read once, all | the gather of {VMS} VMs |\n|---|---|---|---|"
    );
    for wanted in [200, 1_000, 2_000, 4_000] {
        let lab = Lab::start();
        let batch = lab.dir().join("links");
        // The interfaces are made before the VMs: the position of a tap in the file is what libvirt's reading
        // of it costs.
        let links = (NICS..wanted).map(|n| format!("tuntap add dev more{n} mode tap\n"));
        std::fs::write(&batch, links.collect::<String>()).unwrap();
        succeed(lab.command("ip").arg("-batch").arg(&batch));
        let _fleet = Fleet::start(&lab, VMS, |n| big(format!("vm{n}")));
        stir(&lab);
        let floor = Gatherer::floor(&lab, &["qemu:///system", "1", "100", NET]).share();
        let plugin = Gatherer::plugin(&lab, "").share();
        let proc = format!("/proc/{}", lab.init());
        let mut subjects = [
            Subject::gatherer("libvirt", &floor),
            Subject::untracked("one read", || one_read(Path::new(&proc))),
            Subject::gatherer("telegraf-kvm", &plugin),
        ];
        let all = measure(&mut subjects, &Host::default(), options.rounds);
        let wall = |row: usize, parts: usize| {
            shown(spread(all[row].iter().map(|r| ms(r.wall) / parts as f64)))
        };
        println!(
            "| {wanted} | {} | {} | {} |",
            wall(0, NICS),
            wall(1, 1),
            wall(2, 1)
        );
    }
    println!();
}

fn one_read(proc: &Path) -> Duration {
    let start = std::time::Instant::now();
    std::hint::black_box(NetDev::read(proc).unwrap());
    start.elapsed()
}
