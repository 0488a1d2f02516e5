//! Arguments, configuration, messages and exit codes of the built program.

use std::fs::{self, File, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use crate::support::{copy_program, told};

mod messages;

/// The program without the environment variables that it uses, and with an empty stdin.
fn program(path: impl AsRef<Path>) -> Command {
    let mut command = Command::new(path.as_ref());
    command
        .env_remove("RUST_LOG")
        .env_remove("LIBVIRT_DEFAULT_URI")
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    program(env!("CARGO_BIN_EXE_telegraf-kvm"))
        .args(args)
        .output()
        .unwrap()
}

/// A configuration in a folder that every user can read.
fn config(text: &str) -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().unwrap();
    fs::set_permissions(folder.path(), Permissions::from_mode(0o755)).unwrap();
    let path = folder.path().join("config.toml");
    fs::write(&path, text).unwrap();
    (folder, path)
}

#[test]
fn help_tells_what_an_operator_needs() {
    let (code, out, err) = told(&run(&["--help"]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    for word in [
        "--config",
        "--uri",
        "--once",
        "--interval",
        "--sample-config",
        "--check",
        "--json",
        "--version",
        "newline",
        "SIGHUP",
        "SIGUSR1",
        "SIGUSR2",
        "/etc/telegraf-kvm/config.toml",
        "LIBVIRT_DEFAULT_URI",
        "qemu:///system",
        "RUST_LOG",
        "Exit codes:\n  0 ",
        "\n  1 ",
        "\n  2 ",
    ] {
        assert!(out.contains(word), "{word:?} in {out}");
    }
    assert!(out.lines().all(|line| line.chars().count() <= 100));
    assert_eq!(told(&run(&["-h"])).1, out);
}

#[test]
fn version_is_that_of_the_package() {
    let version = concat!("telegraf-kvm ", env!("CARGO_PKG_VERSION"), "\n").to_owned();
    assert_eq!(
        told(&run(&["--version"])),
        (Some(0), version.clone(), String::new())
    );
    assert_eq!(told(&run(&["-V"])), (Some(0), version, String::new()));
}

#[test]
fn the_sample_is_the_packaged_file_and_is_valid() {
    let (code, out, err) = told(&run(&["--sample-config"]));
    let packaged = concat!(env!("CARGO_MANIFEST_DIR"), "/telegraf/telegraf-kvm.toml");
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert_eq!(out, fs::read_to_string(packaged).unwrap());
    let args = ["--check", "--uri", "test:///default", "--config", packaged];
    assert_eq!(told(&run(&args)).0, Some(0));
}

#[test]
fn wrong_arguments_are_one_line_and_exit_code_2() {
    for (args, expected) in [
        (
            &["--chek"][..],
            "E! unknown flag \"--chek\"; did you mean \"--check\"?\n",
        ),
        (
            &["--once", "--interval", "5s"],
            "E! --once and --interval exclude each other: leave one of them out\n",
        ),
        (
            &["--interval", "0"],
            "E! --interval: \"0\" is out of range; from 100ms to 1day is allowed\n",
        ),
        (
            &["--interval", "10"],
            "E! --interval: \"10\" has no unit; write \"10s\" for seconds\n",
        ),
        (&["--config"], "E! --config FILE: the value is missing\n"),
        (
            &["a\nb"],
            "E! unexpected argument \"a\\nb\"; \"telegraf-kvm --help\" lists the flags\n",
        ),
        (
            &["--uri", "", "--check"],
            "E! --uri: the URI is empty; write for example \"qemu:///system\"\n",
        ),
        (
            &["-x"],
            "E! unknown flag \"-x\"; \"telegraf-kvm --help\" lists the flags\n",
        ),
        (
            &["-o"],
            "E! unknown flag \"-o\"; \"telegraf-kvm --help\" lists the flags\n",
        ),
        (
            &["--", "--check"],
            "E! unexpected argument \"--check\": after \"--\" there are no flags; leave \"--\" out\n",
        ),
        (
            &["--help=1"],
            "E! --help takes no value, but was given \"1\"\n",
        ),
        (
            &["--version=1"],
            "E! --version takes no value, but was given \"1\"\n",
        ),
        (
            &["--sample-config="],
            "E! --sample-config takes no value, but was given \"\"\n",
        ),
        (&["-h=1"], "E! -h takes no value, but was given \"1\"\n"),
    ] {
        assert_eq!(
            told(&run(args)),
            (Some(2), String::new(), expected.to_owned()),
            "{args:?}"
        );
    }
}

#[test]
fn check_says_which_configuration_and_which_uri_hold() {
    let (_folder, path) = config("uri = \"test:///default\"");
    let path = path.to_str().unwrap();
    let (code, out, err) = told(&run(&["--check", "--config", path]));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(
        out.contains(&format!("configuration: {path} (from --config)\n")),
        "{out}"
    );
    assert!(
        out.contains(&format!("test:///default (from {path})")),
        "{out}"
    );
}

#[test]
fn a_file_that_does_not_exist_or_is_a_folder_is_an_error() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    let absent = format!("{name}/no.toml");
    let expected = format!(
        "E! {absent}: the configuration does not exist; \
         \"telegraf-kvm --sample-config\" prints one to start from\n"
    );
    assert_eq!(
        told(&run(&["--config", &absent])),
        (Some(2), String::new(), expected)
    );
    let expected = format!("E! {name}: is a directory; name the file in it\n");
    assert_eq!(
        told(&run(&["--config", name])),
        (Some(2), String::new(), expected)
    );
}

#[test]
fn an_unreadable_file_names_the_user_and_the_remedy() {
    let (folder, path) = config("workers = 2");
    let name = path.to_str().unwrap();
    // Root may read everything, so these tests run the program as the user nobody, which has no access to the
    // folder in which cargo put it.
    let root = rustix::process::geteuid().is_root();
    let copy = folder.path().join("telegraf-kvm");
    copy_program(env!("CARGO_BIN_EXE_telegraf-kvm"), &copy);
    let as_nobody = || {
        if !root {
            return program(&copy);
        }
        let mut command = program("setpriv");
        command
            .args(["--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(&copy);
        command
    };
    let uid = if root {
        65534
    } else {
        rustix::process::geteuid().as_raw()
    };

    fs::set_permissions(&path, Permissions::from_mode(0o000)).unwrap();
    let (code, out, err) = told(
        &as_nobody()
            .args(["--check", "--config", name])
            .output()
            .unwrap(),
    );
    assert_eq!((code, out.as_str()), (Some(2), ""));
    assert!(err.starts_with(&format!("E! {name}: user ")), "{err}");
    let remedy = format!("uid {uid}) may not read the configuration; run: chmod 0644 {name}\n");
    assert!(err.ends_with(&remedy), "{err}");
    assert_eq!(err.lines().count(), 1);

    // The remedy in the message works.
    fs::set_permissions(&path, Permissions::from_mode(0o644)).unwrap();
    let args = ["--check", "--uri", "test:///default", "--config", name];
    assert_eq!(
        as_nobody().args(args).output().unwrap().status.code(),
        Some(0)
    );

    // A parent folder that the user may not enter.
    let closed = folder.path().join("closed");
    fs::create_dir_all(closed.join("deep")).unwrap();
    let inside = closed.join("deep/config.toml");
    fs::copy(&path, &inside).unwrap();
    fs::set_permissions(&closed, Permissions::from_mode(0o000)).unwrap();
    let (code, _, err) = told(&as_nobody().arg("--config").arg(&inside).output().unwrap());
    fs::set_permissions(&closed, Permissions::from_mode(0o755)).unwrap();
    assert_eq!(code, Some(2));
    assert!(
        err.ends_with(&format!("; run: chmod 0755 {}\n", closed.display())),
        "{err}"
    );
}

#[test]
fn every_invalid_configuration_gives_its_message() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/config/invalid");
    let mut seen = 0;
    for entry in fs::read_dir(&folder).unwrap() {
        let path = entry.unwrap().path();
        if path
            .extension()
            .is_some_and(|extension| extension == "error")
        {
            assert!(
                path.with_extension("toml").exists(),
                "{path:?} belongs to no configuration"
            );
            continue;
        }
        let name = path.to_str().unwrap();
        let expected = fs::read_to_string(path.with_extension("error"))
            .unwrap_or_else(|error| panic!("{name} has no .error beside it: {error}"))
            .replace("FILE", name);
        let (code, out, err) = told(&run(&["--check", "--config", name]));
        assert_eq!((err, code, out.as_str()), (expected, Some(2), ""));
        seen += 1;
    }
    assert!(
        seen >= 20,
        "only {seen} invalid configurations in {folder:?}"
    );
}

#[test]
fn rust_log_wins_over_the_log_level_of_the_configuration() {
    let (_folder, path) = config("uri = \"test:///default\"\nlog_level = \"debug\"");
    let debug = |rust_log: &str| {
        let mut command = program(env!("CARGO_BIN_EXE_telegraf-kvm"));
        command
            .arg("--check")
            .arg("--config")
            .arg(&path)
            .env("RUST_LOG", rust_log);
        let (_, _, err) = told(&command.output().unwrap());
        let levels = ["E! ", "W! ", "I! ", "D! ", "T! "];
        assert!(
            err.lines()
                .all(|line| levels.iter().any(|level| line.starts_with(level))),
            "{err}"
        );
        err.contains("D! configuration: ")
    };
    assert!(debug(""));
    assert!(debug("trace"));
    assert!(!debug("info"));
    assert!(!debug("trace,telegraf_kvm=warn"));
}

#[test]
fn a_bad_rust_log_is_one_warning() {
    let mut command = program(env!("CARGO_BIN_EXE_telegraf-kvm"));
    command
        .args(["--check", "--uri", "test:///default"])
        .env("RUST_LOG", "inof");
    let (code, _, err) = told(&command.output().unwrap());
    assert_eq!(code, Some(0));
    assert!(
        err.starts_with("W! RUST_LOG: \"inof\" is no level"),
        "{err}"
    );
    assert_eq!(err.lines().count(), 1, "{err}");
}

#[test]
fn an_environment_that_is_no_text_is_an_error() {
    use std::os::unix::ffi::OsStrExt;
    let mut command = program(env!("CARGO_BIN_EXE_telegraf-kvm"));
    let raw = std::ffi::OsStr::from_bytes(b"test:///\xff");
    command.arg("--check").env("LIBVIRT_DEFAULT_URI", raw);
    let (code, _, err) = told(&command.output().unwrap());
    assert_eq!(code, Some(2));
    assert_eq!(
        err,
        "E! LIBVIRT_DEFAULT_URI: \"test:///\\xFF\" is not valid UTF-8\n"
    );
}

#[test]
fn closed_and_full_outputs_cause_no_panic() {
    let exit = |args: &[&str], out: Stdio, err: Stdio| {
        let mut command = program(env!("CARGO_BIN_EXE_telegraf-kvm"));
        command
            .args(args)
            .stdout(out)
            .stderr(err)
            .spawn()
            .unwrap()
            .wait()
            .unwrap()
            .code()
    };
    let full = || Stdio::from(File::options().write(true).open("/dev/full").unwrap());
    let closed = || Stdio::from(std::io::pipe().unwrap().1);
    assert_eq!(exit(&["--help"], closed(), Stdio::null()), Some(0));
    assert_eq!(exit(&["--chek"], Stdio::null(), full()), Some(2));
    assert_eq!(exit(&["--chek"], Stdio::null(), closed()), Some(2));
    let once = ["--uri", "test:///default", "--once"];
    assert_eq!(exit(&once, closed(), Stdio::null()), Some(0));
    assert_eq!(exit(&once, full(), Stdio::null()), Some(1));
    assert_eq!(exit(&["--help"], full(), Stdio::null()), Some(1));
}
