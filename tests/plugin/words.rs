//! What the program logs, and what it must not log: passwords, output of libraries, wrong reasons.

use crate::support;
use crate::support::lines::{all_lines, lines, one};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use crate::support::{config, copy_program, program, reading, run, told, wait_for};
use rustix::process::Signal;
use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// All lines are the plugin's own: a library's line has no level.
fn is_our_log(said: &str) -> bool {
    let levels = ["E! ", "W! ", "I! ", "D! ", "T! "];
    let mut lines = said.lines();
    lines.all(|line| levels.iter().any(|level| line.starts_with(level)))
}

/// A node with a domain in another file, which does not exist: libxml2 prints that by itself.
fn broken_node() -> tempfile::NamedTempFile {
    let file = tempfile::NamedTempFile::with_suffix(".xml").unwrap();
    let xml = "<node><domain file='/none/of these.xml'/></node>";
    std::fs::write(file.path(), xml).unwrap();
    file
}

#[test]
fn no_password_is_shown() {
    // A script in the place of ssh prints ssh's message (`USER@HOST: Permission denied`) with libvirt's user.
    let folder = tempfile::tempdir().unwrap();
    let ssh = folder.path().join("ssh");
    let script = "#!/bin/sh\nwhile [ $# -gt 1 ]; do [ \"$1\" = -l ] && user=$2; shift; done\n\
                  head -c 4 >/dev/null; echo \"$user@kvm01: Permission denied (password).\" >&2; exit 255\n";
    std::fs::write(&ssh, script).unwrap();
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o755);
    std::fs::set_permissions(&ssh, mode).unwrap();
    let with_command = format!(
        "qemu+ssh://user:se%2Bcret@kvm01/system?command={}",
        ssh.display()
    );
    let uris = [
        with_command.as_str(),
        "qemu+ssh://user:se/cret@kvm01/system",
        "qemu+tcp://user:secret@127.0.0.1:1/system",
        "esx://user:secret@127.0.0.1/?no_verify=1",
        "test:///none.xml?password=secret",
        "qemu+unix:///system?socket=/none&name=esx%3A%2F%2Fuser%3Asecret%40kvm01",
    ];
    let config = config("measurements = ['vm_collector']\ndeadline = '10s'");
    let config = config.path().to_str().unwrap();
    for uri in uris {
        for arguments in [&["--check"][..], &["--once", "--config", config]] {
            let mut command = Plugin::outside(&[&["--uri", uri][..], arguments].concat());
            command.env("RUST_LOG", "trace").env("LIBVIRT_DEBUG", "1");
            let (code, out, err) = told(&run(command.stdin(Stdio::null())));
            assert_eq!(code, Some(1), "{uri} {arguments:?}");
            let both = out.clone() + &err;
            for secret in ["secret", "se/cret", "se+cret", "se%2Bcret"] {
                assert!(!both.contains(secret), "{uri} {arguments:?}: {both}");
            }
            assert!(both.contains("***"), "{uri} {arguments:?}: {both}");
            assert!(is_our_log(&err), "{err}");
            if arguments[0] == "--once" {
                let collector = &all_lines(&out)[0];
                assert!(collector.tag("uri").contains("***"), "{out}");
            }
        }
    }
    let said = |uri: &str| told(&run(&mut Plugin::outside(&["--uri", uri, "--check"]))).2;
    assert!(said(&with_command).contains("user:***@kvm01: Permission denied"));
}

/// A URI that was given in the place of something else.
#[test]
fn no_password_is_shown_where_no_uri_was_expected() {
    let long = format!("-uri=qemu+ssh://user:{}@kvm01/system", "secret".repeat(20));
    let assert_masked = |arguments: &[&str]| {
        let (code, out, err) = told(&run(&mut Plugin::outside(arguments)));
        assert_eq!((code, out.as_str()), (Some(2), ""), "{arguments:?}");
        let is_masked = err.contains("user:***") && !err.contains("secret");
        assert!(is_masked, "{arguments:?}: {err}");
    };
    assert_masked(&[&long]);
    assert_masked(&["/user:secret@kvm01"]);
    for lost in [
        "qemu+ssh://user:secret@kvm01/system",
        "qemu+ssh://user:a secret@kvm01/system",
        "qemu+ssh://user:a'secret@kvm01/system",
        "user:secret@kvm01",
    ] {
        assert_masked(&[lost]);
        assert_masked(&["--", &format!("--uri={lost}")]);
        assert_masked(&[&format!("--check={lost}")]);
        assert_masked(&["--config", lost]);
        assert_masked(&["--interval", lost]);
        for wrong in [
            format!("log_level = \"{lost}\""),
            format!("deadline = \"{lost}\""),
            format!("workers = \"{lost}\""),
            format!("measurements = [\"{lost}\"]"),
            format!("domain_include = [\"{lost}[\"]"),
            format!("\"{lost}\" = 1"),
        ] {
            let config = config(&wrong);
            assert_masked(&["--check", "--config", config.path().to_str().unwrap()]);
        }
    }
}

