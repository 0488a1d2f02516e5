//! What the program reads from a domain's XML: a set of documents, the broken ones among them, and arbitrary
//! bytes.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use proptest::prelude::*;
use rustix::time::{ClockId, clock_gettime};
use telegraf_kvm::description::{CpuQuota, Description, DescriptionError, DiskKind};

/// Every .xml file of a folder with the .expected file beside it.
fn corpus(folder: &str) -> Vec<(PathBuf, String, String)> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("tests/xml")
        .join(folder);
    let mut all: Vec<_> = fs::read_dir(&folder)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|extension| extension == "xml"))
        .map(|path| {
            let xml = fs::read_to_string(&path).unwrap();
            let expected = path.with_extension("expected");
            let expected = fs::read_to_string(&expected)
                .unwrap_or_else(|error| panic!("{}: {error}", expected.display()));
            (path, xml, expected)
        })
        .collect();
    all.sort();
    all
}

/// `nic KIND TARGET` (`-` without one; then the address by which it may be counted), `disk TARGET KIND SOURCE...` (`uncounted` before the sources), `firmware PATH`,
/// `volume NUMBER`, a line each, then `unresolved` where that holds.
fn text(description: &Description) -> String {
    let mut text = String::new();
    for nic in &description.nics {
        text += &format!("nic {} {}", nic.kind, nic.target.as_deref().unwrap_or("-"));
        if let Some(mac) = &nic.mac {
            text += &format!(" {mac}");
        }
        text += "\n";
    }
    for disk in &description.disks {
        let kind = match disk.kind {
            DiskKind::Disk => "disk",
            DiskKind::Lun => "lun",
            DiskKind::Cdrom => "cdrom",
            DiskKind::Floppy => "floppy",
        };
        text += &format!("disk {} {kind}", disk.target);
        if !disk.counted {
            text += " uncounted";
        }
        for source in &disk.sources {
            text += &format!(" {source}");
        }
        text += "\n";
    }
    for path in &description.firmware {
        text += &format!("firmware {path}\n");
    }
    for number in &description.volumes {
        text += &format!("volume {number}\n");
    }
    if description.unresolved || description.waits_for_server {
        text += "unresolved\n";
    }
    text
}

/// The error is fit for the log as it is.
fn assert_short(error: &DescriptionError, xml: &str) {
    let line = error.to_string();
    assert!(
        line.len() < 1000 && !line.contains(char::is_control),
        "{line:?}"
    );
    assert!(
        error.offset <= xml.len() as u64,
        "{line}, of {} bytes",
        xml.len()
    );
}

#[test]
fn the_corpus_reads_as_expected() {
    let corpus = corpus(".");
    assert!(corpus.len() >= 17, "only {} documents found", corpus.len());
    for (path, xml, expected) in corpus {
        let description =
            Description::parse(&xml).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        assert_eq!(text(&description), expected, "{}", path.display());
    }
}

