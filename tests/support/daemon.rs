//! libvirtd as other clients see it: how many of its workers hang and how fast it answers; and other clients
//! that put load on it.

use super::fleet::at_most;
use super::lab::Lab;
use super::{succeed, wait_for};
use std::fs::File;
use std::io::{Read, Seek};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// If another client waits longer than this for an answer, its call counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

impl Lab {
    /// Calls that libvirtd's ordinary workers are processing or that wait for one: when no other client makes
    /// calls, these are hanging calls. Calls of its priority workers are not included.
    pub fn calls_in_daemon(&self) -> usize {
        let info = succeed(self.command("virt-admin").args([
            "-c",
            &format!("{}:///system", self.daemon()),
            "server-threadpool-info",
            self.daemon(),
        ]));
        let number = |wanted: &str| -> usize {
            let mut pairs = info.lines().filter_map(|line| line.split_once(':'));
            let value = pairs.find(|(key, _)| key.trim() == wanted);
            let value = value.unwrap_or_else(|| panic!("no {wanted} in {info:?}")).1;
            value.trim().parse().unwrap()
        };
        number("nWorkers") - number("freeWorkers") + number("jobQueueDepth")
    }

    /// Counts the calls that are still there after they had a moment to return.
    pub fn hanging_calls(&self) -> usize {
        let mut least = usize::MAX;
        for _ in 0..5 {
            least = least.min(self.calls_in_daemon());
            if least == 0 {
                break;
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        least
    }

    /// How long `virsh list` takes; `None` when it hangs.
    pub fn list_takes(&self) -> Option<Duration> {
        takes(self.virsh_command().arg("list"))
    }

    /// How long `virsh domstats` of one VM takes; `None` when it hangs.
    pub fn domstats_takes(&self, name: &str) -> Option<Duration> {
        takes(self.virsh_command().args(["domstats", "--domain", name]))
    }

    /// A client that sends one `virsh` call with these arguments and then does nothing else.
    pub fn client(&self, args: &[&str]) -> Client {
        let mut command = self.virsh_command();
        command.args(args);
        Client::spawn(command)
    }

    /// A client that repeats the `virsh` call with these arguments on one connection.
    pub fn busy_client(&self, words: &str) -> Client {
        let mut command = self.command("sh");
        // When the shell is killed, the pipe closes and virsh ends.
        command.args([
            "-c",
            &format!("while echo '{words}'; do :; done | virsh -q -c qemu:///system"),
        ]);
        Client::spawn(command)
    }
}

/// Another client's process, which is killed when the handle is dropped. A call of it that hangs in libvirtd
/// keeps hanging.
pub struct Client {
    process: Child,
    stderr: File,
}

impl Client {
    fn spawn(mut command: Command) -> Client {
        let stderr = tempfile::tempfile().unwrap();
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr.try_clone().unwrap());
        let process = command.spawn().unwrap();
        Client { process, stderr }
    }

    /// What the client has written to stderr.
    pub fn stderr(&mut self) -> String {
        let mut text = String::new();
        self.stderr.rewind().unwrap();
        self.stderr.read_to_string(&mut text).unwrap();
        text
    }

    /// Whether the client still runs.
    pub fn runs(&mut self) -> bool {
        self.process.try_wait().unwrap().is_none()
    }

    /// Waits for the client's end.
    pub fn wait(&mut self) {
        wait_for("the other client's end", Duration::from_secs(60), || {
            (!self.runs()).then_some(())
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

/// How long the command runs. When that is too long, the command is killed and the result is `None`.
fn takes(command: &mut Command) -> Option<Duration> {
    let start = Instant::now();
    let mut child = command
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .unwrap();
    while start.elapsed() < PATIENCE {
        if let Some(status) = child.try_wait().unwrap() {
            let took = start.elapsed();
            assert!(status.success(), "{command:?}: {status}");
            return Some(took);
        }
        std::thread::sleep(Duration::from_millis(5));
    }
    let _ = child.kill();
    let _ = child.wait();
    None
}

/// Panics unless other clients are served as fast as without the plugin.
pub fn expect_quick(lab: &Lab, healthy_vm: &str, when: &str) {
    // The command takes some 50 ms.
    let quick = at_most(Duration::from_millis(500));
    for (what, took) in [
        ("virsh list", lab.list_takes()),
        ("virsh domstats", lab.domstats_takes(healthy_vm)),
    ] {
        assert!(took.is_some_and(|t| t < quick), "{when}: {what}: {took:?}");
    }
}
