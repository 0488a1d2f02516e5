//! Tags by values of a VM's XML, which change while the VM runs.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line, lacking};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disks, escape};

const NAMESPACE: &str = "http://example.org/ns";

/// Sets the VM's metadata to an owner of this name.
fn set_owner(lab: &Lab, vm: &Vm, owner: &str) {
    let xml = format!("<vm><owner id='7'>{}</owner></vm>", escape(owner));
    lab.virsh(&[
        "metadata",
        vm.uuid(),
        "--live",
        "--uri",
        NAMESPACE,
        "--key",
        "app",
        "--set",
        &xml,
    ]);
}

/// The values of a tag in the lines of a VM without those of vm_info: one, if all lines agree; `None` if a line lacks it.
fn tag<'l>(found: &'l [Line], vm: &Vm, tag: &str) -> Vec<Option<&'l str>> {
    let of_vm = found.iter().filter(|line| {
        line.tags.get("uuid").is_some_and(|uuid| uuid == vm.uuid()) && line.measurement != "vm_info"
    });
    let mut values: Vec<Option<&str>> = of_vm
        .map(|line| line.tags.get(tag).map(String::as_str))
        .collect();
    values.dedup();
    values
}

/// The lines of vm_info: those of the VM itself have no `devtype`.
fn info<'l>(found: &'l [Line], vm: &Vm) -> Vec<&'l Line> {
    lines::of(found, "vm_info", vm.name())
}

/// The next gather after a change: libvirt sends its events at the end of it, on another connection.
fn after_the_event(plugin: &mut Plugin) -> Vec<Line> {
    std::thread::sleep(std::time::Duration::from_millis(500));
    plugin.gather()
}