#[test]
fn aliases_are_those_of_the_devices_themselves() {
    let xml = fs::read_to_string(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xml/qemu.xml"));
    let description = Description::parse(&xml.unwrap()).unwrap();
    assert_eq!(description.nic_aliases, ["net0", "net1", "net2"]);
    let disks = ["virtio-disk0", "scsi0-0-0-0", "sata0-0-1"];
    assert_eq!(description.disk_aliases, disks);
    let nested = "<domain><devices>\
        <disk><mirror><alias name='a'/></mirror><x:alias xmlns:x='x' name='b'/><target dev='vda'/>\
        <alias name='c'/></disk><console><alias name='d'/></console>\
        <interface><alias/></interface></devices></domain>";
    let description = Description::parse(nested).unwrap();
    assert_eq!(description.disk_aliases, ["c"]);
    assert_eq!(description.disks[0].alias.as_deref(), Some("c"));
    assert!(description.nic_aliases.is_empty());
}

#[test]
fn broken_xml_says_what_and_where() {
    let corpus = corpus("broken");
    assert!(corpus.len() >= 20, "only {} documents found", corpus.len());
    for (path, xml, expected) in corpus {
        match Description::parse(&xml) {
            Ok(_) => panic!("{} was read", path.display()),
            Err(error) => {
                assert_short(&error, &xml);
                assert_eq!(format!("{error}\n"), expected, "{}", path.display());
            }
        }
    }
}

/// A document whose only disk comes after `filling`, which is in the metadata.
fn with_metadata(filling: &str) -> String {
    format!(
        "<domain><metadata>{filling}</metadata>\
         <devices><disk type='file'><target dev='vda'/></disk></devices></domain>"
    )
}

/// Processor time of this thread: other processes may have the processor in between.
fn time_to_read(xml: &str) -> Duration {
    let spent = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap();
    let start = spent();
    assert_eq!(text(&Description::parse(xml).unwrap()), "disk vda disk\n");
    spent() - start
}

/// Fillings of the metadata, by size. The time to read each must be linear in its size.
fn fillings(n: usize) -> Vec<(&'static str, String)> {
    let elements = "<app:disk xmlns:app='urn:app' a='1'><app:target dev='no'/>&amp;</app:disk>\n";
    let attributes: String = (0..n).map(|i| format!(" a{i}='1'")).collect();
    let namespaces: String = (0..n).map(|i| format!(" xmlns:n{i}='urn:{i}'")).collect();
    vec![
        ("elements", elements.repeat(n)),
        ("text", "some words, ".repeat(n)),
        ("entities", "&lt;".repeat(n)),
        ("comments", "<!-- <disk> -->".repeat(n)),
        ("CDATA", format!("<![CDATA[{}]]>", "<disk>".repeat(n))),
        ("attributes", format!("<a{attributes}/>")),
        (
            "attributes of a disk",
            format!("</metadata><devices><disk{attributes}/></devices><metadata>"),
        ),
        ("namespaces", format!("<a{namespaces}><b/><b/></a>")),
        ("long value", format!("<a b='{}'/>", "x".repeat(n))),
    ]
}

#[test]
fn megabytes_of_metadata_cost_linear_time() {
    for ((name, small), (_, large)) in fillings(10_000).into_iter().zip(fillings(160_000)) {
        let small = (0..3)
            .map(|_| time_to_read(&with_metadata(&small)))
            .min()
            .unwrap();
        let large = time_to_read(&with_metadata(&large));
        // Linear is 16 times as long, quadratic 256 times; the constant allows for a busy machine.
        let bound = small * 64 + Duration::from_millis(200);
        assert!(large < bound, "{name}: {small:?} for n, {large:?} for 16 n");
    }
}

#[test]
fn depth_is_no_trouble() {
    let nested = |depth| {
        with_metadata(&format!(
            "{}{}",
            "<a xmlns='urn:a'>".repeat(depth),
            "</a>".repeat(depth)
        ))
    };
    time_to_read(&nested(60_000));
    // The XML library gives up at 65,535 levels; libvirt never writes that many.
    let xml = nested(200_000);
    let error = Description::parse(&xml).unwrap_err();
    assert_short(&error, &xml);
    let open = "<domain>".repeat(50_000);
    assert_short(&Description::parse(&open).unwrap_err(), &open);
}

#[test]
fn an_error_never_quotes_megabytes() {
    let long = "x".repeat(3_000_000);
    for xml in [
        format!("<domain><a></{long}></domain>"),
        format!("<{long}></a>"),
        format!("<{long}/>"),
        format!("<domain><devices><disk><target dev='&{long};'/></disk></devices></domain>"),
        "<domain><a></b\nc\u{1b}[31m></domain>".to_owned(),
    ] {
        assert_short(&Description::parse(&xml).unwrap_err(), &xml);
    }
}

/// Cuts, doubles or overwrites a piece of a real document.
fn mutated() -> impl Strategy<Value = String> {
    let documents: Vec<String> = corpus(".").into_iter().map(|(_, xml, _)| xml).collect();
    let piece = prop_oneof![
        Just("<".to_owned()),
        Just("</".to_owned()),
        Just("/>".to_owned()),
        Just("'".to_owned()),
        Just("<![CDATA[".to_owned()),
        Just("<!--".to_owned()),
        Just("&#x110000;".to_owned()),
        Just(" xmlns='a'".to_owned()),
        Just(" xmlns:xml=''".to_owned()),
        Just("</domain>".to_owned()),
        any::<String>(),
    ];
    let mutation = (any::<prop::sample::Index>(), 0..40usize, piece);
    (
        prop::sample::select(documents),
        prop::collection::vec(mutation, 1..6),
    )
        .prop_map(|(document, mutations)| {
            let mut bytes = document.into_bytes();
            for (at, cut, piece) in mutations {
                let start = at.index(bytes.len() + 1);
                let end = (start + cut).min(bytes.len());
                bytes.splice(start..end, piece.bytes());
            }
            String::from_utf8_lossy(&bytes).into_owned()
        })
}

/// Elements of the format in any order and nesting, well-formed, with the devices that they should read as.
fn generated() -> impl Strategy<Value = (String, String)> {
    let name = r"[ -~é漢]{1,12}";
    let disk = (
        name,
        prop::sample::select(vec!["disk", "lun", "cdrom", "floppy"]),
    )
        .prop_map(|(name, kind)| {
            let dev = quick_xml::escape::escape(&name);
            let xml = format!(
                "<disk device='{kind}'><backingStore><target dev='no'/></backingStore>\
                 <target bus='x' dev='{dev}'/></disk>"
            );
            (xml, format!("disk {name} {kind}\n"))
        });
    let noise = prop::sample::select(vec![
        "<!-- <disk><target dev='no'/></disk> -->",
        "<hostdev><disk><target dev='no'/></disk></hostdev>",
        "<disk xmlns='urn:x'><target dev='no'/></disk>",
        "<x:disk xmlns:x='urn:x'><target dev='no'/></x:disk>",
        "<![CDATA[<disk><target dev='no'/></disk>]]>",
        "&lt;disk&gt;",
        "<disk/>",
    ])
    .prop_map(|xml| (xml.to_owned(), String::new()));
    prop::collection::vec(prop_oneof![disk, noise], 0..20).prop_map(|parts| {
        let (xml, expected): (Vec<_>, Vec<_>) = parts.into_iter().unzip();
        (
            format!("<domain><devices>{}</devices></domain>", xml.concat()),
            expected.concat(),
        )
    })
}

proptest! {
    #[test]
    fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
        let xml = String::from_utf8_lossy(&bytes);
        if let Err(error) = Description::parse(&xml) {
            assert_short(&error, &xml);
        }
    }

    #[test]
    fn no_markup_makes_it_panic(xml in r#"([<>/&;'"= !\[\]?:#x\-]|domain|devices|disk|target|dev|xmlns|CDATA|&#\PC{1,3};|\PC){0,60}"#) {
        if let Err(error) = Description::parse(&xml) {
            assert_short(&error, &xml);
        }
    }

    #[test]
    fn no_damage_to_a_real_document_makes_it_panic(xml in mutated()) {
        if let Err(error) = Description::parse(&xml) {
            assert_short(&error, &xml);
        }
    }

    #[test]
    fn devices_are_found_among_anything_else((xml, expected) in generated()) {
        prop_assert_eq!(text(&Description::parse(&xml).unwrap()), expected);
    }
}

