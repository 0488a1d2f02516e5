use std::time::Instant;

use proptest::prelude::*;

use super::*;
use crate::derive::History;
use crate::sample::testing::{any_devices, devices, empty, full, vcpu_times};
use crate::sample::{DISK_COUNTERS, DISK_FIELDS, NIC_COUNTERS, NIC_FIELDS};

const ALL: Measurements = Measurements {
    metrics: true,
    features: true,
    devices: true,
    totals: true,
    ..Measurements::NONE
};

const VM: &str = ",VMID=1,name=test,uuid=6695eb01-f6a4-8304-79aa-97f2502e193f";

fn written(
    wanted: &Measurements,
    history: &mut History,
    sample: &Sample,
    timestamp: i64,
) -> String {
    let mut buffer = String::new();
    let (vm, derived) = history.update(sample);
    write(&mut buffer, wanted, sample, vm, &derived, timestamp);
    buffer
}

/// The lines of one sample, the first of its run.
fn first(sample: &Sample) -> String {
    written(&ALL, &mut History::default(), sample, 17)
}

#[test]
fn every_field_stands_under_its_name() {
    let expected = format!(
        "vm_metrics{VM} state=\"running\",state_reason=\"unpaused\",cpu_count=2i,memory_max_kb=2001i,\
         memory_used_kb=2002i,cputime_ns=1001i,answers=1i,uptime_sec=1004i 17\n\
         vm_devices{VM},devtype=nic,device=vnet0 rxbytes=31i,rxpackets=32i,rxerrors=33i,rxdrops=34i,\
         txbytes=35i,txpackets=36i,txerrors=37i,txdrops=38i 17\n\
         vm_devices{VM},devtype=disk,device=vda rd_req=41i,rd_bytes=42i,wr_reqs=43i,wr_bytes=44i,errors=45i,\
         rd_time_ns=46i,wr_time_ns=47i,fl_time_ns=48i,fl_reqs=49i,capacity_bytes=50i,allocation_bytes=51i,\
         physical_bytes=52i,\
         io_error_events=53i 17\n\
         vm_totals{VM} net_rxbytes=31i,net_rxpackets=32i,net_rxerrors=33i,net_rxdrops=34i,\
         net_txbytes=35i,net_txpackets=36i,net_txerrors=37i,net_txdrops=38i,\
         disk_rd_req=41i,disk_rd_bytes=42i,disk_wr_reqs=43i,disk_wr_bytes=44i,disk_errors=45i,\
         memactual=2003i,memrss=2004i,memavailable=2005i,memusable=2006i,memswap_in=2007i,\
         memswap_out=2008i,memmajor_fault=2009i,memminor_fault=2010i,memdisk_cache=2011i,\
         memunused=2012i,memstats_age_sec=2013i,timeusr=1002i,timesys=1003i,cpus=2i,cputime=1001i,vcpu_time_ns=603i,vcpu_delay_ns=803i,\
         cpu_periods=501i,cpu_throttled_periods=502i,cpu_throttled_ns=503i,state=1i,state_reason=5i,\
         disk_rd_time_ns=46i,disk_wr_time_ns=47i,disk_fl_time_ns=48i,disk_fl_reqs=49i,disk_capacity_bytes=50i,\
         disk_allocation_bytes=51i,disk_physical_bytes=52i 17\n"
    );
    assert_eq!(first(&full(Instant::now())), expected);
}

