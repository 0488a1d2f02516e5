//! When the XML of a domain is read, and the description that is made of it.

use std::sync::Arc;
use std::time::Instant;

use crate::description::{Description, Info};
use crate::gather::protocol::WorkerConfig;
use crate::libvirt::{Domain, Error};
use crate::sample::Sample;
use crate::vms::{CachedDescription, DeviceNames, Known};

/// Reads the XML where the cached description is not current any more.
pub(super) fn freshen(
    domain: &Domain,
    sample: &Sample,
    known: &Known,
    config: &WorkerConfig,
) -> Result<(Option<Arc<CachedDescription>>, Option<String>), Error> {
    if !config.describes {
        return Ok((None, None));
    }
    if let Known::Fresh(current) = known
        && !known.is_outdated(sample)
    {
        let known = current;
        let names = match &known.names {
            Some(before) => before.and(sample),
            // It was described a moment ago, before any statistics: these are the names.
            None => Some(DeviceNames::of(sample)),
        };
        if names.is_none() {
            return Ok((None, None));
        }
        let described = CachedDescription::new(known.description.clone(), names, known.read_at);
        // Unless an image has changed in between.
        if described.unresolved == known.unresolved {
            return Ok((Some(Arc::new(described)), None));
        }
    }
    match describe(domain, Some(DeviceNames::of(sample)), config) {
        Ok((described, problem)) => Ok((Some(Arc::new(described)), problem)),
        Err(error) if error.is_transport() || error.is_vanished() => Err(error),
        Err(error) => Ok((
            None,
            Some(format!("its description cannot be had: {error}")),
        )),
    }
}

/// Reads the XML; beside the description the problem, where the XML could not be understood.
pub(super) fn describe(
    domain: &Domain,
    names: Option<DeviceNames>,
    config: &WorkerConfig,
) -> Result<(CachedDescription, Option<String>), Error> {
    let read_at = Instant::now();
    let xml = domain.xml()?;
    let (description, problem) = match Description::parse_with(&xml, &config.tags, config.vm_info) {
        Ok(mut description) => {
            if let Some(info) = &mut description.info {
                complete(Arc::make_mut(info), domain, config)?;
            }
            (Some(description), None)
        }
        Err(error) => (
            None,
            Some(format!("its description is unreadable: {error}")),
        ),
    };
    Ok((CachedDescription::new(description, names, read_at), problem))
}

/// Adds to the information from the XML what needs calls of its own, which libvirt answers without QEMU.
fn complete(info: &mut Info, domain: &Domain, config: &WorkerConfig) -> Result<(), Error> {
    let unless_lost = |answer: Result<bool, Error>| match answer {
        Ok(is) => Ok(Some(is)),
        Err(error) if error.is_transport() || error.is_vanished() => Err(error),
        // The driver does not know.
        Err(_) => Ok(None),
    };
    info.autostart = unless_lost(domain.autostart())?;
    info.persistent = unless_lost(domain.is_persistent())?;
    info.keep(&config.devices);
    Ok(())
}
