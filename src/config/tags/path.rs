//! A value by its namespace and path: `{http://example.org/ns}vm/owner/name`, `.../user@id`.

use crate::description::{Place, Step};
use crate::wording::shortened;

/// What a path looks like.
const EXAMPLE: &str = "\"{http://example.org/ns}vm/owner\"";

/// The place of a path below `/domain/metadata`.
pub(super) fn place(text: &str) -> Result<Place, String> {
    let shown = super::shown(text);
    if text.trim().is_empty() {
        return Err(format!(
            "the value is empty; write one of those that are ready, such as \"openstack:project\", or a path such as {EXAMPLE}"
        ));
    }
    if !text.starts_with('{') {
        return Err(match text.split_once('{') {
            // `/domain/metadata/{...}vm`.
            Some((before, _)) if before.ends_with('/') => format!(
                "{shown:?}: a path begins below /domain/metadata, with the namespace; leave out {:?}",
                shortened(before)
            ),
            _ => format!(
                "{shown:?} is not known; write one of those that are ready ({}), or namespace and path, such as {EXAMPLE}",
                super::ready::EXAMPLES
            ),
        });
    }
    let mut steps = steps(text, &shown, &[])?;
    let attribute = steps.1.take();
    let mut path = vec![Step::of_libvirt("metadata")];
    path.append(&mut steps.0);
    Ok(Place {
        steps: path,
        attribute,
        part: None,
    })
}

/// The steps of a path, and the attribute at its end. A step without a namespace has that of the step before it, the
/// first one has `namespaces`. Messages quote `shown`.
pub(super) fn steps(
    text: &str,
    shown: &str,
    namespaces: &[&str],
) -> Result<(Vec<Step>, Option<String>), String> {
    let mut namespaces: Vec<String> = namespaces.iter().map(|&name| name.to_owned()).collect();
    let mut steps: Vec<Step> = Vec::new();
    let mut rest = text;
    loop {
        let mut or_none = !steps.is_empty();
        if let Some(begun) = rest.strip_prefix('{') {
            let Some((namespace, after)) = begun.split_once('}') else {
                return Err(format!(
                    "{shown:?}: the brace is not closed; write the namespace in braces, such as {EXAMPLE}"
                ));
            };
            if namespace.is_empty() {
                return Err(format!(
                    "{shown:?}: the namespace is empty; write it as xmlns has it, such as {EXAMPLE}"
                ));
            }
            namespaces = vec![namespace.to_owned()];
            (or_none, rest) = (false, after);
        }
        let end = rest.find('/').unwrap_or(rest.len());
        let (element, attribute) = match rest[..end].split_once('@') {
            Some((element, attribute)) => (element, Some(attribute)),
            None => (&rest[..end], None),
        };
        check_name(shown, element)?;
        steps.push(Step {
            name: element.to_owned(),
            namespaces: namespaces.clone(),
            or_none,
        });
        if let Some(attribute) = attribute {
            if end < rest.len() {
                return Err(format!(
                    "{shown:?}: an attribute has nothing below it; \"@{}\" must be the end",
                    shortened(attribute)
                ));
            }
            check_name(shown, attribute)?;
            return Ok((steps, Some(attribute.to_owned())));
        }
        match rest.get(end + 1..) {
            Some(next) => rest = next,
            None => return Ok((steps, None)),
        }
    }
}

/// Whether an element or an attribute can have this name, without a prefix. Messages quote `shown`.
pub(super) fn check_name(shown: &str, name: &str) -> Result<(), String> {
    if let Some((prefix, _)) = name.split_once(':')
        && !prefix.is_empty()
    {
        return Err(format!(
            "{shown:?}: prefixes differ from VM to VM; write the namespace in braces in place of \"{}:\", or leave it out where it is that of the step before",
            shortened(prefix)
        ));
    }
    let allowed = |c: char| c.is_alphanumeric() || "_-.".contains(c);
    if name.is_empty() {
        return Err(format!(
            "{shown:?}: a name is missing; write a path such as {EXAMPLE} or \"{{http://example.org/ns}}vm/user@id\""
        ));
    }
    if !name.chars().all(allowed) {
        return Err(format!(
            "{shown:?}: {:?} is no name of an element or attribute; a path has names, \"/\" and one \"@\" alone",
            shortened(name)
        ));
    }
    Ok(())
}
