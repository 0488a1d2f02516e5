//! The contents of the packages, in tests that take seconds: the man page and the completions against
//! `--help`, the lists of files, and the changes to Telegraf's configuration. `packages_long.rs` builds and
//! installs the packages.

use std::collections::BTreeSet;
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use telegraf_kvm::cli::HELP;
use tempfile::TempDir;

fn checkout(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(name)
}

fn read(name: &str) -> String {
    fs::read_to_string(checkout(name)).unwrap_or_else(|error| panic!("{name}: {error}"))
}

/// Replaces each sequence of blanks by one space.
fn words(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

/// All words that begin with two dashes and a letter.
fn long_flags(text: &str) -> BTreeSet<String> {
    let flags = text.split(|c: char| !c.is_ascii_alphabetic() && c != '-');
    let flag = |word: &&str| {
        let name = word.strip_prefix("--");
        name.is_some_and(|n| n.starts_with(|c: char| c.is_ascii_alphabetic()))
    };
    flags.filter(flag).map(str::to_owned).collect()
}

/// The words of the man page: the text that `man` shows, without its layout.
fn man_page() -> String {
    let mut text = String::new();
    for line in read("packaging/telegraf-kvm.1").lines() {
        let line = match line.split_once(' ') {
            Some((".B" | ".I" | ".SH" | ".BR", rest)) => rest,
            _ if line.starts_with('.') => continue,
            _ => line,
        };
        text.push_str(line);
        text.push('\n');
    }
    for (roff, plain) in [("\\fB", ""), ("\\fI", ""), ("\\fR", ""), ("\\-", "-")] {
        text = text.replace(roff, plain);
    }
    assert!(!text.contains('\\'), "roff that this test does not know");
    words(&text)
}

#[test]
fn the_man_page_says_what_help_says() {
    let man = man_page();
    for block in HELP.split("\n\n") {
        let block = words(block)
            .trim_start_matches("Flags: ")
            .trim_start_matches("Usage: ")
            .replacen("telegraf-kvm: ", "telegraf-kvm - ", 1);
        assert!(man.contains(&block), "not in the man page: {block}");
    }
    assert_eq!(long_flags(&man), long_flags(HELP));
}

#[test]
fn the_completions_offer_the_flags_of_help() {
    let flags = long_flags(HELP);
    for name in ["telegraf-kvm.bash", "_telegraf-kvm"] {
        let text = read(&format!("packaging/completions/{name}"));
        assert_eq!(long_flags(&text), flags, "{name}");
    }
    let fish = read("packaging/completions/telegraf-kvm.fish");
    let words: Vec<&str> = fish.split_whitespace().collect();
    let after = |option| words.windows(2).filter(move |pair| pair[0] == option);
    let long = after("-l").map(|pair| format!("--{}", pair[1]));
    assert_eq!(long.collect::<BTreeSet<_>>(), flags);
    let short = after("-s").map(|pair| pair[1]);
    assert_eq!(short.collect::<Vec<_>>(), ["V", "h"]);
}

/// An interactive bash on a terminal, where each line is typed with the Tab key and Enter behind it. Prints the words
/// that the program would get, and an empty line.
const BASH: &str = r##"
import os, pty, sys
completion, folder, *lines = sys.argv[1:]
words = os.path.join(folder, "words")
os.chdir(folder)
os.environ.update(PS1="<ready>", HISTFILE="", INPUTRC="none", TERM="dumb", WORDS=words)
pid, terminal = pty.fork()
if pid == 0:
    os.execvp("bash", ["bash", "--noprofile", "--norc", "-i"])
def prompt():
    said = b""
    while not said.endswith(b"<ready>"):
        said += os.read(terminal, 1000)
def run(text):
    os.write(terminal, text.encode() + b"\n")
    prompt()
prompt()
run(f". '{completion}'")
run(r'''telegraf-kvm() { printf '%s\n' "$@" >"$WORDS"; }''')
for line in lines:
    run(line + "\t")
    print(open(words).read())
os.close(terminal)
os.waitpid(pid, 0)
"##;

#[test]
fn bash_completes_flags_and_values() {
    let file = checkout("packaging/completions/telegraf-kvm.bash");
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("my file.toml"), "").unwrap();
    let cases = [
        ("--ch", "--check"),
        ("--check --js", "--check|--json"),
        ("--interval 3", "--interval|30s"),
        // What the two have in common.
        ("--uri q", "--uri|qemu:///s"),
        ("--uri qemu:", "--uri|qemu:///s"),
        ("--uri qemu:///sy", "--uri|qemu:///system"),
        ("--uri t", "--uri|test:///default"),
        ("--uri=qemu:///se", "--uri=qemu:///session"),
        ("--uri \"qemu:///se", "--uri|qemu:///session"),
        // Nothing fits: the words stay.
        ("--uri qemu:///x", "--uri|qemu:///x"),
        ("--uri qemu:///system --on", "--uri|qemu:///system|--once"),
        ("--config my", "--config|my file.toml"),
    ];
    let mut python = Command::new("python3");
    python.args(["-c", BASH]).arg(&file).arg(dir.path());
    python.args(cases.map(|(typed, _)| format!("telegraf-kvm {typed}")));
    let output = python.output().unwrap();
    assert!(output.status.success(), "{output:?}");
    let said = String::from_utf8(output.stdout).unwrap();
    let got = said
        .split_terminator("\n\n")
        .map(|words| words.replace('\n', "|"));
    let expected = cases.map(|(_, words)| words);
    assert_eq!(got.collect::<Vec<_>>(), expected);
}

