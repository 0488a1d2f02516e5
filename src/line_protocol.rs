//! Line protocol: the only place that escapes and formats.
//!
//! The grammar is that of Telegraf's influx parser (plugins/parsers/influx/machine.go.rl and escape.go):
//!
//! - In a tag value, `,`, `=` and space are escaped by a backslash. A backslash before anything else stands for
//!   itself, so a backslash cannot be escaped: some readers take one at the end, or one before `,`, `=` or space, for an
//!   escape. (Telegraf keeps the latter; InfluxDB 3's parser loses the line because of it.) `\"` is read as `"`, but
//!   only in a value that contains `,`, `=` or space. All these backslashes are dropped; every other one is kept.
//! - Tab, newline, vertical tab, form feed and carriage return are not allowed in a tag value, escaped or not. They and
//!   all other control characters (C0, DEL, C1 with U+0085) become a space. U+2028 and U+2029 are ordinary bytes to
//!   Telegraf, and are kept.
//! - A reader loses a line with an empty tag value, so it becomes `-`.
//! - In a string, only `\"` and `\\` are escapes.
//! - There is no NaN and no infinity; integers are signed 64-bit.

use std::fmt::Write as _;

/// Tags, escaped once and stored: `,VMID=1,name=test,uuid=...`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Tags(String);

impl Tags {
    /// No tags.
    pub fn new() -> Self {
        Self::default()
    }

    /// Adds a tag. A value of which nothing can be written becomes `-`.
    ///
    /// The key is written as it is, so it must be ASCII without characters that need an escape.
    pub fn with(self, key: &str, value: &str) -> Self {
        self.with_or(key, value, "-")
    }

    /// Adds a tag that has the value `fallback` if nothing of `value` can be written: for a VM's name, its UUID.
    pub fn with_or(mut self, key: &str, value: &str, fallback: &str) -> Self {
        self.key(key);
        if !push_tag_value(&mut self.0, value) && !push_tag_value(&mut self.0, fallback) {
            self.0.push('-');
        }
        self
    }

    /// Adds a tag, unless nothing of its value can be written.
    pub fn with_any(mut self, key: &str, value: &str) -> Self {
        let end = self.0.len();
        self.key(key);
        if !push_tag_value(&mut self.0, value) {
            self.0.truncate(end);
        }
        self
    }

    fn key(&mut self, key: &str) {
        debug_assert!(is_plain(key), "the key {key:?} needs an escape");
        self.0.push(',');
        self.0.push_str(key);
        self.0.push('=');
    }

    /// The same tags with a number after the last value, to distinguish devices whose names became the same.
    pub fn numbered(&self, number: usize) -> Self {
        Self(format!("{}-{number}", self.0))
    }

    /// The tags as they are written in a line, each after a comma.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

/// One line that is being written. If it is dropped without [`Line::end`], or ended without a field, the buffer
/// becomes what it was before.
#[derive(Debug)]
pub struct Line<'b> {
    buffer: &'b mut String,
    /// The length to which the buffer is cut when this line is dropped.
    start: usize,
    /// The position in the buffer at which the fields begin.
    fields: usize,
}