#[test]
fn features_stand_under_their_names_from_the_second_gather_on() {
    let at = Instant::now();
    let later = at + std::time::Duration::from_secs(10);
    let mut history = History::default();
    let only = Measurements {
        features: true,
        ..Measurements::NONE
    };
    assert_eq!(written(&only, &mut history, &full(at), 17), "");
    let mut second = full(later);
    second.memory.current = Some(2012);
    second.memory.available = Some(2000);
    second.memory.usable = Some(500);
    second.cpu.time = Some(1001 + 5_000_000_000);
    second.vcpu_times = Some(vcpu_times(later, [(0, 302, 401), (5, 303, 1_000_000_402)]));
    let nics = &mut second.nics.as_mut().unwrap().list[0].counters;
    *nics = [41, 52, 33, 34, 65, 76, 37, 38].map(Some);
    let disks = &mut second.disks.as_mut().unwrap().list[0].counters;
    let times = [100_000_046, 210_000_047, 50_000_048];
    disks[..5].copy_from_slice(&[91, 102, 113, 124, 45].map(Some));
    disks[5..8].copy_from_slice(&times.map(Some));
    disks[8] = Some(149);
    assert_eq!(
        written(&only, &mut history, &second, 27),
        format!(
            "vm_features{VM} memory_rate_kb_per_sec=1,memory_angle_deg=45,cpu_usage_percent=25,\
             cpu_steal_percent=5,memory_guest_used_percent=75,net_rxbytes_rate=1,net_txbytes_rate=3,net_rxpackets_rate=2,net_txpackets_rate=4,\
             disk_rd_req_rate=5,disk_rd_bytes_rate=6,disk_wr_reqs_rate=7,disk_wr_bytes_rate=8,\
             disk_rd_latency_ms=2,disk_wr_latency_ms=3,disk_fl_latency_ms=0.5 27\n"
        )
    );
}

#[test]
fn a_disk_has_its_latencies_from_the_second_gather_on() {
    let at = Instant::now();
    let mut history = History::default();
    let latencies = |lines: &str| -> Vec<String> {
        let fields = lines.split([',', ' ', '\n']);
        let latencies = fields.filter(|field| field.contains("latency"));
        latencies.map(str::to_owned).collect()
    };
    assert_eq!(
        latencies(&written(&ALL, &mut history, &full(at), 17)),
        [""; 0]
    );
    let mut second = full(at + std::time::Duration::from_secs(10));
    let disk = &mut second.disks.as_mut().unwrap().list[0];
    disk.counters[0] = Some(41 + 4);
    disk.counters[5] = Some(46 + 5_000_000);
    let disks = Measurements {
        features: false,
        totals: false,
        ..ALL
    };
    let lines = written(&disks, &mut history, &second, 27);
    assert_eq!(latencies(&lines), ["rd_latency_ms=1.25"], "no write ended");
    assert!(lines.contains(",physical_bytes=52i,rd_latency_ms=1.25,io_error_events=53i 27\n"));
}

#[test]
fn nothing_reported_is_no_line() {
    let mut history = History::default();
    let sample = empty(Instant::now());
    assert_eq!(written(&ALL, &mut history, &sample, 17), "");
    assert_eq!(written(&ALL, &mut history, &sample, 18), "");
}

#[test]
fn what_was_not_reported_is_left_out_of_its_line() {
    let mut sample = full(Instant::now());
    sample.state = None;
    sample.memory.maximum = None;
    sample.memory.rss = None;
    sample.cpu.user = None;
    sample.vcpus = None;
    sample.nics.as_mut().unwrap().list[0].counters[2] = None;
    sample.disks.as_mut().unwrap().list[0].counters[4] = None;
    let lines = first(&sample);
    for absent in [
        "state=",
        "memory_max_kb",
        "memrss",
        "timeusr",
        "cpu_count",
        "cpus",
        "rxerrors",
        "errors=",
    ] {
        for line in lines.lines() {
            let fields = line.split_once(' ').unwrap().1;
            let mut keys = fields.split(',');
            assert!(
                !keys.any(|field| field.starts_with(absent)),
                "{absent}: {line}"
            );
        }
    }
    for present in [
        "memory_used_kb=2002i",
        "timesys=1003i",
        "rxdrops=34i",
        "wr_bytes=44i",
    ] {
        assert!(lines.contains(present), "{present}");
    }
    assert_eq!(lines.lines().count(), 4);
}

