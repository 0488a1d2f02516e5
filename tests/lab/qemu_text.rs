//! libvirt's texts for real QEMU VMs: words for states and reasons, names of every kind, and descriptions of
//! any length.

use crate::support;
use crate::support::lab::Lab;
use crate::support::lines;
use crate::support::plugin::Plugin;
use crate::support::virsh::agrees;
use crate::support::vm::{Nic, VmSpec, disk_xml, disks, escape};
use crate::support::{succeed, turn, wait_for};
use std::time::Duration;

/// Each state and reason that a test can produce: the number, and libvirt's word for it.
#[test]
fn states_and_reasons_are_libvirts_words() {
    let _turn = turn::share();
    let lab = Lab::start();
    let small = lab.dir().join("small");
    std::fs::create_dir(&small).unwrap();
    let small = small.to_str().unwrap();
    succeed(
        lab.command("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "lab", small]),
    );
    let image = format!("{small}/vda.img");
    succeed(lab.command("truncate").args(["-s", "8M", &image]));
    let vm = lab.create(&VmSpec {
        memory_mib: 96,
        devices: disk_xml("disk", "vda", Some(image.as_ref())),
        guest: true,
        extra: "<pm><suspend-to-mem enabled='yes'/></pm>".into(),
        ..VmSpec::default()
    });
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    let mut is = |state: &str, reason: &str| {
        let said = || lab.virsh(&["domstate", "--domain", vm.uuid()]);
        let word = if state == "suspended" {
            "pmsuspended"
        } else {
            state
        };
        wait_for(word, Duration::from_secs(30), || {
            (said().trim() == word).then_some(())
        });
        let found = agrees(&lab, &mut plugin, &[(vm.uuid(), None)], false);
        let metrics = lines::one(&found, "vm_metrics", vm.name());
        assert_eq!(metrics.text("state"), Some(state));
        assert_eq!(metrics.text("state_reason"), Some(reason));
    };
    is("running", "booted");
    lab.virsh(&["suspend", "--domain", vm.uuid()]);
    is("paused", "user");
    lab.virsh(&["resume", "--domain", vm.uuid()]);
    is("running", "unpaused");
    vm.wait_for_console("guest: ready", Duration::from_secs(120));

    // The guest writes more than the file system of its disk image holds, so QEMU stops it.
    vm.begin("dd if=/dev/zero of=/dev/vda bs=64k count=64 oflag=direct");
    is("paused", "ioerror");
    succeed(lab.command("mount").args(["-o", "remount,size=16m", small]));
    lab.virsh(&["resume", "--domain", vm.uuid()]);
    vm.wait_for_console("64+0 records out", Duration::from_secs(30));
    is("running", "unpaused");

    vm.begin("echo mem >/sys/power/state");
    is("suspended", "unknown");
    lab.virsh(&["dompmwakeup", "--domain", vm.uuid()]);
    is("running", "wakeup");

    let saved = lab.dir().join("saved");
    let saved = saved.to_str().unwrap();
    lab.virsh(&["save", "--domain", vm.uuid(), saved]);
    lab.virsh(&["restore", saved]);
    is("running", "restored");
    let said = plugin.stderr();
    let full = "disk vda has an I/O error (enospc)";
    assert!(said.starts_with("W! ") && said.contains(full), "{said}");
    assert_eq!(said.lines().count(), 1, "{said}");
}

/// Domain names that libvirt accepts, each with the tag that Telegraf can carry: a tab becomes a space; a
/// backslash at the end, or before `,` `=` space or `"`, is dropped.
const NAMES: [(&str, &str); 12] = [
    ("plain", "plain"),
    ("two  words ", "two  words "),
    ("comma,name=x,", "comma,name=x,"),
    (r#""quoted" 'twice'"#, r#""quoted" 'twice'"#),
    (r"back\slash \b \n", r"back\slash \b \n"),
    (r"the end\", "the end"),
    (r"the end, thrice\\\", "the end, thrice"),
    (r#"escapes \, \= \  \" \\, all"#, r#"escapes , =   " , all"#),
    ("tab\tin it", "tab in it"),
    ("äöü € 漢字 😀 עברית", "äöü € 漢字 😀 עברית"),
    ("<a b='c'>&amp;<a>", "<a b='c'>&amp;<a>"),
    (
        "$HOME `id` %s # ; | * ? [x] {y} ~!",
        "$HOME `id` %s # ; | * ? [x] {y} ~!",
    ),
];

/// Names of taps that the kernel accepts, at most 15 bytes.
const TAPS: [(&str, &str); 8] = [
    ("tap,odd=1", "tap,odd=1"),
    ("tap\"q\"", "tap\"q\""),
    ("tap'", "tap'"),
    (r"t\ap", r"t\ap"),
    (r"tap\", "tap"),
    (r"tap\,\=", "tap,="),
    ("täp€", "täp€"),
    ("tap<&>#;$`|", "tap<&>#;$`|"),
];

#[test]
fn awkward_names_arrive_as_they_are() {
    let _turn = turn::share();
    let lab = Lab::start();
    let mut vms = Vec::new();
    for (n, (name, _)) in NAMES.iter().enumerate() {
        let nics = TAPS.get(n).map(|(tap, _)| Nic::Named((*tap).into()));
        vms.push(lab.create(&VmSpec {
            name: (*name).to_owned(),
            nics: nics.into_iter().collect(),
            disks: disks(&["vda"]),
            paused: true,
            ..VmSpec::default()
        }));
    }
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    for gather in 1..=2 {
        let found = plugin.gather();
        for (n, (vm, (name, tag))) in vms.iter().zip(NAMES).enumerate() {
            let tag = format!("{}-{tag}", lab.prefix());
            let mut own = lines::of(&found, "vm_metrics", &tag);
            own.retain(|line| line.tag("uuid") == vm.uuid());
            assert_eq!(own.len(), 1, "{name:?}: {found:#?}");
            let devices: Vec<&str> = found
                .iter()
                .filter(|line| line.measurement == "vm_devices" && line.tag("uuid") == vm.uuid())
                .map(|line| line.tag("device"))
                .collect();
            let tap = TAPS.get(n).map(|(_, tap)| *tap);
            let expected: Vec<&str> = tap.into_iter().chain(["vda"]).collect();
            assert_eq!(devices, expected, "{name:?}");
        }
        // metrics, totals, the disk, and from the second gather on the features; and a line per tap.
        let lines = NAMES.len() * if gather == 1 { 3 } else { 4 } + TAPS.len();
        assert_eq!(found.len(), lines, "{found:#?}");
    }
    // No name is lost: all figures are found under these names.
    let tags: Vec<String> = NAMES
        .map(|(_, tag)| format!("{}-{tag}", lab.prefix()))
        .into();
    let plain: Vec<_> = vms
        .iter()
        .zip(&tags)
        .skip(TAPS.len())
        .map(|(vm, tag)| (vm.uuid(), Some(tag.as_str())))
        .collect();
    agrees(&lab, &mut plugin, &plain, false);
    assert_eq!(plugin.stderr(), "");
}

/// Megabytes of metadata, full of elements that look like devices.
fn notes() -> String {
    let text = escape("nothing & nobody <disk> ").repeat(5);
    metadata(13_000, |n| {
        format!("<n:note id='{n}'><disk device='cdrom'><target dev='vda'/></disk>{text}</n:note>")
    })
}

fn metadata(count: usize, note: impl Fn(usize) -> String) -> String {
    let notes: String = (0..count).map(note).collect();
    format!("<metadata><n:notes xmlns:n='https://notes.example/'>{notes}</n:notes></metadata>")
}

#[test]
fn megabytes_of_metadata_cost_no_figure() {
    let _turn = turn::share();
    let lab = Lab::start();
    let spec = |name: &str, extra| VmSpec {
        name: name.into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        extra,
        paused: true,
        ..VmSpec::default()
    };
    let noted = lab.create(&spec("noted", notes()));
    let size = lab.virsh(&["dumpxml", "--domain", noted.uuid()]).len();
    assert!(size > 3_000_000, "{size} bytes of XML");
    let mut plugin = Plugin::spawn(lab.plugin(&[]));
    for _ in 0..2 {
        let found = agrees(&lab, &mut plugin, &[(noted.uuid(), None)], false);
        lines::device(&found, noted.name(), "disk", "vda");
    }
    assert_eq!(plugin.stderr(), "");

    // The XML is longer than libvirt's protocol can carry (4 MiB): libvirt accepts it as input, but indented
    // it is too long for the reply. This costs that VM's description, and so its disks, and nothing else.
    let endless = lab.create(&spec("endless", metadata(400_000, |_| "<n:a/>".into())));
    let mut dump = lab.virsh_command();
    dump.args(["dumpxml", "--domain", endless.uuid()]);
    assert!(!support::run(&mut dump).status.success(), "not too long");
    for _ in 0..3 {
        let found = agrees(&lab, &mut plugin, &[(noted.uuid(), None)], false);
        let name = endless.name();
        lines::one(&found, "vm_metrics", name);
        let devices = lines::of(&found, "vm_devices", name);
        let kinds: Vec<&str> = devices.iter().map(|line| line.tag("devtype")).collect();
        assert_eq!(kinds, ["nic"], "what is a disk, its description alone says");
        let totals = lines::one(&found, "vm_totals", name);
        assert_eq!(totals.int("net_rxbytes"), devices[0].int("rxbytes"));
        assert_eq!(totals.int("disk_rd_bytes"), None);
        assert!(totals.int("memrss").is_some());
    }
    // Each is logged once: that the VM has no description, and what that costs where a call for a disk may
    // stop the guest.
    let log = plugin.stderr();
    let mut expected = vec!["Unable to encode message payload"];
    if lab.asking_touches_disks() {
        expected.push("not known where all files");
    }
    assert_eq!(log.lines().count(), expected.len(), "{log}");
    for (line, text) in log.lines().zip(expected) {
        let named = line.contains(endless.name());
        assert!(
            line.starts_with("W! ") && named && line.contains(text),
            "{log}"
        );
    }
}
