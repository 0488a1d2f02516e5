//! Checks of processes against a real kernel.

use std::fs::File;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use rustix::process::{Pid, Signal, WaitOptions, kill_process, wait};
use telegraf_kvm::host::Processes;
use uuid::Uuid;

use super::{AT_MOST, SLOW};
use crate::support::inside::inside;
use crate::support::outage::Mount;
use crate::support::wait_for;

#[test]
fn a_process_stuck_in_the_kernel_is_told_from_one_that_waits() {
    let Some(folder) =
        inside("processes::a_process_stuck_in_the_kernel_is_told_from_one_that_waits")
    else {
        return;
    };
    let mount = Mount::new(&folder, "mount", &[]);
    let run = |script: &str, vm: &Uuid| {
        let mut command = Command::new("dash");
        command.args(["-c", script, "dash", "-uuid", &vm.to_string()]);
        command
            .current_dir(mount.point())
            .stdin(Stdio::piped())
            .stdout(File::open("/dev/null").unwrap());
        command.spawn().unwrap()
    };
    let (stuck, busy, idle) = (Uuid::from_u128(1), Uuid::from_u128(2), Uuid::from_u128(3));
    // A wait for a FUSE server can be interrupted once. After that it is uninterruptible.
    let script = "trap : USR1; read line; read line < image; read line";
    let mut children = [
        run(script, &stuck),
        run("while :; do /bin/true; done", &busy),
        run("read line", &idle),
    ];
    let vms = [stuck, busy, idle];
    let mut processes = Processes::new();
    let mut check = || processes.check(&vms);
    wait_for("all are visible and responsive", SLOW, || {
        let seen = check();
        (seen.stuck.is_empty() && seen.unseen.is_empty()).then_some(())
    });
    mount.stop(Duration::from_millis(1200));
    std::io::Write::write_all(children[0].stdin.as_mut().unwrap(), b"\n").unwrap();
    let pid = Pid::from_child(&children[0]);
    wait_for("one is stuck", SLOW, || {
        kill_process(pid, Signal::USR1).unwrap();
        check().stuck.contains(&stuck).then_some(())
    });
    // On a busy machine a program may take long to start, but not each time.
    let mut busy_responsive = false;
    for _ in 0..20 {
        let start = Instant::now();
        let seen = check();
        assert!(start.elapsed() < AT_MOST);
        assert!(seen.stuck.contains(&stuck) && !seen.stuck.contains(&idle));
        assert!(seen.unseen.is_empty());
        busy_responsive |= !seen.stuck.contains(&busy);
    }
    assert!(busy_responsive);
    mount.go_on();
    wait_for("it goes on", SLOW, || {
        (!check().stuck.contains(&stuck)).then_some(())
    });
    for child in &mut children {
        child.kill().unwrap();
        child.wait().unwrap();
    }
    // The busy process may leave a child that has not executed another program yet. When that child ends,
    // this process has to reap it, being the first one of its PID namespace: a zombie counts as stuck.
    wait_for("all processes to be gone", SLOW, || {
        while let Ok(Some(_)) = wait(WaitOptions::NOHANG) {}
        (check().unseen == vms.into_iter().collect()).then_some(())
    });
}
