//! Line protocol, read by an independent parser for the tests.

use std::collections::BTreeMap;
use std::fmt::Write as _;

/// A field's value, with its type.
#[derive(Debug, Clone, PartialEq)]
pub enum Value {
    /// `1i`
    Int(i64),
    /// `1`
    Float(f64),
    /// `"one"`
    Text(String),
}

/// One line.
#[derive(Debug, Clone, PartialEq)]
pub struct Line {
    /// The measurement.
    pub measurement: String,
    /// Tags, unescaped.
    pub tags: BTreeMap<String, String>,
    /// Fields, unescaped.
    pub fields: BTreeMap<String, Value>,
    /// Nanoseconds since 1970.
    pub timestamp: i64,
}

impl Line {
    /// The value of a tag; panics with the line if it is missing.
    pub fn tag(&self, key: &str) -> &str {
        self.tags
            .get(key)
            .unwrap_or_else(|| panic!("no tag {key}: {self:?}"))
    }

    /// An integer field; `None` if it is missing; panics if it is of another type.
    pub fn int(&self, key: &str) -> Option<i64> {
        match self.fields.get(key)? {
            Value::Int(value) => Some(*value),
            other => panic!("{key} is no integer: {other:?}"),
        }
    }

    /// A float field; `None` if it is missing; panics if it is of another type.
    pub fn float(&self, key: &str) -> Option<f64> {
        match self.fields.get(key)? {
            Value::Float(value) => Some(*value),
            other => panic!("{key} is no float: {other:?}"),
        }
    }

    /// A string field; `None` if it is missing; panics if it is of another type.
    pub fn text(&self, key: &str) -> Option<&str> {
        match self.fields.get(key)? {
            Value::Text(value) => Some(value),
            other => panic!("{key} is no string: {other:?}"),
        }
    }
}

/// Every line of `text` that is of a VM: all but those of vm_collector, whose counts must add up. Panics as
/// [`all_lines`] does.
pub fn lines(text: &str) -> Vec<Line> {
    let mut all = all_lines(text);
    all.retain(|line| {
        let is_of_vm = line.measurement != "vm_collector";
        if !is_of_vm {
            counts_add_up(line);
        }
        is_of_vm
    });
    all
}

/// Panics unless each VM that a line vm_collector has seen is counted once in it.
fn counts_add_up(line: &Line) {
    let count = |field| {
        line.int(field)
            .unwrap_or_else(|| panic!("no {field}: {line:?}"))
    };
    let parts = ["vms_complete", "vms_partial", "vms_withheld"].map(count);
    assert_eq!(count("vms_seen"), parts.iter().sum::<i64>(), "{line:?}");
}

/// Every line of `text`. Panics at one that is no line protocol, that has a type which the plugin does not
/// write (unsigned, boolean), that has a tag or field twice, or that has no time.
pub fn all_lines(text: &str) -> Vec<Line> {
    assert!(
        text.is_empty() || text.ends_with('\n'),
        "the last line is not whole: {text:?}"
    );
    influxdb_line_protocol::parse_lines(text)
        .map(|parsed| {
            let parsed = parsed.unwrap_or_else(|error| panic!("{error}: {text:?}"));
            let mut tags = BTreeMap::new();
            for (key, value) in parsed.series.tag_set.iter().flatten() {
                let twice = tags.insert(key.to_string(), value.to_string());
                assert_eq!(twice, None, "tag {key} twice: {parsed:?}");
            }
            let mut fields = BTreeMap::new();
            for (key, value) in &parsed.field_set {
                use influxdb_line_protocol::FieldValue;
                let value = match value {
                    FieldValue::I64(value) => Value::Int(*value),
                    FieldValue::F64(value) => Value::Float(*value),
                    FieldValue::String(value) => Value::Text(value.to_string()),
                    other => panic!("a type that the plugin does not write, {other:?}: {parsed:?}"),
                };
                let twice = fields.insert(key.to_string(), value);
                assert_eq!(twice, None, "field {key} twice: {parsed:?}");
            }
            Line {
                measurement: parsed.series.measurement.to_string(),
                tags,
                fields,
                timestamp: parsed
                    .timestamp
                    .unwrap_or_else(|| panic!("no time: {text:?}")),
            }
        })
        .collect()
}

