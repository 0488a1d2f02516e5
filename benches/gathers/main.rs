//! Whole gathers, timed: telegraf-kvm beside the bare calls to libvirt and beside its peers, on the
//! same VMs, in turns. `benches/run` builds what this needs and starts it; see there for the
//! arguments.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

#[path = "../../tests/support/mod.rs"]
mod support;

mod block;
mod costs;
mod driver;
mod fleet;
mod gatherer;
mod held;
mod host_view;
mod net_counters;
mod peers;
mod prices;
mod process;
mod sweep;
mod table;
mod vms;

/// The benchmarks that the arguments select.
pub struct Options {
    vms: usize,
    /// Disks of each VM.
    disks: usize,
    /// The VMs run instead of being paused.
    running: bool,
    rounds: usize,
    only: Option<String>,
    /// Another build of the program, to compare with.
    other: Option<String>,
}

const PARTS: [&str; 8] = [
    "fleet", "driver", "costs", "block", "prices", "sweep", "taps", "lab",
];

fn main() {
    let mut options = Options {
        vms: 100,
        disks: 3,
        running: false,
        rounds: 15,
        only: None,
        other: None,
    };
    let mut args = std::env::args().skip(1);
    while let Some(arg) = args.next() {
        let mut value = || {
            let value = args.next();
            value.unwrap_or_else(|| usage(&format!("{arg} needs a value")))
        };
        match arg.as_str() {
            // This argument is Cargo's.
            "--bench" => {}
            "--vms" => options.vms = number(&arg, &value()),
            "--disks" => match number(&arg, &value()) {
                disks @ 1..=20 => options.disks = disks,
                more => usage(&format!("--disks {more}: 20 are the most")),
            },
            "--running" => options.running = true,
            "--rounds" => options.rounds = number(&arg, &value()),
            "--only" => options.only = Some(value()),
            "--other" => options.other = Some(value()),
            other => usage(&format!("no option {other}")),
        }
    }
    if let Some(only) = &options.only
        && !PARTS.contains(&only.as_str())
    {
        usage(&format!("--only takes one of {}", PARTS.join(", ")));
    }
    let wanted = |part: &str| match &options.only {
        Some(only) => only == part,
        // These take long and answer separate questions, so they run only on request.
        None => !matches!(part, "block" | "prices" | "sweep" | "taps" | "lab"),
    };
    if wanted("driver") {
        driver::run(&options);
    }
    if wanted("costs") {
        costs::run();
    }
    if wanted("fleet") {
        fleet::run(&options);
    }
    if wanted("lab") {
        vms::hold(&options);
    }
    if wanted("block") {
        block::run(&options);
    }
    if wanted("prices") {
        prices::run(&options);
    }
    if wanted("taps") {
        net_counters::run(&options);
    }
    if wanted("sweep") {
        sweep::run(&options);
    }
}

fn number(flag: &str, text: &str) -> usize {
    match text.parse() {
        Ok(number) if number > 0 => number,
        _ => usage(&format!("{flag} {text}: a whole number above 0 is needed")),
    }
}

fn usage(message: &str) -> ! {
    eprintln!("benches/run: {message}; see benches/run --help");
    std::process::exit(2);
}
