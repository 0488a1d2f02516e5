//! What `packaging/release` promises of the packages for every host, in tests that take a second;
//! `packages_long` builds and installs them.

use crate::support::{program, run, succeed};
use std::fs;
use std::path::Path;
use std::process::Command;

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
