//! The values of `[tags]` in XML as the platforms write it, from the text of the configuration on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use telegraf_kvm::config;
use telegraf_kvm::description::{Description, WantedValue};

/// The tags `t0`, `t1`, ... for these values, as the program reads them from a configuration file.
fn wanted(values: &[&str]) -> Vec<WantedValue> {
    let lines = values.iter().enumerate();
    let lines: String = lines
        .map(|(number, value)| format!("t{number} = {value:?}\n"))
        .collect();
    let file = tempfile::NamedTempFile::new().unwrap();
    fs::write(file.path(), format!("[tags]\n{lines}")).unwrap();
    let loaded =
        config::load(Some(file.path()), None, None).unwrap_or_else(|error| panic!("{error}"));
    loaded.settings.tags
}

/// Value of the configuration -> value in the XML.
fn found(xml: &str, values: &[&str]) -> BTreeMap<String, String> {
    let description = Description::parse_with(xml, &wanted(values), false).unwrap();
    let name = |tag: &str| values[tag[1..].parse::<usize>().unwrap()].to_owned();
    let tags = description.tags.unwrap();
    let tags = tags.iter();
    tags.map(|(tag, value)| (name(tag), value.to_string()))
        .collect()
}

/// All values that are ready; of the custom properties of oVirt one.
const READY: [&str; 28] = [
    "title",
    "description",
    "libosinfo:os",
    "openstack:name",
    "openstack:flavor",
    "openstack:project",
    "openstack:project_id",
    "openstack:user",
    "openstack:user_id",
    "openstack:image_id",
    "openstack:created",
    "openstack:version",
    "ovirt:cluster_version",
    "ovirt:resume_behavior",
    "ovirt:custom/owner",
    "kubevirt:namespace",
    "kubevirt:name",
    "kubevirt:uid",
    "opennebula:name",
    "opennebula:user",
    "opennebula:user_id",
    "opennebula:group",
    "opennebula:group_id",
    "opennebula:vm_id",
    "opennebula:version",
    "cloudstack:account_id",
    "cloudstack:vm_id",
    "cloudstack:guest_os",
];

/// Values by their paths in the document that was written by hand.
const BY_PATH: [&str; 7] = [
    "{http://example.org/ns}vm/team",
    "{http://example.org/ns}vm/team@id",
    "{http://example.org/ns}vm/owner",
    "{http://example.org/ns}vm/empty",
    "{http://example.org/ns}vm/{http://example.org/other}team",
    "{http://example.org/other}vm/team",
    "{http://example.org/ns}team",
];

#[test]
fn each_platforms_values_are_found_and_no_others() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/metadata");
    let mut documents = 0;
    for entry in fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "xml") {
            continue;
        }
        documents += 1;
        let xml = fs::read_to_string(&path).unwrap();
        let expected = fs::read_to_string(path.with_extension("expected")).unwrap();
        let mut all = found(&xml, &READY);
        all.extend(found(&xml, &BY_PATH));
        let lines = all
            .iter()
            .map(|(name, value)| format!("{name} = {value}\n"));
        assert_eq!(lines.collect::<String>(), expected, "{}", path.display());
    }
    assert_eq!(documents, 8);
}

/// Without tags in the configuration, metadata is passed over.
#[test]
fn nothing_is_kept_that_is_not_wanted() {
    let xml = "<domain><title>a</title></domain>";
    assert_eq!(Description::parse(xml).unwrap().tags, None);
    assert!(found("<domain/>", &["title"]).is_empty());
}

#[test]
fn a_long_value_is_cut_between_two_characters() {
    let title = |text: &str| {
        let xml = format!("<domain><title>{text}</title></domain>");
        found(&xml, &["title"])["title"].clone()
    };
    assert_eq!(title(&"a".repeat(1024)), "a".repeat(1024));
    assert_eq!(title(&"a".repeat(1025)), "a".repeat(1024));
    assert_eq!(
        title(&format!("a{}", "é".repeat(800))),
        format!("a{}", "é".repeat(511))
    );
}

/// Prefixes and depth do not mislead.
#[test]
fn only_the_element_itself_counts() {
    let name = |metadata: &str| {
        let xml = format!("<domain>{metadata}<devices/></domain>");
        found(&xml, &["openstack:name"]).remove("openstack:name")
    };
    let nova = "xmlns:n='http://openstack.org/xmlns/libvirt/nova/1.1'";
    let with =
        |inside: &str| format!("<metadata><n:instance {nova}>{inside}</n:instance></metadata>");
    assert_eq!(name(&with("<n:name>a</n:name>")).as_deref(), Some("a"));
    assert_eq!(name(&with("<name>a</name>")).as_deref(), Some("a"));
    assert_eq!(
        name(&with("<n:name/><n:name>b</n:name>")).as_deref(),
        Some("b")
    );
    assert_eq!(name(&with("<n:x><n:name>a</n:name></n:x>")), None);
    assert_eq!(name(&with("<m:name xmlns:m='urn:m'>a</m:name>")), None);
    let elsewhere = "<x><metadata><nova:instance xmlns:nova='urn:x'><nova:name>a</nova:name></nova:instance></metadata></x>";
    assert_eq!(name(elsewhere), None);
    let default = "<metadata><instance xmlns='http://openstack.org/xmlns/libvirt/nova/1.0'><name>c</name></instance></metadata>";
    assert_eq!(name(default).as_deref(), Some("c"));
    let foreign = "<m:metadata xmlns:m='urn:m'><instance xmlns='http://openstack.org/xmlns/libvirt/nova/1.0'><name>c</name></instance></m:metadata>";
    assert_eq!(name(foreign), None);
}

