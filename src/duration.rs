//! Durations as operators write them, in the configuration file and on the command line.

use std::ops::RangeInclusive;
use std::time::Duration;

use humantime::{format_duration, parse_duration};

use crate::wording::shortened;

/// Reads a duration such as "300s", "1m30s" or "500ms" that lies within `bounds`.
///
/// # Errors
/// One sentence that says what is wrong with the text and what would be right.
pub(crate) fn parse(text: &str, bounds: &RangeInclusive<Duration>) -> Result<Duration, String> {
    let shown = shortened(text);
    let value = parse_duration(text).map_err(|_| {
        let is_number = !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit());
        if is_number {
            format!("\"{shown}\" has no unit; write \"{shown}s\" for seconds")
        } else {
            format!("{shown:?} is not a duration; write for example \"8s\", \"500ms\" or \"1m30s\"")
        }
    })?;
    if !bounds.contains(&value) {
        let least = format_duration(*bounds.start());
        let most = format_duration(*bounds.end());
        return Err(format!(
            "{shown:?} is out of range; from {least} to {most} is allowed"
        ));
    }
    Ok(value)
}
