//! How much a gather writes, counted in its lines.

use std::collections::BTreeMap;

use crate::maps::HashSet;

/// How much a gather writes in which the lines of all measurements are due.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines, each a metric of Telegraf's.
    pub lines: usize,
    /// Fields of all lines.
    pub fields: usize,
    /// Distinct series of all gathers: a measurement with its tags.
    pub series: usize,
    /// Size in bytes.
    pub bytes: usize,
}

/// What several gathers write, by measurement. Not every gather has lines of each: those of vm_info come at times, those of
/// vm_features from the second gather on.
#[derive(Debug, Default)]
pub struct WrittenByMeasurement(BTreeMap<String, Measurement>);

/// The lines of one measurement.
#[derive(Debug, Default)]
struct Measurement {
    /// Those of all gathers so far.
    series: HashSet<String>,
    /// Those of this gather.
    now: Size,
    /// The most of each that a gather had so far.
    most: Size,
}

#[derive(Debug, Clone, Copy, Default)]
struct Size {
    lines: usize,
    fields: usize,
    bytes: usize,
}

impl WrittenByMeasurement {
    /// Counts what is in the buffer of a gather, which has whole lines.
    pub fn add(&mut self, buffer: &str) {
        for line in buffer.split_inclusive('\n') {
            let name = line.split([',', ' ']).next().unwrap_or_default();
            let measurement = match self.0.get_mut(name) {
                Some(known) => known,
                None => self.0.entry(name.to_owned()).or_default(),
            };
            let end = end_of(line, b' ');
            let series = &line[..end];
            if !measurement.series.contains(series) {
                measurement.series.insert(series.to_owned());
            }
            measurement.now.lines += 1;
            measurement.now.fields += fields(line.get(end + 1..).unwrap_or_default());
            measurement.now.bytes += line.len();
        }
        for measurement in self.0.values_mut() {
            let (now, most) = (std::mem::take(&mut measurement.now), &mut measurement.most);
            most.lines = most.lines.max(now.lines);
            most.fields = most.fields.max(now.fields);
            most.bytes = most.bytes.max(now.bytes);
        }
    }

    /// The most lines of this measurement that a gather had.
    pub fn lines_of(&self, measurement: &str) -> usize {
        self.0.get(measurement).map_or(0, |it| it.most.lines)
    }

    /// How much a gather writes in which all measurements are due but those that `max_lines` leaves out.
    pub fn all_but(&self, left_out: &[&str]) -> Written {
        let mut all = Written::default();
        let written = self.0.iter();
        for (_, it) in written.filter(|(name, _)| !left_out.contains(&name.as_str())) {
            all.lines += it.most.lines;
            all.fields += it.most.fields;
            all.series += it.series.len();
            all.bytes += it.most.bytes;
        }
        all
    }
}

/// Where this byte first stands outside of quotes and not behind a backslash, or the end.
fn end_of(text: &str, wanted: u8) -> usize {
    let (mut escaped, mut quoted) = (false, false);
    for (place, byte) in text.bytes().enumerate() {
        match byte {
            _ if escaped => escaped = false,
            b'\\' => escaped = true,
            b'"' if wanted != b' ' => quoted = !quoted,
            byte if byte == wanted && !quoted => return place,
            _ => {}
        }
    }
    text.len()
}

/// How many fields stand before the timestamp.
fn fields(mut text: &str) -> usize {
    let mut count = 0;
    while !text.is_empty() {
        count += 1;
        text = text.get(end_of(text, b',') + 1..).unwrap_or_default();
    }
    count
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_fields_and_series_are_counted_whatever_the_names() {
        let buffer = concat!(
            "vm_metrics,name=a\\ b\\,c,uuid=1 state=\"run, \\\" ning\",cpu_count=2i 17\n",
            "vm_metrics,name=\"a,uuid=2 state=\"x\" 17\n",
            "vm_metrics,name=\"a,uuid=2 state=\"y\",b=1i,c=2i 18\n",
        );
        let mut written = WrittenByMeasurement::default();
        written.add(buffer);
        let expected = Written {
            lines: 3,
            fields: 6,
            series: 2,
            bytes: buffer.len(),
        };
        assert_eq!(written.all_but(&[]), expected);
        written.add("");
        assert_eq!(written.all_but(&[]), expected);
    }

    #[test]
    fn each_measurement_counts_by_the_gather_that_had_most_of_it() {
        let (info, metrics) = ("vm_info,n=1 a=1i,b=2i 17\n", "vm_metrics,n=1 a=1i 17\n");
        let other = "vm_metrics,n=2 a=1i 17\n";
        let mut written = WrittenByMeasurement::default();
        for gather in [
            [info, metrics].concat(),
            [metrics, other].concat(),
            other.into(),
        ] {
            written.add(&gather);
        }
        let expected = |lines, fields, series, bytes| Written {
            lines,
            fields,
            series,
            bytes,
        };
        let both = metrics.len() + other.len();
        let all = expected(3, 4, 3, info.len() + both);
        assert_eq!(written.all_but(&[]), all);
        assert_eq!(written.all_but(&["vm_info"]), expected(2, 2, 2, both));
        let lines = ["vm_metrics", "vm_info", "vm_stats"].map(|name| written.lines_of(name));
        assert_eq!(lines, [2, 1, 0]);
    }
}
