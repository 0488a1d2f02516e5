//! README.md and docs/ agree with the repository's files, the program and the contract of the data.
//!
//! `UPDATE_README=1 cargo test --test pure readme` writes the stanza into README.md, and the sample of the
//! configuration into docs/configuration.md.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

/// Measurement -> its fields with their line-protocol types: the contract with the users of the data.
const FIELDS: [(&str, &[(char, &str)]); 10] = [
    (
        "vm_metrics",
        &[
            ('s', "state state_reason persistent autostart"),
            (
                'i',
                "cpu_count memory_max_kb memory_used_kb cputime_ns answers uptime_sec",
            ),
        ],
    ),
    (
        "vm_features",
        &[
            (
                'f',
                "memory_rate_kb_per_sec memory_angle_deg cpu_usage_percent",
            ),
            ('f', "cpu_steal_percent"),
            ('f', "memory_guest_used_percent"),
            (
                'f',
                "net_rxbytes_rate net_txbytes_rate net_rxpackets_rate net_txpackets_rate",
            ),
            (
                'f',
                "disk_rd_req_rate disk_rd_bytes_rate disk_wr_reqs_rate disk_wr_bytes_rate",
            ),
            (
                'f',
                "disk_rd_latency_ms disk_wr_latency_ms disk_fl_latency_ms",
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
            ('i', "rd_time_ns wr_time_ns fl_time_ns fl_reqs"),
            ('i', "capacity_bytes allocation_bytes physical_bytes"),
            ('f', "rd_latency_ms wr_latency_ms fl_latency_ms"),
            ('i', "io_error_events"),
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
            ('i', "memunused memstats_age_sec"),
            ('i', "timeusr timesys cputime cpus state_reason state"),
            ('i', "vcpu_time_ns vcpu_delay_ns"),
            ('i', "cpu_periods cpu_throttled_periods cpu_throttled_ns"),
            (
                'i',
                "disk_rd_time_ns disk_wr_time_ns disk_fl_time_ns disk_fl_reqs",
            ),
            (
                'i',
                "disk_capacity_bytes disk_allocation_bytes disk_physical_bytes",
            ),
        ],
    ),
    ("vm_vcpus", &[('i', "time_ns delay_ns state wait_ns")]),
    (
        "vm_info",
        &[
            (
                's',
                "title os_type arch machine firmware autostart persistent",
            ),
            ('s', "mac model source portgroup bus format serial cache"),
            (
                'i',
                "limit_total_bytes_per_sec limit_rd_bytes_per_sec limit_wr_bytes_per_sec",
            ),
            (
                'i',
                "limit_total_req_per_sec limit_rd_req_per_sec limit_wr_req_per_sec",
            ),
        ],
    ),
    (
        "vm_pressure",
        &[('f', "avg10 avg60 avg300"), ('i', "total_us")],
    ),
    (
        "vm_jobs",
        &[
            ('s', "status"),
            (
                'i',
                "elapsed_ms data_total_bytes data_processed_bytes data_remaining_bytes",
            ),
            (
                'i',
                "memory_dirty_rate_pages memory_bps memory_iteration downtime_ms",
            ),
        ],
    ),
    (
        "vm_pools",
        &[
            ('s', "state"),
            ('i', "capacity_bytes allocation_bytes available_bytes"),
        ],
    ),
    (
        "vm_host",
        &[
            (
                'i',
                "vms_running vms_paused vms_blocked vms_shutdown vms_shutoff",
            ),
            (
                'i',
                "vms_crashed vms_suspended vms_no_state vcpus_given memory_given_kb",
            ),
            (
                'i',
                "memory_max_kb node_cpus node_memory_kb node_memory_free_kb net_rxbytes",
            ),
            (
                'i',
                "net_rxpackets net_rxerrors net_rxdrops net_txbytes net_txpackets",
            ),
            (
                'i',
                "net_txerrors net_txdrops disk_rd_req disk_rd_bytes disk_wr_reqs",
            ),
            (
                'i',
                "disk_wr_bytes disk_errors memactual memrss memavailable",
            ),
            (
                'i',
                "memusable memswap_in memswap_out memmajor_fault memminor_fault",
            ),
            ('i', "memdisk_cache memunused timeusr timesys cputime"),
            (
                'i',
                "cpus vcpu_time_ns vcpu_delay_ns cpu_periods cpu_throttled_periods",
            ),
            (
                'i',
                "cpu_throttled_ns disk_rd_time_ns disk_wr_time_ns disk_fl_time_ns disk_fl_reqs",
            ),
            (
                'i',
                "disk_capacity_bytes disk_allocation_bytes disk_physical_bytes",
            ),
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

fn checkout(path: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

fn read(path: &str) -> String {
    std::fs::read_to_string(checkout(path)).unwrap_or_else(|error| panic!("{path}: {error}"))
}

/// The files that match this pattern, by their paths in the repository.
fn files(pattern: &str) -> Vec<String> {
    let found = glob::glob(checkout(pattern).to_str().unwrap()).unwrap();
    let found = found.map(|path| path.unwrap());
    let name = |path: PathBuf| path.strip_prefix(checkout("")).unwrap().to_owned();
    let names = found.map(|path| name(path).into_os_string().into_string().unwrap());
    names.collect()
}

/// README.md and the pages of docs/.
fn pages() -> Vec<String> {
    [files("README.md"), files("docs/*.md")].concat()
}

/// The text between `from` and the next `to`.
fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let start = text
        .find(from)
        .unwrap_or_else(|| panic!("no {from:?} in the text"))
        + from.len();
    let length = text[start..]
        .find(to)
        .unwrap_or_else(|| panic!("no {to:?} after {from:?} in the text"));
    &text[start..start + length]
}

/// The page's block of that name must equal the file.
fn block_is_file(page: &str, name: &str, path: &str) {
    let (text, file) = (read(page), read(path));
    let (begin, end) = (
        format!("<!-- {name}:begin -->\n```toml\n"),
        format!("```\n<!-- {name}:end -->"),
    );
    let block = between(&text, &begin, &end);
    if std::env::var_os("UPDATE_README").is_some() && block != file {
        let (old, new) = (
            format!("{begin}{block}{end}"),
            format!("{begin}{file}{end}"),
        );
        std::fs::write(checkout(page), text.replacen(&old, &new, 1)).unwrap();
        return;
    }
    assert_eq!(
        block, file,
        "the {name} in {page} differs from {path}; UPDATE_README=1 writes it anew"
    );
}

#[test]
fn stanza_and_sample_are_the_files() {
    block_is_file("README.md", "stanza", "telegraf/telegraf-kvm.conf");
    block_is_file(
        "docs/configuration.md",
        "sample",
        "telegraf/telegraf-kvm.toml",
    );
}

#[test]
fn metric_tables_hold_exactly_the_contracts_fields() {
    let page = read("docs/metrics.md");
    for (measurement, groups) in FIELDS {
        let section = between(&page, &format!("\n## {measurement}\n"), "\n##");
        let mut table = BTreeMap::new();
        for row in section.lines().filter(|line| line.starts_with("| ")) {
            let mut cells: Vec<_> = row.trim_matches('|').split('|').map(str::trim).collect();
            if ["vm_devices", "vm_info"].contains(&measurement) {
                cells.remove(0);
            }
            let mut kind = cells[1].chars();
            if let (Some(kind), None) = (kind.next(), kind.next()) {
                // A disk of vm_info has a source as a network interface has, and a row may name several fields.
                for field in cells[0].split(", ").filter(|field| !field.starts_with('(')) {
                    let before = table.insert(field.to_owned(), kind);
                    let again = measurement == "vm_info" && field == "source";
                    assert!(before.is_none() || again, "twice: {row}");
                }
            }
        }
        assert_eq!(table, contract(groups), "the table of {measurement}");
    }
}

/// A database refuses a tag with the name of a field, or mixes the two up.
#[test]
fn no_field_may_be_the_name_of_a_tag() {
    for (measurement, groups) in FIELDS {
        for field in contract(groups).into_keys() {
            // The title may be a tag: in vm_info it is the same field.
            if field == "title" {
                continue;
            }
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), format!("[tags]\n{field} = \"description\"\n")).unwrap();
            let loaded = telegraf_kvm::config::load(Some(file.path()), None, None);
            let error = loaded.map(|_| ()).map_err(|error| error.to_string());
            assert!(
                error.is_err_and(|error| error.contains("is the name of a field")),
                "{measurement}: add {field} to FIELDS in src/config/tags.rs"
            );
        }
    }
}

#[test]
fn influxdb3_commands_declare_every_column_with_its_type() {
    let page = read("docs/outputs.md").replace("\\\n", " ");
    for (measurement, groups) in FIELDS {
        let command = page
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
            "vm_devices" | "vm_info" => &["VMID", "device", "devtype", "host", "name", "uuid"],
            "vm_pressure" => &["VMID", "host", "name", "resource", "type", "uuid"],
            "vm_pools" => &["host", "pool", "type"],
            "vm_host" => &["host", "uri"],
            "vm_vcpus" => &["VMID", "host", "name", "uuid", "vcpu"],
            "vm_jobs" => &["VMID", "host", "name", "operation", "uuid"],
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

/// A database that is upgraded gets the columns with the types that a new one has.
#[test]
fn columns_that_an_upgrade_adds_are_those_of_a_new_database() {
    let declared = read("docs/outputs.md").replace("\\\n", " ");
    let declared: BTreeMap<_, _> = declared
        .lines()
        .filter_map(|line| line.strip_prefix("influxdb3 create table "))
        .map(|command| (command.split(' ').next_back().unwrap(), command))
        .collect();
    let upgrade = read("docs/upgrading.md");
    let commands: Vec<_> = upgrade
        .lines()
        .filter_map(|line| line.strip_prefix("influxdb3 update table --fields "))
        .collect();
    assert!(commands.len() >= 5, "{commands:?}");
    for command in commands {
        let (fields, table) = command.split_once(" --database telegraf ").unwrap();
        let new = between(declared[table], "--fields ", " ");
        for field in fields.split(',') {
            let known = new.split(',').any(|column| column == field);
            assert!(known, "{table}: {field} is not in docs/outputs.md");
        }
    }
}

/// The stanza is valid for Telegraf: as TOML, with the options and examples in its comments too.
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
    assert_eq!(execd["data_format"].as_str(), Some("influx"));
    let comments = stanza.lines().filter(|line| line.starts_with("  # "));
    let variants: Vec<_> = comments
        .map(|line| line.trim_start_matches("  # "))
        .chain(
            stanza
                .lines()
                .filter_map(|line| line.split_once("example: "))
                .map(|pair| pair.1),
        )
        .filter(|line| line.contains(" = "))
        .collect();
    assert!(variants.len() >= 8, "{variants:?}");
    for variant in variants {
        let parsed = variant.trim().parse::<toml::Table>();
        parsed.unwrap_or_else(|error| panic!("{variant}: {error}"));
    }
}

/// Telegraf's style of samples (its docs/developers/SAMPLE_CONFIG.md): two `#` and sentences that end before an
/// option, one `#` before an option that has its default. An example stands in the text.
#[test]
fn both_samples_have_telegrafs_style() {
    for (path, indent) in [
        ("telegraf/telegraf-kvm.conf", "  "),
        ("telegraf/telegraf-kvm.toml", ""),
    ] {
        let sample = read(path);
        let is_option = |line: &str| {
            let line = line.strip_prefix(indent).unwrap_or(line);
            let line = line.strip_prefix("# ").unwrap_or(line).trim_start();
            !line.starts_with('#') && (line.contains(" = ") || line.starts_with('['))
        };
        let mut before = "";
        // The first line of a stanza is its description, and the second one its name.
        for line in sample.lines().skip(if indent.is_empty() { 0 } else { 2 }) {
            let text = line.trim_start().strip_prefix("## ");
            assert!(
                text.is_some() || line.is_empty() || is_option(line),
                "{path}: {line}"
            );
            assert!(
                line.is_empty() || line.starts_with(indent),
                "{path}: {line}"
            );
            if text.is_none() {
                let example = before.contains(" = ");
                let ends = ['.', ')'].iter().any(|end| before.ends_with(*end));
                assert!(before.is_empty() || example || ends, "{path}: {before}");
            }
            before = text.unwrap_or_default();
        }
    }
}

#[test]
fn every_toml_block_parses() {
    let text: String = pages().iter().map(|page| read(page)).collect();
    let blocks: Vec<_> = text.split("```toml\n").skip(1).collect();
    assert!(blocks.len() >= 6, "{} toml blocks", blocks.len());
    for block in blocks {
        let toml = block.split("```").next().unwrap();
        let parsed = toml.parse::<toml::Table>();
        parsed.unwrap_or_else(|error| panic!("{error}\n{toml}"));
    }
}

#[test]
fn the_readme_is_an_overview() {
    let lines = read("README.md").lines().count();
    assert!(lines <= 200, "{lines} lines: the rest belongs into docs/");
}

/// The lines outside of blocks of code.
fn prose(text: &str) -> Vec<&str> {
    let mut in_block = false;
    let lines = text.lines().filter(|line| {
        let fence = line.trim_start().starts_with("```");
        in_block ^= fence;
        !fence && !in_block
    });
    lines.collect()
}

/// The targets of the links and pictures that lead to files of the repository.
fn links(text: &str) -> Vec<String> {
    let mut targets = Vec::new();
    for line in prose(text) {
        let without_code: String = line.split('`').step_by(2).collect();
        for rest in without_code.split("](").skip(1) {
            let target = rest.split(')').next().unwrap();
            if !target.contains("://") {
                targets.push(target.to_owned());
            }
        }
    }
    targets
}

/// The anchors of the headings, as GitHub makes them: lower case, no punctuation, a dash for a space;
/// of equal ones the second gets `-1`.
fn anchors(text: &str) -> Vec<String> {
    let headings = prose(text).into_iter().filter(|line| line.starts_with('#'));
    let mut anchors = Vec::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for heading in headings {
        let heading = heading.trim_start_matches('#').trim().to_lowercase();
        let is_kept = |c: &char| c.is_alphanumeric() || "-_ ".contains(*c);
        let anchor: String = heading.chars().filter(is_kept).collect();
        let anchor = anchor.replace(' ', "-");
        let count = seen.entry(anchor.clone()).or_default();
        anchors.push(match *count {
            0 => anchor,
            number => format!("{anchor}-{number}"),
        });
        *count += 1;
    }
    anchors
}

/// Where a link on this page leads: a path like the page's own.
fn follow(page: &str, path: &str) -> String {
    let mut parts: Vec<&str> = page.split('/').collect();
    parts.pop();
    for part in path.split('/') {
        match part {
            "." => {}
            ".." => assert!(parts.pop().is_some(), "{page}: {path} leads out"),
            part => parts.push(part),
        }
    }
    parts.join("/")
}

/// The links of a page's text that lead to no file, or to no heading of one.
fn broken_links(page: &str, text: &str) -> Vec<String> {
    let is_broken = |link: &String| {
        let (path, anchor) = link.split_once('#').unwrap_or((link, ""));
        let target = follow(page, path);
        if !path.is_empty() && !checkout(&target).exists() {
            return true;
        }
        let headings = || match path {
            "" => anchors(text),
            _ => anchors(&read(&target)),
        };
        !anchor.is_empty() && !headings().iter().any(|heading| heading == anchor)
    };
    links(text).into_iter().filter(is_broken).collect()
}

#[test]
fn every_link_leads_to_a_file_or_a_heading() {
    let others = ["CONTRIBUTING.md", "CHANGELOG.md"].map(str::to_owned);
    for page in [pages(), others.to_vec()].concat() {
        assert_eq!(
            broken_links(&page, &read(&page)),
            [""; 0],
            "broken links in {page}"
        );
    }
}

#[test]
fn a_broken_link_is_found() {
    let text = "# One & two\n## Twice\n## Twice\n[a](#one--two) [b](#twice-1) [`c`](../README.md#install)\n\
        [d](metrics.md) https://example.org ![e](dashboards.png) `[code](none.md)`\n\
        ```toml\n# Comment\n[code](none.md)\n```\n";
    assert_eq!(links(text).len(), 5);
    assert_eq!(broken_links("docs/x.md", text), [""; 0]);
    for link in [
        "none.md",
        "README.md",
        "#comment",
        "#twice-2",
        "#One",
        "metrics.md#none",
        "none.png",
    ] {
        let broken = format!("{text}[f]({link})");
        assert_eq!(broken_links("docs/x.md", &broken), [link]);
    }
}

/// The packages of one kind: each file of the repository that they carry, and where it is installed.
fn installed(assets: &toml::Value, source: &str, dest: &str) -> BTreeMap<String, String> {
    let mut installed = BTreeMap::new();
    for asset in assets.as_array().unwrap() {
        // An array in one kind, a table in the other.
        let text = |key: &str| match key.parse::<usize>() {
            Ok(place) => asset[place].as_str().unwrap(),
            Err(_) => asset[key].as_str().unwrap(),
        };
        for file in files(text(source)) {
            let dest = text(dest).trim_start_matches('/');
            let name = file.rsplit('/').next().unwrap();
            let dest = match dest.strip_suffix('/') {
                Some(folder) => format!("{folder}/{name}"),
                None => dest.to_owned(),
            };
            installed.insert(file, dest);
        }
    }
    installed
}

/// What a user of the package reads has links only to what the package has.
#[test]
fn links_lead_to_the_same_documents_in_the_packages() {
    let manifest: toml::Table = read("Cargo.toml").parse().unwrap();
    let metadata = &manifest["package"]["metadata"];
    for (kind, installed) in [
        ("deb", installed(&metadata["deb"]["assets"], "0", "1")),
        (
            "rpm",
            installed(&metadata["generate-rpm"]["assets"], "source", "dest"),
        ),
    ] {
        let markdown = |name: &&String| name.ends_with(".md");
        let packaged: Vec<&String> = installed.keys().filter(markdown).collect();
        assert!(
            pages().iter().all(|page| packaged.contains(&page)),
            "{kind}: {packaged:?}"
        );
        for page in packaged {
            let place = &installed[page];
            for link in links(&read(page)) {
                let path = link.split('#').next().unwrap();
                if path.is_empty() {
                    continue;
                }
                assert_eq!(
                    installed.get(&follow(page, path)),
                    Some(&follow(place, path)),
                    "{kind}: {link} in {page}"
                );
            }
        }
    }
}

#[test]
fn the_times_of_the_architecture_are_the_programs() {
    let (page, times) = (read("docs/architecture.md"), read("src/times.rs"));
    let rows = page
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split_once("` | "));
    let mut checked = 0;
    for (name, rest) in rows {
        let value = rest.split(" | ").next().unwrap();
        let constructor = match value.split_once(' ') {
            Some((number, "ms")) => format!("from_millis({number})"),
            Some((number, "s")) => format!("from_secs({number})"),
            _ => continue,
        };
        let line = format!("pub const {name}: Duration = Duration::{constructor};");
        assert!(times.contains(&line), "src/times.rs has no {line}");
        checked += 1;
    }
    let constants = times.matches("pub const ").count();
    assert_eq!(
        checked, constants,
        "times in the table, and in src/times.rs"
    );
}

/// Files and folders that the pages for programmers name, relative to the root or to src/.
#[test]
fn the_files_that_are_named_exist() {
    let folders = ["src/", "tests/", "benches/", "packaging/", "telegraf/"];
    let mut checked = 0;
    for page in ["docs/architecture.md", "CONTRIBUTING.md"] {
        let text = read(page);
        let is_part = |c: char| c.is_ascii_alphanumeric() || "_./-".contains(c);
        let names = text.split(|c| !is_part(c)).map(|n| n.trim_end_matches('.'));
        let named = |name: &&str| {
            name.ends_with(".rs") || folders.iter().any(|folder| name.starts_with(folder))
        };
        for name in names.filter(named) {
            let there = ["", "src/"].map(|folder| checkout(folder).join(name).exists());
            assert!(there.contains(&true), "{page}: there is no {name}");
            checked += 1;
        }
    }
    assert!(checked > 50, "{checked} names");
}
