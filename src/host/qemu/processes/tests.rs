use std::fs;
use std::io::Write as _;
use std::process::{Child, Command, Stdio};

use tempfile::TempDir;

use super::*;

/// A proc file system made of plain files.
struct FakeProc(TempDir);

impl FakeProc {
    fn new() -> Self {
        Self(TempDir::new().unwrap())
    }

    fn processes(&self) -> Processes {
        Processes::at(self.0.path())
    }

    fn start(&self, pid: u32, vm: Uuid, state: char, runs: u64) {
        fs::create_dir(self.0.path().join(pid.to_string())).unwrap();
        let line = format!("/usr/bin/qemu\0-name\0guest=-uuid\0-uuid\0{vm}\0-S\0");
        self.write(pid, "cmdline", &line);
        self.set(pid, state, runs);
    }

    fn set(&self, pid: u32, state: char, runs: u64) {
        self.set_child(pid, 1000, state, runs);
    }

    fn set_child(&self, pid: u32, parent: u32, state: char, runs: u64) {
        let stat = format!("{pid} (qemu D (x) T) {state} {parent} 1 1 0");
        self.write(pid, "stat", &stat);
        self.write(pid, "schedstat", &format!("123456 789 {runs}\n"));
    }

    fn write(&self, pid: u32, name: &str, text: &str) {
        fs::write(self.0.path().join(format!("{pid}/{name}")), text).unwrap();
    }

    fn end(&self, pid: u32) {
        self.write(pid, "stat", "");
        fs::remove_dir_all(self.0.path().join(pid.to_string())).unwrap();
    }
}

fn vm(number: u128) -> Uuid {
    Uuid::from_u128(0x1234_5678_0000_0000_0000_0000_0000_0000 + number)
}

fn set(vms: &[Uuid]) -> HashSet<Uuid> {
    vms.iter().copied().collect()
}

fn report(stuck: &[Uuid], unseen: &[Uuid]) -> ProcessReport {
    let (stuck, unseen) = (set(stuck), set(unseen));
    ProcessReport { stuck, unseen }
}

/// A check which must not pause.
fn at_once(processes: &mut Processes, vms: &[Uuid], now: Instant) -> ProcessReport {
    processes.check_at(vms, now, || panic!("it must not pause"))
}

#[test]
fn stopped_and_traced_processes_are_stuck_whatever_their_name() {
    let fake = FakeProc::new();
    for (pid, state) in [(1, 'R'), (2, 'S'), (3, 'T'), (4, 't'), (5, 'I')] {
        fake.start(pid, vm(pid.into()), state, 1);
    }
    let vms = [vm(1), vm(2), vm(3), vm(4), vm(5), vm(6)];
    let mut processes = fake.processes();
    let now = Instant::now();
    let seen = at_once(&mut processes, &vms, now);
    assert_eq!(seen, report(&[vm(3), vm(4)], &[vm(6)]));
    fake.set(3, 'S', 2);
    fake.set(2, 'T', 2);
    let seen = at_once(&mut processes, &vms, now);
    assert_eq!(seen, report(&[vm(2), vm(4)], &[vm(6)]));
}

