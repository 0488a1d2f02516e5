//! The processes that check mounts: they end with the program, and never keep it from ending.

use crate::support;
use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use crate::support::lab::Lab;
use crate::support::lines::Line;
use crate::support::outage::Mount;
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec, disk_xml, disks};
use crate::support::{alone, children_of, program, succeed, wait_for};
use rustix::process::Signal;

/// How long the program may take to end after SIGTERM, with room for a busy machine.
const STOP: Duration = Duration::from_millis(2300);
const SLOW: Duration = Duration::from_secs(20);

/// A paused VM with a disk of the lab and this one.
fn vm_on<'lab>(lab: &'lab Lab, image: &Path) -> Vm<'lab> {
    lab.create(&VmSpec {
        disks: disks(&["vda"]),
        devices: disk_xml("disk", "vdb", Some(image)),
        paused: true,
        ..VmSpec::default()
    })
}

/// Panics unless a gather during which the mount does not answer has all lines of a complete one. The
/// lines of disks may be missing where a call for one disk makes QEMU access all files.
fn expect_lines(lab: &Lab, gather: &[Line], whole: &[Line], when: &str) {
    let omitted = lab.asking_touches_disks();
    let kinds = |lines: &[Line], all: bool| -> Vec<(String, Option<String>)> {
        let wanted = |line: &&Line| all || line.tags.get("devtype").is_none_or(|it| it != "disk");
        let kind = |line: &Line| (line.measurement.clone(), line.tags.get("device").cloned());
        lines.iter().filter(wanted).map(kind).collect()
    };
    assert_eq!(kinds(gather, true), kinds(whole, !omitted), "{when}");
}

/// The letter of a process's state, and its name. `None` if it has ended.
fn process(pid: u32) -> Option<(char, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    Some((tail.chars().next()?, name.to_owned()))
}

/// The mount checkers of the plugin, once there are this many. Beside them there may be a path resolver.
fn checkers(plugin: &Plugin, count: usize) -> Vec<u32> {
    let parent = plugin.pid();
    wait_for(&format!("{count} checkers"), SLOW, || {
        let children = children_of(parent);
        let called = |name: &'static str| {
            move |pid: &&u32| process(**pid).is_some_and(|(_, found)| found == name)
        };
        let checkers: Vec<u32> = children
            .iter()
            .filter(called("mount checker"))
            .copied()
            .collect();
        let local = children.iter().filter(called("path resolver")).count();
        let all = checkers.len() + local == children.len() && local <= 1;
        (checkers.len() == count && all).then_some(checkers)
    })
}

/// Gathers until the mount has its checker, for on a busy machine the first walk may not reach it.
fn first_checker(plugin: &mut Plugin) -> Vec<u32> {
    wait_for("the mount's checker", SLOW, || {
        plugin.gather();
        let children = children_of(plugin.pid()).into_iter();
        // The other one is the path resolver.
        (children.count() == 2).then_some(())
    });
    checkers(plugin, 1)
}

fn expect_gone(checkers: &[u32], when: &str) {
    for pid in checkers {
        wait_for(&format!("the checker's end, {when}"), SLOW, || {
            process(*pid).is_none().then_some(())
        });
    }
}

#[derive(Debug, Clone, Copy)]
enum End {
    Signal(Signal),
    Input,
}

/// Ends the plugin as Telegraf does. Panics unless its process and its pipes are gone in time.
fn end(plugin: &mut Plugin, how: End, limit: Duration) {
    let start = Instant::now();
    match how {
        End::Signal(signal) => plugin.signal(signal),
        End::Input => plugin.close(),
    }
    plugin.wait(SLOW);
    let took = start.elapsed();
    println!("{how:?}: {took:?}");
    assert!(took < limit, "{how:?}: {took:?}");
}

