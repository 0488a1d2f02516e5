//! Files that QEMU has open in addition to those that a disk's XML names at the VM's start, on storage that
//! dies: no call of the plugin accesses them, and every figure still comes.

use std::path::Path;
use std::time::Duration;

use crate::support::fleet::{Fleet, small};
use crate::support::lab::Lab;
use crate::support::outage::{Mount, Outage};
use crate::support::plugin::Plugin;
use crate::support::vm::{VmSpec, disk_xml};
use crate::support::{alone, run, wait_for};

/// After this time the kernel's cached attributes of the mount's files, which it keeps for 1 s, have expired.
const EXPIRED: Duration = Duration::from_millis(1500);

/// VMs, the first of which is `special`.
fn fleet_with<'lab>(lab: &'lab Lab, special: impl Fn(VmSpec) -> VmSpec + Sync) -> Fleet<'lab> {
    Fleet::start(lab, 4, |number| {
        let spec = small(format!("vm{number}"));
        if number == 0 { special(spec) } else { spec }
    })
}

/// A running plugin, during which a change has moved a file of the first VM to the mount.
struct Case<'t> {
    outage: Outage<'t>,
    plugin: Plugin,
}

impl<'t> Case<'t> {
    fn start(lab: &'t Lab, mount: &'t Mount<'t>, fleet: &'t mut Fleet<'_>) -> Self {
        let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
        let healthy = fleet.learn(&mut plugin);
        let outage = Outage {
            lab,
            fleet,
            mount,
            carried: 1,
            healthy,
        };
        Case { outage, plugin }
    }

    /// The mount dies, on which the VM has no file any more: there is no warning.
    fn outage_elsewhere(&mut self, what: &str) {
        let Self { outage, plugin } = self;
        let said = plugin.warnings();
        outage.mount.stop(EXPIRED);
        outage.carried = 0;
        outage.expect_all(plugin, what);
        assert_eq!(plugin.warnings(), said);
        outage.mount.go_on();
    }

    /// The mount dies, and comes back.
    fn outage(&mut self, what: &str) {
        let Self { outage, plugin } = self;
        outage.mount.stop(EXPIRED);
        outage.expect_all(plugin, what);
        let mut fresh = Plugin::spawn(outage.lab.plugin_unprivileged(&[]));
        let when = format!("{what}, fresh start");
        outage.expect_complete_first(&fresh.gather(), &when);
        outage.expect_all(&mut fresh, &when);
        outage.expect_one_warning(plugin);
        outage.expect_one_warning(&fresh);
        drop(fresh);
        let recoveries =
            |plugin: &Plugin| plugin.stderr().matches(" answers again, after ").count();
        let before = recoveries(plugin);
        outage.mount.go_on();
        outage.fleet.expect_recovery(plugin, 2, "the mount is back");
        // Disks that are read one by one are complete as well. The next outage is another one only if this is over.
        wait_for("the mount to answer", Duration::from_secs(30), || {
            plugin.gather();
            (recoveries(plugin) > before).then_some(())
        });
    }
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

#[test]
fn a_volume_of_a_pool() {
    let _alone = alone();
    let lab = Lab::start();
    if lab.daemon() != "libvirtd" {
        // Pools need a daemon of their own there (virtstoraged), which the lab does not have.
        return;
    }
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    mount.new_image("volume.img", 1024, true);
    let target = text(mount.point());
    lab.virsh(&["pool-create-as", "pool", "dir", "--target", target]);
    let volume = "<disk type='volume' device='disk'><driver name='qemu' type='raw'/>\
                  <source pool='pool' volume='volume.img'/><target dev='vdb' bus='virtio'/></disk>";
    let mut fleet = fleet_with(&lab, |spec| VmSpec {
        devices: volume.to_owned(),
        ..spec
    });
    let mut case = Case::start(&lab, &mount, &mut fleet);
    case.outage("a volume");
}

#[test]
fn a_medium_that_is_changed() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let medium = mount.new_image("medium.iso", 1024, true);
    let mut fleet = fleet_with(&lab, |spec| VmSpec {
        devices: disk_xml("cdrom", "hdc", None),
        ..spec
    });
    let mut case = Case::start(&lab, &mount, &mut fleet);
    let name = case.outage.fleet.vms[0].name();
    let change = |how: &[&str]| lab.virsh(&[&["change-media", name, "hdc"], how].concat());
    // No gather runs between the change and the mount's death.
    change(&["--insert", text(&medium)]);
    case.outage("a changed medium");
    change(&["--eject"]);
    case.outage_elsewhere("ejected");
}