/// The freezer of cgroup v2 leaves the state at S.
#[test]
fn frozen_by_the_control_group_is_stuck() {
    for mounted in ["", "unified"] {
        let fake = FakeProc::new();
        let cgroups = TempDir::new().unwrap();
        let group = |name: &str| cgroups.path().join(mounted).join(name);
        let events = |name: &str, text: &str| {
            fs::create_dir_all(group(name)).unwrap();
            fs::write(group(name).join("cgroup.events"), text).unwrap();
        };
        let (well, frozen) = ("populated 1\nfrozen 0\n", "populated 1\nfrozen 1\n");
        events("machine/a b/emulator", well);
        events("machine/b", well);
        for (pid, text) in [
            (1, "4:cpu:/\n0::/machine/a b/emulator\n"),
            (2, "0::/machine/b\n"),
            // In no group of v2, in the root group, and in one that is not visible.
            (3, "4:cpu:/machine/b\n"),
            (4, "0::/\n"),
            (5, "0::/../machine/c\n"),
        ] {
            fake.start(pid, vm(pid.into()), 'S', 1);
            fake.write(pid, "cgroup", text);
        }
        let vms = [vm(1), vm(2), vm(3), vm(4), vm(5)];
        let mut processes = Processes::below(fake.0.path(), cgroups.path());
        let now = Instant::now();
        assert_eq!(at_once(&mut processes, &vms, now), report(&[], &[]));
        events("machine/a b/emulator", frozen);
        assert_eq!(at_once(&mut processes, &vms, now), report(&[vm(1)], &[]));
        events("machine/a b/emulator", well);
        assert_eq!(at_once(&mut processes, &vms, now), report(&[], &[]));
        // A process that was moved to another group is noticed after a minute.
        events("machine/d", frozen);
        fake.write(2, "cgroup", "0::/machine/d\n");
        let later = now + Duration::from_secs(61);
        assert_eq!(at_once(&mut processes, &vms, later), report(&[vm(2)], &[]));
    }
}

#[test]
fn a_long_sleep_is_stuck_and_a_wait_for_a_disk_is_not() {
    let fake = FakeProc::new();
    for pid in 1..=4 {
        fake.start(pid, vm(pid.into()), 'D', 10);
    }
    fake.start(5, vm(5), 'Z', 10);
    // As with a kernel that does not count.
    fake.start(6, vm(6), 'D', 0);
    let vms = [vm(1), vm(2), vm(3), vm(4), vm(5), vm(6)];
    let mut processes = fake.processes();
    let now = Instant::now();
    let seen = processes.check_at(&vms, now, || {
        fake.set(2, 'D', 11);
        fake.set(3, 'S', 11);
        fake.end(4);
    });
    assert_eq!(seen, report(&[vm(1), vm(5), vm(6)], &[vm(4)]));

    // A sleep that has not ended is known without a pause. The process that has run is rechecked.
    fake.end(6);
    fake.set(2, 'S', 12);
    let now = now + Duration::from_millis(60);
    let vms = &vms[..3];
    assert_eq!(at_once(&mut processes, vms, now), report(&[vm(1)], &[]));
    fake.set(1, 'D', 12);
    let mut waited = false;
    let seen = processes.check_at(vms, now + PROCESS_RECHECK * 2, || {
        waited = true;
        fake.set(1, 'D', 13);
    });
    assert_eq!(seen, report(&[], &[]));
    assert!(waited);
}

#[test]
fn one_responsive_process_of_two_with_the_same_uuid_is_enough() {
    let fake = FakeProc::new();
    fake.start(1, vm(1), 'S', 1);
    let mut processes = fake.processes();
    let now = Instant::now();
    assert_eq!(at_once(&mut processes, &[vm(1)], now), report(&[], &[]));
    // The second process came after the scan. It is searched for before the VM is reported as stuck.
    fake.start(2, vm(1), 'S', 1);
    fake.set(1, 'T', 1);
    assert_eq!(at_once(&mut processes, &[vm(1)], now), report(&[], &[]));
    fake.set(2, 'T', 1);
    assert_eq!(
        at_once(&mut processes, &[vm(1)], now),
        report(&[vm(1)], &[])
    );
    fake.end(1);
    fake.set(2, 'S', 1);
    assert_eq!(at_once(&mut processes, &[vm(1)], now), report(&[], &[]));
}

#[test]
fn a_child_process_does_not_count_as_a_second_qemu() {
    let fake = FakeProc::new();
    fake.start(1, vm(1), 'T', 1);
    fake.start(2, vm(1), 'S', 1);
    fake.set_child(2, 1, 'S', 1);
    let mut processes = fake.processes();
    let now = Instant::now();
    assert_eq!(
        at_once(&mut processes, &[vm(1)], now),
        report(&[vm(1)], &[])
    );
    fake.set(1, 'S', 1);
    fake.set_child(2, 1, 'T', 1);
    assert_eq!(at_once(&mut processes, &[vm(1)], now), report(&[], &[]));
}