#[test]
fn a_uri_without_a_password_is_the_tag() {
    let config = config("measurements = ['vm_collector']");
    let path = config.path().to_str().unwrap();
    let uri = "qemu+unix:///system?socket=/none/a:b@c";
    let (_, out, _) = told(&run(&mut Plugin::outside(&[
        "--uri", uri, "--once", "--config", path,
    ])));
    assert_eq!(all_lines(&out)[0].tag("uri"), uri);
}

#[test]
fn what_libraries_print_is_logged_once() {
    let node = broken_node();
    let uri = node::uri(&node);
    let mut command = Plugin::outside(&["--uri", &uri]);
    command.env("RUST_LOG", "debug");
    let mut plugin = Plugin::spawn(command);
    for gather in 1..=3 {
        plugin.newline();
        wait_for("the gather", LONG, || {
            (plugin.stderr().matches("D! 0 VMs in ").count() == gather).then_some(())
        });
    }
    plugin.close();
    assert_eq!(plugin.wait(LONG).code(), Some(0));
    let said = plugin.stderr();
    assert!(is_our_log(&said), "{said}");
    let warnings = plugin.warnings();
    assert_eq!(warnings.len(), 2, "{said}");
    assert!(warnings[0].starts_with("W! a library says: "), "{said}");
    assert!(
        said.contains("D! a library says this 1 time more, 3 in all: "),
        "{said}"
    );

    for flag in ["--check", "--once"] {
        let (code, _, err) = told(&run(&mut Plugin::outside(&["--uri", &uri, flag])));
        assert_eq!(code, Some(1));
        assert!(
            is_our_log(&err) && err.contains("W! a library says: "),
            "{err}"
        );
    }
}

#[test]
fn libvirts_environment_is_answered_in_our_words() {
    for (variable, value) in [
        ("LIBVIRT_DEBUG", "bogus"),
        ("LIBVIRT_LOG_FILTERS", "bogus"),
        ("LIBVIRT_LOG_FILTERS", "9:qemu"),
        ("LIBVIRT_LOG_OUTPUTS", "1:bogus"),
        ("LIBVIRT_LOG_OUTPUTS", "1:file:/none/file"),
    ] {
        for flag in ["--check", "--once"] {
            let mut command = Plugin::outside(&["--uri", "test:///default", flag]);
            let (code, _, err) = told(&run(command.env(variable, value).stdin(Stdio::null())));
            assert_eq!(code, Some(1));
            assert!(is_our_log(&err) && err.lines().count() == 1, "{err}");
            let remedy = "check LIBVIRT_DEBUG, LIBVIRT_LOG_FILTERS and LIBVIRT_LOG_OUTPUTS";
            assert!(err.contains(remedy), "{err}");
        }
    }
}

