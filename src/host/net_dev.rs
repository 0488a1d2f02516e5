//! The counters of all network interfaces of this host, from one read of `/proc/net/dev`.
//!
//! For its net group libvirt reads this file from its top once for every NIC
//! (virNetDevTapInterfaceStats in its src/util/virnetdevtap.c), so the cost grows with the square of
//! the number of taps. Here it is read once for all NICs. It shows our own network namespace, which is not
//! necessarily libvirtd's: [`NetDev::perspective`] tells by the counters.

use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use smol_str::SmolStr;

use super::{lie_between, read_table};
use crate::maps::{HashMap, HashSet};
use crate::sample::NIC_COUNTERS;

/// Bytes, packets, errors and drops received, then the same sent, in the order of
/// [`NIC_FIELDS`](crate::sample::NIC_FIELDS).
pub type NicCounters = [u64; NIC_COUNTERS];

/// The content of `/proc/net/dev` at one moment, counted from the host's side.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDev {
    /// The midpoint of the read.
    pub at: Instant,
    by_name: HashMap<SmolStr, NicCounters>,
    /// The names with which the name of another interface ends.
    suffixes: HashSet<SmolStr>,
}

/// The side from which libvirt counts the traffic of an interface.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Perspective {
    /// The guest's side: what the host sent into a tap was received by the guest.
    Guest,
    /// The host's side, as for a macvtap (`<interface type='direct'>`).
    Host,
}

impl NetDev {
    /// Reads `net/dev` in the proc file system mounted at `proc`. Every user may read it.
    ///
    /// # Errors
    /// The error of the system.
    pub fn read(proc: &Path) -> io::Result<Self> {
        let start = Instant::now();
        let table = read_table(&proc.join("net/dev"))?;
        Ok(Self::parse(&table, start + start.elapsed() / 2))
    }

    /// Parses the table. Lines are skipped if they are not those of an interface, or if the name is not
    /// UTF-8, for libvirt could not have such a name in its XML.
    pub fn parse(table: &[u8], at: Instant) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        let by_name = lines
            .clone()
            .filter_map(|line| interface(std::str::from_utf8(line).ok()?))
            .collect();
        let suffixes = suffixes(&by_name, lines);
        Self {
            at,
            by_name,
            suffixes,
        }
    }

    /// Whether libvirt may return the counters of another interface for this one. It takes the first line
    /// of the table whose name ends with the given name (virNetDevTapInterfaceStats, at least 7.0 to
    /// 11.3).
    pub fn is_suffix_of_another(&self, name: &str) -> bool {
        self.suffixes.contains(name)
    }

    /// The counters of an interface, seen from one side. `None` if there is no interface of this name.
    pub fn counters(&self, name: &str, perspective: Perspective) -> Option<NicCounters> {
        let [rb, rp, re, rd, tb, tp, te, td] = *self.by_name.get(name)?;
        Some(match perspective {
            Perspective::Guest => [tb, tp, te, td, rb, rp, re, rd],
            Perspective::Host => [rb, rp, re, rd, tb, tp, te, td],
        })
    }

    /// From which side libvirt counts an interface, if it counts the one that is read here. `libvirt` are
    /// its counters, taken between this reading and a `later` one.
    ///
    /// `None` if it is another interface, or if the counters do not tell yet. If they are all zero, for
    /// example, those of an interface with the same name in another namespace may be zero, too.
    pub fn perspective(
        &self,
        later: &Self,
        name: &str,
        libvirt: &NicCounters,
    ) -> Option<Perspective> {
        let lies_between = |perspective| {
            let (from, to) = (
                self.counters(name, perspective)?,
                later.counters(name, perspective)?,
            );
            Some(lie_between(&from, libvirt, &to))
        };
        match (
            lies_between(Perspective::Guest)?,
            lies_between(Perspective::Host)?,
        ) {
            (true, false) => Some(Perspective::Guest),
            (false, true) => Some(Perspective::Host),
            (true, true) | (false, false) => None,
        }
    }
}

/// Parses the line of an interface: `  vnet0:` and 16 figures, bytes, packets, errs, drop, fifo, frame,
/// compressed and multicast received, then eight that begin with the same four, sent. The kernel
/// allows neither a colon nor a space in a name (dev_valid_name).
fn interface(line: &str) -> Option<(SmolStr, NicCounters)> {
    let (name, figures) = line.split_once(':')?;
    let mut all = [0; 16];
    let mut figures = figures.split_ascii_whitespace();
    for place in &mut all {
        *place = figures.next()?.parse().ok()?;
    }
    let [rb, rp, re, rd, _, _, _, _, tb, tp, te, td, _, _, _, _] = all;
    Some((name.trim_start().into(), [rb, rp, re, rd, tb, tp, te, td]))
}

