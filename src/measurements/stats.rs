//! `vm_stats`: one line for each object of a VM and each group of libvirt's statistics, under libvirt's own names.

use smol_str::SmolStr;

use crate::derive::device_tags;
use crate::line_protocol::{Line, Tags};
use crate::sample::{StatValue, Stats};

/// Appends the lines of a VM with these tags.
pub(crate) fn write(buffer: &mut String, stats: &[Stats], vm: &Tags, timestamp: i64) {
    // libvirt reports group by group.
    for of_group in stats.chunk_by(|one, next| one.group == next.group) {
        let devices = of_group.iter().filter_map(device);
        let mut devices = device_tags(("group", &of_group[0].group), devices).into_iter();
        for stats in of_group {
            let own = device(stats).and_then(|_| devices.next());
            let own = own.unwrap_or_else(|| tags(stats));
            let mut line = Line::begin_with(buffer, "vm_stats", vm, &own);
            for (key, value) in &stats.fields {
                match value {
                    StatValue::Integer(number) => line.signed(key, Some(*number)),
                    StatValue::Float(number) => line.float(key, Some(*number)),
                    StatValue::Text(text) => line.string(key, Some(text)),
                }
            }
            line.end(timestamp);
        }
    }
}

fn device(stats: &Stats) -> Option<&SmolStr> {
    let (tag, name) = stats.object.as_ref()?;
    (*tag == "device").then_some(name)
}

fn tags(stats: &Stats) -> Tags {
    let tags = Tags::new().with("group", &stats.group);
    match &stats.object {
        Some((tag, value)) => tags.with(tag, value),
        None => tags,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(group: &str, object: Option<(&'static str, &str)>, value: StatValue) -> Stats {
        Stats {
            group: group.into(),
            object: object.map(|(tag, value)| (tag, value.into())),
            fields: vec![("field".into(), value)],
        }
    }

    #[test]
    fn each_object_has_a_series_of_its_own() {
        let vm = Tags::new().with("name", "web");
        let device = |name| Some(("device", name));
        let all = [
            stats("cpu", None, StatValue::Float(0.5)),
            stats("net", None, StatValue::Integer(2)),
            stats("net", device("tap"), StatValue::Integer(-1)),
            // Its name cannot be written as it is.
            stats("net", device(r"tap\"), StatValue::Integer(1)),
            stats("net", Some(("index", "2")), StatValue::Integer(1)),
            stats("block", device("tap"), StatValue::Text("a\"b".into())),
            stats("a b,c=d", Some(("vcpu", "0")), StatValue::Integer(1)),
        ];
        let mut buffer = String::new();
        write(&mut buffer, &all, &vm, 17);
        let expected = [
            "group=cpu field=0.5",
            "group=net field=2i",
            "group=net,device=tap field=-1i",
            "group=net,device=tap-2 field=1i",
            "group=net,index=2 field=1i",
            r#"group=block,device=tap field="a\"b""#,
            r"group=a\ b\,c\=d,vcpu=0 field=1i",
        ]
        .map(|line| format!("vm_stats,name=web,{line} 17\n"));
        assert_eq!(buffer, expected.concat());
    }
}
