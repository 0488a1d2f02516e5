//! The balloon group is asked for only when its figures may have changed, and what is written is what libvirt has, in each
//! gather.

use crate::host_counters::LoggedPlugin;
use crate::support::fleet::long;
use crate::support::lab::Lab;
use crate::support::virsh::agrees;
use crate::support::vm::{Nic, Vm, VmSpec, disks};
use crate::support::{lines, turn, wait_for};
use std::time::{Duration, Instant};

/// VIR_DOMAIN_STATS_BALLOON
const BALLOON: u32 = 4;

/// A guest has started by then, on a busy host too.
const BOOTS: Duration = Duration::from_secs(120);

/// A Linux guest, which reports as often as this.
fn spec(name: &str, stats_period: Option<u32>) -> VmSpec {
    VmSpec {
        name: name.into(),
        memory_mib: 96,
        disks: disks(&["vda"]),
        nics: vec![Nic::Tap],
        stats_period,
        guest: true,
        ..VmSpec::default()
    }
}

fn guest<'l>(lab: &'l Lab, name: &str, stats_period: Option<u32>) -> Vm<'l> {
    lab.create(&spec(name, stats_period))
}

/// The VMs to compare with libvirt.
fn as_named<'v>(vms: &[&'v Vm]) -> Vec<(&'v str, Option<&'static str>)> {
    vms.iter().map(|vm| (vm.uuid(), None)).collect()
}

/// Gathers; whether the balloon group was asked for, of any VM.
fn asks(logged: &mut LoggedPlugin) -> bool {
    let (_, asked) = logged.gather();
    asked.iter().any(|groups| groups & BALLOON != 0)
}

/// Compares a gather with libvirt; whether the balloon group was asked for in it, of any VM.
fn asks_and_agrees(logged: &mut LoggedPlugin, lab: &Lab, vms: &[&Vm]) -> bool {
    logged.asked();
    agrees(lab, &mut logged.plugin, &as_named(vms), false);
    logged.asked().iter().any(|groups| groups & BALLOON != 0)
}

/// Guests that are paused do not report: their figures are kept, with and without a period.
#[test]
fn memory_that_cannot_have_changed_is_not_asked_for() {
    let _turn = turn::share();
    let lab = Lab::start();
    let vms = [guest(&lab, "silent", None), guest(&lab, "each", Some(1))];
    let [silent, each] = &vms;
    wait_for("the guest's memory", BOOTS, || {
        let stats = lab.domstats(each.name());
        stats.contains_key("balloon.usable").then_some(())
    });
    for vm in &vms {
        lab.virsh(&["suspend", vm.name()]);
    }
    let mut logged = LoggedPlugin::start(&lab, lab.plugin(&[]), "balloon.log");
    let kept = |logged: &mut LoggedPlugin| {
        wait_for(
            "a gather without the group",
            Duration::from_secs(30),
            || (!asks(logged)).then_some(()),
        );
    };
    kept(&mut logged);
    let asked = (0..3).filter(|_| asks_and_agrees(&mut logged, &lab, &[silent, each]));
    assert_eq!(asked.count(), 0);

    // Both go on: the balloon is moved, and one guest reports.
    lab.virsh(&["setmem", silent.name(), "90MiB", "--live"]);
    for vm in &vms {
        lab.virsh(&["resume", vm.name()]);
    }
    assert!(asks_and_agrees(&mut logged, &lab, &[silent]));
    wait_for("the balloon", Duration::from_secs(60), || {
        let stats = lab.domstats(silent.name());
        (stats["balloon.current"] == (90 * 1024).to_string()).then_some(())
    });
    assert!(asks_and_agrees(&mut logged, &lab, &[silent]));

    // A QEMU that does not answer has no figures of its guest, kept or not.
    for vm in &vms {
        lab.virsh(&["suspend", vm.name()]);
    }
    kept(&mut logged);
    each.freeze();
    let found = wait_for("a gather without it", Duration::from_secs(10), || {
        let found = logged.gather().0;
        let metrics = lines::one(&found, "vm_metrics", each.name());
        (metrics.int("answers") == Some(0)).then_some(found)
    });
    let totals = lines::one(&found, "vm_totals", each.name());
    assert_eq!(totals.int("memrss"), None);
    assert_eq!(totals.int("memavailable"), None);
    assert_eq!(totals.int("memactual"), Some(96 * 1024));
    each.thaw();
    wait_for("a full gather", Duration::from_secs(10), || {
        let found = logged.gather().0;
        let totals = lines::one(&found, "vm_totals", each.name());
        totals.int("memrss").map(drop)
    });
    asks_and_agrees(&mut logged, &lab, &[silent, each]);
}

/// Guests that run for long, with no period, one of 1 s and of 30 s, one that becomes shorter, a balloon that is moved, a guest
/// that is reset, and one that starts long after its QEMU, which moves its balloon.
#[test]
fn every_gather_has_the_memory_that_libvirt_has() {
    if !long() {
        return;
    }
    let _turn = turn::share();
    let lab = Lab::start();
    let vms = [
        ("silent", None),
        ("each", Some(1)),
        ("seldom", Some(30)),
        ("changed", Some(30)),
        ("moved", None),
        ("reset", None),
    ];
    let vms = vms.map(|(name, period)| guest(&lab, name, period));
    let [silent, each, seldom, changed, moved, reset] = &vms;
    let late = lab.create(&VmSpec {
        extra: "<currentMemory unit='MiB'>88</currentMemory>".into(),
        paused: true,
        ..spec("late", None)
    });
    let late = &late;
    for vm in [each, seldom, changed] {
        wait_for("the guest's memory", BOOTS, || {
            let stats = lab.domstats(vm.name());
            stats.contains_key("balloon.usable").then_some(())
        });
    }
    // What a guest reported stays as long as libvirt has it.
    let config = lab.config("guest_memory_max_age = \"1h\"\n");
    let plugin = lab.plugin(&["--config", &config]);
    let began = Instant::now();
    let mut logged = LoggedPlugin::start(&lab, plugin, "balloon.log");
    let mut watch = |vms: &[&Vm], seconds: u64| {
        let until = Instant::now() + Duration::from_secs(seconds);
        let (mut gathers, mut asked) = (0, 0);
        while Instant::now() < until {
            gathers += 1;
            asked += usize::from(asks_and_agrees(&mut logged, &lab, vms));
            std::thread::sleep(Duration::from_millis(700));
        }
        (gathers, asked)
    };
    let all = [silent, each, seldom, changed, moved, reset, late];
    watch(&all, 310_u64.saturating_sub(began.elapsed().as_secs()));
    // Each gather asks for the one that reports in each second.
    lab.virsh(&["suspend", each.name()]);
    let (gathers, asked) = watch(&all, 100);
    assert!(0 < asked && asked < gathers, "{asked} of {gathers}");
    lab.virsh(&["resume", each.name()]);
    lab.virsh(&["setmem", moved.name(), "90MiB", "--live"]);
    lab.virsh(&["reset", reset.name()]);
    lab.virsh(&["dommemstat", changed.name(), "--period", "1", "--live"]);
    lab.virsh(&["resume", late.name()]);
    watch(&[silent, each, seldom, moved, reset, late], 70);
    let current = &lab.domstats(late.name())["balloon.current"];
    assert_eq!(*current, (88 * 1024).to_string());
    watch(&all, 20);
    lab.virsh(&["dommemstat", silent.name(), "--period", "2", "--live"]);
    watch(&[each, seldom, changed, moved, reset, late], 70);
    watch(&all, 20);
}
