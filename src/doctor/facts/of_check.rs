//! How the facts follow from the configuration and the gathers of a check.

use super::{
    DeviceOut, Facts, Gather, Host, Inventory, Libvirt, MountOut, Output, Statistics, Storage, Vms,
};
use smol_str::SmolStr;

use crate::config::{ConfigSource, Settings, VcpuDelay};
use crate::doctor::Examined;
use crate::gather::protocol::DomainRef;
use crate::gather::worker::Failure;
use crate::gather::{DeviceLeftOut, Problem, WhyLeftOut};
use crate::host::mounts::Health;
use crate::uri::host_name;
use crate::wording::dotted;

impl Facts {
    /// What is known before libvirt is asked.
    fn unconnected(settings: &Settings, source: &ConfigSource) -> Self {
        let uri = &settings.uri;
        Self {
            name: settings.host.clone(),
            program_version: env!("CARGO_PKG_VERSION"),
            configuration: source.to_string(),
            uri: uri.masked().text,
            uri_origin: uri.origin.to_string(),
            connected: false,
            error: None,
            libvirt: None,
            vms: None,
            host: None,
            storage: None,
            inventory: None,
            output: None,
            gather: None,
        }
    }

    /// The facts where libvirt could not be reached.
    pub fn of_failure(settings: &Settings, source: &ConfigSource, error: &str) -> Self {
        Self {
            error: Some(settings.uri.masked().mask_in(error).into_owned()),
            ..Self::unconnected(settings, source)
        }
    }

    /// The facts of these gathers.
    pub(crate) fn of(settings: &Settings, source: &ConfigSource, examined: &Examined) -> Self {
        Self {
            connected: true,
            libvirt: Some(libvirt(settings, examined)),
            vms: Some(vms(settings, examined)),
            host: host(settings, examined),
            storage: examined.host.is_some().then(|| storage(examined)),
            inventory: Some(inventory(settings, examined)),
            output: Some(output(settings, examined)),
            gather: Some(gather(settings, examined)),
            ..Self::unconnected(settings, source)
        }
    }
}

fn names(domains: &[DomainRef]) -> Vec<String> {
    let mut names: Vec<String> = domains.iter().map(|d| d.name.to_string()).collect();
    names.sort_unstable();
    names
}

fn libvirt(settings: &Settings, examined: &Examined) -> Libvirt {
    let versions = examined.versions.clone().unwrap_or_default();
    let report = &examined.last().report;
    let daemon = versions.libvirt.or(report.libvirt_version);
    Libvirt {
        daemon_version: daemon.map(dotted),
        client_version: versions.client.map(dotted),
        driver: versions.driver,
        hypervisor_version: versions.hypervisor.map(dotted),
        socket: socket(&settings.uri.value, &examined.sockets),
        read_only: true,
        in_process: settings.uri.in_process(),
        events: examined.events,
        connections_limited_to: report.limited_to,
    }
}

/// The socket of the daemon of this host to which the URI leads. Sockets of the system's own services may be inherited.
fn socket(uri: &str, sockets: &[String]) -> Option<String> {
    if host_name(uri).is_some() {
        return None;
    }
    let is_named = |path: &&String| uri.contains(&format!("socket={path}"));
    let named = sockets.iter().find(is_named);
    let is_libvirts = |path: &&String| path.contains("virt");
    named.or_else(|| sockets.iter().find(is_libvirts)).cloned()
}

fn vms(settings: &Settings, examined: &Examined) -> Vms {
    let report = &examined.last().report;
    let problems = report.problems.iter().map(|problem| match problem {
        Problem::Unreachable(error) => format!("a connection could not be opened: {error}"),
        Problem::Refused(error) => format!("libvirt refused a call: {error}"),
        Problem::Domain(domain, text) | Problem::Description(domain, text) => {
            format!("VM {}: {text}", domain.name)
        }
    });
    Vms {
        active: report.active.as_ref().map(|active| active.len()),
        filtered: names(&report.filtered),
        wanted: report.seen,
        complete: report.complete,
        partial: report.answered - report.complete,
        running: examined.running,
        not_answering: names(&report.partial),
        state_and_network_only: names(&report.priority_only),
        without_disks: names(&report.without_disks),
        missing: names(&report.missing),
        locked: names(&report.locked),
        withheld: report.withheld,
        problems: problems.collect(),
        guest_memory_wanted: settings.measurements.totals,
        without_guest_memory: names(&examined.without_guest_memory),
        devices_left_out: examined.left_out.iter().map(device).collect(),
    }
}

