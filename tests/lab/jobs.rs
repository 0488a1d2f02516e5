//! Jobs of VMs in `vm_jobs`: how a migration and a backup go, and how they end.

use crate::qemu_ends::until_events_come;
use crate::support::fleet::{Fleet, at_most, long, small};
use crate::support::lab::Lab;
use crate::support::lines::{Line, lines, of, one};
use crate::support::migration::{full_memory, migrate};
use crate::support::plugin::Plugin;
use crate::support::vm::{Vm, VmSpec, disks};
use crate::support::{alone, succeed, wait_for};
use std::collections::BTreeMap;
use std::process::{Child, Stdio};
use std::time::{Duration, Instant};

const LIMIT: Duration = Duration::from_secs(30);

/// All measurements that are on by default, and `vm_jobs`. The stamps of successive gathers differ.
const SETTINGS: &str = "measurements = ['vm_metrics', 'vm_features', 'vm_devices', 'vm_totals', 'vm_collector', 'vm_jobs']\n\
     timestamp_precision = '1ms'\n";

/// Starts virsh, which waits for the end of one job.
fn wait_for_event(lab: &Lab) -> Child {
    let mut virsh = lab.virsh_command();
    virsh.args(["event", "--event", "job-completed", "--timeout", "120"]);
    virsh.stdout(Stdio::piped()).spawn().unwrap()
}

/// What the event says that virsh has waited for.
fn event(virsh: Child) -> BTreeMap<String, i64> {
    let output = virsh.wait_with_output().unwrap();
    pairs(&String::from_utf8(output.stdout).unwrap(), ": ")
}

/// What libvirt says of the last job of a VM that is still there, or has come there.
fn completed(lab: &Lab, name: &str) -> BTreeMap<String, i64> {
    let options = ["--completed", "--rawstats", "--keep-completed"];
    pairs(
        &lab.virsh(&[&["domjobinfo", name], options.as_slice()].concat()),
        ": ",
    )
}

fn pairs(text: &str, between: &str) -> BTreeMap<String, i64> {
    let pairs = text.lines().filter_map(|line| line.split_once(between));
    pairs
        .filter_map(|(key, value)| Some((key.trim().to_owned(), value.trim().parse().ok()?)))
        .collect()
}

/// Gathers until there is a last line of a job of this VM; adds all lines of its jobs to `found`.
fn until_over(plugin: &mut Plugin, name: &str, found: &mut Vec<Line>) -> Line {
    wait_for("the last line of a job", LIMIT, || {
        let found_now = plugin.gather();
        let jobs = of(&found_now, "vm_jobs", name);
        found.extend(jobs.iter().map(|line| (*line).clone()));
        let last = jobs
            .into_iter()
            .find(|line| line.text("status") != Some("running"));
        last.cloned()
    })
}

/// The figures of a line that libvirt's event has, too.
fn figures(line: &Line) -> Vec<Option<i64>> {
    let fields = [
        "elapsed_ms",
        "data_total_bytes",
        "data_processed_bytes",
        "data_remaining_bytes",
        "memory_dirty_rate_pages",
        "memory_bps",
        "memory_iteration",
        "downtime_ms",
    ];
    fields.map(|field| line.int(field)).into()
}

/// The same, as libvirt says it.
fn figures_of(said: &BTreeMap<String, i64>) -> Vec<Option<i64>> {
    let keys = [
        "time_elapsed",
        "data_total",
        "data_processed",
        "data_remaining",
        "memory_dirty_rate",
        "memory_bps",
        "memory_iteration",
        "downtime",
    ];
    keys.map(|key| said.get(key).copied()).into()
}

/// A line of a job is of this VM's run and of this kind.
fn expect_job(line: &Line, like: &Line, operation: &str) {
    let mut tags = like.tags.clone();
    tags.insert("operation".into(), operation.into());
    assert_eq!(line.tags, tags, "{line:?}");
}

