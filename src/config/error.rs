//! Errors of the configuration: the place, what is wrong there, and what would be right.

use std::fmt;
use std::ops::Range;
use std::path::{Path, PathBuf};

use crate::uri::Masked;

/// One sentence about a wrong configuration, with file, line and column where it has these. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ConfigError {
    /// `FILE`, `FILE:LINE:COLUMN`, or the name of what else set the value (`--uri`).
    place: String,
    message: String,
}

impl ConfigError {
    /// An error at a place that is no position in a file.
    pub(super) fn new(place: impl fmt::Display, message: impl Into<String>) -> Self {
        Self {
            place: place.to_string(),
            message: message.into(),
        }
    }
}

impl fmt::Display for ConfigError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.place, self.message)
    }
}

impl std::error::Error for ConfigError {}

/// The text of a configuration file and its name: turns a span into line and column.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Document {
    /// The file's name as the operator gave it.
    pub path: PathBuf,
    /// Its text, without a byte order mark.
    pub text: String,
}

impl Document {
    /// An error at the start of `span` (bytes of the text).
    pub fn error(&self, span: Range<usize>, message: impl Into<String>) -> ConfigError {
        let (line, column) = position(self.text.as_bytes(), span.start);
        ConfigError::new(
            format_args!("{}:{line}:{column}", self.path.display()),
            message,
        )
    }

    /// An error of the file as a whole. A file that does not exist may be a URI that was given by mistake.
    pub fn whole(path: &Path, message: impl Into<String>) -> ConfigError {
        let name = path.display().to_string();
        if path.is_absolute() || path.exists() {
            ConfigError::new(name, message)
        } else {
            ConfigError::new(Masked::new(&name).text, message)
        }
    }
}

/// Line and column of a byte, both from 1; columns count characters, as editors do.
pub(super) fn position(text: &[u8], byte: usize) -> (usize, usize) {
    let before = &text[..byte.min(text.len())];
    let line_start = before
        .iter()
        .rposition(|&b| b == b'\n')
        .map_or(0, |newline| newline + 1);
    let line = 1 + before.iter().filter(|&&b| b == b'\n').count();
    (
        line,
        1 + String::from_utf8_lossy(&before[line_start..])
            .chars()
            .count(),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn positions_count_characters_from_one() {
        let text = "a = 1\n# ä\nü = \"x\"\n".as_bytes();
        assert_eq!(position(text, 0), (1, 1));
        assert_eq!(position(text, 4), (1, 5));
        assert_eq!(position(text, 11), (3, 1));
        assert_eq!(position(text, 16), (3, 5));
        assert_eq!(position(text, 999), (4, 1));
    }
}
