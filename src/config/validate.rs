//! Turns the file as written into [`Settings`]: checks bounds, words and patterns.

use std::ops::RangeInclusive;
use std::time::Duration;

use log::LevelFilter;
use toml::Spanned;

use super::error::Document;
use super::file::File;
use super::{
    BlockStatistics, ConfigError, Measurements, NameFilter, Precision, Settings, VcpuDelay,
};
use super::{hosts, tags, uri};
use crate::duration;
use crate::libvirt::bulk::keys::KeyFilter;
use crate::name_filter::{self, Pattern};
use crate::wording::{nearest, shortened};

/// Where libvirt sends no events, less than a second would make each gather read the XML of every VM.
const DEVICE_CACHE_TTL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const INFO_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const POOL_INTERVAL: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
/// A report is stamped in whole seconds.
const GUEST_MEMORY_MAX_AGE: RangeInclusive<Duration> =
    Duration::from_secs(1)..=Duration::from_secs(30 * 86_400);
const DEADLINE: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(3600);

impl Settings {
    /// Validates a file as written over the defaults. The second value has the settings of each table `[[host]]`.
    ///
    /// # Errors
    /// A value is out of bounds or not understood. If several are, the error is of the first one in the order of
    /// [`Settings`].
    pub(super) fn from_file(
        file: File,
        document: &Document,
    ) -> Result<(Self, Vec<Self>), ConfigError> {
        let mut settings = Self::default();
        let within =
            |key, value: Option<Spanned<String>>, bounds: RangeInclusive<Duration>, default| {
                or_default(document, key, value, default, |text| {
                    duration::parse(text, &bounds)
                })
            };
        if let Some(written) = file.uri {
            if file.host.is_some() {
                let message = "uri and [[host]] exclude each other: leave the key uri out, or write it as one more [[host]]";
                return Err(document.error(written.span(), message));
            }
            settings.uri = uri::checked(document, "uri", &written)?;
        }
        settings.device_cache_ttl = within(
            "device_cache_ttl",
            file.device_cache_ttl,
            DEVICE_CACHE_TTL,
            settings.device_cache_ttl,
        )?;
        settings.deadline = deadline(document, "deadline", file.deadline, settings.deadline)?;
        settings.workers = number(document, "workers", file.workers, 1..=64, settings.workers)?;
        if let Some(size) = file.chunk_size {
            let size = number(document, "chunk_size", Some(size), 1..=256, 0)?;
            settings.chunk_size = Some(size);
        }
        settings.max_calls = number(
            document,
            "max_calls",
            file.max_calls,
            2..=64,
            settings.max_calls,
        )?;
        settings.block_statistics = or_default(
            document,
            "block_statistics",
            file.block_statistics,
            settings.block_statistics,
            block_statistics,
        )?;
        settings.guest_memory_max_age = within(
            "guest_memory_max_age",
            file.guest_memory_max_age,
            GUEST_MEMORY_MAX_AGE,
            settings.guest_memory_max_age,
        )?;
        settings.vcpu_delay = or_default(
            document,
            "vcpu_delay",
            file.vcpu_delay,
            settings.vcpu_delay,
            vcpu_delay,
        )?;
        settings.log_level = or_default(
            document,
            "log_level",
            file.log_level,
            settings.log_level,
            level,
        )?;
        settings.domains = NameFilter {
            include: patterns(document, "domain_include", file.domain_include)?,
            exclude: patterns(document, "domain_exclude", file.domain_exclude)?,
        };
        settings.devices = NameFilter {
            include: patterns(document, "device_include", file.device_include)?,
            exclude: patterns(document, "device_exclude", file.device_exclude)?,
        };
        settings.cdrom = file.cdrom.unwrap_or(settings.cdrom);
        settings.floppy = file.floppy.unwrap_or(settings.floppy);
        let named = file.measurements.as_ref().map(Spanned::span);
        if let Some(written) = file.measurements {
            settings.measurements = measurements(document, &written)?;
        }
        settings.statistics = statistics(document, file.statistics)?;
        if settings.measurements.stats && settings.statistics.is_empty() {
            return Err(document.error(
                named.unwrap_or_default(),
                "measurements: vm_stats has the keys that statistics names, and there are none; write for example \
                 statistics = [\"perf.*\"]",
            ));
        }
        settings.measurements.stats = !settings.statistics.is_empty();
        if let Some(most) = file.max_lines {
            let most = number(document, "max_lines", Some(most), 1..=10_000_000, 0)?;
            settings.max_lines = Some(most);
        }
        settings.timestamp_precision = or_default(
            document,
            "timestamp_precision",
            file.timestamp_precision,
            settings.timestamp_precision,
            precision,
        )?;
        settings.info_interval = within(
            "info_interval",
            file.info_interval,
            INFO_INTERVAL,
            settings.info_interval,
        )?;
        settings.inactive = file.inactive.unwrap_or(settings.inactive);
        settings.pool_interval = within(
            "pool_interval",
            file.pool_interval,
            POOL_INTERVAL,
            settings.pool_interval,
        )?;
        if let Some(written) = file.tags {
            settings.tags = tags::validate(document, written)?;
        }
        let hosts = match file.host {
            Some(written) => hosts::validate(document, written, &settings)?,
            None => Vec::new(),
        };
        Ok((settings, hosts))
    }
}