/// The lines of one measurement and one VM (the tag `name`).
pub fn of<'l>(lines: &'l [Line], measurement: &str, name: &str) -> Vec<&'l Line> {
    let wanted = |line: &&Line| {
        line.measurement == measurement && line.tags.get("name").is_some_and(|n| n == name)
    };
    lines.iter().filter(wanted).collect()
}

/// The only line of that measurement and VM; panics with all lines if there is none or several.
pub fn one<'l>(lines: &'l [Line], measurement: &str, name: &str) -> &'l Line {
    let found = of(lines, measurement, name);
    assert!(
        found.len() == 1,
        "{} lines {measurement} of {name}:{}",
        found.len(),
        lines.iter().fold(String::new(), |mut all, line| {
            let _ = write!(all, "\n{line:?}");
            all
        })
    );
    found[0]
}

/// The vm_devices line of one device; panics with the VM's devices if it is missing.
pub fn device<'l>(lines: &'l [Line], name: &str, devtype: &str, device: &str) -> &'l Line {
    let devices = of(lines, "vm_devices", name);
    let wanted = |line: &&&Line| line.tag("devtype") == devtype && line.tag("device") == device;
    devices
        .iter()
        .find(wanted)
        .unwrap_or_else(|| panic!("no {devtype} {device} of {name}: {devices:#?}"))
}

/// The fields of vm_features that a VM with devices has from its second gather on, wherever it runs.
pub const FEATURES: [&str; 11] = [
    "memory_rate_kb_per_sec",
    "memory_angle_deg",
    "cpu_usage_percent",
    "net_rxbytes_rate",
    "net_txbytes_rate",
    "net_rxpackets_rate",
    "net_txpackets_rate",
    "disk_rd_req_rate",
    "disk_rd_bytes_rate",
    "disk_wr_reqs_rate",
    "disk_wr_bytes_rate",
];

/// Whether this is a time per request, which is there only if a request ended since the last gather.
pub fn is_latency(field: &str) -> bool {
    field.ends_with("_latency_ms")
}

/// Whether this comes from the host alone: absent where the QEMU's process is out of sight, and in a gather whose check of
/// the host is late.
pub fn is_of_host(field: &str) -> bool {
    [
        "uptime_sec",
        "vcpu_time_ns",
        "vcpu_delay_ns",
        "cpu_steal_percent",
    ]
    .contains(&field)
}

/// Whether this is a disk's size or the sum of such, which the block group alone reports.
pub fn is_size(field: &str) -> bool {
    ["capacity_bytes", "allocation_bytes", "physical_bytes"]
        .iter()
        .any(|size| field.ends_with(size))
}

/// The devices of a VM, from its lines: `nic vnet0`, `disk vda`.
pub fn devices(lines: &[Line], name: &str) -> Vec<String> {
    let devices = of(lines, "vm_devices", name).into_iter();
    let mut devices: Vec<String> = devices
        .map(|line| format!("{} {}", line.tag("devtype"), line.tag("device")))
        .collect();
    devices.sort_unstable();
    devices
}

/// The features that a VM lacks, by the beginning of their names (`net_`, `disk_`, `cpu_`, `memory_`): the
/// fields of a group are missing together.
pub fn lacking(lines: &[Line], name: &str) -> Vec<&'static str> {
    let line = one(lines, "vm_features", name);
    let mut groups = vec!["net_", "disk_", "cpu_", "memory_"];
    groups.retain(|group| {
        let mut all = FEATURES.iter().filter(|field| field.starts_with(group));
        let lacks = !line.fields.contains_key(*all.next().unwrap());
        assert!(
            all.all(|field| line.fields.contains_key(*field) != lacks),
            "{line:?}"
        );
        lacks
    });
    for (field, rate) in &line.fields {
        let rate = line.float(field).unwrap_or_else(|| panic!("{rate:?}"));
        assert!(rate >= 0.0 || field.starts_with("memory_"), "{line:?}");
    }
    groups
}

