//! Finds and reads the configuration file; where that fails, the error says what to do.

mod content;

use std::fmt;
use std::fs::{self, Metadata};
use std::io::{self, ErrorKind};
use std::path::{Path, PathBuf};

use super::error::{ConfigError, Document, position};
use super::file::File;
use super::settings::Settings;
use super::uri::{self, UriOrigin};
use content::{LARGEST, Refusal};

/// The file that is read where `--config` is not given, if it exists.
pub const SYSTEM_FILE: &str = "/etc/telegraf-kvm/config.toml";

/// The settings, and the file they came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Loaded {
    /// The validated settings of the hypervisor, or of the first one.
    pub settings: Settings,
    /// Those of the further ones: of each table `[[host]]` but the first. They differ in `uri`, `host` and `deadline`.
    pub others: Vec<Settings>,
    /// The file that was read, if any.
    pub source: ConfigSource,
}

impl Loaded {
    /// The settings of each hypervisor.
    pub fn all(&self) -> impl Iterator<Item = &Settings> {
        std::iter::once(&self.settings).chain(&self.others)
    }
}

/// Which configuration was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ConfigSource {
    /// The file of `--config`.
    Flag(PathBuf),
    /// [`SYSTEM_FILE`].
    System(PathBuf),
    /// No file.
    Defaults,
}

impl fmt::Display for ConfigSource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Flag(path) => write!(f, "{} (from --config)", path.display()),
            Self::System(path) => write!(f, "{}", path.display()),
            Self::Defaults => write!(f, "the defaults ({SYSTEM_FILE} does not exist)"),
        }
    }
}

/// Loads and validates the configuration, given the value of `--config`, of `--uri` and of the
/// environment's `LIBVIRT_DEFAULT_URI`. With `--uri` there is that one hypervisor, as without tables `[[host]]`.
///
/// # Errors
/// The file of `--config` does not exist, a file that exists cannot be read, or its content or one of
/// the URIs is wrong.
pub fn load(
    file: Option<&Path>,
    flag_uri: Option<&str>,
    env_uri: Option<&str>,
) -> Result<Loaded, ConfigError> {
    load_from(file, flag_uri, env_uri, Path::new(SYSTEM_FILE))
}

fn load_from(
    file: Option<&Path>,
    flag_uri: Option<&str>,
    env_uri: Option<&str>,
    system: &Path,
) -> Result<Loaded, ConfigError> {
    let source = match file {
        Some(path) => ConfigSource::Flag(path.to_owned()),
        None if is_absent(system) => ConfigSource::Defaults,
        None => ConfigSource::System(system.to_owned()),
    };
    let (mut settings, hosts) = match &source {
        ConfigSource::Flag(path) | ConfigSource::System(path) => {
            let document = read(path)?;
            Settings::from_file(File::parse(&document)?, &document)?
        }
        ConfigSource::Defaults => (Settings::default(), Vec::new()),
    };
    let mut hosts = hosts.into_iter();
    if flag_uri.is_none()
        && let Some(settings) = hosts.next()
    {
        let others = hosts.collect();
        return Ok(Loaded {
            settings,
            others,
            source,
        });
    }
    let in_file = Some(settings.uri).filter(|uri| uri.origin != UriOrigin::Default);
    settings.uri = uri::choose(flag_uri, in_file, env_uri)?;
    Ok(Loaded {
        settings,
        others: Vec::new(),
        source,
    })
}

/// Whether the path does not exist at all. If it is a dangling link or in a folder that may not be read, the
/// program must not go on with the defaults.
fn is_absent(path: &Path) -> bool {
    does_not_exist(fs::symlink_metadata(path)) && dangling_link(path).is_none()
}

fn does_not_exist(found: io::Result<Metadata>) -> bool {
    found.is_err_and(|error| error.kind() == ErrorKind::NotFound)
}

/// The symbolic link with a target that does not exist, and its target. The link is the path itself or a folder
/// on the way to it.
fn dangling_link(path: &Path) -> Option<(&Path, PathBuf)> {
    path.ancestors()
        .filter(|link| does_not_exist(fs::metadata(link)))
        .find_map(|link| Some((link, fs::read_link(link).ok()?)))
}

fn read(path: &Path) -> Result<Document, ConfigError> {
    let bytes = content::read(path).map_err(|refusal| {
        let message = match refusal {
            Refusal::Kind(what) => what.to_owned(),
            Refusal::Size => format!(
                "larger than {LARGEST} bytes, so this is no configuration; check the file's name"
            ),
            Refusal::System(error) => unreadable(path, &error),
        };
        Document::whole(path, message)
    })?;
    let bytes = bytes.strip_prefix("\u{feff}".as_bytes()).unwrap_or(&bytes);
    match std::str::from_utf8(bytes) {
        Ok(text) => Ok(Document {
            path: path.to_owned(),
            text: text.to_owned(),
        }),
        Err(error) => {
            let (line, column) = position(bytes, error.valid_up_to());
            let place = format_args!("{}:{line}:{column}", path.display()).to_string();
            Err(ConfigError::new(
                place,
                "not valid UTF-8; save the file as UTF-8",
            ))
        }
    }
}

