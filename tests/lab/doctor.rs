//! `--check` on real VMs: one that is frozen, one whose guest does not report its memory, one with a NIC that has no
//! name on the host; and as in a container.

use crate::support::lab::Lab;
use crate::support::vm::{Nic, VmSpec, disks};
use crate::support::{run, told};
use serde_json::Value;
use std::process::Command;

fn document(mut command: Command) -> Value {
    let (code, out, err) = told(&run(&mut command));
    assert_eq!((code, err.as_str()), (Some(0), ""), "{out}");
    println!("{out}");
    serde_json::from_str(&out).unwrap()
}

fn names(list: &Value) -> Vec<&str> {
    let list = list.as_array().unwrap().iter();
    list.map(|name| name.as_str().unwrap()).collect()
}

/// Message and remedy of the findings on this subject that are not `ok`.
fn amiss<'d>(document: &'d Value, subject: &str) -> Vec<(&'d str, &'d str)> {
    let findings = document["findings"].as_array().unwrap().iter();
    findings
        .filter(|finding| finding["subject"] == subject && finding["level"] != "ok")
        .map(|finding| {
            let text = |key: &str| finding[key].as_str().unwrap_or_default();
            (text("message"), text("remedy"))
        })
        .collect()
}

#[test]
fn it_names_what_an_operator_would_find_out_later() {
    let lab = Lab::start();
    let talking = lab.create(&VmSpec {
        name: "talking".into(),
        memory_mib: 112,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        stats_period: Some(1),
        guest: true,
        ..VmSpec::default()
    });
    talking.guest("ip link set eth0 up");
    // Without a system to boot, so that no guest ever reports.
    let silent = lab.create(&VmSpec {
        name: "silent".into(),
        ..VmSpec::default()
    });
    let user = lab.create(&VmSpec {
        name: "user".into(),
        nics: vec![Nic::User],
        paused: true,
        ..VmSpec::default()
    });
    let frozen = lab.create(&VmSpec {
        name: "frozen".into(),
        nics: vec![Nic::Tap],
        paused: true,
        ..VmSpec::default()
    });

    let healthy = document(lab.plugin_unprivileged(&["--check", "--json"]));
    let (libvirt, vms, host) = (&healthy["libvirt"], &healthy["vms"], &healthy["host"]);
    let (major, minor) = lab.libvirt_version();
    let version = libvirt["daemon_version"].as_str().unwrap();
    assert!(
        version.starts_with(&format!("{major}.{minor}.")),
        "{version}"
    );
    assert_eq!(libvirt["driver"], "QEMU");
    // libvirtd may still start a QEMU to know its version.
    let known = lab.virsh(&["version"]);
    if let Some(qemu) = libvirt["hypervisor_version"].as_str() {
        assert!(known.contains(&format!("QEMU {qemu}")), "{qemu}: {known}");
    }
    let socket = libvirt["socket"].as_str().unwrap();
    assert!(socket.ends_with("-sock-ro"), "{socket}");
    assert_eq!(libvirt["events"], true);
    assert_eq!((&vms["wanted"], &vms["complete"]), (&4.into(), &4.into()));
    assert_eq!(host["processes"], 4);
    assert_eq!(
        (&host["taps"], &host["taps_in_sight"]),
        (&2.into(), &2.into())
    );
    assert_eq!(host["control_groups"], 4);
    assert_eq!(host["vms_with_vcpu_threads"], 4);
    assert_eq!(host["vcpu_threads"], 4);
    // The third gather reads on this host what the second one has seen to be libvirt's.
    assert_eq!(host["cpu_time_from_host"], 4);
    assert_eq!(names(&vms["without_guest_memory"]), [silent.name()]);
    let devices = vms["devices_left_out"].as_array().unwrap();
    assert_eq!(devices.len(), 1, "{devices:?}");
    assert_eq!(devices[0]["vm"], user.name());
    assert_eq!(devices[0]["reason"], "no_host_name");

    // The remedy for guest memory, as it is printed.
    let memory = amiss(&healthy, "guest memory");
    assert!(memory[0].0.contains(silent.name()), "{memory:?}");
    let command = memory[0].1.strip_prefix("virsh ").unwrap();
    let words: Vec<&str> = command
        .split(' ')
        .take_while(|word| !word.starts_with('('))
        .collect();
    assert_eq!(
        words,
        ["dommemstat", silent.name(), "--period", "5", "--live"]
    );
    lab.virsh(&words);
    let xml = lab.virsh(&["dumpxml", silent.name()]);
    assert!(xml.contains("<stats period='5'/>"), "{xml}");

    frozen.freeze();
    let found = document(lab.plugin_unprivileged(&["--check", "--json"]));
    assert_eq!(names(&found["vms"]["not_answering"]), [frozen.name()]);
    let (message, remedy) = amiss(&found, "VMs").into_iter().last().unwrap();
    assert!(message.contains(frozen.name()), "{message}");
    assert!(remedy.contains("virsh domcontrol VM"), "{remedy}");
    // --once names it as well.
    let (code, _, err) = told(&run(&mut lab.plugin_unprivileged(&["--once"])));
    assert_eq!(code, Some(0));
    assert_eq!(err.lines().count(), 1, "{err}");
    let begin = "W! QEMU does not answer, so only what libvirt knows without it is gathered: ";
    assert!(
        err.starts_with(&format!("{begin}{}", frozen.name())),
        "{err}"
    );
    frozen.thaw();

    let (code, out, err) = told(&run(&mut lab.plugin_unprivileged(&["--check"])));
    assert_eq!((code, err.as_str()), (Some(0), ""));
    println!("{out}");
    let findings = out.lines().filter(|line| !line.starts_with(' ')).count();
    assert!((10..=20).contains(&findings), "{findings} lines: {out}");

    let blind = document(lab.plugin_blind(&["--check", "--json"]));
    assert_eq!(blind["host"]["processes"], 0);
    let processes = amiss(&blind, "processes");
    assert!(processes[0].1.contains("PID namespace"), "{processes:?}");
}
