//! telegraf-kvm: from the arguments to the configuration to the run. The same program, started by itself,
//! checks mounts in processes of their own. The library's documentation shows how the data flow.

use std::ffi::OsString;
use std::fmt::Display;
use std::io::{self, IsTerminal};
use std::path::Path;
use std::time::Instant;

use log::Level;
use telegraf_kvm::cli::{self, Command, Flags};
use telegraf_kvm::config::{self, Loaded, NameFilter, Settings};
use telegraf_kvm::doctor::{self, Facts};
use telegraf_kvm::host::mounts::checker_process;
use telegraf_kvm::output::{FAILURE_DRAIN, Output};
use telegraf_kvm::service::End;
use telegraf_kvm::trigger::{Handlers, SLOW_READ, SignalThread};
use telegraf_kvm::uri::Masked;
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
            |(loaded, signals)| run(&loaded, &flags, signals, &output),
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
    logging::hide(masked(&loaded));
    logging::init(loaded.settings.log_level);
    logging::capture();
    let source = &loaded.source;
    for settings in loaded.all() {
        let (name, uri) = (prefix(&loaded, settings), &settings.uri);
        log::debug!("{name}configuration: {source}; URI: {uri}");
    }
    Ok((loaded, signals))
}

/// All passwords of the URIs.
fn masked(loaded: &Loaded) -> Masked {
    Masked::joined(loaded.all().map(|settings| settings.uri.masked()))
}

/// What a message about one hypervisor begins with, where there are several.
fn prefix(loaded: &Loaded, settings: &Settings) -> String {
    let name = settings.host.as_ref();
    let name = name.filter(|_| !loaded.others.is_empty());
    name.map_or_else(String::new, |name| format!("{name}: "))
}

/// `--check`: prints which configuration and URIs are used, and what some gathers find out.
fn check(loaded: &Loaded, as_json: bool, output: &Output) -> i32 {
    let masked = masked(loaded);
    let hide = |text: &str| masked.mask_in(text).into_owned();
    let configuration = format!("configuration: {}\n", loaded.source);
    let uri = |settings: &Settings| match &settings.host {
        Some(name) => format!("\nhost: {name}\nURI: {}\n", settings.uri),
        None => format!("URI: {}\n", settings.uri),
    };
    // What is known at once is printed at once, but not among what is found of several.
    let begin = match loaded.others.is_empty() {
        true => configuration + &uri(&loaded.settings),
        false => configuration,
    };
    let mut code = if as_json {
        EXIT_OK
    } else {
        print(output, &begin)
    };
    if code != EXIT_OK {
        return code;
    }
    let checked = service::check(loaded);
    if as_json {
        let facts = loaded.all().zip(&checked).map(|(settings, checked)| {
            let failure = |error: &String| Facts::of_failure(settings, &loaded.source, error);
            checked.as_ref().map_or_else(failure, Facts::clone)
        });
        let facts: Vec<Facts> = facts.collect();
        code = print(output, &doctor::json(&facts, hide).unwrap_or_default());
    }
    for (settings, checked) in loaded.all().zip(checked) {
        let mut text = match loaded.others.is_empty() {
            true => String::new(),
            false => uri(settings),
        };
        if let Ok(facts) = &checked {
            text += &doctor::text(facts, hide);
        }
        if !as_json {
            code = code.max(print(output, &text));
        }
        if let Err(error) = checked {
            let name = prefix(loaded, settings);
            code = fail(&format_args!("{name}{error}"), EXIT_NOTHING);
        }
    }
    code
}

fn run(loaded: &Loaded, flags: &Flags, signals: SignalThread, output: &Output) -> i32 {
    let mode = service::mode(flags.once, flags.interval);
    if !flags.once && flags.interval.is_none() && io::stdin().is_terminal() {
        logging::say(Level::Info, service::HINT);
    }
    let ends = match service::run(loaded, mode, signals, output) {
        Ok(ends) if flags.once => ends,
        Ok(_) => return EXIT_OK,
        Err(error) => return fail(&error, EXIT_NOTHING),
    };
    // The lines of one hypervisor are success; what the others lack is said.
    let (code, level) = match ends.contains(&End::Done) {
        true => (EXIT_OK, Level::Warn),
        false => (EXIT_NOTHING, Level::Error),
    };
    let hosts = loaded.all().zip(ends);
    let lacking = hosts.filter_map(|(settings, end)| {
        let name = prefix(loaded, settings);
        Some(format!("{name}{}", without_lines(settings, end)?))
    });
    let lacking: Vec<String> = lacking.collect();
    match lacking.is_empty() {
        true => code,
        false => end_with(&lacking, level, code),
    }
}

/// Why `--once` wrote no line of a VM; `None` if it did.
fn without_lines(settings: &Settings, end: End) -> Option<String> {
    match end {
        End::Done => None,
        End::NothingToWrite => Some(nothing_to_write(settings)),
        End::AllLeftOut => Some(
            "nothing to write: max_lines left all lines of VMs out, as a message above says"
                .to_owned(),
        ),
        End::NothingGathered => Some(format!(
            "nothing gathered at {}: no active VM passes the name filter, libvirt does not answer, or no thread can be \
             started; a message above says which",
            settings.uri
        )),
    }
}

/// Why `--once` wrote no line of a VM although VMs answered: the reason of each configured measurement.
fn nothing_to_write(settings: &Settings) -> String {
    let wanted = settings.measurements;
    let devices_filtered = settings.devices != NameFilter::default();
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
            wanted.stats,
            "no key of any VM matches a pattern of statistics (virsh domstats VM --raw shows the keys)",
        ),
        (wanted.jobs, "no VM has a job"),
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
    end_with(&[error.to_string()], Level::Error, code)
}

/// Prints these last messages, whether or not the log was started, and returns the exit code.
fn end_with(messages: &[String], level: Level, code: i32) -> i32 {
    logging::pass_on_rest();
    for message in messages {
        logging::say(level, message);
    }
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
