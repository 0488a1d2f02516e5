//! The tables `[[host]]`: several hypervisors for one process, each with its URI, its name and, if it has one, a deadline
//! of its own.

use std::collections::BTreeMap;
use std::fs;

use toml::{Spanned, Value};

use super::error::Document;
use super::file::{KEYS, as_written};
use super::uri::checked;
use super::validate::deadline;
use super::{ConfigError, Settings};
use crate::line_protocol::is_carried;
use crate::uri::{Masked, host_name};
use crate::wording::{nearest, shortened};

/// One table as written.
type Table = BTreeMap<Spanned<String>, Spanned<Value>>;

/// All tables as written.
pub(super) type Written = Spanned<Vec<Spanned<Table>>>;

/// The keys of a table, and what the value of each looks like.
const HOST_KEYS: [(&str, &str); 3] = [
    ("uri", "a text such as \"qemu+tls://kvm01/system\""),
    ("name", "a text such as \"kvm01\""),
    ("deadline", "a duration such as \"8s\""),
];

/// Validates the tables: the settings of each hypervisor, in the order of the file. All but URI, name and deadline are those
/// of `common`.
pub(super) fn validate(
    document: &Document,
    written: Written,
    common: &Settings,
) -> Result<Vec<Settings>, ConfigError> {
    if written.get_ref().is_empty() {
        let message = "host: the list is empty, so nothing would be gathered; leave it out";
        return Err(document.error(written.span(), message));
    }
    let mut hosts: Vec<Settings> = Vec::with_capacity(written.get_ref().len());
    for table in written.into_inner() {
        let at = table.span();
        let error = |message: String| document.error(at.clone(), message);
        let host = one(document, table, common)?;
        let uri = &host.uri.value;
        if hosts.iter().any(|before| before.uri.value == *uri) {
            let shown = shortened(&Masked::new(uri).text);
            return Err(error(format!(
                "[[host]]: the URI {shown:?} is given twice; leave one of the tables out"
            )));
        }
        if let Some(name) = &host.host
            && hosts.iter().any(|before| before.host == host.host)
        {
            let shown = shortened(name);
            return Err(error(format!(
                "[[host]]: two have the name {shown:?}; give one of them another one, such as: name = \"{}-2\"",
                shown
            )));
        }
        hosts.push(host);
    }
    Ok(hosts)
}

/// The settings of the hypervisor of one table.
fn one(
    document: &Document,
    table: Spanned<Table>,
    common: &Settings,
) -> Result<Settings, ConfigError> {
    let at = table.span();
    let [mut uri, mut name, mut own_deadline] = [None, None, None];
    for (key, value) in table.into_inner() {
        let slot = match key.get_ref().as_str() {
            "uri" => &mut uri,
            "name" => &mut name,
            "deadline" => &mut own_deadline,
            other => return Err(document.error(key.span(), unknown_key(other))),
        };
        *slot = Some(text(document, key.get_ref(), value)?);
    }
    let Some(uri) = uri else {
        let message =
            "[[host]]: there is no uri; write one, such as: uri = \"qemu+tls://kvm01/system\"";
        return Err(document.error(at, message));
    };
    let mut settings = common.clone();
    settings.uri = checked(document, "host.uri", &uri)?;
    settings.deadline = deadline(document, "host.deadline", own_deadline, common.deadline)?;
    settings.host = Some(match name {
        Some(name) if is_carried(name.get_ref()) => name.into_inner(),
        Some(name) => {
            let shown = shortened(name.get_ref());
            let message = format!(
                "host.name: {shown:?} cannot be written as the value of a tag; use a name such as \"kvm01\""
            );
            return Err(document.error(name.span(), message));
        }
        None => default_name(&settings.uri.value).ok_or_else(|| {
            let message = "[[host]]: neither its URI nor this machine has a host name; give it one, such as: name = \"kvm01\"";
            document.error(at, message)
        })?,
    });
    Ok(settings)
}

/// The text of a value.
fn text(
    document: &Document,
    key: &str,
    value: Spanned<Value>,
) -> Result<Spanned<String>, ConfigError> {
    let span = value.span();
    let found = match value.into_inner() {
        Value::String(text) => return Ok(Spanned::new(span, text)),
        Value::Table(_) => "a table".to_owned(),
        Value::Array(_) => "a list".to_owned(),
        _ => shortened(as_written(document, span.clone())),
    };
    let wanted = HOST_KEYS.iter().find(|(known, _)| *known == key);
    let wanted = wanted.map_or("", |(_, wanted)| wanted);
    Err(document.error(
        span,
        format!("host.{key}: found {found}, expected {wanted}"),
    ))
}

fn unknown_key(key: &str) -> String {
    // A table ends at the next one, so a key that follows [[host]] is in it.
    if key != "host" && KEYS.iter().any(|(known, _)| *known == key) {
        return format!(
            "{key} stands below [[host]], and holds for all of them; move it above the first line \"[[host]]\""
        );
    }
    let known = HOST_KEYS.map(|(key, _)| key);
    let shown = shortened(key);
    let meant = match key {
        "host" => Some("name"),
        _ => nearest(key, &known),
    };
    match meant {
        Some(near) => format!("unknown key \"{shown}\" of [[host]]; did you mean \"{near}\"?"),
        None => format!(
            "unknown key \"{shown}\" of [[host]]; the keys are {}",
            known.join(", ")
        ),
    }
}

/// The host name in the URI, or this machine's for a URI without one; `None` where that cannot be written as a tag.
fn default_name(uri: &str) -> Option<String> {
    let name = host_name(uri).or_else(this_machine)?;
    is_carried(&name).then_some(name)
}

/// The name of this machine (gethostname(2)).
fn this_machine() -> Option<String> {
    let name = fs::read_to_string("/proc/sys/kernel/hostname").ok()?;
    Some(name.trim_end().to_owned())
}

#[cfg(test)]
mod tests;
