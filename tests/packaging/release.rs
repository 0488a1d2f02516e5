//! What `packaging/release` promises of the packages for every host, in tests that take a second;
//! `packages_long` builds and installs them.

use crate::support::{program, run, succeed};
use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use tempfile::TempDir;

fn read(name: &str) -> String {
    fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join(name)).unwrap()
}

fn release() -> Command {
    Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/release"))
}

/// The highest version of `library`'s (GLIBC, LIBVIRT) symbols that `program` needs.
pub fn needs(program_file: &Path, library: &str) -> Vec<u32> {
    let mut readelf = Command::new(program("readelf"));
    let said = succeed(readelf.args(["--version-info", "--wide"]).arg(program_file));
    let prefix = format!("{library}_");
    said.split_whitespace()
        .filter_map(|word| word.strip_prefix(&*prefix))
        .map(numbers)
        .max()
        .unwrap()
}

/// A dotted version, to compare.
pub fn numbers(version: &str) -> Vec<u32> {
    version.split('.').map(|n| n.parse().unwrap()).collect()
}

/// The version of `package` in the deb's dependencies.
fn dependency(package: &str) -> Vec<u32> {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let deb = &manifest["package"]["metadata"]["deb"];
    let depends = deb["variants"]["release"]["depends"].as_str().unwrap();
    let (_, rest) = depends.split_once(&format!("{package} (>= ")).unwrap();
    numbers(rest.split_once(')').unwrap().0)
}

#[test]
fn it_says_what_it_makes() {
    let output = run(release().arg("--help"));
    let said = String::from_utf8(output.stdout).unwrap();
    assert!(output.status.success() && output.stderr.is_empty());
    for word in ["amd64", "arm64", "deb", "rpm", "tarball", "SHA256SUMS"] {
        assert!(said.contains(word), "{word}: {said}");
    }
    let output = run(release().arg("riscv64"));
    assert_eq!(output.status.code(), Some(2));
    assert_eq!(String::from_utf8(output.stderr).unwrap(), said);
}

/// No function of libvirt is used that hosts with its version in the dependencies lack. (glibc's are those
/// of this machine: only `packages_long` can tell them.)
#[test]
fn the_dependencies_name_the_libvirt_that_is_needed() {
    let program = Path::new(env!("CARGO_BIN_EXE_telegraf-kvm"));
    let libvirt = dependency("libvirt0");
    assert_eq!(needs(program, "LIBVIRT"), libvirt);
    assert!(libvirt <= numbers("6.0"));
    assert!(dependency("libc6") <= numbers("2.28"));
}

/// A repository of one commit with the scripts. On the PATH are a cargo that builds nothing and what the scripts may
/// expect on any machine, so that they end before they install anything.
struct Checkout {
    dir: TempDir,
}

