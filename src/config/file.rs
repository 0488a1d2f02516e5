//! The configuration file as written: each key is optional, and other keys are errors.

use std::ops::Range;

use serde::Deserialize;
use toml::Spanned;

use super::ConfigError;
use super::error::Document;
use super::{hosts, tags};
use crate::wording::{nearest, shortened};

/// The keys. [`Settings`](super::Settings) has their meanings and defaults.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct File {
    pub uri: Option<Spanned<String>>,
    pub device_cache_ttl: Option<Spanned<String>>,
    pub deadline: Option<Spanned<String>>,
    pub workers: Option<Spanned<i64>>,
    pub chunk_size: Option<Spanned<i64>>,
    pub max_calls: Option<Spanned<i64>>,
    pub block_statistics: Option<Spanned<String>>,
    pub guest_memory_max_age: Option<Spanned<String>>,
    pub vcpu_delay: Option<Spanned<String>>,
    pub log_level: Option<Spanned<String>>,
    pub domain_include: Option<Vec<Spanned<String>>>,
    pub domain_exclude: Option<Vec<Spanned<String>>>,
    pub device_include: Option<Vec<Spanned<String>>>,
    pub device_exclude: Option<Vec<Spanned<String>>>,
    pub cdrom: Option<bool>,
    pub floppy: Option<bool>,
    pub measurements: Option<Spanned<Vec<Spanned<String>>>>,
    pub max_lines: Option<Spanned<i64>>,
    pub timestamp_precision: Option<Spanned<String>>,
    pub info_interval: Option<Spanned<String>>,
    pub statistics: Option<Vec<Spanned<String>>>,
    pub inactive: Option<bool>,
    pub pool_interval: Option<Spanned<String>>,
    pub tags: Option<tags::Written>,
    pub host: Option<hosts::Written>,
}

/// Each key, and what its value looks like. A test compares the keys with those of [`File`].
pub(super) const KEYS: [(&str, &str); 25] = [
    ("uri", "a text such as \"qemu:///system\""),
    ("device_cache_ttl", "a duration such as \"300s\""),
    ("deadline", "a duration such as \"8s\""),
    ("workers", "a whole number such as 4"),
    ("chunk_size", "a whole number such as 8"),
    ("max_calls", "a whole number such as 8"),
    ("block_statistics", "a word such as \"auto\""),
    ("guest_memory_max_age", "a duration such as \"5m\""),
    ("vcpu_delay", "a word such as \"auto\""),
    ("log_level", "a level such as \"info\""),
    ("domain_include", "a list of patterns such as [\"web*\"]"),
    ("domain_exclude", "a list of patterns such as [\"web*\"]"),
    ("device_include", "a list of patterns such as [\"vd*\"]"),
    ("device_exclude", "a list of patterns such as [\"vd*\"]"),
    ("cdrom", "true or false"),
    ("floppy", "true or false"),
    (
        "measurements",
        "a list such as [\"vm_metrics\", \"vm_totals\"]",
    ),
    ("max_lines", "a whole number such as 2000"),
    ("timestamp_precision", "a precision such as \"1s\""),
    ("info_interval", "a duration such as \"5m\""),
    ("statistics", "a list of patterns such as [\"perf.*\"]"),
    ("inactive", "true or false"),
    ("pool_interval", "a duration such as \"1m\""),
    (
        "tags",
        "a table: a line \"[tags]\" at the end of the file, below it lines such as project = \"openstack:project\"",
    ),
    (
        "host",
        "tables: a line \"[[host]]\" at the end of the file for each hypervisor, below it a line such as uri = \"qemu+tls://kvm01/system\"",
    ),
];

/// What stands in Telegraf's configuration: its tables, and the keys of the stanza.
const TELEGRAFS: [&str; 11] = [
    "inputs",
    "outputs",
    "processors",
    "aggregators",
    "agent",
    "global_tags",
    "command",
    "signal",
    "restart_delay",
    "data_format",
    "interval",
];

/// Names that other collectors give to a key, and that are not near it.
const OTHER_NAMES: [(&str, &str); 5] = [
    ("domains", "domain_include"),
    ("vms", "domain_include"),
    ("devices", "device_include"),
    ("libvirt_uri", "uri"),
    ("uris", "host"),
];

impl File {
    /// Reads the document.
    ///
    /// # Errors
    /// The text is not valid TOML, a key is given twice or unknown, or a value has the wrong type.
    pub fn parse(document: &Document) -> Result<Self, ConfigError> {
        toml::from_str(&document.text).map_err(|error| explain(document, error))
    }
}

