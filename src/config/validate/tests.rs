use super::*;
use crate::config::file::KEYS;
use crate::config::{SAMPLE, Uri, UriOrigin};
use crate::description::{Place, Step, WantedValue};

fn read(text: &str) -> Result<Settings, String> {
    let document = Document {
        path: "f.toml".into(),
        text: text.to_owned(),
    };
    let settings = File::parse(&document).and_then(|file| Settings::from_file(file, &document));
    settings
        .map(|(settings, _)| settings)
        .map_err(|error| error.to_string())
}

#[test]
fn an_empty_file_is_the_defaults() {
    assert_eq!(read(""), Ok(Settings::default()));
    assert_eq!(read(SAMPLE), Ok(Settings::default()));
}

#[test]
fn the_sample_shows_every_key_with_its_default() {
    let mut text = String::new();
    for line in SAMPLE
        .lines()
        .filter(|line| !line.is_empty() && !line.starts_with("## "))
    {
        let pair = line
            .strip_prefix("# ")
            .unwrap_or_else(|| panic!("neither prose nor option: {line}"));
        text.push_str(&format!("{pair}\n"));
    }
    // The lines of a table are no keys of their own.
    let (text, hosts) = text.split_once("[[host]]\n").unwrap();
    let (keys_alone, tags) = text.split_once("[tags]\n").unwrap();
    let mut shown: Vec<_> = keys_alone
        .lines()
        .filter_map(|line| line.split_once(" = "))
        .map(|pair| pair.0)
        .chain(["tags", "host"])
        .collect();
    let mut keys = KEYS.map(|(key, _)| key);
    shown.sort_unstable();
    keys.sort_unstable();
    assert_eq!(shown, keys);
    let mut settings = read(text).unwrap();
    assert_eq!(settings.uri.origin, UriOrigin::Config("f.toml".into()));
    settings.uri.origin = UriOrigin::Default;
    assert_eq!(
        settings.chunk_size.take(),
        Some(8),
        "but in our own process"
    );
    assert_eq!(settings.max_lines.take(), Some(2000), "but off");
    let examples = std::mem::take(&mut settings.tags);
    assert_eq!(examples.len(), tags.lines().count(), "{examples:?}");
    assert_eq!(settings, Settings::default());
    let document = Document {
        path: "f.toml".into(),
        text: format!("[[host]]\n{hosts}"),
    };
    let file = File::parse(&document).unwrap();
    let (_, hosts) = Settings::from_file(file, &document).unwrap();
    let names: Vec<Option<&str>> = hosts.iter().map(|host| host.host.as_deref()).collect();
    assert_eq!(names, [Some("kvm01.example.org"), Some("kvm02")]);
    assert_eq!(hosts[1].deadline, settings.deadline);
}

#[test]
fn every_key_arrives() {
    let text = r#"
        uri = "test:///default"
        device_cache_ttl = "1m30s"
        deadline = "500ms"
        workers = 64
        chunk_size = 256
        max_calls = 64
        block_statistics = "per-disk"
        guest_memory_max_age = "90s"
        vcpu_delay = "libvirt"
        log_level = "Trace"
        domain_include = ["web*"]
        domain_exclude = ["web9"]
        device_include = ["vd*"]
        device_exclude = ["vdb"]
        cdrom = true
        floppy = true
        measurements = ["vm_totals", "vm_collector", "vm_metrics", "vm_info", "vm_pressure", "vm_pools", "vm_host"]
        max_lines = 10000000
        timestamp_precision = "1us"
        info_interval = "1h"
        statistics = ["perf.*"]
        inactive = true
        pool_interval = "2m"
        [tags]
        title = "title"
    "#;
    let filter = |include: &str, exclude: &str| NameFilter {
        include: vec![name_filter::pattern(include).unwrap()],
        exclude: vec![name_filter::pattern(exclude).unwrap()],
    };
    let expected = Settings {
        uri: Uri {
            value: "test:///default".to_owned(),
            origin: UriOrigin::Config("f.toml".into()),
        },
        host: None,
        device_cache_ttl: Duration::from_secs(90),
        deadline: Duration::from_millis(500),
        workers: 64,
        chunk_size: Some(256),
        max_calls: 64,
        block_statistics: BlockStatistics::PerDisk,
        guest_memory_max_age: Duration::from_secs(90),
        vcpu_delay: VcpuDelay::Libvirt,
        log_level: LevelFilter::Trace,
        domains: filter("web*", "web9"),
        devices: filter("vd*", "vdb"),
        cdrom: true,
        floppy: true,
        measurements: Measurements {
            metrics: true,
            totals: true,
            collector: true,
            info: true,
            pressure: true,
            stats: true,
            pools: true,
            host: true,
            ..Measurements::NONE
        },
        max_lines: Some(10_000_000),
        timestamp_precision: Precision::Microsecond,
        info_interval: Duration::from_secs(3600),
        statistics: {
            let mut keys = KeyFilter::default();
            keys.add("perf.*").unwrap();
            keys
        },
        inactive: true,
        pool_interval: Duration::from_secs(120),
        tags: vec![WantedValue {
            tag: "title".into(),
            place: Place {
                steps: vec![Step::of_libvirt("title")],
                attribute: None,
                part: None,
            },
        }],
    };
    assert_eq!(read(text), Ok(expected));
}

#[test]
fn bounds_are_allowed() {
    for good in [
        "workers = 1",
        "chunk_size = 1",
        "max_calls = 2",
        "max_lines = 1",
        "deadline = \"100ms\"",
        "deadline = \"1h\"",
        "device_cache_ttl = \"1s\"",
        "device_cache_ttl = \"30days\"",
        "guest_memory_max_age = \"1s\"",
        "guest_memory_max_age = \"30days\"",
        "pool_interval = \"1s\"",
        "pool_interval = \"30days\"",
    ] {
        assert!(read(good).is_ok(), "{good}");
    }
}

#[test]
fn each_word_for_block_statistics_is_its_own() {
    for (word, meaning) in [
        ("auto", BlockStatistics::Auto),
        ("bulk", BlockStatistics::Bulk),
        ("per-disk", BlockStatistics::PerDisk),
    ] {
        let settings = read(&format!("block_statistics = {word:?}")).unwrap();
        assert_eq!(settings.block_statistics, meaning);
    }
}

#[test]
fn each_word_for_vcpu_delay_is_its_own() {
    for (word, meaning) in [
        ("auto", VcpuDelay::Auto),
        ("libvirt", VcpuDelay::Libvirt),
        ("off", VcpuDelay::Off),
    ] {
        let settings = read(&format!("vcpu_delay = {word:?}")).unwrap();
        assert_eq!(settings.vcpu_delay, meaning);
    }
}

#[test]
fn precisions_go_from_coarse_to_fine() {
    let all = ["1s", "1ms", "1us", "1ns"].map(|text| precision(text).unwrap());
    assert!(all.is_sorted());
    assert!(all[0] < all[3]);
}
