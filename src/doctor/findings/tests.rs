use super::*;
use crate::doctor::facts::{Gather, Host, Inventory, MountOut, Output, Statistics, Storage, Vms};

/// A host with three healthy VMs.
fn healthy() -> Facts {
    Facts {
        name: None,
        program_version: "0",
        configuration: "the defaults".to_owned(),
        uri: "qemu:///system".to_owned(),
        uri_origin: "the default".to_owned(),
        connected: true,
        error: None,
        libvirt: Some(Libvirt {
            daemon_version: Some("9.0.0".to_owned()),
            client_version: Some("9.0.0".to_owned()),
            driver: Some("QEMU".to_owned()),
            hypervisor_version: Some("7.2.0".to_owned()),
            socket: Some("/run/libvirt/libvirt-sock-ro".to_owned()),
            read_only: true,
            in_process: false,
            events: true,
            connections_limited_to: None,
        }),
        vms: Some(Vms {
            active: Some(3),
            filtered: vec![],
            wanted: 3,
            complete: 3,
            partial: 0,
            running: 3,
            not_answering: vec![],
            state_and_network_only: vec![],
            without_disks: vec![],
            missing: vec![],
            locked: vec![],
            withheld: 0,
            problems: vec![],
            guest_memory_wanted: true,
            without_guest_memory: vec![],
            devices_left_out: vec![],
        }),
        host: Some(Host {
            proc_is_open: true,
            processes: 3,
            control_groups: 3,
            vms_with_vcpu_threads: 3,
            vcpu_threads: 6,
            vcpu_times_wanted: true,
            vcpu_times_from_libvirt: false,
            pressure_wanted: true,
            vms_with_pressure: 3,
            cpu_time_wanted: true,
            cpu_time_from_host: 3,
            network_wanted: true,
            taps: 3,
            taps_in_sight: 3,
            vms_with_taps: 3,
            network_from_host: 2,
        }),
        storage: Some(Storage {
            network_mounts: vec![],
            unknown_storage: vec![],
            slow_storage: vec![],
            disks_left_out: false,
        }),
        inventory: Some(Inventory {
            inactive_wanted: true,
            inactive: Some(2),
            pools_wanted: true,
            pools: Some(vec!["default".to_owned()]),
            pools_not_answering: vec![],
            problems: vec![],
        }),
        output: Some(Output {
            lines: 15,
            fields: 150,
            series: 15,
            size_bytes: 4000,
            metric_batch_size: 1000,
            metric_buffer_limit: 10_000,
            statistics: Some(Statistics {
                patterns: vec!["iothread.*".to_owned()],
                without_key: vec![],
                lines: 3,
                unanswered: vec![],
            }),
            limit: None,
        }),
        gather: Some(Gather {
            first_ms: 20.0,
            last_ms: Some(8.0),
            deadline_ms: 8000.0,
            hanging_calls: 0,
            saturated: false,
            not_started: None,
        }),
    }
}

/// The findings that are not `ok`: mark, subject, and message and remedy in one text.
fn amiss(facts: &Facts) -> Vec<(Level, &'static str, String)> {
    let all = findings(facts).into_iter();
    let amiss = all.filter(|finding| finding.level != Level::Ok);
    amiss
        .map(|found| {
            let remedy = found.remedy.unwrap_or_default();
            (
                found.level,
                found.subject,
                format!("{} -> {remedy}", found.message),
            )
        })
        .collect()
}

/// Checks that a change of the healthy host is found, once, as this.
fn finds(level: Level, subject: &str, words: &[&str], change: impl FnOnce(&mut Facts)) {
    let mut facts = healthy();
    change(&mut facts);
    let amiss = amiss(&facts);
    let found = amiss.iter().find(|(l, s, _)| (*l, *s) == (level, subject));
    let Some((_, _, text)) = found else {
        panic!("{subject}: {amiss:?}");
    };
    for word in words {
        assert!(text.contains(word), "{word}: {text}");
    }
}

#[test]
fn a_healthy_host_is_all_ok() {
    assert_eq!(amiss(&healthy()), []);
    let all = findings(&healthy());
    assert!((10..=20).contains(&all.len()), "{}", all.len());
}

/// Where a warning about VMs that do not answer leads to.
const STEPS: &str = "docs/troubleshooting.md";

/// A VM without an answer may be healthy: libvirtd may have been frozen or busy.
#[test]
fn nobody_is_told_to_kill_a_vm_or_to_touch_one_that_may_be_healthy() {
    let mut facts = healthy();
    let names = |name: &str| vec![name.to_owned()];
    let vms = facts.vms.as_mut().unwrap();
    (vms.complete, vms.missing) = (0, names("late"));
    (vms.not_answering, vms.locked) = (names("stuck"), names("locked"));
    for (_, _, text) in amiss(&facts) {
        assert!(!text.contains("-KILL"), "{text}");
        assert!(!text.contains("late") || !text.contains("kill"), "{text}");
    }
}