#[test]
fn a_vm_not_found_is_searched_for_again_after_1_2_4_and_at_most_30_seconds() {
    let fake = FakeProc::new();
    let mut processes = fake.processes();
    let start = Instant::now();
    let late = vm(1);
    let after = |ms| start + Duration::from_millis(ms);
    let mut unseen = |ms| {
        let seen = at_once(&mut processes, &[late], after(ms));
        seen == report(&[], &[late])
    };
    assert!(unseen(0));
    assert!(unseen(1100));
    fake.start(1, late, 'S', 1);
    assert!(unseen(3000));
    assert!(!unseen(3200));

    // The delay grows up to 30 s. A new VM is searched for at once, which finds the others as well.
    fake.end(1);
    assert!(unseen(4000));
    let mut ms = 4000;
    for wait in [1000, 2000, 4000, 8000, 16_000, 30_000, 30_000] {
        ms += wait;
        assert!(unseen(ms));
    }
    fake.start(2, late, 'S', 1);
    fake.start(3, vm(3), 'S', 1);
    assert!(unseen(ms + 29_000));
    let seen = at_once(&mut processes, &[late, vm(3)], after(ms + 29_001));
    assert_eq!(seen, report(&[], &[]));
}

#[test]
fn a_process_that_ended_is_replaced_by_the_next_of_that_vm_at_once() {
    let fake = FakeProc::new();
    fake.start(1, vm(1), 'T', 1);
    let mut processes = fake.processes();
    let now = Instant::now();
    assert_eq!(
        at_once(&mut processes, &[vm(1)], now),
        report(&[vm(1)], &[])
    );
    fake.end(1);
    fake.start(2, vm(1), 'S', 1);
    assert_eq!(at_once(&mut processes, &[vm(1)], now), report(&[], &[]));
    assert_eq!(processes.known[&vm(1)].len(), 1);
}

#[test]
fn vms_that_are_not_checked_are_forgotten() {
    let fake = FakeProc::new();
    fake.start(1, vm(1), 'T', 1);
    fake.start(2, vm(2), 'T', 1);
    let mut processes = fake.processes();
    let both = [vm(1), vm(2)];
    assert_eq!(processes.check(&both), report(&both, &[]));
    assert_eq!(processes.check(&both[1..]), report(&both[1..], &[]));
    assert_eq!(processes.known.len(), 1);
}

#[test]
fn without_a_proc_file_system_or_the_right_to_read_it_vms_are_unseen() {
    let mut nowhere = Processes::at(Path::new("/nonexistent"));
    assert_eq!(nowhere.check(&[vm(1)]), report(&[], &[vm(1)]));
    let fake = FakeProc::new();
    fs::create_dir(fake.0.path().join("7")).unwrap();
    fake.write(7, "cmdline", "qemu\0-uuid\0no uuid\0");
    fs::create_dir(fake.0.path().join("8")).unwrap();
    fs::create_dir(fake.0.path().join("9")).unwrap();
    fake.write(9, "cmdline", "qemu\0-uuid");
    assert_eq!(fake.processes().check(&[vm(1)]), report(&[], &[vm(1)]));
}