/// libvirt's debug log serves as a flood of lines.
#[test]
fn a_flood_of_a_librarys_lines_stops_nothing() {
    // Each gather produces more than fits into the pipe.
    let domains: Vec<Domain> = (1..=500)
        .map(|number| Domain {
            devices: disk("disk", "vda") + &nic(Some("tap0")),
            ..Domain::new(number, &format!("vm{number}"))
        })
        .collect();
    let file = node::write(&domains);
    let uri = node::uri(&file);
    // libvirt opens the file by itself, and then waits for room in it.
    for outputs in ["1:stderr", "1:file:/dev/stderr", "1:file:/dev/stdout"] {
        let mut command = Plugin::outside(&["--uri", &uri]);
        command.env("LIBVIRT_DEBUG", "1");
        command.env("LIBVIRT_LOG_OUTPUTS", outputs);
        let mut plugin = Plugin::spawn(command);
        for _ in 0..3 {
            assert!(plugin.gather().len() >= 4 * 500, "{outputs}");
        }
        let said = plugin.stderr();
        // The log has what libvirt says of the two functions which the test driver lacks, each once, and that
        // not every line could be kept.
        assert!(is_our_log(&said), "{said}");
        let lacks = |function: &str| said.matches(&format!(" : {function}:")).count();
        let known = lacks("virConnectSetKeepAlive") + lacks("virDomainBlockStatsFlags");
        assert!(said.lines().count() <= known + 1, "{said}");
        assert!(lacks("virConnectSetKeepAlive") <= 1, "{said}");
        assert!(lacks("virDomainBlockStatsFlags") <= 1, "{said}");
    }

    // stderr is not read: only the plugin's own log, which has no lines now, would wait for it, not a
    // library.
    let (unread, stderr) = std::io::pipe().unwrap();
    let mut command = Plugin::outside(&["--uri", &uri, "--once"]);
    command.env("LIBVIRT_DEBUG", "1").stdin(Stdio::null());
    let (mut out, stdout) = std::io::pipe().unwrap();
    let mut child = command.stdout(stdout).stderr(stderr).spawn().unwrap();
    drop(command);
    let reader = std::thread::spawn(move || {
        let mut text = String::new();
        std::io::Read::read_to_string(&mut out, &mut text).map(|_| text)
    });
    let status = wait_for("its end", LONG, || child.try_wait().unwrap());
    assert_eq!(status.code(), Some(0));
    assert_eq!(lines(&reader.join().unwrap().unwrap()).len(), 4 * 500);
    drop(unread);
}

#[test]
fn a_crash_shows_what_libraries_said_before() {
    for signal in [Signal::ABORT, Signal::TRAP, Signal::SEGV, Signal::BUS] {
        let mut command = Plugin::outside(&["--uri", "test:///default"]);
        command.env("LIBVIRT_DEBUG", "1");
        let mut plugin = Plugin::spawn(command);
        // The thread that runs libvirt's event loop exists: libvirt is set up.
        wait_for_event_loop(plugin.pid());
        assert_eq!(plugin.stderr(), "");
        plugin.signal(signal);
        assert_eq!(plugin.wait(LONG).signal(), Some(signal.as_raw()));
        let said = plugin.stderr();
        assert!(said.contains(": debug : virGlobalInit:"), "{said}");
    }
}

fn wait_for_event_loop(pid: u32) {
    let tasks = format!("/proc/{pid}/task");
    wait_for("libvirt", LONG, || {
        let mut tasks = std::fs::read_dir(&tasks).ok()?.flatten();
        let name = |task: &Path| std::fs::read_to_string(task.join("comm")).unwrap_or_default();
        tasks.find(|task| name(&task.path()) == "event loop\n")
    });
}

/// Telegraf would never start the program again.
#[test]
fn a_crash_ends_the_process_though_stderr_is_not_read() {
    let (_reader, stderr) = std::io::pipe().unwrap();
    fill(&stderr);
    let mut command = Plugin::outside(&["--uri", "test:///default"]);
    command.env("LIBVIRT_DEBUG", "1").stderr(stderr);
    let mut child = command.stdin(Stdio::piped()).spawn().unwrap();
    wait_for_event_loop(child.id());
    support::plugin::kill(child.id(), Signal::ABORT);
    wait_for("the end", LONG, || child.try_wait().unwrap());
}

/// Fills a pipe to its last byte.
fn fill(pipe: &std::io::PipeWriter) {
    use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};
    let flags = fcntl_getfl(pipe).unwrap();
    fcntl_setfl(pipe, flags | OFlags::NONBLOCK).unwrap();
    for piece in [4096, 1] {
        while rustix::io::write(pipe, &vec![b'\n'; piece]).is_ok() {}
    }
    fcntl_setfl(pipe, flags).unwrap();
}

