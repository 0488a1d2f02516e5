//! Disks that are no files: served by QEMU's own drivers and by other processes. And the cost of a change of
//! a disk's file.

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use crate::support::fleet::{Fleet, WITH_COLLECTOR, collected, small};
use crate::support::lab::Lab;
use crate::support::lines;
use crate::support::plugin::{Plugin, kill};
use crate::support::vm::{VmSpec, disk_xml};
use crate::support::{alone, child_of, wait_for};

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// This disk never has counters, so a VM is complete without them.
#[test]
fn a_vhost_user_disk() {
    let _alone = alone();
    let lab = Lab::start();
    if lab.libvirt_version() < (7, 1) {
        // This libvirt does not support such a disk.
        return;
    }
    let mut servers = Vec::new();
    let mut vhost_user = |number: usize| {
        let image = lab.dir().join(format!("vhost{number}.img"));
        let socket = lab.dir().join(format!("vhost{number}.sock"));
        std::fs::write(&image, vec![0; 1 << 20]).unwrap();
        let file = format!("driver=file,node-name=f0,filename={}", text(&image));
        let export = format!(
            "type=vhost-user-blk,id=e0,addr.type=unix,addr.path={},node-name=f0,writable=on",
            text(&socket)
        );
        let mut server = lab.command("qemu-storage-daemon");
        server.args(["--blockdev", &file, "--export", &export]);
        servers.push(server.spawn().unwrap());
        wait_for("its socket", Duration::from_secs(20), || {
            socket.exists().then_some(())
        });
        format!(
            "<disk type='vhostuser' device='disk'><driver name='qemu' type='raw'/>\
             <source type='unix' path='{}'/><target dev='vdb' bus='virtio'/></disk>",
            text(&socket)
        )
    };
    let disks = [vhost_user(0), vhost_user(1)];
    let spec = |number: usize| VmSpec {
        extra: "<memoryBacking><source type='memfd'/><access mode='shared'/></memoryBacking>"
            .to_owned(),
        devices: disks[number].clone(),
        ..small(format!("vm{number}"))
    };
    let beside = lab.create(&spec(0));
    let alone = lab.create(&VmSpec {
        disks: Vec::new(),
        ..spec(1)
    });
    let config = lab.config(WITH_COLLECTOR);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    for _ in 0..3 {
        let gather = plugin.gather();
        assert_eq!(collected(&gather, "vms_complete"), 2);
        assert_eq!(collected(&gather, "vms_partial"), 0);
        let all = |name| lines::one(&gather, "vm_totals", name);
        let disk = lines::device(&gather, beside.name(), "disk", "vda");
        for (sum, field) in [("disk_rd_bytes", "rd_bytes"), ("disk_wr_reqs", "wr_reqs")] {
            assert!(disk.int(field).is_some());
            assert_eq!(all(beside.name()).int(sum), disk.int(field), "{sum}");
            assert_eq!(all(alone.name()).int(sum), None, "{sum}: it is not counted");
        }
        let is_it = |line: &&lines::Line| line.tags.get("device").is_some_and(|d| d == "vdb");
        assert_eq!(gather.iter().find(is_it), None);
    }
    assert_eq!(plugin.warnings(), [""; 0]);
    for mut server in servers {
        let _ = server.kill();
        let _ = server.wait();
    }
}

/// A stopped NBD server does not answer, and QEMU needs no answer of it for block statistics.
#[test]
fn a_network_disk_whose_driver_answers_from_memory() {
    let _alone = alone();
    let lab = Lab::start();
    let image = lab.dir().join("nbd.img");
    let socket = lab.dir().join("nbd.sock");
    std::fs::write(&image, vec![0; 1 << 20]).unwrap();
    let mut server = lab
        .command("qemu-storage-daemon")
        .args([
            "--blockdev",
            &format!("driver=file,node-name=f0,filename={}", text(&image)),
        ])
        .args([
            "--nbd-server",
            &format!("addr.type=unix,addr.path={}", text(&socket)),
        ])
        .args([
            "--export",
            "type=nbd,id=e0,node-name=f0,name=disk,writable=on",
        ])
        .spawn()
        .unwrap();
    wait_for("its socket", Duration::from_secs(20), || {
        socket.exists().then_some(())
    });
    let disk = format!(
        "<disk type='network' device='disk'><driver name='qemu' type='raw'/>\
         <source protocol='nbd' name='disk'><host transport='unix' socket='{}'/></source>\
         <target dev='vdb' bus='virtio'/></disk>",
        text(&socket)
    );
    let mut fleet = Fleet::start(&lab, 2, |number| VmSpec {
        devices: disk.repeat(usize::from(number == 0)),
        ..small(format!("vm{number}"))
    });
    let calls = lab.dir().join("calls.log");
    let mut command = lab.plugin(&[]);
    log_calls(&mut command, &calls);
    let mut plugin = Plugin::spawn(command);
    fleet.learn(&mut plugin);
    let pid = child_of(server.id()).unwrap();
    kill(pid, rustix::process::Signal::STOP);
    let before = count_calls(&calls, "virDomainBlockStats:");
    for round in 1..=4 {
        let when = format!("the server stands, gather {round}");
        fleet.expect_complete_but(&plugin.gather(), &[], &when);
    }
    // The VM is queried in bulk, like any other.
    assert_eq!(count_calls(&calls, "virDomainBlockStats:"), before);
    assert_eq!(lab.hanging_calls(), 0);
    kill(pid, rustix::process::Signal::CONT);
    let _ = server.kill();
    let _ = server.wait();
}

