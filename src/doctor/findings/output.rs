//! What is written, and how long a gather takes.

use super::{FREE_WORKERS, Finding};
use crate::doctor::facts::{Gather, Output, Statistics};
use crate::measurements::line_cap::{Capped, REMEDY};
use crate::wording::{count, first_names};

/// Telegraf's own defaults.
const BATCH: usize = 1_000;
const BUFFER: usize = 10_000;

pub(super) fn written(output: &Output) -> Vec<Finding> {
    let Output {
        lines,
        fields,
        series,
        size_bytes,
        metric_batch_size: batch,
        metric_buffer_limit: buffer,
        statistics,
        limit,
    } = output;
    let message = format!(
        "{}, {}, {series} series, {size_bytes} bytes a gather",
        count(*lines as u64, "line"),
        count(*fields as u64, "field")
    );
    let written = match lines {
        0 => Finding::warning("output", "nothing would be written").with(
            "check measurements and the filters; vm_jobs has lines only while a VM has a job",
        ),
        _ => Finding::ok("output", message),
    };
    let settings = format!("metric_batch_size = {batch}, metric_buffer_limit = {buffer}");
    let telegraf = if *batch == BATCH && *buffer == BUFFER {
        Finding::ok("Telegraf", format!("its defaults suit: {settings}"))
    } else {
        Finding::note(
            "Telegraf",
            format!("a batch for one gather and a buffer for 60 of them: {settings}"),
        )
        .with("set both in Telegraf's [agent] table or in the output, plus what its other inputs write")
    };
    let limit = limit.as_ref().map(line_limit);
    [written]
        .into_iter()
        .chain(statistics.iter().flat_map(named_statistics))
        .chain(limit)
        .chain([telegraf])
        .collect()
}

fn named_statistics(statistics: &Statistics) -> Vec<Finding> {
    let (without, unanswered) = (&statistics.without_key, &statistics.unanswered);
    let lines = count(statistics.lines as u64, "line");
    let message = format!("{lines} of vm_stats a gather");
    let mut found = vec![match without.is_empty() {
        true => Finding::ok("statistics", message),
        false => Finding::note(
            "statistics",
            format!("{message}; no VM has a key for {}", first_names(without)),
        )
        .with(
            "virsh domstats VM --raw shows the keys that this libvirt has of a VM that runs; those of vm need KVM, those \
             of perf and dirtyrate virsh perf and virsh domdirtyrate-calc",
        ),
    }];
    if !unanswered.is_empty() {
        let names = first_names(unanswered);
        let message = format!("no answer in time to the calls that only this key needs: {names}");
        let remedy = "see which command the monitor is busy with: virsh domcontrol VM";
        found.push(Finding::warning("statistics", message).with(remedy));
    }
    found
}

fn line_limit(limit: &Capped) -> Finding {
    match limit.step() {
        0 => Finding::ok(
            "max_lines",
            format!("{} allows all {} lines", limit.max_lines, limit.lines),
        ),
        _ => Finding::warning("max_lines", limit.message()).with(REMEDY),
    }
}

pub(super) fn time(gather: &Gather) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(problem) = &gather.not_started {
        found.push(Finding::warning("threads", problem.clone()));
    }
    if gather.saturated {
        found.push(
            Finding::warning(
                "libvirtd",
                "no free worker, so only state and network are gathered",
            )
            .with(FREE_WORKERS),
        );
    }
    let deadline = gather.deadline_ms / 1000.0;
    let hanging = match gather.hanging_calls {
        0 => String::new(),
        1 => "; 1 call hangs".to_owned(),
        calls => format!("; {calls} calls hang"),
    };
    let (first, last) = (gather.first_ms, gather.last_ms.unwrap_or(gather.first_ms));
    let message = match gather.last_ms {
        Some(last) => format!(
            "a gather takes {last} ms (the first one {first} ms); the deadline is {deadline} s"
        ),
        None => {
            format!("the first gather was not done within {first} ms; the deadline is {deadline} s")
        }
    };
    let message = message + &hanging;
    found.push(
        if gather.last_ms.is_none() || last > gather.deadline_ms / 2.0 {
            Finding::warning("time", message)
                .with("see the warnings above; workers and deadline are keys of the configuration")
        } else {
            Finding::ok("time", message)
        },
    );
    found
}
