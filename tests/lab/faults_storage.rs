//! Storage that dies under VMs: no call of the plugin accesses it, and every figure still comes.

use crate::support;
use crate::support::fleet::{Fleet, WITH_COLLECTOR, at_most, collected, long, shapes, small};
use crate::support::lab::Lab;
use crate::support::outage::{Mount, Outage};
use crate::support::plugin::Plugin;
use crate::support::vm::{VmSpec, disk_xml};
use crate::support::{alone, wait_for};
use std::collections::{BTreeMap, BTreeSet};
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::thread::sleep;
use std::time::Duration;

/// A VM with a disk of its own and a disk `vdb` with this image.
fn with_image(name: String, image: &Path) -> VmSpec {
    VmSpec {
        devices: disk_xml("disk", "vdb", Some(image)),
        ..small(name)
    }
}

/// VMs, the first of which have a disk with an image from `images`.
fn fleet_on<'lab>(lab: &'lab Lab, images: &[PathBuf], size: usize) -> Fleet<'lab> {
    Fleet::start(lab, size, |number| {
        let name = format!("vm{number}");
        match images.get(number) {
            Some(image) => with_image(name, image),
            None => small(name),
        }
    })
}

/// Images on the mount, one half of them written, the other half empty.
fn images(mount: &Mount, count: usize) -> Vec<PathBuf> {
    let image = |n| mount.new_image(&format!("disk{n}.img"), 1024, n < count / 2);
    (0..count).map(image).collect()
}

#[test]
fn dead_storage() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let (size, carried) = if long() { (30, 10) } else { (12, 4) };
    let images = images(&mount, carried);
    let mut fleet = fleet_on(&lab, &images, size);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));

    for pause in [200, 1500] {
        let healthy = fleet.learn(&mut plugin);
        let outage = Outage {
            lab: &lab,
            fleet: &fleet,
            mount: &mount,
            carried,
            healthy,
        };
        let said = plugin.stderr().len();
        mount.stop(Duration::from_millis(pause));
        let when = format!("dead for {pause} ms");
        outage.expect_all(&mut plugin, &when);
        if pause == 200 {
            outage.expect_one_warning(&plugin);
        }
        // A plugin that starts while the storage is dead.
        let mut fresh = Plugin::spawn(lab.plugin_unprivileged(&[]));
        let when = format!("{when}, fresh start");
        outage.expect_complete_first(&fresh.gather(), &when);
        outage.expect_all(&mut fresh, &when);
        outage.expect_one_warning(&fresh);
        drop(fresh);

        mount.go_on();
        fleet.expect_recovery(&mut plugin, 2, "the mount is back");
        let point = mount.point().to_str().unwrap().to_owned();
        let back = |line: &&str| line.starts_with("I! ") && line.contains(&point);
        // The server first serves the requests that waited meanwhile, so it may take one more gather.
        wait_for(
            "the log line that the mount is back",
            Duration::from_secs(5),
            || {
                plugin.gather();
                let log = plugin.stderr();
                let lines = log[said..].lines().filter(back).count();
                assert!(lines <= 1, "{log}");
                (lines == 1).then_some(())
            },
        );
    }
}

/// The plugin runs as the user telegraf, which has no access below the folder; the image is a symlink whose
/// target is there.
#[test]
fn dead_storage_of_which_we_know_nothing() {
    let _alone = alone();
    let lab = Lab::start();
    let closed = lab.dir().join("closed");
    let mount = Mount::start(&lab, &closed.join("nfs"));
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let mut images = images(&mount, 4);
    let links = lab.dir().join("links");
    std::fs::create_dir(&links).unwrap();
    for (number, image) in images.iter_mut().enumerate().skip(1).step_by(2) {
        let link = links.join(format!("disk{number}.img"));
        std::os::unix::fs::symlink(&*image, &link).unwrap();
        *image = link;
    }
    let mut fleet = fleet_on(&lab, &images, 8);
    for user in [65534, 0] {
        let start = || match user {
            0 => Plugin::spawn(lab.plugin(&[])),
            _ => Plugin::spawn(lab.plugin_unprivileged(&[])),
        };
        let mut plugin = start();
        // Where a libvirt call for one disk accesses the files, disks of unknown storage are not queried,
        // even while every mount answers.
        let never = user != 0 && lab.asking_touches_disks();
        let healthy = if never {
            let healthy = fleet.learn(&mut Plugin::spawn(lab.plugin(&[])));
            plugin.gather();
            healthy
        } else {
            fleet.learn(&mut plugin)
        };
        for pause in [200, 1500] {
            let outage = Outage {
                lab: &lab,
                fleet: &fleet,
                mount: &mount,
                carried: images.len(),
                healthy,
            };
            mount.stop(Duration::from_millis(pause));
            let when = format!("user {user}, dead for {pause} ms");
            outage.expect_all(&mut plugin, &when);
            let mut fresh = start();
            let when = format!("{when}, fresh start");
            outage.expect_complete_first(&fresh.gather(), &when);
            outage.expect_all(&mut fresh, &when);
            drop(fresh);
            mount.go_on();
            if never {
                outage.expect_complete(&plugin.gather(), "the mount is back");
            } else {
                fleet.expect_recovery(&mut plugin, 2, "the mount is back");
            }
        }
    }
}

