//! The packages of `packaging/release`: that they are the same bytes each time, what they need, and that they
//! run on each Debian and on another architecture.

use super::{checkout, paths_of_this_machine, target};
use crate::release::{needs, numbers};
use crate::support::{cache, program, succeed};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::OnceLock;
use tempfile::TempDir;

/// Runs `packaging/release` in a clone of this checkout in `folder`, whose documents get the time `changed`.
/// Returns the folder of the packages.
fn build(folder: &Path, changed: &str) -> PathBuf {
    let clone = folder.join("checkout");
    let mut git = Command::new("git");
    succeed(git.args(["clone", "-q"]).arg(checkout()).arg(&clone));
    let mut touch = Command::new("touch");
    let documents = [clone.join("README.md"), clone.join("docs/metrics.md")];
    succeed(touch.args(["--date", changed]).args(documents));
    // The tools are built once.
    let tools = target().join("packaging-tools");
    fs::create_dir_all(&tools).unwrap();
    let built = folder.join("target");
    fs::create_dir(&built).unwrap();
    symlink(tools, built.join("packaging-tools")).unwrap();
    let mut release = Command::new(clone.join("packaging/release"));
    succeed(release.env("CARGO_TARGET_DIR", &built));
    built.join("release-files")
}

/// The packages of one release.
fn files() -> &'static Path {
    static FILES: OnceLock<(TempDir, PathBuf)> = OnceLock::new();
    let (_, files) = FILES.get_or_init(|| {
        let dir = tempfile::Builder::new()
            .prefix("release")
            .tempdir_in(target())
            .unwrap();
        let files = build(dir.path(), "now");
        (dir, files)
    });
    files
}

/// The file of the release whose name ends so.
fn file(end: &str) -> PathBuf {
    let mut entries = fs::read_dir(files()).unwrap().map(|e| e.unwrap().path());
    entries
        .find(|path| path.to_str().unwrap().ends_with(end))
        .unwrap_or_else(|| panic!("no {end}"))
}

