//! Storage pools: state and sizes as of each pool's last refresh. Nothing here asks for a refresh.
//!
//! libvirtd holds a pool's lock while it refreshes the pool, so with storage that does not answer a call for this pool hangs,
//! and so does the list of all pools. The other pools answer. So each pool gets a call of its own; one that does not return
//! is left to hang, and the rest is asked by another worker.

mod reader;
mod session;

use std::time::Instant;

use smol_str::SmolStr;
use uuid::Uuid;

use crate::gather::worker::Failure;
use crate::libvirt::PoolInfo;

pub(super) use reader::start;

/// How many calls for pools may hang. Each takes up a worker of libvirtd. While so many hang, no pool is asked.
pub const MOST_HANGING: usize = 2;

/// A pool.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pool {
    /// Its UUID.
    pub uuid: Uuid,
    /// Its name.
    pub name: SmolStr,
    /// Its type in the XML (dir, logical, rbd, ...).
    pub kind: SmolStr,
    /// Its state and sizes.
    pub info: PoolInfo,
}

/// A call that does not return.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct HangingCall {
    /// The pool's name; `None`: the list of all pools.
    pub pool: Option<SmolStr>,
    /// When the call was made.
    pub since: Instant,
}

/// What is known after all pools were asked, or after a call has returned late.
#[derive(Debug)]
pub struct PoolRound {
    /// Whether the request that began the round is answered with this.
    pub is_over: bool,
    /// The names of all pools; `None`: there has been no list yet.
    pub names: Option<Vec<SmolStr>>,
    /// The calls that hang.
    pub hanging: Vec<HangingCall>,
    /// Why the list or a pool brought nothing; the last one.
    pub failure: Option<Failure>,
}
