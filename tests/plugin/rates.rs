//! vm_features and timestamps over several gathers of one process.
//!
//! The test driver's device counters follow the wall clock (rx_bytes: 100,000 a second for each NIC), so the
//! rate is known in advance, up to the exact time of the calls.

use crate::support;
use crate::support::lines::{Line, of, one};
use crate::support::node::{self, Domain, disk, nic};
use crate::support::plugin::Plugin;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The field of a rate, and the sum in vm_totals from which it is computed.
const RATES: [(&str, &str); 8] = [
    ("net_rxbytes_rate", "net_rxbytes"),
    ("net_txbytes_rate", "net_txbytes"),
    ("net_rxpackets_rate", "net_rxpackets"),
    ("net_txpackets_rate", "net_txpackets"),
    ("disk_rd_req_rate", "disk_rd_req"),
    ("disk_rd_bytes_rate", "disk_rd_bytes"),
    ("disk_wr_reqs_rate", "disk_wr_reqs"),
    ("disk_wr_bytes_rate", "disk_wr_bytes"),
];

fn close(a: f64, b: f64) -> bool {
    (a - b).abs() <= 1e-9 * a.abs().max(b.abs())
}

/// A gather, and the times before its begin and after its end.
struct TimedGather {
    from: Instant,
    to: Instant,
    lines: Vec<Line>,
}

fn gather(plugin: &mut Plugin) -> TimedGather {
    let from = Instant::now();
    let lines = plugin.gather();
    let to = Instant::now();
    TimedGather { from, to, lines }
}

#[test]
fn rates_are_what_moved_over_the_time_that_passed() {
    let devices = [
        disk("disk", "vda"),
        disk("disk", "vdb"),
        disk("lun", "sdl"),
        nic(Some("tapa")),
        nic(Some("tapb")),
    ];
    let file = node::write(&[
        Domain {
            devices: devices.concat(),
            vcpus: (3, 4),
            ..Domain::new(1, "moving")
        },
        Domain::new(2, "bare"),
    ]);
    let (mut plugin, _config) = Plugin::configured(&node::uri(&file), "");
    let mut last = gather(&mut plugin);
    assert_eq!(of(&last.lines, "vm_features", "moving"), [] as [&Line; 0]);
    for pause in [1500, 700, 2500] {
        std::thread::sleep(Duration::from_millis(pause));
        let now = gather(&mut plugin);
        // The measured time is between the pause alone and the pause with both gathers.
        let shortest = (now.from - last.to).as_secs_f64();
        let longest = (now.to - last.from).as_secs_f64();
        let features = one(&now.lines, "vm_features", "moving");
        assert_eq!(features.fields.len(), 11, "{features:?}");
        let total = |gather: &TimedGather, field| {
            let line = one(&gather.lines, "vm_totals", "moving");
            line.int(field).unwrap()
        };
        let mut times = Vec::new();
        for (rate, sum) in RATES {
            let moved = (total(&now, sum) - total(&last, sum)) as f64;
            let rate = features.float(rate).unwrap();
            assert!(moved > 0.0 && rate > 0.0, "{sum}: {moved} moved, {rate}");
            times.push(moved / rate);
            assert!(
                (shortest..=longest).contains(&(moved / rate)),
                "{sum}: {moved} at {rate} a second is no time between {shortest} and {longest}"
            );
        }
        // All network rates have the same time, and so have all disk rates.
        for group in [&times[..4], &times[4..]] {
            assert!(group.iter().all(|&time| close(time, group[0])), "{times:?}");
        }
        // The driver keeps these counters constant: the zeros were measured.
        for field in [
            "memory_rate_kb_per_sec",
            "memory_angle_deg",
            "cpu_usage_percent",
        ] {
            assert_eq!(features.float(field), Some(0.0), "{field}");
        }
        let bare = one(&now.lines, "vm_features", "bare");
        assert_eq!(bare.float("net_rxbytes_rate"), Some(0.0));
        last = now;
    }
    assert_eq!(plugin.stderr(), "");
}

#[test]
fn twenty_gathers_in_haste_share_no_timestamp() {
    for precision in ["1s", "1ms", "1us", "1ns"] {
        let setting = format!("timestamp_precision = '{precision}'");
        let (mut plugin, _config) = Plugin::configured("test:///default", &setting);
        for gather in 1..=20 {
            plugin.newline();
            // The next newline is sent only after the gather was written: otherwise the requests would be
            // merged.
            support::wait_for("a gather", Duration::from_secs(30), || {
                let written = plugin.stdout().matches("vm_totals,").count();
                assert!(written <= gather);
                (written == gather).then_some(())
            });
        }
        let text = plugin.stdout();
        let mut timestamps: Vec<i64> = support::lines::lines(&text)
            .iter()
            .map(|line| line.timestamp)
            .collect();
        // Two devices, metrics, totals and, but for the first gather, features.
        assert_eq!(timestamps.len(), 20 * 5 - 1);
        assert!(timestamps.is_sorted(), "{timestamps:?}");
        timestamps.dedup();
        assert_eq!(timestamps.len(), 20, "{precision}: {timestamps:?}");
    }
}

#[test]
fn a_timestamp_is_the_time_of_the_request_cut_to_the_precision() {
    let now = || {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        i64::try_from(now.as_nanos()).unwrap()
    };
    for (setting, step) in [
        ("", 1_000_000_000),
        ("timestamp_precision = '1s'", 1_000_000_000),
        ("timestamp_precision = '1ms'", 1_000_000),
        ("timestamp_precision = '1us'", 1_000),
        ("timestamp_precision = '1ns'", 1),
    ] {
        let (mut plugin, _config) = Plugin::configured("test:///default", setting);
        for _ in 0..3 {
            let before = now();
            let lines = plugin.gather();
            let after = now();
            let timestamp = lines[0].timestamp;
            assert!(lines.iter().all(|line| line.timestamp == timestamp));
            assert_eq!(timestamp % step, 0, "{setting}: {timestamp}");
            assert!(
                (before - before % step..=after).contains(&timestamp),
                "{setting}: {before} {timestamp} {after}"
            );
            // Without a pause, timestamps in whole seconds would not differ, and would be made to.
            if step == 1_000_000_000 {
                std::thread::sleep(Duration::from_millis(1100));
            }
        }
    }
}