/// Whether this is a last line of a VM that has stopped: its state, which is shutoff, the reason, and nothing else.
pub fn is_last(line: &Line) -> bool {
    let off = match &*line.measurement {
        "vm_metrics" => line.text("state") == Some("shutoff"),
        "vm_totals" => line.int("state") == Some(5),
        _ => false,
    };
    off && line.fields.keys().eq(["state", "state_reason"])
}

/// Checks that the sums in vm_totals equal those of the vm_devices lines of the same gather, field by field:
/// each sum has its device fields, and each device field has its sum. (A size of which a disk with a medium lacks one has
/// no sum.)
pub fn adds_up(lines: &[Line], name: &str) {
    let totals = one(lines, "vm_totals", name);
    let devices = of(lines, "vm_devices", name);
    for (devtype, prefix) in [("nic", "net_"), ("disk", "disk_")] {
        let mut sums: BTreeMap<String, i64> = BTreeMap::new();
        for device in devices.iter().filter(|line| line.tag("devtype") == devtype) {
            let has_sum = |field: &&String| !is_latency(field) && *field != "io_error_events";
            for field in device.fields.keys().filter(has_sum) {
                *sums.entry(format!("{prefix}{field}")).or_default() += device.int(field).unwrap();
            }
        }
        let with_medium = |line: &&&Line| line.fields.contains_key("capacity_bytes");
        sums.retain(|sum, _| {
            let field = sum.strip_prefix(prefix).unwrap_or_default();
            let mut disks = devices.iter().filter(with_medium);
            !is_size(field) || disks.all(|disk| disk.fields.contains_key(field))
        });
        let found: BTreeMap<String, i64> = totals
            .fields
            .keys()
            .filter(|field| field.starts_with(prefix))
            .map(|field| (field.clone(), totals.int(field).unwrap()))
            .collect();
        if sums.is_empty() {
            assert!(found.values().all(|sum| *sum == 0), "{name}: {found:?}");
        } else {
            assert_eq!(found, sums, "{name}: {devices:#?}");
        }
    }
}

/// Checks that the sums of the host's line are those over the lines vm_metrics and vm_totals of the active VMs of the same
/// gather: each sum has its field, and each field that is an amount has its sum.
pub fn host_adds_up(lines: &[Line]) {
    let host = lines.iter().find(|line| line.measurement == "vm_host");
    let host = host.expect("a line vm_host");
    let given = [
        ("vcpus_given", "cpu_count"),
        ("memory_given_kb", "memory_used_kb"),
        ("memory_max_kb", "memory_max_kb"),
    ];
    let mut sums: BTreeMap<&str, i64> = BTreeMap::new();
    let mut add = |sum, value: Option<i64>| {
        if let Some(value) = value {
            *sums.entry(sum).or_default() += value;
        }
    };
    for line in lines.iter().filter(|line| !is_last(line)) {
        let is_active = line.tags.get("VMID").is_some_and(|id| id != "-");
        match line.measurement.as_str() {
            "vm_metrics" if is_active => {
                for (sum, field) in given {
                    add(sum, line.int(field));
                }
            }
            "vm_totals" => {
                for field in line.fields.keys() {
                    if !["state", "state_reason", "memstats_age_sec"].contains(&field.as_str()) {
                        add(field, line.int(field));
                    }
                }
            }
            _ => {}
        }
    }
    let own = |field: &&String| !field.starts_with("vms_") && !field.starts_with("node_");
    let written: Vec<&str> = host.fields.keys().filter(own).map(String::as_str).collect();
    assert_eq!(written, sums.keys().copied().collect::<Vec<_>>());
    for (field, sum) in sums {
        assert_eq!(host.int(field), Some(sum), "{field}");
    }
}
