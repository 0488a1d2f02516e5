//! A throw-away hypervisor (`tests/lab/hypervisor`): a libvirtd, QEMUs, a bridge and taps of its own.

use super::turn::{self, Turn};
use super::vm::{Vm, VmSpec};
use super::{cache, child_of, copy_program, program, run, succeed, wait_for};
use std::collections::BTreeMap;
use std::fs::Permissions;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};
use std::time::Duration;
use tempfile::TempDir;

/// The bridge's address inside every lab; guests take others of 192.168.77.0/24.
pub const BRIDGE: &str = "192.168.77.1";

/// An ordinary user without rights that every machine has: libvirt's client library needs an entry in the
/// user database.
const NOBODY: u32 = 65534;

/// The variable that names a folder made by `tests/matrix/root`: every lab then runs on that Debian, with its
/// libvirtd, QEMU and tools, and telegraf-kvm as it was built there (`tests/run --matrix`).
const ROOT: &str = "LAB_ROOT";

/// The variable that names the lab's daemon if it is not libvirtd: `virtqemud`, the modular one.
const DAEMON: &str = "LAB_DAEMON";

/// The path of the daemon's configuration, for libvirtd and virtqemud.
const CONFIGURATION: &str = "/etc/libvirt/libvirtd.conf";

/// The folders of a root's programs.
const ROOT_FOLDERS: [&str; 4] = ["/usr/sbin", "/usr/bin", "/sbin", "/bin"];

/// The dynamic loader, which starts a program with other libraries than its system's.
const LOADER: &str = "/lib64/ld-linux-x86-64.so.2";

/// The first of setpriv's arguments.
const PRIVILEGES: &str = "--clear-groups";

/// A running hypervisor. When it is dropped, it ends with all its VMs; panics then if its libvirtd has crashed.
pub struct Lab {
    unshare: Child,
    init: u32,
    prefix: String,
    dir: TempDir,
    /// The folder of another Debian, see [`ROOT`].
    root: Option<PathBuf>,
    daemon: String,
    /// Whether a test has ended the daemon.
    is_ended: AtomicBool,
    vms: AtomicU32,
    /// The turn is given back after everything else is gone.
    _turn: Turn,
}

impl Lab {
    /// Waits for the turn of the test's module, starts a hypervisor and waits until its libvirtd answers.
    /// Needs root and the programs that `tests/run` installs; panics and names what is missing.
    pub fn start() -> Lab {
        Lab::start_with(false)
    }

    /// The same, for a lab whose libvirtd other labs reach by [`Lab::uri_for_others`].
    pub fn start_reachable() -> Lab {
        Lab::start_with(true)
    }

    fn start_with(reachable: bool) -> Lab {
        static COUNT: AtomicU32 = AtomicU32::new(0);
        let turn = turn::take();
        assert!(
            rustix::process::geteuid().is_root(),
            "a hypervisor needs root: run tests/run, which asks for it by sudo"
        );
        let root = std::env::var_os(ROOT).map(PathBuf::from);
        let daemon = std::env::var(DAEMON).unwrap_or_else(|_| "libvirtd".to_owned());
        // A root contains what tests/matrix/root installed there.
        if root.is_none() {
            for needed in [&*daemon, "virsh", "qemu-system-x86_64", "ip", "unshare"] {
                program(needed);
            }
        }
        let prefix = format!(
            "tk{}x{}",
            std::process::id(),
            COUNT.fetch_add(1, Ordering::Relaxed)
        );
        // The folder has the name of this test program, so a folder that was left behind shows where it came
        // from. Other users may pass through it.
        let dir = tempfile::Builder::new()
            .prefix(&format!("telegraf-kvm-{prefix}-"))
            .permissions(Permissions::from_mode(0o755))
            .tempdir()
            .unwrap();
        let errors = std::fs::File::create(dir.path().join("hypervisor.log")).unwrap();
        let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/lab/hypervisor");
        let mut unshare = Command::new(program("unshare"))
            .args(["--mount", "--net", "--pid", "--uts", "--fork"])
            .args(["--kill-child", "--mount-proc", "--propagation", "private"])
            .arg(script)
            .arg(&prefix)
            .args(reachable.then(|| dir.path().join("sockets")))
            .env_remove("LIBVIRT_DEFAULT_URI")
            .envs(root.iter().flat_map(|_| seen_in_root()))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(errors)
            // The hypervisor must not get a terminal's Ctrl-C: its stdin closes when this process ends, and
            // then it cleans up.
            .process_group(0)
            .spawn()
            .unwrap();
        let mut said = String::new();
        let stdout = unshare.stdout.take().unwrap();
        BufReader::new(stdout).read_line(&mut said).unwrap();
        if said != "ready\n" {
            let log = std::fs::read_to_string(dir.path().join("hypervisor.log")).unwrap();
            panic!("the hypervisor did not start:\n{log}");
        }
        let init = child_of(unshare.id()).expect("unshare has a child");
        Lab {
            unshare,
            init,
            prefix,
            dir,
            root,
            daemon,
            is_ended: AtomicBool::new(false),
            vms: AtomicU32::new(0),
            _turn: turn,
        }
    }

