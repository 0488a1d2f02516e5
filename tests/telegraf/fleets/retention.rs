//! Retention and downsampling on a real InfluxDB 1.x.

use super::{blocks, spec, stanza, telegraf};
use crate::agent::Config;
use crate::support::influxd::{Influxd, influx};
use crate::support::lab::Lab;
use crate::support::lines::Line;
use crate::support::{run, succeed, turn};
use rustix::process::Signal;
use std::collections::BTreeMap;
use std::time::Duration;

#[test]
fn retention_and_downsampling_do_what_they_say() {
    let _turn = turn::share();
    let lab = Lab::start();
    let _influxd = Influxd::start(&lab);
    let blocks = blocks("influxql-setup");
    let (setup, query) = (&blocks[0], &blocks[1]);
    // The same with short times: a second stands for a minute.
    assert!(setup.contains("time(5m)") && setup.contains("FOR 15m"));
    for statement in setup
        .replace("time(5m)", "time(5s)")
        .replace("FOR 15m", "FOR 15s")
        .split(";\n")
        .filter(|text| !text.trim().is_empty())
    {
        let mut command = lab.command("influx");
        let said = succeed(command.args(["-execute", &statement.replace('\n', " ")]));
        assert_eq!(said.trim(), "", "{statement}");
    }
    let policies = influx(&lab, "SHOW RETENTION POLICIES ON telegraf");
    let policies: Vec<_> = policies
        .iter()
        .map(|(name, row)| {
            [
                name,
                &row["duration"],
                &row["shardGroupDuration"],
                &row["default"],
            ]
        })
        .collect();
    assert_eq!(
        policies,
        [
            ["recent", "168h0m0s", "24h0m0s", "true"],
            ["long", "17472h0m0s", "672h0m0s", "false"]
        ]
    );

    let vm = lab.create(&spec());
    vm.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    vm.guest(
        "(while :; do ping -c 1 192.168.77.1; dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct; \
         sleep 0.3; done) </dev/null >/dev/null 2>&1 &",
    );
    let mut config = Config::new(&[]);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    let influxdb = stanza("[[outputs.influxdb]]");
    config.extra = influxdb[influxdb.find("[[outputs").unwrap()..].to_owned();
    let mut telegraf = telegraf(&lab, "telegraf", |dir| config.toml(dir));
    telegraf.gathers(13);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    // The query for the last bin runs after the bin has ended.
    std::thread::sleep(Duration::from_secs(7));

    // The last line of each bin is there, field by field, without VMID.
    let mut checked = 0;
    for (table, of) in [
        ("vm_devices", "rxbytes"),
        ("vm_devices", "wr_bytes"),
        ("vm_totals", "cputime"),
        ("vm_totals", "state"),
    ] {
        let long = influx(
            &lab,
            &format!("SELECT {of}, uuid, device FROM telegraf.long.{table} WHERE {of} >= 0"),
        );
        let device = |line: &Line| line.tags.get("device").cloned().unwrap_or_default();
        let mut expected = BTreeMap::new();
        for line in telegraf
            .out()
            .iter()
            .filter(|line| line.measurement == table)
        {
            if let Some(value) = line.int(of) {
                let bin = line.timestamp / 5_000_000_000 * 5_000_000_000;
                expected.insert((bin.to_string(), device(line)), value.to_string());
            }
        }
        assert!(expected.len() >= 2, "{expected:?}");
        let found: BTreeMap<_, _> = long
            .into_iter()
            .map(|(_, row)| {
                assert_eq!(row["uuid"], vm.uuid());
                (
                    (row["time"].clone(), row["device"].clone()),
                    row[of].clone(),
                )
            })
            .collect();
        assert_eq!(found, expected, "{table}.{of}");
        checked += found.len();
    }
    assert!(checked > 12, "{checked}");
    let keys =
        succeed(
            lab.command("influx")
                .args(["-database", "telegraf", "-execute", "SHOW SERIES"]),
        );
    assert!(keys.contains("VMID="), "the full series have it");
    // The page's query, also with short times; the tags are one column with many commas.
    let query = query
        .trim()
        .trim_end_matches(';')
        .replace("time(1h)", "time(5s)");
    let mut command = lab.command("influx");
    let said = succeed(command.args([
        "-database",
        "telegraf",
        "-format",
        "csv",
        "-execute",
        &query,
    ]));
    let rates: Vec<f64> = said
        .lines()
        .filter_map(|line| line.rsplit(',').next()?.parse().ok())
        .collect();
    assert!(
        rates.len() >= 4 && rates.iter().all(|rate| *rate >= 0.0),
        "{said}"
    );
    assert!(rates.iter().any(|rate| *rate > 10.0), "{said}");

    // Rows older than a week are rejected by the full series and accepted by the long ones.
    let insert = |policy: &str| {
        let line = format!(
            "INSERT INTO {policy} vm_devices,host=kvm01,device=old rxbytes=1i {}",
            0
        );
        let now = std::time::SystemTime::now()
            .duration_since(std::time::UNIX_EPOCH)
            .unwrap();
        let old = now.as_nanos() - 8 * 86_400 * 1_000_000_000;
        let line = line.replace(" 0", &format!(" {old}"));
        run(lab
            .command("influx")
            .args(["-database", "telegraf", "-execute", &line]))
    };
    let refused = insert("recent");
    let said = String::from_utf8_lossy(&refused.stderr) + String::from_utf8_lossy(&refused.stdout);
    assert!(
        said.contains("points beyond retention policy dropped"),
        "{said}"
    );
    assert!(insert("long").status.success());
    assert_eq!(
        influx(
            &lab,
            "SELECT rxbytes FROM telegraf.long.vm_devices WHERE device = 'old'"
        )
        .len(),
        1
    );
}
