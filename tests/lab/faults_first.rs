//! The first gather of a program that starts while a fault already exists: descriptions that cannot be read,
//! connections that cannot be opened.

use crate::support::daemon::Client;
use crate::support::fleet::{Fleet, at_most, long, shapes, small};
use crate::support::lab::Lab;
use crate::support::lines::Line;
use crate::support::plugin::Plugin;
use crate::support::{alone, run, wait_for};
use std::collections::BTreeMap;
use std::time::{Duration, Instant};

/// VMs whose healthy state is known, and how long a program's first gather takes.
fn learnt(lab: &Lab, size: usize) -> (Fleet<'_>, Duration) {
    let mut fleet = Fleet::start(lab, size, |n| small(format!("vm{n}")));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&[]));
    let (_, first) = plugin.timed_gather();
    fleet.learn(&mut plugin);
    (fleet, first)
}

/// Another client's call hangs on each of these VMs, whose QEMU does not run.
fn hold(lab: &Lab, fleet: &mut Fleet, numbers: &[usize]) -> Vec<Client> {
    fleet.freeze(numbers);
    let names = numbers.iter().map(|number| fleet.vms[*number].name());
    let client = |name| lab.client(&["domstats", "--balloon", "--domain", name]);
    let clients: Vec<Client> = names.map(client).collect();
    wait_for("the other clients' calls", Duration::from_secs(10), || {
        (lab.calls_in_daemon() >= clients.len()).then_some(())
    });
    clients
}

fn kill_and_start_libvirtd(lab: &Lab) {
    lab.signal_libvirtd("KILL");
    wait_for("libvirtd to end", Duration::from_secs(5), || {
        (!lab.libvirtd_runs()).then_some(())
    });
    lab.start_libvirtd();
}

/// From libvirt 11.0 on reading XML waits for the owner of a VM's job.
#[test]
fn vms_whose_job_is_held_cost_the_others_nothing() {
    let _alone = alone();
    let lab = Lab::start();
    let size = if long() { 24 } else { 8 };
    let (mut fleet, first) = learnt(&lab, size);
    let counts: &[usize] = if long() { &[1, 6, 15] } else { &[1, 3] };
    for &count in counts {
        let held: Vec<usize> = (0..count).collect();
        let clients = hold(&lab, &mut fleet, &held);
        for (sight, command) in [
            ("in sight", lab.plugin_unprivileged(&[])),
            ("out of sight", lab.plugin_blind(&[])),
        ] {
            let when = format!("{count} held, {sight}");
            let mut plugin = Plugin::spawn(command);
            let (gather, took) = plugin.timed_gather();
            println!("{when}: {took:?}, healthy {first:?}");
            fleet.expect_complete_first_but(&gather, &held, &when);
            assert!(
                took <= first + at_most(Duration::from_secs(1)),
                "{when}: {took:?}"
            );
            let found = shapes(&gather);
            for number in &held {
                let name = fleet.vms[*number].name();
                assert!(found.contains_key(name), "{when}: {name} has no line");
            }
            let (gather, took) = plugin.timed_gather();
            fleet.expect_complete_but(&gather, &held, &when);
            assert!(
                took <= first + at_most(Duration::from_secs(1)),
                "{when}: {took:?}"
            );
        }
        fleet.thaw(&held);
        for mut client in clients {
            client.wait();
        }
    }
}

/// The known description of a VM is used while its job is held: after a restart of libvirtd every description
/// is read again.
#[test]
fn descriptions_that_are_out_of_date_cost_nothing_while_a_job_is_held() {
    let _alone = alone();
    let lab = Lab::start();
    let (mut fleet, first) = learnt(&lab, 6);
    let mut plugin = Plugin::spawn(lab.plugin_blind(&[]));
    fleet.learn(&mut plugin);
    // A device event comes just before the freeze.
    lab.attach_disk(&fleet.vms[0], "vdz");
    fleet.freeze(&[0]);
    for round in 1..=3 {
        let (gather, took) = plugin.timed_gather();
        let when = format!("a device came before the freeze, gather {round}");
        println!("{when}: {took:?}");
        fleet.expect_complete_but(&gather, &[0], &when);
        assert!(
            took <= first + at_most(Duration::from_secs(1)),
            "{when}: {took:?}"
        );
    }
    // After a restart of libvirtd the frozen VM is listed only when it has thawed.
    kill_and_start_libvirtd(&lab);
    let begun = Instant::now();
    wait_for("the others", at_most(Duration::from_secs(30)), || {
        plugin.newline();
        let gather = plugin.lines_within(Duration::from_secs(9));
        (fleet.complete(&gather).len() >= 5).then_some(())
    });
    println!("complete again {:?} after the restart", begun.elapsed());
    for round in 1..=3 {
        let (gather, took) = plugin.timed_gather();
        let when = format!("libvirtd restarted beside a frozen VM, gather {round}");
        println!("{when}: {took:?}");
        fleet.expect_complete_but(&gather, &[0], &when);
        assert!(
            took <= first + at_most(Duration::from_secs(1)),
            "{when}: {took:?}"
        );
    }
    fleet.thaw(&[0]);
}

