//! The README says what the repository's files and the contract of the data say.
//!
//! `UPDATE_README=1 cargo test --test readme` writes the sample and the stanza into the README.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)]

use std::collections::BTreeMap;
use std::path::Path;

/// Measurement -> its fields with their line-protocol types: the contract with those who query.
const FIELDS: [(&str, &[(char, &str)]); 4] = [
    (
        "vm_metrics",
        &[
            ('s', "state state_reason"),
            ('i', "cpu_count memory_max_kb memory_used_kb cputime_ns"),
        ],
    ),
    (
        "vm_features",
        &[
            (
                'f',
                "memory_rate_kb_per_sec memory_angle_deg cpu_usage_percent",
            ),
            (
                'f',
                "net_rxbytes_rate net_txbytes_rate net_rxpackets_rate net_txpackets_rate",
            ),
            (
                'f',
                "disk_rd_req_rate disk_rd_bytes_rate disk_wr_reqs_rate disk_wr_bytes_rate",
            ),
        ],
    ),
    (
        "vm_devices",
        &[
            (
                'i',
                "rxbytes rxpackets rxerrors rxdrops txbytes txpackets txerrors txdrops",
            ),
            ('i', "rd_req rd_bytes wr_reqs wr_bytes errors"),
        ],
    ),
    (
        "vm_totals",
        &[
            ('i', "net_rxbytes net_rxpackets net_rxerrors net_rxdrops"),
            ('i', "net_txbytes net_txpackets net_txerrors net_txdrops"),
            (
                'i',
                "disk_rd_req disk_rd_bytes disk_wr_reqs disk_wr_bytes disk_errors",
            ),
            (
                'i',
                "memactual memrss memavailable memusable memswap_in memswap_out",
            ),
            ('i', "memmajor_fault memminor_fault memdisk_cache"),
            ('i', "timeusr timesys cputime cpus state_reason state"),
        ],
    ),
];

/// The contract's fields of one measurement, name -> type.
fn contract(groups: &[(char, &str)]) -> BTreeMap<String, char> {
    let of_group = |&(kind, names): &(char, &str)| {
        let names: Vec<_> = names.split(' ').map(str::to_owned).collect();
        names.into_iter().map(move |name| (name, kind))
    };
    groups.iter().flat_map(of_group).collect()
}

fn read(path: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(path);
    std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// What stands between `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from:?} in the README"))
        + from.len();
    let length = text[start..]
        .find(to)
        .unwrap_or_else(|| panic!("no {to:?} after {from:?} in the README"));
    &text[start..start + length]
}

/// The README's block of that name must be the file, to the letter.
fn block_is_file(name: &str, path: &str) {
    let (readme, file) = (read("README.md"), read(path));
    let (begin, end) = (
        format!("<!-- {name}:begin -->\n```toml\n"),
        format!("```\n<!-- {name}:end -->"),
    );
    let block = between(&readme, &begin, &end);
    if std::env::var_os("UPDATE_README").is_some() && block != file {
        let updated = readme.replacen(
            &format!("{begin}{block}{end}"),
            &format!("{begin}{file}{end}"),
            1,
        );
        std::fs::write(
            Path::new(env!("CARGO_MANIFEST_DIR")).join("README.md"),
            updated,
        )
        .unwrap();
        return;
    }
    assert_eq!(
        block, file,
        "the README's {name} differs from {path}; UPDATE_README=1 writes it anew"
    );
}

// One test for both blocks: two at a time could update the README over each other.
#[test]
fn stanza_and_sample_are_the_files() {
    block_is_file("stanza", "telegraf/telegraf-kvm.conf");
    block_is_file("sample", "telegraf/telegraf-kvm.toml");
}

#[test]
fn metric_tables_hold_exactly_the_contracts_fields() {
    let readme = read("README.md");
    for (measurement, groups) in FIELDS {
        let section = between(&readme, &format!("\n### {measurement}\n"), "\n##");
        let mut table = BTreeMap::new();
        for row in section.lines().filter(|line| line.starts_with("| ")) {
            let mut cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            if measurement == "vm_devices" {
                cells.remove(0);
            }
            let mut kind = cells[1].chars();
            if let (Some(kind), None) = (kind.next(), kind.next()) {
                assert_eq!(
                    table.insert(cells[0].to_owned(), kind),
                    None,
                    "twice: {row}"
                );
            }
        }
        assert_eq!(table, contract(groups), "the table of {measurement}");
    }
}