/// The line up to the cursor may be one word with no blank behind it.
#[test]
fn bash_completes_without_a_word_before_it() {
    let mut bash = Command::new("bash");
    bash.args(["-c", r#". "$0"; _telegraf_kvm; echo "${#COMPREPLY[@]}""#]);
    bash.arg(checkout("packaging/completions/telegraf-kvm.bash"));
    bash.env("COMP_LINE", "telegraf-kvm");
    let output = bash.env("COMP_POINT", "12").output().unwrap();
    let said = [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap());
    assert_eq!(said, ["0\n", ""]);
}

#[test]
fn both_packages_hold_the_same_files() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    let text = |value: &toml::Value| value.as_str().unwrap().to_owned();
    let deb = metadata["deb"]["assets"].as_array().unwrap().iter();
    let deb = deb.map(|a| text(&a[0]));
    let rpm = metadata["generate-rpm"]["assets"]
        .as_array()
        .unwrap()
        .iter();
    let rpm = rpm.map(|a| text(&a["source"]));
    // Changelogs and licences follow each distribution's convention.
    let common = |source: &String| {
        let custom = ["change", "CHANGE", "LICENSE", "LGPL"];
        !custom.iter().any(|word| source.contains(word))
    };
    let deb: BTreeSet<String> = deb.filter(common).collect();
    assert_eq!(deb, rpm.filter(common).collect());
    for source in deb.iter().filter(|s| !s.starts_with("target/")) {
        let pattern = checkout(source);
        let found = glob::glob(pattern.to_str().unwrap()).unwrap().count();
        assert!(found > 0, "there is no {source}");
    }
}

/// It is made from copies, in a folder that has what tools.sh copies there and nothing else.
#[test]
fn the_files_of_the_rpm_are_copied_for_it() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let assets = &manifest["package"]["metadata"]["generate-rpm"]["assets"];
    let tools = read("packaging/tools.sh");
    let mut lines = tools.lines().map(str::trim);
    let copied = lines.find_map(|line| line.strip_prefix("cp -R Cargo.toml "));
    let copied: Vec<&str> = copied.unwrap().split(' ').collect();
    for asset in assets.as_array().unwrap() {
        let source = asset["source"].as_str().unwrap();
        let top = source.split('/').next().unwrap();
        assert!(top == "target" || copied.contains(&top), "{source}");
    }
}

