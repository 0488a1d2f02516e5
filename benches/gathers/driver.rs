//! libvirt's test driver: 100 to 10,000 domains of three disks and two interfaces, in our own
//! process and behind a libvirtd.

use crate::Options;
use crate::gatherer::{Gatherer, calls};
use crate::process::{self, Host};
use crate::support::lab::Lab;
use crate::support::node::{Domain, disk, nic, write};
use crate::table::{Subject, measure, ms, print, ratio, shown};

const SIZES: [usize; 3] = [100, 1_000, 10_000];
/// VIR_DOMAIN_STATS_STATE: all that the test driver's bulk call has.
const STATE: &str = "0x1";

/// A node file's domains.
pub fn domains(count: usize) -> Vec<Domain> {
    let disks: String = ["vda", "vdb", "vdc"].map(|t| disk("disk", t)).concat();
    let domain = |n: usize| {
        let nics = [0, 1].map(|i| nic(Some(&format!("tap{n}x{i}")))).concat();
        Domain {
            devices: format!("{disks}{nics}<memballoon model='virtio'/>"),
            memory: (1_048_576, 2_097_152),
            ..Domain::new(u32::try_from(n).unwrap(), &format!("vm{n}"))
        }
    };
    (1..=count).map(domain).collect()
}

pub fn run(options: &Options) {
    let lab = Lab::start();
    let daemon = process::libvirtd(&lab);
    for size in SIZES {
        let node = write(&domains(size));
        let file = lab.dir().join(format!("node{size}.xml"));
        std::fs::copy(node.path(), &file).unwrap();
        for remote in [false, true] {
            let uri = if remote {
                format!("test+unix://{}", file.display())
            } else {
                format!("test://{}", file.display())
            };
            // Many VMs behind a libvirtd take seconds each.
            let rounds = match (size, remote) {
                (10_000, true) => options.rounds.min(7),
                (_, false) => options.rounds * 3,
                _ => options.rounds,
            };
            part(&lab, size, &uri, remote.then_some(daemon), rounds);
        }
    }
}

fn part(lab: &Lab, size: usize, uri: &str, daemon: Option<u32>, rounds: usize) {
    let (workers, chunk) = if daemon.is_some() {
        ("4", "8")
    } else {
        ("1", "256")
    };
    let kind = if daemon.is_some() {
        "behind a libvirtd"
    } else {
        "in process"
    };
    let mut plugin = Gatherer::plugin_of(lab, uri, "deadline = \"120s\"\n");
    let first = plugin.gather();
    let first_lines = plugin.lines - 1;
    // Gathers until all VMs are described, and those that were described before libvirt's events began are
    // described again.
    let mut made = String::new();
    for _ in 0..12 {
        let before = plugin.last.clone();
        plugin.gather();
        made = calls(&before, &plugin.last);
        if !made.contains("xml") {
            break;
        }
    }
    let mut floor = Gatherer::floor(lab, &[uri, workers, chunk, STATE, "calls", "events"]);
    floor.gather();
    let (ours, bare) = (plugin.share(), floor.share());
    let mut subjects = [
        Subject::gatherer("telegraf-kvm", &ours),
        Subject::gatherer("the bare calls", &bare),
    ];
    let all = measure(&mut subjects, &Host::daemon(daemon), rounds);
    println!("## Test driver {kind}, {size} domains");
    let (bytes, lines) = (ours.borrow().bytes, ours.borrow().lines);
    let peaks = [&ours, &bare].map(|one| process::peak(one.borrow().pid()));
    let rows = [
        format!(
            "peak {} KiB; {made}; {lines} lines, {bytes} bytes",
            peaks[0]
        ),
        format!("peak {} KiB", peaks[1]),
    ];
    print(&subjects, &all, &rows, daemon.is_some());
    let shares = ratio(&all[0], &all[1], |r| r.wall);
    println!("- gather / bare calls: {}", shown(shares));
    let beyond = all[0].iter().zip(&all[1]);
    let beyond = beyond.map(|(a, b)| (ms(a.own) - ms(b.own)) * 1e3 / size as f64);
    println!(
        "- own CPU beyond the bare calls' process: {} us a VM",
        shown(crate::table::spread(beyond))
    );
    let memory = (peaks[0] as f64 - peaks[1] as f64) * 1024.0 / size as f64;
    println!(
        "- peak memory beyond it: {memory:.0} bytes a VM, the output buffer ({} bytes a VM) included",
        bytes / size
    );
    println!("- first gather: {:.0} ms, {first_lines} lines", ms(first));
    println!();
}