#[test]
fn dumps_saves_and_backups_have_one_last_line_each() {
    let lab = Lab::start();
    let create = |name: &str| {
        lab.create(&VmSpec {
            name: name.into(),
            disks: disks(&["vda"]),
            paused: true,
            ..VmSpec::default()
        })
    };
    let (steady, hidden) = (create("steady"), create("hidden"));
    let (dumped, saved) = (create("dumped"), create("saved"));
    let config = lab.config(&format!("{SETTINGS}domain_exclude = ['*-hidden']\n"));
    let mut plugin = Plugin::spawn(lab.plugin_unprivileged(&["--config", &config]));
    let before = until_events_come(&mut plugin, &steady);
    let like = |vm: &Vm| one(&before, "vm_metrics", vm.name()).clone();
    assert!(before.iter().all(|line| line.measurement != "vm_jobs"));
    let file = |name: &str| lab.dir().join(name).to_str().unwrap().to_owned();
    let mut found = Vec::new();

    lab.virsh(&["dump", hidden.uuid(), &file("hidden.core")]);
    lab.virsh(&["dump", dumped.uuid(), &file("core")]);
    let last = until_over(&mut plugin, dumped.name(), &mut found);
    expect_job(&last, &like(&dumped), "dump");
    assert_eq!(last.text("status"), Some("completed"), "{last:?}");
    let there = completed(&lab, dumped.name());
    assert_eq!(figures(&last), figures_of(&there), "{there:?}");
    assert!(last.int("data_total_bytes").unwrap() > 16 << 20, "{last:?}");
    assert!(last.int("downtime_ms").is_some(), "{last:?}");

    lab.virsh(&["save", saved.uuid(), &file("saved")]);
    let last = until_over(&mut plugin, saved.name(), &mut found);
    expect_job(&last, &like(&saved), "save");
    assert_eq!(last.text("status"), Some("completed"), "{last:?}");

    // libvirt 7.0 has backups, but for QEMUs that are newer than its own.
    if lab.libvirt_version() >= (8, 0) {
        back_up(&lab, &mut plugin, &steady, &like(&steady));
    }
    for _ in 0..2 {
        found.extend(plugin.gather());
    }
    let over = |vm: &Vm| {
        let jobs = of(&found, "vm_jobs", vm.name()).into_iter();
        jobs.filter(|line| line.text("status") != Some("running"))
            .count()
    };
    assert_eq!([&dumped, &saved, &hidden].map(over), [1, 1, 0]);
    assert_eq!(plugin.warnings(), Vec::<String>::new());
}

/// A push backup, which copies the disk and is over; and a pull backup, which lasts until the client ends it.
fn back_up(lab: &Lab, plugin: &mut Plugin, vm: &Vm, like: &Line) {
    let xml = |mode: &str, server: &str, to: &str| {
        let file = lab.dir().join(format!("{mode}.xml"));
        let image = lab.dir().join(format!("{mode}.qcow2"));
        let text = format!(
            "<domainbackup mode='{mode}'>{server}<disks><disk name='vda' type='file'><driver type='qcow2'/>\
             <{to} file='{}'/></disk></disks></domainbackup>",
            image.display()
        );
        std::fs::write(&file, text).unwrap();
        file.to_str().unwrap().to_owned()
    };
    let mut found = Vec::new();
    lab.virsh(&["backup-begin", vm.uuid(), &xml("push", "", "target")]);
    let last = until_over(plugin, vm.name(), &mut found);
    expect_job(&last, like, "backup");
    assert_eq!(last.text("status"), Some("completed"), "{last:?}");
    let data = ["total", "processed", "remaining"];
    let data = data.map(|part| last.int(&format!("data_{part}_bytes")));
    assert_eq!(data, [Some(8 << 20), Some(8 << 20), Some(0)], "{last:?}");
    assert_eq!(last.int("downtime_ms"), None, "{last:?}");

    let socket = lab.dir().join("nbd.sock");
    let server = format!("<server transport='unix' socket='{}'/>", socket.display());
    lab.virsh(&["backup-begin", vm.uuid(), &xml("pull", &server, "scratch")]);
    found.clear();
    wait_for("three lines of the backup", LIMIT, || {
        found.extend(plugin.gather());
        (of(&found, "vm_jobs", vm.name()).len() >= 3).then_some(())
    });
    let running = of(&found, "vm_jobs", vm.name());
    for pair in running.windows(2) {
        let elapsed = |line: &Line| line.int("elapsed_ms").unwrap();
        assert!(elapsed(pair[0]) < elapsed(pair[1]), "{pair:?}");
        assert_eq!(pair[1].text("status"), Some("running"), "{pair:?}");
        expect_job(pair[1], like, "backup");
    }
    let config = lab.config("measurements = ['vm_jobs']\n");
    let mut once = lab.plugin_unprivileged(&["--once", "--config", &config]);
    let text = succeed(&mut once);
    let [only] = &lines(&text)[..] else {
        panic!("not one line: {text}");
    };
    expect_job(only, like, "backup");
    lab.virsh(&["domjobabort", vm.uuid()]);
    let last = until_over(plugin, vm.name(), &mut Vec::new());
    assert_eq!(last.text("status"), Some("completed"), "{last:?}");
    let mut once = lab.plugin_unprivileged(&["--once", "--config", &config]);
    assert_eq!(succeed(&mut once), "", "no job is no failure");
}

