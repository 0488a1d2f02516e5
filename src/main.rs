//! telegraf-kvm: from the arguments to the configuration to the run. The same program, started by itself,
//! checks mounts in processes of their own. The library's documentation shows how the data flow.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

use log::Level;
use telegraf_kvm::cli::{self, Command, Flags};
use telegraf_kvm::config::{self, Loaded, Measurements, NameFilter};
use telegraf_kvm::doctor::{self, Facts};
use telegraf_kvm::host::mounts::checker_process;
use telegraf_kvm::output::{FAILURE_DRAIN, Output};
use telegraf_kvm::service::End;
use telegraf_kvm::trigger::{Handlers, SLOW_READ, SignalThread};
use telegraf_kvm::{libvirt, logging, output, service, trigger, uri};

/// Success.
const EXIT_OK: i32 = 0;
/// `--check` cannot connect, `--once` gathered nothing, or the system refuses something that is needed.
const EXIT_NOTHING: i32 = 1;
/// The configuration or the arguments are wrong.
const EXIT_USAGE: i32 = 2;

fn main() {
    let args: Vec<OsString> = std::env::args_os().skip(1).collect();
    if let [flag, point] = args.as_slice()
        && flag == checker_process::FLAG
    {
        libvirt::close_inherited();
        checker_process::run(Path::new(point));
    }
    let output = Output::take();
    libvirt::share_memory();
    // Early, for Telegraf may send a signal right after exec.
    let signals = trigger::install_handlers();
    let command = cli::parse(args);
    if let (Ok(signals), false) = (&signals, matches!(command, Ok(Command::Run(_)))) {
        signals.stop_is_failure();
    }
    let only_prints = matches!(
        command,
        Ok(Command::Help | Command::Version | Command::SampleConfig | Command::Check(_))
    );
    let code = match command {
        Err(error) => fail(&error, EXIT_USAGE),
        Ok(Command::Help) => print(&output, cli::HELP),
        Ok(Command::Version) => print(
            &output,
            concat!("telegraf-kvm ", env!("CARGO_PKG_VERSION"), "\n"),
        ),
        Ok(Command::SampleConfig) => print(&output, config::SAMPLE),
        Ok(Command::Check(flags)) => load(signals, &flags).map_or_else(
            |code| code,
            |(loaded, _)| check(&loaded, flags.json, &output),
        ),
        Ok(Command::Run(flags)) => load(signals, &flags).map_or_else(
            |code| code,
            |(loaded, signals)| run(loaded, &flags, signals, &output),
        ),
    };
    logging::pass_on_rest();
    // A command that only prints was not started by Telegraf, and need not wait for its readers.
    if code != EXIT_OK || !only_prints {
        output.close();
    }
    // By _exit: threads may still be in libvirt, and its exit handlers would wait for them.
    signal_hook::low_level::exit(code)
}

/// Starts the thread for signals, loads the configuration, and starts the log at the level that it sets.
fn load(signals: io::Result<Handlers>, flags: &Flags) -> Result<(Loaded, SignalThread), i32> {
    let signals = signals.map_err(|error| {
        let message = format!("cannot install the signal handlers: {error}");
        fail(&message, EXIT_NOTHING)
    })?;
    let env_uri = std::env::var_os("LIBVIRT_DEFAULT_URI")
        .map(OsString::into_string)
        .transpose()
        .map_err(|raw| {
            let shown = uri::quoted(&raw);
            let message = format!("LIBVIRT_DEFAULT_URI: {shown} is not valid UTF-8");
            fail(&message, EXIT_USAGE)
        })?;
    let path = flags.config.as_deref();
    let path = path.unwrap_or(Path::new(config::SYSTEM_FILE)).display();
    let slow = format!(
        "{path}: not read after {SLOW_READ:?}; its storage, or the program that writes it, does not answer"
    );
    let (signals, loaded) = signals.start_thread(
        move || logging::say(Level::Warn, &slow),
        || {
            config::load(
                flags.config.as_deref(),
                flags.uri.as_deref(),
                env_uri.as_deref(),
            )
        },
    );
    let loaded = loaded.map_err(|error| fail(&error, EXIT_USAGE))?;
    logging::hide(loaded.settings.uri.masked());
    logging::init(loaded.settings.log_level);
    logging::capture();
    let (source, uri) = (&loaded.source, &loaded.settings.uri);
    log::debug!("configuration: {source}; URI: {uri}");
    Ok((loaded, signals))
}