    /// The lab's own folder, which has the same path inside and outside: disk images, consoles, files of
    /// tests.
    pub fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// The beginning of every VM's name in this lab: control groups are not isolated, and a VM with the same
    /// id and name as another lab's would share its control group and so its CPU time.
    pub fn prefix(&self) -> &str {
        &self.prefix
    }

    /// The lab's first process, as this process numbers it: `/proc/INIT/root/` is the lab's `/`.
    pub fn init(&self) -> u32 {
        self.init
    }

    /// A command inside the lab, in the folder `/` and a process group of its own, which is killed with the
    /// process of its handle. The handle is nsenter's: [`child_of`] its id is the program.
    pub fn command(&self, name: &str) -> Command {
        let mut command = Command::new(program("nsenter"));
        command
            .arg(format!("--target={}", self.init))
            .args(["--mount", "--net", "--pid", "--uts"])
            .args(self.program("setpriv"))
            .args(["--pdeathsig", "KILL"])
            .args(self.program(name))
            .env_remove("LIBVIRT_DEFAULT_URI")
            // When the program is killed, its children go to the lab's init, whose group is another one of this
            // session. If such a child is in the group of the tests, then at its end the kernel can send SIGHUP
            // and SIGCONT to all of that group while a process of it is stopped, such as the server of a mount
            // (kill_orphaned_pgrp in kernel/exit.c).
            .process_group(0);
        if self.root.is_some() {
            command.env("PATH", ROOT_FOLDERS.join(":"));
        }
        command
    }

    /// A program of this machine, with this machine's files, in the network of the lab.
    pub fn command_in_network(&self, path: &Path) -> Command {
        let mut command = Command::new(program("nsenter"));
        command
            .args([format!("--target={}", self.init), "--net".into()])
            .arg(program("setpriv"))
            .args(["--pdeathsig", "KILL"])
            .arg(path);
        command
    }

