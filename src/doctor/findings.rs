//! What the facts mean to an operator: each finding with its mark, and with its remedy where there is one.

mod host;
mod inventory;
mod output;
mod vms;

use serde::Serialize;

use super::Facts;
use super::facts::Libvirt;

/// What to do where libvirtd has no free worker.
const FREE_WORKERS: &str = "see which calls hang: virt-admin -c libvirtd:///system client-list libvirtd; or raise max_workers";

/// The mark of a finding.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Level {
    /// As it should be.
    Ok,
    /// Something that may be meant so, or that costs something.
    Note,
    /// Figures are missing, or soon may be.
    Warning,
}

impl Level {
    /// The word in the text.
    pub fn word(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Note => "note",
            Self::Warning => "warning",
        }
    }
}

/// One thing that a check has found.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// Its mark.
    pub level: Level,
    /// What it is about, in a word or two.
    pub subject: &'static str,
    /// What was found.
    pub message: String,
    /// What to do about it.
    pub remedy: Option<String>,
}

impl Finding {
    fn new(level: Level, subject: &'static str, message: impl Into<String>) -> Self {
        Self {
            level,
            subject,
            message: message.into(),
            remedy: None,
        }
    }

    fn ok(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Ok, subject, message)
    }

    fn note(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Note, subject, message)
    }

    fn warning(subject: &'static str, message: impl Into<String>) -> Self {
        Self::new(Level::Warning, subject, message)
    }

    fn with(self, remedy: impl Into<String>) -> Self {
        Self {
            remedy: Some(remedy.into()),
            ..self
        }
    }
}

/// The findings, in the order in which they are shown.
pub fn findings(facts: &Facts) -> Vec<Finding> {
    let mut all = Vec::new();
    if let Some(libvirt) = &facts.libvirt {
        all.push(versions(libvirt));
        all.push(connection(libvirt, facts));
        all.push(events(libvirt));
    }
    if let (Some(found), Some(libvirt)) = (&facts.vms, &facts.libvirt) {
        all.extend(vms::answers(found));
        if let Some(host) = &facts.host {
            all.extend(host::in_sight(host, found));
        } else {
            all.push(host::not_this_host(libvirt));
        }
        if let Some(storage) = &facts.storage {
            all.extend(host::storage(storage));
        }
        all.extend(vms::left_out(found, libvirt));
    }
    if let Some(found) = &facts.inventory {
        all.extend(inventory::found(found));
    }
    if let (Some(written), Some(gather)) = (&facts.output, &facts.gather) {
        all.extend(output::written(written));
        all.extend(output::time(gather));
    }
    all
}

fn versions(libvirt: &Libvirt) -> Finding {
    let unknown = "not known";
    let or_unknown = |version: &Option<String>| version.clone().unwrap_or(unknown.to_owned());
    let daemon = match libvirt.in_process {
        true => "in this process, version",
        false => "daemon",
    };
    let (version, client) = (
        or_unknown(&libvirt.daemon_version),
        or_unknown(&libvirt.client_version),
    );
    let driver = or_unknown(&libvirt.driver);
    let hypervisor = libvirt.hypervisor_version.as_ref();
    let hypervisor = hypervisor.map_or(String::new(), |version| format!(" {version}"));
    Finding::ok(
        "libvirt",
        format!("{daemon} {version}, client library {client}, driver {driver}{hypervisor}"),
    )
}

fn connection(libvirt: &Libvirt, facts: &Facts) -> Finding {
    let to = match &libvirt.socket {
        _ if libvirt.in_process => "no daemon: the driver runs in this process".to_owned(),
        Some(socket) => socket.clone(),
        None => facts.uri.clone(),
    };
    match libvirt.connections_limited_to {
        None => Finding::ok("connection", format!("{to}, read-only")),
        Some(most) => Finding::note(
            "connection",
            format!("{to}, read-only; libvirtd lets in no more than {most} connections"),
        )
        .with("raise max_clients and max_anonymous_clients in libvirtd.conf, or lower workers"),
    }
}

fn events(libvirt: &Libvirt) -> Finding {
    if libvirt.events {
        return Finding::ok("events", "libvirt reports VMs and devices that come and go");
    }
    let message =
        "libvirt reports no change of devices, so XML is read again after device_cache_ttl";
    if libvirt.driver.as_deref() == Some("QEMU") {
        let remedy = "QEMU's driver has events: see libvirtd's log, and max_anonymous_clients in libvirtd.conf";
        return Finding::warning("events", message).with(remedy);
    }
    Finding::note("events", message)
        .with("this driver has none; a shorter device_cache_ttl shows changes sooner")
}

#[cfg(test)]
mod tests;
