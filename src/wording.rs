//! Parts of messages: values, counts, and the word that was probably meant.

use crate::uri::Masked;

/// How many characters of a value a message shows.
const SHOWN: usize = 60;

/// The value as a message shows it: at most 60 characters, then ` ...`, so that the rest of the message
/// stays readable. It may be a URI that was given by mistake, so it is shown without its passwords.
pub(crate) fn shortened(value: &str) -> String {
    cut(Masked::new(value).text)
}

/// At most 60 characters of the text, then ` ...`.
pub(crate) fn cut(mut shown: String) -> String {
    if let Some((end, _)) = shown.char_indices().nth(SHOWN) {
        shown.truncate(end);
        shown.push_str(" ...");
    }
    shown
}

/// `yes` or `no`: how fields write what is so or not.
pub(crate) fn yes_or_no(is: bool) -> &'static str {
    if is { "yes" } else { "no" }
}

/// `1 gather`, `2 gathers`: for nouns with a plural in `s`.
pub(crate) fn count(number: u64, noun: &str) -> String {
    let s = if number == 1 { "" } else { "s" };
    format!("{number} {noun}{s}")
}

/// The first ten of these names, and how many more there are.
pub(crate) fn first_names(names: &[impl AsRef<str>]) -> String {
    const NAMED: usize = 10;
    let named: Vec<&str> = names.iter().take(NAMED).map(AsRef::as_ref).collect();
    let named = named.join(", ");
    match names.len().saturating_sub(NAMED) {
        0 => named,
        more => format!("{named} and {more} more"),
    }
}

/// How many VMs are active, and how many of them pass the name filter if not all do.
pub(crate) fn active_vms(active: usize, filtered: usize) -> String {
    let all = count(active as u64, "active VM");
    match filtered {
        0 => all,
        out => {
            let pass = active.saturating_sub(out);
            format!("{all}, {pass} of them pass the name filter")
        }
    }
}

/// libvirt's way to write a version as a number: `9.0.0` for 9_000_000.
pub(crate) fn dotted(version: u64) -> String {
    let (major, minor) = (version / 1_000_000, version / 1_000 % 1_000);
    format!("{major}.{minor}.{}", version % 1_000)
}

/// The word of `known` that `word` may be a misspelling of, a part of, or a longer name for.
///
/// Case, dashes and underscores do not count. A misspelling differs in at most a third of its characters
/// (as rustc counts it), and a part has at least three.
pub(crate) fn nearest<'a>(word: &str, known: &[&'a str]) -> Option<&'a str> {
    let bare = |word: &str| word.to_lowercase().replace(['-', '_'], "");
    let word = bare(word);
    let length = word.chars().count();
    let most = length.max(3) / 3;
    let distance = |known: &str| {
        // The distance of a long word would take long to compute, and would be too large.
        let close = known.len().abs_diff(length) <= most;
        let distance = close.then(|| strsim::osa_distance(&word, known));
        distance.filter(|&distance| distance <= most)
    };
    let misspelt = known
        .iter()
        .filter_map(|&known| Some((distance(&bare(known))?, known)))
        .min_by_key(|(distance, _)| *distance);
    if let Some((_, known)) = misspelt {
        return Some(known);
    }
    let related = |known: &str| known.contains(&word) || word.contains(known);
    known
        .iter()
        .copied()
        .find(|known| length > 2 && related(&bare(known)))
}

#[cfg(test)]
mod tests {
    use super::*;

    const KEYS: [&str; 6] = [
        "uri",
        "deadline",
        "max_calls",
        "log_level",
        "domain_include",
        "device_exclude",
    ];

    #[test]
    fn long_values_are_cut() {
        let text = "ä".repeat(60);
        assert_eq!(shortened(&text), text);
        assert_eq!(shortened("a://user:b c@host/"), "a://user:***@host/");
        assert_eq!(shortened(&format!("{text}b")), format!("{text} ..."));
    }

    #[test]
    fn one_is_no_plural() {
        let counts = [0, 1, 2].map(|number| count(number, "call"));
        assert_eq!(counts, ["0 calls", "1 call", "2 calls"]);
    }

    #[test]
    fn vms_that_pass_the_name_filter_are_counted_where_some_do_not() {
        assert_eq!(active_vms(1, 0), "1 active VM");
        let some = "3 active VMs, 2 of them pass the name filter";
        assert_eq!(active_vms(3, 1), some);
    }

    #[test]
    fn what_is_meant_is_near() {
        for (word, expected) in [
            ("url", "uri"),
            ("URI", "uri"),
            ("dead-line", "deadline"),
            ("dedline", "deadline"),
            ("maxcall", "max_calls"),
            ("loglvl", "log_level"),
            ("domains_included", "domain_include"),
            ("include", "domain_include"),
            ("LIBVIRT_URI", "uri"),
        ] {
            assert_eq!(nearest(word, &KEYS), Some(expected), "{word}");
        }
        for word in ["", "x", "u", "al", "-", "colour", "ö€", "call_me_max"] {
            assert_eq!(nearest(word, &KEYS), None, "{word}");
        }
    }
}
