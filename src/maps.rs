//! Maps and sets with a fast hash. A gather looks up each VM by its UUID many times, and the standard
//! library's SipHash took 4,300 instructions per VM more. SipHash protects maps whose keys an attacker can
//! choose by the million; a host has some thousand VMs.

pub use rustc_hash::{FxHashMap as HashMap, FxHashSet as HashSet};