#[test]
fn each_fault_has_its_remedy() {
    use Level::{Note, Warning};
    fn vms(facts: &mut Facts) -> &mut Vms {
        facts.vms.as_mut().unwrap()
    }
    fn host(facts: &mut Facts) -> &mut Host {
        facts.host.as_mut().unwrap()
    }
    let web = || vec!["web".to_owned()];
    finds(Warning, "VMs", &["web", "virsh list", STEPS], |facts| {
        vms(facts).complete = 2;
        vms(facts).missing = web();
    });
    finds(Warning, "VMs", &["web", "domcontrol VM", STEPS], |facts| {
        vms(facts).complete = 2;
        vms(facts).not_answering = web();
    });
    finds(Warning, "VMs", &["web", "domcontrol VM", STEPS], |facts| {
        vms(facts).complete = 2;
        vms(facts).locked = web();
    });
    finds(
        Warning,
        "VMs",
        &["web", "state and network only", "virt-admin"],
        |facts| {
            (vms(facts).complete, vms(facts).partial) = (2, 1);
            vms(facts).state_and_network_only = web();
        },
    );
    finds(Warning, "VMs", &["web", "disks", "storage"], |facts| {
        (vms(facts).complete, vms(facts).partial) = (2, 1);
        vms(facts).without_disks = web();
    });
    finds(Warning, "VMs", &["list of VMs", "virsh list"], |facts| {
        vms(facts).active = None;
    });
    finds(Note, "VMs", &["no VM is active", "virsh start"], |facts| {
        (vms(facts).active, vms(facts).wanted) = (Some(0), 0);
    });
    let command = "virsh dommemstat web --period 5 --live (and --config";
    finds(Note, "guest memory", &[command], |facts| {
        vms(facts).without_guest_memory = web();
    });
    let ok = |facts: &Facts, subject| {
        let mut all = findings(facts).into_iter();
        all.find(|finding| finding.subject == subject)
            .unwrap()
            .message
    };
    let mut facts = healthy();
    assert_eq!(
        ok(&facts, "guest memory"),
        "every guest that runs reports it"
    );
    vms(&mut facts).running = 0;
    assert_eq!(ok(&facts, "guest memory"), "no guest runs");
    vms(&mut facts).not_answering = web();
    assert_eq!(ok(&facts, "guest memory"), "no guest that answers runs");
    let output = facts.output.as_mut().unwrap();
    (output.lines, output.fields) = (1, 1);
    let found = ok(&facts, "output");
    assert!(found.starts_with("1 line, 1 field, 15 series"), "{found}");
    let odd = r"dommemstat --domain 'o'\''dd one' --period";
    finds(Note, "guest memory", &[odd], |facts| {
        vms(facts).without_guest_memory = vec!["o'dd one".to_owned()];
    });
    finds(Warning, "processes", &["1 of 3", "hidepid=0"], |facts| {
        (host(facts).processes, host(facts).proc_is_open) = (1, false);
    });
    finds(
        Note,
        "vCPU threads",
        &["of 1 of 3", "vcpu_delay = \"libvirt\""],
        |facts| host(facts).vms_with_vcpu_threads = 1,
    );
    finds(Warning, "pressure", &["1 of 3", "psi=1"], |facts| {
        host(facts).vms_with_pressure = 1;
    });
    fn statistics(facts: &mut Facts) -> &mut Statistics {
        let output = facts.output.as_mut().unwrap();
        output.statistics.as_mut().unwrap()
    }
    let words = ["3 lines", "no VM has a key for perf.*", "domstats"];
    finds(Note, "statistics", &words, |facts| {
        statistics(facts).without_key = vec!["perf.*".to_owned()];
    });
    finds(Warning, "statistics", &["web", "domcontrol"], |facts| {
        statistics(facts).unanswered = web();
    });
    finds(
        Note,
        "control groups",
        &["0 of 3", "/sys/fs/cgroup"],
        |facts| {
            host(facts).control_groups = 0;
        },
    );
    finds(
        Note,
        "interfaces",
        &["1 of 3", "network namespace"],
        |facts| {
            host(facts).taps_in_sight = 1;
        },
    );
    finds(
        Warning,
        "storage",
        &["/nfs does not answer", "web", "one by one", "dmesg"],
        |facts| {
            let mount = MountOut {
                mount: "/nfs".to_owned(),
                state: "dead",
                vms: web(),
            };
            facts.storage.as_mut().unwrap().network_mounts = vec![mount];
        },
    );
    fn inventory(facts: &mut Facts) -> &mut Inventory {
        facts.inventory.as_mut().unwrap()
    }
    finds(Warning, "shut-off VMs", &["virsh list --all"], |facts| {
        inventory(facts).inactive = None;
    });
    finds(Warning, "storage pools", &["virsh pool-list"], |facts| {
        inventory(facts).pools = None;
    });
    finds(Note, "storage pools", &["there is none"], |facts| {
        inventory(facts).pools = Some(vec![]);
    });
    finds(Warning, "storage pools", &["web", "the mount"], |facts| {
        inventory(facts).pools_not_answering = web();
    });
    let refused = "shut-off VMs, pools and node";
    finds(Warning, refused, &["web", "virtstoraged"], |facts| {
        inventory(facts).problems = web();
    });
    assert_eq!(ok(&healthy(), "shut-off VMs"), "2 VMs");
    assert_eq!(ok(&healthy(), "storage pools"), "1 pool: default");
    finds(Warning, "events", &["max_anonymous_clients"], |facts| {
        facts.libvirt.as_mut().unwrap().events = false;
    });
    finds(Note, "connection", &["max_clients"], |facts| {
        facts.libvirt.as_mut().unwrap().connections_limited_to = Some(1);
    });
    finds(Warning, "time", &["not done", "2 calls hang"], |facts| {
        let gather = facts.gather.as_mut().unwrap();
        (gather.last_ms, gather.hanging_calls) = (None, 2);
    });
    finds(
        Note,
        "figures",
        &["another host", "qemu:///system"],
        |facts| {
            (facts.host, facts.storage) = (None, None);
        },
    );
}
