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

/// One document with a newline after it. `hide` masks passwords.
///
/// # Errors
/// serde_json's, which do not come for these types.
pub fn json(facts: &Facts, hide: impl Fn(&str) -> String) -> Result<String, serde_json::Error> {
    let mut findings = findings(facts);
    for finding in &mut findings {
        finding.message = hide(&finding.message);
        finding.remedy = finding.remedy.as_deref().map(&hide);
    }
    let mut text = serde_json::to_string_pretty(&Document { facts, findings })?;
    text.push('\n');
    Ok(text)
}
