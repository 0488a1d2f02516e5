//! `packaging/quickstart` and `tests/run` on other machines than this one: their PATH contains only
//! replacement scripts.

use rustix::process::{Pid, Signal, kill_process_group};
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{PermissionsExt, symlink};
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use tempfile::TempDir;

/// The programs that the scripts may expect on any machine.
const BASICS: [&str; 11] = [
    "cat", "chmod", "dirname", "grep", "head", "id", "mkdir", "sed", "sleep", "sort", "stat",
];

/// A cargo of a given version, which builds a program that answers like ours.
const CARGO: &str = r##"
case $1 in
--version) echo "cargo VERSION (0123abcd 2026-01-01)" ;;
build)
    echo "$*" >>"$HOME/cargo.log"
    mkdir -p "$CARGO_TARGET_DIR/release"
    {
        echo "#!/bin/bash"
        echo 'echo "$*" >>"$HOME/program.log"'
        echo 'while read -r _; do echo "line" >>"$HOME/program.log"; done'
        echo 'printf "vm_metrics,a=b c=1i 1\nvm_features,a=b c=1 1\nvm_devices,a=b c=1i 1\nLAST,a=b c=1i 1\n"'
    } | sed "s/LAST/${LAST:-vm_totals}/" >"$CARGO_TARGET_DIR/release/telegraf-kvm"
    chmod 755 "$CARGO_TARGET_DIR/release/telegraf-kvm"
    ;;
*) exit 1 ;;
esac
"##;

/// A package manager that logs its arguments, knows every package, and installs it at once.
const RECORD: &str = r#"echo "${0##*/} $*" >>"$HOME/arguments.log""#;

struct Machine {
    dir: TempDir,
}

impl Machine {
    fn new() -> Machine {
        let machine = Machine {
            dir: tempfile::tempdir().unwrap(),
        };
        std::fs::create_dir(machine.bin()).unwrap();
        for name in BASICS {
            let real = ["/usr/bin", "/bin"]
                .map(|folder| Path::new(folder).join(name))
                .into_iter()
                .find(|path| path.exists())
                .unwrap_or_else(|| panic!("no {name} on this machine"));
            symlink(real, machine.bin().join(name)).unwrap();
        }
        machine
    }

    fn bin(&self) -> PathBuf {
        self.dir.path().join("bin")
    }

    /// Puts a replacement script on the PATH.
    fn with(self, name: &str, script: &str) -> Machine {
        let path = self.bin().join(name);
        // The file must not be written through the symlink to the real program.
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, format!("#!/bin/bash\n{script}\n")).unwrap();
        std::fs::set_permissions(&path, PermissionsExt::from_mode(0o755)).unwrap();
        self
    }

    fn with_cargo(self, version: &str) -> Machine {
        self.with("cargo", &CARGO.replace("VERSION", version))
    }

    fn ordinary_user(self) -> Machine {
        self.with("id", "echo 1000")
    }

    fn run(&self, script: &str) -> Output {
        self.run_with(script, &[])
    }

    fn run_with(&self, script: &str, environment: &[(&str, &str)]) -> Output {
        Command::new(Path::new(env!("CARGO_MANIFEST_DIR")).join(script))
            .env_clear()
            .env("PATH", self.bin())
            .env("HOME", self.dir.path())
            .env("CARGO_TARGET_DIR", self.dir.path().join("target"))
            .envs(environment.iter().copied())
            .output()
            .unwrap()
    }

    /// The log of a replacement script.
    fn log(&self, name: &str) -> String {
        std::fs::read_to_string(self.dir.path().join(name)).unwrap_or_default()
    }
}

/// The script failed with a message of one sentence.
fn sentence(output: &Output) -> String {
    let stderr = String::from_utf8(output.stderr.clone()).unwrap();
    assert!(!output.status.success(), "{output:?}");
    assert_eq!(stderr.lines().count(), 1, "{stderr}");
    stderr.trim_end().to_owned()
}

/// The rust-version in Cargo.toml, as Cargo reports it.
const NEEDED: &str = env!("CARGO_PKG_RUST_VERSION");

const SCRIPTS: [&str; 3] = ["packaging/quickstart", "tests/run", ".ci/run"];