#[test]
fn a_device_without_a_counter_or_a_name_has_no_line() {
    let mut sample = full(Instant::now());
    sample.nics.as_mut().unwrap().list[0].name = None;
    let disk = &mut sample.disks.as_mut().unwrap().list[0];
    (disk.counters, disk.io_errors) = ([None; DISK_COUNTERS], None);
    let lines = first(&sample);
    assert!(!lines.contains("vm_devices"), "{lines}");
    assert!(
        !lines.contains("net_") && !lines.contains("disk_rd"),
        "{lines}"
    );
}

#[test]
fn what_is_beyond_63_bits_is_clamped() {
    let mut sample = full(Instant::now());
    sample.cpu.time = Some(u64::MAX);
    sample.memory.rss = Some(i64::MAX as u64 + 1);
    sample.disks.as_mut().unwrap().list[0].counters[1] = Some(u64::MAX);
    let lines = first(&sample);
    for key in [
        "cputime_ns",
        "cputime",
        "memrss",
        "rd_bytes",
        "disk_rd_bytes",
    ] {
        assert!(
            lines.contains(&format!("{key}=9223372036854775807i")),
            "{key}: {lines}"
        );
    }
    assert!(!lines.contains("=-"), "{lines}");
}

#[test]
fn only_the_wanted_measurements_are_written() {
    let sample = full(Instant::now());
    for (wanted, names) in [
        (
            Measurements {
                metrics: false,
                ..ALL
            },
            vec!["vm_devices", "vm_devices", "vm_totals"],
        ),
        (
            Measurements {
                devices: false,
                ..ALL
            },
            vec!["vm_metrics", "vm_totals"],
        ),
        (
            Measurements {
                totals: false,
                ..ALL
            },
            vec!["vm_metrics", "vm_devices", "vm_devices"],
        ),
    ] {
        let lines = written(&wanted, &mut History::default(), &sample, 1);
        let found: Vec<_> = lines
            .lines()
            .map(|l| l.split_once(',').unwrap().0)
            .collect();
        assert_eq!(found, names);
    }
}

#[test]
fn a_renamed_vm_has_its_new_name_and_goes_on() {
    let at = Instant::now();
    let mut history = History::default();
    written(&ALL, &mut history, &full(at), 17);
    let mut renamed = full(at + std::time::Duration::from_secs(1));
    renamed.name = "new name".into();
    let lines = written(&ALL, &mut history, &renamed, 27);
    assert_eq!(lines.lines().count(), 5, "rates too: {lines}");
    for line in lines.lines() {
        assert!(line.contains(r",name=new\ name,uuid="), "{line}");
    }
}

#[test]
fn a_vm_of_whose_name_nothing_can_be_written_is_called_by_its_uuid() {
    let mut sample = full(Instant::now());
    sample.name = r"\\".into();
    for line in first(&sample).lines() {
        assert!(
            line.contains(",name=6695eb01-f6a4-8304-79aa-97f2502e193f,uuid=6695eb01"),
            "{line}"
        );
    }
}

/// Every field of that key's integer, by line.
fn ints(lines: &str, of: &str, key: &str) -> Vec<i128> {
    let lines = lines.lines().filter(|line| line.contains(of));
    lines
        .filter_map(|line| {
            let fields = line.split(' ').nth(1)?;
            let mut fields = fields.split(',').filter_map(|field| field.split_once('='));
            let (_, value) = fields.find(|(name, _)| *name == key)?;
            value.strip_suffix('i')?.parse().ok()
        })
        .collect()
}

