//! The counters of this host's network interfaces, all of them from one read.
//!
//! libvirt reads `/proc/net/dev` from its top for every NIC that it is asked for
//! (virNetDevTapInterfaceStats in its src/util/virnetdevtap.c), so what its net group costs grows
//! with the square of the number of taps. Here is the same reading, once for all. It shows our own
//! network namespace, which need not be libvirtd's: [`Taps::view`] tells.

use std::path::Path;
use std::time::Instant;
use std::{fs, io};

use smol_str::SmolStr;

use crate::maps::HashMap;

/// Received bytes, packets, errors, drops, then the same sent: the order of
/// [`NIC_FIELDS`](crate::sample::NIC_FIELDS).
pub type Counters = [u64; 8];

/// What `/proc/net/dev` said at one moment, in the host's own view.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Taps {
    /// Midpoint of the read.
    pub at: Instant,
    by_name: HashMap<SmolStr, Counters>,
}

/// From which side libvirt counts an interface's traffic.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// The guest's: what the host sent into a tap the guest received.
    Guest,
    /// The host's own: a macvtap (`<interface type='direct'>`).
    Host,
}

impl Taps {
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
        let by_name = lines.filter_map(|line| interface(std::str::from_utf8(line).ok()?));
        Self {
            at,
            by_name: by_name.collect(),
        }
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
            let each = from.iter().zip(libvirt).zip(&to);
            Some(
                each.into_iter()
                    .all(|((from, said), to)| from <= said && said <= to),
            )
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
        let taps = Taps::parse(TABLE, Instant::now());
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

    fn one(received: u64, sent: u64) -> Taps {
        let table = format!("v: {received} 1 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0");
        Taps::parse(table.as_bytes(), Instant::now())
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
