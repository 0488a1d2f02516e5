//! Retention and downsampling on a real InfluxDB 1.x.

use super::{blocks, spec, telegraf};
use crate::agent::Config;
use crate::support::influxd::{Influxd, influx};
use crate::support::lab::Lab;
use crate::support::{run, succeed, turn};
use rustix::process::Signal;
use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::Output;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

const DAY_NS: u128 = 86_400 * 1_000_000_000;

fn file(name: &str) -> PathBuf {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("telegraf/influxdb");
    folder.join(format!("{name}.influxql"))
}

/// `influx < file`, as the file itself says. Returns what it prints, and whether it succeeded.
fn feed(lab: &Lab, file: &Path) -> (String, bool) {
    let mut command = lab.command("influx");
    let Output {
        status,
        stdout,
        stderr,
    } = run(command.stdin(File::open(file).unwrap()));
    let said = String::from_utf8_lossy(&stdout) + String::from_utf8_lossy(&stderr);
    (said.trim().to_owned(), status.success())
}

/// The same for a file that succeeds without a word.
fn feed_silently(lab: &Lab, file: &Path) {
    assert_eq!(feed(lab, file), (String::new(), true), "{}", file.display());
}

/// The retention policies of a database: name, duration, duration of a shard, whether it is the default.
fn policies(lab: &Lab, database: &str) -> Vec<[String; 4]> {
    let rows = influx(lab, &format!("SHOW RETENTION POLICIES ON {database}"));
    let columns = ["duration", "shardGroupDuration", "default"];
    rows.into_iter()
        .map(|(name, row)| {
            let [duration, shard, default] = columns.map(|column| row[column].clone());
            [name, duration, shard, default]
        })
        .collect()
}

/// The integer fields of a measurement in docs/metrics.md. Its floats are rates and latencies, which follow from the
/// counters.
fn integers(measurement: &str) -> BTreeSet<String> {
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/metrics.md");
    let page = std::fs::read_to_string(page).unwrap();
    let (_, section) = page.split_once(&format!("\n## {measurement}\n")).unwrap();
    let section = section.split("\n## ").next().unwrap();
    let field = |row: &str| {
        let cells: Vec<_> = row.split('|').map(str::trim).collect();
        let kind = cells.iter().position(|cell| *cell == "i")?;
        Some(cells[kind - 1].to_owned())
    };
    section.lines().filter_map(field).collect()
}

/// No new field is forgotten: what the files do not keep is deleted after a week.
#[test]
fn the_files_keep_every_counter_size_and_state() {
    let means = [
        "memactual",
        "memrss",
        "memavailable",
        "memusable",
        "memdisk_cache",
        "memunused",
    ];
    for name in ["new-database", "existing-database", "history"] {
        let text = std::fs::read_to_string(file(name)).unwrap();
        for measurement in ["vm_devices", "vm_totals"] {
            let mut expected = integers(measurement);
            assert!(expected.len() >= 20, "{measurement}: {expected:?}");
            // How old the guest's report was says nothing about five minutes.
            expected.remove("memstats_age_sec");
            let into = format!("INTO \"telegraf\".\"long\".\"{measurement}\"");
            let (select, _) = text.split_once(&into).unwrap();
            let (_, select) = select.rsplit_once("SELECT ").unwrap();
            let kept = select.split(',').map(|kept| {
                let kept = kept.trim();
                let field = kept.split('"').nth(1).unwrap();
                let function = if means.contains(&field) {
                    "MEAN"
                } else {
                    "LAST"
                };
                assert_eq!(kept, format!("{function}(\"{field}\") AS \"{field}\""));
                field.to_owned()
            });
            let kept: BTreeSet<_> = kept.collect();
            assert_eq!(kept, expected, "{name}: {measurement}");
        }
    }
}

const LONG: [&str; 4] = ["long", "17472h0m0s", "672h0m0s", "false"];

