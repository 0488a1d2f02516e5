//! What comes from the workers, and what is told of it.

use std::sync::Arc;
use std::time::Duration;

use smol_str::SmolStr;

use super::pools::PoolRound;
use super::{HangingCall, InactiveVm, NodeFigures, Pool};
use crate::gather::worker::Failure;
use crate::libvirt::NodeInfo;

/// Where the workers put their replies.
pub type Sink = Arc<dyn Fn(Reply) + Send + Sync>;

/// What is asked beside the gather.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The VMs that are shut off.
    Inactive,
    /// The node.
    Node,
    /// Storage pools.
    Pools,
}

/// What a worker has found.
#[derive(Debug)]
pub enum Reply {
    /// A worker opens a connection, if it has none.
    Connecting(Part),
    /// A worker is connected, and makes a call of its request now.
    Begun(Part),
    /// The shut-off VMs.
    Inactive(Result<Vec<InactiveVm>, Failure>),
    /// The figures of the node.
    Node(Result<NodeFigures, Failure>),
    /// One pool; more follows.
    Pool(Pool),
    /// The end of a round over all pools, or a change after it.
    Pools(PoolRound),
}

/// What has come since the last lines.
#[derive(Debug, Default)]
pub struct Found {
    /// The pools that were asked.
    pub pools: Vec<Pool>,
    /// What is known of the node.
    pub node: Option<NodeInfo>,
    /// Its free memory, KiB.
    pub free_memory: Option<u64>,
}

/// How one worker fares.
#[derive(Debug, Default, Clone)]
pub struct Fares {
    /// How long it has not answered.
    pub silent: Option<Duration>,
    /// Whether it is connected meanwhile, so that a call of its hangs.
    pub is_connected: bool,
    /// Why it brought nothing.
    pub failure: Option<Failure>,
}

/// How the workers fare.
#[derive(Debug, Default, Clone)]
pub struct InventoryReport {
    /// That of shut-off VMs.
    pub inactive: Fares,
    /// That of the node.
    pub node: Fares,
    /// That of storage pools.
    pub pools: Fares,
    /// Calls for single pools that have not returned.
    pub hanging: Vec<HangingCall>,
    /// A thread that could not be started.
    pub not_started: Option<String>,
    /// libvirtd lets in fewer connections than are wanted, so these workers have none.
    pub is_closed: bool,
}

/// What has been found so far: for `--check`.
#[derive(Debug, Default, Clone)]
pub struct InventoryOverview {
    /// The number of shut-off VMs that pass the name filter; `None` if none were asked for, or no reply came.
    pub inactive: Option<usize>,
    /// The names of the pools; `None` likewise.
    pub pools: Option<Vec<SmolStr>>,
}
