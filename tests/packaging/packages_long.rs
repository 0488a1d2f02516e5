//! Builds the packages and installs them in a clean Debian: `tests/run --long` runs these tests (they take
//! minutes and download from Debian's archive). They need the programs that `packaging/build` needs,
//! debootstrap, lintian and rpmlint; on a machine without apt they cannot run. [`release`] does the same with the
//! packages of `packaging/release`.

mod release;

use crate::support::lab::Lab;
use crate::support::{cache, copy_program, fleet, program, run, succeed};
use std::fs;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::OnceLock;
use std::time::{Duration, Instant};
use tempfile::TempDir;

fn checkout() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn target() -> PathBuf {
    cache().parent().unwrap().to_owned()
}

/// The two packages, and an older version of each with the same program.
struct Packages {
    deb: PathBuf,
    rpm: PathBuf,
    old_deb: PathBuf,
    old_rpm: PathBuf,
}

/// Runs `packaging/build` in `folder`. Returns the paths that it prints at its end: deb, rpm.
fn build(folder: &Path, target: &Path) -> (PathBuf, PathBuf) {
    let mut command = Command::new(folder.join("packaging/build"));
    let tools = cache().parent().unwrap().join("packaging-tools/bin");
    let path = std::env::var("PATH").unwrap();
    command
        .env("CARGO_TARGET_DIR", target)
        .env("PATH", format!("{path}:{}", tools.display()));
    let said = succeed(&mut command);
    let mut paths = said.lines().rev().map(PathBuf::from);
    let (rpm, deb) = (paths.next().unwrap(), paths.next().unwrap());
    assert!(rpm.is_file() && deb.is_file(), "{said}");
    (deb, rpm)
}

fn packages() -> &'static Packages {
    static PACKAGES: OnceLock<Packages> = OnceLock::new();
    PACKAGES.get_or_init(|| {
        let target = target();
        let (deb, rpm) = build(checkout(), &target);
        let old_deb = target.join("older.deb");
        let old_rpm = target.join("older.rpm");
        let cargo = |args: &[&str]| {
            let path = std::env::var("PATH").unwrap();
            let tools = target.join("packaging-tools/bin");
            let mut command = Command::new("cargo");
            command
                .args(args)
                .current_dir(checkout())
                .env("CARGO_TARGET_DIR", &target)
                .env("PATH", format!("{path}:{}", tools.display()));
            succeed(&mut command)
        };
        // cargo-deb deletes the package that it made before.
        let kept = fs::read(&deb).unwrap();
        let output = old_deb.to_str().unwrap();
        cargo(&[
            "deb",
            "--no-build",
            "--deb-version",
            "0.0.1-1",
            "-o",
            output,
        ]);
        fs::write(&deb, kept).unwrap();
        let output = old_rpm.to_str().unwrap();
        cargo(&["generate-rpm", "-s", "version = \"0.0.1\"", "-o", output]);
        Packages {
            deb,
            rpm,
            old_deb,
            old_rpm,
        }
    })
}

/// A minimal Debian of this machine's release, and the folders that are mounted into it while a command runs.
struct Root {
    dir: TempDir,
    lab: Lab,
}