#[test]
fn without_cargo_it_names_rust_and_rustup() {
    for script in SCRIPTS {
        let said = sentence(&Machine::new().with("dnf", RECORD).run(script));
        assert_eq!(
            said,
            format!(
                "{script}: there is no cargo on the PATH: building needs Rust {NEEDED} or newer; \
                 get it by rustup, https://rustup.rs"
            )
        );
    }
}

#[test]
fn an_old_cargo_is_named_with_the_version_needed() {
    for (have, enough) in [("1.63.0", false), ("1.9.0", false), ("1.100.0", true)] {
        let machine = Machine::new().with("dnf", RECORD).with_cargo(have);
        let output = machine.run("packaging/quickstart");
        assert_eq!(output.status.success(), enough, "{have}: {output:?}");
        if !enough {
            assert_eq!(
                sentence(&output),
                format!(
                    "packaging/quickstart: the cargo on the PATH is {have}: building needs Rust \
                     {NEEDED} or newer; get it by rustup, https://rustup.rs"
                )
            );
            assert_eq!(
                machine.log("arguments.log"),
                "",
                "nothing installed in vain"
            );
        }
    }
}

#[test]
fn quickstart_builds_and_shows_two_gathers() {
    let machine = Machine::new().with("dnf", RECORD).with_cargo("1.95.0");
    let output = machine.run("packaging/quickstart");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        machine.log("arguments.log"),
        "dnf -q -y install gcc glibc-devel pkgconf-pkg-config libvirt-devel\n"
    );
    assert_eq!(machine.log("cargo.log"), "build --release --locked\n");
    assert_eq!(
        machine.log("program.log"),
        "--uri test:///default\nline\nline\n"
    );
    let shown = String::from_utf8(output.stdout).unwrap();
    for part in ["vm_metrics,", "vm_totals,"] {
        assert!(shown.contains(part), "no {part} in {shown}");
    }
    // The last words: a package, or the program in /usr/bin.
    let (_, last) = shown.split_once("\nOn a host with libvirt").unwrap();
    for part in [
        "packaging/build",
        "apt install ./DEB",
        "/release/telegraf-kvm /usr/bin/telegraf-kvm\n",
        "sudo -u telegraf telegraf-kvm --check\n",
        "telegraf/telegraf-kvm.conf /etc/telegraf/telegraf.d/",
    ] {
        assert!(last.contains(part), "no {part} in {last}");
    }
}

/// Telegraf runs as a user of its own, which cannot start a program in somebody's home.
#[test]
fn quickstart_names_a_folder_that_telegraf_may_not_enter() {
    let machine = Machine::new().with("dnf", RECORD).with_cargo("1.95.0");
    let home = std::fs::canonicalize(machine.dir.path()).unwrap();
    for (mode, named) in [(0o700, true), (0o750, true), (0o755, false), (0o711, false)] {
        std::fs::set_permissions(&home, PermissionsExt::from_mode(mode)).unwrap();
        let output = machine.run("packaging/quickstart");
        assert!(output.status.success(), "{output:?}");
        let shown = String::from_utf8(output.stdout).unwrap();
        let sentence = format!("user may not enter {},", home.display());
        assert_eq!(shown.contains(&sentence), named, "{mode:o}: {shown}");
        assert_eq!(shown.contains("may not enter"), named, "{mode:o}: {shown}");
    }
}

#[test]
fn quickstart_fails_when_a_measurement_is_not_shown() {
    let machine = Machine::new().with("dnf", RECORD).with_cargo("1.95.0");
    let output = machine.run_with("packaging/quickstart", &[("LAST", "vm_total")]);
    assert_eq!(
        sentence(&output),
        "packaging/quickstart: vm_totals is not among these lines"
    );
}

