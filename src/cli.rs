//! The command line: from the arguments to a [`Command`].

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::duration;
use crate::uri::{Masked, quoted};
use crate::wording::{nearest, shortened};

/// What the arguments ask for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Command {
    /// Print [`HELP`].
    Help,
    /// Print name and version.
    Version,
    /// Print the commented sample configuration.
    SampleConfig,
    /// Validate the configuration, open the connection, count the VMs.
    Check(Flags),
    /// Gather, once or when triggered.
    Run(Flags),
}

/// What the flags set; they win over the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--uri URI`.
    pub uri: Option<String>,
    /// `--once`: one gather, then exit.
    pub once: bool,
    /// `--interval DURATION`: gather by itself; from 100 ms to one day.
    pub interval: Option<Duration>,
}

/// Arguments that cannot be meant: one sentence saying what would be right. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// The flags as they are typed, for the nearest one to a misspelt flag.
const FLAGS: [&str; 8] = [
    "--config",
    "--uri",
    "--once",
    "--interval",
    "--sample-config",
    "--check",
    "--version",
    "--help",
];

/// A shorter interval would keep libvirtd busy all the time; a longer one is most likely a typing error.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

/// What `--help` prints.
pub const HELP: &str = include_str!("cli/help.txt");

/// Reads the arguments, the program's name not among them.
///
/// `--help`, `--version` and `--sample-config` answer as soon as they are met. A flag given twice
/// holds what it was given last.
///
/// # Errors
/// An unknown flag, a missing or impossible value, `--once` together with `--interval`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut parser = lexopt::Parser::from_args(args);
    let mut flags = Flags::default();
    let mut check = false;
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return answer(&mut parser, Command::Help),
            Short('V') | Long("version") => return answer(&mut parser, Command::Version),
            Long("sample-config") => return answer(&mut parser, Command::SampleConfig),
            Long("check") => check = true,
            Long("once") => flags.once = true,
            Long("config") => {
                let path = value(&mut parser, "--config FILE")?;
                if path.is_empty() {
                    return Err(UsageError("--config FILE: the name is empty".to_owned()));
                }
                flags.config = Some(PathBuf::from(path));
            }
            Long("uri") => flags.uri = Some(text(&mut parser, "--uri URI")?),
            Long("interval") => {
                let text = text(&mut parser, "--interval DURATION")?;
                let interval = duration::parse(&text, &INTERVAL);
                flags.interval =
                    Some(interval.map_err(|m| UsageError(format!("--interval: {m}")))?);
            }
            Short(letter) => {
                // Telegraf's own flags also go with a single dash: -config is meant as --config.
                let rest = parser.optional_value().unwrap_or_default();
                return Err(unknown(&format!("-{letter}{}", rest.to_string_lossy())));
            }
            Long(name) => return Err(unknown(&format!("--{name}"))),
            Value(word) => return Err(unexpected(&word.to_string_lossy())),
        }
    }
    if flags.once && flags.interval.is_some() {
        let message = "--once and --interval exclude each other: leave one of them out";
        return Err(UsageError(message.to_owned()));
    }
    Ok(if check {
        Command::Check(flags)
    } else {
        Command::Run(flags)
    })
}

/// The command of the flag just met, whatever follows; but a value of its own (`--help=1`) is an error.
fn answer(parser: &mut lexopt::Parser, command: Command) -> Result<Command, UsageError> {
    parser.next().map_err(usage)?;
    Ok(command)
}

/// The value of the flag just met; a flag in its place is a forgotten value, not the value.
fn value(parser: &mut lexopt::Parser, flag: &str) -> Result<OsString, UsageError> {
    let first = parser.values().ok().and_then(|mut values| values.next());
    first.ok_or_else(|| UsageError(format!("{flag}: the value is missing")))
}

/// As [`value`], for values that must be UTF-8.
fn text(parser: &mut lexopt::Parser, flag: &str) -> Result<String, UsageError> {
    value(parser, flag)?.into_string().map_err(|raw| {
        let raw = quoted(&raw);
        UsageError(format!("{flag}: {} is not valid UTF-8", shortened(&raw)))
    })
}

fn unknown(flag: &str) -> UsageError {
    no_such("unknown flag", flag)
}

/// What is no flag, or stands behind `--`.
fn unexpected(word: &str) -> UsageError {
    if word.starts_with('-') && word != "-" {
        let shown = shortened(word);
        let message = format!(
            "unexpected argument {shown:?}: after \"--\" there are no flags; leave \"--\" out"
        );
        return UsageError(message);
    }
    no_such("unexpected argument", word)
}

fn no_such(what: &str, arg: &str) -> UsageError {
    // It may be a URI, with a password that has a space in it.
    let masked = Masked::new(arg).text;
    let shown = shortened(&masked);
    UsageError(match nearest(arg, &FLAGS) {
        Some(flag) => format!("{what} {shown:?}; did you mean \"{flag}\"?"),
        None => format!("{what} {shown:?}; \"telegraf-kvm --help\" lists the flags"),
    })
}

fn usage(error: lexopt::Error) -> UsageError {
    UsageError(match error {
        lexopt::Error::UnexpectedValue { option, value } => {
            let (option, value) = (shortened(&option), value.to_string_lossy());
            let value = shortened(&value);
            format!("{option} takes no value, but was given {value:?}")
        }
        other => other.to_string(),
    })
}

#[cfg(test)]
mod tests;