#[test]
fn changed_metadata_shows_in_the_next_gather_and_a_steady_host_reads_no_xml() {
    let lab = Lab::start();
    let spec = |name: &str| VmSpec {
        name: name.into(),
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    };
    let (vm, other) = (lab.create(&spec("owned")), lab.create(&spec("other")));
    let config = lab.config(
        "measurements = [\"vm_metrics\", \"vm_features\", \"vm_devices\", \"vm_totals\", \"vm_collector\", \"vm_info\"]\n\
         [tags]\nowner = \"{http://example.org/ns}vm/owner\"\n\
         owner_id = \"{http://example.org/ns}vm/owner@id\"\ntitle = \"title\"\n",
    );
    let mut plugin = Plugin::spawn(lab.plugin(&["--config", &config]));
    // vm_info says what virsh says.
    let found = plugin.gather();
    let of_vm = info(&found, &vm);
    assert_eq!(of_vm.len(), 3, "{of_vm:?}");
    let dominfo = lab.virsh(&["dominfo", vm.uuid()]);
    let says = |key: &str, value: &str| {
        let line = dominfo.lines().find(|line| line.starts_with(key)).unwrap();
        line.ends_with(value)
    };
    assert!(of_vm.iter().all(|line| line.tags.len()
        == if line.fields.contains_key("arch") {
            3
        } else {
            5
        }));
    let own = of_vm
        .iter()
        .find(|line| !line.tags.contains_key("devtype"))
        .unwrap();
    assert_eq!(own.text("os_type"), Some("hvm"));
    assert_eq!(own.text("arch"), Some("x86_64"));
    assert_eq!(own.text("firmware"), Some("bios"));
    let persistent = if says("Persistent", "yes") {
        "yes"
    } else {
        "no"
    };
    assert_eq!(own.text("persistent"), Some(persistent));
    let autostart = if says("Autostart", "disable") {
        "no"
    } else {
        "yes"
    };
    assert_eq!(own.text("autostart"), Some(autostart));
    let device = |devtype: &str| {
        of_vm
            .iter()
            .find(|line| line.tags.get("devtype").is_some_and(|is| is == devtype))
            .unwrap()
    };
    let interfaces = lab.virsh(&["domiflist", vm.uuid()]);
    let nic = device("nic");
    assert!(
        interfaces.contains(nic.text("mac").unwrap()) && interfaces.contains(nic.tag("device")),
        "{nic:?}"
    );
    assert_eq!(device("disk").text("source"), vm.image("vda").to_str());
    for _ in 0..3 {
        plugin.gather();
    }
    let found = plugin.gather();
    assert!(info(&found, &vm).is_empty(), "nothing changed");
    assert_eq!(
        (tag(&found, &vm, "owner"), tag(&found, &other, "owner")),
        (vec![None], vec![None])
    );
    let read = plugin.collected("xml_reads");
    for _ in 0..5 {
        plugin.gather();
        assert_eq!(plugin.collected("xml_reads"), read, "a steady host");
    }

    set_owner(&lab, &vm, "alice");
    let found = after_the_event(&mut plugin);
    assert_eq!(tag(&found, &vm, "owner"), [Some("alice")]);
    assert_eq!(tag(&found, &vm, "owner_id"), [Some("7")]);
    assert_eq!(tag(&found, &other, "owner"), [None]);
    let of_vm = info(&found, &vm);
    assert_eq!(of_vm[0].text("owner"), Some("alice"), "{of_vm:?}");
    assert!(info(&found, &other).is_empty());
    assert_eq!(lacking(&found, vm.name()), [""; 0], "rates go on");
    assert_eq!(
        plugin.collected("xml_reads"),
        read + 1,
        "the XML of this VM alone"
    );
    for _ in 0..3 {
        plugin.gather();
        assert_eq!(plugin.collected("xml_reads"), read + 1);
    }

    // Whatever it is, it is one value of one line; what cannot be written becomes a space.
    for (written, expected) in [
        ("a,b=c d \"q\"", "a,b=c d \"q\""),
        ("<é 漢>&\u{a0}🦀", "<é 漢>&\u{a0}🦀"),
        (r"back\slash\", r"back\slash"),
        ("tab\there", "tab here"),
        ("two\nlines", "two lines"),
    ] {
        set_owner(&lab, &vm, written);
        let found = after_the_event(&mut plugin);
        assert_eq!(tag(&found, &vm, "owner"), [Some(expected)], "{written:?}");
    }
    set_owner(&lab, &vm, "");
    assert_eq!(
        tag(&after_the_event(&mut plugin), &vm, "owner"),
        [None],
        "an empty value"
    );
    lab.virsh(&["desc", vm.uuid(), "--live", "--title", "web shop"]);
    assert_eq!(
        tag(&after_the_event(&mut plugin), &vm, "title"),
        [Some("web shop")]
    );
    lab.virsh(&[
        "metadata",
        vm.uuid(),
        "--live",
        "--uri",
        NAMESPACE,
        "--remove",
    ]);
    let found = after_the_event(&mut plugin);
    assert_eq!(
        (tag(&found, &vm, "owner_id"), tag(&found, &vm, "title")),
        (vec![None], vec![Some("web shop")])
    );
    // A configuration is stored for it while it runs, and deleted.
    let xml = lab.dir().join("stored.xml");
    std::fs::write(&xml, lab.virsh(&["dumpxml", vm.uuid()])).unwrap();
    for (change, persistent) in [
        (["define", xml.to_str().unwrap()], "yes"),
        (["undefine", vm.uuid()], "no"),
    ] {
        lab.virsh(&change);
        let found = after_the_event(&mut plugin);
        let own = info(&found, &vm);
        let own = own
            .iter()
            .find(|line| line.fields.contains_key("persistent"));
        let own = own.unwrap_or_else(|| panic!("{change:?}: {found:?}"));
        assert_eq!(own.text("persistent"), Some(persistent));
    }
    let output = plugin.stdout();
    let mut own = output
        .lines()
        .filter(|line| line.starts_with("vm_collector,"));
    assert!(own.all(|line| !line.contains("owner")), "{output}");
    assert_eq!(plugin.stderr(), "");
}
