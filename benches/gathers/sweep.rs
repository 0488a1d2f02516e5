//! Numbers of workers and sizes of chunks.

use crate::gatherer::Gatherer;
use crate::process::Host;
use crate::support::lab::Lab;
use crate::table::{Round, Subject, measure, ms, spread};
use crate::{Options, vms};

pub fn run(options: &Options) {
    let lab = Lab::start();
    let _fleet = vms::start(&lab, options, options.disks, None);
    let mut host = Host::of(&lab);
    if options.running {
        vms::settle(&mut host);
    }
    let mut settings = Vec::new();
    for workers in [1, 2, 3, 4, 6, 8] {
        for chunk in [1, 2, 4, 8, 16, 32] {
            let text = format!("workers = {workers}\nchunk_size = {chunk}\n");
            let mut plugin = Gatherer::plugin(&lab, &text);
            for _ in 0..3 {
                plugin.gather();
            }
            settings.push((workers, chunk, plugin.share()));
        }
    }
    if options.running {
        vms::age();
    }
    let mut subjects = Vec::new();
    for (workers, chunk, plugin) in &settings {
        let name = format!("{workers} workers, chunks of {chunk}");
        subjects.push(Subject::gatherer(name, plugin));
    }
    let all = measure(&mut subjects, &host, options.rounds);
    println!(
        "## Workers and chunks, {}: gather in ms, libvirtd's CPU in ms",
        vms::described(options)
    );
    println!();
    println!("| workers \\ chunk | 1 | 2 | 4 | 8 | 16 | 32 |\n|---|---|---|---|---|---|---|");
    for (line, rows) in settings.chunks(6).zip(all.chunks(6)) {
        let cell = |row: &Vec<Round>| {
            let wall = spread(row.iter().map(|r| ms(r.wall))).middle;
            let host = spread(row.iter().map(|r| ms(r.daemon))).middle;
            format!("{wall:.0}, {host:.0}")
        };
        let cells: Vec<String> = rows.iter().map(cell).collect();
        println!("| {} | {} |", line[0].0, cells.join(" | "));
    }
    println!();
}
