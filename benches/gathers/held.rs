//! The time for which gathers hold a QEMU's main loop. A client of a second monitor sends a cheap command back to
//! back: its answer comes from the main loop, which also serves the guest's devices.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::process::{Cpu, Host};
use crate::table::{Subject, ms, quantiles, shown, spread};

/// An answer: when its command was sent, and when it came.
type Answer = (Instant, Instant);

/// How often libvirtd's processor time is read.
const LOOK: Duration = Duration::from_millis(5);
/// libvirtd's processor time in one look that is more than keepalive needs: a gather runs.
const BUSY: Duration = Duration::from_micros(500);

/// The monitor's client.
struct Monitor(BufReader<UnixStream>);

impl Monitor {
    fn open(path: &Path) -> Self {
        let mut monitor = Self(BufReader::new(UnixStream::connect(path).unwrap()));
        monitor.line();
        monitor.ask("qmp_capabilities");
        monitor
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        self.0.read_line(&mut line).unwrap();
        assert!(!line.is_empty(), "the monitor was closed");
        line
    }

    /// Sends a command and waits for its answer; events in between are passed over.
    fn ask(&mut self, command: &str) -> Answer {
        let text = format!("{{\"execute\":\"{command}\"}}\n");
        let sent = Instant::now();
        self.0.get_mut().write_all(text.as_bytes()).unwrap();
        while !self.line().starts_with("{\"return\"") {}
        (sent, Instant::now())
    }

    /// Asks until `stop`.
    fn answers(&mut self, stop: &AtomicBool) -> Vec<Answer> {
        let mut answers = Vec::new();
        while !stop.load(Ordering::Relaxed) {
            answers.push(self.ask("query-version"));
        }
        answers
    }
}

/// The first and last moment in which libvirtd works, until `stop`.
fn watch(host: &Host, stop: &AtomicBool) -> Option<(Instant, Instant)> {
    let mut worked: Option<(Instant, Instant)> = None;
    let mut then = (Instant::now(), Cpu::of(&host.daemon));
    while !stop.load(Ordering::Relaxed) {
        std::thread::sleep(LOOK);
        let now = (Instant::now(), Cpu::of(&host.daemon));
        if now.1.since(&then.1) > BUSY {
            worked = Some((worked.map_or(then.0, |(begin, _)| begin), now.0));
        }
        then = now;
    }
    worked
}

/// What the client saw in all turns of one subject, in ms.
#[derive(Default)]
struct Seen {
    /// Of each answer, while a gather runs and while none runs.
    during: Vec<f64>,
    between: Vec<f64>,
    /// Of each gather: its worst answer, and the time that all its answers take beyond the median of `between`, less
    /// what answers in as much time of `between` take beyond it. The load of others is not the gather's.
    worst: Vec<f64>,
    beyond: Vec<f64>,
}

impl Seen {
    fn turn(&mut self, answers: &[Answer], gather: (Instant, Instant)) {
        let took = |(sent, come): &Answer| ms(come.duration_since(*sent));
        let is_during = |(sent, come): &&Answer| *sent < gather.1 && *come > gather.0;
        let during: Vec<f64> = answers.iter().filter(is_during).map(took).collect();
        let between: Vec<f64> = answers.iter().filter(|a| !is_during(a)).map(took).collect();
        let usual = spread(between.iter().copied()).middle;
        let beyond = |answers: &[f64]| answers.iter().map(|took| (took - usual).max(0.0)).sum();
        let share = during.iter().sum::<f64>() / between.iter().sum::<f64>();
        let (held, others): (f64, f64) = (beyond(&during), beyond(&between));
        self.worst.push(during.iter().copied().fold(0.0, f64::max));
        self.beyond.push(held - others * share);
        self.during.extend(during);
        self.between.extend(between);
    }
}

/// Lets all subjects gather in turns while the client asks, and prints what it saw.
pub fn run(subjects: &mut [Subject], host: &Host, socket: &Path, rounds: usize) {
    let mut monitor = Monitor::open(socket);
    let mut seen: Vec<Seen> = subjects.iter().map(|_| Seen::default()).collect();
    for _ in 0..rounds {
        for (subject, seen) in subjects.iter_mut().zip(&mut seen) {
            let stop = AtomicBool::new(false);
            let (answers, gather) = std::thread::scope(|scope| {
                let client = scope.spawn(|| monitor.answers(&stop));
                let watcher = scope.spawn(|| watch(host, &stop));
                let pause = Duration::from_millis(150);
                std::thread::sleep(pause);
                (subject.gather)();
                std::thread::sleep(pause);
                stop.store(true, Ordering::Relaxed);
                (client.join().unwrap(), watcher.join().unwrap())
            });
            if let Some(gather) = gather {
                seen.turn(&answers, gather);
            }
        }
    }
    print(subjects, &seen);
}

fn print(subjects: &[Subject], all: &[Seen]) {
    println!(
        "The time in which one QEMU's main loop answers, ms: median, 99th percentile, worst; per gather the median \
         (quartiles)\n\n\
         | | while none gathers | while it gathers | worst of a gather | main loop held by a gather |\n\
         |---|---|---|---|---|"
    );
    let three = |answers: &[f64]| {
        let [median, most, worst] = quantiles(answers.iter().copied(), [0.5, 0.99, 1.0]);
        format!("{median:.2}, {most:.2}, {worst:.1}")
    };
    for (subject, seen) in subjects.iter().zip(all) {
        println!(
            "| {} | {} | {} | {} | {} |",
            subject.name,
            three(&seen.between),
            three(&seen.during),
            shown(spread(seen.worst.iter().copied())),
            shown(spread(seen.beyond.iter().copied())),
        );
    }
    println!();
}