impl Line<'_> {
    /// Begins a line at the end of the buffer. The measurement is written as it is, like the key of a tag.
    pub fn begin<'b>(buffer: &'b mut String, measurement: &'static str, tags: &Tags) -> Line<'b> {
        debug_assert!(
            is_plain(measurement),
            "the measurement {measurement:?} needs an escape"
        );
        let start = buffer.len();
        buffer.push_str(measurement);
        buffer.push_str(tags.as_str());
        buffer.push(' ');
        let fields = buffer.len();
        Line {
            buffer,
            start,
            fields,
        }
    }

    /// Begins a line with further tags after the first ones: those of a device after those of its VM.
    pub fn begin_with<'b>(
        buffer: &'b mut String,
        measurement: &'static str,
        tags: &Tags,
        extra: &Tags,
    ) -> Line<'b> {
        let mut line = Line::begin(buffer, measurement, tags);
        line.buffer.truncate(line.fields - 1);
        line.buffer.push_str(extra.as_str());
        line.buffer.push(' ');
        line.fields = line.buffer.len();
        line
    }

    /// Adds an unsigned figure as a signed 64-bit integer, `i64::MAX` at the most. `None` is left out.
    pub fn int(&mut self, key: &str, value: Option<u64>) {
        self.signed(key, value.map(|n| i64::try_from(n).unwrap_or(i64::MAX)));
    }

    /// Adds a signed 64-bit integer. `None` is left out.
    pub fn signed(&mut self, key: &str, value: Option<i64>) {
        if let Some(n) = value {
            self.key(key);
            self.buffer.push_str(itoa::Buffer::new().format(n));
            self.buffer.push_str("i,");
        }
    }

    /// Adds a float, as the shortest digits that are read as the same number, without an exponent. `None`, NaN and
    /// infinities are left out.
    pub fn float(&mut self, key: &str, value: Option<f64>) {
        if let Some(x) = value.filter(|x| x.is_finite()) {
            self.key(key);
            let mut digits = zmij::Buffer::new();
            let digits = digits.format_finite(x);
            if digits.as_bytes().contains(&b'e') {
                // Writing to a String cannot fail.
                let _ = write!(self.buffer, "{x}");
            } else {
                let whole = digits.strip_suffix(".0");
                self.buffer.push_str(whole.unwrap_or(digits));
            }
            self.buffer.push(',');
        }
    }

    /// Adds a string, which may be empty; control characters become a space. `None` is left out.
    pub fn string(&mut self, key: &str, value: Option<&str>) {
        let Some(value) = value else { return };
        self.key(key);
        self.buffer.push('"');
        for c in value.chars() {
            match c {
                '"' | '\\' => {
                    self.buffer.push('\\');
                    self.buffer.push(c);
                }
                _ => self.buffer.push(without_control(c)),
            }
        }
        self.buffer.push_str("\",");
    }

    /// Ends the line with its time, in nanoseconds since 1970. A line without a field is removed.
    pub fn end(mut self, timestamp_ns: i64) {
        // Each field ends in a comma; the last one becomes a space.
        if self.buffer.len() > self.fields {
            self.buffer.pop();
            self.buffer.push(' ');
            self.buffer
                .push_str(itoa::Buffer::new().format(timestamp_ns));
            self.buffer.push('\n');
            self.start = self.buffer.len();
        }
    }

    fn key(&mut self, key: &str) {
        debug_assert!(is_plain(key), "the key {key:?} needs an escape");
        self.buffer.push_str(key);
        self.buffer.push('=');
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        self.buffer.truncate(self.start);
    }
}

/// Whether the text can be written as it is: printable ASCII without characters to escape and without backslashes.
/// Most names are.
fn is_plain(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b',' | b'=' | b'\\'))
}

fn without_control(c: char) -> char {
    if c.is_control() { ' ' } else { c }
}

/// Whether a reader of the tag gets exactly this value.
pub fn is_carried(value: &str) -> bool {
    if is_plain(value) {
        return true;
    }
    let mut written = String::new();
    push_tag_value(&mut written, value);
    for escape in [",", "=", " "] {
        written = written.replace(&format!("\\{escape}"), escape);
    }
    !value.is_empty() && written == value
}

fn is_escaped(c: char) -> bool {
    matches!(without_control(c), ',' | '=' | ' ')
}

/// Writes a tag's value; returns whether anything of it could be written.
fn push_tag_value(buffer: &mut String, value: &str) -> bool {
    if is_plain(value) {
        buffer.push_str(value);
        return true;
    }
    let start = buffer.len();
    let quote_reads_as_escape = value.contains(is_escaped);
    // Backslashes are written when the next character shows that they can stay.
    let mut backslashes = 0;
    for c in value.chars().map(without_control) {
        if c == '\\' {
            backslashes += 1;
            continue;
        }
        if is_escaped(c) {
            buffer.push('\\');
        } else if !(c == '"' && quote_reads_as_escape) {
            buffer.extend(std::iter::repeat_n('\\', backslashes));
        }
        backslashes = 0;
        buffer.push(c);
    }
    buffer.len() > start
}

#[cfg(test)]
mod tests;
