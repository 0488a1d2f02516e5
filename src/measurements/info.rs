//! `vm_info`: what changes seldom. One line for a VM and one for each of its devices, when something of it changed,
//! and every `info_interval`.

use std::sync::Arc;
use std::time::{Duration, Instant};

use smol_str::SmolStr;
use uuid::Uuid;

use crate::derive::{VmHistory, device_tags};
use crate::description::{Info, LIMIT_FIELDS, TagValues, cut};
use crate::line_protocol::{Line, Tags};
use crate::maps::{HashMap, HashSet};
use crate::sample::{RunId, Sample};
use crate::wording::yes_or_no;

/// The fields of the VM's own line that come from its XML and not from `[tags]`.
const OWN: [&str; 7] = [
    "title",
    "os_type",
    "arch",
    "machine",
    "firmware",
    "autostart",
    "persistent",
];

/// What was last written of each VM, and when.
#[derive(Debug)]
pub struct InfoWriter {
    interval: Duration,
    written: HashMap<Uuid, Written>,
    /// What the gather under way has put into the buffer.
    in_buffer: Vec<(Uuid, Written)>,
}

#[derive(Debug)]
struct Written {
    run: RunId,
    name: SmolStr,
    info: Arc<Info>,
    tags: Option<Arc<TagValues>>,
    at: Instant,
}

impl InfoWriter {
    /// Nothing is written yet.
    pub fn new(interval: Duration) -> Self {
        Self {
            interval,
            written: HashMap::default(),
            in_buffer: Vec::new(),
        }
    }

    /// Drops the VMs that are not active any more.
    pub fn retain(&mut self, active: &HashSet<RunId>) {
        self.written
            .retain(|_, written| active.contains(&written.run));
    }

    /// Ends a gather. If the lines in its buffer are not written, they are due again in the next one.
    pub fn end(&mut self, is_written: bool) {
        let in_buffer = self.in_buffer.drain(..);
        if is_written {
            self.written.extend(in_buffer);
        }
    }

    /// Appends the lines of a VM to `buffer`, if something changed or their time has come.
    pub fn write(
        &mut self,
        buffer: &mut String,
        sample: &Sample,
        vm: &VmHistory,
        now: Instant,
        timestamp: i64,
    ) {
        let Some(info) = &sample.info else { return };
        let due = match self.written.get_mut(&sample.run.uuid) {
            Some(written) => written.is_other(sample, info) || now >= written.at + self.interval,
            None => true,
        };
        if due {
            lines(
                buffer,
                info,
                sample.tags.as_deref().unwrap_or_default(),
                &vm.identity(),
                timestamp,
            );
            let written = Written {
                run: sample.run,
                name: sample.name.clone(),
                info: Arc::clone(info),
                tags: sample.tags.clone(),
                at: now,
            };
            self.in_buffer.push((sample.run.uuid, written));
        }
    }
}

impl Written {
    /// Whether the sample's lines would be others than these. In a steady state two pointers are compared.
    fn is_other(&mut self, sample: &Sample, info: &Arc<Info>) -> bool {
        if self.run != sample.run || self.name != sample.name {
            return true;
        }
        let same_tags = match (&self.tags, &sample.tags) {
            (Some(before), Some(now)) => Arc::ptr_eq(before, now) || before == now,
            (before, now) => before == now,
        };
        if !same_tags || !(Arc::ptr_eq(&self.info, info) || self.info == *info) {
            return true;
        }
        // The XML was read again and said the same.
        self.info = Arc::clone(info);
        self.tags.clone_from(&sample.tags);
        false
    }
}

fn lines(buffer: &mut String, info: &Info, values: &TagValues, vm: &Tags, timestamp: i64) {
    let yes = |is: Option<bool>| is.map(yes_or_no);
    let mut line = Line::begin(buffer, "vm_info", vm);
    let own = [
        info.title.as_deref(),
        info.os_type.as_deref(),
        info.arch.as_deref(),
        info.machine.as_deref(),
        info.firmware,
        yes(info.autostart),
        yes(info.persistent),
    ];
    for (key, value) in OWN.into_iter().zip(own) {
        text(&mut line, key, value);
    }
    // A database takes no field with the name of a tag, so here they are fields alone.
    for (key, value) in values.iter().filter(|(key, _)| !OWN.contains(&&**key)) {
        text(&mut line, key, Some(value));
    }
    line.end(timestamp);
    let tags = device_tags(("devtype", "nic"), info.nics.iter().map(|nic| &nic.device));
    for (nic, tags) in info.nics.iter().zip(&tags) {
        let mut line = Line::begin_with(buffer, "vm_info", vm, tags);
        text(&mut line, "mac", nic.mac.as_deref());
        text(&mut line, "model", nic.model.as_deref());
        text(&mut line, "source", nic.source.as_deref());
        text(&mut line, "portgroup", nic.portgroup.as_deref());
        line.end(timestamp);
    }
    let tags = device_tags(
        ("devtype", "disk"),
        info.disks.iter().map(|disk| &disk.device),
    );
    for (disk, tags) in info.disks.iter().zip(&tags) {
        let mut line = Line::begin_with(buffer, "vm_info", vm, tags);
        text(&mut line, "bus", disk.bus.as_deref());
        text(&mut line, "source", disk.source.as_deref());
        text(&mut line, "format", disk.format.as_deref());
        text(&mut line, "serial", disk.serial.as_deref());
        text(&mut line, "cache", disk.cache.as_deref());
        for ((_, key), limit) in LIMIT_FIELDS.into_iter().zip(disk.limits) {
            line.int(key, limit);
        }
        line.end(timestamp);
    }
}