#[test]
fn quickstart_installs_only_what_is_missing() {
    let machine = Machine::new()
        .with("apt-get", RECORD)
        .with("env", r#"shift; exec "$@""#)
        .with("tee", "cat >/dev/null")
        .with("rm", "")
        .with("pkg-config", "")
        // A compiler that finds every header except libvirt's.
        .with("cc", "! grep -q libvirt")
        .with_cargo("1.95.0");
    // The script may stop at chmod if this machine has no policy-rc.d of its own.
    let machine = machine.with(
        "chmod",
        r#"[[ $2 == /usr/sbin/* ]] || PATH=/usr/bin:/bin exec chmod "$@""#,
    );
    let output = machine.run("packaging/quickstart");
    assert!(output.status.success(), "{output:?}");
    assert_eq!(
        machine.log("arguments.log"),
        "apt-get -q update\napt-get -q -y -o DPkg::Lock::Timeout=600 install \
         --no-install-recommends libvirt-dev\n"
    );

    let machine = machine.with("cc", "");
    std::fs::remove_file(machine.dir.path().join("arguments.log")).unwrap();
    assert!(machine.run("packaging/quickstart").status.success());
    assert_eq!(
        machine.log("arguments.log"),
        "",
        "the second run installs nothing"
    );
}

/// The first update of a new machine holds the lock for a while. Any other failure is not retried.
#[test]
fn the_lists_are_waited_for_while_another_apt_has_their_lock() {
    for (error, updates) in [
        ("E: Could not get lock /var/lib/apt/lists/lock.", 3),
        ("E: Failed to fetch", 1),
    ] {
        let apt = format!(
            "{RECORD}\n[[ $* == *update ]] || exit 0\n\
             [[ $(grep -c update \"$HOME/arguments.log\") -lt 3 ]] || exit 0\n\
             echo '{error}' >&2\nexit 100"
        );
        let machine = Machine::new()
            .with("apt-get", &apt)
            .with("env", r#"shift; exec "$@""#)
            .with("tee", "cat >/dev/null")
            .with(
                "chmod",
                r#"[[ $2 == /usr/sbin/* ]] || PATH=/usr/bin:/bin exec chmod "$@""#,
            )
            .with("rm", "")
            .with("sleep", "")
            .with("pkg-config", "")
            .with("cc", "! grep -q libvirt")
            .with_cargo("1.95.0");
        let output = machine.run("packaging/quickstart");
        assert!(output.status.success(), "{output:?}");
        let arguments = machine.log("arguments.log");
        assert_eq!(
            arguments.matches("update").count(),
            updates,
            "{error}: {arguments}"
        );
        assert_eq!(arguments.matches(" install ").count(), 1, "{arguments}");
    }
}

/// bash that runs `command` as an installation, during which no package starts its service, in a folder that has
/// `policy-rc.d` in that time.
fn installation(command: &str) -> (Command, PathBuf, TempDir) {
    let dir = tempfile::tempdir().unwrap();
    let policy = dir.path().join("policy-rc.d");
    let need = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/need.sh");
    let need = std::fs::read_to_string(need).unwrap();
    let own = need.replace("/usr/sbin/policy-rc.d", policy.to_str().unwrap());
    assert_ne!(own, need);
    let script = format!("{own}\nprivilege() {{ :; }}\nwithout_services {command}");
    // A test run in the background ignores Ctrl-C, and so would this.
    let mut bash = Command::new("env");
    bash.args(["--default-signal=INT", "bash", "-euc", &script])
        .current_dir(dir.path())
        .stdout(Stdio::piped())
        .process_group(0);
    (bash, policy, dir)
}

#[test]
fn an_installation_that_failed_leaves_no_policy() {
    for (command, code) in [
        ("sh -c 'test -x policy-rc.d; exit $?'", 0),
        ("sh -c 'exit 7'", 7),
    ] {
        let (mut bash, policy, _dir) = installation(command);
        assert_eq!(bash.status().unwrap().code(), Some(code), "{command}");
        assert!(!policy.exists(), "{command}");
    }
}

#[test]
fn ctrl_c_leaves_no_policy() {
    let (mut bash, policy, _dir) =
        installation("sh -c 'test -x policy-rc.d && echo begun; exec sleep 1000'");
    let mut child = bash.spawn().unwrap();
    let mut line = String::new();
    let mut stdout = BufReader::new(child.stdout.take().unwrap());
    stdout.read_line(&mut line).unwrap();
    // To all of them, as a terminal does.
    let group = Pid::from_raw(child.id().cast_signed()).unwrap();
    kill_process_group(group, Signal::INT).unwrap();
    let status = child.wait().unwrap();
    assert_eq!(line, "begun\n");
    assert_eq!(status.signal(), Some(Signal::INT.as_raw()));
    assert!(!policy.exists());
}

#[test]
fn without_a_package_manager_it_names_the_packages() {
    let said = sentence(
        &Machine::new()
            .with_cargo("1.95.0")
            .with("cc", "")
            .run("packaging/quickstart"),
    );
    assert_eq!(
        said,
        "packaging/quickstart: these are missing, and there is neither apt-get nor dnf to install \
         them by (Debian's names): pkg-config"
    );
    let said = sentence(&Machine::new().with_cargo("1.95.0").run("tests/run"));
    assert!(said.starts_with("tests/run: "), "{said}");
    assert!(said.contains("neither apt-get nor dnf"), "{said}");
}

#[test]
fn an_ordinary_user_installs_by_sudo() {
    let machine = Machine::new()
        .with("dnf", RECORD)
        .ordinary_user()
        .with_cargo("1.95.0");
    assert_eq!(
        sentence(&machine.run("packaging/quickstart")),
        "packaging/quickstart: installing needs root or sudo; as root: dnf install gcc glibc-devel \
         pkgconf-pkg-config libvirt-devel"
    );
    assert_eq!(
        sentence(&machine.run("tests/run")),
        "tests/run: the tests make hypervisors of their own, which needs root or sudo"
    );

    let machine = machine.with("sudo", &format!("{RECORD}\nexec \"$@\""));
    assert!(machine.run("packaging/quickstart").status.success());
    assert_eq!(
        machine.log("arguments.log"),
        "sudo dnf -q -y install gcc glibc-devel pkgconf-pkg-config libvirt-devel\n\
         dnf -q -y install gcc glibc-devel pkgconf-pkg-config libvirt-devel\n"
    );
}

#[test]
fn the_tests_ask_dnf_for_fedoras_names() {
    let machine = Machine::new()
        .with_cargo("1.95.0")
        .with("cc", "")
        .with("pkg-config", "")
        .with("dnf", &format!("{RECORD}\n[[ $* != *install* ]]"));
    assert_eq!(
        sentence(&machine.run("tests/run")),
        "tests/run: dnf could not install these; its words are above: libvirt-daemon \
         libvirt-daemon-driver-qemu libvirt-daemon-driver-storage-core libvirt-client \
         qemu-system-x86-core busybox iproute cpio xz \
         util-linux-core bindfs openssl git python3 nats-server golang-github-prometheus influxdb \
         telegraf"
    );
    let arguments = machine.log("arguments.log");
    assert_eq!(
        arguments.lines().last().unwrap(),
        "dnf -q -y install libvirt-daemon libvirt-daemon-driver-qemu \
         libvirt-daemon-driver-storage-core libvirt-client qemu-system-x86-core busybox iproute cpio \
         xz util-linux-core bindfs openssl git python3 nats-server golang-github-prometheus influxdb telegraf"
    );
}

#[test]
fn what_no_package_has_is_said_with_where_to_get_it() {
    // A dnf without InfluxDB, then one without Telegraf either, with and without Go.
    let machine = |unknown: &str| {
        Machine::new()
            .with_cargo("1.95.0")
            .with("dnf", &format!("{RECORD}\n[[ $* != *{unknown}* ]]"))
    };
    assert_eq!(
        sentence(&machine("influxdb").run("tests/run")),
        "tests/run: InfluxDB 1.x is missing, and no package here is called influxdb: get it from \
         https://www.influxdata.com/downloads/"
    );
    let telegraf = "tests/run: Telegraf is missing, no package here is called telegraf, and there \
                    is no Go 1.21 or newer to build it: get it from \
                    https://www.influxdata.com/downloads/";
    let with_go = |version: &str| {
        machine("telegraf").with(
            "go",
            &format!("[[ $2 == GOPATH ]] && echo /nowhere || echo {version}"),
        )
    };
    assert_eq!(sentence(&machine("telegraf").run("tests/run")), telegraf);
    assert_eq!(sentence(&with_go("go1.19.8").run("tests/run")), telegraf);
    let newer = with_go("go1.21.0");
    newer.run("tests/run");
    assert!(
        newer.log("arguments.log").contains("install"),
        "Go will build it"
    );
}
