//! telegraf-kvm: arguments -> configuration -> run. See the library's page for the way of the data.

use std::io::{self, Write};
use std::process::ExitCode;

use telegraf_kvm::cli::{self, Command, Flags};
use telegraf_kvm::config::{self, Loaded};
use telegraf_kvm::logging;

/// The configuration or the arguments are wrong.
const EXIT_USAGE: u8 = 2;

fn main() -> ExitCode {
    let command = match cli::parse(std::env::args_os().skip(1)) {
        Ok(command) => command,
        Err(error) => return fail(&error),
    };
    match command {
        Command::Help => print(cli::HELP),
        Command::Version => print(concat!("telegraf-kvm ", env!("CARGO_PKG_VERSION"), "\n")),
        Command::SampleConfig => print(config::SAMPLE),
        Command::Check(flags) => load(&flags).map_or_else(|code| code, |loaded| check(&loaded)),
        Command::Run(flags) => load(&flags).map_or_else(|code| code, |loaded| run(&loaded, &flags)),
    }
}

/// Loads the configuration and starts the log at its level.
fn load(flags: &Flags) -> Result<Loaded, ExitCode> {
    let environment = std::env::var_os("LIBVIRT_DEFAULT_URI");
    let environment = match environment.map(|value| value.into_string()).transpose() {
        Ok(value) => value,
        Err(raw) => {
            return Err(fail(&format_args!(
                "LIBVIRT_DEFAULT_URI: {raw:?} is not valid UTF-8"
            )));
        }
    };
    let loaded = config::load(flags, environment).map_err(|error| fail(&error))?;
    logging::init(loaded.settings.log_level);
    log::debug!(
        "configuration: {}; URI: {}",
        loaded.source,
        loaded.settings.uri
    );
    Ok(loaded)
}

/// `--check`: says what holds.
fn check(loaded: &Loaded) -> ExitCode {
    // LEAD: open the connection here, count the VMs, exit 1 where it does not open.
    print(&format!(
        "configuration: {}\nURI: {}\n",
        loaded.source, loaded.settings.uri
    ))
}

/// LEAD: the agent is plugged in here.
fn run(_loaded: &Loaded, _flags: &Flags) -> ExitCode {
    ExitCode::SUCCESS
}

/// Says what is wrong before the log is there.
fn fail(error: &dyn std::fmt::Display) -> ExitCode {
    logging::say(log::Level::Error, &error.to_string());
    ExitCode::from(EXIT_USAGE)
}

/// Prints to standard output; a reader that has gone away (`| head`) is a quiet success.
fn print(text: &str) -> ExitCode {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            logging::say(log::Level::Error, &format!("standard output: {error}"));
            ExitCode::FAILURE
        }
        _ => ExitCode::SUCCESS,
    }
}