#[test]
fn a_command_line_that_hangs_affects_only_its_own_vm() {
    let fake = FakeProc::new();
    let pipe = |pid: u32| fake.0.path().join(format!("{pid}/cmdline"));
    // Three command lines hang, for opening a pipe waits for a writer.
    for pid in 1..=3 {
        fake.start(pid, vm(pid.into()), 'T', 1);
        fs::remove_file(pipe(pid)).unwrap();
        let made = Command::new("mkfifo").arg(pipe(pid)).status().unwrap();
        assert!(made.success());
    }
    fake.start(4, vm(4), 'T', 1);
    fake.start(5, vm(5), 'S', 1);
    let vms = [vm(1), vm(2), vm(3), vm(4), vm(5)];
    // A hanging scan is noticed before its time is over.
    let scan = Scan::start(fake.0.path(), set(&vms), HashSet::default()).unwrap();
    let progress = scan.wait(Instant::now() + Duration::from_secs(20), drop);
    assert_eq!(progress, ScanProgress::Hanging);

    let mut processes = fake.processes();
    let mut seen = ProcessReport::default();
    let start = Instant::now();
    let slow = Duration::from_secs(20);
    while seen != report(&[vm(4)], &[vm(1), vm(2), vm(3)]) {
        assert!(start.elapsed() < slow, "{seen:?}");
        let begin = Instant::now();
        seen = processes.check(&vms);
        assert!(begin.elapsed() < Duration::from_secs(2));
    }
    // The command lines become readable: what the scans find is not lost, and no scan remains.
    for pid in 1..=3 {
        let line = format!("qemu\0-uuid\0{}\0", vm(pid.into()));
        let mut writer = fs::OpenOptions::new().write(true).open(pipe(pid)).unwrap();
        // A later scan finds a file, while the pipe still has its readers.
        fs::remove_file(pipe(pid)).unwrap();
        fake.write(pid, "cmdline", &line);
        writer.write_all(line.as_bytes()).unwrap();
    }
    while seen != report(&[vm(1), vm(2), vm(3), vm(4)], &[]) || !processes.scans.is_empty() {
        assert!(start.elapsed() < slow, "{seen:?}");
        thread::sleep(Duration::from_millis(10));
        seen = processes.check(&vms);
    }
}

/// A process that is killed when the test ends.
struct Killed(Child);

