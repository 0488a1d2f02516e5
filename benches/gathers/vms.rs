//! The real VMs that gathers are measured on.

use std::path::Path;
use std::time::Duration;

use crate::Options;
use crate::process::Host;
use crate::support::fleet::{Fleet, big};
use crate::support::lab::Lab;
use crate::support::succeed;
use crate::support::vm::{Disk, VmSpec, disks};

/// Starts `options.vms` VMs of this number of disks and two taps. One of ten has a balloon that reports every
/// 10 s. Where `monitored` has a path, the VM in the middle of the list has a second monitor there.
pub fn start<'lab>(
    lab: &'lab Lab,
    options: &Options,
    disks: usize,
    monitored: Option<&Path>,
) -> Fleet<'lab> {
    let extra = |number| match monitored {
        Some(path) if number == options.vms / 2 => second_monitor(path),
        _ => String::new(),
    };
    let fleet = Fleet::start(lab, options.vms, |number| VmSpec {
        disks: disks_of(disks),
        stats_period: (number % 10 == 9).then_some(10),
        paused: !options.running,
        extra: extra(number),
        ..big(format!("vm{number:03}"))
    });
    stir(lab);
    fleet
}

fn disks_of(count: usize) -> Vec<Disk> {
    let targets: Vec<String> = ('a'..='z').take(count).map(|c| format!("vd{c}")).collect();
    let targets: Vec<&str> = targets.iter().map(String::as_str).collect();
    disks(&targets)
}

fn second_monitor(path: &Path) -> String {
    format!(
        "<qemu:commandline xmlns:qemu='http://libvirt.org/schemas/domain/qemu/1.0'>\
         <qemu:arg value='-qmp'/><qemu:arg value='unix:{},server=on,wait=off'/>\
         </qemu:commandline>",
        path.display()
    )
}

/// "60 real VMs of 3 disks and 2 taps (QEMU, paused)"
pub fn described(options: &Options) -> String {
    let disks = if options.disks == 1 { "disk" } else { "disks" };
    let state = if options.running { "running" } else { "paused" };
    format!(
        "{} real VMs of {} {disks} and 2 taps (QEMU, {state})",
        options.vms, options.disks
    )
}

/// Starts the VMs and waits for the end of stdin: for a profiler, or for manual tests.
pub fn hold(options: &Options) {
    let lab = Lab::start();
    let _fleet = start(&lab, options, options.disks, None);
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

/// Waits until guests that were started or resumed before, and those that were while a telegraf-kvm which has just been
/// started did not look, cannot be about to start their balloons' drivers. Until then it asks for the balloon's figures of a running VM in each gather.
pub fn age() {
    const GUESTS_START: Duration = Duration::from_secs(310);
    std::thread::sleep(GUESTS_START);
}

/// Waits until the firmware of running VMs has given up to find a system, for three minutes at most: until the
/// processor time of all of them is steady. From then on it is not a gather's.
pub fn settle(host: &mut Host) {
    let mut before = host.learn_idle();
    for _ in 0..36 {
        let now = host.learn_idle();
        let is_steady = now.abs_diff(before) < Duration::from_millis(2) + now / 10;
        if is_steady {
            break;
        }
        before = now;
    }
    eprintln!(
        "idle, all VMs use {:.1} ms of CPU time a second",
        host.idle_ms()
    );
}
