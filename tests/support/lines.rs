//! Line protocol read by an independent parser, for tests to look at.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A field's value, with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `1i`
    Int(i64),
    /// `1`
    Float(f64),
    /// `"one"`
    Text(String),
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The measurement.
    pub measurement: String,
    /// Tags, unescaped.
    pub tags: BTreeMap<String, String>,
    /// Fields, unescaped.
    pub fields: BTreeMap<String, Value>,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
}

impl Line {
    /// A tag; panics with the line if it is not there.
    pub fn tag(&self, key: &str) -> &str {
        self.tags
            .get(key)
            .unwrap_or_else(|| panic!("no tag {key}: {self:?}"))
    }

    /// An integer field; None if it is not there; panics if it is of another type.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.fields.get(key)? {
            Value::Int(value) => Some(*value),
            other => panic!("{key} is no integer: {other:?}"),
        }
    }

    /// A float field; None if it is not there; panics if it is of another type.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.fields.get(key)? {
            Value::Float(value) => Some(*value),
            other => panic!("{key} is no float: {other:?}"),
        }
    }

    /// A string field; None if it is not there; panics if it is of another type.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.fields.get(key)? {
            Value::Text(value) => Some(value),
            other => panic!("{key} is no string: {other:?}"),
        }
    }
}

/// Every line of `text`; panics at one that is no line protocol, or whose type is none of ours
/// (unsigned, boolean), or that has a tag or field twice, or no time.
pub fn lines(text: &str) -> Vec<Line> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is not whole: {text:?}"
    );
    influxdb_line_protocol::parse_lines(text)
        .map(|parsed| {
            let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {text:?}"));
            let mut tags = BTreeMap::new();
            for (key, value) in parsed.series.tag_set.iter().flatten() {
                let twice = tags.insert(key.to_string(), value.to_string());
                assert_eq!(twice, None, "tag {key} twice: {parsed:?}");
            }
            let mut fields = BTreeMap::new();
            for (key, value) in &parsed.field_set {
                use influxdb_line_protocol::FieldValue;
                let value = match value {
                    FieldValue::I64(value) => Value::Int(*value),
                    FieldValue::F64(value) => Value::Float(*value),
                    FieldValue::String(value) => Value::Text(value.to_string()),
                    other => panic!("a type that is none of ours, {other:?}: {parsed:?}"),
                };
                let twice = fields.insert(key.to_string(), value);
                assert_eq!(twice, None, "field {key} twice: {parsed:?}");
            }
            Line {
                measurement: parsed.series.measurement.to_string(),
                tags,
                fields,
                timestamp: parsed
                    .timestamp
                    .unwrap_or_else(|| panic!("no time: {text:?}")),
            }
        })
        .collect()
}

/// The lines of one measurement and one VM (the tag `name`).
pub fn of<'l>(lines: &'l [Line], measurement: &str, name: &str) -> Vec<&'l Line> {
    let wanted = |line: &&Line| {
        line.measurement == measurement && line.tags.get("name").is_some_and(|n| n == name)
    };
    lines.iter().filter(wanted).collect()
}

/// The one line of that measurement and VM; panics with all lines if there is none or several.
pub fn one<'l>(lines: &'l [Line], measurement: &str, name: &str) -> &'l Line {
    let found = of(lines, measurement, name);
    assert!(
        found.len() == 1,
        "{} lines {measurement} of {name}:{}",
        found.len(),
        lines.iter().fold(String::new(), |mut all, line| {
            let _ = write!(all, "\n{line:?}");
            all
        })
    );
    found[0]
}

/// The vm_devices line of one device; panics with the VM's devices if it is not there.
pub fn device<'l>(lines: &'l [Line], name: &str, devtype: &str, device: &str) -> &'l Line {
    let devices = of(lines, "vm_devices", name);
    let wanted = |line: &&&Line| line.tag("devtype") == devtype && line.tag("device") == device;
    devices
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no {devtype} {device} of {name}: {devices:#?}"))
}