#[test]
fn nothing_to_write_has_its_true_reason() {
    let drives = Domain {
        devices: disk("cdrom", "hda"),
        ..Domain::new(1, "drives")
    };
    let drives = node::write(&[drives]);
    let drives = node::uri(&drives);
    let default = "test:///default".to_owned();
    let two = "vm_features needs two gathers, and --once makes one";
    let filtered =
        "no network interface or disk that has counters passes device_include and device_exclude";
    let none = "no VM has a network interface or disk with counters (CD-ROM and floppy drives count only \
                with cdrom = true and floppy = true)";
    for (uri, settings, reason) in [
        (
            &default,
            "measurements = ['vm_devices']\ndevice_include = ['none']",
            filtered.to_owned(),
        ),
        (
            &default,
            "measurements = ['vm_devices', 'vm_features']\ndevice_exclude = ['*']",
            format!("{filtered}; {two}"),
        ),
        (&drives, "measurements = ['vm_devices']", none.to_owned()),
        (&default, "measurements = ['vm_features']", two.to_owned()),
        (
            &default,
            "measurements = ['vm_vcpus', 'vm_pressure']",
            "the vCPU threads of no VM are in sight (see vcpu_delay); \
             the pressure files of no VM are in sight (they need cgroup v2 and psi=1)"
                .to_owned(),
        ),
    ] {
        let config = config(settings);
        let path = config.path().to_str().unwrap();
        let arguments = ["--uri", uri, "--once", "--config", path];
        let (code, out, err) = told(&run(Plugin::outside(&arguments).stdin(Stdio::null())));
        assert_eq!((code, &*out), (Some(1), ""), "{settings}");
        assert_eq!(
            err,
            format!("E! nothing to write: {reason}\n"),
            "{settings}"
        );
    }
}

#[test]
fn node_files_are_found_as_virsh_finds_them() {
    let folder = tempfile::tempdir().unwrap();
    let node = node::write(&[Domain::new(1, "vm")]);
    for name in [
        "a b.xml",
        "ü.xml",
        "a#b.xml",
        "a?b.xml",
        "a%20b.xml",
        "plain.xml",
    ] {
        std::fs::copy(node.path(), folder.path().join(name)).unwrap();
    }
    let folder = folder.path().to_str().unwrap();
    let paths = [
        "a%20b.xml",
        "%C3%BC.xml",
        "a%23b.xml",
        "a%3Fb.xml",
        "a%2520b.xml",
        "plain.xml#a",
        "plain.xml?a=b",
        "pl%61in.xml",
    ];
    let uris = paths.map(|path| format!("test://{folder}/{path}"));
    let other = [
        format!("test:{folder}/plain.xml"),
        format!("test://user@{folder}/plain.xml"),
    ];
    for uri in uris.iter().chain(&other) {
        let virsh = reading::virsh(uri, &["list", "--name"]);
        assert_eq!(virsh.trim(), "vm", "{uri}");
        let output = run(Plugin::outside(&["--uri", uri, "--once"]).stdin(Stdio::null()));
        let (code, out, err) = told(&output);
        assert_eq!((code, &*err), (Some(0), ""), "{uri}");
        one(&lines(&out), "vm_metrics", "vm");
    }
    // A file that is missing or cannot be read is named with its decoded name.
    let said = |path: &str| {
        let uri = format!("test://{folder}/{path}");
        told(&run(&mut Plugin::outside(&["--uri", &uri, "--check"]))).2
    };
    for (path, reason) in [
        (
            "no%20file.xml",
            format!("{folder}/no file.xml: No such file or directory"),
        ),
        ("", format!("{folder}/: Is a directory")),
    ] {
        let said = said(path);
        assert!(
            said.contains(&reason) && said.lines().count() == 1,
            "{said}"
        );
    }
}

#[test]
fn a_node_file_that_may_not_be_read_is_one_line() {
    let folder = tempfile::tempdir().unwrap();
    let mode = |mode| std::os::unix::fs::PermissionsExt::from_mode(mode);
    std::fs::set_permissions(folder.path(), mode(0o755)).unwrap();
    let node = node::write(&[Domain::new(1, "vm")]);
    let file = folder.path().join("node.xml");
    std::fs::copy(node.path(), &file).unwrap();
    std::fs::set_permissions(&file, mode(0o600)).unwrap();
    let copy = folder.path().join("telegraf-kvm");
    copy_program(env!("CARGO_BIN_EXE_telegraf-kvm"), &copy);
    // Root may read everything.
    let mut command = Command::new(program("setpriv"));
    command.args(["--reuid=65534", "--regid=65534", "--clear-groups"]);
    let uri = format!("test://{}", file.display());
    command.arg(&copy).args(["--once", "--uri", &uri]);
    command.env_remove("RUST_LOG").stdin(Stdio::null());
    let (code, _, err) = told(&run(&mut command));
    assert_eq!(code, Some(1));
    let mut said = err.lines();
    let warning = said.next().unwrap_or_default();
    assert!(warning.contains("node.xml: Permission denied"), "{err}");
    assert!(
        said.next()
            .unwrap_or_default()
            .starts_with("E! nothing gathered"),
        "{err}"
    );
    assert_eq!(said.next(), None);
}
