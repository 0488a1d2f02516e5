//! Finds the wanted values while a domain's XML is read.

use std::sync::Arc;

use quick_xml::events::BytesStart;
use quick_xml::name::NamespaceResolver;
use smol_str::SmolStr;

use super::parser::attribute;
use super::places::{Place, WantedValue};

/// The values that were found, each with the name of its tag. A value that is absent or empty is left out.
pub type TagValues = [(SmolStr, SmolStr)];

/// The longest value in bytes; a longer one is cut. InfluxDB 1 and 2 take 65,535 bytes for all tags of a line.
pub(super) const LONGEST: usize = 1024;

/// The value, or the beginning of a long one: its first [`LONGEST`] bytes, up to the end of a character.
pub fn cut(value: &str) -> &str {
    let mut end = value.len().min(LONGEST);
    while !value.is_char_boundary(end) {
        end -= 1;
    }
    &value[..end]
}

/// How much of a text is collected: what is cut off must not depend on the white space before it.
const COLLECTED: usize = 16 * 1024;

/// The search for all wanted values.
#[derive(Default)]
pub(super) struct Values<'w>(Vec<Search<'w>>);

/// The search for one value.
struct Search<'w> {
    wanted: &'w WantedValue,
    /// How many of the open elements, from the child of `<domain>` on, are the first steps to the value.
    matched: usize,
    /// The text so far of the element itself, if that is open and its text is wanted.
    text: Option<String>,
    value: Option<SmolStr>,
}

impl<'w> Values<'w> {
    pub(super) fn of(wanted: &'w [WantedValue]) -> Self {
        let search = |wanted| Search {
            wanted,
            matched: 0,
            text: None,
            value: None,
        };
        Self(wanted.iter().map(search).collect())
    }

    /// An element is entered, when `depth` elements below `<domain>` are open.
    pub(super) fn enter(
        &mut self,
        depth: usize,
        element: &BytesStart,
        resolver: &NamespaceResolver,
    ) -> Result<(), String> {
        for search in &mut self.0 {
            let Place {
                steps,
                attribute: of,
                ..
            } = &search.wanted.place;
            if search.value.is_some() || search.matched != depth {
                continue;
            }
            let Some(step) = steps.get(depth) else {
                continue;
            };
            if step.is(element, resolver) {
                search.matched += 1;
                if search.matched == steps.len() {
                    match of {
                        Some(name) => {
                            let value = attribute(element, name)?.unwrap_or_default();
                            search.found(&value);
                        }
                        None => search.text = Some(String::new()),
                    }
                }
            }
        }
        Ok(())
    }

    /// There is text in the innermost element; `depth` elements below `<domain>` are open.
    pub(super) fn text(&mut self, depth: usize, text: &str) {
        for search in &mut self.0 {
            if search.wanted.place.steps.len() == depth
                && let Some(before) = &mut search.text
                && before.len() < COLLECTED
            {
                before.push_str(text);
            }
        }
    }

    /// An element was left; `depth` elements below `<domain>` are still open.
    pub(super) fn leave(&mut self, depth: usize) {
        for search in &mut self.0 {
            if search.matched > depth {
                search.matched = depth;
                if let Some(text) = search.text.take() {
                    search.found(&text);
                }
            }
        }
    }

    /// The values; `None` if none are wanted.
    pub(super) fn finish(&mut self) -> Option<Arc<TagValues>> {
        let searches = std::mem::take(&mut self.0);
        let any = !searches.is_empty();
        let found = |search: Search| Some((search.wanted.tag.clone(), search.value?));
        any.then(|| searches.into_iter().filter_map(found).collect())
    }
}

impl Search<'_> {
    /// Keeps a value unless it is empty: another element of the same path may have one.
    fn found(&mut self, value: &str) {
        // White space around a text that spans lines is the layout of the document.
        let value = if value.contains('\n') {
            value.trim()
        } else {
            value
        };
        let value = match self.wanted.place.part {
            Some(part) => part.of(value).unwrap_or_default(),
            None => value,
        };
        let value = cut(value);
        if !value.trim().is_empty() {
            self.value = Some(value.into());
        }
    }
}
