//! libvirtd as others see it: how many of its workers hang, how quick it is to them, and other
//! clients that make its life hard.

use super::fleet::at_most;
use super::lab::Lab;
use super::{succeed, wait_for};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

/// What another client waits for an answer before it counts as hanging.
const PATIENCE: Duration = Duration::from_secs(10);

impl Lab {
    /// Calls in the hands of libvirtd's ordinary workers, and waiting for one: hanging ones, when
    /// nobody is asking. Those of its priority workers do not show.
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

    /// The calls that are still there after they had a moment to return.
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

    /// A client whose `virsh` call with these arguments is sent, and left alone.
    pub fn client(&self, args: &[&str]) -> Client {
        let mut command = self.virsh_command();
        command.args(args);
        Client::spawn(command)
    }

    /// A client that calls `virsh` with these words again and again, on one connection.
    pub fn busy_client(&self, words: &str) -> Client {
        let mut command = self.command("sh");
        // Whatever kills the shell closes the pipe, and virsh ends with it.
        command.args([
            "-c",
            &format!("while echo '{words}'; do :; done | virsh -q -c qemu:///system"),
        ]);
        Client::spawn(command)
    }
}

/// Another client's process; dropped, it is killed. A call of it that hangs goes on hanging.
pub struct Client(Child);

impl Client {
    fn spawn(mut command: Command) -> Client {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        Client(command.spawn().unwrap())
    }

    /// Whether it still runs.
    pub fn runs(&mut self) -> bool {
        self.0.try_wait().unwrap().is_none()
    }

    /// Waits for its end.
    pub fn wait(&mut self) {
        wait_for("the other client's end", Duration::from_secs(60), || {
            (!self.runs()).then_some(())
        });
    }
}

impl Drop for Client {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// How long the command runs; `None`, and it is killed, when that is too long.
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

/// Panics unless other clients are served as if we were not there.
pub fn expect_quick(lab: &Lab, healthy_vm: &str, when: &str) {
    // It takes some 50 ms.
    let quick = at_most(Duration::from_millis(500));
    for (what, took) in [
        ("virsh list", lab.list_takes()),
        ("virsh domstats", lab.domstats_takes(healthy_vm)),
    ] {
        assert!(took.is_some_and(|t| t < quick), "{when}: {what}: {took:?}");
    }
}