/// The mount is a FUSE mount over another one whose server is stopped. A process that accesses it cannot
/// be killed, because a server which does not answer has already taken the request.
#[test]
fn a_checker_that_cannot_be_killed() {
    let _alone = alone();
    let lab = Lab::start();
    let lower = Mount::start(&lab, &lab.dir().join("lower"));
    let upper = Mount::over(Some(&lab), &lab.dir().join("upper"), lower.point(), &[]);
    lower.new_image("image", 64, true);
    let vm = vm_on(&lab, &upper.image());
    for how in [
        End::Signal(Signal::TERM),
        End::Signal(Signal::KILL),
        End::Input,
    ] {
        let mut plugin = Plugin::spawn(lab.plugin(&[]));
        // From the second gather on there are rates.
        plugin.gather();
        let whole = plugin.gather();
        lower.stop(Duration::from_millis(200));
        // The second gather warns of the mount.
        for round in 1..=3 {
            let when = format!("{how:?}, gather {round}");
            expect_lines(&lab, &plugin.gather(), &whole, &when);
        }
        let point = upper.point().to_str().unwrap();
        let warnings = plugin.warnings();
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        assert!(warnings[0].contains(point) && warnings[0].contains(vm.name()));
        let checkers = checkers(&plugin, 1);
        support::plugin::kill(checkers[0], Signal::KILL);
        wait_for("uninterruptible sleep", SLOW, || {
            process(checkers[0])
                .is_some_and(|it| it.0 == 'D')
                .then_some(())
        });
        plugin.gather();
        end(&mut plugin, how, STOP);
        let (state, _) = process(checkers[0]).unwrap();
        assert_eq!(state, 'D', "{how:?}: the checker outlives the program");
        lower.go_on();
        expect_gone(&checkers, "the mount is back");
    }
}

/// On a busy host a mount may answer too late for one check. Only two in a row are worth a warning.
#[test]
fn one_unanswered_check_is_not_worth_a_warning() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    vm_on(&lab, &mount.new_image("image", 64, true));
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    // From the second gather on there are rates.
    plugin.gather();
    let whole = plugin.gather();
    let mut gather = |stopped: bool| {
        match stopped {
            true => mount.stop(Duration::from_millis(200)),
            false => mount.go_on(),
        }
        match stopped {
            true => expect_lines(&lab, &plugin.gather(), &whole, "stopped"),
            // From libvirt 11.4 on, the disks are left out in a gather in which a busy host answers too late.
            false => wait_for("all lines", SLOW, || {
                (plugin.gather().len() == whole.len()).then_some(())
            }),
        }
        plugin.stderr()
    };
    for _ in 0..3 {
        assert_eq!(gather(true), "");
        assert_eq!(gather(false), "");
    }
    gather(true);
    assert_eq!(gather(true).lines().count(), 1);
    assert_eq!(gather(true).lines().count(), 1);
    let stderr = gather(false);
    let back = stderr.lines().nth(1).unwrap();
    assert!(
        back.starts_with("I! ") && back.contains("nfs answers again, after 2 gathers"),
        "{stderr}"
    );
    assert_eq!(gather(true), stderr);
    assert_eq!(gather(false), stderr);
}

/// A mount that takes longer than a check waits, but answers before the next one, costs no figure and no
/// warning. Where a call for one disk makes QEMU access all files, it costs the disks and one warning.
#[test]
fn a_slow_mount_costs_nothing_or_is_warned_of() {
    let _alone = alone();
    let lab = Lab::start();
    let omitted = lab.asking_touches_disks();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let vm = vm_on(&lab, &mount.new_image("image", 64, true));
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    plugin.gather();
    let whole = plugin.gather();
    let checker = checkers(&plugin, 1)[0];
    let pipe = fs::File::open(format!("/proc/{checker}/fd/1")).unwrap();
    for round in 1..=4 {
        mount.stop(Duration::from_millis(200));
        let when = format!("gather {round}");
        expect_lines(&lab, &plugin.gather(), &whole, &when);
        mount.go_on();
        wait_for("the checker's answer", SLOW, || {
            (rustix::io::ioctl_fionread(&pipe).unwrap() > 0).then_some(())
        });
        // Once may be due to a busy host.
        let stderr = plugin.stderr();
        let expected = usize::from(omitted && round > 1);
        assert_eq!(stderr.lines().count(), expected, "{when}: {stderr}");
    }
    if omitted {
        let stderr = plugin.stderr();
        let named = stderr.contains("longer than 0.15 s") && stderr.contains(vm.name());
        assert!(stderr.starts_with("W! ") && named, "{stderr}");
        assert_eq!(
            plugin.gather().len(),
            whole.len(),
            "the mount is fast again"
        );
        let stderr = plugin.stderr();
        assert!(
            stderr.ends_with("slow mount any more, after 3 gathers\n"),
            "{stderr}"
        );
    }
}