/// cargo-generate-rpm makes no folder the package's own, so that the last script removes them: inner ones first.
#[test]
fn the_rpm_leaves_no_folder_of_its_own() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let assets = &manifest["package"]["metadata"]["generate-rpm"]["assets"];
    let script = read("packaging/rpm/postun");
    let removed: Vec<&str> = script.split_whitespace().collect();
    let place = |folder: &str| {
        removed
            .iter()
            .position(|word| word.trim_end_matches(';') == folder)
    };
    for asset in assets.as_array().unwrap() {
        let dest = asset["dest"].as_str().unwrap();
        let mut folder = dest.rsplit_once('/').unwrap().0;
        let mut inner = 0;
        while folder.contains("/telegraf-kvm") {
            let at = place(folder).unwrap_or_else(|| panic!("{folder} of {dest} stays"));
            assert!(at >= inner, "{folder} is not empty yet");
            (inner, folder) = (at, folder.rsplit_once('/').unwrap().0);
        }
    }
}

/// A program that contains the paths of a downloaded crate and of files from that crate's build script, in
/// the folders of a machine that downloads crates from a mirror.
#[test]
fn a_packaged_program_holds_no_path_of_the_machine() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| {
        let path = dir.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, text).unwrap();
    };
    let manifest = |folder: &str, name: &str, further: &str| {
        let package =
            format!("[package]\nname = \"{name}\"\nversion = \"0.1.0\"\nedition = \"2024\"\n");
        write(&format!("{folder}/Cargo.toml"), &(package + further));
    };
    let part = "a home/registry/src/mirror/part-0.1.0";
    manifest(part, "part", "");
    let made = r#"std::fs::write(std::env::var("OUT_DIR").unwrap() + "/made.rs", "file!()")"#;
    write(
        &format!("{part}/build.rs"),
        &format!("fn main() {{ {made}.unwrap() }}"),
    );
    write(
        &format!("{part}/src/lib.rs"),
        r#"pub const PATHS: [&str; 2] = [file!(), include!(concat!(env!("OUT_DIR"), "/made.rs"))];"#,
    );
    let further = format!(
        "[dependencies]\npart = {{ path = \"../{part}\" }}\n[profile.release]\nstrip = true\n"
    );
    manifest("whole", "whole", &further);
    write(
        "whole/src/main.rs",
        "fn main() { println!(\"{} {:?}\", file!(), part::PATHS) }",
    );
    let script = r#"cd whole; cargo generate-lockfile --offline; . "$1"; leave_paths_out; cargo build --release"#;
    let build = Command::new("bash")
        .args(["-euc", script, "-"])
        .arg(checkout("packaging/need.sh"))
        .current_dir(dir.path())
        .env("CARGO_HOME", dir.path().join("a home"))
        .env("CARGO_TARGET_DIR", dir.path().join("a target"))
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .output()
        .unwrap();
    assert!(build.status.success(), "{build:?}");
    let program = dir.path().join("a target/release/whole");
    let said = Command::new(&program).output().unwrap().stdout;
    let said = String::from_utf8(said).unwrap();
    let begin = "src/main.rs [\"crates/part-0.1.0/src/lib.rs\", \"target/release/build/part-";
    assert!(said.starts_with(begin), "{said}");
    let program = fs::read(program).unwrap();
    let path = dir.path().as_os_str().as_encoded_bytes();
    assert!(!program.windows(path.len()).any(|bytes| bytes == path));
}

/// The folder /usr/share/telegraf-kvm and a folder like /etc/telegraf, both without other files.
struct Host {
    dir: TempDir,
}

impl Host {
    fn new() -> Host {
        let dir = tempfile::tempdir().unwrap();
        for folder in ["etc/telegraf.d", "bin"] {
            fs::create_dir_all(dir.path().join(folder)).unwrap();
        }
        for (file, name) in [
            ("packaging/stanza", "stanza"),
            ("telegraf/telegraf-kvm.conf", "telegraf-kvm.conf"),
        ] {
            crate::support::copy_program(checkout(file), &dir.path().join(name));
        }
        let host = Host { dir };
        host.user_telegraf("true");
        host
    }

    /// What `id -u telegraf` does: `true` or `false`.
    fn user_telegraf(&self, exists: &str) {
        let id = self.dir.path().join("bin/id");
        fs::write(&id, format!("#!/bin/sh\n{exists}\n")).unwrap();
        fs::set_permissions(&id, fs::Permissions::from_mode(0o755)).unwrap();
    }

