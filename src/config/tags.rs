//! The table `[tags]`: a name for each tag, and where its value stands in the XML of a VM.

mod path;
mod ready;

use std::collections::BTreeMap;

use toml::{Spanned, Value};

use super::ConfigError;
use super::error::Document;
use super::file::{KEYS, as_written};
use crate::description::WantedValue;
use crate::uri::Masked;
use crate::wording::{cut, shortened};

/// The table as written.
pub(super) type Written = BTreeMap<Spanned<String>, Spanned<Value>>;

/// The most tags there may be: each one is copied into every line of a VM.
const MOST: usize = 32;

/// The longest name of a tag.
const LONGEST_NAME: usize = 64;

/// The tags that lines have without `[tags]`, those of measurements that are not on by default among them, and what
/// databases use themselves.
const TAKEN: [&str; 16] = [
    "VMID",
    "name",
    "uuid",
    "host",
    "devtype",
    "device",
    "vcpu",
    "iothread",
    "uri",
    "resource",
    "type",
    "group",
    "index",
    "operation",
    "pool",
    "time",
];

/// Validates the table. The tags come in the order of their names, whichever order the file has.
pub(super) fn validate(
    document: &Document,
    written: Written,
) -> Result<Vec<WantedValue>, ConfigError> {
    if written.len() > MOST {
        let place = written.keys().nth(MOST).map_or(0..0, Spanned::span);
        let message = format!("[tags]: there are {}, {MOST} are allowed", written.len());
        return Err(document.error(place, message));
    }
    let mut tags = Vec::with_capacity(written.len());
    for (name, value) in written {
        let (tag, at) = (name.get_ref(), name.span());
        // A table ends at the next one, so a key that follows [tags] is in it.
        if tag != "host" && KEYS.iter().any(|(key, _)| key == tag) {
            let message = format!(
                "{tag} stands below [tags] and is taken for the name of a tag; move it above the line \"[tags]\""
            );
            return Err(document.error(at, message));
        }
        check_name(tag).map_err(|message| document.error(at.clone(), message))?;
        let same = |known: &&WantedValue| known.tag.eq_ignore_ascii_case(tag);
        if let Some(known) = tags.iter().find(same) {
            let message = format!(
                "tags: {} and {tag} differ in case alone, and InfluxDB 3 and SQL ignore case; choose another name for one",
                known.tag
            );
            return Err(document.error(at, message));
        }
        let shown = |message| document.error(value.span(), format!("tags.{tag}: {message}"));
        let Value::String(text) = value.get_ref() else {
            let kind = match value.get_ref() {
                Value::Table(_) => "a table".to_owned(),
                Value::Array(_) => "a list".to_owned(),
                _ => shortened(as_written(document, value.span())),
            };
            return Err(shown(format!(
                "found {kind}, expected a text such as \"openstack:project\""
            )));
        };
        let place = match ready::place(text) {
            Some(place) => place,
            None => path::place(text),
        };
        let place = place.map_err(shown)?;
        // vm_info has the title as a field, and the values of the tags beside it.
        if tag.eq_ignore_ascii_case("title") && (tag != "title" || text != "title") {
            return Err(shown(
                "the name \"title\" is for the value \"title\" alone; choose another name, such as \"vm_title\""
                    .to_owned(),
            ));
        }
        let tag = tag.into();
        tags.push(WantedValue { place, tag });
    }
    Ok(tags)
}

/// The value of a tag as a message shows it, shortened. A value that is none may be a URI, so passwords are masked; what
/// is meant for a place in the XML has colons of its own and may have passwords in the URI of its namespace alone.
fn shown(text: &str) -> String {
    let masked = |uri: &str| match uri.contains("://") {
        true => Masked::new(uri).text,
        false => uri.to_owned(),
    };
    if let Some(begun) = text.strip_prefix('{') {
        let (namespace, rest) = begun.split_at(begun.find('}').unwrap_or(begun.len()));
        return cut(format!("{{{}{rest}", masked(namespace)));
    }
    if ready::is_of_platform(text) {
        return cut(masked(text));
    }
    shortened(text)
}