proptest! {
    /// The sum rules, read off the lines of a whole run of gathers.
    #[test]
    fn totals_are_the_sum_of_the_device_lines_or_are_not_written(
        gathers in prop::collection::vec(
            (any_devices::<NIC_COUNTERS>(&["vnet0", "vnet1", "vnet2"]), any_devices::<DISK_COUNTERS>(&["vda", "vdb", "hdc"])),
            1..8,
        )
    ) {
        let at = Instant::now();
        let mut history = History::default();
        for (nics, disks) in gathers {
            let mut sample = empty(at);
            sample.nics = nics.map(|list| devices(at, list));
            sample.disks = disks.map(|list| devices(at, list));
            let lines = written(&ALL, &mut history, &sample, 1);
            prop_assert!(!lines.contains("=-"), "{}", lines);
            for field in NIC_FIELDS {
                check(&lines, ",devtype=nic,", field, &format!("net_{field}"), sample.nics.as_ref())?;
            }
            for field in DISK_FIELDS {
                check(&lines, ",devtype=disk,", field, &format!("disk_{field}"), sample.disks.as_ref())?;
            }
        }
    }
}

fn check<const N: usize>(
    lines: &str,
    of: &str,
    field: &str,
    total: &str,
    devices: Option<&crate::sample::Devices<N>>,
) -> Result<(), TestCaseError> {
    let parts = ints(lines, of, field);
    let sum = ints(lines, "vm_totals,", total);
    prop_assert!(sum.len() <= 1);
    let count = devices.map(|devices| devices.list.len());
    match sum.first() {
        Some(sum) => {
            let expected: i128 = parts.iter().sum();
            prop_assert_eq!(*sum, expected.min(i64::MAX.into()), "{}", lines);
            prop_assert!(count.is_some(), "not reported, yet summed: {}", lines);
            prop_assert!(
                !parts.is_empty() || count == Some(0),
                "of nothing: {}",
                lines
            );
        }
        // Only a device that did not report it stands in the way of a sum.
        None => prop_assert!(
            count.is_none_or(|count| parts.len() < count),
            "all reported it, yet no sum: {}",
            lines
        ),
    }
    Ok(())
}

#[test]
fn each_vcpu_has_a_line_where_that_is_wanted() {
    let mut sample = full(Instant::now());
    let times = sample.vcpu_times.as_mut().unwrap();
    let mut list = times.list.to_vec();
    (list[1].delay, list[1].state, list[1].wait) = (None, Some(1), Some(502));
    times.list = list.into();
    let wanted = Measurements { vcpus: true, ..ALL };
    let lines = written(&wanted, &mut History::default(), &sample, 17);
    let vcpus: Vec<&str> = lines
        .lines()
        .filter(|l| l.starts_with("vm_vcpus"))
        .collect();
    let expected = [
        format!("vm_vcpus{VM},vcpu=0 time_ns=301i,delay_ns=401i 17"),
        format!("vm_vcpus{VM},vcpu=5 time_ns=302i,state=1i,wait_ns=502i 17"),
    ];
    assert_eq!(vcpus, expected);
    // A sum lacks what one of them lacks.
    assert!(lines.contains("vcpu_time_ns=603i,cpu_periods"), "{lines}");
}

#[test]
fn each_resource_and_type_has_a_line_where_that_is_wanted() {
    let mut sample = full(Instant::now());
    let mut second = sample.pressure[0];
    (second.resource, second.kind, second.avg10) = ("cpu", "full", 0.0);
    sample.pressure.push(second);
    let wanted = |pressure| {
        let lines = written(
            &Measurements { pressure, ..ALL },
            &mut History::default(),
            &sample,
            17,
        );
        let lines = lines.lines().filter(|l| l.starts_with("vm_pressure"));
        lines.map(str::to_owned).collect::<Vec<_>>()
    };
    let expected = [
        format!(
            "vm_pressure{VM},resource=io,type=some avg10=60.5,avg60=61,avg300=62.25,total_us=504i 17"
        ),
        format!(
            "vm_pressure{VM},resource=cpu,type=full avg10=0,avg60=61,avg300=62.25,total_us=504i 17"
        ),
    ];
    assert_eq!(wanted(true), expected);
    assert!(wanted(false).is_empty());
}
