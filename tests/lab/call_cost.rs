//! The calls that the plugin makes, from the log of libvirt's client library.

use crate::support::lab::Lab;
use crate::support::lines::{self, Line};
use crate::support::plugin::Plugin;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use std::collections::BTreeMap;
use std::path::PathBuf;
use std::time::Duration;

/// Numbers of libvirt's remote procedures (its `remote_protocol.x`).
const GET_XML_DESC: u32 = 14;
const GET_INFO: u32 = 16;
const LIST_ALL_DOMAINS: u32 = 273;
const GET_ALL_DOMAIN_STATS: u32 = 344;

/// libvirt's own log of the plugin's calls.
struct ClientLog {
    file: PathBuf,
    read: usize,
}

impl ClientLog {
    /// Starts the plugin with such a log.
    fn of(lab: &Lab, args: &[&str], file: &str) -> (Plugin, ClientLog) {
        let file = lab.dir().join(file);
        let mut command = lab.plugin(args);
        command
            .env("LIBVIRT_DEBUG", "1")
            .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", file.display()));
        (Plugin::spawn(command), ClientLog { file, read: 0 })
    }

    /// The text that was logged since the last call of this function.
    fn news(&mut self) -> String {
        let bytes = std::fs::read(&self.file).unwrap();
        let text = String::from_utf8_lossy(&bytes[self.read..]).into_owned();
        self.read = bytes.len();
        text
    }

    /// The number of calls of each remote procedure since the last call of this function.
    fn calls(&mut self) -> BTreeMap<u32, usize> {
        let mut calls = BTreeMap::new();
        for line in self.news().lines() {
            // Only the remote program's calls count; keepalive is another program.
            if let Some((_, rest)) = line.split_once("RPC_CLIENT_MSG_TX_QUEUE:")
                && let Some((_, rest)) = rest.split_once(" prog=536903814 ")
                && let Some((_, rest)) = rest.split_once(" proc=")
            {
                let number = rest.split(' ').next().unwrap().parse().unwrap();
                *calls.entry(number).or_default() += 1;
            }
        }
        calls
    }
}

fn six_vms(lab: &Lab) -> Vec<Vm<'_>> {
    let spec = |n: usize| VmSpec {
        name: format!("vm{n}"),
        disks: disks(&["vda", "vdb"]),
        nics: vec![Nic::Tap, Nic::Tap],
        paused: true,
        ..VmSpec::default()
    };
    (0..6).map(|n| lab.create(&spec(n))).collect()
}

/// Gathers until events come and the descriptions of all VMs were read since: two complete gathers in a row read none.
/// On a busy host that takes longer than two gathers: a call that was given up as slow reads the descriptions of its
/// VMs all the same when QEMU answers, and so does the call that was sent in its place.
fn read_descriptions(plugin: &mut Plugin, log: &mut ClientLog) {
    let mut read = 0;
    let mut steady = 0;
    for _ in 0..10 {
        let found = plugin.gather();
        let calls = log.calls().get(&GET_XML_DESC).copied().unwrap_or(0);
        let with_events = |line: &&Line| line.fields.contains_key("io_error_events");
        let events_come = found.iter().filter(with_events).count() == 6 * 2;
        read += calls;
        steady = if calls == 0 && events_come && found.len() == 6 * (3 + 4) {
            steady + 1
        } else {
            0
        };
        if steady == 2 {
            assert!(read >= 6, "{read}");
            return;
        }
    }
    panic!("no steady state: {read} descriptions were read");
}

#[test]
fn a_steady_host_is_asked_for_no_description() {
    let lab = Lab::start();
    let vms = six_vms(&lab);
    let (mut plugin, mut log) = ClientLog::of(&lab, &[], "client.log");
    let chunks = lab.config("chunk_size = 1\n");
    let (mut in_chunks, mut log_in_chunks) =
        ClientLog::of(&lab, &["--config", &chunks], "chunks.log");
    read_descriptions(&mut plugin, &mut log);
    read_descriptions(&mut in_chunks, &mut log_in_chunks);
    let mut infos = Vec::new();
    for _ in 0..10 {
        assert_eq!(plugin.gather().len(), 6 * (3 + 4));
        let calls = log.calls();
        assert_eq!(calls.get(&GET_XML_DESC), None, "{calls:?}");
        assert_eq!(calls[&LIST_ALL_DOMAINS], 1);
        // A VM that a job of another client keeps busy for a moment is queried again. GetInfo is called once,
        // to see whether libvirtd has a free worker, and for each VM only where its control group was not
        // read.
        assert!(calls[&GET_ALL_DOMAIN_STATS] >= 1, "{calls:?}");
        infos.push(calls[&GET_INFO]);
    }
    assert!(infos.iter().filter(|n| **n == 1).count() >= 5, "{infos:?}");
    for _ in 0..10 {
        in_chunks.gather();
        let calls = log_in_chunks.calls();
        assert_eq!(calls.get(&GET_XML_DESC), None, "{calls:?}");
        assert_eq!(calls[&LIST_ALL_DOMAINS], 1);
        assert!(calls[&GET_ALL_DOMAIN_STATS] >= 6, "{calls:?}");
    }

    // One VM is changed: its description is read, and that of no other.
    lab.attach_disk(&vms[3], "vdc");
    std::thread::sleep(Duration::from_millis(500));
    let found = plugin.gather();
    lines::device(&found, vms[3].name(), "disk", "vdc");
    let news = log.news();
    let read: Vec<&str> = news
        .lines()
        .filter(|line| line.contains("virDomainGetXMLDesc:"))
        .collect();
    assert_eq!(read.len(), 1, "{read:?}");
    assert!(read[0].contains(vms[3].uuid()), "{read:?}");
    for _ in 0..3 {
        plugin.gather();
        assert_eq!(log.calls().get(&GET_XML_DESC), None);
    }

    // A new VM costs one description; one that ends costs none.
    vms[0].destroy();
    lab.create(&VmSpec {
        name: "new".into(),
        ..VmSpec::default()
    });
    plugin.gather();
    assert_eq!(log.calls()[&GET_XML_DESC], 1);
    plugin.gather();
    assert_eq!(log.calls().get(&GET_XML_DESC), None);
    assert_eq!(plugin.stderr() + &in_chunks.stderr(), "");
}