impl Drop for Killed {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn real(vm: Uuid) -> Killed {
    let mut command = Command::new("sh");
    command.args(["-c", "echo; read line", "sh", "-uuid", &vm.to_string()]);
    command.stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().unwrap();
    // Once it has written something, it has its own command line.
    let out = child.stdout.as_mut().unwrap();
    std::io::Read::read_exact(out, &mut [0]).unwrap();
    Killed(child)
}

fn signal(child: &Killed, signal: rustix::process::Signal) {
    let pid = rustix::process::Pid::from_child(&child.0);
    rustix::process::kill_process(pid, signal).unwrap();
}

fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let start = Instant::now();
    while !done() {
        assert!(start.elapsed() < Duration::from_secs(20), "{what}");
        thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn a_real_process_is_seen_stopped_continued_and_ended() {
    let vm =
        Uuid::from_u128(0xa11c_e000_0000_0000_0000_0000_0000_0000 + u128::from(std::process::id()));
    let mut processes = Processes::new();
    assert_eq!(processes.check(&[vm]), report(&[], &[vm]));
    let child = real(vm);
    wait_until("it is found", || processes.check(&[vm]) == report(&[], &[]));
    signal(&child, rustix::process::Signal::STOP);
    wait_until("it stops", || processes.check(&[vm]) == report(&[vm], &[]));
    signal(&child, rustix::process::Signal::CONT);
    wait_until("it goes on", || processes.check(&[vm]) == report(&[], &[]));
    drop(child);
    assert_eq!(processes.check(&[vm]), report(&[], &[vm]));
}

#[test]
fn a_vm_is_in_our_netns_if_every_process_of_it_is() {
    let fake = FakeProc::new();
    let root = fake.0.path();
    for pid in [1, 2, 3, 4] {
        fake.start(pid, vm(if pid == 4 { 3 } else { pid.into() }), 'S', 1);
    }
    let here = root.join("self/net");
    fs::create_dir_all(&here).unwrap();
    fs::write(here.join("dev"), "").unwrap();
    for (pid, same) in [(1, true), (2, false), (3, true), (4, false)] {
        let net = root.join(format!("{pid}/net"));
        fs::create_dir(&net).unwrap();
        if same {
            // The same inode, as in /proc.
            fs::hard_link(here.join("dev"), net.join("dev")).unwrap();
        } else {
            fs::write(net.join("dev"), "").unwrap();
        }
    }
    let mut processes = fake.processes();
    assert_eq!(processes.in_our_netns(), HashSet::default());
    processes.check(&[vm(1), vm(2), vm(3), vm(5)]);
    assert_eq!(processes.in_our_netns(), set(&[vm(1)]));
    fake.end(4);
    processes.check(&[vm(1), vm(2), vm(3), vm(5)]);
    assert_eq!(processes.in_our_netns(), set(&[vm(1), vm(3)]));
    fs::remove_file(here.join("dev")).unwrap();
    assert_eq!(
        processes.in_our_netns(),
        HashSet::default(),
        "our own is not visible"
    );
}

/// Makes a process whose `stat` has the fields up to the time of its start, in clock ticks.
fn started(fake: &FakeProc, pid: u32, parent: u32, vm: Uuid, ticks: u64) {
    fake.start(pid, vm, 'S', 1);
    let between = "0 ".repeat(15);
    let stat = format!("{pid} (qemu) S {parent} {between}3 0 {ticks} 0 0\n");
    fake.write(pid, "stat", &stat);
}

#[test]
fn the_age_of_the_one_qemu_of_a_vm_is_known() {
    let fake = FakeProc::new();
    let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
    let ticks = rustix::param::clock_ticks_per_second();
    let start = u64::try_from(now.tv_sec - 1).unwrap() * ticks;
    started(&fake, 1, 1000, vm(1), start);
    // A child with the same command line is no second QEMU; the two others of one VM are.
    started(&fake, 2, 1, vm(1), start);
    started(&fake, 3, 1000, vm(2), start);
    started(&fake, 4, 1000, vm(2), start);
    started(&fake, 5, 1000, vm(3), 0);
    fake.start(6, vm(4), 'S', 1);
    let vms = [vm(1), vm(2), vm(3), vm(4), vm(5)];
    let mut processes = fake.processes();
    processes.check(&vms);
    let figures = processes.figures(None);
    let uptime = |number| figures.get(&vm(number)).and_then(|figures| figures.uptime);
    let age = uptime(1).unwrap();
    assert!((1..60).contains(&age), "{age}");
    assert_eq!(uptime(2), None, "two QEMUs");
    assert!(uptime(3).unwrap() >= u64::try_from(now.tv_sec).unwrap());
    assert_eq!(uptime(4), None, "no such field");
    assert!(!figures.contains_key(&vm(5)), "not visible");
}

#[test]
fn vcpus_are_read_of_each_vm_with_room_for_their_files() {
    let fake = FakeProc::new();
    for pid in [1, 2] {
        started(&fake, pid, 1000, vm(pid.into()), 1);
        for thread in [10, 11] {
            let task = format!("task/{thread}");
            fs::create_dir_all(fake.0.path().join(format!("{pid}/{task}"))).unwrap();
            let name = format!("CPU {}/KVM\n", thread - 10);
            fake.write(pid, &format!("{task}/comm"), &name);
            let schedstat = format!("{pid} {thread} 1\n");
            fake.write(pid, &format!("{task}/schedstat"), &schedstat);
        }
    }
    let vms = [vm(1), vm(2)];
    let mut processes = fake.processes();
    let groups = HashMap::from_iter([(vm(1), 2)]);
    for _ in 0..2 {
        processes.check(&vms);
        let figures = processes.figures(Some(VcpuReading {
            groups: &groups,
            online: &HashMap::default(),
            most_files: 3,
        }));
        for number in [1, 2] {
            let vcpus = &figures[&vm(number)].vcpus.as_ref().unwrap().times;
            let expected = 2 * u64::try_from(number).unwrap();
            assert_eq!(vcpus.sum(|vcpu| vcpu.time), Some(expected));
            assert_eq!(vcpus.sum(|vcpu| vcpu.delay), Some(21));
        }
        assert_eq!(processes.vcpu_files(), 3);
    }
    for most_files in [1, 4] {
        processes.figures(Some(VcpuReading {
            groups: &groups,
            online: &HashMap::default(),
            most_files,
        }));
        assert_eq!(processes.vcpu_files(), most_files);
    }
    assert_eq!(processes.figures(None)[&vm(1)].vcpus, None);
}