#[test]
fn influxdb3_commands_declare_every_column_with_its_type() {
    let readme = read("README.md").replace("\\\n", " ");
    for (measurement, groups) in FIELDS {
        let command = readme
            .lines()
            .find(|line| {
                line.starts_with("influxdb3 create table ")
                    && line.ends_with(&format!(" {measurement}"))
            })
            .unwrap_or_else(|| panic!("no command that creates {measurement}"));
        let option = |name: &str| {
            let mut words = command.split_whitespace().skip_while(|word| *word != name);
            words
                .nth(1)
                .unwrap_or_else(|| panic!("no {name} in {command}"))
        };
        let mut tags: Vec<_> = option("--tags").split(',').collect();
        tags.sort_unstable();
        let expected: &[&str] = match measurement {
            "vm_devices" => &["VMID", "device", "devtype", "host", "name", "uuid"],
            _ => &["VMID", "host", "name", "uuid"],
        };
        assert_eq!(tags, expected, "{measurement}");
        let declared: BTreeMap<_, _> = option("--fields")
            .split(',')
            .map(|field| field.split_once(':').unwrap())
            .map(|(name, kind)| (name.to_owned(), kind))
            .collect();
        let wanted: BTreeMap<_, _> = contract(groups)
            .into_iter()
            .map(|(name, kind)| {
                (
                    name,
                    ["int64", "float64", "utf8"]["ifs".find(kind).unwrap()],
                )
            })
            .collect();
        assert_eq!(declared, wanted, "{measurement}");
    }
}

/// The stanza as Telegraf reads it: as TOML, with the variants of its comments too.
#[test]
fn stanza_and_its_commented_variants_are_toml() {
    let stanza = read("telegraf/telegraf-kvm.conf");
    let table: toml::Table = stanza.parse().unwrap();
    let execd = &table["inputs"]["execd"][0];
    assert_eq!(
        execd["command"],
        toml::Value::from(vec!["/usr/bin/telegraf-kvm"])
    );
    assert_eq!(execd["signal"].as_str(), Some("STDIN"));
    assert_eq!(execd["restart_delay"].as_str(), Some("10s"));
    assert_eq!(execd["data_format"].as_str(), Some("influx"));
    let variants: Vec<_> = stanza
        .lines()
        .filter_map(|line| line.trim_start().strip_prefix("# "))
        .filter(|line| line.contains(" = "))
        .collect();
    assert!(variants.len() >= 5, "{variants:?}");
    for variant in variants {
        let parsed = variant.trim().parse::<toml::Table>();
        parsed.unwrap_or_else(|error| panic!("{variant}: {error}"));
    }
}

#[test]
fn every_toml_block_parses_and_every_link_leads_somewhere() {
    let readme = read("README.md");
    let blocks: Vec<_> = readme.split("```toml\n").skip(1).collect();
    assert!(blocks.len() >= 6, "{} toml blocks", blocks.len());
    for block in blocks {
        let toml = block.split("```").next().unwrap();
        let parsed = toml.parse::<toml::Table>();
        parsed.unwrap_or_else(|error| panic!("{error}\n{toml}"));
    }
    let headings: Vec<_> = readme
        .lines()
        .filter_map(|line| line.strip_prefix('#'))
        .map(|line| line.trim_matches(['#', ' ']).to_lowercase())
        .map(|heading| heading.replace(['.', '`'], "").replace(' ', "-"))
        .collect();
    for target in readme
        .split("](")
        .skip(1)
        .map(|rest| rest.split(')').next().unwrap())
    {
        match target.strip_prefix('#') {
            Some(heading) => assert!(headings.iter().any(|h| h == heading), "#{heading}"),
            None if target.starts_with("https://") => {}
            None => assert!(
                Path::new(env!("CARGO_MANIFEST_DIR")).join(target).exists(),
                "{target}"
            ),
        }
    }
}
