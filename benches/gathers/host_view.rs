//! What a gather costs the host: processor time of the program, of libvirtd and of all QEMUs.

use crate::table::{Round, Subject, ratio, shown, us_per_vm};

/// Prints what each subject costs, per gather and VM. The first subject is telegraf-kvm; the others are compared with
/// it, round by round. A program whose own processor time is not measured has none in the sum.
pub fn print(subjects: &[Subject], all: &[Vec<Round>], vms: usize) {
    println!();
    println!(
        "us per gather and VM: median (quartiles)\n\n\
         | | wall time | own CPU | libvirtd's CPU | QEMUs' CPU | host CPU (their sum) | \
         telegraf-kvm / it: wall time | host CPU |\n|---|---|---|---|---|---|---|---|"
    );
    for (subject, row) in subjects.iter().zip(all) {
        let of = |figure| us_per_vm(row, vms, figure);
        let own = subject.pid.map_or(String::from("-"), |_| of(|r| r.own));
        println!(
            "| {} | {} | {own} | {} | {} | {} | {} | {} |",
            subject.name,
            of(|r| r.wall),
            of(|r| r.daemon),
            of(|r| r.qemus),
            of(Round::host),
            shown(ratio(&all[0], row, |r| r.wall)),
            shown(ratio(&all[0], row, Round::host)),
        );
    }
    println!();
}
