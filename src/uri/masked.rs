//! URIs without their passwords.
//!
//! libvirt does not use a password in a URI. It takes `user:password` as the user's name, and the programs it
//! starts or connects to (ssh, a proxy) repeat that name in messages. libvirt itself repeats a URI that it
//! cannot parse.

use std::borrow::Cow;
use std::ffi::OsStr;

use super::{decode_text, is_in_process};

/// The text that is shown in place of a password.
const MASK: &str = "***";

/// A parameter of the query is secret if its name contains one of these.
const SECRET_NAMES: [&str; 4] = ["pass", "pw", "secret", "token"];

/// Shorter passwords are masked only behind the user's name: a word of three letters in a message may be any
/// word.
const SHORTEST_WORD: usize = 4;

/// A URI, and the parts of it that must not be shown.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Masked {
    /// The URI with `***` in place of each password.
    pub text: String,
    /// Texts of the URI that messages may repeat, each with the text to show instead; the longest first.
    secrets: Vec<(String, String)>,
}

impl Masked {
    /// Knows no URI: only URIs within a message are masked.
    pub const NOTHING: Self = Self {
        text: String::new(),
        secrets: Vec::new(),
    };

    /// Masks `user:PASSWORD@` and parameters with a name like `password`, also in URIs that are parameters
    /// (`name=`, `proxy=`).
    pub fn new(uri: &str) -> Self {
        let mut secrets = Vec::new();
        let text = mask(uri, &mut secrets);
        if text != uri {
            secrets.push((uri.to_owned(), text.clone()));
        }
        Self { text, secrets }.sorted()
    }

    /// Knows the secrets of all of these, and has no text.
    pub fn joined(all: impl IntoIterator<Item = Self>) -> Self {
        let secrets = all.into_iter().flat_map(|masked| masked.secrets).collect();
        Self {
            secrets,
            ..Self::NOTHING
        }
        .sorted()
    }

    fn sorted(mut self) -> Self {
        let secrets = &mut self.secrets;
        secrets.sort_by_key(|(secret, _)| std::cmp::Reverse(secret.len()));
        secrets.dedup();
        self
    }

    /// Masks in `message` the secrets of this URI, and passwords in any other URI.
    pub fn mask_in<'m>(&self, message: &'m str) -> Cow<'m, str> {
        let mut message = Cow::Borrowed(message);
        for (secret, shown) in &self.secrets {
            if message.contains(secret.as_str()) {
                message = Cow::Owned(replace(&message, secret, shown));
            }
        }
        if message.contains("://") {
            let mut words = message.split_inclusive(ends_word).peekable();
            let mut masked = String::with_capacity(message.len());
            while let Some(word) = words.next() {
                // Shortened values end in ` ...`.
                let cut = words.peek().is_some_and(|next| next.starts_with("..."));
                let (word, end) = word.split_at(word.trim_end_matches(ends_word).len());
                masked.push_str(&mask_word(word, cut));
                masked.push_str(end);
            }
            if masked != message {
                message = Cow::Owned(masked);
            }
        }
        message
    }
}

/// An argument that is not UTF-8, in quotation marks and without its passwords.
pub fn quoted(raw: &OsStr) -> String {
    let text = raw.to_string_lossy();
    let masked = Masked::new(&text).text;
    if masked == text {
        format!("{raw:?}")
    } else {
        format!("{masked:?}")
    }
}

fn ends_word(c: char) -> bool {
    c.is_whitespace() || matches!(c, '"' | '\'')
}

/// Masks one word of a message; the word may have any text (`--uri=`) before the URI. The end of a word that
/// is `cut` is missing, and may have contained the `@`.
fn mask_word(word: &str, cut: bool) -> Cow<'_, str> {
    let Some((lead, rest)) = word.split_once("://") else {
        return word.into();
    };
    match rest.split_once(':') {
        _ if rest.contains(['@', '?']) => mask(word, &mut Vec::new()).into(),
        Some((user, _)) if cut => format!("{lead}://{user}:{MASK}").into(),
        _ => word.into(),
    }
}

/// Replaces `secret`. A bare password is replaced only where it is a word of its own.
fn replace(message: &str, secret: &str, shown: &str) -> String {
    if shown != MASK {
        return message.replace(secret, shown);
    }
    let joins = |c: Option<char>| c.is_some_and(char::is_alphanumeric);
    let mut masked = String::with_capacity(message.len());
    let mut rest = 0;
    for (start, _) in message.match_indices(secret) {
        let (before, after) = (&message[..start], &message[start + secret.len()..]);
        if !joins(before.chars().next_back()) && !joins(after.chars().next()) {
            masked.push_str(&message[rest..start]);
            masked.push_str(shown);
            rest = start + secret.len();
        }
    }
    masked.push_str(&message[rest..]);
    masked
}