/// An ext4 on a loop device whose file lies on storage that has died before any path on it was followed.
#[test]
fn a_local_file_system_on_a_dead_disk() {
    if !Path::new("/dev/loop-control").exists() {
        println!("not run: this kernel has no loop devices");
        return;
    }
    let _alone = alone();
    let lab = Lab::start();
    let content = lab.dir().join("content");
    fs::create_dir(&content).unwrap();
    fs::write(content.join("image"), [0xa5; 4096]).unwrap();
    let san = Mount::start(&lab, &lab.dir().join("san"));
    let disk = san.new_image("disk", 16 << 10, false);
    let mut mkfs = Command::new(program("mkfs.ext4"));
    mkfs.arg("-q").arg("-d").arg(&content);
    succeed(mkfs.arg(lab.dir().join("san.behind/disk")));
    // QEMU has a file open in the folder on which the file system is then mounted.
    let local = lab.dir().join("local");
    fs::create_dir(&local).unwrap();
    fs::write(local.join("image"), [0xa5; 65536]).unwrap();
    let vm = vm_on(&lab, &local.join("image"));
    let mut healthy = Plugin::spawn(lab.plugin(&[]));
    healthy.gather();
    let whole = healthy.gather();
    drop(healthy);
    for how in [End::Signal(Signal::TERM), End::Input] {
        let mut mount = lab.command("mount");
        succeed(mount.args(["-o", "loop,ro"]).args([&disk, &local]));
        san.stop(Duration::from_millis(1200));
        let mut plugin = Plugin::spawn(lab.plugin(&[]));
        plugin.gather();
        for round in 2..=4 {
            let when = format!("{how:?}, gather {round}");
            expect_lines(&lab, &plugin.gather(), &whole, &when);
        }
        let warnings = plugin.warnings();
        println!("{warnings:#?}");
        let hanging: Vec<u32> = children_of(plugin.pid())
            .into_iter()
            .filter(|pid| process(*pid).is_some_and(|it| it.0 == 'D'))
            .collect();
        end(&mut plugin, how, STOP);
        assert_eq!(hanging.len(), 1, "exactly one process hangs");
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        let point = local.to_str().unwrap();
        assert!(warnings[0].contains(point) && warnings[0].contains(vm.name()));
        san.go_on();
        expect_gone(&hanging, "the disk is back");
        succeed(lab.command("umount").arg(&local));
    }
}

/// They do so however the program ends, and whether the mount answers or not.
#[test]
fn checkers_end_with_the_program() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    vm_on(&lab, &mount.new_image("image", 64, true));
    for how in [
        End::Signal(Signal::TERM),
        End::Signal(Signal::KILL),
        End::Input,
    ] {
        for stopped in [false, true] {
            let mut plugin = Plugin::spawn(lab.plugin(&[]));
            let checkers = first_checker(&mut plugin);
            if stopped {
                mount.stop(Duration::from_millis(200));
                plugin.gather();
            }
            end(&mut plugin, how, STOP);
            expect_gone(&checkers, &format!("{how:?}, stopped {stopped}"));
            mount.go_on();
        }
    }
}

#[test]
fn a_checker_has_its_pipes_and_nothing_else_and_is_replaced() {
    let _alone = alone();
    let lab = Lab::start();
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    lab.create(&VmSpec {
        name: "local".to_owned(),
        disks: disks(&["vda"]),
        paused: true,
        ..VmSpec::default()
    });
    plugin.gather();
    // Without a remote mount there is no checker.
    checkers(&plugin, 0);
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let vm = vm_on(&lab, &mount.new_image("image", 64, true));
    plugin.gather();
    for _ in 0..3 {
        let checkers = checkers(&plugin, 1);
        let folder = format!("/proc/{}/fd", checkers[0]);
        let target = |fd: &str| fs::read_link(Path::new(&folder).join(fd)).unwrap();
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 3);
        let pipes = ["0", "1"].map(|fd| target(fd).display().to_string());
        assert!(pipes.iter().all(|it| it.starts_with("pipe:")), "{pipes:?}");
        let stdout = &plugin.stdout_pipe;
        assert_ne!(&target("1"), stdout, "not the stdout that Telegraf reads");
        assert_eq!(target("2"), Path::new("/dev/null"));
        // After it was killed, the second gather has another one, and no zombie remains.
        support::plugin::kill(checkers[0], Signal::KILL);
        plugin.gather();
        plugin.gather();
        expect_gone(&checkers, "it was killed");
    }
    assert_eq!(plugin.warnings(), [] as [&str; 0]);
    vm.destroy();
    plugin.gather();
    plugin.gather();
    checkers(&plugin, 0);
}