    /// The program's place, as /usr/bin/telegraf-kvm on a host.
    fn program(&self) -> PathBuf {
        self.dir.path().join("bin/telegraf-kvm")
    }

    fn shipped(&self) -> PathBuf {
        self.dir.path().join("telegraf-kvm.conf")
    }

    fn etc(&self, name: &str) -> PathBuf {
        self.dir.path().join("etc").join(name)
    }

    fn enable(&self, name: &str, further: &str) {
        let stanza = fs::read_to_string(self.shipped()).unwrap() + further;
        fs::write(self.etc("telegraf.d").join(name), stanza).unwrap();
    }

    /// Stdout and stderr.
    fn stanza(&self, word: &str) -> (String, String) {
        let mut command = Command::new(self.dir.path().join("stanza"));
        let path = std::env::var("PATH").unwrap();
        let bin = self.dir.path().join("bin");
        command.env("PATH", format!("{}:{path}", bin.display()));
        command.arg(word).arg(self.etc("")).arg(self.program());
        let output = command.output().unwrap();
        assert!(output.status.success(), "{output:?}");
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (text(output.stdout), text(output.stderr))
    }

    /// The files in telegraf.d.
    fn enabled(&self) -> BTreeSet<String> {
        let entries = fs::read_dir(self.etc("telegraf.d")).unwrap();
        let name = |entry: std::io::Result<fs::DirEntry>| entry.unwrap().file_name();
        entries.map(|e| name(e).into_string().unwrap()).collect()
    }
}

fn set<const N: usize>(names: [&str; N]) -> BTreeSet<String> {
    names.map(str::to_owned).into()
}

#[test]
fn the_hint_enables_by_copying() {
    let host = Host::new();
    let (said, complaint) = host.stanza("installed");
    assert_eq!((said.lines().count(), complaint.as_str()), (3, ""));
    let copy = said.lines().nth(1).unwrap().split(" && ").next().unwrap();
    let status = Command::new("sh").args(["-c", copy]).status().unwrap();
    assert!(status.success());
    assert_eq!(host.enabled(), set(["telegraf-kvm.conf"]));
    let (said, _) = host.stanza("installed");
    assert_eq!(said.lines().count(), 1);
    assert!(said.contains("Telegraf has a stanza already"), "{said}");
}

/// Not after an upgrade as such: the package may have been removed before, and Telegraf may not run.
#[test]
fn the_old_program_is_mentioned_while_it_runs() {
    let host = Host::new();
    host.enable("telegraf-kvm.conf", "");
    let (program, new) = (host.program(), host.dir.path().join("new"));
    for path in [&program, &new] {
        crate::support::copy_program(crate::support::program("sleep"), path);
    }
    let mut old = Command::new(&program).arg("1000").spawn().unwrap();
    let before = host.stanza("installed").0;
    fs::rename(&new, &program).unwrap();
    let upgraded = host.stanza("installed").0;
    old.kill().unwrap();
    old.wait().unwrap();
    let ended = host.stanza("installed").0;
    assert!(upgraded.contains("old program runs on until Telegraf reloads"));
    // `reload` alone fails where Telegraf does not run.
    for said in [&before, &upgraded, &ended] {
        assert!(
            said.contains("systemctl reload-or-restart telegraf"),
            "{said}"
        );
    }
    for said in [before, ended] {
        assert!(said.contains("Telegraf has a stanza already"), "{said}");
    }
}

#[test]
fn a_stanza_that_a_removal_has_set_aside_is_offered() {
    let host = Host::new();
    host.enable("telegraf-kvm.conf", "# ours\n");
    let deeper = host.etc("telegraf.d/more of it");
    fs::create_dir(&deeper).unwrap();
    fs::copy(
        host.etc("telegraf.d/telegraf-kvm.conf"),
        deeper.join("telegraf-kvm.conf"),
    )
    .unwrap();
    host.stanza("disable");
    let (said, complaint) = host.stanza("installed");
    assert_eq!(complaint, "");
    assert_eq!(said.matches("has set aside").count(), 2, "{said}");
    let moves = said.lines().filter(|line| line.starts_with("  mv "));
    for line in moves {
        let line = line.split(" && ").next().unwrap();
        assert!(
            Command::new("sh")
                .args(["-ec", line])
                .status()
                .unwrap()
                .success()
        );
    }
    assert_eq!(host.enabled(), set(["telegraf-kvm.conf", "more of it"]));
    assert!(deeper.join("telegraf-kvm.conf").exists());
    let (said, _) = host.stanza("installed");
    assert_eq!(said.lines().count(), 1, "{said}");
}

