//! A user with a limit of threads (RLIMIT_NPROC, which does not bind root): the message names what could not
//! be started and the limit to raise; one worker serves instead of several.

use crate::support::lab::Lab;
use crate::support::node::{self, Domain};
use crate::support::plugin::Plugin;
use crate::support::{copy_program, program, succeed, turn};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::Duration;

const LONG: Duration = Duration::from_secs(30);

/// The words that run a program with this many threads at most, as a user without other processes. The daemon
/// needs a user of /etc/passwd.
fn limited(user: &str, threads: u32) -> Vec<String> {
    let user = [format!("--reuid={user}"), format!("--regid={user}")];
    let limit = ["prlimit".to_owned(), format!("--nproc={threads}:100")];
    [&["--clear-groups".to_owned()], &user[..], &limit].concat()
}

#[test]
fn a_thread_that_cannot_start_is_named_with_the_limit() {
    let _turn = turn::take();
    let folder = tempfile::tempdir().unwrap();
    let everybody = std::fs::Permissions::from_mode(0o755);
    std::fs::set_permissions(folder.path(), everybody).unwrap();
    let binary = folder.path().join("telegraf-kvm");
    copy_program(env!("CARGO_BIN_EXE_telegraf-kvm"), &binary);
    // One thread is the main thread.
    for (threads, flag, named) in [
        (1, None, "E! cannot start the thread \"signals\""),
        (2, None, "E! cannot start the thread \"stdin\""),
        (3, None, "E! cannot start the thread \"event loop\""),
        (4, None, "W! cannot start the thread \"worker\""),
        (
            1,
            Some("--check"),
            "E! cannot start the thread \"event loop\"",
        ),
    ] {
        let mut command = Command::new(program("setpriv"));
        command.args(limited("54321", threads)).arg(&binary);
        command.args(["--uri", "test:///default"]).args(flag);
        command.env_remove("RUST_LOG");
        let mut plugin = Plugin::spawn(command);
        let warned = named.starts_with('W');
        if warned {
            plugin.newline();
            plugin.wait_for_log("\n");
            plugin.newline();
            plugin.close();
        }
        let code = plugin.wait(LONG).code();
        assert_eq!(code, Some(if warned { 0 } else { 1 }), "{named}");
        let said = plugin.stderr();
        assert!(said.starts_with(named), "{said}");
        assert_eq!(said.lines().count(), 1, "{said}");
        for limit in ["ulimit -u", "LimitNPROC=", "TasksMax=", "pids.max"] {
            assert!(said.contains(limit), "{said}");
        }
        assert!(!said.contains("libvirt"), "{said}");
    }
}

#[test]
fn one_worker_serves_where_no_second_can_be_started() {
    let lab = Lab::start();
    let domains: Vec<Domain> = (1..=40)
        .map(|number| Domain::new(number, &format!("vm{number}")))
        .collect();
    let file = lab.dir().join("node.xml");
    std::fs::copy(node::write(&domains).path(), &file).unwrap();
    let uri = format!(
        "test+unix://{}?socket=/run/libvirt/libvirt-sock-ro",
        file.display()
    );
    // This call makes the copy of the program that other users may run.
    let _ = lab.plugin_as(54_321, &[]);
    let binary = lab.dir().join("telegraf-kvm");
    // main, signals, stdin, event loop, event feed, and one worker.
    let mut command = lab.command("setpriv");
    command
        .args(["--pdeathsig", "KILL"])
        .args(limited("games", 6));
    command
        .arg(&binary)
        .args(["--uri", &uri])
        // libvirt 7.0 makes a folder in the user's home.
        .env("HOME", "/tmp")
        .env_remove("RUST_LOG");
    let mut plugin = Plugin::spawn(command);
    for _ in 0..4 {
        let gather = plugin.gather();
        let vms = gather.iter().filter(|line| line.measurement == "vm_totals");
        assert_eq!(vms.count(), 40, "{}", plugin.stderr());
    }
    let said = plugin.stderr();
    assert!(
        said.starts_with("W! cannot start the thread \"worker\""),
        "{said}"
    );
    assert_eq!(said.lines().count(), 1, "{said}");

    let pid = plugin.pid().to_string();
    // Only the process's own user may do so, unless root has CAP_SYS_RESOURCE.
    let mut raise = Command::new(program("setpriv"));
    raise.args(limited("games", 100));
    succeed(raise.args(["prlimit", "--pid", &pid, "--nproc=100:100"]));
    plugin.gather();
    plugin.wait_for_log("I! all threads can be started again");
    assert_eq!(plugin.stderr().lines().count(), 2, "{}", plugin.stderr());
}