/// Makes libvirt's client library log every call of the plugin.
fn log_calls(command: &mut Command, file: &Path) {
    std::fs::write(file, "").unwrap();
    command
        .env("LIBVIRT_DEBUG", "1")
        .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", text(file)));
}

fn count_calls(file: &Path, call: &str) -> usize {
    let log = std::fs::read(file).unwrap();
    let log = String::from_utf8_lossy(&log);
    log.lines().filter(|line| line.contains(call)).count()
}

/// The cost of a change of a medium and of a block job: the XML of that VM is read once or twice, and that of
/// no other VM.
#[test]
fn events_of_trays_and_jobs_cost_xml_of_their_vm_alone() {
    let _alone = alone();
    let lab = Lab::start();
    let _fleet = Fleet::start(&lab, 2, |number| VmSpec {
        devices: disk_xml("cdrom", "hdc", None),
        ..small(format!("vm{number}"))
    });
    let calls = lab.dir().join("calls.log");
    let mut command = lab.plugin(&[]);
    log_calls(&mut command, &calls);
    let mut plugin = Plugin::spawn(command);
    let mut gathers = |count: usize| {
        let calls = || count_calls(&calls, "virDomainGetXMLDesc:");
        let before = calls();
        for _ in 0..count {
            plugin.gather();
            // libvirt's events come on another connection: there is time for them.
            std::thread::sleep(Duration::from_millis(250));
        }
        calls() - before
    };
    // Descriptions that were read before events came are read again, spread over some gathers.
    wait_for("all XML to be read", Duration::from_secs(60), || {
        (gathers(5) == 0).then_some(())
    });
    // A VM starts, and libvirt sends the events of its start.
    let late = lab.create(&VmSpec {
        devices: disk_xml("cdrom", "hdc", None),
        paused: false,
        ..small("late".to_owned())
    });
    assert_eq!(gathers(5), 1, "that of the new VM");
    assert_eq!(gathers(10), 0, "a steady state");
    let medium = lab.dir().join("medium.iso");
    std::fs::write(&medium, vec![0; 1 << 20]).unwrap();
    lab.virsh(&[
        "change-media",
        late.name(),
        "hdc",
        "--insert",
        text(&medium),
    ]);
    let read = gathers(5);
    assert!(
        (1..=2).contains(&read),
        "{read} after a change of the medium"
    );
    let copy = lab.dir().join("copy.img");
    let job = ["--transient-job", "--wait", "--pivot"];
    lab.virsh(&[&["blockcopy", late.name(), "vda", text(&copy)], &job[..]].concat());
    let read = gathers(5);
    assert!((1..=2).contains(&read), "{read} after a copy");
    assert_eq!(gathers(5), 0, "a steady state");
}

/// libvirt keeps the firmware's variables in a folder that ordinary users cannot read. That is no reason to
/// query the VM's disks one by one, or not at all.
#[test]
fn a_vm_with_firmware_whose_variables_only_libvirt_sees() {
    let _alone = alone();
    let lab = Lab::start();
    let closed = lab.dir().join("nvram");
    std::fs::create_dir(&closed).unwrap();
    let (code, variables) = (lab.dir().join("code.fd"), closed.join("variables.fd"));
    std::fs::write(&code, vec![0x90; 256 << 10]).unwrap();
    std::fs::write(&variables, vec![0; 128 << 10]).unwrap();
    std::fs::set_permissions(&closed, Permissions::from_mode(0o700)).unwrap();
    let vm = lab.create(&VmSpec {
        os: format!(
            "<loader readonly='yes' type='pflash'>{}</loader><nvram>{}</nvram>",
            text(&code),
            text(&variables)
        ),
        ..small("efi".into())
    });
    let config = lab.config(WITH_COLLECTOR);
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    // On a busy machine the first host report may be late.
    plugin.gather();
    let before = collected(&plugin.gather(), "calls_block");
    let gather = plugin.gather();
    assert_eq!(collected(&gather, "calls_block"), before);
    let totals = lines::one(&gather, "vm_totals", vm.name());
    assert!(totals.int("disk_rd_bytes").is_some(), "{totals:?}");
    assert_eq!(plugin.warnings(), [""; 0]);
}
