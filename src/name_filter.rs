//! Filters of names by shell-like patterns.

use std::str::Chars;

use crate::wording::shortened;

/// The longest pattern, in characters.
const LONGEST: usize = 1024;

/// Patterns for the names to include and to exclude.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// The patterns of names to include; if there are none, all names are.
    pub(crate) include: Vec<Pattern>,
    /// The patterns of names to exclude; they win over `include`.
    pub(crate) exclude: Vec<Pattern>,
}

impl NameFilter {
    /// Whether this name is included. A pattern must match the whole name; case counts.
    pub fn matches(&self, name: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// A shell-like pattern for a whole name. `/` and a leading dot are ordinary characters.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Pattern(Vec<Token>);

/// One token of a pattern.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Token {
    /// This character.
    One(char),
    /// `?`: any one character.
    Any,
    /// `*`: any text, also an empty one.
    Text,
    /// `[abc]`, `[a-z]`: a character from one of the ranges.
    Within(Vec<(char, char)>),
    /// `[!abc]`: a character from none of the ranges.
    Without(Vec<(char, char)>),
}

impl Pattern {
    /// Whether the whole name matches, in at most (length of the pattern) x (length of the name) steps.
    pub(crate) fn matches(&self, name: &str) -> bool {
        let mut rest = name.chars();
        let mut at = 0;
        // The index after the last `*`, and the part of the name that this `*` has not matched yet. It is enough
        // to extend the last `*`: it can match everything that a longer match of an earlier one would leave to it.
        let mut last_text: Option<(usize, Chars)> = None;
        loop {
            let before = rest.clone();
            match (self.0.get(at), rest.next()) {
                (Some(Token::Text), _) => {
                    at += 1;
                    rest = before;
                    last_text = Some((at, rest.clone()));
                }
                (None, None) => return true,
                (Some(token), Some(c)) if token.is(c) => at += 1,
                // At the end of the name, a longer match of the `*` would leave even less.
                (_, None) => return false,
                _ => {
                    let Some((after, untaken)) = &mut last_text else {
                        return false;
                    };
                    untaken.next();
                    at = *after;
                    rest = untaken.clone();
                }
            }
        }
    }
}

impl Token {
    fn is(&self, c: char) -> bool {
        let among = |ranges: &[(char, char)]| ranges.iter().any(|r| (r.0..=r.1).contains(&c));
        match self {
            Self::One(one) => c == *one,
            Self::Any | Self::Text => true,
            Self::Within(ranges) => among(ranges),
            Self::Without(ranges) => !among(ranges),
        }
    }
}

/// Reads one pattern: `*`, `?`, `[abc]`, `[a-z]`, `[!abc]`.
///
/// # Errors
/// One sentence that says what is wrong with the pattern and what would be right.
pub(crate) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("an empty pattern matches nothing; write \"*\" for every name".to_owned());
    }
    let length = text.chars().count();
    if length > LONGEST {
        return Err(format!(
            "pattern {:?} has {length} characters; at most {LONGEST} are allowed",
            shortened(text)
        ));
    }
    let bad = |why| format!("bad pattern {:?}: {why}", shortened(text));
    if length > 2 && text.starts_with('/') && text.ends_with('/') {
        let why = "regular expressions are not understood; write for example \"web*\", or \"[/]\" for a slash that is \
                   part of the name";
        return Err(bad(why.to_owned()));
    }
    let mut tokens = Vec::new();
    let mut rest = text.chars();
    while let Some(c) = rest.next() {
        tokens.push(match c {
            '?' => Token::Any,
            // Several stars match the same as one.
            '*' if tokens.last() == Some(&Token::Text) => continue,
            '*' => Token::Text,
            '[' => bracket(&mut rest).map_err(bad)?,
            '{' if is_choice(rest.as_str()) => {
                let why = "there are no alternatives in braces; write one pattern for each, or \"[{]\" for a brace that \
                           is part of the name";
                return Err(bad(why.to_owned()));
            }
            c => Token::One(c),
        });
    }
    Ok(Pattern(tokens))
}

/// Whether this is the rest of `{a,b}`, which other programs read as "a or b".
fn is_choice(behind: &str) -> bool {
    let inside = behind.split_once('}').map_or("", |(inside, _)| inside);
    inside.contains(',')
}

