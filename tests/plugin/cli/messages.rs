//! The text of messages, for values of any content.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::fs::symlink;
use std::process::Stdio;

use super::{config, program, run, told};

#[test]
fn a_link_that_leads_nowhere_is_called_one() {
    let folder = tempfile::tempdir().unwrap();
    let name = folder.path().to_str().unwrap();
    symlink("gone", folder.path().join("folder")).unwrap();
    symlink("gone.toml", folder.path().join("link.toml")).unwrap();
    let folder = format!("{name}/folder ");
    for (file, subject, target) in [
        ("link.toml", "", "gone.toml"),
        ("folder/config.toml", &*folder, "gone"),
    ] {
        let expected = format!(
            "E! {name}/{file}: {subject}is a symbolic link to {target}, which does not exist\n"
        );
        let found = told(&run(&["--config", &format!("{name}/{file}")]));
        assert_eq!(found, (Some(2), String::new(), expected));
    }
}

/// However long a value is, the line names the correct one.
#[test]
fn a_long_value_is_shown_in_part() {
    let long = "ab".repeat(25_000);
    let shown = format!("{} ...", "ab".repeat(30));
    for (written, wrong, right) in [
        (
            format!("deadline = \"{long}\""),
            "deadline: \"",
            "write for example \"8s\", ",
        ),
        (
            format!("log_level = \"{long}\""),
            "log_level: \"",
            "use one of error, warn, ",
        ),
        (
            format!("timestamp_precision = \"{long}\""),
            "_precision: \"",
            "use \"1s\", ",
        ),
        (
            format!("measurements = [\"{long}\"]"),
            "measurements: \"",
            "use one of vm_metrics, ",
        ),
        (
            format!("domain_include = [\"{long}\"]"),
            "pattern \"",
            "at most 1024 are allowed",
        ),
        (
            format!("{long} = 1"),
            "unknown key \"",
            "the keys are uri, ",
        ),
        (
            format!("{long} = 1\n{long} = 1"),
            "key \"",
            "leave one of them out",
        ),
        (
            format!("workers = \"{long}\""),
            "found \"",
            "a whole number such as 4",
        ),
    ] {
        let (_folder, path) = config(&written);
        let (code, _, err) = told(&run(&["--check", "--config", path.to_str().unwrap()]));
        assert_eq!(code, Some(2), "{err}");
        // For a value in the form in which it is written, the quote is one of the 60 characters.
        let shown = if wrong == "found \"" {
            shown.replace("b ...", " ...")
        } else {
            shown.clone()
        };
        let wrong = format!("{wrong}{shown}");
        assert!(
            err.contains(&wrong) && err.contains(right),
            "{wrong} {right}: {err}"
        );
        assert!(err.len() < 600, "{err}");
    }
    for (args, right) in [
        (&[&*long][..], "\"telegraf-kvm --help\" lists the flags\n"),
        (&["--interval", &long], "write for example \"8s\", "),
        (
            &["--once", "--interval", &"1".repeat(9000)],
            " for seconds\n",
        ),
        (&[&format!("--check={long}")], "...\"\n"),
    ] {
        let (code, _, err) = told(&run(args));
        assert_eq!(code, Some(2), "{err}");
        assert!(err.contains(right) && err.len() < 300, "{right}: {err}");
    }
    let mut command = program(env!("CARGO_BIN_EXE_telegraf-kvm"));
    command.args(["--check", "--uri", "test:///default"]);
    let (code, _, err) = told(&command.env("RUST_LOG", &long).output().unwrap());
    assert_eq!(code, Some(0));
    assert!(
        err.contains("write error, warn, ") && err.len() < 300,
        "{err}"
    );
}

/// Patterns that caused too deep a recursion in the matcher of earlier versions.
#[test]
fn a_pattern_of_many_stars_is_refused_or_matched() {
    let check = |pattern: &str| {
        let (_folder, path) = config(&format!("domain_include = [\"{pattern}\"]"));
        let path = path.to_str().unwrap();
        told(&run(&[
            "--check",
            "--uri",
            "test:///default",
            "--config",
            path,
        ]))
    };
    let (code, _, err) = check(&"*?".repeat(25_000));
    let right = " has 50000 characters; at most 1024 are allowed\n";
    assert!(code == Some(2) && err.ends_with(right), "{code:?} {err}");
    let (code, out, err) = check(&format!("{}test*", "*".repeat(1019)));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    assert!(out.contains("\nconnected: 1 active VM\n"), "{out}");
}

#[test]
fn one_gather_is_not_gathers() {
    let folder = tempfile::tempdir().unwrap();
    let node = folder.path().join("node.xml");
    let mut child = program(env!("CARGO_BIN_EXE_telegraf-kvm"))
        .args(["--uri", &format!("test://{}", node.display())])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let mut stdin = child.stdin.take().unwrap();
    let mut lines = BufReader::new(child.stderr.take().unwrap()).lines();
    stdin.write_all(b"\n").unwrap();
    let away = lines.next().unwrap().unwrap();
    assert!(away.starts_with("W! cannot reach libvirt "), "{away}");
    fs::write(&node, "<node/>").unwrap();
    stdin.write_all(b"\n").unwrap();
    let back = lines.next().unwrap().unwrap();
    assert_eq!(
        back,
        "I! libvirt answers again, after 1 gather without an answer"
    );
    drop(stdin);
    assert!(child.wait().unwrap().success());
}