const DEVICES: &str = "<domain type='kvm'>
  <title>web &amp; shop</title>
  <os firmware='efi'>
    <type arch='x86_64' machine='pc-q35-8.2'>hvm</type>
    <loader readonly='yes' type='pflash'>/code.fd</loader>
  </os>
  <devices>
    <interface type='network'>
      <mac address='52:54:00:00:00:01'/>
      <source network='lan' portgroup='web' bridge='virbr1'/>
      <target dev='vnet0'/>
      <model type='virtio'/>
    </interface>
    <interface type='bridge'><mac address='52:54:00:00:00:02'/><source bridge='br0'/></interface>
    <disk type='file' device='disk'>
      <driver name='qemu' type='qcow2' cache='none'/>
      <source file='/images/a.qcow2' index='1'><x><source file='/no'/></x></source>
      <backingStore type='file'><format type='raw'/><source file='/images/base'/></backingStore>
      <target dev='vda' bus='virtio'/>
      <iotune><total_iops_sec>500</total_iops_sec><write_bytes_sec>1048576</write_bytes_sec></iotune>
      <serial>s 1</serial>
    </disk>
    <disk type='network' device='disk'><source protocol='rbd' name='pool/b'/><target dev='vdb' bus='scsi'/></disk>
    <disk type='volume' device='cdrom'><source pool='p' volume='v'/><target dev='sda' bus='sata'/></disk>
    <console><target type='serial'/></console>
  </devices>
</domain>";

#[test]
fn what_vm_info_shows_is_read_only_where_it_is_wanted() {
    assert_eq!(Description::parse(DEVICES).unwrap().info, None);
    let description = Description::parse_with(DEVICES, &[], true).unwrap();
    assert_eq!(description.disks.len(), 3, "the devices are read as ever");
    let info = description.info.unwrap();
    assert_eq!(info.title.as_deref(), Some("web & shop"));
    let os = [&info.os_type, &info.arch, &info.machine].map(|text| text.as_deref());
    assert_eq!(os, [Some("hvm"), Some("x86_64"), Some("pc-q35-8.2")]);
    assert_eq!(info.firmware, Some("efi"));
    let nics: Vec<_> = info
        .nics
        .iter()
        .map(|nic| {
            let texts = [&nic.mac, &nic.model, &nic.source, &nic.portgroup];
            (&*nic.device, texts.map(|text| text.as_deref()))
        })
        .collect();
    assert_eq!(
        nics,
        [
            (
                "vnet0",
                [
                    Some("52:54:00:00:00:01"),
                    Some("virtio"),
                    Some("lan"),
                    Some("web")
                ]
            ),
            (
                "52:54:00:00:00:02",
                [Some("52:54:00:00:00:02"), None, Some("br0"), None]
            ),
        ]
    );
    let disks: Vec<_> = info
        .disks
        .iter()
        .map(|disk| {
            let texts = [
                &disk.bus,
                &disk.source,
                &disk.format,
                &disk.serial,
                &disk.cache,
            ];
            (&*disk.device, texts.map(|text| text.as_deref()))
        })
        .collect();
    assert_eq!(
        disks,
        [
            (
                "vda",
                [
                    Some("virtio"),
                    Some("/images/a.qcow2"),
                    Some("qcow2"),
                    Some("s 1"),
                    Some("none")
                ]
            ),
            ("vdb", [Some("scsi"), Some("rbd:pool/b"), None, None, None]),
            ("sda", [Some("sata"), Some("p/v"), None, None, None]),
        ]
    );
    assert_eq!(
        info.disks[0].limits,
        [None, None, Some(1 << 20), Some(500), None, None]
    );
}

#[test]
fn the_firmware_is_told_only_where_the_xml_says_it() {
    for (os, expected) in [
        ("<os><type arch='x86_64'>hvm</type></os>", Some("bios")),
        (
            "<os><type arch='x86_64'>hvm</type><loader type='pflash'>/a</loader></os>",
            Some("efi"),
        ),
        (
            "<os><type arch='x86_64'>hvm</type><loader type='rom'>/a</loader></os>",
            None,
        ),
        ("<os><type arch='aarch64'>hvm</type></os>", None),
        (
            "<os firmware='bios'><type arch='x86_64'>hvm</type></os>",
            Some("bios"),
        ),
        ("", None),
    ] {
        let xml = format!("<domain>{os}</domain>");
        let description = Description::parse_with(&xml, &[], true).unwrap();
        assert_eq!(description.info.unwrap().firmware, expected, "{os}");
    }
}