/// Whether a tag may have this name.
fn check_name(tag: &str) -> Result<(), String> {
    let shown = shortened(tag);
    let allowed = |c: char| c.is_ascii_alphanumeric() || "_-.".contains(c);
    if tag.is_empty()
        || !tag.starts_with(|c: char| c.is_ascii_alphanumeric())
        || !tag.chars().all(allowed)
    {
        return Err(format!(
            "tags: {shown:?} cannot be the name of a tag; use letters, digits, \"_\", \"-\" and \".\", and begin with a letter or a digit"
        ));
    }
    if tag.len() > LONGEST_NAME {
        return Err(format!(
            "tags: the name {shown:?} is longer than {LONGEST_NAME} characters; choose a shorter one"
        ));
    }
    if let Some(taken) = TAKEN.iter().find(|taken| taken.eq_ignore_ascii_case(tag)) {
        return Err(format!(
            "tags: the name {taken} is taken: lines or databases have it already; choose another one, such as \"vm_{tag}\""
        ));
    }
    // InfluxDB 3 and SQL ignore case.
    if let Some(field) = FIELDS.iter().find(|field| field.eq_ignore_ascii_case(tag)) {
        return Err(format!(
            "tags: {field} is the name of a field, and InfluxDB 3 refuses a tag of the same name; choose another one, such as \"vm_{tag}\""
        ));
    }
    Ok(())
}

/// The fields of all measurements of VMs, those that are not on by default among them. A test of the documents holds that
/// no field is missing.
const FIELDS: [&str; 138] = [
    "allocation_bytes",
    "answers",
    "arch",
    "autostart",
    "available_bytes",
    "avg10",
    "avg300",
    "avg60",
    "bus",
    "cache",
    "capacity_bytes",
    "cpu_count",
    "cpu_periods",
    "cpu_steal_percent",
    "cpu_throttled_ns",
    "cpu_throttled_periods",
    "cpu_usage_percent",
    "cpus",
    "cputime",
    "cputime_ns",
    "data_processed_bytes",
    "data_remaining_bytes",
    "data_total_bytes",
    "delay_ns",
    "disk_allocation_bytes",
    "disk_capacity_bytes",
    "disk_errors",
    "disk_fl_latency_ms",
    "disk_fl_reqs",
    "disk_fl_time_ns",
    "disk_physical_bytes",
    "disk_rd_bytes",
    "disk_rd_bytes_rate",
    "disk_rd_latency_ms",
    "disk_rd_req",
    "disk_rd_req_rate",
    "disk_rd_time_ns",
    "disk_wr_bytes",
    "disk_wr_bytes_rate",
    "disk_wr_latency_ms",
    "disk_wr_reqs",
    "disk_wr_reqs_rate",
    "disk_wr_time_ns",
    "downtime_ms",
    "elapsed_ms",
    "errors",
    "firmware",
    "fl_latency_ms",
    "fl_reqs",
    "fl_time_ns",
    "format",
    "io_error_events",
    "limit_rd_bytes_per_sec",
    "limit_rd_req_per_sec",
    "limit_total_bytes_per_sec",
    "limit_total_req_per_sec",
    "limit_wr_bytes_per_sec",
    "limit_wr_req_per_sec",
    "mac",
    "machine",
    "memactual",
    "memavailable",
    "memdisk_cache",
    "memmajor_fault",
    "memminor_fault",
    "memory_angle_deg",
    "memory_bps",
    "memory_dirty_rate_pages",
    "memory_given_kb",
    "memory_guest_used_percent",
    "memory_iteration",
    "memory_max_kb",
    "memory_rate_kb_per_sec",
    "memory_used_kb",
    "memrss",
    "memstats_age_sec",
    "memswap_in",
    "memswap_out",
    "memunused",
    "memusable",
    "model",
    "net_rxbytes",
    "net_rxbytes_rate",
    "net_rxdrops",
    "net_rxerrors",
    "net_rxpackets",
    "net_rxpackets_rate",
    "net_txbytes",
    "net_txbytes_rate",
    "net_txdrops",
    "net_txerrors",
    "net_txpackets",
    "net_txpackets_rate",
    "node_cpus",
    "node_memory_free_kb",
    "node_memory_kb",
    "os_type",
    "persistent",
    "physical_bytes",
    "portgroup",
    "rd_bytes",
    "rd_latency_ms",
    "rd_req",
    "rd_time_ns",
    "rxbytes",
    "rxdrops",
    "rxerrors",
    "rxpackets",
    "serial",
    "source",
    "state",
    "state_reason",
    "status",
    "time_ns",
    "timesys",
    "timeusr",
    "total_us",
    "txbytes",
    "txdrops",
    "txerrors",
    "txpackets",
    "uptime_sec",
    "vcpu_delay_ns",
    "vcpu_time_ns",
    "vcpus_given",
    "vms_blocked",
    "vms_crashed",
    "vms_no_state",
    "vms_paused",
    "vms_running",
    "vms_shutdown",
    "vms_shutoff",
    "vms_suspended",
    "wait_ns",
    "wr_bytes",
    "wr_latency_ms",
    "wr_reqs",
    "wr_time_ns",
];

#[cfg(test)]
mod tests;