/// Why the file cannot be read, and the remedy.
fn unreadable(path: &Path, error: &io::Error) -> String {
    match error.kind() {
        ErrorKind::NotFound => match dangling_link(path) {
            Some((link, target)) => {
                let subject = match link == path {
                    true => String::new(),
                    false => format!("{} ", link.display()),
                };
                let target = target.display();
                format!("{subject}is a symbolic link to {target}, which does not exist")
            }
            None => "the configuration does not exist; \
                 \"telegraf-kvm --sample-config\" prints one to start from"
                .to_owned(),
        },
        ErrorKind::PermissionDenied => {
            let remedy = match closed_folder(path) {
                Some(folder) if folder.as_os_str().is_empty() => "chmod 0755 .".to_owned(),
                Some(folder) => format!("chmod 0755 {}", folder.display()),
                None => format!("chmod 0644 {}", path.display()),
            };
            format!(
                "user {} may not read the configuration; run: {remedy}",
                user()
            )
        }
        _ => format!(
            "the configuration cannot be read by user {}: {error}",
            user()
        ),
    }
}

/// The topmost folder on the way to `path` that this user may not search.
fn closed_folder(path: &Path) -> Option<&Path> {
    let closed = |path: &Path| {
        fs::metadata(path).is_err_and(|error| error.kind() == ErrorKind::PermissionDenied)
    };
    path.ancestors()
        .filter(|path| closed(path))
        .last()
        .and_then(Path::parent)
}

/// The user of this process: the number, and the name if /etc/passwd has it. Messages show it because under
/// Telegraf it is seldom the operator.
fn user() -> String {
    let uid = rustix::process::geteuid().as_raw();
    let passwd = fs::read("/etc/passwd").unwrap_or_default();
    match name_of(uid, &String::from_utf8_lossy(&passwd)) {
        Some(name) => format!("{name} (uid {uid})"),
        None => format!("(uid {uid})"),
    }
}

/// `name:x:uid:...`, see passwd(5).
fn name_of(uid: u32, passwd: &str) -> Option<&str> {
    let uid = uid.to_string();
    passwd
        .lines()
        .find(|line| line.split(':').nth(2) == Some(uid.as_str()))
        .and_then(|line| line.split(':').next())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::symlink;

    fn shown(file: Option<&Path>, flag_uri: Option<&str>, system: &Path) -> Result<String, String> {
        load_from(file, flag_uri, Some("env:///"), system)
            .map(|loaded| format!("{}; {}", loaded.source, loaded.settings.uri))
            .map_err(|error| error.to_string())
    }

    #[test]
    fn the_flags_win_over_the_file_and_the_file_over_the_environment() {
        let folder = tempfile::tempdir().unwrap();
        let file = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).unwrap();
            path
        };
        let absent = folder.path().join("absent/config.toml");
        let system = file("system.toml", "uri = \"system:///\"");
        let given = file("given.toml", "# nothing");
        let (s, g) = (system.display(), given.display());

        let expected = format!("{s}; system:/// (from {s})");
        assert_eq!(shown(None, None, &system), Ok(expected));
        let expected = format!(
            "the defaults ({SYSTEM_FILE} does not exist); env:/// (from LIBVIRT_DEFAULT_URI)"
        );
        assert_eq!(shown(None, None, &absent), Ok(expected));
        let expected = format!("{g} (from --config); env:/// (from LIBVIRT_DEFAULT_URI)");
        assert_eq!(shown(Some(&given), None, &system), Ok(expected));
        let expected = format!("{s}; flag:/// (from --uri)");
        assert_eq!(shown(None, Some("flag:///"), &system), Ok(expected));
    }

    #[test]
    fn what_cannot_be_read_is_not_taken_for_absent() {
        let folder = tempfile::tempdir().unwrap();
        let dangling = folder.path().join("config.toml");
        symlink("nowhere", &dangling).unwrap();
        let error = shown(None, None, &dangling).unwrap_err();
        assert!(error.contains("is a symbolic link to nowhere"), "{error}");
        let dangling = folder.path().join("folder");
        symlink("nowhere", &dangling).unwrap();
        let error = shown(None, None, &dangling.join("config.toml")).unwrap_err();
        assert!(error.contains("folder is a symbolic link to "), "{error}");

        let error = shown(None, None, folder.path()).unwrap_err();
        let path = folder.path().display();
        assert_eq!(
            error,
            format!("{path}: is a directory; name the file in it")
        );

        let large = folder.path().join("large");
        let file = fs::File::create(&large).unwrap();
        file.set_len(LARGEST + 1).unwrap();
        let error = shown(Some(&large), None, folder.path()).unwrap_err();
        let path = large.display();
        assert_eq!(
            error,
            format!(
                "{path}: larger than 1048576 bytes, so this is no configuration; check the file's name"
            )
        );
    }

    #[test]
    fn users_have_their_name_where_passwd_has_it() {
        let passwd = "root:x:0:0::/:/bin/sh\ntelegraf:x:998:997::/etc:/bin/false\nodd\n";
        assert_eq!(name_of(998, passwd), Some("telegraf"));
        assert_eq!(name_of(0, passwd), Some("root"));
        assert_eq!(name_of(997, passwd), None);
    }
}