    /// The words that run the program `name` inside the lab: the root's own program, else this machine's,
    /// with this machine's libraries.
    fn program(&self, name: &str) -> Vec<PathBuf> {
        let Some(root) = self.root.as_ref().filter(|_| !name.contains('/')) else {
            let path = name.contains('/').then(|| PathBuf::from(name));
            return vec![path.unwrap_or_else(|| program(name))];
        };
        let own = ROOT_FOLDERS.map(|folder| Path::new(folder).join(name));
        // A link in the root may point to a path that exists only there.
        let there = |path: &&PathBuf| {
            let path = root.join("root").join(path.strip_prefix("/").unwrap());
            path.symlink_metadata().is_ok()
        };
        if let Some(own) = own.iter().find(there) {
            return vec![own.clone()];
        }
        let ours = program(name).canonicalize().unwrap();
        let is_dynamic = run(Command::new(LOADER).arg("--verify").arg(&ours))
            .status
            .success();
        let at = |path: &Path| Path::new("/mnt").join(path.strip_prefix("/").unwrap());
        // Other file systems are not visible below /mnt, but all paths in LAB_PATHS are.
        let ours = if ours.starts_with(cache().canonicalize().unwrap()) {
            ours
        } else {
            at(&ours)
        };
        if !is_dynamic {
            return vec![ours];
        }
        let libraries = ["/mnt/lib/x86_64-linux-gnu", "/mnt/usr/lib/x86_64-linux-gnu"];
        let libraries = [libraries.as_slice(), &["/mnt/lib64", "/mnt/usr/lib64"]].concat();
        let words = ["--library-path".to_owned(), libraries.join(":")];
        let words = words.map(PathBuf::from);
        // The path is resolved here: inside the root an absolute link leads to the root's loader, which
        // belongs to another libc.
        let loader = at(&Path::new(LOADER).canonicalize().unwrap());
        [&[loader], words.as_slice(), &[ours]].concat()
    }

    /// telegraf-kvm inside the lab, where qemu:///system is the lab's libvirtd.
    pub fn plugin(&self, args: &[&str]) -> Command {
        let mut command = self.command(env!("CARGO_BIN_EXE_telegraf-kvm"));
        command.args(args).env_remove("RUST_LOG");
        command
    }

    /// The same with the service user's rights: unprivileged, and in no group.
    pub fn plugin_unprivileged(&self, args: &[&str]) -> Command {
        self.plugin_as(NOBODY, args)
    }

    /// The same as an ordinary user of that number, in no group but its own.
    pub fn plugin_as(&self, uid: u32, args: &[&str]) -> Command {
        // The build's folder may be in a home directory that only its owner can enter.
        let binary = self.dir().join("telegraf-kvm");
        if !binary.exists() {
            copy_program(self.inside(env!("CARGO_BIN_EXE_telegraf-kvm")), &binary);
        }
        let mut command = self.command("setpriv");
        command
            // This comes first, for plugin_blind. A change of user clears the setting to be killed with the
            // parent, so it is set again.
            .args([PRIVILEGES, "--pdeathsig", "KILL"])
            .arg(format!("--reuid={uid}"))
            .arg(format!("--regid={uid}"))
            .arg(binary)
            .args(args)
            .env_remove("RUST_LOG");
        command
    }

    /// The same without any process of the lab in /proc, as in a container.
    pub fn plugin_blind(&self, args: &[&str]) -> Command {
        let plugin = self.plugin_as(NOBODY, args);
        let mut command = self.command("unshare");
        command
            .args(["--pid", "--fork", "--kill-child", "--mount-proc", "setpriv"])
            .args(plugin.get_args().skip_while(|arg| *arg != PRIVILEGES))
            .env_remove("RUST_LOG");
        command
    }

    /// The same without control groups in sight, as in a container that has the PIDs of its host.
    pub fn plugin_without_control_groups(&self, args: &[&str]) -> Command {
        let plugin = self.plugin_as(NOBODY, args);
        let mut command = self.command("unshare");
        let hide = "mount -t tmpfs none /sys/fs/cgroup && exec \"$@\"";
        command
            .args(["--mount", "sh", "-c", hide, "sh", "setpriv"])
            .args(plugin.get_args().skip_while(|arg| *arg != PRIVILEGES))
            .env_remove("RUST_LOG");
        command
    }

    /// The URI by which another lab's libvirtd reaches this one, to migrate a VM to it.
    pub fn uri_for_others(&self) -> String {
        let socket = self.dir().join("sockets").join(self.socket_name());
        assert!(socket.exists(), "the lab was not started as reachable");
        format!("qemu+unix:///system?socket={}", socket.display())
    }

