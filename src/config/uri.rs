//! Which libvirt to connect to, and where that was set.

use std::fmt;
use std::path::PathBuf;

use toml::Spanned;

use super::ConfigError;
use super::error::Document;
use crate::uri::{Masked, control_character, is_in_process};

/// A libvirt connection URI.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Uri {
    /// The URI for libvirt; not empty, without control characters. It may contain a password, so messages show [`Uri::masked`].
    pub value: String,
    /// Where it was set. An operator who sees the wrong URI needs to know where to change it.
    pub origin: UriOrigin,
}

/// Where a [`Uri`] was set, in the order in which these win.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum UriOrigin {
    /// `--uri`.
    Flag,
    /// The key `uri` of this file.
    Config(PathBuf),
    /// `LIBVIRT_DEFAULT_URI`.
    Environment,
    /// Nowhere: [`Uri::default`].
    Default,
}

impl Uri {
    /// Whether the hypervisor is QEMU on this host, so that its processes and mounts can be examined.
    pub fn is_this_host(&self) -> bool {
        let rest = self.value.split_once("://");
        rest.is_some_and(|(scheme, rest)| {
            matches!(scheme, "qemu" | "qemu+unix") && rest.starts_with('/')
        })
    }

    /// Whether libvirt's driver runs within this process, where each connection has a node of its own
    /// (`test:///FILE`). The driver of `test+unix://` runs in a daemon.
    pub fn in_process(&self) -> bool {
        is_in_process(&self.value)
    }

    /// The URI without its passwords, for everything that is shown or stored.
    pub fn masked(&self) -> Masked {
        Masked::new(&self.value)
    }
}

impl Default for Uri {
    /// QEMU on this host, the default of `virsh` for root.
    fn default() -> Self {
        Self {
            value: "qemu:///system".to_owned(),
            origin: UriOrigin::Default,
        }
    }
}

impl fmt::Display for Uri {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({})", self.masked().text, self.origin)
    }
}

impl fmt::Display for UriOrigin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag => f.write_str("from --uri"),
            Self::Config(path) => write!(f, "from {}", path.display()),
            Self::Environment => f.write_str("from LIBVIRT_DEFAULT_URI"),
            Self::Default => f.write_str("the default"),
        }
    }
}

/// The first URI that is given: by the flag, the configuration (already checked), the environment, or the default.
///
/// An empty `LIBVIRT_DEFAULT_URI` counts as not set, as it does for libvirt itself.
///
/// # Errors
/// The chosen URI is empty or contains a control character.
pub(super) fn choose(
    flag: Option<&str>,
    config: Option<Uri>,
    environment: Option<&str>,
) -> Result<Uri, ConfigError> {
    if let Some(value) = flag {
        check(value).map_err(|message| ConfigError::new("--uri", message))?;
        return Ok(Uri {
            value: value.to_owned(),
            origin: UriOrigin::Flag,
        });
    }
    if let Some(uri) = config {
        return Ok(uri);
    }
    match environment.filter(|value| !value.is_empty()) {
        Some(value) => {
            check(value).map_err(|message| ConfigError::new("LIBVIRT_DEFAULT_URI", message))?;
            Ok(Uri {
                value: value.to_owned(),
                origin: UriOrigin::Environment,
            })
        }
        None => Ok(Uri::default()),
    }
}

/// The URI that stands in the file.
///
/// # Errors
/// It is empty or contains a control character.
pub(super) fn checked(
    document: &Document,
    key: &str,
    written: &Spanned<String>,
) -> Result<Uri, ConfigError> {
    let value = written.get_ref().clone();
    match check(&value) {
        Ok(()) => Ok(Uri {
            value,
            origin: UriOrigin::Config(document.path.clone()),
        }),
        Err(message) => Err(document.error(written.span(), format!("{key}: {message}"))),
    }
}

/// Checks that this text can be passed to libvirt, which itself checks what the URI means.
fn check(value: &str) -> Result<(), String> {
    if value.trim().is_empty() {
        return Err("the URI is empty; write for example \"qemu:///system\"".to_owned());
    }
    if let Some(control) = control_character(value) {
        let code = u32::from(control);
        return Err(format!(
            "the URI has a control character (U+{code:04X}) in it; write for example \"qemu:///system\""
        ));
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_that_is_given_wins() {
        let config = || {
            Some(Uri {
                value: "b:///".into(),
                origin: UriOrigin::Config("f".into()),
            })
        };
        let environment = || Some("c:///");
        let shown =
            |flag, config, environment| choose(flag, config, environment).unwrap().to_string();
        assert_eq!(
            shown(Some("a:///"), config(), environment()),
            "a:/// (from --uri)"
        );
        assert_eq!(shown(None, config(), environment()), "b:/// (from f)");
        assert_eq!(
            shown(None, None, environment()),
            "c:/// (from LIBVIRT_DEFAULT_URI)"
        );
        assert_eq!(shown(None, None, Some("")), "qemu:///system (the default)");
        assert_eq!(shown(None, None, None), "qemu:///system (the default)");
    }

    #[test]
    fn it_is_shown_without_its_password() {
        let uri = choose(Some("qemu+ssh://user:secret@kvm01/system"), None, None).unwrap();
        let shown = "qemu+ssh://user:***@kvm01/system (from --uri)";
        assert_eq!(uri.to_string(), shown);
    }

    #[test]
    fn only_qemu_on_this_host_can_be_looked_at() {
        for (value, this_host, in_process) in [
            ("qemu:///system", true, false),
            ("qemu:///session", true, false),
            ("qemu+unix:///system?socket=/run/other", true, false),
            ("qemu+ssh://kvm01/system", false, false),
            ("qemu+tcp://[::1]:16509/system", false, false),
            ("lxc:///system", false, false),
            ("qemu", false, false),
            ("test:///default", false, true),
            ("test:/default", false, true),
            ("test://kvm01/default", false, false),
            ("test+unix:///default", false, false),
        ] {
            let uri = Uri {
                value: value.to_owned(),
                origin: UriOrigin::Flag,
            };
            let found = (uri.is_this_host(), uri.in_process());
            assert_eq!(found, (this_host, in_process), "{value}");
        }
    }

    #[test]
    fn empty_and_control_characters_are_errors_that_name_the_culprit() {
        let error = |flag, environment| choose(flag, None, environment).unwrap_err().to_string();
        let empty = "the URI is empty; write for example \"qemu:///system\"";
        assert_eq!(error(Some(""), None), format!("--uri: {empty}"));
        assert_eq!(
            error(None, Some(" ")),
            format!("LIBVIRT_DEFAULT_URI: {empty}")
        );
        for (value, code) in [
            ("test:///a\0b", "U+0000"),
            ("qemu+ssh://user:sec\nret@kvm01/system", "U+000A"),
            ("qemu+ssh://user:sec\tret@kvm01/system", "U+0009"),
            ("test:///default?password=sec\u{85}ret", "U+0085"),
            ("qemu+ssh://user:sec%0Aret@kvm01/system", "U+000A"),
            ("esx://kvm01/?password=sec%0dret", "U+000D"),
        ] {
            let message = format!(
                "the URI has a control character ({code}) in it; write for example \"qemu:///system\""
            );
            assert_eq!(error(Some(value), None), format!("--uri: {message}"));
            assert_eq!(
                error(None, Some(value)),
                format!("LIBVIRT_DEFAULT_URI: {message}")
            );
        }
        // The name of a node file may contain any character.
        assert!(choose(Some("test:///a%0Ab.xml"), None, None).is_ok());
    }
}
