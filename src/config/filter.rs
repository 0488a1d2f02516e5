//! Which names to gather: shell-like patterns.

use glob::Pattern;

/// Patterns of names to gather and names to leave out.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameFilter {
    /// Empty means every name.
    pub(super) include: Vec<Pattern>,
    /// Wins over `include`.
    pub(super) exclude: Vec<Pattern>,
}

impl NameFilter {
    /// Whether a thing of that name is gathered. The whole name must match; case counts.
    pub fn matches(&self, name: &str) -> bool {
        let any = |patterns: &[Pattern]| patterns.iter().any(|pattern| pattern.matches(name));
        (self.include.is_empty() || any(&self.include)) && !any(&self.exclude)
    }
}

/// Reads one pattern: `*`, `?`, `[abc]`, `[!abc]`.
///
/// # Errors
/// One sentence saying what is wrong with it and what would be right.
pub(super) fn pattern(text: &str) -> Result<Pattern, String> {
    if text.is_empty() {
        return Err("an empty pattern matches nothing; write \"*\" for every name".to_owned());
    }
    // `**` means folders to the glob crate, which rejects it beside other characters. Names have
    // no folders, so any number of stars is one star.
    let mut plain = String::with_capacity(text.len());
    for c in text.chars() {
        if c != '*' || !plain.ends_with('*') {
            plain.push(c);
        }
    }
    Pattern::new(&plain).map_err(|error| {
        let advice = match plain.contains('[') {
            true => "close the bracket, or write \"[[]\" for a bracket that is part of the name",
            false => "\"*\", \"?\" and \"[abc]\" are understood",
        };
        format!("bad pattern {text:?}: {}; {advice}", error.msg)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

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
    fn many_stars_end_soon() {
        let name = "a".repeat(2000);
        let hungry = format!("{}b", "a*".repeat(50));
        let begun = std::time::Instant::now();
        assert!(!filter(&[&hungry], &[]).matches(&name));
        assert!(begun.elapsed() < std::time::Duration::from_secs(1));
    }
}
