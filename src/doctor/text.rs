//! The findings as text for a terminal.

use std::fmt::Write;

use super::Facts;
use super::findings::findings;
use crate::logging::printable;
use crate::wording::active_vms;

/// The widest line.
const WIDTH: usize = 100;
/// Where the words begin: after the mark and the subject.
const INDENT: usize = 25;

/// The text that follows the lines of configuration and URI. `hide` masks passwords.
pub fn text(facts: &Facts, hide: impl Fn(&str) -> String) -> String {
    let mut text = String::new();
    if let Some(vms) = &facts.vms {
        let active = active_vms(vms.active.unwrap_or_default(), vms.filtered.len());
        let _ = writeln!(text, "connected: {active}\n");
    }
    for finding in findings(facts) {
        let (mark, subject) = (finding.level.word(), finding.subject);
        let mut begin = format!("{mark:<9}{subject:<16}");
        for (words, first) in [
            (Some(&finding.message), ""),
            (finding.remedy.as_ref(), "-> "),
        ] {
            let Some(words) = words else { continue };
            let words = format!("{first}{}", hide(words));
            for line in wrapped(&printable(&words), WIDTH - INDENT) {
                let _ = writeln!(text, "{begin}{line}");
                begin = " ".repeat(INDENT);
            }
        }
    }
    text
}

/// The words in lines of at most so many characters, where no word is longer.
fn wrapped(words: &str, width: usize) -> Vec<String> {
    let mut lines: Vec<String> = Vec::new();
    for word in words.split(' ') {
        match lines.last_mut() {
            Some(line) if line.chars().count() + 1 + word.chars().count() <= width => {
                line.push(' ');
                line.push_str(word);
            }
            _ => lines.push(word.to_owned()),
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_wrapped_and_none_is_cut() {
        assert_eq!(wrapped("a bc d", 4), ["a bc", "d"]);
        assert_eq!(wrapped("a bcdefg h", 4), ["a", "bcdefg", "h"]);
        assert_eq!(wrapped("", 4), [""]);
    }
}
