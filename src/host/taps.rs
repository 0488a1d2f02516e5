//! The counters of this host's network interfaces, all of them from one read.
//!
//! libvirt reads `/proc/net/dev` from its top for every NIC that it is asked for
//! (virNetDevTapInterfaceStats in its src/util/virnetdevtap.c), so what its net group costs grows
//! with the square of the number of taps. Here is the same reading, once for all. It holds only
//! for taps in our own network namespace: see [`sockets_of`] and [`Taps::agree`].

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::{fs, io};

/// Received bytes, packets, errors, drops, then the same sent: the order of
/// [`NIC_FIELDS`](crate::sample::NIC_FIELDS).
pub type Counters = [u64; 8];

/// What `/proc/net/dev` said at one moment, in the host's own view.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Taps {
    by_name: HashMap<String, Counters>,
}

impl Taps {
    /// Reads `net/dev` below `proc`, as every user may.
    ///
    /// # Errors
    /// The system's.
    pub fn read(proc: &Path) -> io::Result<Self> {
        Ok(Self::parse(&fs::read(proc.join("net/dev"))?))
    }

    /// Reads the table. A line that is no interface's, or whose name is not UTF-8 (libvirt could
    /// not have it in its XML), is passed over.
    pub fn parse(table: &[u8]) -> Self {
        let lines = table.split(|byte| *byte == b'\n');
        let by_name = lines.filter_map(|line| interface(std::str::from_utf8(line).ok()?));
        Self {
            by_name: by_name.collect(),
        }
    }

    /// How many interfaces there are, other than taps among them.
    pub fn len(&self) -> usize {
        self.by_name.len()
    }

    /// Whether there are none, not even `lo`.
    pub fn is_empty(&self) -> bool {
        self.by_name.is_empty()
    }

    /// The counters of a VM's NIC as libvirt gives them, from the guest's side: what the host sent
    /// into a tap the guest received. `kind` is the XML's `<interface type>`.
    ///
    /// `None` where libvirt is to be asked: no such interface here, or one of a kind that libvirt
    /// reads elsewhere (vhostuser: from Open vSwitch) or does not swap (direct: a macvtap).
    pub fn of_nic(&self, name: &str, kind: &str) -> Option<Counters> {
        if !matches!(kind, "bridge" | "network" | "ethernet") {
            return None;
        }
        let [rb, rp, re, rd, tb, tp, te, td] = *self.by_name.get(name)?;
        Some([tb, tp, te, td, rb, rp, re, rd])
    }

    /// Whether what libvirt said of a NIC lies between this reading and a `later` one: the same
    /// interface then, unless one that stood as still has the same name in libvirtd's namespace.
    pub fn agree(&self, later: &Self, name: &str, kind: &str, libvirt: &Counters) -> bool {
        let (Some(from), Some(to)) = (self.of_nic(name, kind), later.of_nic(name, kind)) else {
            return false;
        };
        (from.iter().zip(libvirt).zip(&to)).all(|((from, said), to)| from <= said && said <= to)
    }
}

/// `  vnet0:  rx of bytes packets errs drop fifo frame compressed multicast, tx of the same`.
/// The kernel allows no colon and no space in a name (dev_valid_name).
fn interface(line: &str) -> Option<(String, Counters)> {
    let (name, figures) = line.split_once(':')?;
    let mut all = [0; 16];
    let mut figures = figures.split_ascii_whitespace();
    for place in &mut all {
        *place = figures.next()?.parse().ok()?;
    }
    let [rb, rp, re, rd, _, _, _, _, tb, tp, te, td, _, _, _, _] = all;
    Some((name.trim_start().into(), [rb, rp, re, rd, tb, tp, te, td]))
}

/// The ids of the QEMU VMs that a libvirtd in our own network namespace started: `net/unix` below
/// `proc` lists that namespace's sockets alone, for every user, and libvirtd makes the monitor's
/// socket of a VM, `.../domain-ID-NAME/monitor.sock`, as it makes its taps.
///
/// A libvirtd elsewhere may have a VM of the same id, so this rules out, and
/// [`Taps::agree`] confirms.
///
/// # Errors
/// The system's.
pub fn sockets_of(proc: &Path) -> io::Result<HashSet<u32>> {
    Ok(ids(&fs::read(proc.join("net/unix"))?))
}

fn ids(table: &[u8]) -> HashSet<u32> {
    let id = |line: &[u8]| {
        let line = String::from_utf8_lossy(line);
        let folder = line.strip_suffix("/monitor.sock")?.rsplit('/').next()?;
        let (id, _) = folder.strip_prefix("domain-")?.split_once('-')?;
        id.parse().ok()
    };
    table.split(|byte| *byte == b'\n').filter_map(id).collect()
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
        let taps = Taps::parse(TABLE);
        let swapped = Some([21, 22, 23, 24, 11, 12, 13, 14]);
        assert_eq!(taps.of_nic("vnet1", "bridge"), swapped);
        assert_eq!(taps.of_nic("vnet1", "network"), swapped);
        let odd = Some([5, 6, 7, 8, u64::MAX, 2, 3, 4]);
        assert_eq!(taps.of_nic("tap,odd=1", "ethernet"), odd);
        assert_eq!(taps.len(), 3, "neither head nor broken lines");
    }

    #[test]
    fn libvirt_is_asked_for_what_is_not_ours_to_say() {
        let taps = Taps::parse(TABLE);
        for kind in ["direct", "vhostuser", "hostdev", "user", ""] {
            assert_eq!(taps.of_nic("vnet1", kind), None, "{kind}");
        }
        assert_eq!(taps.of_nic("net1", "bridge"), None, "the end of a name");
        assert_eq!(taps.of_nic("short", "bridge"), None);
    }

    #[test]
    fn libvirts_figures_lie_between_ours() {
        let one =
            |sent: u64| Taps::parse(format!("v: 0 0 0 0 0 0 0 0 {sent} 1 0 0 0 0 0 0").as_bytes());
        let said = |received| [received, 1, 0, 0, 0, 0, 0, 0];
        let (before, after) = (one(5), one(9));
        for (received, agrees) in [(4, false), (5, true), (9, true), (10, false)] {
            let found = before.agree(&after, "v", "bridge", &said(received));
            assert_eq!(found, agrees, "{received}");
        }
        assert!(!before.agree(&after, "w", "bridge", &said(5)));
        assert!(!before.agree(&Taps::default(), "v", "bridge", &said(5)));
    }

    #[test]
    fn a_monitor_s_socket_names_the_vm() {
        let table = b"Num       RefCount Protocol Flags    Type St Inode Path
0000000000000000: 00000002 00000000 00010000 0001 01 1 /run/libvirt/libvirt-sock-ro
0000000000000000: 00000002 00000000 00010000 0001 01 2 /var/lib/libvirt/qemu/domain-1-web/monitor.sock
0000000000000000: 00000003 00000000 00000000 0001 03 3 /var/lib/libvirt/qemu/domain-1-web/monitor.sock
0000000000000000: 00000002 00000000 00010000 0001 01 4 /home/u v/.config/libvirt/qemu/lib/domain-23-a-b c\xff/monitor.sock
0000000000000000: 00000002 00000000 00010000 0001 01 5 /run/domain-x-web/monitor.sock
0000000000000000: 00000002 00000000 00010000 0001 01 6 @domain-7-web/monitor.sock2
0000000000000000: 00000003 00000000 00000000 0001 03 7
";
        assert_eq!(ids(table), HashSet::from([1, 23]));
    }
}