/// Reads a deadline, of all hypervisors or of one.
pub(super) fn deadline(
    document: &Document,
    key: &str,
    written: Option<Spanned<String>>,
    default: Duration,
) -> Result<Duration, ConfigError> {
    or_default(document, key, written, default, |text| {
        duration::parse(text, &DEADLINE)
    })
}

/// Reads one text if it is given. An error has the place of the text.
fn or_default<T>(
    document: &Document,
    key: &str,
    written: Option<Spanned<String>>,
    default: T,
    read: impl Fn(&str) -> Result<T, String>,
) -> Result<T, ConfigError> {
    let Some(written) = written else {
        return Ok(default);
    };
    let value = read(written.get_ref());
    value.map_err(|message| document.error(written.span(), format!("{key}: {message}")))
}

fn number(
    document: &Document,
    key: &str,
    written: Option<Spanned<i64>>,
    bounds: RangeInclusive<usize>,
    default: usize,
) -> Result<usize, ConfigError> {
    let Some(written) = written else {
        return Ok(default);
    };
    let value = usize::try_from(*written.get_ref())
        .ok()
        .filter(|value| bounds.contains(value));
    value.ok_or_else(|| {
        let (value, least, most) = (written.get_ref(), bounds.start(), bounds.end());
        let message = format!("{key}: {value} is out of range; from {least} to {most} is allowed");
        document.error(written.span(), message)
    })
}

fn patterns(
    document: &Document,
    key: &str,
    written: Option<Vec<Spanned<String>>>,
) -> Result<Vec<Pattern>, ConfigError> {
    let read = |text: Spanned<String>| {
        let pattern = name_filter::pattern(text.get_ref());
        pattern.map_err(|message| document.error(text.span(), format!("{key}: {message}")))
    };
    written.unwrap_or_default().into_iter().map(read).collect()
}

fn statistics(
    document: &Document,
    written: Option<Vec<Spanned<String>>>,
) -> Result<KeyFilter, ConfigError> {
    let mut keys = KeyFilter::default();
    for pattern in written.unwrap_or_default() {
        keys.add(pattern.get_ref())
            .map_err(|message| document.error(pattern.span(), format!("statistics: {message}")))?;
    }
    Ok(keys)
}

fn level(text: &str) -> Result<LevelFilter, String> {
    const LEVELS: [&str; 6] = ["error", "warn", "info", "debug", "trace", "off"];
    text.parse().map_err(|_| unknown_word(text, &LEVELS))
}

fn block_statistics(text: &str) -> Result<BlockStatistics, String> {
    Ok(match text {
        "auto" => BlockStatistics::Auto,
        "bulk" => BlockStatistics::Bulk,
        "per-disk" => BlockStatistics::PerDisk,
        _ => return Err(unknown_word(text, &["auto", "bulk", "per-disk"])),
    })
}

fn vcpu_delay(text: &str) -> Result<VcpuDelay, String> {
    Ok(match text {
        "auto" => VcpuDelay::Auto,
        "libvirt" => VcpuDelay::Libvirt,
        "off" => VcpuDelay::Off,
        _ => return Err(unknown_word(text, &["auto", "libvirt", "off"])),
    })
}

fn precision(text: &str) -> Result<Precision, String> {
    Ok(match text {
        "1s" => Precision::Second,
        "1ms" => Precision::Millisecond,
        "1us" => Precision::Microsecond,
        "1ns" => Precision::Nanosecond,
        _ => {
            let shown = shortened(text);
            return Err(format!(
                "{shown:?} is not known; use \"1s\", \"1ms\", \"1us\" or \"1ns\""
            ));
        }
    })
}

fn measurements(
    document: &Document,
    written: &Spanned<Vec<Spanned<String>>>,
) -> Result<Measurements, ConfigError> {
    const NAMES: [&str; 12] = [
        "vm_metrics",
        "vm_features",
        "vm_devices",
        "vm_totals",
        "vm_collector",
        "vm_info",
        "vm_vcpus",
        "vm_pressure",
        "vm_stats",
        "vm_jobs",
        "vm_pools",
        "vm_host",
    ];
    if written.get_ref().is_empty() {
        let message = format!(
            "measurements: the list is empty, so nothing would be written; name one or more of {}",
            NAMES.join(", ")
        );
        return Err(document.error(written.span(), message));
    }
    let mut chosen = Measurements::NONE;
    for name in written.get_ref() {
        match name.get_ref().as_str() {
            "vm_metrics" => chosen.metrics = true,
            "vm_features" => chosen.features = true,
            "vm_devices" => chosen.devices = true,
            "vm_totals" => chosen.totals = true,
            "vm_collector" => chosen.collector = true,
            "vm_info" => chosen.info = true,
            "vm_vcpus" => chosen.vcpus = true,
            "vm_pressure" => chosen.pressure = true,
            "vm_stats" => chosen.stats = true,
            "vm_jobs" => chosen.jobs = true,
            "vm_pools" => chosen.pools = true,
            "vm_host" => chosen.host = true,
            other => {
                let message = format!("measurements: {}", unknown_word(other, &NAMES));
                return Err(document.error(name.span(), message));
            }
        }
    }
    Ok(chosen)
}

/// The error for a value that must be one of a few words.
fn unknown_word(word: &str, known: &[&str]) -> String {
    let shown = shortened(word);
    match nearest(word, known) {
        Some(near) => format!("{shown:?} is not known; did you mean \"{near}\"?"),
        None => format!("{shown:?} is not known; use one of {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests;
