//! The processes that ask mounts: they end with the program, and never keep it from its end.

#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

mod support;

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

use rustix::process::Signal;
use support::lab::Lab;
use support::lines::Line;
use support::outage::Mount;
use support::plugin::Plugin;
use support::vm::{Vm, VmSpec, disk_xml, disks};
use support::{alone, children_of, program, succeed, wait_for};

/// What SIGTERM promises, with room for a busy machine.
const STOP: Duration = Duration::from_millis(2300);
const SLOW: Duration = Duration::from_secs(20);

/// A VM that costs nothing, with a disk of the lab's own and this one.
fn vm_on<'lab>(lab: &'lab Lab, image: &Path) -> Vm<'lab> {
    lab.create(&VmSpec {
        disks: disks(&["vda"]),
        devices: disk_xml("disk", "vdb", Some(image)),
        paused: true,
        ..VmSpec::default()
    })
}

/// Panics unless a gather, while the mount is silent, has all lines of a whole one: also those of the
/// VM's disks, but where libvirt cannot be asked for a disk without a look at all of them.
fn expect_lines(lab: &Lab, gather: &[Line], whole: &[Line], when: &str) {
    let left_out = lab.asking_touches_disks();
    let kinds = |lines: &[Line], all: bool| -> Vec<(String, Option<String>)> {
        let wanted = |line: &&Line| all || line.tags.get("devtype").is_none_or(|it| it != "disk");
        let kind = |line: &Line| (line.measurement.clone(), line.tags.get("device").cloned());
        lines.iter().filter(wanted).map(kind).collect()
    };
    assert_eq!(kinds(gather, true), kinds(whole, !left_out), "{when}");
}

/// The letter of a process's state and its name; `None` when it is gone.
fn process(pid: u32) -> Option<(char, String)> {
    let stat = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let (head, tail) = stat.rsplit_once(") ")?;
    let (_, name) = head.split_once('(')?;
    Some((tail.chars().next()?, name.to_owned()))
}

/// The plugin's checkers of mounts, once they are as many; beside them there may be one for paths on
/// local file systems.
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

/// Gathers until the mount has its checker: on a busy machine the first walk may not come that far.
fn first_checker(plugin: &mut Plugin) -> Vec<u32> {
    wait_for("the mount's checker", SLOW, || {
        plugin.gather();
        let children = children_of(plugin.pid()).into_iter();
        // The other one is for paths.
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

/// Ends the plugin as Telegraf does; its process and its pipes are gone in time.
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

/// A FUSE mount over another whose server is stopped: who asks it cannot be killed, for the request
/// is in the hands of a server that does not answer.
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
        // From the second on there are rates.
        plugin.gather();
        let whole = plugin.gather();
        lower.stop(Duration::from_millis(200));
        // The second names it.
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
        assert_eq!(state, 'D', "{how:?}: it outlives the program");
        lower.go_on();
        expect_gone(&checkers, "the mount is back");
    }
}

/// On a busy host a mount may answer too late for one look. That is no news; two in a row are.
#[test]
fn one_look_in_vain_is_not_worth_a_line() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    vm_on(&lab, &mount.new_image("image", 64, true));
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    // From the second on there are rates.
    plugin.gather();
    let whole = plugin.gather();
    let mut look = |stopped: bool| {
        match stopped {
            true => mount.stop(Duration::from_millis(200)),
            false => mount.go_on(),
        }
        let gather = plugin.gather();
        match stopped {
            true => expect_lines(&lab, &gather, &whole, "stopped"),
            false => assert_eq!(gather.len(), whole.len(), "all lines"),
        }
        plugin.stderr()
    };
    for _ in 0..3 {
        assert_eq!(look(true), "");
        assert_eq!(look(false), "");
    }
    look(true);
    assert_eq!(look(true).lines().count(), 1);
    assert_eq!(look(true).lines().count(), 1);
    let said = look(false);
    let back = said.lines().nth(1).unwrap();
    assert!(
        back.starts_with("I! ") && back.contains("nfs answers again, after 2 gathers"),
        "{said}"
    );
    assert_eq!(look(true), said);
    assert_eq!(look(false), said);
}

/// A mount that takes longer than a look waits, but answers before the next one, costs no figure and
/// no warning; where a disk cannot be asked for without a look at it, the disks and one warning.
#[test]
fn a_slow_mount_costs_nothing_or_is_said_to() {
    let _alone = alone();
    let lab = Lab::start();
    let left_out = lab.asking_touches_disks();
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
        // Once may be a busy host.
        let said = plugin.stderr();
        let expected = usize::from(left_out && round > 1);
        assert_eq!(said.lines().count(), expected, "{when}: {said}");
    }
    if left_out {
        let said = plugin.stderr();
        let named = said.contains("longer than 0.15 s") && said.contains(vm.name());
        assert!(said.starts_with("W! ") && named, "{said}");
        assert_eq!(
            plugin.gather().len(),
            whole.len(),
            "the mount is quick again"
        );
        let said = plugin.stderr();
        assert!(
            said.ends_with("slow mount any more, after 3 gathers\n"),
            "{said}"
        );
    }
}

/// An ext4 on a loop device whose file lies on storage that died: no step onto it has been made yet.
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
    // QEMU holds a file of the folder that the file system then covers.
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
        assert_eq!(hanging.len(), 1, "one process hangs, and stays alone");
        assert_eq!(warnings.len(), 1, "{warnings:#?}");
        let point = local.to_str().unwrap();
        assert!(warnings[0].contains(point) && warnings[0].contains(vm.name()));
        san.go_on();
        expect_gone(&hanging, "the disk is back");
        succeed(lab.command("umount").arg(&local));
    }
}

/// However the program ends, and whether its mount answers or not.
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
    // Nothing to ask, nobody to do it.
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
        let told = &plugin.stdout_pipe;
        assert_ne!(&target("1"), told, "not the stdout that Telegraf reads");
        assert_eq!(target("2"), Path::new("/dev/null"));
        // Somebody kills it: the next look but one has another, and no zombie stays.
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
