//! Instructions and allocations of a gather in a steady state, by valgrind: they do not depend on the
//! machine's load. libvirt's test driver runs in the same process and is part of the figures; the same
//! figures of the bare calls show its share.

use std::process::{Command, Stdio};

use crate::driver::domains;
use crate::gatherer::Gatherer;
use crate::support::cached;
use crate::support::node::{uri, write};

const VMS: usize = 100;

pub fn run() {
    if Command::new("valgrind").arg("--version").output().is_err() {
        println!("- instructions and allocations: valgrind is not installed");
        return;
    }
    let node = write(&domains(VMS));
    let uri = uri(&node);
    let plugin = [env!("CARGO_BIN_EXE_telegraf-kvm"), "--uri", &uri];
    let floor = cached("floor");
    let floor = [floor.to_str().unwrap(), &uri, "1", "8", "0x1", "calls"];
    println!("## A gather of {VMS} domains of the test driver, per VM, by valgrind");
    println!();
    println!("| | instructions | allocations | bytes allocated |\n|---|---|---|---|");
    for (name, args, end) in [
        ("telegraf-kvm", &plugin[..], "vm_collector"),
        ("the bare calls", &floor[..], "done"),
    ] {
        let few = counted(args, end, 3);
        let many = counted(args, end, 13);
        let each = |at: usize| (many[at] - few[at]) as f64 / 10.0 / VMS as f64;
        println!(
            "| {name} | {:.0} | {:.1} | {:.0} |",
            each(0),
            each(1),
            each(2)
        );
    }
    println!();
}

/// Instructions, allocations and allocated bytes of a run of this many gathers.
fn counted(args: &[&str], end: &'static str, gathers: usize) -> [u64; 3] {
    let folder = tempfile::tempdir().unwrap();
    let said = |tool: &[&str]| {
        let log = folder.path().join("log");
        let mut command = Command::new("valgrind");
        command
            .args(tool)
            .arg(format!("--log-file={}", log.display()));
        command.args(args).stderr(Stdio::null());
        let mut gatherer = Gatherer::spawn(command, end);
        for _ in 0..gathers {
            gatherer.gather();
        }
        gatherer.finish();
        std::fs::read_to_string(log).unwrap()
    };
    let out = format!("--callgrind-out-file={}/callgrind", folder.path().display());
    let instructions = said(&["--tool=callgrind", &out]);
    let instructions = after(&instructions, "Collected : ");
    let heap = said(&["--tool=memcheck", "--leak-check=no"]);
    let (allocs, bytes) = (after(&heap, "total heap usage: "), after(&heap, " frees, "));
    [instructions, allocs, bytes]
}

fn after(text: &str, key: &str) -> u64 {
    let (_, rest) = text
        .split_once(key)
        .unwrap_or_else(|| panic!("no {key:?} in {text}"));
    let digits = rest.chars().take_while(|c| c.is_ascii_digit() || *c == ',');
    digits
        .filter(char::is_ascii_digit)
        .collect::<String>()
        .parse()
        .unwrap()
}