fn device(left_out: &DeviceLeftOut) -> DeviceOut {
    DeviceOut {
        vm: left_out.vm.to_string(),
        device: left_out.device.as_ref().map(ToString::to_string),
        reason: match left_out.why {
            WhyLeftOut::NoHostName => "no_host_name",
            WhyLeftOut::Filtered => "filtered",
            WhyLeftOut::Cdrom => "cdrom",
            WhyLeftOut::Floppy => "floppy",
            WhyLeftOut::NotCounted => "not_counted",
        },
    }
}

fn host(settings: &Settings, examined: &Examined) -> Option<Host> {
    let host = examined.host.as_ref()?;
    let wanted = &settings.measurements;
    let counts = host.counts;
    Some(Host {
        proc_is_open: examined.proc_is_open,
        processes: host.processes,
        control_groups: counts.control_groups,
        vms_with_vcpu_threads: counts.vms_with_vcpu_threads,
        vcpu_threads: counts.vcpu_threads,
        vcpu_times_wanted: host.reads_vcpus,
        vcpu_times_from_libvirt: settings.vcpu_delay == VcpuDelay::Libvirt,
        pressure_wanted: wanted.pressure,
        vms_with_pressure: counts.vms_with_pressure,
        cpu_time_wanted: wanted.metrics || wanted.features || wanted.has_totals(),
        cpu_time_from_host: counts.cpu_from_host,
        network_wanted: wanted.features || wanted.devices || wanted.has_totals(),
        taps: counts.taps,
        taps_in_sight: counts.taps_in_sight,
        vms_with_taps: counts.vms_with_taps,
        network_from_host: counts.net_from_host,
    })
}

fn storage(examined: &Examined) -> Storage {
    let report = &examined.last().report;
    let mounts = examined.host.iter().flat_map(|host| &host.mounts);
    let network_mounts = mounts.map(|(point, health)| MountOut {
        mount: point.display().to_string(),
        state: match health {
            Health::Alive => "answers",
            Health::Late => "late",
            Health::Dead => "dead",
            Health::Unknown => "unknown",
        },
        vms: report.dead.get(point).map_or(Vec::new(), |vms| names(vms)),
    });
    Storage {
        network_mounts: network_mounts.collect(),
        unknown_storage: names(&report.unknown_storage),
        slow_storage: names(&report.slow_storage),
        disks_left_out: report.disks_left_out,
    }
}

fn inventory(settings: &Settings, examined: &Examined) -> Inventory {
    let (found, report) = (&examined.inventory, &examined.inventory_report);
    let names = |names: &Vec<SmolStr>| names.iter().map(ToString::to_string).collect();
    let hanging = report.hanging.iter().map(|call| &call.pool);
    let failures = [&report.inactive, &report.pools, &report.node];
    let problems = failures.into_iter().filter_map(|it| match &it.failure {
        Some(Failure::Refused(error)) => Some(error.to_string()),
        _ => None,
    });
    Inventory {
        inactive_wanted: settings.needs_inactive(),
        inactive: found.inactive,
        pools_wanted: settings.measurements.pools,
        pools: found.pools.as_ref().map(names),
        pools_not_answering: hanging.flatten().map(ToString::to_string).collect(),
        problems: problems.collect(),
    }
}

/// Telegraf's defaults are a batch of 1,000 and a buffer of 10,000. A batch that holds one gather, and a buffer of 60
/// gathers (10 minutes at an interval of 10 s), as docs/performance.md has them.
fn output(settings: &Settings, examined: &Examined) -> Output {
    let written = examined.written;
    let round_up = |number: usize, step: usize| number.div_ceil(step) * step;
    Output {
        lines: written.lines,
        fields: written.fields,
        series: written.series,
        size_bytes: written.bytes,
        metric_batch_size: round_up(written.lines, 100).max(1_000),
        metric_buffer_limit: round_up(written.lines * 60, 1_000).max(10_000),
        statistics: statistics(settings, examined),
        limit: examined.capped.clone(),
    }
}

fn statistics(settings: &Settings, examined: &Examined) -> Option<Statistics> {
    let wanted = &settings.statistics;
    (!wanted.is_empty()).then(|| Statistics {
        patterns: wanted.patterns().map(str::to_owned).collect(),
        without_key: examined.patterns_without_key.clone(),
        lines: examined.lines_of_stats,
        unanswered: names(&examined.last().report.without_extra),
    })
}

fn gather(settings: &Settings, examined: &Examined) -> Gather {
    let ms = |time: std::time::Duration| (time.as_secs_f64() * 10_000.0).round() / 10.0;
    let report = &examined.last().report;
    Gather {
        first_ms: ms(examined.first.took),
        last_ms: examined.last.as_ref().map(|last| ms(last.took)),
        deadline_ms: ms(settings.deadline),
        hanging_calls: report.hanging,
        saturated: report.saturated.is_some() || report.calls_used_up,
        not_started: report.not_started.clone(),
    }
}