/// The names in the table with which another name ends.
fn suffixes<'t>(
    by_name: &HashMap<SmolStr, NicCounters>,
    lines: impl Iterator<Item = &'t [u8]>,
) -> HashSet<SmolStr> {
    // For each byte the lengths of the names that begin with it, one bit a length (a name has at most 15
    // bytes). Nearly every end of a name is ruled out by this without a search.
    let mut lengths = [0_u16; 256];
    for name in by_name.keys() {
        if let (Some(first), 1..16) = (name.bytes().next(), name.len()) {
            lengths[usize::from(first)] |= 1 << name.len();
        }
    }
    let mut suffixes = HashSet::default();
    for line in lines {
        let Some(colon) = line.iter().position(|byte| *byte == b':') else {
            continue;
        };
        let name = line[..colon].trim_ascii_start();
        for start in 1..name.len() {
            let end = &name[start..];
            if end.len() < 16
                && lengths[usize::from(end[0])] & 1 << end.len() != 0
                && let Ok(end) = std::str::from_utf8(end)
                && let Some((end, _)) = by_name.get_key_value(end)
            {
                suffixes.insert(end.clone());
            }
        }
    }
    suffixes
}

/// Whether the interface of this name is a macvtap. `None` if there is no such interface in the sysfs
/// mounted at `sys`. Only a macvtap has a folder with its character device (the kernel's
/// drivers/net/macvtap.c).
pub fn is_macvtap(sys: &Path, name: &str) -> Option<bool> {
    let interface = sys.join("class/net").join(name);
    fs::metadata(&interface).ok()?;
    Some(interface.join("macvtap").is_dir())
}

#[cfg(test)]
mod tests {
    use super::*;

    const TABLE: &[u8] = b"Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
    lo:       0       0    0    0    0     0          0         0        0       0    0    0    0     0       0          0
 vnet1:      11      12   13   14    0     0          0         0       21      22   23   24    0     0       0          0
tap,odd=1:18446744073709551615 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0
short: 1 2 3
\xff\xfe: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16
";

    #[test]
    fn what_the_host_sent_was_received_by_the_guest() {
        let net_dev = NetDev::parse(TABLE, Instant::now());
        let swapped = [21, 22, 23, 24, 11, 12, 13, 14];
        assert_eq!(net_dev.counters("vnet1", Perspective::Guest), Some(swapped));
        let plain = [11, 12, 13, 14, 21, 22, 23, 24];
        assert_eq!(net_dev.counters("vnet1", Perspective::Host), Some(plain));
        let odd = [5, 6, 7, 8, u64::MAX, 2, 3, 4];
        assert_eq!(net_dev.counters("tap,odd=1", Perspective::Guest), Some(odd));
        for none in ["net1", "short", "", "face |bytes    packets errs drop"] {
            assert_eq!(net_dev.counters(none, Perspective::Host), None, "{none:?}");
        }
    }

    #[test]
    fn names_that_are_suffixes_of_others_are_found() {
        let row =
            |name: &[u8]| [b"  ", name, b": 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\n"].concat();
        let names: [&[u8]; 9] = [
            b"dmz-web-0",
            b"web-0",
            b"0",
            b"vnet1",
            b"vnet11",
            b"\xffxtap",
            b"xtap",
            b"\xc3\xa9t",
            b"t",
        ];
        let table = names.map(row).concat();
        let net_dev = NetDev::parse(&table, Instant::now());
        let suffixes: Vec<&[u8]> = names
            .into_iter()
            .filter(|name| {
                std::str::from_utf8(name).is_ok_and(|name| net_dev.is_suffix_of_another(name))
            })
            .collect();
        assert_eq!(suffixes, [&b"web-0"[..], b"0", b"xtap", b"t"]);
        assert!(
            !net_dev.is_suffix_of_another("net1"),
            "there is no interface of this name"
        );
    }

    #[test]
    fn a_macvtap_is_recognized_by_its_folder() {
        let sys = tempfile::tempdir().unwrap();
        let net = sys.path().join("class/net");
        fs::create_dir_all(net.join("mv0/macvtap/tap7")).unwrap();
        fs::create_dir_all(net.join("tap0")).unwrap();
        assert_eq!(is_macvtap(sys.path(), "mv0"), Some(true));
        assert_eq!(is_macvtap(sys.path(), "tap0"), Some(false));
        assert_eq!(is_macvtap(sys.path(), "tap1"), None);
    }

    fn one(received: u64, sent: u64) -> NetDev {
        let table = format!("v: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0");
        NetDev::parse(table.as_bytes(), Instant::now())
    }

    #[test]
    fn libvirts_figures_lie_between_ours_and_show_its_perspective() {
        let (before, after) = (one(50, 5), one(60, 9));
        let said = |received, sent| [received, 1, 0, 0, sent, 1, 0, 0];
        for (received, sent, perspective) in [
            (5, 50, Some(Perspective::Guest)),
            (9, 60, Some(Perspective::Guest)),
            (50, 5, Some(Perspective::Host)),
            (4, 50, None),
            (10, 50, None),
            (5, 49, None),
            (61, 9, None),
        ] {
            let found = before.perspective(&after, "v", &said(received, sent));
            assert_eq!(found, perspective, "{received} {sent}");
        }
        assert_eq!(before.perspective(&after, "w", &said(5, 50)), None);
    }

    #[test]
    fn counters_that_match_both_sides_show_no_perspective() {
        for (before, after) in [(one(0, 0), one(0, 0)), (one(1, 2), one(9, 9))] {
            assert_eq!(
                before.perspective(&after, "v", &[5, 1, 0, 0, 5, 1, 0, 0]),
                None
            );
            assert_eq!(
                before.perspective(&after, "v", &[0, 1, 0, 0, 0, 1, 0, 0]),
                None
            );
        }
    }
}
