//! Names with every awkward character, passed through a real Telegraf.

use super::node::{self, NodeVm};
use crate::agent::{Config, Telegraf, sorted};
use crate::support::lines::{lines, of};
use rustix::process::Signal;

/// A name in libvirt, and the expected tag `name`. XML has no other control characters.
const NAMES: &[(&str, &str)] = &[
    ("plain", "plain"),
    (r#"odd, name=x "q" \b é\"#, r#"odd, name=x "q" \b é"#),
    ("a,b=c d", "a,b=c d"),
    (r"a\,b", "a,b"),
    (r"a\ b", "a b"),
    (r"a\=b", "a=b"),
    ("tab\there", "tab here"),
    ("return\rhere", "return here"),
    ("next\u{85}line\u{2028}", "next line\u{2028}"),
    (" ends are blank ", " ends are blank "),
    (r#""quoted""#, r#""quoted""#),
    ("'single' `back` $(x) %s {y}", "'single' `back` $(x) %s {y}"),
    ("# no comment", "# no comment"),
    ("vm_totals,a=b c=1i 1", "vm_totals,a=b c=1i 1"),
    ("<&>;", "<&>;"),
    (
        "漢字 e\u{301} 👩\u{200d}🚀 \u{202e}abc",
        "漢字 e\u{301} 👩\u{200d}🚀 \u{202e}abc",
    ),
];

#[test]
fn awkward_names_come_out_of_telegraf_as_lines_went_in() {
    let dir = tempfile::tempdir().unwrap();
    let vm = |(i, (name, _)): (usize, &(&str, &str))| NodeVm {
        name: (*name).to_owned(),
        // The bus determines the names of disks; taps can have almost any name.
        disks: vec!["vda".to_owned(), "vdb".to_owned()],
        nics: vec![format!("{i}{name}"), format!("tap,odd={i}")],
    };
    let vms: Vec<NodeVm> = NAMES.iter().enumerate().map(vm).collect();
    let uri = node::write(&dir.path().join("node.xml"), &vms);
    let copy = dir.path().join("copy");
    let mut config = Config::new(&["--uri", &uri]).copied_to(&copy);
    config.interval = "500ms";
    let mut telegraf = Telegraf::start(dir.path(), &config);
    let gathers = telegraf.gathers(2);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);

    let written = std::fs::read_to_string(&copy).unwrap();
    let out = telegraf.out();
    assert_eq!(sorted(out), sorted(lines(&written)));
    assert_eq!(telegraf.plugin_log(), []);
    assert_eq!(gathers[0].len(), node::first_lines(&vms));
    for (i, (name, tag)) in NAMES.iter().enumerate() {
        assert_eq!(of(&gathers[1], "vm_metrics", tag).len(), 1, "{name:?}");
        let devices = of(&gathers[1], "vm_devices", tag);
        assert_eq!(devices.len(), 4, "{name:?}: {devices:?}");
        let odd = format!("tap,odd={i}");
        assert!(
            devices.iter().any(|line| line.tag("device") == odd),
            "{name:?}"
        );
    }
}
