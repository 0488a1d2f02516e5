//! Connection URIs as libvirt reads them (`virURIParse`): parsed by libxml2's `xmlParseURI` (RFC 3986), user
//! and path decoded. [`Masked`] is how they are shown.

mod masked;

use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use std::path::PathBuf;
use std::time::Duration;

use crate::times::{NOT_LET_IN, NOT_LET_IN_AFAR};

pub use masked::{Masked, quoted};

/// The parts of a URI as written, nothing decoded.
#[derive(Debug, PartialEq, Eq)]
struct UriParts<'u> {
    scheme: &'u str,
    /// The text between `//` and the path; empty where there is no `//`.
    authority: &'u str,
    path: &'u str,
}

fn parts(uri: &str) -> Option<UriParts<'_>> {
    let (scheme, rest) = uri.split_once(':')?;
    let rest = rest.split(['?', '#']).next()?;
    let (authority, path) = match rest.strip_prefix("//") {
        Some(rest) => rest.split_at(rest.find('/').unwrap_or(rest.len())),
        None => ("", rest),
    };
    Some(UriParts {
        scheme,
        authority,
        path,
    })
}

/// Whether libvirt serves this URI by its test driver, within this process: the scheme is `test` without a
/// transport, and there is no host.
pub fn is_in_process(uri: &str) -> bool {
    parts(uri).is_some_and(|parts| {
        parts.scheme == "test" && (parts.authority.is_empty() || parts.authority.ends_with('@'))
    })
}

/// The file that the test driver reads its node from: the path, decoded (`testConnectOpen`).
///
/// `None` for its built-in node (`test:///default`), for other drivers, and for a URI that libvirt cannot
/// parse or refuses: its own error says why.
pub fn node_file(uri: &str) -> Option<PathBuf> {
    let path = is_in_process(uri).then(|| parts(uri))??.path;
    // The characters that xmlParse3986Segment accepts.
    let is_legal = |c: char| c.is_ascii_alphanumeric() || "-._~!$&'()*+,;=:@/%".contains(c);
    if !path.chars().all(is_legal) {
        return None;
    }
    let mut bytes = decode(path)?;
    // A C string ends at the first NUL.
    if let Some(end) = bytes.iter().position(|byte| *byte == 0) {
        bytes.truncate(end);
    }
    let built_in = matches!(&*bytes, b"" | b"/" | b"/default");
    (!built_in).then(|| OsString::from_vec(bytes).into())
}

/// The host in the URI, decoded, without user and port, and without the brackets of an IPv6 address. `None` where there is
/// none: the URI is one of this host.
pub fn host_name(uri: &str) -> Option<String> {
    let authority = parts(uri)?.authority;
    let (_, server) = authority.rsplit_once('@').unwrap_or(("", authority));
    let host = match server.strip_prefix('[') {
        Some(address) => address.split(']').next()?,
        None => server.split(':').next()?,
    };
    let host = decode_text(host).unwrap_or_else(|| host.to_owned());
    (!host.is_empty()).then_some(host)
}

/// After what time a connection to this URI that is still being opened counts as not let in, if others are answered.
pub fn not_let_in(uri: &str) -> Duration {
    match host_name(uri) {
        Some(_) => NOT_LET_IN_AFAR,
        None => NOT_LET_IN,
    }
}

/// The first control character of the URI, as written or as libvirt decodes it.
///
/// libvirt and ssh print the parts of a URI. A line break in a password would divide it between two lines, in
/// which it is not recognized. The test driver prints nothing decoded, and its file may have any name.
pub fn control_character(uri: &str) -> Option<char> {
    let find = |text: &str| text.chars().find(|c| c.is_control());
    find(uri).or_else(|| match is_in_process(uri) {
        true => None,
        false => find(&decode_text(uri)?),
    })
}

/// Replaces `%20` and the like; `None` where no two hexadecimal digits follow a `%`.
fn decode(text: &str) -> Option<Vec<u8>> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('%') {
        bytes.extend_from_slice(before.as_bytes());
        let digits = after.get(..2)?;
        // from_str_radix would accept a sign.
        if !digits.bytes().all(|byte| byte.is_ascii_hexdigit()) {
            return None;
        }
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = after.get(2..)?;
    }
    bytes.extend_from_slice(rest.as_bytes());
    Some(bytes)
}

/// As [`decode`], with invalid UTF-8 replaced as it is in messages of libvirt that are logged.
fn decode_text(text: &str) -> Option<String> {
    decode(text).map(|bytes| String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_host_name_is_what_stands_before_port_and_path() {
        for (uri, host) in [
            ("qemu+tls://kvm01/system", Some("kvm01")),
            (
                "qemu+ssh://root@kvm01.example.org:2222/system?no_tty=1",
                Some("kvm01.example.org"),
            ),
            ("qemu+tls://user:a@b@kvm01/system", Some("kvm01")),
            ("qemu+tcp://[::1]:16509/system", Some("::1")),
            ("qemu+tcp://192.0.2.1/system", Some("192.0.2.1")),
            ("qemu+tls://kvm%2D1/system", Some("kvm-1")),
            ("test://kvm01", Some("kvm01")),
            ("qemu:///system", None),
            ("qemu+unix:///system?socket=/run/a@b", None),
            ("test:/default", None),
            ("qemu+ssh://user@/system", None),
            ("qemu", None),
        ] {
            assert_eq!(host_name(uri).as_deref(), host, "{uri}");
        }
    }

    #[test]
    fn the_node_file_is_the_decoded_path() {
        for (uri, file) in [
            ("test:///a%20b.xml", Some("/a b.xml")),
            ("test:///%C3%BC.xml", Some("/ü.xml")),
            ("test:///a%23b.xml#c", Some("/a#b.xml")),
            ("test:///a.xml?x=y", Some("/a.xml")),
            ("test:///a%2520.xml", Some("/a%20.xml")),
            ("test:///a.xml%00b", Some("/a.xml")),
            ("test://user@/a.xml", Some("/a.xml")),
            ("test:/a.xml", Some("/a.xml")),
            ("test:a.xml", Some("a.xml")),
            ("test:///%64efault", None),
            ("test:///default?x", None),
            ("test:///default#x", None),
            ("test:///", None),
            ("test://", None),
            // libvirt refuses these.
            ("test:///a b.xml", None),
            ("test:///ü.xml", None),
            ("test:///a%zz.xml", None),
            ("test:///a%+1.xml", None),
            ("test:///a[b].xml", None),
            // Other drivers.
            ("test://host/a.xml", None),
            ("test+unix:///a.xml", None),
            ("TEST:///a.xml", None),
            ("qemu:///a.xml", None),
            ("", None),
        ] {
            assert_eq!(node_file(uri), file.map(PathBuf::from), "{uri}");
        }
    }
}