const ARCHITECTURES: [(&str, &str); 2] = [("amd64", "x86_64"), ("arm64", "aarch64")];

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn two_releases_of_one_commit_are_the_same_bytes() {
    // Neither the paths, one of which has a space, nor the age of the files must make a difference.
    let dir = tempfile::Builder::new()
        .prefix("another release")
        .tempdir_in(target())
        .unwrap();
    let again = build(dir.path(), "2001-02-03");
    let sums = |files: &Path| fs::read_to_string(files.join("SHA256SUMS")).unwrap();
    let first = sums(files());
    assert_eq!(first.lines().count(), 6, "{first}");
    assert_eq!(sums(&again), first);
    let mut check = Command::new("sha256sum");
    succeed(
        check
            .args(["--check", "--strict", "SHA256SUMS"])
            .current_dir(files()),
    );
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn a_release_needs_what_old_hosts_have_and_holds_no_path() {
    for (arch, cpu) in ARCHITECTURES {
        let dir = tempfile::tempdir().unwrap();
        let mut tar = Command::new("tar");
        let tarball = file(&format!("-linux-{arch}.tar.gz"));
        succeed(tar.arg("-xf").arg(tarball).arg("-C").arg(dir.path()));
        let name = format!("telegraf-kvm-{}", env!("CARGO_PKG_VERSION"));
        let folder = dir.path().join(name);
        for name in [
            "etc/telegraf-kvm/config.toml",
            "usr/share/licenses/telegraf-kvm/LGPL-2.1",
            "usr/share/telegraf-kvm/telegraf-kvm.conf",
        ] {
            assert!(folder.join(name).is_file(), "{name}");
        }
        let telegraf_kvm = folder.join("usr/bin/telegraf-kvm");
        let (glibc, libvirt) = (
            needs(&telegraf_kvm, "GLIBC"),
            needs(&telegraf_kvm, "LIBVIRT"),
        );
        assert!(
            glibc <= numbers("2.28") && libvirt <= numbers("6.0"),
            "{glibc:?} {libvirt:?}"
        );

        let mut field = Command::new("dpkg-deb");
        let deb = file(&format!("_{arch}.deb"));
        let depends = succeed(field.arg("--field").arg(deb).arg("Depends"));
        let version = |n: &[u32]| n.iter().map(u32::to_string).collect::<Vec<_>>().join(".");
        let (glibc, libvirt) = (version(&glibc), version(&libvirt));
        assert_eq!(
            depends.trim(),
            format!("libc6 (>= {glibc}), libvirt0 (>= {libvirt})")
        );

        let mut rpm = Command::new(program("rpm"));
        let package = file(&format!(".{cpu}.rpm"));
        let requires = succeed(
            rpm.args(["--query", "--requires", "--package"])
                .arg(&package),
        );
        for needed in [
            format!("libc.so.6(GLIBC_{glibc})(64bit)"),
            format!("libvirt.so.0(LIBVIRT_{libvirt})(64bit)"),
        ] {
            assert!(
                requires.lines().any(|line| line == needed),
                "{needed}: {requires}"
            );
        }
        // RHEL 8 is not sure to read the tool's own choice, zstd.
        let mut rpm = Command::new(program("rpm"));
        let query = [
            "--query",
            "--queryformat",
            "%{PAYLOADCOMPRESSOR}",
            "--package",
        ];
        assert_eq!(succeed(rpm.args(query).arg(&package)), "xz");

        let bytes = fs::read(&telegraf_kvm).unwrap();
        let text = String::from_utf8_lossy(&bytes);
        let mut paths = paths_of_this_machine();
        paths.push(files().to_str().unwrap().to_owned());
        for path in paths {
            assert!(!text.contains(&path), "{arch}: {path}");
        }
    }
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_tarball_is_unpacked_and_upgraded_as_the_readme_says() {
    let root = tempfile::tempdir().unwrap();
    let into = format!("-C {} ", root.path().display());
    let config = root.path().join("etc/telegraf-kvm/config.toml");
    let readme = fs::read_to_string(checkout().join("README.md")).unwrap();
    let commands = readme.lines().filter_map(|l| l.strip_prefix("sudo tar "));
    let commands: Vec<String> = commands.map(|c| c.replace("-C / ", &into)).collect();
    let [first, upgrade] = &commands[..] else {
        panic!("{commands:?}");
    };
    let tar = |arguments: &str| {
        let script = format!("tar {arguments}");
        let mut bash = Command::new("bash");
        succeed(bash.args(["-euc", &script]).current_dir(files()));
        assert!(root.path().join("usr/bin/telegraf-kvm").is_file());
    };
    tar(first);
    assert!(config.is_file());
    fs::write(&config, "# edited\n").unwrap();
    tar(upgrade);
    assert_eq!(fs::read_to_string(&config).unwrap(), "# edited\n");
}

/// A root of Debian below, and on it, for the run of a script, a layer of its own that goes with `dir`.
/// The script has the layer at `$root`, and at `$dir` the folder that holds it as `root`.
fn on_a_copy_of(root: &Path, dir: &Path, script: &str) -> String {
    let mounts = r#"
        dir=$2 root=$2/root
        mkdir "$root" "$dir/upper" "$dir/work"
        mount -t overlay overlay -o "lowerdir=$1,upperdir=$dir/upper,workdir=$dir/work" "$root"
        in_root() {
            unshare --pid --fork --kill-child --mount-proc="$root/proc" chroot "$root" env \
                DEBIAN_FRONTEND=noninteractive PATH=/usr/sbin:/usr/bin:/sbin:/bin LC_ALL=C "$@"
        }
    "#;
    let mut unshare = Command::new(program("unshare"));
    unshare
        .args(["--mount", "--propagation", "private", "bash", "-euc"])
        .arg(mounts.to_owned() + script)
        .arg("-")
        .args([root, dir])
        .current_dir(checkout());
    succeed(&mut unshare)
}

const INSTALL_AND_RUN: &str = r#"
    cp "$deb" "$root/tmp/telegraf-kvm.deb"
    in_root apt-get -q update
    in_root apt-get -q -y install --no-install-recommends /tmp/telegraf-kvm.deb
    in_root telegraf-kvm --version
    in_root telegraf-kvm --once --uri test:///default
"#;

fn wrote_the_test_host(said: &str) {
    for begin in [
        &*format!("telegraf-kvm {}", env!("CARGO_PKG_VERSION")),
        "vm_metrics,",
        "vm_devices,",
        "vm_totals,",
    ] {
        assert!(
            said.lines().any(|line| line.starts_with(begin)),
            "no {begin}: {said}"
        );
    }
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn one_deb_installs_and_measures_vms_on_each_debian() {
    for suite in ["bullseye", "bookworm", "trixie", "sid"] {
        let base = cache().join("roots").join(suite);
        let mut make = Command::new(checkout().join("tests/matrix/root"));
        succeed(make.arg(suite).arg(&base));
        let dir = tempfile::tempdir_in(target()).unwrap();
        // Values that are compared with those of virsh, from VMs on that Debian's QEMU.
        let lab = r#"
            mkdir -p "$dir/target/debug"
            cp "$root/usr/bin/telegraf-kvm" "$dir/target/debug/"
            LAB_ROOT=$dir cargo test --locked --test lab -- qemu_values::
        "#;
        let deb = format!("deb='{}'", file("_amd64.deb").display());
        let said = on_a_copy_of(
            &base.join("root"),
            dir.path(),
            &(deb + INSTALL_AND_RUN + lab),
        );
        wrote_the_test_host(&said);
        assert!(said.contains("test result: ok. "), "{suite}: {said}");
    }
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_deb_for_arm64_installs_and_runs() {
    let base = cache().join("roots/bullseye-arm64");
    let emulation = r#"
        mount -t binfmt_misc binfmt_misc /proc/sys/fs/binfmt_misc
        emulator=/proc/sys/fs/binfmt_misc/qemu-aarch64
        if [[ ! -e $emulator ]]; then
            # The kernel has one list of interpreters for all: what was not there goes again.
            cat /usr/lib/binfmt.d/qemu-aarch64.conf >/proc/sys/fs/binfmt_misc/register
            trap 'echo -1 >"$emulator"' EXIT
        fi
    "#;
    if !base.join("done").exists() {
        let _ = fs::remove_dir_all(&base);
        let make = r#"
            archive=$(apt-get indextargets --format '$(REPO_URI)' 'Created-By: Packages' 'Label: Debian' | head -n 1)
            debootstrap --arch=arm64 --variant=minbase bullseye "$1/root" "$archive"
            apt-config dump | grep -iE '^Acquire::(https?|ftp|Check-|Retries)' >"$1/root/etc/apt/apt.conf.d/90transport" || :
            touch "$1/done"
        "#;
        let mut unshare = Command::new(program("unshare"));
        unshare
            .args(["--mount", "--propagation", "private", "bash", "-euc"])
            .arg(emulation.to_owned() + make)
            .arg("-")
            .arg(&base)
            .env(
                "PATH",
                format!("{}:/usr/sbin:/sbin", std::env::var("PATH").unwrap()),
            );
        succeed(&mut unshare);
    }
    let dir = tempfile::tempdir_in(target()).unwrap();
    let deb = format!("deb='{}'", file("_arm64.deb").display());
    let machine = "\nin_root uname -m\n";
    let script = deb + emulation + machine + INSTALL_AND_RUN;
    let said = on_a_copy_of(&base.join("root"), dir.path(), &script);
    assert!(said.starts_with("aarch64\n"), "{said}");
    wrote_the_test_host(&said);
}
