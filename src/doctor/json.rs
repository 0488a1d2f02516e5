//! The facts and findings as one JSON document.

use serde::Serialize;

use super::Facts;
use super::findings::{Finding, findings};

/// The document of `--check --json`.
#[derive(Serialize)]
struct Document<'f> {
    #[serde(flatten)]
    facts: &'f Facts,
    findings: Vec<Finding>,
}

/// One document with a newline after it: an object; where hypervisors have names, a list with an object for each. `hide`
/// masks passwords.
///
/// # Errors
/// serde_json's, which do not come for these types.
pub fn json(all: &[Facts], hide: impl Fn(&str) -> String) -> Result<String, serde_json::Error> {
    let documents = all.iter().map(|facts| {
        let mut findings = findings(facts);
        for finding in &mut findings {
            finding.message = hide(&finding.message);
            finding.remedy = finding.remedy.as_deref().map(&hide);
        }
        Document { facts, findings }
    });
    let documents: Vec<Document<'_>> = documents.collect();
    let mut text = match &documents[..] {
        [one] if one.facts.name.is_none() => serde_json::to_string_pretty(one)?,
        all => serde_json::to_string_pretty(all)?,
    };
    text.push('\n');
    Ok(text)
}
