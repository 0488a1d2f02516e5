//! How much a gather writes, counted in its lines.

use crate::maps::HashSet;

/// How much a gather writes.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Written {
    /// Lines, each a metric of Telegraf's.
    pub lines: usize,
    /// Fields of all lines.
    pub fields: usize,
    /// Distinct series of all gathers so far: a measurement with its tags.
    pub series: usize,
    /// Size in bytes.
    pub bytes: usize,
}

/// The series of several gathers: some lines are not in every one of them (vm_info).
#[derive(Debug, Default)]
pub struct Series(HashSet<String>);

impl Series {
    /// Counts what is in this buffer of whole lines, and the series of all buffers so far.
    pub fn count(&mut self, buffer: &str) -> Written {
        let mut all = Written {
            bytes: buffer.len(),
            ..Written::default()
        };
        for line in buffer.lines() {
            let end = end_of(line, b' ');
            let series = &line[..end];
            if !self.0.contains(series) {
                self.0.insert(series.to_owned());
            }
            all.lines += 1;
            all.fields += fields(line.get(end + 1..).unwrap_or_default());
        }
        all.series = self.0.len();
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
        let mut series = Series::default();
        let written = series.count(buffer);
        let expected = Written {
            lines: 3,
            fields: 6,
            series: 2,
            bytes: buffer.len(),
        };
        assert_eq!(written, expected);
        let none = Written {
            series: 2,
            ..Written::default()
        };
        assert_eq!(series.count(""), none, "the series stay");
    }
}
