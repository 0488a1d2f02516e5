//! `--check`: all hypervisors at the same time, for each may take until its deadline.

use super::engine::{Engine, Process};
use super::{Host, each, hosts};
use crate::config::{ConfigSource, Loaded, Settings};
use crate::doctor::{Examined, Facts};
use crate::gather::Problem;
use crate::main_loop::Mode;

/// Gathers three times without writing, and returns what that tells of each libvirt, this host and the configuration.
///
/// An error is the message to print: libvirt's error and the remedy, that libvirt does not answer within the deadline, or
/// that no thread can be started.
pub fn check(loaded: &Loaded) -> Vec<Result<Facts, String>> {
    let process = match Process::set_up(loaded) {
        Ok(process) => process,
        Err(error) => return loaded.all().map(|_| Err(error.to_string())).collect(),
    };
    let work = |host: Host<'_>| {
        let settings = host.settings;
        let mut engine =
            Engine::start(host, Mode::Check, &process).map_err(|error| error.to_string())?;
        let mut examined = engine.main_loop.examine();
        engine.close();
        let is_anothers = |named: &str| {
            let mut others = loaded.all().filter(|other| other.uri != settings.uri);
            others.any(|other| other.uri.value.contains(named))
        };
        examined
            .sockets
            .retain(|socket| !is_anothers(&format!("socket={socket}")));
        facts(settings, &loaded.source, &examined)
    };
    each(hosts(loaded), work, |error| Err(error.to_string()), |_| ())
}

/// The facts, or why there are none.
fn facts(settings: &Settings, source: &ConfigSource, examined: &Examined) -> Result<Facts, String> {
    let report = &examined.first.report;
    let error = report.problems.iter().find_map(|problem| match problem {
        Problem::Unreachable(error) => Some(error),
        // Without a list there is nothing to gather.
        Problem::Refused(error) if report.active.is_none() => Some(error),
        _ => None,
    });
    let uri = &settings.uri;
    let cannot_reach = format!("cannot reach libvirt at {uri}");
    match (error, &report.not_started) {
        (Some(error), _) if !report.reached || report.active.is_none() => {
            let remedy = error.remedy(&uri.value);
            Err(format!("{cannot_reach}: {error}; {remedy}"))
        }
        (None, Some(not_started)) if report.unasked => Err(not_started.clone()),
        _ if !report.reached => {
            let deadline = humantime::format_duration(settings.deadline);
            Err(format!(
                "{cannot_reach}: no answer within {deadline}; is the daemon hung?"
            ))
        }
        _ => Ok(Facts::of(settings, source, examined)),
    }
}