/// Rewrites an error of serde or of the TOML parser as one line for operators.
fn explain(document: &Document, mut error: toml::de::Error) -> ConfigError {
    let span = error.span().unwrap_or(0..0);
    let told = error.message().to_owned();
    // Without its input, the error shows the key of the value: "MESSAGE\nin `KEY`".
    error.set_input(None);
    let shown = error.to_string();
    let key = shown
        .strip_prefix(&told)
        .and_then(|rest| rest.trim().strip_prefix("in `"))
        .map(|key| key.trim_end_matches('`'));

    if told.starts_with("unknown field ") {
        return document.error(span.clone(), unknown_key(key_as_written(document, span)));
    }
    if told.starts_with("duplicate key") {
        let key = shortened(key_as_written(document, span.clone()));
        return document.error(
            span,
            format!("key \"{key}\" is given twice; leave one of them out"),
        );
    }
    let wrong_type = told
        .strip_prefix("invalid type: ")
        .or(told.strip_prefix("invalid value: "));
    if let (Some(key), Some(wrong)) = (key, wrong_type) {
        let found = found(as_written(document, span.clone()), wrong);
        return document.error(span, wrong_value(key, &found));
    }
    let syntax = told.lines().map(str::trim).collect::<Vec<_>>().join("; ");
    let no_pair = told.starts_with("key with no value") || told.starts_with("unexpected key");
    let message = match key_of_line(document, span.start) {
        _ if no_pair => format!("not valid TOML: {syntax}; write one KEY = VALUE on each line"),
        // The value that the key takes helps more than what the parser expected (`nan` after `no`).
        Some((key, wanted)) => {
            let what = syntax.split(", expected ").next().unwrap_or_default();
            format!("{key}: not valid TOML ({what}); write {wanted}")
        }
        None => format!("not valid TOML: {syntax}"),
    };
    document.error(span, message)
}

/// The known key before the `=` in the line of a byte, and what its value looks like.
fn key_of_line(document: &Document, byte: usize) -> Option<(&'static str, &'static str)> {
    let before = document.text.get(..byte)?;
    let (key, _) = before.rsplit('\n').next()?.split_once('=')?;
    KEYS.into_iter().find(|(known, _)| *known == key.trim())
}

/// The wrong value as a message shows it: as written, but a table or a list by that word.
fn found(written: &str, serde: &str) -> String {
    // serde takes a date for a map.
    let is_date = written.starts_with(|c: char| c.is_ascii_digit());
    if serde.starts_with("map") && !is_date {
        return "a table".to_owned();
    }
    if serde.starts_with("sequence") {
        return "a list".to_owned();
    }
    shortened(written)
}

/// A key as the operator wrote it, without quotes.
fn key_as_written(document: &Document, span: Range<usize>) -> &str {
    as_written(document, span).trim_matches(['"', '\''])
}

/// The text of the document in `span`.
pub(super) fn as_written(document: &Document, span: Range<usize>) -> &str {
    document.text.get(span).unwrap_or_default()
}

fn unknown_key(key: &str) -> String {
    let known = KEYS.map(|(key, _)| key);
    let shown = shortened(key);
    if TELEGRAFS.contains(&key) {
        return format!(
            "\"{shown}\" belongs in Telegraf's configuration (/etc/telegraf/telegraf.d/telegraf-kvm.conf); this file \
             has only the keys of telegraf-kvm itself, see: telegraf-kvm --sample-config"
        );
    }
    let meant = OTHER_NAMES.iter().find(|(other, _)| *other == key);
    match meant
        .map(|(_, meant)| *meant)
        .or_else(|| nearest(key, &known))
    {
        Some(near) => format!("unknown key \"{shown}\"; did you mean \"{near}\"?"),
        None => format!("unknown key \"{shown}\"; the keys are {}", known.join(", ")),
    }
}

fn wrong_value(key: &str, found: &str) -> String {
    let wanted = KEYS
        .iter()
        .find(|(known, _)| *known == key)
        .map_or("", |(_, wanted)| wanted);
    let is_number = !found.is_empty() && found.bytes().all(|b| b.is_ascii_digit());
    if is_number && wanted.starts_with("a duration") {
        return format!("{key}: {found} has no unit; write \"{found}s\", in quotes, for seconds");
    }
    format!("{key}: found {found}, expected {wanted}")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_keys_are_those_of_the_struct() {
        let error = toml::from_str::<File>("no_such_key_ = 1").unwrap_err();
        let known = KEYS.map(|(key, _)| format!("`{key}`")).join(", ");
        assert_eq!(
            error.message(),
            format!("unknown field `no_such_key_`, expected one of {known}")
        );
    }
    proptest! {
        /// Any text is read, or is an error at a place in the file.
        #[test]
        fn no_text_makes_it_panic(key in ".{0,12}", value in any::<String>(), known in 0..KEYS.len()) {
            for text in [value.clone(), format!("{key} = {value}"), format!("{} = {value}", KEYS[known].0)] {
                let document = Document { path: "f".into(), text };
                if let Err(error) = File::parse(&document) {
                    prop_assert!(error.to_string().starts_with("f:"));
                }
            }
        }
    }
}
