//! The log on stderr: one line per message, with the prefix for its level that Telegraf reads.
//!
//! Telegraf (1.32 and later) takes the level of a plugin's line on stderr from `E! `, `W! `, `I! `, `D! ` or `T! `.
//! After a line over 64 KiB it reads no more of stderr, and the full pipe would block this program.

mod libraries;
mod problems;

use std::io::{self, Write};
use std::sync::OnceLock;

use log::{Level, LevelFilter};

use crate::hypervisor;
use crate::uri::Masked;
use crate::wording::shortened;
pub use libraries::{capture, close, descriptor, pass_on, pass_on_rest};
pub use problems::Problems;

/// The longest line in bytes, newline included: far below the 64 KiB that Telegraf reads.
const LONGEST: usize = 8 * 1024;

/// The text in place of what was cut from a line.
const CUT: &str = " ... ";

/// How many bytes at the end of a line that is cut remain. The end of a message says what to do.
const END: usize = 2 * 1024;

/// The URIs whose passwords must not be in any line.
static HIDDEN: OnceLock<Masked> = OnceLock::new();

/// Masks the passwords of these URIs in every line from now on, for libvirt's messages may repeat them. Only the
/// first call has an effect.
pub fn hide(uris: Masked) {
    let _ = HIDDEN.set(uris);
}

/// Starts the log at `level`. `RUST_LOG` wins, if it is set and not empty. Where there are several hypervisors, the messages
/// of each begin with its name.
///
/// An invalid `RUST_LOG` is ignored with a warning. Only the first call has an effect.
pub fn init(level: LevelFilter) {
    let spec = std::env::var_os("RUST_LOG").unwrap_or_default();
    let spec = spec.to_string_lossy();
    let mut builder = env_logger::Builder::new();
    builder.filter_level(level);
    match directives(&spec) {
        Ok(directives) => {
            for (module, level) in directives {
                builder.filter(module, level);
            }
        }
        Err(message) => say(Level::Warn, &message),
    }
    // env_logger passes each record on in one write, and ignores an error of that write (stderr is closed).
    builder.target(env_logger::Target::Pipe(Box::new(Descriptor)));
    builder.format(|out, record| {
        let current = hypervisor::current();
        let message = match current.as_ref().and_then(|it| it.name.as_ref()) {
            Some(name) => format!("{name}: {}", record.args()),
            None => record.args().to_string(),
        };
        out.write_all(line(record.level(), &message).as_bytes())
    });
    // An error means that the log was started before.
    let _ = builder.try_init();
}

/// Writes one line to stderr, whatever the level of the log is and whether or not the log was started. A
/// closed stderr is ignored.
pub fn say(level: Level, message: &str) {
    let _ = libraries::write(line(level, message).as_bytes());
}

/// The log's descriptor, as a writer.
struct Descriptor;

