//! The command line: from the arguments to a [`Command`].

use std::ffi::OsString;
use std::fmt;
use std::ops::RangeInclusive;
use std::path::PathBuf;
use std::time::Duration;

use lexopt::prelude::*;

use crate::duration;
use crate::uri::quoted;
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
    /// Validate the configuration, gather without writing, say what was found.
    Check(Flags),
    /// Gather, once or when triggered.
    Run(Flags),
}

/// The values of the flags. They win over the configuration file.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Flags {
    /// `--config FILE`.
    pub config: Option<PathBuf>,
    /// `--uri URI`.
    pub uri: Option<String>,
    /// `--once`: one gather, then exit.
    pub once: bool,
    /// `--interval DURATION`: gather in this interval, without triggers; from 100 ms to one day.
    pub interval: Option<Duration>,
    /// `--json`: the findings of `--check` as one JSON document.
    pub json: bool,
}

/// Wrong arguments: one sentence that says what would be right. Exit code 2.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct UsageError(String);

impl fmt::Display for UsageError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for UsageError {}

/// All flags as they are typed, to suggest one for a misspelt flag.
const FLAGS: [&str; 9] = [
    "--config",
    "--uri",
    "--once",
    "--interval",
    "--sample-config",
    "--check",
    "--json",
    "--version",
    "--help",
];

/// A shorter interval would keep libvirtd busy all the time; a longer one is most likely a typing error.
const INTERVAL: RangeInclusive<Duration> = Duration::from_millis(100)..=Duration::from_secs(86_400);

/// What `--help` prints.
pub const HELP: &str = include_str!("cli/help.txt");

/// Reads the arguments without the program's name.
///
/// Arguments after `--help`, `--version` or `--sample-config` are not read. If a flag is given twice, the last
/// one counts.
///
/// # Errors
/// A flag is unknown, a value is missing or invalid, or `--once` and `--interval` are given together, or `--json` without `--check`.
pub fn parse(args: impl IntoIterator<Item = OsString>) -> Result<Command, UsageError> {
    let args: Vec<OsString> = args.into_iter().collect();
    let mut parser = lexopt::Parser::from_args(args);
    let mut flags = Flags::default();
    let mut check = false;
    while let Some(arg) = parser.next().map_err(usage)? {
        match arg {
            Short('h') | Long("help") => return only(&mut parser, Command::Help),
            Short('V') | Long("version") => return only(&mut parser, Command::Version),
            Long("sample-config") => return only(&mut parser, Command::SampleConfig),
            Long("check") => check = true,
            Long("json") => flags.json = true,
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
                // Telegraf's own flags also work with a single dash, so -config probably means --config.
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
    if flags.json && !check {
        let message = "--json is the form of what --check prints: give --check as well";
        return Err(UsageError(message.to_owned()));
    }
    Ok(if check {
        Command::Check(flags)
    } else {
        Command::Run(flags)
    })
}

/// The command of the flag that was just read; a value of this flag (`--help=1`) is an error.
fn only(parser: &mut lexopt::Parser, command: Command) -> Result<Command, UsageError> {
    parser.next().map_err(usage)?;
    Ok(command)
}

/// The value of the flag that was just read. If a flag follows, the value is missing.
fn value(parser: &mut lexopt::Parser, flag: &str) -> Result<OsString, UsageError> {
    parser
        .values()
        .ok()
        .and_then(|mut values| values.next())
        .ok_or_else(|| UsageError(format!("{flag}: the value is missing")))
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

/// The error for an argument that is no flag or comes after `--`.
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
    let shown = shortened(arg);
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