/// The XML of a running VM with this in its `<devices>`, and this before them.
fn with(devices: &str, before: &str) -> Description {
    let xml = format!("<domain type='kvm' id='1'>{before}<devices>{devices}</devices></domain>");
    Description::parse(&xml).unwrap()
}

#[test]
fn only_drivers_that_answer_from_memory_are_trusted() {
    let network = |protocol: &str| {
        let source = format!("<source protocol='{protocol}' name='a/b'/>");
        let disk = "<target dev='vda'/></disk>";
        let itself = with(&format!("<disk type='network'>{source}{disk}"), "");
        let backing = format!("<backingStore type='network'>{source}</backingStore>");
        let backing = with(&format!("<disk type='file'>{backing}{disk}"), "");
        let waits = [&itself, &backing].map(|found| found.waits_for_server);
        assert_eq!(waits[0], waits[1], "{protocol}");
        assert!(!itself.unresolved && !backing.unresolved, "{protocol}");
        waits[0]
    };
    for protocol in ["nbd", "iscsi", "http", "https", "ftp", "ftps", "ssh"] {
        assert!(!network(protocol), "{protocol}");
    }
    for protocol in ["rbd", "nfs", "gluster", "sheepdog", "vxhs", "newer"] {
        assert!(network(protocol), "{protocol}");
    }
}

