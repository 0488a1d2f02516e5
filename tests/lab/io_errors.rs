//! I/O errors of disks: libvirt's events are counted for each disk.

use crate::qemu_ends::until_events_come;
use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{VmSpec, disks};
use crate::support::{succeed, wait_for};
use std::fs::File;
use std::process::Stdio;
use std::time::Duration;

const WRITE: &str = "dd if=/dev/zero bs=64k count=32 oflag=direct of=/dev/";

#[test]
fn errors_are_counted_for_each_disk_and_show_why_the_vm_is_paused() {
    let lab = Lab::start();
    let steady = lab.create(&VmSpec {
        name: "steady".into(),
        disks: disks(&["vda"]),
        paused: true,
        ..VmSpec::default()
    });
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    until_events_come(&mut plugin, &steady);
    let log = lab.dir().join("events.log");
    // virsh 7.0 writes to a file only what fills its buffer.
    let mut events = lab.command("stdbuf");
    events.args([
        "--output=L",
        "virsh",
        "-c",
        "qemu:///system",
        "event",
        "--event",
        "io-error-reason",
        "--loop",
        "--timestamp",
    ]);
    let mut events = events
        .stdout(File::create(&log).unwrap())
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    // How many events another client has had of this disk.
    let reported = |alias: &str| {
        let text = std::fs::read_to_string(&log).unwrap();
        let of_it = text.lines().filter(|line| line.contains(alias));
        i64::try_from(of_it.count()).unwrap()
    };

    // The images are larger than their store.
    let store = lab.dir().join("store");
    std::fs::create_dir(&store).unwrap();
    let store = store.to_str().unwrap();
    succeed(
        lab.command("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "store", store]),
    );
    let image = |target: &str, policy: &str, alias: &str| {
        let image = format!("{store}/{target}.img");
        succeed(lab.command("truncate").args(["-s", "8M", &image]));
        format!(
            "<disk type='file' device='disk'><driver name='qemu' type='raw' error_policy='{policy}'/>\
             <source file='{image}'/><target dev='{target}' bus='virtio'/>{alias}</disk>"
        )
    };
    let vm = lab.create(&VmSpec {
        memory_mib: 96,
        disks: disks(&["vdc"]),
        devices: image("vda", "stop", "") + &image("vdb", "report", "<alias name='ua-full'/>"),
        guest: true,
        ..VmSpec::default()
    });
    let name = vm.name();
    let count = |found: &[Line], disk: &str| {
        let disk = lines::device(found, name, "disk", disk);
        disk.int("io_error_events").unwrap()
    };

    // The VM is not listed yet when the first errors come. The guest is told of them and goes on.
    vm.guest(&format!("{WRITE}vdb; true"));
    wait_for("an event", Duration::from_secs(30), || {
        (reported("ua-full") > 0).then_some(())
    });
    let mut found = wait_for("the count", Duration::from_secs(30), || {
        let found = plugin.gather();
        (count(&found, "vdb") == reported("ua-full")).then_some(found)
    });
    let before = count(&found, "vdb");
    assert_eq!((count(&found, "vda"), count(&found, "vdc")), (0, 0));
    assert_eq!(
        lines::one(&found, "vm_metrics", name).text("state"),
        Some("running")
    );
    lines::adds_up(&found, name);
    vm.guest(&format!("{WRITE}vdb; true"));
    wait_for("further errors", Duration::from_secs(30), || {
        found = plugin.gather();
        let now = count(&found, "vdb");
        (now > before && now == reported("ua-full")).then_some(())
    });

    // An error of this disk stops the VM, and so it does again when the VM goes on.
    vm.begin(&format!("{WRITE}vda"));
    for times in 1..=2 {
        wait_for("the VM to be paused", Duration::from_secs(60), || {
            found = plugin.gather();
            let errors = count(&found, "vda");
            let metrics = lines::one(&found, "vm_metrics", name);
            let is_paused = metrics.text("state") == Some("paused");
            (is_paused && errors >= times && errors == reported("virtio-disk")).then_some(())
        });
        let metrics = lines::one(&found, "vm_metrics", name);
        assert_eq!(metrics.text("state_reason"), Some("ioerror"));
        if times == 1 {
            lab.virsh(&["resume", vm.uuid()]);
        }
    }
    assert_eq!(
        lines::device(&found, steady.name(), "disk", "vda").int("io_error_events"),
        Some(0)
    );
    let _ = events.kill();
    let _ = events.wait();

    let warnings = plugin.warnings();
    assert_eq!(warnings.len(), 2, "{warnings:#?}");
    for (warning, disk) in warnings.iter().zip(["vdb", "vda"]) {
        let begins = format!("W! VM {name} ({}): disk {disk} has ", vm.uuid());
        assert!(warning.starts_with(&begins), "{warning}");
    }
    // QEMU tells the reason only where the error stops the VM.
    assert!(warnings[1].contains("(enospc)"), "{warnings:?}");
}