/// Reads from after `[` to after its `]`. A `]` in the first place is one of the characters.
fn bracket(rest: &mut Chars) -> Result<Token, String> {
    let inside = rest.as_str();
    let without = inside.starts_with('!');
    let inside = &inside[usize::from(without)..];
    let first = inside.chars().next().map_or(0, char::len_utf8);
    let Some(end) = inside[first..].find(']') else {
        let why = "\"[\" is not closed; close it with \"]\", or write \"[[]\" for a bracket that is part of the name";
        return Err(why.to_owned());
    };
    let (inside, behind) = inside.split_at(first + end);
    *rest = behind[1..].chars();
    let mut inside = inside.chars();
    let mut ranges = Vec::new();
    while let Some(from) = inside.next() {
        let mut further = inside.clone();
        let to = match (further.next(), further.next()) {
            (Some('-'), Some(to)) => {
                inside = further;
                to
            }
            _ => from,
        };
        if from > to {
            return Err(format!(
                "the range {from}-{to} contains no character; write {to}-{from}"
            ));
        }
        ranges.push((from, to));
    }
    Ok(match without {
        true => Token::Without(ranges),
        false => Token::Within(ranges),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use rustix::time::{ClockId, clock_gettime};

    fn filter(include: &[&str], exclude: &[&str]) -> NameFilter {
        let all = |texts: &[&str]| texts.iter().map(|text| pattern(text).unwrap()).collect();
        NameFilter {
            include: all(include),
            exclude: all(exclude),
        }
    }

    #[test]
    fn empty_means_everything() {
        assert!(filter(&[], &[]).matches("web1"));
        assert!(filter(&[], &[]).matches(""));
        assert!(!filter(&[], &["*"]).matches("web1"));
    }

    #[test]
    fn exclude_wins() {
        let filter = filter(&["web*", "db[12]"], &["*-old", "web9"]);
        for name in ["web", "web1", "db1", "db2"] {
            assert!(filter.matches(name), "{name}");
        }
        for name in ["db3", "web1-old", "web9", "WEB1", "myweb"] {
            assert!(!filter.matches(name), "{name}");
        }
    }

    #[test]
    fn names_have_no_folders() {
        assert!(filter(&["a*z"], &[]).matches("a/b/.c/z"));
        assert!(filter(&["*.x"], &[]).matches(".x"));
        assert!(filter(&["a**z", "***"], &[]).matches("a-z"));
        assert!(filter(&["[[]vm[]]", "?ö"], &[]).matches("[vm]"));
        assert!(filter(&["[[]vm[]]", "?ö"], &[]).matches("ßö"));
    }

    #[test]
    fn brackets_hold_characters_and_ranges() {
        for (text, matched, unmatched) in [
            ("[abc]", "abc", "d-[]!"),
            ("[a-c]", "abc", "d-[]!"),
            ("[!a-c]", "d-[]!/.", "abc"),
            ("[]a]", "]a", "[b!"),
            ("[!]a]", "[b!", "]a"),
            ("[-a]", "-a", "b]"),
            ("[a-]", "-a", "b]"),
            ("[a!^]", "a!^", "b"),
            ("[ä-üa-c0]", "äöüabc0", "ßd-"),
            (r"[\{,}]", r"\{,}", "a"),
            ("?", "aä/.", ""),
        ] {
            let filter = filter(&[text], &[]);
            let matches = |c: char| filter.matches(&c.to_string());
            assert!(matched.chars().all(matches), "{text}");
            assert!(!unmatched.chars().any(matches), "{text}");
            assert!(!filter.matches("") && !filter.matches("aa"), "{text}");
        }
        // These are not in the documented syntax, so they are ordinary characters.
        assert!(filter(&[r"{ab}\*", "/a"], &[]).matches(r"{ab}\c"));
        assert!(filter(&[r"[{]a,b}*", "[/]a/"], &[]).matches("{a,b}c"));
    }

    #[test]
    fn what_other_programs_understand_is_refused_with_what_to_write() {
        for (text, right) in [
            ("{a,b}*", "write one pattern for each"),
            ("vm-{1,2", ""),
            ("x{1..3,5}", "write one pattern for each"),
            ("/web.*/", "write for example \"web*\""),
            ("/", ""),
            ("//", ""),
        ] {
            match pattern(text) {
                Ok(_) => assert_eq!(right, "", "{text}"),
                Err(message) => assert!(!right.is_empty() && message.contains(right), "{message}"),
            }
        }
    }

    #[test]
    fn what_can_match_nothing_is_refused() {
        for text in [
            "[z-a]", "x[!b-a]", "*[ab-9]", "[]-A]", "[a", "[]", "[!]", "x[!",
        ] {
            assert!(pattern(text).is_err(), "{text}");
        }
        for length in [LONGEST, LONGEST + 1] {
            assert_eq!(pattern(&"ä".repeat(length)).is_ok(), length == LONGEST);
        }
    }

    #[test]
    fn many_stars_end_soon() {
        let name = "a".repeat(2000);
        for hungry in [
            format!("*{}b", "a".repeat(LONGEST - 2)),
            format!("{}b", "*a".repeat(511)),
            format!("{}b", "*?".repeat(511)),
        ] {
            // Processor time: other processes may have the processor meanwhile.
            let begun = clock_gettime(ClockId::ThreadCPUTime);
            assert!(!filter(&[&hungry], &[]).matches(&name));
            assert!(clock_gettime(ClockId::ThreadCPUTime).tv_sec - begun.tv_sec < 2);
        }
    }

    proptest! {
        /// The crate glob matched names in earlier versions.
        #[test]
        fn it_matches_as_the_crate_glob_does(
            text in r"(\*|\?|[ab]|\[!?\]?[a-d!/.-]{0,4}\]|[\[\]!./ä-]){1,9}",
            name in "[abcd./!ä\\[\\]-]{0,9}",
        ) {
            prop_assume!(!text.contains("**"));
            let glob = glob::Pattern::new(&text);
            match pattern(&text) {
                Ok(pattern) => {
                    let expected = glob.ok().map(|glob| glob.matches(&name));
                    prop_assert_eq!(expected, Some(pattern.matches(&name)));
                }
                Err(message) => {
                    let refused = ["contains no character", "regular expressions"];
                    let is_refused = refused.iter().any(|why| message.contains(why));
                    prop_assert!(glob.is_err() || is_refused);
                }
            }
        }
    }
}
