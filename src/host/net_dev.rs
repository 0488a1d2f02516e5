//! The counters of this host's network interfaces, all of them from one read.
//!
//! libvirt reads `/proc/net/dev` from its top for every NIC that it is asked for
//! (virNetDevTapInterfaceStats in its src/util/virnetdevtap.c), so what its net group costs grows
//! with the square of the number of taps. Here is the same reading, once for all. It shows our own
//! network namespace, which need not be libvirtd's: [`NetDev::view`] tells.

use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use smol_str::SmolStr;

use super::lie_between;
use crate::maps::{HashMap, HashSet};

/// Received bytes, packets, errors, drops, then the same sent: the order of
/// [`NIC_FIELDS`](crate::sample::NIC_FIELDS).
pub type Counters = [u64; 8];

/// What `/proc/net/dev` said at one moment, in the host's own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct NetDev {
    /// Midpoint of the read.
    pub at: Instant,
    by_name: HashMap<SmolStr, Counters>,
    /// Names that another interface's name ends with.
    ends: HashSet<SmolStr>,
}

/// From which side libvirt counts an interface's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The guest's: what the host sent into a tap the guest received.
    Guest,
    /// The host's own: a macvtap (`<interface type='direct'>`).
    Host,
}

impl NetDev {
    /// Reads `net/dev` below `proc`, as every user may.
    ///
    /// # Errors
    /// The system's.
    pub fn read(proc: &Path) -> io::Result<Self> {
        let start = Instant::now();
        let table = fs::read(proc.join("net/dev"))?;
        Ok(Self::parse(&table, start + start.elapsed() / 2))
    }

    /// Reads the table. A line that is no interface's, or whose name is not UTF-8 (libvirt could
    /// not have it in its XML), is passed over.
    pub fn parse(table: &[u8], at: Instant) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        let by_name = lines.clone();
        let by_name = by_name.filter_map(|line| interface(std::str::from_utf8(line).ok()?));
        let by_name = by_name.collect();
        let ends = ends(&by_name, lines);
        Self { at, by_name, ends }
    }

    /// Whether libvirt may give this interface another one's counters: it takes the first line of the
    /// table whose name ends with the name (virNetDevTapInterfaceStats, 7.0 to 11.3 at least).
    pub fn is_end_of_another(&self, name: &str) -> bool {
        self.ends.contains(name)
    }

    /// An interface's counters; `None`: there is none of this name.
    pub fn counters(&self, name: &str, view: View) -> Option<Counters> {
        let [rb, rp, re, rd, tb, tp, te, td] = *self.by_name.get(name)?;
        Some(match view {
            View::Guest => [tb, tp, te, td, rb, rp, re, rd],
            View::Host => [rb, rp, re, rd, tb, tp, te, td],
        })
    }

    /// In which view libvirt's counters of an interface are ours, read between this reading and a
    /// `later` one. `None`: it is another interface, or one whose counters do not tell yet: all
    /// zero, say, as those of another namespace's interface of the same name may be.
    pub fn view(&self, later: &Self, name: &str, libvirt: &Counters) -> Option<View> {
        let lies_between = |view| {
            let (from, to) = (self.counters(name, view)?, later.counters(name, view)?);
            Some(lie_between(&from, libvirt, &to))
        };
        match (lies_between(View::Guest)?, lies_between(View::Host)?) {
            (true, false) => Some(View::Guest),
            (false, true) => Some(View::Host),
            (true, true) | (false, false) => None,
        }
    }
}

/// `  vnet0:  rx of bytes packets errs drop fifo frame compressed multicast, tx of the same`.
/// The kernel allows no colon and no space in a name (dev_valid_name).
fn interface(line: &str) -> Option<(SmolStr, Counters)> {
    let (name, figures) = line.split_once(':')?;
    let mut all = [0; 16];
    let mut figures = figures.split_ascii_whitespace();
    for place in &mut all {
        *place = figures.next()?.parse().ok()?;
    }
    let [rb, rp, re, rd, _, _, _, _, tb, tp, te, td, _, _, _, _] = all;
    Some((name.trim_start().into(), [rb, rp, re, rd, tb, tp, te, td]))
}

/// Of the names in the table, those that another one ends with.
fn ends<'t>(
    by_name: &HashMap<SmolStr, Counters>,
    lines: impl Iterator<Item = &'t [u8]>,
) -> HashSet<SmolStr> {
    // How long the names are that begin with this byte, a bit for each length (a name has at most 15
    // bytes): it spares nearly every end of a name the search.
    let mut lengths = [0_u16; 256];
    for name in by_name.keys() {
        if let (Some(first), 1..16) = (name.bytes().next(), name.len()) {
            lengths[usize::from(first)] |= 1 << name.len();
        }
    }
    let mut ends = HashSet::default();
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
                ends.insert(end.clone());
            }
        }
    }
    ends
}

/// Whether the interface of this name is a macvtap; `None`: `sys` does not show it. A macvtap has a
/// folder with its character device (the kernel's drivers/net/macvtap.c), no other interface has.
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
    fn what_the_host_sent_the_guest_received() {
        let taps = NetDev::parse(TABLE, Instant::now());
        let swapped = [21, 22, 23, 24, 11, 12, 13, 14];
        assert_eq!(taps.counters("vnet1", View::Guest), Some(swapped));
        let plain = [11, 12, 13, 14, 21, 22, 23, 24];
        assert_eq!(taps.counters("vnet1", View::Host), Some(plain));
        let odd = [5, 6, 7, 8, u64::MAX, 2, 3, 4];
        assert_eq!(taps.counters("tap,odd=1", View::Guest), Some(odd));
        for none in ["net1", "short", "", "face |bytes    packets errs drop"] {
            assert_eq!(taps.counters(none, View::Host), None, "{none:?}");
        }
    }

    #[test]
    fn a_name_that_is_the_end_of_anothers_is_known() {
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
        let taps = NetDev::parse(&table, Instant::now());
        let ends: Vec<&[u8]> = names
            .into_iter()
            .filter(|name| std::str::from_utf8(name).is_ok_and(|name| taps.is_end_of_another(name)))
            .collect();
        assert_eq!(ends, [&b"web-0"[..], b"0", b"xtap", b"t"]);
        assert!(
            !taps.is_end_of_another("net1"),
            "there is none of this name"
        );
    }

    #[test]
    fn a_macvtap_is_told_by_its_folder() {
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
    fn libvirts_figures_lie_between_ours_and_tell_its_view() {
        let (before, after) = (one(50, 5), one(60, 9));
        let said = |received, sent| [received, 1, 0, 0, sent, 1, 0, 0];
        for (received, sent, view) in [
            (5, 50, Some(View::Guest)),
            (9, 60, Some(View::Guest)),
            (50, 5, Some(View::Host)),
            (4, 50, None),
            (10, 50, None),
            (5, 49, None),
            (61, 9, None),
        ] {
            let found = before.view(&after, "v", &said(received, sent));
            assert_eq!(found, view, "{received} {sent}");
        }
        assert_eq!(before.view(&after, "w", &said(5, 50)), None);
    }

    #[test]
    fn what_looks_alike_from_both_sides_tells_nothing() {
        for (before, after) in [(one(0, 0), one(0, 0)), (one(1, 2), one(9, 9))] {
            assert_eq!(before.view(&after, "v", &[5, 1, 0, 0, 5, 1, 0, 0]), None);
            assert_eq!(before.view(&after, "v", &[0, 1, 0, 0, 0, 1, 0, 0]), None);
        }
    }
}