/// As an operator feeds the files, and what Telegraf does to the database.
#[test]
fn the_files_are_fed_to_a_new_and_to_an_existing_database() {
    let _turn = turn::share();
    let lab = Lab::start();
    let _influxd = Influxd::start(&lab);
    let queries = || {
        let mut command = lab.command("influx");
        let said = succeed(command.args(["-execute", "SHOW CONTINUOUS QUERIES"]));
        ["devices_long", "totals_long"].map(|name| said.contains(&format!("{name} ")))
    };
    // Telegraf's own statement at its start, which changes nothing of a database that is there.
    let starts = || influx(&lab, "CREATE DATABASE \"telegraf\"");

    feed_silently(&lab, &file("new-database"));
    starts();
    // From another machine: the client takes no password at its prompt, for its input is the file.
    let commands = blocks("sh");
    let command = commands.iter().find(|text| text.contains("-host influxdb"));
    let command = command
        .unwrap()
        .replace("influxdb.example.org", "127.0.0.1")
        .replace("new-database.influxql", r#""$0""#);
    let mut bash = lab.command("bash");
    let (reader, mut writer) = std::io::pipe().unwrap();
    writer.write_all(b"pass word\n").unwrap();
    drop(writer);
    bash.args(["-ec", &command]).arg(file("new-database"));
    assert_eq!(succeed(bash.stdin(reader)).trim(), "");
    let recent = ["recent", "168h0m0s", "24h0m0s", "true"];
    assert_eq!(policies(&lab, "telegraf"), [recent, LONG]);
    assert_eq!(queries(), [true, true]);

    influx(&lab, "DROP DATABASE telegraf");
    starts();
    assert_eq!(queries(), [false, false]);
    let (said, succeeded) = feed(&lab, &file("new-database"));
    let expected = "retention policy conflicts with an existing policy";
    assert!(!succeeded && said.contains(expected), "{said}");
    assert_eq!(queries(), [false, false], "nothing was done by halves");
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    let old = now.as_nanos() - 20 * DAY_NS;
    for line in [
        "vm_devices,host=kvm01,uuid=u,name=n,devtype=nic,device=vnet0,VMID=1 rxbytes=5i",
        "vm_totals,host=kvm01,uuid=u,name=n,VMID=1 cputime=7i",
    ] {
        influx(&lab, &format!("INSERT {line} {old}"));
    }
    let (said, succeeded) = feed(&lab, &file("history"));
    assert!(succeeded && !said.contains("ERR"), "{said}");
    feed_silently(&lab, &file("existing-database"));
    starts();
    feed_silently(&lab, &file("existing-database"));
    let autogen = ["autogen", "168h0m0s", "24h0m0s", "true"];
    assert_eq!(policies(&lab, "telegraf"), [autogen, LONG]);
    assert_eq!(queries(), [true, true]);
    let bin = old / 300_000_000_000 * 300_000_000_000;
    for (table, field, value) in [
        ("vm_devices", "rxbytes", "5"),
        ("vm_totals", "cputime", "7"),
    ] {
        let rows = influx(&lab, &format!("SELECT {field} FROM telegraf.long.{table}"));
        let row = (rows[0].1["time"].as_str(), rows[0].1[field].as_str());
        assert_eq!(row, (bin.to_string().as_str(), value));
    }
    // Both files compute the same.
    let text = |name| std::fs::read_to_string(file(name)).unwrap();
    let queries = |text: &str| text[text.find("CREATE CONTINUOUS").unwrap()..].to_owned();
    let new = queries(&text("new-database")).replace("\"recent\"", "\"autogen\"");
    assert!(queries(&text("existing-database")).starts_with(&new));
}

/// The row of docs/troubleshooting.md for a database of Telegraf's that grows.
#[test]
fn the_command_against_a_growing_database_changes_the_default_policy() {
    let _turn = turn::share();
    let lab = Lab::start();
    let _influxd = Influxd::start(&lab);
    influx(&lab, "CREATE DATABASE telegraf");
    let page = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/troubleshooting.md");
    let page = std::fs::read_to_string(page).unwrap();
    let mut rows = page.lines();
    let row = rows
        .find(|row| row.starts_with("| disk space growing"))
        .unwrap();
    let mut code = row.split('`').skip(1).step_by(2);
    let command = code.find(|code| code.starts_with("influx ")).unwrap();
    succeed(lab.command("sh").args(["-ec", command]));
    let expected = ["autogen", "720h0m0s", "24h0m0s", "true"];
    assert_eq!(policies(&lab, "telegraf"), [expected]);
}

/// One Telegraf writes to a new database and to one that it made itself.
#[test]
fn retention_and_downsampling_do_what_they_say() {
    let _turn = turn::share();
    let lab = Lab::start();
    let _influxd = Influxd::start(&lab);
    // The same files with short times: a second stands for a minute.
    let short = |name: &str, database: &str| {
        let text = std::fs::read_to_string(file(name)).unwrap();
        assert!(text.contains("time(5m)") && text.contains("FOR 15m"));
        let text = text
            .replace("time(5m)", "time(5s)")
            .replace("FOR 15m", "FOR 15s")
            .replace("\"telegraf\"", &format!("\"{database}\""));
        let path = lab.dir().join(name);
        std::fs::write(&path, text).unwrap();
        path
    };
    feed_silently(&lab, &short("new-database", "telegraf"));

    let vm = lab.create(&spec());
    vm.guest("ip address add 192.168.77.10/24 dev eth0; ip link set eth0 up");
    vm.guest(
        "(while :; do ping -c 1 192.168.77.1; dd if=/dev/zero of=/dev/vda bs=4k count=1 oflag=direct; \
         sleep 0.3; done) </dev/null >/dev/null 2>&1 &",
    );
    let mut config = Config::new(&[]);
    config.execd = "[inputs.execd.tags]\nhost = \"kvm01\"\n".into();
    // That of docs/outputs.md, by which Telegraf makes the database.
    let own = |text: &String| text.starts_with("[[outputs.influxdb]]");
    let influxdb = blocks("toml").into_iter().find(own).unwrap();
    let influxdb = influxdb.replace("influxdb.example.org", "127.0.0.1");
    let other = influxdb.replace("\"telegraf\"", "\"other\"");
    config.extra = format!("{influxdb}\n{other}");
    let mut telegraf = telegraf(&lab, "telegraf", |dir| config.toml(dir));
    telegraf.gathers(2);
    feed_silently(&lab, &short("existing-database", "other"));
    let fed = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
    telegraf.gathers(13);
    let plugin = telegraf.plugin_pid();
    telegraf.signal(Signal::TERM);
    telegraf.ends(plugin);
    assert!(!telegraf.log().contains("E!"), "{}", telegraf.log());
    // The query for the last bin runs after the bin has ended.
    std::thread::sleep(Duration::from_secs(7));

    // The last line of each bin is there, field by field, without VMID.
    let mut checked = 0;
    // The continuous queries begin when they are made.
    for (database, since) in [("telegraf", 0), ("other", fed.as_nanos())] {
        for (table, of) in [
            ("vm_devices", "rxbytes"),
            ("vm_devices", "wr_bytes"),
            ("vm_devices", "wr_time_ns"),
            ("vm_totals", "cputime"),
            ("vm_totals", "state"),
        ] {
            let query =
                format!("SELECT {of}, uuid, device FROM {database}.long.{table} WHERE {of} >= 0");
            let found = influx(&lab, &query).into_iter().map(|(_, row)| {
                assert_eq!(row["uuid"], vm.uuid());
                let time: i64 = row["time"].parse().unwrap();
                ((time, row["device"].clone()), row[of].clone())
            });
            let mut found: BTreeMap<_, _> = found.collect();
            let mut expected = BTreeMap::new();
            let out = telegraf.out();
            for line in out.iter().filter(|line| line.measurement == table) {
                if let Some(value) = line.int(of) {
                    let bin = line.timestamp / 5_000_000_000 * 5_000_000_000;
                    let device = line.tags.get("device").cloned().unwrap_or_default();
                    expected.insert((bin, device), value.to_string());
                }
            }
            for bins in [&mut found, &mut expected] {
                bins.retain(|(bin, _), _| u128::from(bin.unsigned_abs()) >= since);
            }
            assert!(expected.len() >= 2, "{expected:?}");
            assert_eq!(found, expected, "{database}: {table}.{of}");
            checked += found.len();
        }
    }
    assert!(checked > 20, "{checked}");
    let keys =
        succeed(
            lab.command("influx")
                .args(["-database", "telegraf", "-execute", "SHOW SERIES"]),
        );
    assert!(keys.contains("VMID="), "the full series have it");
    // The page's query, also with short times; the tags are one column with many commas.
    let query = blocks("influxql-setup")[0]
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
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap();
        let old = now.as_nanos() - 8 * DAY_NS;
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