impl Write for Descriptor {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        libraries::write(bytes).map(|()| bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// The message as one line, newline included, with the prefix of its level: without passwords of URIs, without
/// control characters, 8 KiB at the most. A longer line is cut 2 KiB before its end, and has ` ... ` there.
///
/// Some characters that the name of a VM may contain become spaces: U+2028 and U+2029 end a line, and U+202A
/// to U+202E and U+2066 to U+2069 change the order in which the rest of the line is shown (Unicode
/// Standard Annex 9).
pub fn line(level: Level, message: &str) -> String {
    let prefix = match level {
        Level::Error => "E! ",
        Level::Warn => "W! ",
        Level::Info => "I! ",
        Level::Debug => "D! ",
        Level::Trace => "T! ",
    };
    let hidden = HIDDEN.get().unwrap_or(const { &Masked::NOTHING });
    let message = hidden.mask_in(message);
    let mut line = String::with_capacity(prefix.len() + message.len() + 1);
    line.push_str(prefix);
    line.extend(message.chars().map(printed));
    // One byte is left for the newline.
    if line.len() >= LONGEST {
        let mut begin = LONGEST - 1 - CUT.len() - END;
        while !line.is_char_boundary(begin) {
            begin -= 1;
        }
        let mut end = line.len() - END;
        while !line.is_char_boundary(end) {
            end += 1;
        }
        line.replace_range(begin..end, CUT);
    }
    line.push('\n');
    line
}

/// The text without what ends a line or changes its direction: those characters become spaces.
pub fn printable(text: &str) -> String {
    text.chars().map(printed).collect()
}

fn printed(c: char) -> char {
    match c {
        '\u{2028}'..='\u{202e}' | '\u{2066}'..='\u{2069}' => ' ',
        c if c.is_control() => ' ',
        c => c,
    }
}

/// Reads `RUST_LOG`: `LEVEL` or `MODULE=LEVEL`, or several of these, separated by commas.
///
/// env_logger does not do this here because it takes a misspelt level for the name of a module, and reports
/// errors in lines without a level, which Telegraf logs as errors.
fn directives(spec: &str) -> Result<Vec<(Option<&str>, LevelFilter)>, String> {
    let mut directives = Vec::new();
    for part in spec
        .split(',')
        .map(str::trim)
        .filter(|part| !part.is_empty())
    {
        let (module, level) = match part.split_once('=') {
            Some((module, level)) => (Some(module.trim()), level.trim()),
            None => (None, part),
        };
        let level = level.parse().map_err(|_| {
            let level = shortened(level);
            format!(
                "RUST_LOG: {level:?} is no level, so RUST_LOG is ignored; write error, warn, info, \
                 debug, trace or off, or MODULE=LEVEL, with commas between several"
            )
        })?;
        directives.push((module, level));
    }
    Ok(directives)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_level_has_its_prefix() {
        let levels = [
            (Level::Error, "E! m\n"),
            (Level::Warn, "W! m\n"),
            (Level::Info, "I! m\n"),
            (Level::Debug, "D! m\n"),
            (Level::Trace, "T! m\n"),
        ];
        for (level, expected) in levels {
            assert_eq!(line(level, "m"), expected);
        }
    }

    #[test]
    fn control_characters_become_spaces() {
        let all: String = (0..=0x9f_u32).filter_map(char::from_u32).collect();
        let printable: String = (0x20..0x7f_u8).map(char::from).collect();
        let expected = format!("E! {}{printable}{}\n", " ".repeat(32), " ".repeat(33));
        assert_eq!(line(Level::Error, &all), expected);
        assert_eq!(
            line(Level::Info, "a\u{2028}b\u{2029}c\r\nü😀"),
            "I! a b c  ü😀\n"
        );
    }

    #[test]
    fn nothing_turns_the_direction_of_a_line() {
        for c in ('\u{202a}'..='\u{202e}').chain('\u{2066}'..='\u{2069}') {
            let message = format!("VM a{c}b: c");
            assert_eq!(line(Level::Warn, &message), "W! VM a b: c\n", "{c:?}");
        }
        // Words that are written from right to left remain.
        assert_eq!(line(Level::Warn, "שלום عليكم"), "W! שלום عليكم\n");
    }

    #[test]
    fn no_line_is_over_8_kib() {
        for c in ["a", "ü", "€", "😀", "\n"] {
            for bytes in 8180..8200_usize {
                let message = format!("{}{c}; do this", c.repeat(bytes / c.len()));
                let line = line(Level::Warn, &message);
                let whole = 3 + message.len() < LONGEST;
                assert!(line.len() <= LONGEST, "{}", line.len());
                assert!(line.ends_with("; do this\n") && line.matches('\n').count() == 1);
                assert_eq!(line.contains(" ... "), !whole, "{c:?} {bytes}");
                // Cut no shorter than two characters need.
                assert!(whole || line.len() > LONGEST - 2 * 4);
            }
        }
        let longest = "x".repeat(LONGEST - 4);
        assert_eq!(line(Level::Error, &longest), format!("E! {longest}\n"));
    }

    #[test]
    fn a_cut_line_has_its_begin_and_its_end() {
        let message = format!(
            "{}{}{}",
            "b".repeat(6135),
            "x".repeat(1 << 20),
            "e".repeat(END)
        );
        let expected = format!("E! {} ... {}\n", "b".repeat(6135), "e".repeat(END));
        assert_eq!(expected.len(), LONGEST);
        assert_eq!(line(Level::Error, &message), expected);
    }

    #[test]
    fn rust_log_is_levels_and_modules() {
        assert_eq!(directives(""), Ok(vec![]));
        assert_eq!(directives(" , "), Ok(vec![]));
        assert_eq!(directives("Debug"), Ok(vec![(None, LevelFilter::Debug)]));
        assert_eq!(
            directives("warn, telegraf_kvm::gather=trace"),
            Ok(vec![
                (None, LevelFilter::Warn),
                (Some("telegraf_kvm::gather"), LevelFilter::Trace)
            ])
        );
        for bad in ["inof", "telegraf_kvm=loud", "info,", "=", "info/x"] {
            let good = bad == "info,";
            assert_eq!(directives(bad).is_ok(), good, "{bad}");
        }
    }
}