#[test]
fn without_telegrafs_user_telegraf_is_to_be_installed_first() {
    let host = Host::new();
    host.user_telegraf("false");
    let (said, complaint) = host.stanza("installed");
    assert_eq!(complaint, "");
    assert!(
        said.starts_with("telegraf-kvm: there is no user telegraf on this host"),
        "{said}"
    );
    assert_eq!(said.lines().count(), 5, "{said}");
}

#[test]
fn a_comment_enables_nothing() {
    let host = Host::new();
    fs::write(
        host.etc("telegraf.conf"),
        "# command = [\"/usr/bin/telegraf-kvm\"]\n",
    )
    .unwrap();
    assert_eq!(host.stanza("installed").0.lines().count(), 3);
    assert_eq!(host.stanza("disable"), (String::new(), String::new()));
}

#[test]
fn removal_takes_the_unchanged_stanza_away() {
    let host = Host::new();
    host.enable("telegraf-kvm.conf", "");
    host.enable("kvm.conf", "");
    symlink(host.shipped(), host.etc("telegraf.d/linked.conf")).unwrap();
    // Telegraf reads subfolders as well.
    let deeper = host.etc("telegraf.d/more of it/kvm.conf");
    fs::create_dir(deeper.parent().unwrap()).unwrap();
    fs::copy(host.shipped(), &deeper).unwrap();
    symlink("nowhere", host.etc("telegraf.d/dangling.conf")).unwrap();
    let (said, complaint) = host.stanza("disable");
    assert_eq!(said.lines().count(), 5, "{said}");
    assert_eq!(complaint, "");
    assert_eq!(host.enabled(), set(["dangling.conf", "more of it"]));
    assert!(!deeper.exists());
    assert!(host.shipped().exists());
}

#[test]
fn removal_keeps_an_edited_stanza_under_another_name() {
    let host = Host::new();
    for further in ["# first\n", "# second\n"] {
        host.enable("telegraf-kvm.conf", further);
        let (said, complaint) = host.stanza("disable");
        assert!(
            said.contains("differs from the one of this package: it is now "),
            "{said}"
        );
        assert_eq!(complaint, "");
    }
    let kept = ["", ".1"].map(|n| format!("telegraf-kvm.conf.package-removed{n}"));
    assert_eq!(host.enabled(), BTreeSet::from(kept.clone()));
    for (kept, further) in kept.iter().zip(["# first\n", "# second\n"]) {
        let text = fs::read_to_string(host.etc("telegraf.d").join(kept)).unwrap();
        assert!(text.ends_with(further));
    }
}

#[test]
fn removal_lists_what_else_names_the_program() {
    let host = Host::new();
    let line = "command = [\"/usr/bin/telegraf-kvm\", \"--once\"]\n";
    fs::write(host.etc("telegraf.conf"), line).unwrap();
    host.enable("kvm.conf", "# edited\n");
    host.enable("kvm.conf.bak", "");
    fs::write(host.etc("telegraf.d/other.conf"), "[[inputs.cpu]]\n").unwrap();
    let (said, complaint) = host.stanza("disable");
    assert_eq!(said, "");
    // Telegraf reads *.conf only.
    let expected = [
        ("telegraf.conf", true),
        ("telegraf.d/kvm.conf", true),
        ("telegraf.d/kvm.conf.bak", false),
    ];
    assert_eq!(complaint.lines().count(), expected.len(), "{complaint}");
    for (name, read) in expected {
        let names = format!("{} names telegraf-kvm", host.etc(name).display());
        let line = complaint.lines().find(|line| line.contains(&names));
        let line = line.unwrap_or_else(|| panic!("no {name} in {complaint}"));
        assert_eq!(line.contains("does not start"), read, "{line}");
    }
    assert_eq!(
        host.enabled(),
        set(["kvm.conf", "kvm.conf.bak", "other.conf"])
    );
}

