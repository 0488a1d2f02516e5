//! Measures subjects in turns and prints the table of the results.

use std::cell::RefCell;
use std::time::{Duration, Instant};

use crate::gatherer::Gatherer;
use crate::process::{Cpu, Host};

/// A program that gathers and is measured.
pub struct Subject<'a> {
    /// The head of the subject's row.
    pub name: String,
    /// Runs one gather and returns its cost.
    pub gather: Box<dyn FnMut() -> Duration + 'a>,
    /// The subject's process id, if it keeps running.
    pub pid: Option<u32>,
    /// The number of gathers that a turn consists of. The gather that is timed is one of them, and each has the
    /// same part in the processor time.
    pub gathers: u32,
}

impl<'a> Subject<'a> {
    /// A process that keeps running, gathers on request, and whose processor time is measured.
    pub fn gatherer(name: impl Into<String>, gatherer: &'a RefCell<Gatherer>) -> Self {
        Self {
            name: name.into(),
            pid: Some(gatherer.borrow().pid()),
            gather: Box::new(move || gatherer.borrow_mut().gather()),
            gathers: 1,
        }
    }

    /// Something else that gathers on request; its processor time is not measured.
    pub fn untracked(name: impl Into<String>, gather: impl FnMut() -> Duration + 'a) -> Self {
        Self {
            name: name.into(),
            gather: Box::new(gather),
            pid: None,
            gathers: 1,
        }
    }
}

/// The cost of one gather.
#[derive(Clone, Copy, Default)]
pub struct Round {
    pub wall: Duration,
    /// Processor time of the program, of libvirtd, and of all QEMUs together.
    pub own: Duration,
    pub daemon: Duration,
    pub qemus: Duration,
}

impl Round {
    /// Processor time that the gather costs the host.
    pub fn host(&self) -> Duration {
        self.own + self.daemon + self.qemus
    }
}

/// Lets all subjects gather in turns, `rounds` times after two rounds that do not count. Every other round is in the
/// reverse order, because a gather also pays for what its predecessor has left in the processor's caches.
/// Returns one row per subject.
pub fn measure(subjects: &mut [Subject], host: &Host, rounds: usize) -> Vec<Vec<Round>> {
    let mut all = vec![Vec::with_capacity(rounds); subjects.len()];
    for round in 0..rounds + 2 {
        let mut turns: Vec<_> = subjects.iter_mut().zip(&mut all).collect();
        if round % 2 == 1 {
            turns.reverse();
        }
        for (subject, row) in turns {
            let cost = turn(subject, host);
            if round >= 2 {
                row.push(cost);
            }
        }
    }
    all
}

fn turn(subject: &mut Subject, host: &Host) -> Round {
    let cpu = || {
        let qemus = Cpu::of(&host.qemus);
        (Cpu::of(&subject.pid), Cpu::of(&host.daemon), qemus)
    };
    let before = cpu();
    let start = Instant::now();
    let wall = (subject.gather)();
    // Work that a process does after its answer is part of its cost.
    std::thread::sleep(Duration::from_millis(100));
    let took = start.elapsed();
    let after = cpu();
    let qemus = host.of_gather(after.2.since(&before.2), took);
    Round {
        wall,
        own: after.0.since(&before.0) / subject.gathers,
        daemon: after.1.since(&before.1) / subject.gathers,
        qemus: qemus / subject.gathers,
    }
}

/// A figure of each round in us, for each of so many VMs: median and quartiles.
pub fn us_per_vm(row: &[Round], vms: usize, figure: fn(&Round) -> Duration) -> String {
    shown(spread(row.iter().map(|r| ms(figure(r)) * 1e3 / vms as f64)))
}

/// Median and quartiles.
#[derive(Clone, Copy)]
pub struct Spread {
    pub low: f64,
    pub middle: f64,
    pub high: f64,
}

/// The median of these figures.
pub fn spread(figures: impl IntoIterator<Item = f64>) -> Spread {
    let [low, middle, high] = quantiles(figures, [0.25, 0.5, 0.75]);
    Spread { low, middle, high }
}

/// The figures below which these shares of all lie.
pub fn quantiles<const N: usize>(
    figures: impl IntoIterator<Item = f64>,
    shares: [f64; N],
) -> [f64; N] {
    let mut sorted: Vec<f64> = figures.into_iter().collect();
    sorted.sort_by(f64::total_cmp);
    shares.map(|share| {
        let place = share * (sorted.len().max(1) - 1) as f64;
        let figure = sorted.get(place.round() as usize);
        figure.copied().unwrap_or(f64::NAN)
    })
}

/// A duration in ms.
pub fn ms(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// `12.3 (12.1-12.9)`, with as many digits as are significant.
pub fn shown(spread: Spread) -> String {
    let digits = match spread.middle {
        m if m >= 100.0 => 0,
        m if m >= 10.0 => 1,
        _ => 2,
    };
    let Spread { low, middle, high } = spread;
    format!("{middle:.digits$} ({low:.digits$}-{high:.digits$})")
}

/// The ratio of our figure to the other's, pair by pair.
pub fn ratio(ours: &[Round], others: &[Round], figure: impl Fn(&Round) -> Duration) -> Spread {
    let pairs = ours.iter().zip(others);
    spread(pairs.map(|(a, b)| figure(a).as_secs_f64() / figure(b).as_secs_f64().max(1e-9)))
}

/// Prints the rows. The first subject is telegraf-kvm; the others are compared with it.
pub fn print(subjects: &[Subject], all: &[Vec<Round>], rows: &[String], daemon: bool) {
    println!();
    println!(
        "| | gather, ms: median (quartiles) | telegraf-kvm's share of it | own CPU, ms | libvirtd's CPU, ms | |\n|---|---|---|---|---|---|"
    );
    let ours = &all[0];
    for ((subject, row), extra) in subjects.iter().zip(all).zip(rows) {
        let of = |figure: fn(&Round) -> Duration| shown(spread(row.iter().map(|r| ms(figure(r)))));
        let wall = of(|r| r.wall);
        let share = shown(ratio(ours, row, |r| r.wall));
        let own = subject.pid.map_or(String::from("-"), |_| of(|r| r.own));
        let host = if daemon { of(|r| r.daemon) } else { "-".into() };
        println!(
            "| {} | {wall} | {share} | {own} | {host} | {extra} |",
            subject.name
        );
    }
    println!();
}