#[test]
fn what_may_be_another_file_is_unresolved() {
    let disk = |of_type: &str, inside: &str| {
        let disk = format!("<disk type='{of_type}'>{inside}<target dev='vda'/></disk>");
        with(&disk, "").unresolved
    };
    assert!(!disk("file", "<source file='/a' index='1'/>"));
    assert!(!disk("volume", "<source pool='p' volume='v' index='1'/>"));
    assert!(
        disk("volume", "<source pool='p' volume='v'/>"),
        "without a number"
    );
    assert!(
        disk("file", "<source file='/a' fdgroup='g'/>"),
        "passed in open"
    );
    assert!(disk("newer", "<source/>"));
    for element in ["backingStore", "mirror", "dataStore"] {
        assert!(
            disk("file", &format!("<{element} type='newer'/>")),
            "{element}"
        );
        assert!(
            !disk("file", &format!("<{element} type='file'/>")),
            "{element}"
        );
    }
    for (argument, unresolved) in [
        ("-drive", true),
        ("--blockdev", true),
        ("-cdrom", true),
        ("-device", false),
        ("file=/a,id=drive", false),
    ] {
        let q = "xmlns:q='http://libvirt.org/schemas/domain/qemu/1.0'";
        let argument = format!("<q:commandline {q}><q:arg value='{argument}'/></q:commandline>");
        assert_eq!(with("", &argument).unresolved, unresolved, "{argument}");
    }
}

#[test]
fn firmware_lies_in_files_too() {
    let firmware = |os: &str| {
        let found = with("", &format!("<os>{os}</os>"));
        assert!(!found.unresolved, "{os}");
        found.firmware
    };
    let loader = "<loader readonly='yes' type='pflash'>/code.fd</loader>";
    let old = "<nvram template='/t.fd'>/a&amp;b &#x41;<!-- no -->.fd</nvram>";
    assert_eq!(
        firmware(&format!("{loader}{old}")),
        ["/code.fd", "/a&b A.fd"]
    );
    let new = "<nvram type='file' template='/t.fd'>\n <source file='/v.fd'>\n</source>\n</nvram>";
    assert_eq!(firmware(new), ["/v.fd"]);
    assert_eq!(
        firmware("<nvram type='block'><source dev='/dev/v'/></nvram>"),
        ["/dev/v"]
    );
    assert_eq!(
        firmware("<loader type='rom'>/bios.bin</loader>"),
        [""; 0],
        "no block node"
    );
    assert_eq!(firmware("<loader>/bios.bin</loader><nvram/>"), [""; 0]);
    assert_eq!(firmware("<disk><source file='/no'/></disk>"), [""; 0]);
    let nfs = "<os><nvram type='network'><source protocol='nfs' name='a'/></nvram></os>";
    assert!(with("", nfs).waits_for_server);
    assert!(with("", "<os><nvram>&other;</nvram></os>").unresolved);
}

#[test]
fn a_quota_is_that_of_the_vcpus_or_of_the_vm_where_it_limits() {
    let quota = |cputune: &str| with("", &format!("<cputune>{cputune}</cputune>")).quota;
    let (vcpus, vm) = (true, true);
    for (cputune, expected) in [
        (
            "<shares>1024</shares><period>100000</period>",
            CpuQuota::default(),
        ),
        (
            "<quota>-1</quota><global_quota>0</global_quota>",
            CpuQuota::default(),
        ),
        (
            "<emulator_quota>5000</emulator_quota><iothread_quota>5000</iothread_quota>",
            CpuQuota::default(),
        ),
        ("<quota>\n 5000\n</quota>", CpuQuota { vcpus, vm: false }),
        (
            "<global_quota>5<!-- -->000</global_quota>",
            CpuQuota { vcpus: false, vm },
        ),
        (
            "<quota>1000</quota><global_quota>17592186044415</global_quota>",
            CpuQuota { vcpus, vm },
        ),
        (
            "<x:quota xmlns:x='u'>1000</x:quota><cputune><quota>1000</quota></cputune>",
            CpuQuota::default(),
        ),
        ("<quota>many</quota><quota/>", CpuQuota::default()),
    ] {
        assert_eq!(quota(cputune), expected, "{cputune}");
    }
    let elsewhere = with(
        "<quota>1000</quota>",
        "<os><quota>1000</quota></os><quota>1000</quota>",
    );
    assert_eq!(elsewhere.quota, CpuQuota::default());
}