/// CPU time is the control group's, also after calls for other VMs on the same connection: a libvirtd that
/// was just started knows no control group of a VM until it has reached the VM's QEMU.
#[test]
fn a_vm_that_a_new_libvirtd_has_not_reached_changes_no_cpu_time() {
    let _alone = alone();
    let lab = Lab::start();
    let (mut fleet, _) = learnt(&lab, 3);
    // One connection makes all calls.
    let one_worker = ["--config", &lab.config("workers = 1")];
    let mut plugins = [
        ("in sight", lab.plugin_unprivileged(&one_worker)),
        ("out of sight", lab.plugin_blind(&one_worker)),
    ]
    .map(|(sight, command)| (sight, Plugin::spawn(command), BTreeMap::new()));
    for (sight, plugin, times) in &mut plugins {
        fleet.learn(plugin);
        expect_growth(&plugin.gather(), times, sight);
    }
    fleet.freeze(&[0]);
    kill_and_start_libvirtd(&lab);
    let begun = Instant::now();
    for (sight, plugin, times) in &mut plugins {
        wait_for("the others", at_most(Duration::from_secs(30)), || {
            plugin.newline();
            let gather = plugin.lines_within(Duration::from_secs(9));
            expect_growth(&gather, times, sight);
            (fleet.complete(&gather).len() >= 2).then_some(())
        });
    }
    println!("complete again {:?} after the restart", begun.elapsed());
    for round in 1..=3 {
        for (sight, plugin, times) in &mut plugins {
            let when = format!("{sight}, gather {round}");
            let gather = plugin.gather();
            expect_growth(&gather, times, &when);
            fleet.expect_complete_but(&gather, &[0], &when);
        }
    }
    fleet.thaw(&[0]);
    for (sight, plugin, times) in &mut plugins {
        fleet.expect_recovery(plugin, 3, &format!("{sight}, thawed"));
        expect_growth(&plugin.gather(), times, sight);
    }
}

/// Panics if a VM's CPU time has decreased; `times` are the last ones, by the VM's name.
fn expect_growth(gather: &[Line], times: &mut BTreeMap<String, i64>, when: &str) {
    for line in gather.iter().filter(|l| l.measurement == "vm_metrics") {
        if let Some(now) = line.int("cputime_ns") {
            let before = times.insert(line.tag("name").to_owned(), now);
            assert!(before <= Some(now), "{when}: {before:?}, {line:?}");
        }
    }
}

/// For a VM with a backup libvirt reports only a job, not since when its monitor is occupied.
#[test]
fn a_backup_of_a_vm_that_froze_costs_the_others_nothing() {
    let _alone = alone();
    let lab = Lab::start();
    let (mut fleet, first) = learnt(&lab, 6);
    let mut plugin = Plugin::spawn(lab.plugin_blind(&[]));
    fleet.learn(&mut plugin);
    for number in [0, 1] {
        let vm = fleet.vms[number].uuid();
        let socket = lab.dir().join(format!("nbd-{number}"));
        let backup = format!(
            "<domainbackup mode='pull'><server transport='unix' socket='{}'/></domainbackup>",
            socket.display()
        );
        let file = lab.dir().join(format!("backup-{number}.xml"));
        std::fs::write(&file, backup).unwrap();
        let mut begin = lab.virsh_command();
        let begun = run(begin.args(["backup-begin", vm, file.to_str().unwrap()]));
        let said = String::from_utf8_lossy(&begun.stderr);
        if said.contains("backup is not supported yet") {
            // This is for libvirt 7.0.
            return;
        }
        assert!(begun.status.success(), "{said}");
    }
    fleet.expect_complete_but(&plugin.gather(), &[], "while backups run");
    fleet.freeze(&[0]);
    for round in 1..=3 {
        let (gather, took) = plugin.timed_gather();
        let when = format!("frozen with a backup, gather {round}");
        println!("{when}: {took:?}");
        fleet.expect_complete_but(&gather, &[0], &when);
        let limit = first + at_most(Duration::from_secs(1));
        assert!(took <= limit, "{when}: {took:?}");
    }
    fleet.thaw(&[0]);
    fleet.expect_recovery(&mut plugin, 2, "thawed");
}

#[test]
fn a_daemon_that_lets_few_clients_in() {
    let _alone = alone();
    let lab = Lab::start();
    let (fleet, first) = learnt(&lab, 10);
    for clients in [2, 3, 4, 6] {
        let settings = format!("max_clients = {clients}\nmax_anonymous_clients = {clients}\n");
        lab.reconfigure_libvirtd(&settings);
        let mut plugin =
            Plugin::spawn(lab.plugin_unprivileged(&["--config", &lab.config("chunk_size = 2")]));
        let when = format!("{clients} clients");
        let (gather, took) = plugin.timed_gather();
        println!("{when}: {took:?}");
        fleet.expect_complete_first(&gather, &when);
        // A daemon that was just started takes longer, only once.
        let limit = 2 * first + at_most(Duration::from_secs(3));
        assert!(took <= limit, "{when}: {took:?}");
        for _ in 0..3 {
            let (gather, took) = plugin.timed_gather();
            println!("{when}: {took:?}");
            fleet.expect_complete_but(&gather, &[], &when);
            let limit = 3 * first + at_most(Duration::from_secs(1));
            assert!(took <= limit, "{when}: {took:?}");
        }
        // Connections that wait for so long are closed; then one connection is left for other clients.
        std::thread::sleep(Duration::from_secs(6));
        for _ in 0..2 {
            fleet.expect_complete_but(&plugin.gather(), &[], &when);
        }
        if clients > 2 {
            assert_eq!(lab.virsh(&["list", "--uuid"]).lines().count(), 10, "{when}");
        }
        fleet.expect_complete_but(&plugin.gather(), &[], &when);
        let warnings = plugin.warnings();
        // The workers' connections, and the connection for events.
        let few = clients < 5;
        assert_eq!(warnings.len(), usize::from(few), "{when}: {warnings:#?}");
        assert!(
            !few || warnings[0].contains("max_clients"),
            "{when}: {warnings:#?}"
        );
    }
}