/// Appends a text, cut as the value of a tag is: a title may have any length.
fn text(line: &mut Line, key: &str, value: Option<&str>) {
    line.string(key, value.map(cut));
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::derive::History;
    use crate::description::Description;
    use crate::sample::testing::{full, run};

    const XML: &str = "<domain><title>a b</title><os><type arch='x86_64' machine='q35'>hvm</type></os><devices>\
        <interface><mac address='52:54:00:00:00:01'/><target dev='tap,1'/></interface>\
        <disk><driver type='raw'/><source file='/a'/><target dev='vda' bus='virtio'/>\
        <iotune><total_iops_sec>5</total_iops_sec></iotune></disk></devices></domain>";

    fn info(title: &str) -> Option<Arc<Info>> {
        let xml = XML.replace("a b", title);
        Description::parse_with(&xml, &[], true).unwrap().info
    }

    /// The lines of a gather so many seconds after the first one.
    fn written(
        writer: &mut InfoWriter,
        history: &mut History,
        sample: &Sample,
        after: u64,
    ) -> String {
        let mut buffer = String::new();
        let (vm, _) = history.update(sample);
        let now = sample.memory.at + Duration::from_secs(after);
        writer.write(&mut buffer, sample, vm, now, 17);
        writer.end(true);
        buffer
    }

    #[test]
    fn lines_come_when_something_changed_and_in_the_interval() {
        let (mut writer, mut history) =
            (InfoWriter::new(Duration::from_secs(60)), History::default());
        let mut sample = full(Instant::now());
        assert_eq!(
            written(&mut writer, &mut history, &sample, 0),
            "",
            "not wanted"
        );
        sample.info = info("a b");
        sample.tags = Some(Arc::from(vec![
            ("owner".into(), "x y".into()),
            ("title".into(), "a b".into()),
        ]));
        let tags = "VMID=1,name=test,uuid=6695eb01-f6a4-8304-79aa-97f2502e193f";
        let lines = format!(
            "vm_info,{tags} title=\"a b\",os_type=\"hvm\",arch=\"x86_64\",machine=\"q35\",firmware=\"bios\",owner=\"x y\" 17\n\
             vm_info,{tags},devtype=nic,device=tap\\,1 mac=\"52:54:00:00:00:01\" 17\n\
             vm_info,{tags},devtype=disk,device=vda bus=\"virtio\",source=\"/a\",format=\"raw\",limit_total_req_per_sec=5i 17\n"
        );
        assert_eq!(written(&mut writer, &mut history, &sample, 0), lines);
        assert_eq!(written(&mut writer, &mut history, &sample, 59), "");
        assert_eq!(written(&mut writer, &mut history, &sample, 60), lines);
        assert_eq!(written(&mut writer, &mut history, &sample, 119), "");
        sample.info = info("a b");
        assert_eq!(
            written(&mut writer, &mut history, &sample, 119),
            "",
            "read again, and the same"
        );
        let mut autostart = (*info("a b").unwrap()).clone();
        autostart.autostart = Some(true);
        sample.info = Some(Arc::new(autostart));
        assert!(written(&mut writer, &mut history, &sample, 119).contains(",autostart=\"yes\","));
        sample.info = info("c");
        assert!(written(&mut writer, &mut history, &sample, 119).contains(" title=\"c\","));
        sample.tags = Some(Arc::from(vec![("owner".into(), "z".into())]));
        assert!(written(&mut writer, &mut history, &sample, 119).contains(",owner=\"z\""));
        sample.run = run(2);
        assert!(written(&mut writer, &mut history, &sample, 119).contains("VMID=2"));
        writer.retain(&HashSet::default());
        assert!(
            written(&mut writer, &mut history, &sample, 119).contains("VMID=2"),
            "forgotten"
        );
    }

    #[test]
    fn long_texts_are_cut_as_tags_are() {
        let (mut writer, mut history) =
            (InfoWriter::new(Duration::from_secs(60)), History::default());
        let mut sample = full(Instant::now());
        // 1 byte, then characters of 2: the border of 1,024 bytes is within one.
        sample.info = info(&format!("a{}", "ä".repeat(500_000)));
        let lines = written(&mut writer, &mut history, &sample, 0);
        let title = format!(" title=\"a{}\",", "ä".repeat(511));
        assert!(lines.contains(&title), "{} bytes", lines.len());
    }

    #[test]
    fn lines_that_are_not_written_are_due_until_they_are() {
        let (mut writer, mut history) =
            (InfoWriter::new(Duration::from_secs(60)), History::default());
        let mut sample = full(Instant::now());
        sample.info = info("a");
        let gather =
            |writer: &mut InfoWriter, history: &mut History, sample: &Sample, is_written| {
                let (mut buffer, now) = (String::new(), Instant::now());
                let (vm, _) = history.update(sample);
                writer.write(&mut buffer, sample, vm, now, 17);
                writer.end(is_written);
                buffer
            };
        let lines = gather(&mut writer, &mut history, &sample, false);
        assert!(lines.contains(" title=\"a\","));
        assert_eq!(gather(&mut writer, &mut history, &sample, false), lines);
        assert_eq!(gather(&mut writer, &mut history, &sample, true), lines);
        assert_eq!(gather(&mut writer, &mut history, &sample, true), "");
        sample.info = info("b");
        let lines = gather(&mut writer, &mut history, &sample, false);
        assert!(lines.contains(" title=\"b\","));
        assert_eq!(gather(&mut writer, &mut history, &sample, true), lines);
        assert_eq!(gather(&mut writer, &mut history, &sample, true), "");
    }
}