/// `--check`: prints which configuration and URI are used, and what some gathers find out.
fn check(loaded: &Loaded, as_json: bool, output: &Output) -> i32 {
    let masked = loaded.settings.uri.masked();
    let hide = |text: &str| masked.mask_in(text).into_owned();
    if !as_json {
        let uri = &loaded.settings.uri;
        let used = format!("configuration: {}\nURI: {uri}\n", loaded.source);
        let code = print(output, &used);
        if code != EXIT_OK {
            return code;
        }
    }
    let checked = service::check(loaded);
    let failure = |error: &String| Facts::of_failure(loaded, error);
    let text = match &checked {
        _ if as_json => {
            let facts = checked.as_ref().map_or_else(failure, Facts::clone);
            doctor::json(&facts, hide).unwrap_or_default()
        }
        Ok(facts) => doctor::text(facts, hide),
        Err(_) => String::new(),
    };
    let code = print(output, &text);
    match checked {
        Err(error) => fail(&error, EXIT_NOTHING),
        Ok(_) => code,
    }
}

fn run(loaded: Loaded, flags: &Flags, signals: SignalThread, output: &Output) -> i32 {
    let mode = service::mode(flags.once, flags.interval);
    if !flags.once && flags.interval.is_none() && io::stdin().is_terminal() {
        logging::say(Level::Info, service::HINT);
    }
    let uri = loaded.settings.uri.clone();
    let measurements = loaded.settings.measurements;
    let devices_filtered = loaded.settings.devices != NameFilter::default();
    match service::run(loaded.settings, mode, signals, output) {
        Ok(End::NothingToWrite) if flags.once => fail(
            &nothing_to_write(measurements, devices_filtered),
            EXIT_NOTHING,
        ),
        Ok(End::AllLeftOut) if flags.once => fail(
            &"nothing to write: max_lines left all lines of VMs out, as a message above says",
            EXIT_NOTHING,
        ),
        Ok(End::NothingGathered) if flags.once => fail(
            &format_args!(
                "nothing gathered at {uri}: no active VM passes the name filter, libvirt does not answer, or no thread can be \
                 started; a message above says which"
            ),
            EXIT_NOTHING,
        ),
        Ok(_) => EXIT_OK,
        Err(error) => fail(&error, EXIT_NOTHING),
    }
}

/// Why `--once` wrote no line of a VM although VMs answered: the reason of each configured measurement.
fn nothing_to_write(wanted: Measurements, devices_filtered: bool) -> String {
    let devices = if devices_filtered {
        "no network interface or disk that has counters passes device_include and device_exclude"
    } else {
        "no VM has a network interface or disk with counters (CD-ROM and floppy drives count only \
         with cdrom = true and floppy = true)"
    };
    let reasons = [
        (wanted.devices, devices),
        (
            wanted.features,
            "vm_features needs two gathers, and --once makes one",
        ),
        (wanted.metrics || wanted.totals, "no VM reported any figure"),
        (wanted.info, "the XML of no VM could be read"),
        (
            wanted.vcpus,
            "the vCPU threads of no VM are in sight (see vcpu_delay)",
        ),
        (
            wanted.pressure,
            "the pressure files of no VM are in sight (they need cgroup v2 and psi=1)",
        ),
    ];
    let reasons: Vec<&str> = reasons
        .into_iter()
        .filter(|(is_wanted, _)| *is_wanted)
        .map(|(_, reason)| reason)
        .collect();
    format!("nothing to write: {}", reasons.join("; "))
}

/// Prints why the program ends, whether or not the log was started, and returns the exit code.
fn fail(error: &dyn Display, code: i32) -> i32 {
    logging::pass_on_rest();
    logging::say(Level::Error, &error.to_string());
    output::drain_stderr(Instant::now() + FAILURE_DRAIN);
    code
}

/// Prints to standard output. It is no failure that the reader has ended (`| head`).
fn print(output: &Output, text: &str) -> i32 {
    match output.write(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => {
            fail(&format_args!("standard output: {error}"), EXIT_NOTHING)
        }
        _ => EXIT_OK,
    }
}
