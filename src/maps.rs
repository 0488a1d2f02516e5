//! Maps and sets by a fast hash: a gather looks its VMs up by UUID again and again, and with the
//! standard library's SipHash that took 10,000 instructions a VM, twice as many. foldhash is seeded
//! at random, too, so that whoever chooses UUIDs cannot choose collisions.

pub use foldhash::{HashMap, HashSet};