/// Another client's call hangs inside libvirtd and holds the VM's lock: list hangs for every client.
fn lock_first(lab: &Lab, fleet: &Fleet, mount: &Mount) -> support::daemon::Client {
    let name = fleet.vms[0].name();
    mount.stop(Duration::ZERO);
    // Every version of libvirtd opens the file of a dump by itself, with the VM locked. Up to 9.0 it does so
    // for the block group, too; with 11.3 and QEMU 10.0 QEMU hangs instead.
    let core = mount.point().join("core");
    let dump = ["dump", name, core.to_str().unwrap(), "--memory-only"];
    let client = lab.client(&dump);
    wait_for("the VM to be locked", Duration::from_secs(10), || {
        let mut probe = lab.client(&["list"]);
        sleep(Duration::from_millis(500));
        probe.runs().then_some(())
    });
    client
}

#[test]
fn a_locked_vm() {
    let _alone = alone();
    for hidden in [false, true] {
        let lab = Lab::start();
        let mount = Mount::start(&lab, &lab.dir().join("nfs"));
        let images = [mount.new_image("empty.img", 1024, false)];
        let mut fleet = fleet_on(&lab, &images, if long() { 21 } else { 8 });
        let config = lab.config(WITH_COLLECTOR);
        let args = ["--config", &config];
        let command = if hidden {
            lab.plugin_blind(&args)
        } else {
            lab.plugin_unprivileged(&args)
        };
        let late = lab.create(&VmSpec {
            persistent: true,
            ..small("late".to_owned())
        });
        late.destroy();
        let mut plugin = Plugin::spawn(command);
        fleet.learn(&mut plugin);
        let client = lock_first(&lab, &fleet, &mount);
        let others = lab.hanging_calls();
        let rounds = if long() { 20 } else { 6 };
        let mut most = BTreeMap::new();
        for round in 1..=rounds {
            let when = format!("locked, hidden {hidden}, gather {round}");
            let (gather, took) = plugin.timed_gather();
            let ours = lab.hanging_calls().saturating_sub(others);
            println!("{when}: {took:?}, {ours} calls of ours in the daemon's workers");
            most.insert(ours, round);
            fleet.expect_complete_but(&gather, &[0], &when);
            assert!(took <= at_most(Duration::from_secs(1)), "{when}: {took:?}");
            let name = fleet.vms[0].name();
            assert!(!shapes(&gather).contains_key(name), "{when}: withheld");
            assert_eq!(collected(&gather, "vms_withheld"), 1, "{when}");
            assert!(collected(&gather, "calls_hanging") <= 3, "{when}");
        }
        let (calls, round) = most.last_key_value().unwrap();
        assert!(*calls <= 3, "{calls} calls of ours hang in gather {round}");
        let warnings = plugin.warnings();
        assert!(warnings.len() <= 2, "{warnings:#?}");
        // No list comes, but VMs that start and stop are seen all the same.
        let start = lab.client(&["start", late.name(), "--paused"]);
        let reads = |(measurement, _): &(String, _), fields: &BTreeSet<String>| {
            measurement == "vm_totals" && fields.contains("disk_rd_bytes")
        };
        wait_for("the new VM's lines", Duration::from_secs(3), || {
            let shape = shapes(&plugin.gather()).remove(late.name())?;
            shape
                .iter()
                .any(|(key, fields)| reads(key, fields))
                .then_some(())
        });
        drop(start);
        late.destroy();
        wait_for("its lines to stop", Duration::from_secs(3), || {
            let gone = !shapes(&plugin.gather()).contains_key(late.name());
            gone.then_some(())
        });
        mount.go_on();
        fleet.expect_recovery(&mut plugin, 2, "unlocked");
        wait_for("calls to return", Duration::from_secs(5), || {
            (lab.hanging_calls() == 0).then_some(())
        });
        drop(client);
    }
}