#[test]
fn a_migration_shows_its_course_and_its_end() {
    let _alone = alone();
    let (source, target) = (Lab::start_reachable(), Lab::start_reachable());
    let memory = full_memory(&source, 40);
    let mut fleet = Fleet::start(&source, 3, |number| VmSpec {
        memory_mib: if number == 0 { 64 } else { 16 },
        paused: number != 0,
        extra: if number == 0 {
            memory.clone()
        } else {
            String::new()
        },
        ..small(format!("vm{number}"))
    });
    for lab in [&source, &target] {
        // libvirtd's first call is slow; another test covers that.
        lab.virsh(&["domstats"]);
    }
    let config = source.config(SETTINGS);
    let virsh = wait_for_event(&source);
    let mut plugin = Plugin::spawn(source.plugin_unprivileged(&["--config", &config]));
    until_events_come(&mut plugin, &fleet.vms[1]);
    let healthy = fleet.learn(&mut plugin);
    let before = plugin.gather();
    let name = fleet.vms[0].name().to_owned();
    let like = one(&before, "vm_metrics", &name).clone();

    // 2 MiB a second of 40: it takes 20 s.
    let mut migration = migrate(&source, &target, &name, 2);
    let start = Instant::now();
    let mut jobs: Vec<Line> = Vec::new();
    let mut gather = |plugin: &mut Plugin| {
        let lines = plugin.gather();
        jobs.extend(of(&lines, "vm_jobs", &name).into_iter().cloned());
        let has_begun = |line: &&Line| line.int("data_total_bytes").is_some();
        jobs.iter().filter(has_begun).count()
    };
    while gather(&mut plugin) < 3 {
        assert!(migration.runs() && start.elapsed() < LIMIT);
    }
    fleet.freeze(&[0]);
    for round in 1..=3 {
        let (lines, took) = plugin.timed_gather();
        let when = format!("frozen on its way, gather {round}: {took:?}");
        fleet.expect_complete_but(&lines, &[0], &when);
        let limit = healthy + at_most(Duration::from_millis(600));
        assert!(took <= limit, "{when} of {limit:?}");
    }
    fleet.thaw(&[0]);
    let mut is_quick = long();
    while migration.runs() {
        assert!(start.elapsed() < 2 * LIMIT, "it has no end");
        if gather(&mut plugin) >= 6 && !is_quick {
            is_quick = true;
            source.virsh(&["migrate-setspeed", &name, "1000"]);
        }
    }
    println!("the migration took {:?}", start.elapsed());
    let is_over = |line: &&Line| line.text("status") != Some("running");
    let last = match jobs.iter().find(is_over) {
        Some(last) => last.clone(),
        None => until_over(&mut plugin, &name, &mut jobs),
    };
    for _ in 0..2 {
        jobs.extend(of(&plugin.gather(), "vm_jobs", &name).into_iter().cloned());
    }

    let event = event(virsh);
    assert_eq!(figures(&last), figures_of(&event), "{event:?}");
    assert_eq!(jobs.last(), Some(&last), "one last line, the last of all");
    assert!(last.int("downtime_ms").unwrap() > 0, "{last:?}");
    for line in &jobs {
        expect_job(line, &like, "migration_out");
    }
    // In the end the target says the same.
    let there = completed(&target, &name);
    assert_eq!(there.get("downtime").copied(), last.int("downtime_ms"));

    let running = &jobs[..jobs.len() - 1];
    for line in running {
        assert_eq!(line.text("status"), Some("running"), "{line:?}");
        assert!(line.int("elapsed_ms").is_some(), "{line:?}");
    }
    // There are no figures of the data before QEMU has begun.
    for (field, grows) in [
        ("elapsed_ms", true),
        ("data_processed_bytes", true),
        ("data_remaining_bytes", false),
    ] {
        let figures = running.iter().filter_map(|line| line.int(field));
        let figures: Vec<i64> = figures.collect();
        let is_in_order = |pair: &[i64]| match grows {
            true => pair[0] <= pair[1],
            false => pair[0] >= pair[1],
        };
        assert!(figures.windows(2).all(is_in_order), "{field}: {figures:?}");
        assert!(figures.len() >= 3, "{field}: {jobs:#?}");
        assert_ne!(figures.first(), figures.last(), "{field}: {figures:?}");
    }
    assert_eq!(last.int("data_remaining_bytes"), Some(0));
    assert_eq!(plugin.warnings(), Vec::<String>::new());
}