/// Returns the URI without its passwords, and adds these to `secrets`.
fn mask(uri: &str, secrets: &mut Vec<(String, String)>) -> String {
    let (lead, rest) = split_lead(uri);
    let mut masked = lead.to_owned();
    let found = if has_file_path(uri) {
        in_authority(rest)
    } else {
        anywhere(rest)
    };
    let rest = match found {
        Some(Userinfo {
            user,
            password,
            rest,
        }) => {
            let written = uri[lead.len()..uri.len() - rest.len()].trim_end_matches('@');
            let shown = format!("{user}:{MASK}");
            masked.push_str(&shown);
            secrets.extend(forms(written).map(|written| (written, shown.clone())));
            hide_word(password, secrets);
            rest
        }
        None => rest,
    };
    let (before, query) = rest.split_at(rest.find('?').unwrap_or(rest.len()));
    masked.push_str(before);
    for parameter in query.split_inclusive(['?', '&', ';', '#']) {
        let end = parameter.trim_end_matches(['?', '&', ';', '#']).len();
        let (parameter, separator) = parameter.split_at(end);
        match parameter.split_once('=') {
            Some((name, value)) => {
                masked.push_str(name);
                masked.push('=');
                masked.push_str(&mask_value(name, value, secrets));
            }
            None => masked.push_str(parameter),
        }
        masked.push_str(separator);
    }
    masked
}

/// Splits the URI before the authority, all slashes in the first part.
fn split_lead(uri: &str) -> (&str, &str) {
    let start = match uri.find("://") {
        Some(scheme) => scheme + 1,
        None if uri.starts_with("//") => 0,
        None => return ("", uri),
    };
    uri.split_at(uri.len() - uri[start..].trim_start_matches('/').len())
}

/// Whether the path is a file's name, which may contain any characters. Other characters of a message may
/// precede the scheme.
fn has_file_path(uri: &str) -> bool {
    let of_scheme = |c: char| c.is_ascii_alphanumeric() || matches!(c, '+' | '-' | '.');
    let before = uri.split(':').next().unwrap_or_default();
    is_in_process(&uri[before.trim_end_matches(of_scheme).len()..])
}

fn mask_value(name: &str, value: &str, secrets: &mut Vec<(String, String)>) -> String {
    let name = decode_text(name).unwrap_or_default().to_lowercase();
    if !value.is_empty() && SECRET_NAMES.iter().any(|secret| name.contains(secret)) {
        hide_word(value, secrets);
        return MASK.to_owned();
    }
    let decoded = decode_text(value).unwrap_or_else(|| value.to_owned());
    // The name of a file (`socket=`, `keyfile=`) may contain any characters.
    if decoded.starts_with('/') && !decoded.starts_with("//") {
        return value.to_owned();
    }
    let masked = mask(&decoded, secrets);
    if masked == decoded {
        value.to_owned()
    } else {
        masked
    }
}

fn hide_word(password: &str, secrets: &mut Vec<(String, String)>) {
    let words = forms(password).filter(|word| word.len() >= SHORTEST_WORD);
    secrets.extend(words.map(|word| (word, MASK.to_owned())));
}

/// The text as written, as libvirt decodes it, and as libvirt quotes it for a shell (`virBufferEscapeShell`).
fn forms(written: &str) -> impl Iterator<Item = String> {
    let decoded = decode_text(written);
    let quoted = decoded.as_ref().map(|text| text.replace('\'', "'\\''"));
    [Some(written.to_owned()), decoded, quoted]
        .into_iter()
        .flatten()
}

/// The user and the password of a URI, and the text that follows them: from the `@` on, or nothing.
struct Userinfo<'u> {
    user: &'u str,
    password: &'u str,
    rest: &'u str,
}

impl<'u> Userinfo<'u> {
    /// Splits `text` up to `end`; `None` where there is no password.
    fn up_to(end: usize, text: &'u str) -> Option<Self> {
        let (userinfo, rest) = text.split_at(end);
        let colon =
            [":", "%3A", "%3a"].map(|colon| userinfo.find(colon).map(|at| (at, colon.len())));
        let (at, length) = colon.into_iter().flatten().min()?;
        let (user, password) = (userinfo.get(..at)?, userinfo.get(at + length..)?);
        (!password.is_empty()).then_some(Self {
            user,
            password,
            rest,
        })
    }
}

/// The user and the password before the first `/`, `?` or `#`, as RFC 3986 has it.
fn in_authority(text: &str) -> Option<Userinfo<'_>> {
    let authority = text.split(['/', '?', '#']).next()?;
    Userinfo::up_to(authority.rfind('@')?, text)
}

/// The user and the password of a URI that may be malformed.
///
/// A password with `/`, `?`, `#` or `@` in it that is not encoded, or without a host after it, makes a URI that
/// libvirt cannot parse and repeats, or in which it takes the password for a port and a path. So everything
/// up to the last `@` that is not in the query counts as user and password.
fn anywhere(text: &str) -> Option<Userinfo<'_>> {
    let (before, query) = text.split_at(text.find(['?', '#']).unwrap_or(text.len()));
    let authority = before.split('/').next()?;
    let is_query = before.len() > authority.len() || {
        let name = query.split(['=', '&', ';']).next()?;
        !name.contains('@')
    };
    let port = match authority.rsplit_once(':') {
        _ if authority.starts_with('[') => None,
        Some((_, port)) if !port.bytes().all(|byte| byte.is_ascii_digit()) => Some(port),
        _ => None,
    };
    let last = match before.rfind('@') {
        Some(at) if is_query => Some(at),
        None if is_query && port.is_none() => return None,
        _ => text.rfind('@'),
    };
    Userinfo::up_to(last.unwrap_or(text.len()), text)
}

#[cfg(test)]
mod tests;