impl Root {
    /// A root with Telegraf and its user, as Telegraf's own package makes them, and a hypervisor with one VM.
    fn new() -> Root {
        let lab = Lab::start_reachable();
        lab.create(&fleet::small("one".to_owned()));
        let dir = tempfile::tempdir().unwrap();
        let base = base();
        succeed(
            Command::new("cp")
                .args(["-a", "--"])
                .arg(base.join("."))
                .arg(dir.path()),
        );
        let root = Root { dir, lab };
        copy_program(program("telegraf"), &root.path("usr/bin/telegraf"));
        // The user's number must also be in the user database of this machine, for its libvirtd.
        root.sh(
            "useradd --system --no-create-home --non-unique --uid 65534 --gid nogroup telegraf && \
             mkdir -p /etc/telegraf/telegraf.d",
        );
        let conf = "[agent]\ninterval = \"500ms\"\nflush_interval = \"500ms\"\n\
                    [[inputs.internal]]\n[[outputs.file]]\nfiles = [\"/tmp/out\"]\n";
        fs::write(root.path("etc/telegraf/telegraf.conf"), conf).unwrap();
        root
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn exists(&self, name: &str) -> bool {
        self.path(name).symlink_metadata().is_ok()
    }

    /// Runs a script in the root, as root, with the lab's sockets in /run/libvirt.
    fn try_sh(&self, script: &str) -> Output {
        let mounts = "mkdir -p \"$1/run/libvirt\" && mount -t proc proc \"$1/proc\" && \
                      mount --bind \"$2\" \"$1/run/libvirt\" && exec chroot \"$1\" sh -euc \"$3\"";
        run(Command::new("unshare")
            .args(["--mount", "--pid", "--fork", "--kill-child"])
            .args(["sh", "-euc", mounts, "-"])
            .arg(self.dir.path())
            .arg(self.lab.dir().join("sockets"))
            .arg(script)
            .env(
                "PATH",
                "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
            )
            .env("DEBIAN_FRONTEND", "noninteractive")
            .env("LC_ALL", "C"))
    }

    /// The same; the script must succeed. Returns its stdout and stderr.
    fn sh(&self, script: &str) -> String {
        let output = self.try_sh(script);
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        assert!(
            output.status.success(),
            "{script}: {}\n{said}",
            output.status
        );
        said.into_owned()
    }

    /// Copies a package into the root and returns its path inside.
    fn put(&self, package: &Path) -> String {
        let name = format!("tmp/{}", package.file_name().unwrap().to_str().unwrap());
        fs::copy(package, self.path(&name)).unwrap();
        format!("/{name}")
    }

    /// Telegraf starts as the user telegraf and still runs after seconds. Returns whether lines of VMs came.
    fn telegraf_starts(&self) -> bool {
        let _ = fs::remove_file(self.path("tmp/out"));
        let output = self.try_sh(&format!("exec timeout 8 {TELEGRAF}"));
        let log = String::from_utf8_lossy(&output.stderr);
        // timeout's exit code for a command that was still running.
        assert_eq!(output.status.code(), Some(124), "{log}");
        assert!(!log.contains("E!"), "{log}");
        let out = fs::read_to_string(self.path("tmp/out")).unwrap();
        assert!(out.contains("internal_agent"), "{out}");
        out.contains("vm_metrics,")
    }

    /// The program as the service user, in no group but its own, on the read-only socket.
    fn plugin_serves_telegrafs_user(&self) {
        let said = self.sh(
            "setpriv --reuid telegraf --regid nogroup --init-groups sh -euc 'id -G | wc -w; \
             test ! -w /run/libvirt/libvirt-sock; telegraf-kvm --check; telegraf-kvm --once'",
        );
        assert!(said.starts_with("1\n"), "{said}");
        assert!(said.contains("connected: 1 active VM\n"), "{said}");
        for measurement in ["vm_metrics", "vm_devices", "vm_totals"] {
            assert!(said.contains(&format!("\n{measurement},")), "{said}");
        }
    }

    /// Files whose name contains the program's, except those that this test put into /tmp.
    fn traces(&self) -> String {
        self.sh(
            "find / -xdev -path /proc -prune -o -path /tmp -prune -o -name '*telegraf?kvm*' -print",
        )
    }
}

/// A root as debootstrap makes it, kept between runs.
fn base() -> PathBuf {
    let base = cache().join("root");
    if !base.join("done").exists() {
        let _ = fs::remove_dir_all(&base);
        let release =
            succeed(Command::new("sh").args(["-c", ". /etc/os-release; echo $VERSION_CODENAME"]));
        let release = release.trim();
        let targets = [
            "indextargets",
            "--format",
            "$(REPO_URI)",
            "Created-By: Packages",
        ];
        let of = format!("Codename: {release}");
        let archive = succeed(Command::new("apt-get").args(targets).arg(of));
        let archive = archive
            .lines()
            .next()
            .expect("apt has an archive of this release");
        succeed(
            Command::new(program("debootstrap"))
                .args(["--variant=minbase", release])
                .arg(&base)
                .arg(archive),
        );
        fs::write(base.join("done"), "").unwrap();
    }
    base
}

const STANZA: &str = "etc/telegraf/telegraf.d/telegraf-kvm.conf";
const ENABLE: &str =
    "install -m 0644 /usr/share/telegraf-kvm/telegraf-kvm.conf /etc/telegraf/telegraf.d/";
const TELEGRAF: &str = "setpriv --reuid telegraf --regid nogroup --init-groups telegraf \
                        --config /etc/telegraf/telegraf.conf --config-directory /etc/telegraf/telegraf.d";
const ENABLED_HINT: &str = "Telegraf has a stanza already; it starts the program when it reloads";
const UPGRADE_HINT: &str =
    "the old program runs on until Telegraf reloads; as root: systemctl reload-or-restart telegraf";

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_deb_comes_and_goes_in_a_clean_root() {
    let packages = packages();
    let root = Root::new();
    assert!(!root.telegraf_starts());
    root.sh("apt-get -q update");
    let [old, new] = [&packages.old_deb, &packages.deb].map(|deb| root.put(deb));
    let install = |deb: &str| {
        root.sh(&format!(
            "apt-get -q -y install --no-install-recommends {deb}"
        ))
    };

    let said = install(&old);
    assert!(said.contains(ENABLE), "{said}");
    assert!(!root.exists(STANZA));
    assert_eq!(
        root.sh("stat -c '%U:%G %a' /etc/telegraf-kvm/config.toml"),
        "root:root 644\n"
    );
    assert!(!root.telegraf_starts());
    root.plugin_serves_telegrafs_user();
    root.sh(ENABLE);
    assert!(root.telegraf_starts());

    root.sh("echo 'workers = 2' >>/etc/telegraf-kvm/config.toml; rm /tmp/out");
    let said = root.sh(&format!(
        "{TELEGRAF} >/dev/null 2>&1 & telegraf=$!; \
         until grep -qs vm_metrics /tmp/out; do sleep 0.1; done; \
         apt-get -q -y install --no-install-recommends {new}; kill $telegraf; wait || true"
    ));
    assert!(said.contains(UPGRADE_HINT), "{said}");
    assert!(
        root.sh("cat /etc/telegraf-kvm/config.toml")
            .ends_with("workers = 2\n")
    );
    assert!(root.telegraf_starts());

    let said = root.sh("apt-get -q -y remove telegraf-kvm");
    assert!(said.contains("is removed, as its program is"), "{said}");
    assert!(!root.exists(STANZA) && root.exists("etc/telegraf-kvm/config.toml"));
    assert!(!root.telegraf_starts());

    let said = install(&new);
    assert!(said.contains(ENABLE), "{said}");
    root.sh(&format!(
        "{ENABLE}; echo '# ours' >>/{STANZA}; echo telegraf-kvm >/etc/telegraf/notes"
    ));
    assert!(root.telegraf_starts());
    let said = root.sh("apt-get -q -y remove telegraf-kvm");
    assert!(
        said.contains("differs from the one of this package: it is now"),
        "{said}"
    );
    assert!(said.contains("/etc/telegraf/notes names"), "{said}");
    assert!(root.exists(&format!("{STANZA}.package-removed")));
    assert!(!root.telegraf_starts());

    let said = install(&new);
    let back = said.lines().find(|line| line.starts_with("  mv "));
    let back = back.unwrap_or_else(|| panic!("the kept stanza is not offered: {said}"));
    root.sh(back.split(" && ").next().unwrap());
    assert!(root.telegraf_starts());
    // Nothing ran while it was away.
    root.sh("apt-get -q -y remove telegraf-kvm; cd /etc/telegraf/telegraf.d; cp *.package-removed kvm.conf");
    let said = install(&new);
    assert!(
        said.contains(ENABLED_HINT) && !said.contains("old program"),
        "{said}"
    );
    root.sh("rm /etc/telegraf/telegraf.d/kvm.conf /usr/share/telegraf-kvm/stanza");
    let said = root.sh("apt-get -q -y remove telegraf-kvm");
    assert!(
        said.contains("/stanza: take what names telegraf-kvm"),
        "{said}"
    );

    root.sh("apt-get -q -y purge telegraf-kvm");
    assert_eq!(root.traces(), "");
    assert!(!root.telegraf_starts());
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_rpm_comes_and_goes_in_a_root() {
    let packages = packages();
    let root = Root::new();
    root.sh("apt-get -q update; apt-get -q -y install --no-install-recommends libvirt0");
    let rpm = |args: &[&str], package: &Path| {
        let mut command = Command::new(program("rpm"));
        command
            .arg("--root")
            .arg(root.dir.path())
            .args(args)
            .arg(package);
        let output = run(&mut command);
        let said =
            String::from_utf8_lossy(&output.stdout) + String::from_utf8_lossy(&output.stderr);
        (output.status.success(), said.into_owned())
    };
    // According to rpm the root does not provide what the package needs, so the package must not install.
    let (done, said) = rpm(&["--install"], &packages.old_rpm);
    assert!(!done);
    for needed in ["libvirt.so.0(LIBVIRT_1.2.8)", "libc.so.6(GLIBC_2.34)"] {
        assert!(said.contains(needed), "{said}");
    }
    let (done, said) = rpm(&["--install", "--nodeps"], &packages.old_rpm);
    assert!(done && said.contains(ENABLE), "{said}");
    assert!(!root.telegraf_starts());
    root.plugin_serves_telegrafs_user();
    root.sh(ENABLE);
    assert!(root.telegraf_starts());
    root.sh("echo 'workers = 2' >>/etc/telegraf-kvm/config.toml");

    let (done, said) = rpm(&["--upgrade", "--nodeps"], &packages.rpm);
    assert!(done && said.contains(ENABLED_HINT), "{said}");
    assert!(
        root.sh("cat /etc/telegraf-kvm/config.toml")
            .ends_with("workers = 2\n")
    );
    assert!(root.telegraf_starts());

    root.sh(&format!("echo '# ours' >>/{STANZA}"));
    let (done, said) = rpm(&["--erase"], Path::new("telegraf-kvm"));
    assert!(
        done && said.contains("differs from the one of this package: it is now"),
        "{said}"
    );
    assert!(!root.exists("usr/bin/telegraf-kvm") && !root.exists(STANZA));
    assert!(!root.telegraf_starts());
    let left = format!("/{STANZA}.package-removed\n/etc/telegraf-kvm\n");
    assert_eq!(
        root.traces(),
        left,
        "the edited files stay: rpm knows no purge"
    );

    let (done, said) = rpm(&["--install", "--nodeps"], &packages.rpm);
    assert!(done, "{said}");
    root.sh("rm /usr/share/telegraf-kvm/stanza");
    let (done, said) = rpm(&["--erase"], Path::new("telegraf-kvm"));
    assert!(
        done && said.contains("/stanza: take what names telegraf-kvm"),
        "{said}"
    );
    assert!(!root.exists("usr/bin/telegraf-kvm"));
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_checkers_find_no_error() {
    let packages = packages();
    succeed(
        Command::new(program("lintian"))
            .args(["--fail-on", "error"])
            .arg(&packages.deb),
    );
    let config = checkout().join("packaging/rpmlint.toml");
    succeed(
        Command::new(program("rpmlint"))
            .arg("--config")
            .arg(config)
            .arg(&packages.rpm),
    );
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_deb_names_every_crate_and_its_license() {
    let packages = packages();
    let dir = tempfile::tempdir().unwrap();
    succeed(
        Command::new("dpkg-deb")
            .arg("-x")
            .arg(&packages.deb)
            .arg(dir.path()),
    );
    let file = dir.path().join("usr/share/doc/telegraf-kvm/copyright");
    let copyright = fs::read_to_string(file).unwrap();
    let tree = [
        "tree",
        "--locked",
        "--edges",
        "normal,no-proc-macro",
        "--prefix",
        "none",
    ];
    let mut cargo = Command::new("cargo");
    let tree = succeed(
        cargo
            .args(tree)
            .args(["--format", "{p}"])
            .current_dir(checkout()),
    );
    let mut count = 0;
    for package in tree.lines().skip(1) {
        let mut words = package.split_whitespace();
        let (name, version) = (words.next().unwrap(), words.next().unwrap());
        let head = format!("\nFiles: {name}-{}\nCopyright: ", &version[1..]);
        assert!(
            copyright.contains(&head),
            "{package} is not in:\n{copyright}"
        );
        count += 1;
    }
    assert!(count > 10, "{tree}");
    for license in ["MIT", "LGPL-2.1+"] {
        let text = copyright.contains(&format!("\n\nLicense: {license}\n "));
        assert!(text, "no text of {license}");
    }
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_program_is_small_and_quick_to_start() {
    let _ = packages();
    let program = target().join("release/telegraf-kvm");
    // 2.50 MB at 31,000 lines of source; 1.64 MB at 13,600 lines. Opt-level "s" would make it 1.93 MB, for 5 % more
    // processor time at 10,000 VMs. The bound is for what comes in unnoticed: a crate, debug information.
    assert!(fs::metadata(&program).unwrap().len() < 2_750_000);
    let mut times: Vec<Duration> = (0..20)
        .map(|_| {
            let start = Instant::now();
            let mut child = Command::new(&program)
                .args(["--once", "--uri", "test:///default"])
                .stdout(Stdio::piped())
                .spawn()
                .unwrap();
            let mut line = String::new();
            let mut stdout = BufReader::new(child.stdout.take().unwrap());
            stdout.read_line(&mut line).unwrap();
            let time = start.elapsed();
            assert!(line.starts_with("vm_metrics,"), "{line}");
            std::io::copy(&mut stdout, &mut std::io::sink()).unwrap();
            assert!(child.wait().unwrap().success());
            time
        })
        .collect();
    times.sort();
    println!(
        "start to first line: median {:?}, most {:?}",
        times[10], times[19]
    );
    assert!(times[10] < Duration::from_millis(50), "{times:?}");
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn the_deb_holds_no_path_of_this_machine() {
    let packages = packages();
    let dir = tempfile::tempdir().unwrap();
    let mut extract = Command::new("dpkg-deb");
    succeed(extract.arg("-x").arg(&packages.deb).arg(dir.path()));
    let program = fs::read(dir.path().join("usr/bin/telegraf-kvm")).unwrap();
    let program = String::from_utf8_lossy(&program);
    for path in paths_of_this_machine() {
        let found = program.find(&path).map(|at| &program[at..]);
        let shown: Option<String> = found.map(|text| text.chars().take(200).collect());
        assert_eq!(shown, None, "{path}");
    }
}

/// What a program that was built here must not hold.
fn paths_of_this_machine() -> Vec<String> {
    let sysroot = succeed(Command::new("rustc").args(["--print", "sysroot"]));
    let home = std::env::var("HOME").unwrap();
    let cargo = std::env::var("CARGO_HOME").unwrap_or(format!("{home}/.cargo"));
    // Each of these folders has the name of the host that the crates came from.
    let sources = fs::read_dir(Path::new(&cargo).join("registry/src")).unwrap();
    let mut paths: Vec<String> = sources
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    let [checkout, target] = [checkout(), &target()].map(|path| path.to_str().unwrap().to_owned());
    paths.extend([checkout, target, cargo, sysroot.trim().to_owned()]);
    // OpenStack's metadata has an `instance/root`, which is no home.
    paths.extend([format!("{home}/"), "/registry/src/".to_owned()]);
    paths
}

#[test]
#[ignore = "takes minutes: tests/run --long"]
fn two_builds_of_one_commit_are_the_same_bytes() {
    let mut built = Vec::new();
    // The paths have different lengths, which must make no difference.
    for name in ["a", "another"] {
        let dir = tempfile::Builder::new().prefix(name).tempdir().unwrap();
        let folder = dir.path().join("checkout");
        succeed(
            Command::new("git")
                .args(["clone", "-q"])
                .arg(checkout())
                .arg(&folder),
        );
        let (deb, rpm) = build(&folder, &dir.path().join("target"));
        built.push((fs::read(deb).unwrap(), fs::read(rpm).unwrap()));
    }
    assert!(built[0].0 == built[1].0, "the debs differ");
    assert!(built[0].1 == built[1].1, "the rpms differ");
}
