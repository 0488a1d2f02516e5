//! The keys of bulk statistics that the configuration names, as `vm_stats` writes them.

use std::sync::atomic::{AtomicBool, Ordering};

use smol_str::SmolStr;

use super::{Groups, Value};
use crate::name_filter::{self, Pattern};
use crate::sample::{StatValue, Stats};

/// Which keys are wanted. A clone knows nothing of what the original has matched.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct KeyFilter {
    patterns: Vec<Wanted>,
    groups: Groups,
}

/// One pattern.
#[derive(Debug)]
struct Wanted {
    text: SmolStr,
    pattern: Pattern,
    /// Whether a key has matched it. The workers, which share the filter, find out, and `--check` tells it.
    has_matched: AtomicBool,
}

impl Clone for Wanted {
    fn clone(&self) -> Self {
        Self {
            text: self.text.clone(),
            pattern: self.pattern.clone(),
            has_matched: AtomicBool::default(),
        }
    }
}

impl PartialEq for Wanted {
    fn eq(&self, other: &Self) -> bool {
        self.text == other.text
    }
}

impl Eq for Wanted {}

impl KeyFilter {
    /// Adds a shell-like pattern for a whole key (`block.*.timed_group.*`).
    ///
    /// # Errors
    /// One sentence that says what is wrong with the pattern and what would be right.
    pub fn add(&mut self, text: &str) -> Result<(), String> {
        let pattern = name_filter::pattern(text)?;
        if !text.contains(['.', '*', '?', '[']) {
            return Err(format!(
                "{text:?} matches no key: a key has the name of its group before a dot; write \"{text}.*\" for all keys of \
                 this group"
            ));
        }
        self.patterns.push(Wanted {
            text: text.into(),
            pattern,
            has_matched: AtomicBool::default(),
        });
        self.groups = self.groups | Groups::of_pattern(text);
        Ok(())
    }

    /// Whether no key is wanted.
    pub fn is_empty(&self) -> bool {
        self.patterns.is_empty()
    }

    /// The groups that may have wanted keys.
    pub fn groups(&self) -> Groups {
        self.groups
    }

    /// The patterns as they are written.
    pub fn patterns(&self) -> impl Iterator<Item = &str> {
        self.patterns.iter().map(|wanted| wanted.text.as_str())
    }

    /// Those that no key has matched so far.
    pub fn unmatched(&self) -> impl Iterator<Item = &str> {
        let patterns = self.patterns.iter();
        let unmatched = patterns.filter(|wanted| !wanted.has_matched.load(Ordering::Relaxed));
        unmatched.map(|wanted| wanted.text.as_str())
    }

    fn matches(&self, key: &str) -> bool {
        let mut matches = false;
        for wanted in &self.patterns {
            let has_matched = wanted.has_matched.load(Ordering::Relaxed);
            // One is enough, but for those of which it is not known yet.
            if (!matches || !has_matched) && wanted.pattern.matches(key) {
                matches = true;
                if !has_matched {
                    wanted.has_matched.store(true, Ordering::Relaxed);
                }
            }
        }
        matches
    }

    /// The wanted figures among the parameters of a record. Those of one object of the VM stand together.
    pub fn choose<'a>(
        &self,
        params: impl Iterator<Item = (&'a [u8], Value<'a>)> + Clone,
    ) -> Vec<Stats> {
        let mut chosen: Vec<Stats> = Vec::new();
        let names = Names::of(params.clone());
        for (key, value) in params {
            let Ok(key) = str::from_utf8(key) else {
                continue;
            };
            if !self.matches(key) {
                continue;
            }
            let Some((group, object, field)) = parsed(key, &names) else {
                continue;
            };
            let value = match value {
                Value::Integer(number) => StatValue::Integer(clamped(number)),
                Value::Float(number) => StatValue::Float(number),
                Value::Text(text) => StatValue::Text(text.into()),
            };
            let is_same = |stats: &Stats| stats.group == group && stats.object == object;
            // The keys of an object stand together.
            let position = chosen.iter().rposition(is_same).unwrap_or_else(|| {
                chosen.push(Stats {
                    group: group.into(),
                    object,
                    fields: Vec::new(),
                });
                chosen.len() - 1
            });
            chosen[position].fields.push((field, value));
        }
        chosen
    }
}

fn clamped(number: i128) -> i64 {
    i64::try_from(number).unwrap_or(match number > 0 {
        true => i64::MAX,
        false => i64::MIN,
    })
}

/// The names of the devices in a record.
struct Names<'a>(Vec<(&'a str, &'a str, &'a str)>);

impl<'a> Names<'a> {
    fn of(params: impl Iterator<Item = (&'a [u8], Value<'a>)>) -> Self {
        let named = params.filter_map(|(key, value)| {
            let key = str::from_utf8(key.strip_suffix(b".name")?).ok()?;
            let (group, index) = key.split_once('.')?;
            match value {
                Value::Text(name) if is_index(index) => Some((group, index, name)),
                _ => None,
            }
        });
        Self(named.collect())
    }

    fn get(&self, group: &str, index: &str) -> Option<&'a str> {
        let mut named = self.0.iter();
        let found = named.find(|(of, at, _)| *of == group && *at == index);
        found.map(|(_, _, name)| *name)
    }
}

fn is_index(part: &str) -> bool {
    !part.is_empty() && part.bytes().all(|byte| byte.is_ascii_digit())
}

/// Tag and value of an object of a VM; `None` for the VM.
type Object = Option<(&'static str, SmolStr)>;

/// The group of a key, the tag of the object that it belongs to, and the name of its field.
///
/// The first number in a key is the object's; what stands before it says of what kind that is. The name of a device is a
/// tag, so it is no field. InfluxDB takes no field `time`, and libvirt's keys of this name are in ns.
fn parsed<'k>(key: &'k str, names: &Names<'_>) -> Option<(&'k str, Object, SmolStr)> {
    let (group, rest) = key.split_once('.')?;
    let mut field = String::with_capacity(rest.len());
    let mut object = None;
    let mut before = group;
    for part in rest.split('.') {
        if object.is_none() && is_index(part) {
            let name = match before == group {
                true => names.get(group, part),
                false => None,
            };
            object = Some(match (before, name) {
                (_, Some(name)) => ("device", name.into()),
                ("vcpu", None) => ("vcpu", part.into()),
                ("iothread", None) => ("iothread", part.into()),
                _ => ("index", part.into()),
            });
        } else {
            if !field.is_empty() {
                field.push('_');
            }
            let plain = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
            field.extend(part.chars().map(plain));
        }
        before = part;
    }
    match field.as_str() {
        "" | "name" => None,
        "time" => Some((group, object, "time_ns".into())),
        _ => Some((group, object, field.into())),
    }
}

#[cfg(test)]
mod tests;