#[test]
fn the_overlay_of_a_snapshot() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let mut fleet = fleet_with(&lab, |spec| spec);
    let mut case = Case::start(&lab, &mount, &mut fleet);
    let name = case.outage.fleet.vms[0].name();
    let overlay = mount.point().join("overlay.qcow2");
    let disk = format!("vda,snapshot=external,file={}", text(&overlay));
    let how = ["--disk-only", "--no-metadata", "--diskspec", &disk];
    lab.virsh(&[&["snapshot-create-as", name, "one"], &how[..]].concat());
    // libvirt sends no event for this change: the next statistics show it.
    case.plugin.gather();
    case.outage("a snapshot");
}

#[test]
fn a_block_copy() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let mut fleet = fleet_with(&lab, |spec| spec);
    let mut case = Case::start(&lab, &mount, &mut fleet);
    let name = case.outage.fleet.vms[0].name();
    let copy = mount.point().join("copy.img");
    lab.virsh(&[
        "blockcopy",
        name,
        "vda",
        text(&copy),
        "--transient-job",
        "--wait",
    ]);
    case.outage("a running copy");
    lab.virsh(&["blockjob", name, "vda", "--pivot"]);
    let said = case.plugin.warnings();
    case.outage.mount.stop(EXPIRED);
    case.outage.expect_all(&mut case.plugin, "a pivoted copy");
    assert_eq!(case.plugin.warnings().len(), said.len() + 1);
    case.outage.mount.go_on();
    case.outage
        .fleet
        .expect_recovery(&mut case.plugin, 2, "the mount is back");
    // The file is moved away from the mount again.
    let away = lab.dir().join("away.img");
    lab.virsh(&[
        "blockcopy",
        name,
        "vda",
        text(&away),
        "--transient-job",
        "--wait",
        "--pivot",
    ]);
    case.outage_elsewhere("pivoted away");
}

#[test]
fn variables_of_the_firmware() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let variables = mount.new_image("variables.fd", 128, true);
    // No VM of the lab executes this code: they are paused.
    let code = lab.dir().join("code.fd");
    std::fs::write(&code, vec![0x90; 256 << 10]).unwrap();
    let os = format!(
        "<loader readonly='yes' type='pflash'>{}</loader><nvram>{}</nvram>",
        text(&code),
        text(&variables)
    );
    let mut fleet = fleet_with(&lab, |spec| VmSpec {
        os: os.clone(),
        ..spec
    });
    let mut case = Case::start(&lab, &mount, &mut fleet);
    case.outage("variables of the firmware");
}

/// No event reports the change: the connection for events is opened again only some seconds later.
#[test]
fn a_disk_that_is_attached_while_libvirtd_is_restarted() {
    let _alone = alone();
    let lab = Lab::start();
    let mount = Mount::start(&lab, &lab.dir().join("nfs"));
    let image = mount.new_image("late.img", 1024, true);
    let mut fleet = fleet_with(&lab, |spec| spec);
    let mut case = Case::start(&lab, &mount, &mut fleet);
    lab.signal_libvirtd("KILL");
    wait_for("libvirtd to end", Duration::from_secs(5), || {
        (!lab.libvirtd_runs()).then_some(())
    });
    lab.start_libvirtd();
    let name = case.outage.fleet.vms[0].name();
    let disk = [
        "attach-disk",
        name,
        text(&image),
        "vdb",
        "--targetbus",
        "virtio",
    ];
    wait_for("the disk", Duration::from_secs(30), || {
        let attached = run(lab.virsh_command().args(disk).arg("--live"));
        attached.status.success().then_some(())
    });
    mount.stop(EXPIRED);
    for round in 1..=4 {
        let gather = case.plugin.gather();
        let when = format!("attached unseen, gather {round}");
        case.outage.fleet.expect_complete_but(&gather, &[0], &when);
        assert_eq!(lab.hanging_calls(), 0, "{when}: no call of ours hangs");
        let monitor = ["qemu-monitor-command", name, "--hmp", "info name"];
        let mut monitor = lab.client(&monitor);
        wait_for("the guest's monitor", Duration::from_secs(5), || {
            (!monitor.runs()).then_some(())
        });
    }
    mount.go_on();
}