#[test]
fn removal_passes_without_the_packages_own_script() {
    // The arguments that each packager passes at a removal and at an upgrade.
    for (script, removal, upgrade) in [
        ("packaging/deb/prerm", "remove", "upgrade"),
        ("packaging/rpm/preun", "0", "1"),
    ] {
        let dir = tempfile::tempdir().unwrap();
        // This replaces the machine's own program by one that logs its arguments.
        let folder = dir.path().to_str().unwrap();
        let text = read(script).replace("/usr/share/telegraf-kvm", folder);
        let run = |argument: &str| {
            let mut sh = Command::new("sh");
            let output = sh.args(["-ec", &text, script, argument]).output().unwrap();
            assert!(output.status.success(), "{script} {argument}: {output:?}");
            [output.stdout, output.stderr].map(|bytes| String::from_utf8(bytes).unwrap())
        };
        let stanza = dir.path().join("stanza");
        fs::write(&stanza, "#!/bin/sh\necho \"$@\"\n").unwrap();
        fs::set_permissions(&stanza, fs::Permissions::from_mode(0o755)).unwrap();
        assert_eq!(run(removal), ["disable\n", ""], "{script}");
        assert_eq!(run(upgrade), ["", ""], "{script}");
        fs::remove_file(&stanza).unwrap();
        let [said, complaint] = run(removal);
        assert_eq!(said, "");
        assert!(
            complaint.contains("/stanza: take what names telegraf-kvm"),
            "{complaint}"
        );
        assert_eq!(run(upgrade), ["", ""], "{script}");
    }
}

/// A message that cannot be printed must not stop a package from coming or going.
#[test]
fn packages_come_and_go_where_nothing_can_be_printed() {
    for (script, argument, removal) in [
        ("packaging/deb/postinst", "configure", false),
        ("packaging/deb/prerm", "remove", true),
        ("packaging/rpm/post", "1", false),
        ("packaging/rpm/preun", "0", true),
    ] {
        for output in ["closed", "full", "a pipe without a reader"] {
            let host = Host::new();
            if removal {
                host.enable("telegraf-kvm.conf", "");
                host.enable("mine.conf", "# edited\n");
            }
            let etc = host.etc("");
            let text = read(script)
                .replace("/usr/share/telegraf-kvm", host.dir.path().to_str().unwrap())
                .replace(
                    "stanza installed",
                    &format!("stanza installed '{}'", etc.display()),
                )
                .replace(
                    "stanza disable",
                    &format!("stanza disable '{}'", etc.display()),
                );
            let mut sh = Command::new("sh");
            match output {
                "closed" => sh.args(["-c", r#"exec sh -ec "$@" >&- 2>&-"#, "sh"]),
                "full" => {
                    let full = fs::File::options().write(true).open("/dev/full").unwrap();
                    sh.arg("-ec").stderr(full.try_clone().unwrap()).stdout(full)
                }
                _ => {
                    let (reader, writer) = std::io::pipe().unwrap();
                    drop(reader);
                    sh.arg("-ec")
                        .stderr(writer.try_clone().unwrap())
                        .stdout(writer)
                }
            };
            let status = sh.args([&text, script, argument]).status().unwrap();
            assert!(status.success(), "{script}, stdout {output}: {status}");
            let left: &[&str] = if removal { &["mine.conf"] } else { &[] };
            let left: BTreeSet<String> = left.iter().map(|name| name.to_string()).collect();
            assert_eq!(host.enabled(), left, "{script}, stdout {output}");
        }
    }
}

#[test]
fn removal_passes_where_telegraf_never_was() {
    let host = Host::new();
    fs::remove_dir_all(host.etc("")).unwrap();
    assert_eq!(host.stanza("disable"), (String::new(), String::new()));
    assert_eq!(host.stanza("installed").0.lines().count(), 3);
}
