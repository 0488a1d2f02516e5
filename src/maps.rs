//! Maps and sets by a fast hash: a gather looks its VMs up by UUID again and again, and the standard
//! library's SipHash took 4,300 instructions a VM more. That is there for keys that an attacker may
//! choose by the million; a host has some thousand VMs.

pub use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
