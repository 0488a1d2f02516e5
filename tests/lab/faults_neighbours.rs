//! Other activity on the same VMs: clients that make calls in a loop, and a live migration.

use crate::support::alone;
use crate::support::daemon::Client;
use crate::support::fleet::{Fleet, big, long, shapes, small};
use crate::support::lab::Lab;
use crate::support::lines::{Line, is_latency, is_of_host, of, one};
use crate::support::migration::{full_memory, migrate};
use crate::support::plugin::Plugin;
use crate::support::vm::VmSpec;
use std::collections::BTreeSet;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;
use std::time::{Duration, Instant};

#[test]
fn busy_neighbours() {
    let _alone = alone();
    let lab = Lab::start();
    let (size, gathers) = if long() { (50, 50) } else { (12, 20) };
    let mut fleet = Fleet::start(&lab, size, |n| big(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    fleet.learn(&mut plugin);
    let words = [
        "domstats --raw",
        "domstats --raw --nowait",
        "domstats --raw",
    ];
    let mut neighbours: Vec<Client> = words.iter().map(|w| lab.busy_client(w)).collect();
    // The clients are busy.
    let busy = (0..40).filter(|_| lab.calls_in_daemon() > 0).count();
    assert!(
        busy > 20,
        "the other clients make calls: seen in {busy} of 40 samples"
    );
    for round in 1..=gathers {
        let when = format!("three busy neighbours, gather {round}");
        fleet.expect_complete_but(&plugin.gather(), &[], &when);
    }
    assert!(neighbours.iter_mut().all(Client::runs), "to the end");
    assert_eq!(plugin.warnings(), Vec::<String>::new());
}

/// telegraf-kvm, with a log file of its calls to libvirt's API.
fn counted(lab: &Lab, calls: &Path) -> Command {
    std::fs::write(calls, "").unwrap();
    std::fs::set_permissions(calls, Permissions::from_mode(0o666)).unwrap();
    let mut command = lab.plugin_unprivileged(&[]);
    command
        .env("LIBVIRT_DEBUG", "1")
        .env("LIBVIRT_LOG_OUTPUTS", format!("1:file:{}", calls.display()));
    command
}

/// The groups of statistics that each bulk call so far has asked for, as libvirt logs them.
fn bulk_calls(calls: &Path) -> Vec<String> {
    let log = std::fs::read_to_string(calls).unwrap_or_default();
    let calls = log.split(" virDomainListGetStats:").skip(1);
    let groups = calls.map(|call| call.split_once("stats=").unwrap().1.split(',').next());
    groups.map(|groups| groups.unwrap().to_owned()).collect()
}

/// Panics if a rate is below 0, or is one that this idle VM cannot have.
fn expect_calm(gather: &[Line], name: &str) {
    for line in of(gather, "vm_features", name) {
        for field in line.fields.keys() {
            let rate = line.float(field).unwrap();
            assert!((0.0..1e6).contains(&rate), "{field}: {line:?}");
        }
    }
}

#[test]
fn migration() {
    let _alone = alone();
    let (source, target) = (Lab::start_reachable(), Lab::start_reachable());
    // 5 MiB a second of 32.
    let memory = full_memory(&source, 32);
    let mut there = Fleet::start(&source, 2, |number| VmSpec {
        memory_mib: 64,
        paused: number != 0,
        extra: if number == 0 {
            memory.clone()
        } else {
            String::new()
        },
        ..small(format!("vm{number}"))
    });
    let mut here = Fleet::start(&target, 2, |n| small(format!("resident{n}")));
    for lab in [&source, &target] {
        // libvirtd's first call is slow; another test covers that.
        lab.virsh(&["domstats"]);
    }
    let calls = target.dir().join("calls");
    let mut leaving = Plugin::spawn(source.plugin(&[]));
    let mut coming = Plugin::spawn(counted(&target, &calls));
    there.learn(&mut leaving);
    here.learn(&mut coming);
    assert!(!bulk_calls(&calls).is_empty(), "the calls are logged");
    let healthy = leaving.gather();
    let name = there.vms[0].name().to_owned();

    let mut migration = migrate(&source, &target, &name, 5);
    let start = Instant::now();
    let mut seen = 0;
    while migration.runs() {
        assert!(start.elapsed() < Duration::from_secs(60), "it has no end");
        let before = bulk_calls(&calls).len();
        let arriving = coming.gather();
        let arriving_line = of(&arriving, "vm_metrics", &name).pop();
        // The VM that arrives is queried for what is read on the host for the others, by a separate call. So is a
        // VM whose memory figures are due. None is queried again, unless the VM has arrived a moment ago.
        if arriving_line.is_none_or(|line| line.text("state") == Some("paused")) {
            let made = bulk_calls(&calls).split_off(before);
            let groups: BTreeSet<&String> = made.iter().collect();
            assert_eq!(groups.len(), made.len(), "{made:?}");
        }
        assert_eq!(coming.collected("vms_partial"), 0, "that is not partial");
        assert_eq!(
            coming.collected("vms_withheld"),
            0,
            "and no description is withheld"
        );
        for resident in &here.vms {
            assert_eq!(
                shapes(&arriving).get(resident.name()),
                here.healthy_of(resident.name()),
                "a resident is complete"
            );
        }
        if let Some(line) = arriving_line {
            seen += 1;
            let state = line.text("state").unwrap();
            assert!(["paused", "running"].contains(&state), "{line:?}");
            assert_eq!(line.int("memory_max_kb"), Some(64 << 10), "{line:?}");
            // libvirt asks its QEMU nothing, so it does not answer and is not silent either.
            assert!(
                state != "paused" || line.int("answers").is_none(),
                "{line:?}"
            );
            expect_calm(&arriving, &name);
        }
        let departing = leaving.gather();
        assert_eq!(leaving.collected("vms_partial"), 0);
        if migration.runs() {
            let now = one(&departing, "vm_totals", &name);
            let then = one(&healthy, "vm_totals", &name);
            for field in then
                .fields
                .keys()
                .filter(|field| !field.starts_with("state"))
            {
                let Some(value) = now.int(field) else {
                    // libvirt does not ask the QEMU of a VM that it has paused to hand it over.
                    let state = (now.int("state"), now.int("state_reason"));
                    assert_eq!(state, (Some(3), Some(2)), "no {field}: {now:?}");
                    continue;
                };
                let grown = value - then.int(field).unwrap();
                let may_fall = field == "memrss";
                assert!(may_fall || grown >= 0, "{field}: {now:?} {then:?}");
            }
            expect_calm(&departing, &name);
        }
    }
    assert!(
        seen >= 2,
        "seen {seen} times on its way in {:?}",
        start.elapsed()
    );

    // The VM has arrived: it is gone here, and complete there with any id.
    let gone = leaving.gather();
    assert!(!shapes(&gone).contains_key(&name), "gone");
    there.expect_complete_but(&gone, &[0], "the other stays");
    let fields = |gather: &[Line]| -> Vec<(String, Vec<String>)> {
        let of_it = gather
            .iter()
            .filter(|line| line.tags.get("name") == Some(&name));
        let mut fields: Vec<_> = of_it
            .map(|line| {
                let device = line.tags.get("device").map_or("", |device| device);
                let device = device.trim_end_matches(|c: char| c.is_ascii_digit());
                let key = format!("{} {device}", line.measurement);
                let lasting = line
                    .fields
                    .keys()
                    .filter(|field| !is_latency(field) && !is_of_host(field));
                (key, lasting.cloned().collect())
            })
            .collect();
        fields.sort();
        fields
    };
    coming.gather();
    let arrived = coming.gather();
    assert_eq!(fields(&arrived), fields(&healthy));
    assert_eq!(
        one(&arrived, "vm_metrics", &name).text("state"),
        Some("running")
    );
    for _ in 0..3 {
        expect_calm(&coming.gather(), &name);
    }
    for plugin in [&leaving, &coming] {
        assert_eq!(plugin.warnings(), Vec::<String>::new());
    }
}