impl Checkout {
    fn new() -> Checkout {
        let dir = tempfile::tempdir().unwrap();
        let checkout = Checkout { dir };
        for folder in ["checkout/packaging", "bin"] {
            fs::create_dir_all(checkout.path(folder)).unwrap();
        }
        for name in [
            "packaging/release",
            "packaging/need.sh",
            "packaging/tools.sh",
            "packaging/documents",
            "packaging/telegraf-kvm.1",
            "Cargo.toml",
            "CHANGELOG.md",
        ] {
            let from = Path::new(env!("CARGO_MANIFEST_DIR")).join(name);
            crate::support::copy_program(from, &checkout.path("checkout").join(name));
        }
        for name in [
            "cat", "date", "dirname", "git", "gzip", "head", "id", "mkdir", "sed", "sort", "stat",
        ] {
            symlink(program(name), checkout.path("bin").join(name)).unwrap();
        }
        let cargo = checkout.path("bin/cargo");
        fs::write(
            &cargo,
            "#!/bin/bash\n[[ $1 == --version ]] && echo cargo 1.1000.0\n",
        )
        .unwrap();
        fs::set_permissions(&cargo, fs::Permissions::from_mode(0o755)).unwrap();
        checkout.sh("git init -q && git add . && git commit -q -m release");
        checkout
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A script in the checkout. The commit is of the year 2001.
    fn command(&self, script: &str) -> Command {
        let mut bash = Command::new(program("bash"));
        bash.args(["-euc", script])
            .current_dir(self.path("checkout"))
            .env_clear()
            .env("PATH", self.path("bin"))
            .env("HOME", self.dir.path())
            .env("CARGO_TARGET_DIR", self.path("target"))
            .env("GIT_COMMITTER_DATE", "@981173106 +0000");
        for role in ["AUTHOR", "COMMITTER"] {
            bash.env(format!("GIT_{role}_NAME"), "n")
                .env(format!("GIT_{role}_EMAIL"), "e");
        }
        bash
    }

    fn sh(&self, script: &str) -> String {
        succeed(&mut self.command(script))
    }

    /// What `packaging/release` says on stderr; it must fail.
    fn refusal(&self) -> String {
        let output = run(&mut self.command("packaging/release amd64"));
        assert_eq!(output.status.code(), Some(1), "{output:?}");
        String::from_utf8(output.stderr).unwrap()
    }
}

#[test]
fn a_checkout_with_changes_is_refused() {
    const CHANGES: &str = "packaging/release: the checkout has changes that are in no commit";
    let checkout = Checkout::new();
    let said = checkout.refusal();
    assert!(said.contains("these are missing"), "{said}");
    for change in ["echo >>CHANGELOG.md", "mkdir docs; echo >docs/new.md"] {
        checkout.sh(change);
        let said = checkout.refusal();
        assert!(said.contains(CHANGES), "{said}");
        checkout.sh("git stash -q --include-untracked");
    }
    // Another user's checkout, which git itself does not read.
    checkout.sh("echo >>CHANGELOG.md");
    let mut release = checkout.command("packaging/release amd64");
    let output = run(release.env(OTHERS, "1"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(said.contains(CHANGES) || said.contains(OLD_GIT), "{said}");
}

/// Makes git think that a checkout is another user's.
const OTHERS: &str = "GIT_TEST_ASSUME_DIFFERENT_OWNER";
/// What git before 2.38 tells to set: there the flag of the scripts has no effect.
const OLD_GIT: &str = "safe.directory";

/// Of the commit, also where root builds in another user's checkout.
#[test]
fn packages_have_the_time_of_the_commit() {
    let checkout = Checkout::new();
    let script = "me=; . packaging/need.sh; . packaging/tools.sh; echo $SOURCE_DATE_EPOCH";
    assert_eq!(checkout.sh(script), "981173106\n");
    let output = run(checkout.command(script).env(OTHERS, "1"));
    let said = String::from_utf8(output.stderr).unwrap();
    assert!(
        output.stdout == b"981173106\n" || said.contains(OLD_GIT),
        "{said}"
    );
}

#[test]
fn debians_changelog_has_each_version_with_its_date() {
    let checkout = Checkout::new();
    // It ends where it asks cargo for the crates, after the changelogs.
    let script = "packaging/documents ../documents x || gzip -dc ../documents/changelog.Debian.gz";
    let said = checkout.sh(script);
    let lines = |prefix: &str| -> Vec<&str> {
        said.lines()
            .filter_map(|line| line.strip_prefix(prefix))
            .collect()
    };
    let (versions, dates) = (lines("telegraf-kvm ("), lines(" -- "));
    let changelog = read("CHANGELOG.md");
    let heads = changelog.lines().filter_map(|l| l.strip_prefix("## "));
    let heads = heads.filter_map(|head| head.split_once(" - "));
    let expected = heads.map(|(version, _)| format!("{version}-1) unstable; urgency=medium"));
    assert_eq!(versions, expected.collect::<Vec<_>>());
    assert_eq!(dates.len(), versions.len());
    let first = dates.last().unwrap();
    assert!(
        first.ends_with(">  Thu, 26 Nov 2026 00:00:00 +0000"),
        "{first}"
    );
}

#[test]
fn each_version_has_an_entry_with_its_date() {
    let changelog = read("CHANGELOG.md");
    let mut heads = changelog.lines().filter_map(|l| l.strip_prefix("## "));
    let mut heads = heads.by_ref().skip_while(|head| *head == "Unreleased");
    let (newest, _) = heads.next().unwrap().split_once(" - ").unwrap();
    assert_eq!(newest, env!("CARGO_PKG_VERSION"));
    for head in heads {
        let (version, date) = head.split_once(" - ").unwrap();
        assert_eq!(numbers(version).len(), 3, "{head}");
        let parts = date.split('-').map(str::len);
        assert_eq!(parts.collect::<Vec<_>>(), [4, 2, 2], "{head}");
    }
}