    /// The path of the read-only socket inside the lab.
    pub fn read_only_socket(&self) -> String {
        format!("/run/libvirt/{}-ro", self.socket_name())
    }

    fn socket_name(&self) -> &'static str {
        match &*self.daemon {
            "libvirtd" => "libvirt-sock",
            "virtqemud" => "virtqemud-sock",
            other => panic!("no lab knows the sockets of {other}"),
        }
    }

    /// Writes a configuration file with this text to the lab's folder and returns its path.
    pub fn config(&self, text: &str) -> String {
        let number = self.vms.fetch_add(1, Ordering::Relaxed);
        let file = self.dir().join(format!("telegraf-kvm-{number}.toml"));
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    }

    /// Runs virsh and returns its output; panics if it fails.
    pub fn virsh(&self, args: &[&str]) -> String {
        succeed(self.virsh_command().args(args))
    }

    /// virsh as a command, for calls that may fail or hang.
    pub fn virsh_command(&self) -> Command {
        let mut command = self.command("virsh");
        command.args(["-q", "-c", "qemu:///system"]);
        command
    }

    /// The output of `virsh domstats --raw` for one VM, by key.
    pub fn domstats(&self, name: &str) -> BTreeMap<String, String> {
        virsh_domstats(&self.virsh(&["domstats", "--raw", "--domain", name]))
    }

    /// Starts a VM; see [`VmSpec`]. Its name is `PREFIX-` and the name in the spec.
    pub fn create(&self, spec: &VmSpec) -> Vm<'_> {
        let number = self.vms.fetch_add(1, Ordering::Relaxed);
        Vm::create(self, spec, number)
    }

    /// Plugs a disk of 1 MiB into a running VM.
    pub fn attach_disk(&self, vm: &Vm, target: &str) {
        let image = self.dir().join(format!("{}-{target}.img", vm.uuid()));
        let file = std::fs::File::create(&image);
        file.and_then(|file| file.set_len(1 << 20)).unwrap();
        let image = image.to_str().unwrap();
        let disk = [vm.uuid(), image, target, "--targetbus", "virtio", "--live"];
        self.virsh(&[&["attach-disk"], disk.as_slice()].concat());
    }

    /// Starts a transient VM of this XML, whose name must begin with [`Lab::prefix`].
    pub fn create_xml(&self, xml: &str) {
        let file = tempfile::NamedTempFile::new_in(self.dir()).unwrap();
        std::fs::write(file.path(), xml).unwrap();
        self.virsh(&["create", file.path().to_str().unwrap()]);
    }

    /// Whether this libvirt makes QEMU access all files of a VM even when it is asked for one disk. The
    /// program assumes this from 11.4 on: 12.8 does so, 11.3 does not.
    pub fn asking_touches_disks(&self) -> bool {
        self.libvirt_version() >= (11, 4)
    }

    /// The first two numbers of the daemon's version.
    pub fn libvirt_version(&self) -> (u32, u32) {
        let version = self.virsh(&["version", "--daemon"]);
        let mut lines = version.lines();
        let running = lines.find_map(|line| line.strip_prefix("Running against daemon: "));
        let mut numbers = running.unwrap().trim().split('.');
        let mut number = || numbers.next().unwrap().parse().unwrap();
        (number(), number())
    }

    /// Ends libvirtd; the VMs keep running.
    pub fn stop_libvirtd(&self) {
        self.signal_libvirtd("TERM");
        wait_for("libvirtd to end", Duration::from_secs(30), || {
            (!self.libvirtd_runs()).then_some(())
        });
    }

    /// Starts libvirtd again; returns when its sockets are there.
    pub fn start_libvirtd(&self) {
        self.start_libvirtd_with(&[]);
    }

    fn start_libvirtd_with(&self, options: &[&str]) {
        let mut command = self.command(&self.daemon);
        succeed(command.args(["-d", "-f", CONFIGURATION]).args(options));
        self.is_ended.store(false, Ordering::Relaxed);
    }

    /// Restarts libvirtd with these settings, which replace those of the same names.
    pub fn reconfigure_libvirtd(&self, settings: &str) {
        let conf = self.inside(CONFIGURATION);
        let text = std::fs::read_to_string(&conf).unwrap();
        let key = |line: &str| line.split(' ').next().map(str::to_owned);
        let new: Vec<_> = settings.lines().map(key).collect();
        // If a setting occurs twice, libvirtd uses the first one.
        let old = text.lines().filter(|line| !new.contains(&key(line)));
        let old: Vec<&str> = old.collect();
        std::fs::write(&conf, old.join("\n") + "\n" + settings).unwrap();
        self.stop_libvirtd();
        self.start_libvirtd();
    }

    /// Restarts libvirtd with these further settings so that it serves other hosts as well. The modular
    /// daemons can only listen through systemd's sockets.
    pub fn serve_hosts(&self, settings: &str) {
        let conf = self.inside(CONFIGURATION);
        let text = std::fs::read_to_string(&conf).unwrap();
        std::fs::write(&conf, text + settings).unwrap();
        self.stop_libvirtd();
        self.start_libvirtd_with(&["-l"]);
    }

    /// The daemon's name: `libvirtd`, or the daemon that replaces it.
    pub fn daemon(&self) -> &str {
        &self.daemon
    }

    /// Sends libvirtd a signal by name: STOP freezes it, CONT thaws it, KILL crashes it.
    pub fn signal_libvirtd(&self, signal: &str) {
        if ["TERM", "KILL"].contains(&signal) {
            self.is_ended.store(true, Ordering::Relaxed);
        }
        let pid = std::fs::read_to_string(self.pid_file()).unwrap();
        succeed(self.command("kill").args(["-s", signal, pid.trim()]));
    }

    /// Whether the process in libvirtd's pid file still exists.
    pub fn libvirtd_runs(&self) -> bool {
        std::fs::read_to_string(self.pid_file())
            .is_ok_and(|pid| self.inside(&format!("/proc/{}", pid.trim())).exists())
    }

    fn pid_file(&self) -> PathBuf {
        self.inside(&format!("/run/{}.pid", self.daemon))
    }

    /// The path outside of the lab of a file inside it (in its /run, for example).
    pub fn inside(&self, path: &str) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root{path}", self.init))
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        let crashed = !self.is_ended.load(Ordering::Relaxed) && !self.libvirtd_runs();
        drop(self.unshare.stdin.take());
        let ends = |_| {
            std::thread::sleep(Duration::from_millis(20));
            matches!(self.unshare.try_wait(), Ok(Some(_)))
        };
        if !(0..500).any(ends) {
            // The process hangs; --kill-child kills its children with it.
            let _ = self.unshare.kill();
            let _ = self.unshare.wait();
        }
        // No client may crash it.
        assert!(
            !crashed || std::thread::panicking(),
            "{} has crashed",
            self.daemon
        );
    }
}

/// The paths of this machine that are visible in a root at the same place: the checkout, the build, the files
/// that `tests/run` made, and the labs' folders.
fn seen_in_root() -> [(&'static str, std::ffi::OsString); 2] {
    let program = Path::new(env!("CARGO_BIN_EXE_telegraf-kvm"));
    let paths = [
        PathBuf::from(env!("CARGO_MANIFEST_DIR")),
        program.ancestors().nth(2).unwrap().to_owned(),
        // The path may be a link that leads out of the build's folder.
        cache().canonicalize().unwrap(),
        std::env::temp_dir(),
    ];
    let paths = std::env::join_paths(paths).unwrap();
    [("LAB_PATHS", paths), ("LAB_PROGRAM", program.into())]
}

/// `virsh domstats --raw` text of one VM, by key; the `Domain:` line is left out.
pub fn virsh_domstats(text: &str) -> BTreeMap<String, String> {
    text.lines()
        .filter_map(|line| line.strip_prefix("  ")?.split_once('='))
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}
